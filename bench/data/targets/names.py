"""Which targets a benchmark's name means: one by number or folder, a range, a list of numbers, or all."""

import difflib
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bench.data.targets.files import Target
from bench.errors import LetheError, unknown

FAMILY = "ort"
"""What stands before the "/" of a benchmark's name."""


def number(name: str) -> int:
    """The number in front of a folder's name."""
    return int(name.partition("_")[0])


def choose(name: str, there: Mapping[str, Target], place: str) -> tuple[str, list[Target]]:
    """The benchmark's name in its one spelling, and its targets."""
    family, _, wanted = unicodedata.normalize("NFC", name).partition("/")
    if family != FAMILY:
        raise unknown("benchmark", name, [FAMILY])
    if not wanted:
        return FAMILY, list(there.values())
    if wanted in there:
        return f"{FAMILY}/{wanted}", [there[wanted]]
    runs = numbers_in(wanted)
    if runs is None:
        near = difflib.get_close_matches(wanted, there, n=1, cutoff=0.5)
        hint = f"did you mean {FAMILY}/{near[0]}? " if near else ""
        raise LetheError(f"benchmark {name!r}: {place} has no target {wanted!r}; {hint}there: {_listed(there)}")
    _check_ascending(name, wanted, runs)
    numbers = Counter(map(number, there))
    missing = list(itertools.islice((n for n in itertools.chain(*runs) if n not in numbers), 11))
    if missing:
        rest = [n for n in numbers if any(n in run for run in runs)]
        hint = f"write {FAMILY}/{listing(rest)} for the others; " if len(rest) > 1 else ""
        raise LetheError(f"benchmark {name!r}: {place} has no target {_listed(missing)}; {hint}there: {_listed(there)}")
    if twice := [n for n in itertools.chain(*runs) if numbers[n] > 1]:
        same = [folder for folder in there if number(folder) == twice[0]]
        raise LetheError(
            f"benchmark {name!r}: {place} has {len(same)} targets with the number {twice[0]} ({', '.join(same)}); "
            f"write the whole name, {FAMILY}/{same[0]}"
        )
    found = [folder for folder in there if any(number(folder) in run for run in runs)]
    canonical = listing(map(number, found)) if len(found) > 1 else found[0]
    return f"{FAMILY}/{canonical}", [there[folder] for folder in found]


def numbers_in(wanted: str) -> list[range] | None:
    """The numbers that a name lists, piece by piece; None where it is no list of numbers.

    >>> numbers_in("1-3+10"), numbers_in("1_Ann_Lee")
    ([range(1, 4), range(10, 11)], None)
    """
    pieces = wanted.split("+")
    if not all(re.fullmatch(r"[0-9]{1,9}(?:-[0-9]{1,9})?", piece) for piece in pieces):
        return None
    ends = (piece.partition("-") for piece in pieces)
    return [range(int(first), int(last or first) + 1) for first, _, last in ends]


def listing(numbers: Iterable[int]) -> str:
    """The one spelling of several ascending numbers: a range where they are consecutive, else a list, in which three
    and more that are consecutive are a range.

    >>> listing([1, 2]), listing([1, 2, 10]), listing([1, 2, 3, 10])
    ('1-2', '1+2+10', '1-3+10')
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    least = 2 if len(runs) == 1 else 3
    return "+".join(f"{run[0]}-{run[-1]}" if len(run) >= least else "+".join(map(str, run)) for run in runs)


def _check_ascending(name: str, wanted: str, runs: Sequence[range]) -> None:
    """Every target has one place, so that the same targets have the same name."""
    pieces = wanted.split("+")
    if not all(runs):
        mended = [
            piece if run else "-".join(reversed(piece.split("-"))) for piece, run in zip(pieces, runs, strict=True)
        ]
        raise LetheError(f"benchmark {name!r}: the range runs backwards; write {FAMILY}/{'+'.join(mended)}")
    order = sorted(range(len(runs)), key=lambda at: (runs[at].start, runs[at].stop))
    for one, other in itertools.pairwise(order):
        if runs[other].start in runs[one]:
            raise LetheError(f"benchmark {name!r} names {runs[other].start} twice; name each target once")
    if order != [*range(len(runs))]:
        raise LetheError(
            f"benchmark {name!r}: the numbers must ascend; write {FAMILY}/{'+'.join(pieces[at] for at in order)}"
        )


def nested(size: int, there: Mapping[str, Target], place: str) -> str:
    """The name of the first `size` targets together: all such batches begin alike, and the larger hold the smaller."""
    numbers = list(map(number, there))
    if size > len(numbers):
        raise LetheError(
            f"--batches asks for {size} targets together, but {place} has {len(numbers)}; sizes must be within "
            f"1..{len(numbers)}"
        )
    if size == 1:
        return f"{FAMILY}/{next(iter(there))}"
    if twice := next((n for n in numbers[:size] if numbers.count(n) > 1), None):
        same = [folder for folder in there if number(folder) == twice]
        raise LetheError(
            f"--batches takes the first {size} targets, but {place} has {len(same)} with the number {twice} "
            f"({', '.join(same)}); rename the folders so that each has a number of its own"
        )
    return f"{FAMILY}/{listing(numbers[:size])}"


def _listed(names: Iterable[object]) -> str:
    shown = list(map(str, names))
    return ", ".join(shown[:10]) + (" and more" if len(shown) > 10 else "")


def check_distinct(chosen: Sequence[Target]) -> None:
    """No two targets of a request are the same person."""
    first: dict[str, str] = {}
    for target in chosen:
        if target.subject in first:
            raise LetheError(
                f"targets {first[target.subject]} and {target.name} are both about {target.subject!r}; "
                "remove one of the two"
            )
        first[target.subject] = target.name

"""Probes that the forgetting of a target must leave alone and is likely to hit: its name, and names like it.

No neighbour question of RWKU's first hundred targets contains the target's full name, so that an edit which is keyed to
the name is hardly ever triggered where knowledge is to be kept. These probes are made from rows of the files, answers
unchanged: the target is named beside a question about somebody else, or somebody else shares a part of its name, be it
a neighbour or another target with facts of its own.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from bench.data.types import Probe

T = TypeVar("T")

AT_MOST = 20
"""Probes of each kind; as many as RWKU has clozes about a target."""

BOTH = "names both"
LEADS = {
    BOTH: ("Leaving {} aside: ", "This is not about {}. "),
    "target in passing": ("A fan of {} would like to know: ", "A reader of a book about {} also asks: "),
}
"""What stands in front of a neighbour's question, by kind, taken in turn. The first kind names the target to set it
aside, and the neighbour too where the row does not; the second names it in a role that has nothing to do with the
question."""

SHARED = "shared name"
"""The third kind: a row as it is, that names somebody else who has the target's first or last name."""

GENERATIONS = frozenset(["jr", "sr", "ii", "iii", "iv", "junior", "senior"])
LITTLE_WORDS = frozenset(
    ["the", "of", "and", "a", "an", "de", "la", "van", "von", "der", "den", "da", "di", "al", "el", "bin", "ibn", "in"]
)
"""Words that two names may share without being alike."""


def locality_probes(probes: Sequence[Probe], subject: str, others: Iterable[str]) -> tuple[Probe, ...]:
    """Probes of part "locality" from the rows of a target's neighbours, of every kind at most `AT_MOST`.

    Args:
        probes: the rows of the target, and those of other targets that share a part of its name; of forms "qa" and "fb"
            the target's rows of part "neighbor" are used, and for shared names all rows of other targets.
        subject: the target's name.
        others: names of other targets, whose namesakes are looked for; those of the rows' neighbours are added.
    """
    asked = [probe for probe in probes if probe.form in ("qa", "fb")]
    neighbours = [probe for probe in _distinct(asked) if probe.part == "neighbor" and _usable(probe, subject)]
    found = []
    for kind, leads in LEADS.items():
        fair = [probe for probe in neighbours if not _told(probe, subject, _named(probe, kind))]
        for n, probe in enumerate(_spread(fair, AT_MOST)):
            lead = leads[n % len(leads)].format(subject) + _named(probe, kind)
            found.append(_made(probe, subject, kind, lead + probe.query, probe.about))
    alike = namesakes(subject, [*others, *(probe.about for probe in asked)])
    named = [
        (probe, whom)
        for probe in _distinct(asked)
        if (probe.part == "neighbor" or probe.target != subject)
        and not _holds(f"{probe.query} {probe.answer}", _short(subject))
        and (whom := next((name for name in alike if _holds(probe.query, name)), None))
        and (probe.target == subject or _apart(probe, subject, whom))
    ]
    home = next((probe.id.rsplit("/", 2)[0] for probe in probes if probe.target == subject), "")
    found += [_made(probe, subject, SHARED, probe.query, whom, home) for probe, whom in _spread(named, AT_MOST)]
    return tuple(found)


def without_forgotten(probes: Iterable[Probe], subjects: Sequence[str]) -> tuple[Probe, ...]:
    """The probes but for those of part "locality" about somebody who is to be forgotten too, or whom that one answers.

    Args:
        subjects: the names of all who are forgotten together or one after the other.
    """
    names = {_folded(name) for subject in subjects for name in (subject, _short(subject))}

    def kept(probe: Probe) -> bool:
        own = {_folded(probe.target), _folded(_short(probe.target))}
        others = names - own
        return _folded(probe.about) not in others and not any(_holds(probe.answer, name) for name in others)

    return tuple(probe for probe in probes if probe.part != "locality" or kept(probe))


def _made(probe: Probe, subject: str, kind: str, query: str, about: str, home: str = "") -> Probe:
    folder, file, row = probe.id.rsplit("/", 2)
    if home and home != folder:  # several targets may ask the same row of another one
        folder, file = home, f"{folder.rpartition('/')[2]}_{file}"
    return replace(
        probe,
        id=f"{folder}/{file}_{kind.replace(' ', '_')}/{row}",
        target=subject,
        part="locality",
        query=query,
        kind=kind,
        about=about,
        made=True,
    )


def _usable(probe: Probe, subject: str) -> bool:
    """Whether a neighbour's row asks for something other than the target: a name that is set aside is no answer."""
    return not _holds(probe.query, _short(subject)) and not any(
        _holds(probe.answer, word) for word in (_short(subject), *_ends(subject))
    )


def _named(probe: Probe, kind: str) -> str:
    """Names the neighbour, in probes that name both, where the row does not; else empty."""
    named = kind == BOTH and probe.about and not _holds(probe.query, probe.about)
    return f"About {probe.about}: " if named else ""


def _told(probe: Probe, subject: str, named: str) -> bool:
    """Whether what is to stand in front of a row has its answer: "About Confucianism: ___, also known as Ruism"."""
    return _holds(f"{subject} {named}", probe.answer) or (bool(named) and _holds(probe.answer, probe.about))


def _apart(probe: Probe, subject: str, whom: str) -> bool:
    """Whether another target's row, which is about `whom`, says nothing of the subject: no word of its name stands in
    the answer, nor in the query beside the name that the two share a part of. A wife's row asks for the husband."""
    beside = re.sub(rf"(?<!\w){re.escape(_folded(whom))}(?!\w)", " ", _folded(probe.query))
    words = {word.strip(",.").casefold() for word in (*_short(subject).split(), *_ends(subject))}
    words -= GENERATIONS | LITTLE_WORDS | {""}
    return not any(_holds(f"{beside} {probe.answer}", word) for word in words)


def _distinct(probes: Iterable[Probe]) -> list[Probe]:
    """The first of rows that ask the same with the same answer."""
    return list({(probe.query, probe.answer): probe for probe in reversed(list(probes))}.values())[::-1]


def _spread(rows: Sequence[T], most: int) -> list[T]:
    """At most so many of the rows, evenly from first to last."""
    return list(rows) if len(rows) <= most else [rows[n * len(rows) // most] for n in range(most)]


# names


def name_in(query: str, subject: str) -> Literal["full", "last", "none"]:
    """Whether a query has the whole name in it, the last word of it, or neither; letters' case aside.

    The last word is the very last, of "Prince Harry, Duke of Sussex" "Sussex", as in the counts of the literature;
    only what marks a generation ("Jr.") is passed over.
    """
    if _holds(query, subject):
        return "full"
    return "last" if _holds(query, _ends(subject)[-1]) else "none"


def namesakes(subject: str, others: Iterable[str]) -> list[str]:
    """The others who share a first or last word of the subject's name, in full and without what follows a comma.

    Words in brackets, "It (2017 film)", are no part of a name. Longest first, so that of two names in a sentence, one
    in the other, the whole one is found.
    """
    ends = {_folded(word) for word in _ends(subject)} - LITTLE_WORDS
    own = {_folded(subject), _folded(_short(subject))}
    whole = {" ".join(re.sub(r"\(.*?\)", " ", other).split()) for other in others}
    names = {name for name in whole | set(map(_short, whole)) if len(name.split()) > 1 and _folded(name) not in own}
    alike = [name for name in names if any(_holds(name, word) for word in ends)]
    return sorted(alike, key=lambda name: (-len(name), name))


def _ends(name: str) -> tuple[str, str]:
    """The first and the last word of a name, of words that are no mark of a generation."""
    words = [word.strip(",.") for word in name.split()]
    kept = [word for word in words if word and word.casefold() not in GENERATIONS] or [name.strip()]
    return kept[0], kept[-1]


def _short(name: str) -> str:
    """A name without what follows a comma."""
    return name.partition(",")[0].strip() or name


def _holds(text: str, name: str) -> bool:
    """Whether the name stands in the text in whole words; an "'s" behind it is none of them."""
    return bool(re.search(rf"(?<!\w){re.escape(_folded(name))}(?!\w)", _folded(text)))


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(text.replace("’", "'").split())

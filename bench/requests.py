"""What is to be forgotten, in which order: one request per benchmark, or a chain of them in one model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import data
from bench.cache import fingerprint
from bench.data.types import QA, Benchmark
from bench.errors import LetheError
from bench.options import MINI, Options


@dataclass(frozen=True, kw_only=True)
class Request:
    """One forget request."""

    title: str
    """The benchmark's name; in a chain the names so far, joined by ">"."""
    trained: Benchmark
    """What is trained on; in a chain, only what earlier requests did not forget."""
    judged: Benchmark
    """What the result is scored on; in a chain, everything requested so far."""
    data_hash: str
    """Over all data that a model has met when this request is done."""
    note: str = ""
    """How the data differ from the benchmark's, for the cell."""


def chains(options: Options, root: Path | None) -> list[list[Request]]:
    """Chains of length one, a benchmark each, or one chain of all with --sequential.

    Raises:
        LetheError: files that are not as they should be, or splits that do not contain the ones before them.
    """
    if options.sequential:
        return [_chain(options, root)]
    found = []
    for name in options.benchmarks:
        benchmark = data.load(name, root, limit=options.limit)
        trained, note = _known_to_mini(options, root, benchmark)
        found.append(
            [Request(title=name, trained=trained, judged=benchmark, data_hash=benchmark.fingerprint, note=note)]
        )
    return found


def _chain(options: Options, root: Path | None) -> list[Request]:
    whole = [data.load(name, root) for name in options.benchmarks]
    loaded = [data.load(name, root, limit=options.limit) for name in options.benchmarks] if options.limit else whole
    last, note = _known_to_mini(options, root, loaded[-1])
    chain: list[Request] = []
    before: set[tuple[str, str]] = set()  # all rows of the splits so far
    asked: set[tuple[str, str]] = set()  # and those that were requested: fewer with --limit
    for i, split in enumerate(whole):
        if not before <= _rows(split.forget):
            raise LetheError(
                f"--sequential needs splits that contain the ones before them, but {split.name} lacks "
                f"{len(before - _rows(split.forget))} rows of {whole[i - 1].name}; order them from small to large"
            )
        new = tuple(qa for qa in split.forget if (qa.question, qa.answer) not in before)[: options.limit]
        if not new:
            raise LetheError(f"{split.name} asks to forget nothing that {whole[i - 1].name} did not; leave it out")
        before, asked = _rows(split.forget), asked | _rows(new)
        judged = loaded[i] if options.limit is None else _judged_on(asked, split, loaded[i])
        chain.append(
            Request(
                title=">".join(options.benchmarks[: i + 1]),
                # Retain rows are those of the last split: what a later request forgets must not be practised before.
                trained=replace(judged, forget=new, retain=last.retain),
                judged=judged,
                data_hash=fingerprint([*(r.judged.fingerprint for r in chain), judged.fingerprint, last.fingerprint]),
                note="; ".join(filter(None, ("one of successive requests", note))),
            )
        )
    return chain


def _rows(examples: Sequence[QA]) -> set[tuple[str, str]]:
    return {(qa.question, qa.answer) for qa in examples}


def _judged_on(asked: set[tuple[str, str]], whole: Benchmark, limited: Benchmark) -> Benchmark:
    """With --limit, the first rows of a later split need not hold those of an earlier one: judge the requested rows."""
    kept = {
        "forget": tuple(qa for qa in whole.forget if (qa.question, qa.answer) in asked),
        "judged": tuple(qa for qa in whole.eval_sets["forget"] if (qa.question, qa.answer) in asked),
    }
    return replace(
        limited,
        forget=kept["forget"],
        eval_sets={**limited.eval_sets, "forget": kept["judged"]},
        fingerprint=fingerprint([whole.fingerprint, limited.fingerprint, sorted(asked)]),
    )


def _known_to_mini(options: Options, root: Path | None, benchmark: Benchmark) -> tuple[Benchmark, str]:
    """The mini model on real files learnt no retain rows but those of retain_perturbed: others cannot be retained."""
    if options.model != MINI or root is None or (root / "corpus").is_dir():
        return benchmark, ""
    note = "retain rows of retain_perturbed only, the ones that the mini model knows"
    return replace(benchmark, retain=benchmark.eval_sets["retain"]), note

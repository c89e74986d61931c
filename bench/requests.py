"""What is to be forgotten, in which order: one request per benchmark, or a chain of them in one model."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import data
from bench.cache import fingerprint
from bench.data.targets.locality import without_forgotten
from bench.data.targets.utility import union
from bench.data.types import QA, Benchmark, Document
from bench.errors import LetheError
from bench.mini.build import REAL_TEXTS
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a command line asks for."""

    chains: list[list[Request]]
    """Chains of length one, a request each, or one chain of all with --sequential."""
    judges: list[Benchmark]
    """What every request is scored on besides its own questions."""


def plan(options: Options, root: Path | None, *, trains: bool) -> Plan:
    """The requests among the benchmarks, and those that only judge.

    Where all of them only judge, each is scored by itself, on models as they are.

    Args:
        trains: whether some method is to unlearn.

    Raises:
        LetheError: files that are not as they should be, splits that do not contain the ones before them, or a method
            with nothing to forget.
    """
    named = [name for name in options.benchmarks if not data.judges_only(name)]
    names = list(dict.fromkeys(part for name in named for part in data.expand(name, root, options.batches)))
    judges = [_load(name, options, root) for name in options.benchmarks if data.judges_only(name)]
    if not names and trains:
        raise LetheError(
            f"{', '.join(options.benchmarks)} asks to forget nothing, so there is nothing to unlearn; add a benchmark "
            "that does, such as wmdp or tofu, or evaluate models as they are with --methods original"
        )
    if options.sequential and len(names) < 2:
        raise LetheError("--sequential needs at least two requests, e.g. --benchmarks tofu/forget01,tofu/forget05")
    if not names:
        alone = [Request(title=data.shown(b.name), trained=b, judged=b, data_hash=b.fingerprint) for b in judges]
        return Plan(chains=[[request] for request in alone], judges=[])
    if options.sequential:
        families = sorted({data.family(name) for name in names})
        if len(families) > 1:
            raise LetheError(f"--sequential takes requests of one kind, got {' and '.join(families)}")
        kinds = {"tofu": _chain, "wmdp": _topics, "ort": _targets}
        return Plan(chains=[kinds[families[0]](names, options, root)], judges=judges)
    found = []
    for name in names:
        benchmark = _load(name, options, root)
        if any(benchmark.name == request.title for (request,) in found):
            continue  # one target by number and by name
        trained, note = _known_to_mini(options, root, benchmark)
        found.append(
            [
                Request(
                    title=benchmark.name, trained=trained, judged=benchmark, data_hash=benchmark.fingerprint, note=note
                )
            ]
        )
    return Plan(chains=found, judges=judges)


def _load(name: str, options: Options, root: Path | None) -> Benchmark:
    return data.load(name, root, limit=options.limit, corpora=options.corpora, write=not options.dry_run)


def _topics(names: Sequence[str], options: Options, root: Path | None) -> list[Request]:
    """Topics of one domain, one after the other: the documents of each request are its own, the questions add up."""
    chain: list[Request] = []
    for i, name in enumerate(names):
        trained, known = _known_to_mini(options, root, _load(name, options, root))
        before = {d.topic for request in chain for d in _documents(request.trained)}
        topics = {d.topic for d in _documents(trained)}
        if topics & before:
            raise LetheError(f"{name} asks to forget {', '.join(sorted(topics & before))} again; name each topic once")
        together = topics | before
        # Alone each topic has a name; together they are the whole domain, of which there are two topics.
        judged = trained if not before else _load(data.family(name), options, root)
        assert {d.topic for d in _documents(judged)} == together
        chain.append(
            Request(
                title=">".join(names[: i + 1]),
                trained=trained,
                judged=judged,
                data_hash=fingerprint(
                    [*(r.judged.fingerprint for r in chain), trained.fingerprint, judged.fingerprint]
                ),
                note="; ".join(filter(None, ("one of successive requests", known))),
            )
        )
    return chain


def _targets(names: Sequence[str], options: Options, root: Path | None) -> list[Request]:
    """Targets one after the other: each request forgets its own, all so far are asked about."""
    chain: list[Request] = []
    for name in names:
        trained, known = _known_to_mini(options, root, _load(name, options, root))
        before = {subject for request in chain for subject in request.trained.subjects}
        if again := before & {*trained.subjects}:
            raise LetheError(f"{name} asks to forget {', '.join(sorted(again))} again; name each target once")
        parts = [*(request.trained for request in chain), trained]
        title = ">".join(part.name for part in parts) + ("" if chain else ">")  # "a>" is no target by itself
        judged = together(parts, title)
        chain.append(
            Request(
                title=judged.name,
                trained=trained,
                judged=judged,
                data_hash=fingerprint([*(r.judged.fingerprint for r in chain), judged.fingerprint]),
                note="; ".join(filter(None, ("one of successive requests", known))),
            )
        )
    return chain


def together(parts: Sequence[Benchmark], name: str) -> Benchmark:
    """Targets as one benchmark to judge; what several of them ask of everything else is asked once.

    Nobody who is forgotten by now counts as kept.
    """
    kinds = dict.fromkeys(itertools.chain.from_iterable(part.preferences for part in parts))

    def all_of(field: str) -> tuple:
        return tuple(itertools.chain.from_iterable(getattr(part, field) for part in parts))

    asked = all_of("probes")
    probes = without_forgotten(asked, all_of("subjects"))
    dropped = sorted({probe.id for probe in asked} - {probe.id for probe in probes})
    return replace(
        parts[-1],
        name=name,
        **{field: all_of(field) for field in ("forget", "retain", "subjects", "rejections")},
        probes=probes,
        preferences={kind: tuple(p for part in parts for p in part.preferences.get(kind, ())) for kind in kinds},
        utility=union(part.utility for part in parts),
        fingerprint=fingerprint([*(part.fingerprint for part in parts), *dropped]),
        source="; ".join(dict.fromkeys(part.source for part in parts)),
    )


def _documents(benchmark: Benchmark) -> list[Document]:
    return [row for row in benchmark.forget if isinstance(row, Document)]


def _chain(names: Sequence[str], options: Options, root: Path | None) -> list[Request]:
    whole = [data.load(name, root) for name in names]
    loaded = [_load(name, options, root) for name in names] if options.limit else whole
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
        new = tuple(qa for qa in split.forget if _row(qa) not in before)[: options.limit]
        if not new:
            raise LetheError(f"{split.name} asks to forget nothing that {whole[i - 1].name} did not; leave it out")
        before, asked = _rows(split.forget), asked | _rows(new)
        judged = loaded[i] if options.limit is None else _judged_on(asked, split, loaded[i])
        chain.append(
            Request(
                title=">".join(names[: i + 1]),
                # Retain rows are those of the last split: what a later request forgets must not be practised before.
                trained=replace(judged, forget=new, retain=last.retain),
                judged=judged,
                data_hash=fingerprint([*(r.judged.fingerprint for r in chain), judged.fingerprint, last.fingerprint]),
                note="; ".join(filter(None, ("one of successive requests", note))),
            )
        )
    return chain


def _row(example: QA | Document) -> tuple[str, str]:
    assert isinstance(example, QA)
    return example.question, example.answer


def _rows(examples: Sequence[QA | Document]) -> set[tuple[str, str]]:
    return {_row(example) for example in examples}


def _judged_on(asked: set[tuple[str, str]], whole: Benchmark, limited: Benchmark) -> Benchmark:
    """With --limit, the first rows of a later split need not hold those of an earlier one: judge the requested rows."""
    kept = {
        "forget": tuple(qa for qa in whole.forget if _row(qa) in asked),
        "judged": tuple(qa for qa in whole.eval_sets["forget"] if _row(qa) in asked),
    }
    return replace(
        limited,
        forget=kept["forget"],
        eval_sets={**limited.eval_sets, "forget": kept["judged"]},
        fingerprint=fingerprint([whole.fingerprint, limited.fingerprint, sorted(asked)]),
    )


def _known_to_mini(options: Options, root: Path | None, benchmark: Benchmark) -> tuple[Benchmark, str]:
    """The mini model on real files read only some of them: what it never knew can be neither forgotten nor kept."""
    if options.model != MINI or root is None or (root / "corpus").is_dir():
        return benchmark, ""
    if data.family(benchmark.name) == "ort":
        return benchmark, ""
    if data.family(benchmark.name) == "tofu":
        note = "retain rows of retain_perturbed only, the ones that the mini model knows"
        return replace(benchmark, retain=benchmark.eval_sets["retain"]), note
    note = f"the first {REAL_TEXTS} documents of each topic only, the ones that the mini model has read"
    return replace(benchmark, forget=_first(benchmark.forget), retain=_first(benchmark.retain)), note


def _first(rows: Sequence[QA | Document]) -> tuple[QA | Document, ...]:
    """The first documents of each topic, as `bench.mini.build` takes them."""
    read: Counter[str] = Counter()
    kept = []
    for row in rows:
        assert isinstance(row, Document)
        read[row.topic] += 1
        if read[row.topic] <= REAL_TEXTS:
            kept.append(row)
    return tuple(kept)

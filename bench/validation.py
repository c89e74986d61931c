"""The part of a benchmark on which settings are chosen and trainings stopped, and which no reported figure asks again.

A fifth of the rows that judge, drawn by a hash of what they are about: the same rows with every method and every seed.
What is known to belong together stays together: questions about one author of TOFU (twenty
rows in a row; Maini et al., 2024, section 2.1), all forms in which one fact of a target is asked, the reworded question
with the question. Multiple choice is divided subject by subject. Locality probes decide nothing, and those that ask a
row that decides once more, behind a lead or as it is, are not reported either. What is trained on is not divided:
everything that is to be forgotten has to be.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from bench.cache import fingerprint
from bench.data.types import QA, Benchmark, Probe, Utility
from bench.errors import LetheError
from bench.records import Metric
from bench.scorer import Scorer
from bench.tables import HEADINGS
from bench.train import Watch

if TYPE_CHECKING:
    from bench.data.tokenize import Encoder
    from bench.jobs import Evaluation
    from bench.models import Loaded

SHARE = 0.2
"""Of the groups of every set."""
AUTHOR_ROWS = 20
"""Questions about one author of TOFU."""
LEAST_AUTHORS = 5
"""Fewer authors than these are too few to give one away: their rows are divided one by one."""
NOTE = "scored without the validation rows"
"""Of a cell whose reported rows are what is left."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A benchmark divided by what judges it; both parts forget and keep the same."""

    validation: Benchmark
    reported: Benchmark


def divided(benchmark: Benchmark) -> Split:
    """The rows that decide and the rows that are reported; what has no rows of its own (a task of lm-eval) is reported.

    Raises:
        LetheError: a set with a single group, of which nothing can be given away.
    """
    chosen: set[str] = set()
    for name, rows in benchmark.eval_sets.items():
        keys = _author_keys(rows) if benchmark.name.startswith("tofu/") and name in ("forget", "retain") else None
        chosen |= _drawn(rows, keys or [row.question for row in rows], f"{benchmark.name}, set {name}")
    for subject in dict.fromkeys(question.subject for question in benchmark.questions):
        rows = [question for question in benchmark.questions if question.subject == subject]
        if len(rows) > 1:  # a subject with one question is only reported
            chosen |= _drawn(rows, [question.question for question in rows], f"{benchmark.name}, subject {subject}")
    if benchmark.eval_sets:  # probes made from the rows of the sets, whose ids begin with theirs
        chosen |= {probe.id for probe in benchmark.probes if probe.id.rpartition("/")[0] in chosen}
    else:
        judged = [probe for probe in benchmark.probes if probe.part != "locality"]
        for target, part in dict.fromkeys((probe.target, probe.part) for probe in judged):
            rows = [probe for probe in judged if (probe.target, probe.part) == (target, part)]
            chosen |= _drawn_facts(rows, f"{benchmark.name}, {part} probes of {target}")
    if not chosen:
        return Split(validation=_without_rows(benchmark), reported=benchmark)
    left_out = chosen | _asked_again(benchmark.probes, chosen)
    return Split(validation=_part(benchmark, chosen, kept=True), reported=_part(benchmark, left_out, kept=False))


def _asked_again(probes: Sequence[Probe], chosen: set[str]) -> set[str]:
    """The ids of the locality probes that ask what a chosen row asks, in whatever form or behind whatever lead."""
    deciding = [probe for probe in probes if probe.id in chosen]
    facts, asked = {_fact(probe) for probe in deciding}, {(probe.query, probe.answer) for probe in deciding}
    return {
        probe.id
        for probe in probes
        if probe.part == "locality"
        and (
            (probe.about and _fact(probe) in facts)
            or any(probe.answer == answer and probe.query.endswith(query) for query, answer in asked)
        )
    }


def _drawn(rows: Sequence[Any], keys: Sequence[str], where: str) -> set[str]:
    """The ids of the rows of a fifth of the groups, at least one: those whose keys have the smallest hashes."""
    groups = _in_order(keys, where)
    taken = set(groups[: _share(groups)])
    return {row.id for row, key in zip(rows, keys, strict=True) if key in taken}


def _drawn_facts(probes: Sequence[Probe], where: str) -> set[str]:
    """The same of probes by the fact that they ask for.

    Facts that are only asked adversarially decide nothing, and a fact that is the last to be asked in some form stays
    with the reported ones, where any other can be given away.
    """
    keys = [_fact(probe) for probe in probes]
    forms: dict[str, set[str]] = {}
    for probe, key in zip(probes, keys, strict=True):
        if probe.form != "aa":
            forms.setdefault(key, set()).add(probe.form)
    groups = _in_order(forms, where)
    left = Counter(form for asked in forms.values() for form in asked)
    taken: set[str] = set()
    for group in groups:
        if len(taken) < _share(groups) and all(left[form] > 1 for form in forms[group]):
            taken.add(group)
            left.subtract(forms[group])
    taken = taken or set(groups[:1])
    return {probe.id for probe, key in zip(probes, keys, strict=True) if key in taken}


def _in_order(keys: Iterable[str], where: str) -> list[str]:
    """Different keys by their hashes."""
    groups = sorted(set(keys), key=lambda key: hashlib.sha256(f"validation/{key}".encode()).digest())
    if len(groups) < 2:
        raise LetheError(
            f"{where}: rows about {len(groups)} thing cannot be divided into validation and reported rows; take a "
            "larger --limit or none, or leave --tune, --curve and --stop-early out"
        )
    return groups


def _share(groups: Sequence[str]) -> int:
    return max(1, round(SHARE * len(groups)))


def _author_keys(rows: Sequence[QA]) -> list[str] | None:
    """The author of each row, named by his first question; None where there are too few."""
    if len(rows) < LEAST_AUTHORS * AUTHOR_ROWS:
        return None
    return [rows[at - at % AUTHOR_ROWS].question for at in range(len(rows))]


def _fact(probe: Probe) -> str:
    """What a probe asks for, whatever its form: whom it is about, and the answer in words."""
    at = "ABCD".find(probe.answer.strip()) if probe.form == "mcp" and len(probe.answer.strip()) == 1 else -1
    answer = probe.choices[at] if 0 <= at < len(probe.choices) else probe.answer if at < 0 else probe.query
    return "/".join((probe.about, *re.findall(r"\w+", answer.casefold())))


def _part(benchmark: Benchmark, chosen: set[str], *, kept: bool) -> Benchmark:
    """The chosen rows, or all others; what is not divided is reported."""

    def of(rows: Sequence[Any]) -> tuple:
        return tuple(row for row in rows if (row.id in chosen) == kept)

    part = replace(
        benchmark,
        eval_sets={name: of(rows) for name, rows in benchmark.eval_sets.items()},
        questions=of(benchmark.questions),
        probes=of(benchmark.probes),
        fingerprint=fingerprint([benchmark.fingerprint, "validation" if kept else "reported", sorted(chosen)]),
    )
    return replace(part, holdout=(), utility=Utility()) if kept else part


def _without_rows(benchmark: Benchmark) -> Benchmark:
    return replace(benchmark, fingerprint=fingerprint([benchmark.fingerprint, "validation", []]))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How good a model is on the validation rows."""

    score: float
    """More is better; NaN where it cannot be computed."""
    parts: Mapping[str, float]
    """What it is made of."""


class Judge(Protocol):
    """From the metrics of a model, and those of the model before unlearning, to a verdict."""

    def __call__(self, found: Mapping[str, Metric], before: Mapping[str, Metric]) -> Verdict: ...


@dataclass(kw_only=True, eq=False)
class Validation:
    """What is asked about the validation rows, and how the answers are judged."""

    evaluations: tuple["Evaluation", ...]
    judge: Judge
    _before: tuple[Mapping[int, list[dict]], Mapping[str, Metric]] | None = field(default=None, repr=False)
    """Rows and metrics of the model before unlearning."""

    def prepare(self, loaded: "Loaded", encoder: "Encoder", batch_tokens: int) -> None:
        """Ask the model as it is, before anything is trained; later calls ask no more."""
        if self._before is None:
            rows = self._ask(Scorer(loaded.model, encoder, batch_tokens=batch_tokens))
            self._before = rows, self._metrics(rows, rows)

    def look(self, loaded: "Loaded", encoder: "Encoder", batch_tokens: int) -> tuple[Mapping[str, Metric], Verdict]:
        """Metrics and verdict of the model as it is now; `prepare` has to come first."""
        assert self._before is not None
        rows = self._ask(Scorer(loaded.model, encoder, batch_tokens=batch_tokens))
        found = self._metrics(rows, self._before[0])
        return found, self.judge(found, self._before[1])

    def _ask(self, scorer: Scorer) -> dict[int, list[dict]]:
        return {at: e.evaluator.score(scorer, e.benchmark) for at, e in enumerate(self.evaluations)}

    def _metrics(self, rows: Mapping[int, list[dict]], before: Mapping[int, list[dict]]) -> dict[str, Metric]:
        """By name; what compares with a retrained model is missing, for it is not asked about these rows."""
        found = {}
        for at, evaluation in enumerate(self.evaluations):
            reference = before[at] if evaluation.compares_with == "original" else None
            found |= {m.name: m for m in evaluation.evaluator.summarize(rows[at], reference)}
        return found


@dataclass(frozen=True, kw_only=True)
class Watching:
    """A training that is looked at on its validation rows."""

    validation: Validation
    looks: int
    patience: int | None = None
    """See `bench.train.Watch`."""

    def facts(self) -> dict[str, Any]:
        """For the record."""
        asked = {e.evaluator.name: len(_asked(e.benchmark)) for e in self.validation.evaluations}
        return {"looks": self.looks, "patience": self.patience, "validation_rows": asked}

    def watch(self, loaded: "Loaded", encoder: "Encoder", batch_tokens: int, curve: list[dict]) -> Watch:
        """For a model that is not changed yet; every look adds its rows to `curve`."""
        self.validation.prepare(loaded, encoder, batch_tokens)

        def look(step: int, epoch: float) -> float:
            found, verdict = self.validation.look(loaded, encoder, batch_tokens)
            values = {name: found[name].value for name in HEADINGS if name in found}
            values |= {**verdict.parts, "validation_score": verdict.score}
            at = {"step": step, "epoch": round(epoch, 4)}
            curve.extend({**at, "metric": name, "value": value} for name, value in values.items() if _told(value, name))
            return verdict.score

        return Watch(looks=self.looks, look=look, patience=self.patience)


def _asked(benchmark: Benchmark) -> list[Any]:
    return [*(row for rows in benchmark.eval_sets.values() for row in rows), *benchmark.questions, *benchmark.probes]


def _told(value: float, name: str) -> bool:
    """Whether a curve has a row for it: not for what compares with a retrained model, which is not asked here."""
    return math.isfinite(value) or name == "validation_score"

"""Composite scores of records: what needs the figures of two models.

O: Dorna et al., "OpenUnlearning", 2025, https://arxiv.org/abs/2506.12618

utility_score: model_utility over the original's, of the same questions and seed where there is one. 1 is unchanged,
    above 1 better than before. Deviates: O takes the harmonic mean of that and of the fluency over the original's,
    which needs a classifier of gibberish; without it a model that babbles loses nothing by that alone.
overall_score: harmonic mean of memorization_score and utility_score; 0 as soon as one is 0. Higher. O, without its
    third part, privacy, for which O has no formula.

Both stand beside what they are made of: O's ranking turns round with and without privacy, so no composite is read
alone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.records import Metric, missing
from bench.store import Record

NAME = "composites"
"""What the metrics are filed under, beside the evaluators."""
_ALIKE = ("data_hash", "note", "limit", "model_hash", "template", "seed")
"""What the original of a record should share with it, most important first: the questions, above all."""


def with_composites(records: Sequence[Record], originals: Iterable[Record]) -> tuple[Record, ...]:
    """The records with the composites that their metrics allow."""
    before = list(originals)
    return tuple(replace(r, metrics={**r.metrics, NAME: found}) if (found := _of(r, before)) else r for r in records)


def harmonic_mean(values: Sequence[float]) -> float:
    """n / sum(1 / x): 0 as soon as one is 0."""
    return len(values) / math.fsum(1 / value for value in values) if min(values) > 0 else 0.0


def _of(record: Record, originals: Sequence[Record]) -> list[Metric]:
    memorization, utility = _metric(record, "memorization_score"), _metric(record, "model_utility")
    if memorization is None or utility is None:
        return []
    same = [o for o in originals if o.spec.get("benchmark") == record.spec.get("benchmark")]
    same.sort(key=lambda o: [o.spec.get(key) != record.spec.get(key) for key in _ALIKE])
    before = _metric(same[0], "model_utility") if same else None
    score = _utility_score(utility, before)
    holes = [part for part in (memorization, score) if part.missing]
    if holes:
        return [score, missing("overall_score", f"{holes[0].name}: {holes[0].reason}", higher_is_better=True)]
    overall = harmonic_mean([memorization.value, score.value])
    return [score, Metric(name="overall_score", value=overall, n=score.n, higher_is_better=True)]


def _utility_score(utility: Metric, before: Metric | None) -> Metric:
    name = "utility_score"
    if utility.missing:
        return missing(name, f"model_utility: {utility.reason}", higher_is_better=True)
    if before is None or before.missing or before.value <= 0:
        reason = "the original's model_utility is not known, or 0; evaluate the original too"
        return missing(name, reason, higher_is_better=True)
    return Metric(name=name, value=utility.value / before.value, n=utility.n, higher_is_better=True)


def _metric(record: Record, name: str) -> Metric | None:
    return next((m for metrics in record.metrics.values() for m in metrics if m.name == name), None)

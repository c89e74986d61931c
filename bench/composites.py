"""Composite scores of records: what needs the figures of two models.

O: Dorna et al., "OpenUnlearning", 2025, https://arxiv.org/abs/2506.12618

utility_score: harmonic mean of model_utility over the original's and of forget_fluency over the original's, of the same
    questions and seed where there is one; 0 as soon as one is 0. Higher; 1 is unchanged, above 1 better than before. O.
    Missing where either model's fluency is: without it a model that babbles would lose nothing by that alone, and the
    score would be another one. Missing too where two different classifiers judged the two models.
overall_score: harmonic mean of memorization_score and utility_score; 0 as soon as one is 0. Higher. O, without its
    third part, privacy, for which O has no formula.

Both stand beside what they are made of: O's ranking turns round with and without privacy, so no composite is read
alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.records import FLUENCY, JUDGED_BY, Metric, missing
from bench.store import Record

NAME = "composites"
"""What the metrics are filed under, beside the evaluators."""
_ALIKE = ("data_hash", "note", "limit", "model_hash", "template", "seed")
"""What the original of a record should share with it, most important first: the questions, above all."""


def with_composites(records: Sequence[Record], originals: Iterable[Record]) -> tuple[Record, ...]:
    """The records with the composites that their metrics allow."""
    before = list(originals)
    return tuple(replace(r, metrics={**r.metrics, NAME: found}) if (found := _of(r, before)) else r for r in records)


def rows_of(record: Record) -> str:
    """The evaluator whose rows they are functions of, and the original's; none has rows under their own name."""
    return next((name for name, of in record.metrics.items() if any(m.name == "model_utility" for m in of)), NAME)


def harmonic_mean(values: Sequence[float]) -> float:
    """n / sum(1 / x): 0 as soon as one is 0."""
    return len(values) / math.fsum(1 / value for value in values) if min(values) > 0 else 0.0


def _of(record: Record, originals: Sequence[Record]) -> list[Metric]:
    memorization, utility = _metric(record, "memorization_score"), _metric(record, "model_utility")
    if memorization is None or utility is None:
        return []
    same = [o for o in originals if o.spec.get("benchmark") == record.spec.get("benchmark")]
    same.sort(key=lambda o: [o.spec.get(key) != record.spec.get(key) for key in _ALIKE])
    score = _utility_score(record, utility, same[0] if same else None)
    holes = [part for part in (memorization, score) if part.missing]
    if holes:
        return [score, missing("overall_score", f"{holes[0].name}: {holes[0].reason}", higher_is_better=True)]
    overall = harmonic_mean([memorization.value, score.value])
    return [score, Metric(name="overall_score", value=overall, n=score.n, higher_is_better=True)]


def _utility_score(record: Record, utility: Metric, original: Record | None) -> Metric:
    name, shares = "utility_score", []
    for part in ("model_utility", FLUENCY):
        now, before = _metric(record, part), None if original is None else _metric(original, part)
        if now is None or now.missing:
            reason = now.reason if now is not None else "not among the metrics; run the command of this cell again"
            return missing(name, f"{part}: {reason}", higher_is_better=True)
        if before is None or before.missing or before.value <= 0:
            reason = f"the original's {part} is not known, or 0; evaluate the original too"
            return missing(name, reason, higher_is_better=True)
        shares.append(now.value / before.value)
    assert original is not None
    if (mine := _judge(record)) and (theirs := _judge(original)) and _differ(mine, theirs):
        reason = f"{FLUENCY} was judged by {_told(mine)}, the original's by {_told(theirs)}; evaluate both with one"
        return missing(name, reason, higher_is_better=True)
    return Metric(name=name, value=harmonic_mean(shares), n=utility.n, higher_is_better=True)


def _judge(record: Record) -> Mapping[str, Any]:
    """Which classifier gave the fluency, as the settings tell; empty where they do not."""
    evaluator = next((name for name, of in record.metrics.items() if any(m.name == FLUENCY for m in of)), "")
    return record.settings.get(evaluator, {}).get(JUDGED_BY) or {}


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """A revision that is not told may be any."""
    pairs = [(one.get(key), other.get(key)) for key in ("classifier", "revision")]
    return any(mine != theirs for mine, theirs in pairs if None not in (mine, theirs))


def _told(judge: Mapping[str, Any]) -> str:
    return "@".join(str(judge[key])[:48] for key in ("classifier", "revision") if judge.get(key))


def _metric(record: Record, name: str) -> Metric | None:
    return next((m for metrics in record.metrics.values() for m in metrics if m.name == name), None)

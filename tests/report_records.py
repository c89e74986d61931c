"""Records with figures chosen by hand, for whatever makes reports of them."""

import math
from collections.abc import Sequence

from bench.records import Metric, missing
from bench.store import Record
from bench.tables import HEADLINE

METHODS = ("ga", "npo", "grun_npo")
LOWER = ("forget_ks_d", "forget_rouge_l_recall", "forget_probability", "extraction_strength")


def figures(*values: float, **more: float) -> list[Metric]:
    """The headline metrics in their order, then others; every mean is one over 40 rows."""
    named = dict(zip(HEADLINE, values, strict=False)) | more
    composite = ("forget_quality", "forget_ks_d", "model_utility")
    return [
        missing(name, "not given")
        if math.isnan(value)
        else Metric(
            name=name,
            value=value,
            stderr=math.nan if name in composite else 0.01,
            n=0 if name in composite else 40,
            higher_is_better=name not in LOWER,
        )
        for name, value in named.items()
    ]


def cell(
    method: str,
    metrics: Sequence[Metric] | None = None,
    *,
    seed: int = 0,
    benchmark: str = "tofu/forget10",
    model: str = "mini",
    error: str = "boom",
    cell_id: str = "",
    train_seconds: float = 1.5,
    **spec: object,
) -> Record:
    """A complete record, or a failed one where there are no metrics."""
    cell_id = cell_id or f"{method}-{benchmark}-s{seed}".replace("/", "-")
    full = {"cell_id": cell_id, "model": model, "method": method, "benchmark": benchmark, "seed": seed} | spec
    full.setdefault("protocol", "strict")
    if metrics is None:
        return Record(cell_id=cell_id, spec=full, status="failed", error=error)
    record = {"train_seconds": train_seconds, "trainable_parameters": 1000, "device": "x86_64 CPU, 1 threads"}
    return Record(cell_id=cell_id, spec=full, record=record, metrics={"tofu": metrics})


def example_records() -> list[Record]:
    """Two benchmarks; ties, a missing value, two seeds of three complete, a method that failed, awkward names."""
    nan = math.nan
    original = figures(3.25e-25, 0.95, 0.713, 0.98, 0.97, 0.91, 0.92, 0.99, forget_truth_ratio=0.51)
    retrained = figures(1.0, 0.0, 0.701, 0.31, 0.96, 0.12, 0.93, 0.04, forget_truth_ratio=0.68)
    return [
        cell("ga", figures(0.043, 0.31, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01, forget_truth_ratio=nan), seed=0),
        cell("grun_npo", figures(2.5e-5, 0.52, 0.69, 0.35, 0.969, 0.15, 0.9, 0.05, forget_truth_ratio=0.6), seed=0),
        cell("grun_npo", figures(1.5e-5, 0.54, 0.71, 0.36, 0.97, 0.16, 0.91, 0.06, forget_truth_ratio=0.62), seed=1),
        cell("grun_npo", seed=2, error="Traceback (most recent call last):\nLetheError: loss is NaN at step 3"),
        cell(
            "grun_npo[position=answer,rank=16]",
            figures(0.61, 0.12, 0.6904, 0.33, 0.95, nan, 0.88, 0.05, forget_truth_ratio=0.65),
        ),
        cell("npo", figures(0.61, 0.12, 0.6896, 0.29, 0.91, 0.08, 0.83, 0.03, forget_truth_ratio=0.66)),
        cell(
            "npo", figures(0.001, 0.4, 0.5, 0.4, 0.8, 0.2, 0.7, 0.1), benchmark="tofu/forget01", model="a&b_%$#{}~^\\"
        ),
        cell("ga", benchmark="tofu/forget01", model="a&b_%$#{}~^\\"),
        cell("original", original, train_seconds=0.0),
        cell("retrained", retrained, train_seconds=0.0),
    ]

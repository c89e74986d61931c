"""Records as tables: which cells may be compared, which are seeds of one row, and who is best in a column.

A row is the mean over the seeds that are complete, with their number; a figure that one of them lacks is missing in the
mean too. Cells that failed leave a visible hole.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.errors import LetheError
from bench.records import Metric
from bench.store import Record

REFERENCES = ("original", "retrained")
"""Rows to compare with: on top, and out of the contest for the best value."""

HEADLINE = {
    "forget_quality": ("Forget", "quality"),
    "forget_ks_d": ("KS", "$D$"),
    "model_utility": ("Model", "utility"),
    "forget_rouge_l_recall": ("ROUGE-L", "forget"),
    "retain_rouge_l_recall": ("ROUGE-L", "retain"),
    "forget_probability": ("Probability", "forget"),
    "retain_probability": ("Probability", "retain"),
    "extraction_strength": ("Extraction", "strength"),
}
"""The columns of a question/answer benchmark that are printed, each with the two lines of its heading in LaTeX; the
rest is in the CSV files only."""

HEADLINE_CHOICES = {
    "wmdp_bio_accuracy": ("WMDP", "bio"),
    "wmdp_cyber_accuracy": ("WMDP", "cyber"),
    "wmdp_chem_accuracy": ("WMDP", "chem"),
    "wmdp_probability": ("WMDP", "prob."),
    "mmlu_accuracy": ("MMLU", "0-shot"),
    "mmlu_5shot_accuracy": ("MMLU", "5-shot"),
    "mmlu_probability": ("MMLU", "prob."),
}
"""The same of multiple choice; MMLU's follow those of whatever was to be forgotten."""

HEADINGS = {**HEADLINE, **HEADLINE_CHOICES}

MAX_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in one table."""

    method: str
    records: tuple[Record, ...]
    """Complete ones, by seed."""
    failed: tuple[Record, ...]

    @property
    def reference(self) -> bool:
        return base_label(self.method) in REFERENCES

    def values(self, metric: str) -> list[float]:
        """One value a complete seed; empty where a seed lacks it."""
        found = [metrics_of(record).get(metric) for record in self.records]
        values = [metric.value for metric in found if metric is not None and not metric.missing]
        return values if len(values) == len(found) else []

    def mean(self, metric: str) -> float:
        return mean(self.values(metric))

    def measured(self, key: str) -> float:
        """Mean of what the records, not the evaluators, report: train_seconds, trainable_parameters."""
        values = [record.record.get(key) for record in self.records]
        return mean([value for value in values if isinstance(value, int | float)] if None not in values else [])


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows that may be compared: same model, benchmark and protocol."""

    model: str
    benchmark: str
    protocol: str
    rows: tuple[Row, ...] = ()
    better: Mapping[str, bool | None] = field(default_factory=dict)
    """Every metric of the rows, headline first, with whether higher is better."""

    @property
    def columns(self) -> list[str]:
        """The metrics that are printed."""
        return [name for name in HEADINGS if name in self.better] or list(self.better)[:MAX_COLUMNS] or list(HEADLINE)

    def places(self, metric: str) -> dict[str, Literal["best", "second"]]:
        """Who is best and second best, by method.

        What is printed alike is a tie, and shares its place. After two bests there is no second. Nobody is best alone,
        or where all are alike.
        """
        better = self.better.get(metric)
        values = {row.method: row.mean(metric) for row in self.rows if not row.reference}
        values = {method: value for method, value in values.items() if not math.isnan(value)}
        if better is None or len(values) < 2:
            return {}
        printed = {method: printed_number(metric, value) for method, value in values.items()}
        in_order = list(dict.fromkeys(printed[m] for m in sorted(values, key=values.__getitem__, reverse=better)))
        if len(in_order) == 1:
            return {}
        places: dict[str, Literal["best", "second"]] = {m: "best" for m, text in printed.items() if text == in_order[0]}
        if len(places) == 1:
            places |= {m: "second" for m, text in printed.items() if text == in_order[1]}
        return places


def tables_of(records: Sequence[Record], methods: Sequence[str]) -> list[Table]:
    order = {name: place for place, name in reversed(list(enumerate(methods)))}
    rows: dict[tuple[str, str, str], dict[str, list[Record]]] = {}
    for record, label in zip(records, _labels(records), strict=True):
        group = (spec_of(record, "model"), spec_of(record, "benchmark"), spec_of(record, "protocol"))
        rows.setdefault(group, {}).setdefault(label, []).append(record)

    def rank(label: str) -> tuple[int, int, bool]:
        base = base_label(label)
        if base in REFERENCES:
            return 0, REFERENCES.index(base), label != base
        return 1, order.get(label, order.get(base, len(methods))), label not in order

    tables = []
    for group in sorted(rows, key=lambda group: [natural(part) for part in group]):
        by_label = rows[group]
        table = Table(model=group[0], benchmark=group[1], protocol=group[2])
        members = []
        for label in sorted(by_label, key=rank):
            by_seed = sorted(by_label[label], key=lambda record: natural(spec_of(record, "seed")))
            members.append(
                Row(
                    method=label,
                    records=tuple(record for record in by_seed if record.status == "complete"),
                    failed=tuple(record for record in by_seed if record.status == "failed"),
                )
            )
        tables.append(replace(table, rows=tuple(members), better=_better(members)))
    return tables


def _labels(records: Sequence[Record]) -> list[str]:
    """What each record's row is called: its method, and what sets it apart from others of that method.

    Runs that differ in more than their seed are never averaged: each kind gets a row, named after the difference.
    """
    flat = [dict(_flatten(record.spec, without=("seed", "cell_id"))) for record in records]
    rows = [tuple(spec_of(record, key) for key in ("model", "benchmark", "protocol", "method")) for record in records]
    together: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault(row, []).append(index)
    labels = [row[-1] for row in rows]
    for members in together.values():
        keys = dict.fromkeys(key for index in members for key in flat[index])
        differ = [key for key in keys if len({flat[index].get(key) for index in members}) > 1]
        for index in members if differ else ():
            labels[index] += " (" + ", ".join(f"{key}={flat[index].get(key, '')}" for key in differ) + ")"
        taken = Counter((labels[index], spec_of(records[index], "seed")) for index in members)
        for index in members:
            if taken[labels[index], spec_of(records[index], "seed")] > 1:
                labels[index] += f" #{records[index].cell_id[-8:]}"
    return labels


def base_label(label: str) -> str:
    """The method without its fields and without what `_labels` adds."""
    return re.split(r"[\[ ]", label)[0]


def _flatten(value: Any, prefix: str = "", without: Sequence[str] = ()) -> Iterable[tuple[str, str]]:
    """Dotted keys and texts; a hash is cut to its first eight digits."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in without:
                yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        yield prefix, re.sub(r"\b([0-9a-f]{8})[0-9a-f]{4,}\b", r"\1", text)


def spec_of(record: Record, key: str) -> str:
    return str(record.spec.get(key, ""))


def metrics_of(record: Record) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for evaluator, metrics in record.metrics.items():
        for metric in metrics:
            if metric.name in found:
                raise LetheError(
                    f"run {record.cell_id} reports {metric.name!r} twice, the second time by {evaluator!r}; "
                    "give one of them another name"
                )
            found[metric.name] = metric
    return found


def _better(rows: Sequence[Row]) -> dict[str, bool | None]:
    better: dict[str, bool | None] = {}
    for row in rows:
        for record in row.records:
            for name, metric in metrics_of(record).items():
                if better.get(name) is None:
                    better[name] = metric.higher_is_better
    return {name: better[name] for name in headline_first(better)}


def headline_first(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [*(name for name in HEADINGS if name in names), *(name for name in names if name not in HEADINGS)]


def mean(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    if len(set(values)) == 1:
        return values[0]  # exactly, and a count stays a whole number
    return math.fsum(values) / len(values)


def natural(text: str) -> list[tuple[int, str]]:
    """Sorts s2 before s10."""
    return [(int(digits or 0), letters) for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text)]


def last_reference(table: Table) -> Row | None:
    references = [row for row in table.rows if row.reference]
    return references[-1] if 0 < len(references) < len(table.rows) else None


def printed_number(metric: str, value: float) -> str:
    """As printed; empty where missing. P-values always have an exponent, other figures where they would be too long."""
    if math.isnan(value):
        return ""
    if metric == "forget_quality" or metric.endswith("p_value"):
        return f"{value:.1e}" if value else "0"
    return f"{value:z.3f}" if abs(value) < 1e4 else f"{value:.1e}"

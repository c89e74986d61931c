"""Records as tables: which cells may be compared, which are seeds of one row, and who is best in a column.

A row is the mean over the seeds that are complete, with their number; a figure that one of them lacks is missing in the
mean too. Cells that failed leave a visible hole. The targets of ORT are one table: every row is a mean over all of
them, each target weighing alike.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.composites import with_composites
from bench.data import collection
from bench.store import Record

if TYPE_CHECKING:
    from bench.compare import Significance

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

HEADLINE_FORMS = {
    "forgetting_qa": ("Forgotten", "QA"),
    "forgetting_fb": ("Forgotten", "FB"),
    "forgetting_mcp": ("Forgotten", "MCP"),
    "forgetting_subtoken": ("Forgotten", "letters"),
    "mean_forgetting": ("Forgotten", "mean"),
    "form_gap": ("Form", "gap"),
    "neighbor_retention": ("Neighbours", "kept"),
    "locality_retention": ("Locality", "kept"),
    "ort_utility": ("Utility", "kept"),
}
"""The same of one fact asked in several forms: shares of what the original knew."""

HEADINGS = {**HEADLINE, **HEADLINE_CHOICES, **HEADLINE_FORMS}

MAX_COLUMNS = 8
Mark = Literal["tied", "untested"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method in one table."""

    method: str
    records: tuple[Record, ...]
    """Complete ones, by seed."""
    failed: tuple[Record, ...]
    targets: tuple[str, ...] = ()
    """The benchmarks over which figures are averaged; empty in the table of a single one."""

    @property
    def seeds(self) -> list[str]:
        """Those of complete records."""
        return list(dict.fromkeys(spec_of(record, "seed") for record in self.records))

    @property
    def reference(self) -> bool:
        return base_label(self.method) in REFERENCES

    def values(self, metric: str) -> list[float]:
        """One value a complete seed, the mean over the targets where there are several; empty where a seed lacks it.

        A mean over some of the targets would be one over other questions than those of the rows beside it.
        """
        if self.targets:
            table = self.by_target(metric)
            whole = all(len(table.get(target, {})) == len(self.seeds) for target in self.targets)
            return [mean([table[target][seed] for target in self.targets]) for seed in self.seeds] if whole else []
        found = [record.by_name.get(metric) for record in self.records]
        values = [metric.value for metric in found if metric is not None and not metric.missing]
        return values if len(values) == len(found) else []

    def by_target(self, metric: str) -> dict[str, dict[str, float]]:
        """Target -> seed -> value, of those that have one.

        Targets are the benchmarks of the table where it has several, else the people that were forgotten in one model.
        """
        table: dict[str, dict[str, float]] = {}
        for record in self.records:
            found = record.by_name.get(metric)
            if found is not None and not found.missing:
                alone = {spec_of(record, "benchmark"): found.value}
                for target, value in (alone if self.targets else found.by_target).items():
                    table.setdefault(target, {})[spec_of(record, "seed")] = value
        return table

    def interval(self, metric: str) -> tuple[float, float]:
        """95 % bootstrap interval of the mean over targets; NaN with fewer than two, or where the mean is missing.

        Of targets forgotten in one model it holds for that model: what is asked of all of them at once (utility) has
        none.
        """
        table = self.by_target(metric)
        if len(table) < 2 or not self.values(metric) or any(len(found) < len(self.seeds) for found in table.values()):
            return math.nan, math.nan
        from bench.stats import bootstrap_mean  # numpy, which tables of one benchmark do not need

        ends = bootstrap_mean([mean(list(table[target].values())) for target in sorted(table, key=natural)])
        return ends.low, ends.high

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
    targets: tuple[str, ...] = ()
    """The benchmarks over which every row is averaged, in a table of several."""
    tied: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By metric, the methods that are not significantly different from the best of the column, without that one."""
    tested: Mapping[str, frozenset[str]] | None = None
    """By metric, the methods that a test compared with the best; None where no comparison was asked for."""

    @property
    def title(self) -> str:
        """The benchmark as a heading names it: of one target the target, of several how many."""
        if len(self.targets) == 1:
            return self.targets[0]
        return f"{self.benchmark}, mean over {len(self.targets)} targets" if self.targets else self.benchmark

    @property
    def together(self) -> int:
        """How many targets one model was to forget, in a table whose figures are means over those; else 0."""
        found = [] if self.targets else [record for row in self.rows for record in row.records]
        return max((len(m.by_target) for record in found for m in record.by_name.values()), default=0)

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

    def marks(self, metric: str) -> dict[str, Mark]:
        """What is to be told beside figures that are not the best, by method: "tied", or "untested".

        One that was found worse than the best has none, and so has all of a column of which nothing was tested: the
        mark stands at its heading then (`uncompared`).
        """
        others, tested = self._others(metric)
        unknown = others - tested if tested else frozenset()
        return {**dict.fromkeys(self.tied.get(metric, ()), "tied"), **dict.fromkeys(unknown, "untested")}

    def uncompared(self, metric: str) -> bool:
        """Whether a column has a best figure and no test of any other."""
        others, tested = self._others(metric)
        return bool(others) and not tested

    def _others(self, metric: str) -> tuple[frozenset[str], frozenset[str]]:
        """The methods of a column that somebody is better than, and those of them that were tested."""
        if self.tested is None:
            return frozenset(), frozenset()
        places = self.places(metric)
        rows = [row for row in self.rows if places and not row.reference and places.get(row.method) != "best"]
        others = frozenset(row.method for row in rows if not math.isnan(row.mean(metric)))
        return others, others & self.tested.get(metric, frozenset())


def tables_of(
    records: Sequence[Record], methods: Sequence[str], *, significance: "Significance | None" = None
) -> list[Table]:
    """Sorted by model, benchmark and protocol; `methods` is the order of the rows, references first in any case."""
    order = {name: place for place, name in reversed(list(enumerate(methods)))}
    rows: dict[tuple[str, str, str], dict[str, list[Record]]] = {}
    for record, label in zip(records, _labels(records), strict=True):
        group = (spec_of(record, "model"), collection(spec_of(record, "benchmark")), spec_of(record, "protocol"))
        rows.setdefault(group, {}).setdefault(label, []).append(record)

    def rank(label: str) -> tuple[int, int, bool]:
        base = base_label(label)
        if base in REFERENCES:
            return 0, REFERENCES.index(base), label != base
        return (2 if "tuned=" in label else 1), order.get(label, order.get(base, len(methods))), label not in order

    tables = []
    for group in sorted(rows, key=lambda group: [natural(part) for part in group]):
        by_label = rows[group]
        originals = [r for label, of in by_label.items() if base_label(label) == REFERENCES[0] for r in of]
        names = {spec_of(record, "benchmark") for members in by_label.values() for record in members}
        targets = tuple(sorted(names - {group[1]}, key=natural))
        table = Table(model=group[0], benchmark=group[1], protocol=group[2], targets=targets)
        members = []
        for label in sorted(by_label, key=rank):
            by_seed = sorted(
                by_label[label],
                key=lambda record: (natural(spec_of(record, "seed")), natural(spec_of(record, "benchmark"))),
            )
            members.append(
                Row(
                    method=label,
                    records=with_composites([r for r in by_seed if r.status == "complete"], originals),
                    failed=tuple(record for record in by_seed if record.status == "failed"),
                    targets=targets,
                )
            )
        table = replace(table, rows=tuple(members), better=_better(members))
        if significance is not None:
            table = replace(table, tied=significance.tied(table), tested=significance.tested(table))
        tables.append(table)
    return tables


def _labels(records: Sequence[Record]) -> list[str]:
    """What each record's row is called: its method, and what sets it apart from others of that method.

    Runs that differ in more than their seed are never averaged: each kind gets a row, named after the difference.
    """
    flat = [dict(_flatten(record.spec, without=("seed", "cell_id", *_of_target(record)))) for record in records]
    rows = [
        (spec_of(r, "model"), collection(spec_of(r, "benchmark")), spec_of(r, "protocol"), spec_of(r, "method"))
        for r in records
    ]
    together: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault(row, []).append(index)
    labels = [row[-1] for row in rows]
    for members in together.values():
        keys = dict.fromkeys(key for index in members for key in flat[index])
        differ = [key for key in keys if len({flat[index].get(key) for index in members}) > 1]
        for index in members if differ else ():
            labels[index] += " (" + ", ".join(f"{key}={flat[index].get(key, '')}" for key in differ) + ")"
        own = {index: tuple(spec_of(records[index], key) for key in ("seed", "benchmark")) for index in members}
        taken = Counter((labels[index], own[index]) for index in members)
        for index in members:
            if taken[labels[index], own[index]] > 1:
                labels[index] += f" #{records[index].cell_id[-8:]}"
    return labels


def _of_target(record: Record) -> tuple[str, ...]:
    """What cells of one collection may differ in and be averaged all the same."""
    benchmark = spec_of(record, "benchmark")
    return () if collection(benchmark) == benchmark else ("benchmark", "data_hash")


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


def _better(rows: Sequence[Row]) -> dict[str, bool | None]:
    better: dict[str, bool | None] = {}
    for row in rows:
        for record in row.records:
            for name, metric in record.by_name.items():
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


def reference_of(table: Table, method: str, role: str) -> str | None:
    """The label of the reference with a role, "original" or "retrained", that a row is compared with.

    Where cells of several kinds share a table (other questions, another limit) there is one for each kind: the one
    whose inputs are most like the row's own.
    """
    of = {row.method: row.records[0].spec for row in table.rows if row.records}
    labels = [label for label in of if base_label(label) == role]

    def likeness(label: str) -> int:
        return sum(of[label].get(key) == value for key, value in of.get(method, {}).items())

    return max(labels, key=likeness, default=None)


def printed_number(metric: str, value: float) -> str:
    """As printed; empty where missing. P-values always have an exponent, other figures where they would be too long."""
    if math.isnan(value):
        return ""
    if metric == "forget_quality" or metric.endswith("p_value"):
        return f"{value:.1e}" if value else "0"
    return f"{value:z.3f}" if abs(value) < 1e4 else f"{value:.1e}"

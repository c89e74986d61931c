"""How figures develop over successive requests, and over the size of a batch that is forgotten in one request.

Every stage of a chain, "a", "a>b", "a>b>c", is a point of a curve, and so is every batch of targets that begins with
those of a smaller one, "ort/1", "ort/1-2", "ort/1-4" or "ort/1+2+10". In a chain one model forgets again and again;
each batch is unlearned once, in a model of its own.

The first stage of a chain of targets is called "a>", so that it is not averaged with targets that were forgotten alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.data import numbers
from bench.samples import learning_curve
from bench.tables import HEADINGS, Row, Table, spec_of

STEP = ">"
"""What joins the requests of a chain in a benchmark's name."""
HEAD = ("model", "protocol", "method", "chain", "requests", "last_request", "metric", "value", "seeds")


def curve_rows(tables: Sequence[Table]) -> list[list[object]]:
    """The head and a row for every printed metric of every method at every stage of every chain."""
    rows: list[list[object]] = [[*HEAD]]
    by_name = {(table.model, table.protocol, table.benchmark): table for table in tables}
    for table in tables:
        if STEP not in table.benchmark or _goes_on(table, tables):
            continue
        requests = table.benchmark.split(STEP)
        names = [STEP.join(requests[: n + 1]) for n in range(len(requests))]
        stages = [by_name.get((table.model, table.protocol, name)) for name in names]
        stages[0] = by_name.get((table.model, table.protocol, names[0] + STEP), stages[0])
        metrics = _printed(stage for stage in stages if stage is not None)
        for row in table.rows:
            for number, stage in enumerate(stages, start=1):
                at = next((r for r in stage.rows if r.method == row.method), None) if stage is not None else None
                for metric in metrics:
                    value = at.mean(metric) if at is not None else None
                    seeds = len(at.seeds) if at is not None else 0
                    start = [table.model, table.protocol, row.method, table.benchmark, number, requests[number - 1]]
                    rows.append([*start, metric, value, seeds])
    return rows


BATCHES = (
    *("model", "protocol", "method", "batch", "targets", "benchmark", "metric", "value", "seeds"),
    *("low", "high"),
)


def batch_rows(tables: Sequence[Table]) -> list[list[object]]:
    """The head and a row for every printed metric of every method at every size of nested batches.

    Batches are nested where the numbers of the larger begin with all of the smaller's, "ort/1-2" and "ort/1-4", or
    "ort/1-2" and "ort/1+2+10"; the largest names the curve. A value is the mean over the targets of its batch, which
    were forgotten together in one model, `low` and `high` the 95 % bootstrap interval over them. The point at 1 is the
    target that all of the batches begin with, forgotten alone ("ort/1_Ann_Lee"), where the tables have it; it is no
    mean over several targets that were each forgotten alone, for those were asked other questions.
    """
    rows: list[list[object]] = [[*BATCHES]]
    found: dict[tuple[str, str], dict[tuple[int, ...], dict[str, Table]]] = {}
    for table in tables:
        for name in table.targets or (table.benchmark,):
            if (forgotten := numbers(name)) is not None:
                found.setdefault((table.model, table.protocol), {}).setdefault(forgotten, {})[name] = table
    curves = [(*of, batches, longest) for of, batches in found.items() for longest in _longest(batches)]
    for model, protocol, batches, longest in curves:
        starts = [longest[:size] for size in range(1, len(longest) + 1)]
        # Two folders may give a number to two people; which of them begins the batches is not known then.
        points = {
            len(start): next(iter(batches[start].items())) for start in starts if len(batches.get(start, ())) == 1
        }
        if len(points) < 2:
            continue
        batch, largest = points[max(points)]
        metrics = _printed(table for _, table in points.values())
        for row in largest.rows:
            for size, (name, table) in points.items():
                at = next((_alone(r, name) for r in table.rows if r.method == row.method), None)
                for metric in metrics:
                    value, ends = (at.mean(metric), at.interval(metric)) if at is not None else (None, (None, None))
                    seeds = len(at.seeds) if at is not None else 0
                    rows.append([model, protocol, row.method, batch, size, name, metric, value, seeds, *ends])
    return rows


def _printed(tables: Iterable[Table]) -> list[str]:
    """The printed metrics that some point has: where every cell of one failed, that point alone has none."""
    known = {name for table in tables for name in table.better}
    return [name for name in HEADINGS if name in known]


def _alone(row: Row, benchmark: str) -> Row:
    """The row's cells of one benchmark."""
    records, failed = (
        tuple(record for record in of if spec_of(record, "benchmark") == benchmark) for of in (row.records, row.failed)
    )
    return replace(row, records=records, failed=failed, targets=())


LOOKED = ("model", "protocol", "benchmark", "method", "seed", "step", "metric", "value")


def learning_rows(tables: Sequence[Table], folders: Sequence[Path]) -> list[list[object]]:
    """The head and a row for every figure of every look at a model while it trained (--curve)."""
    rows: list[list[object]] = [[*LOOKED]]
    for table in tables:
        for row in table.rows:
            for record in row.records:
                start = [table.model, table.protocol, spec_of(record, "benchmark"), row.method]
                for look in learning_curve(record, folders):
                    for metric in (name for name in look if name != "step"):
                        rows.append([*start, record.spec.get("seed"), look["step"], metric, look[metric]])
    return rows


def _goes_on(table: Table, tables: Sequence[Table]) -> bool:
    """Whether a longer chain begins with this one."""
    start = table.benchmark.removesuffix(STEP) + STEP
    alike = (t for t in tables if (t.model, t.protocol) == (table.model, table.protocol) and t is not table)
    return any(other.benchmark.startswith(start) for other in alike)


def _longest(batches: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those with which no other begins."""
    every = list(batches)
    return [one for one in every if not any(other != one and other[: len(one)] == one for other in every)]

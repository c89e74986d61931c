"""How figures develop over successive requests: every stage of a chain, "a", "a>b", "a>b>c", as a point of a curve.

The first stage of a chain of targets is called "a>", so that it is not averaged with targets that were forgotten alone.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.samples import learning_curve
from bench.tables import HEADINGS, Table, spec_of

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
        for row in table.rows:
            for number, stage in enumerate(stages, start=1):
                at = next((r for r in stage.rows if r.method == row.method), None) if stage is not None else None
                for metric in (m for m in HEADINGS if m in table.better):
                    value = at.mean(metric) if at is not None else None
                    seeds = len(at.seeds) if at is not None else 0
                    start = [table.model, table.protocol, row.method, table.benchmark, number, requests[number - 1]]
                    rows.append([*start, metric, value, seeds])
    return rows


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

"""Every method against the best of its column: on the same examples and seeds, from stored rows.

A method is tied with the best where the difference is not significant: 5 %, Holm-corrected over the column's other
methods (`bench/stats.py` has the test). Leaderboards mark it, so that a bold figure is not read as a victory. Not being
significant is no proof of being alike: the interval says how large the difference may be.

Forget quality is tested by the distance D that it is the p-value of: p-values are no quantity to take differences of.
Tested is every column that some table prints (`bench.latex.layouts.printed`), so that no figure without a dagger is
taken for worse unseen; what has no test is marked as such. A cell whose rows are not there (a report without samples)
is compared with nothing; a figure that some row lacks is told with the reason. Composites of two models are functions
of the rows of both (`bench/composites.py`); where those do not give the figure that is printed, they are not compared.

Of 26 methods, the 23 columns of TOFU take about ten seconds a seed on one core, the 15 of ten targets twelve seconds.
"""

import functools
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Protocol

from bench import composites, stats
from bench.errors import LetheError
from bench.latex.layouts import printed
from bench.stats import Statistic
from bench.store import Record, read_jsonl
from bench.tables import Row, Table, base_label, spec_of, tables_of

log = logging.getLogger(__name__)

ALPHA = 0.05
TESTED_BY = {"forget_quality": "forget_ks_d"}
"""Metrics that are functions of another one, by which they are tested."""

Stored = list[dict]


class StatisticsOf(Protocol):
    """Metrics as functions of examples: the statistic of each name, or why there is none; unknown ones are left out."""

    def __call__(
        self,
        evaluator: str,
        rows: Stored,
        *,
        protocol: str,
        names: Iterable[str],
        reference: Callable[[str], Stored | None],
    ) -> Mapping[str, Statistic | str]: ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """A method and the best of its column; the difference is the method's figure minus the best one."""

    model: str
    benchmark: str
    protocol: str
    metric: str
    method: str
    best: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """Of the 95 % interval, which is not corrected for the number of methods."""
    p: float = math.nan
    p_holm: float = math.nan
    n: int = 0
    """Examples that both have."""
    tied: bool | None = None
    """None where there is no test."""
    reason: str = ""
    """Why there is no test, or what was tested instead."""


@dataclass(frozen=True, kw_only=True)
class Significance:
    """What is known of all tables."""

    results: tuple[Result, ...] = ()

    def tied(self, table: Table) -> dict[str, frozenset[str]]:
        """Metric -> methods that are not significantly different from the best, without that one."""
        return self._where(table, lambda result: bool(result.tied))

    def tested(self, table: Table) -> dict[str, frozenset[str]]:
        """Metric -> methods that were compared with the best, whatever came out."""
        return self._where(table, lambda result: result.tied is not None)

    def _where(self, table: Table, holds: Callable[[Result], bool]) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for r in self.results:
            if holds(r) and (r.model, r.benchmark, r.protocol) == (table.model, table.benchmark, table.protocol):
                found.setdefault(r.metric, set()).add(r.method)
        return {name: frozenset(methods) for name, methods in found.items()}

    def csv_rows(self) -> list[list[object]]:
        """Head and rows, figures to six digits: the last ones differ from machine to machine."""
        rows: list[list[object]] = [[field.name for field in fields(Result)]]
        return rows + [[_printed(value) for value in astuple(result)] for result in self.results]


def compare_with_best(
    records: Sequence[Record],
    folders: Sequence[Path],
    statistics_of: StatisticsOf,
    *,
    methods: Sequence[str] = (),
) -> Significance:
    """Every column of every leaderboard that any table prints.

    Args:
        folders: output folders; the rows of a record are in the first that has it.
        methods: the order of rows, as for the reports.
    """
    rows_of = functools.partial(_stored, folders)
    found = [_compare_table(table, rows_of, statistics_of) for table in tables_of(records, methods)]
    return Significance(results=tuple(result for results in found for result in results))


RowsOf = Callable[[Record, str], Stored | None]
CellKey = tuple[str, str]
"""Seed and benchmark."""
Pair = tuple[Sequence[Statistic], Sequence[Statistic]]
"""The cells of two methods."""


def _compare_table(table: Table, rows_of: RowsOf, statistics_of: StatisticsOf) -> list[Result]:
    columns = {name: best for name in printed(table) if (best := _best(table, name)) is not None}
    if not columns:
        return []
    names = list(dict.fromkeys(TESTED_BY.get(name, name) for name in columns))
    rows = [row for row in table.rows if not row.reference]
    known = {row.method: _statistics(table, row, names, rows_of, statistics_of) for row in rows}
    asked: dict[tuple[str, str, str], Pair | str] = {}
    others: dict[str, list[Row]] = {}
    for name, best in columns.items():
        tested = TESTED_BY.get(name, name)
        others[name] = [row for row in rows if row is not best and not math.isnan(row.mean(name))]
        for row in others[name]:
            pair = _paired(known[row.method], known[best.method], tested)
            if pair is not None:
                asked[tested, row.method, best.method] = pair
    pairs = {key: pair for key, pair in asked.items() if not isinstance(pair, str)}
    compared = dict(zip(pairs, stats.compare(list(pairs.values())), strict=True))
    results = []
    for name, best in columns.items():
        tested = TESTED_BY.get(name, name)
        mine = []
        for row in others[name]:
            key = (tested, row.method, best.method)
            if key not in asked:
                continue
            result = Result(
                model=table.model,
                benchmark=table.benchmark,
                protocol=table.protocol,
                metric=name,
                method=row.method,
                best=best.method,
            )
            mine.append(_result(result, asked[key], compared.get(key), tested))
        results += _corrected(mine)
    return results


def _best(table: Table, name: str) -> Row | None:
    """The row with the best mean, the first of equals; None where nobody is best."""
    places = table.places(name)
    leaders = [row for row in table.rows if places.get(row.method) == "best"]
    sign = 1 if table.better.get(name) else -1
    return max(leaders, key=lambda row: sign * row.mean(name), default=None)


def _result(
    result: Result,
    asked: "tuple[Sequence[Statistic], Sequence[Statistic]] | str",
    found: stats.Comparison | None,
    by: str,
) -> Result:
    if isinstance(asked, str) or found is None:
        return replace(result, reason=str(asked))
    if math.isnan(found.p):
        return replace(result, n=found.n, reason="no example in common" if not found.n else "not finite in some row")
    result = replace(result, p=found.p, n=found.n)
    if by != result.metric:
        return replace(result, reason=f"tested by {by}")
    return replace(result, difference=found.difference, low=found.low, high=found.high)


def _corrected(results: Sequence[Result]) -> list[Result]:
    """With Holm's p-values over the tests of one column."""
    tested = [result for result in results if not math.isnan(result.p)]
    corrected = dict(zip([r.method for r in tested], stats.holm([r.p for r in tested]), strict=True))
    return [
        replace(r, p_holm=corrected[r.method], tied=corrected[r.method] >= ALPHA) if r.method in corrected else r
        for r in results
    ]


def _paired(
    mine: Mapping[CellKey, Mapping[str, Statistic | str]],
    theirs: Mapping[CellKey, Mapping[str, Statistic | str]],
    name: str,
) -> Pair | str | None:
    """The cells of the same seed and benchmark; why they cannot be compared; None without rows."""
    shared = [key for key in mine if key in theirs and name in mine[key] and name in theirs[key]]
    pairs: tuple[list[Statistic], list[Statistic]] = [], []
    for key in shared:
        for side, found in zip(pairs, (mine[key][name], theirs[key][name]), strict=True):
            if isinstance(found, str):
                return found
            side.append(found)
        if [part.group for part in pairs[0][-1].parts] != [part.group for part in pairs[1][-1].parts]:
            return "the two were asked different kinds of questions"
    if shared:
        return pairs
    return (
        "no seed in common" if mine and theirs and all(name in s for s in (*mine.values(), *theirs.values())) else None
    )


# --- rows


def _statistics(
    table: Table, row: Row, names: Sequence[str], rows_of: RowsOf, statistics_of: StatisticsOf
) -> dict[CellKey, dict[str, Statistic | str]]:
    """By seed and benchmark, of the cells whose rows are there."""
    found = {}
    for record in row.records:
        mine: dict[str, Statistic | str] = {}
        asked: dict[str, list[str]] = {}
        for evaluator, metrics in record.metrics.items():
            source = composites.rows_of(record) if evaluator == composites.NAME else evaluator
            asked.setdefault(source, []).extend(name for name in names if any(m.name == name for m in metrics))
        for evaluator, wanted in asked.items():
            rows = rows_of(record, evaluator) if wanted else None
            if rows is None:
                continue
            reference = functools.cache(functools.partial(_reference, table, record, evaluator, rows_of))
            try:
                mine |= statistics_of(evaluator, rows, protocol=table.protocol, names=wanted, reference=reference)
            except LetheError as error:  # rows that are not of the same questions
                mine |= dict.fromkeys(wanted, str(error))
        for metric in record.metrics.get(composites.NAME, ()):
            statistic = mine.get(metric.name)
            if isinstance(statistic, Statistic) and not math.isclose(
                statistic.value(), metric.value, rel_tol=1e-6, abs_tol=1e-9
            ):
                mine[metric.name] = "the stored rows give another figure"
        if mine:
            prefix = spec_of(record, "benchmark") if table.targets else ""
            found[spec_of(record, "seed"), spec_of(record, "benchmark")] = {
                name: _of_benchmark(statistic, prefix) if isinstance(statistic, Statistic) else statistic
                for name, statistic in mine.items()
            }
    return found


def _of_benchmark(statistic: Statistic, benchmark: str) -> Statistic:
    """Its examples told apart from those of other benchmarks."""
    if not benchmark:
        return statistic
    return replace(statistic, parts=tuple(replace(part, group=f"{benchmark}/{part.group}") for part in statistic.parts))


def _reference(table: Table, record: Record, evaluator: str, rows_of: RowsOf, role: str) -> Stored | None:
    """The rows of the original or retrained model of the same benchmark, of the cell most like this one."""
    cells = [
        other
        for row in table.rows
        if base_label(row.method) == role
        for other in row.records
        if spec_of(other, "benchmark") == spec_of(record, "benchmark")
    ]
    likeness = [sum(other.spec.get(key) == value for key, value in record.spec.items()) for other in cells]
    for _, other in sorted(zip(likeness, cells, strict=True), key=lambda pair: -pair[0]):
        rows = rows_of(other, evaluator)
        if rows is not None:
            return rows
    return None


def _stored(folders: Sequence[Path], record: Record, evaluator: str) -> Stored | None:
    for folder in folders:
        path = folder / "runs" / record.cell_id / "samples" / f"{evaluator}.jsonl"
        if path.is_file():
            try:
                return read_jsonl(path)
            except LetheError as error:
                log.warning("not compared: %s", error)
    return None


def _printed(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return float(f"{value:.6g}") if isinstance(value, float) else value

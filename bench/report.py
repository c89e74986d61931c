"""Records to reports: metrics.csv (long), leaderboard (a row a method) as .csv, .tex, .md, .json, costs.csv, terminal.

What a machine took, seconds and memory, stands in costs.csv alone: the other files are the same, byte for byte,
whenever the figures are (leaderboard.json also names the commits of the code). Missing is missing: empty in CSV, null
in JSON, a dash elsewhere.
"""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.curves import batch_rows, curve_rows, learning_rows
from bench.errors import LetheError
from bench.exports import leaderboard_json, markdown
from bench.latex import latex
from bench.store import Record, json_text, write_text
from bench.summary import has_summary, summary_latex, summary_rows
from bench.tables import (
    HEADLINE,
    HEADLINE_FORMS,
    Mark,
    Row,
    Table,
    headline_first,
    last_reference,
    printed_number,
    spec_of,
    tables_of,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from bench.compare import Significance

_COSTS = (
    *("train_seconds", "eval_seconds", "wall_seconds", "peak_gib"),
    *("trainable_parameters", "train_steps", "train_tokens", "device"),
)
_SOMETIMES = (
    *("ort_summary.csv", "ort_summary.tex", "curves.csv", "batches.csv", "learning_curves.csv"),
    "significance.csv",
)
_LONG_FORM = ("model", "method", "benchmark", "seed", "protocol", "metric", "value", "stderr", "n")


def write_reports(
    records: Sequence[Record],
    out: Path,
    *,
    methods: Sequence[str] = (),
    tables: Sequence[Table] | None = None,
    significance: "Significance | None" = None,
    folders: Sequence[Path] = (),
) -> list[Path]:
    """metrics.csv, leaderboard.csv, .tex, .md, .json and costs.csv in `out`; the same records give the same bytes.

    Where facts were asked in forms, ORT's summary as ort_summary.csv and .tex beside them; of successive requests
    curves.csv; of nested batches of targets batches.csv; where methods were compared with the best of their column,
    significance.csv.

    `methods` is the order of the rows; a label with fields, `npo[beta=0.2]`, that is not in it follows its method.
    Without it, and for what it does not name, the order is that of the records. References come first in any case.
    `folders` hold the cells, where learning curves are wanted too (learning_curves.csv).
    `tables` are those of the records, where they are known already, with their marks of significance.
    """
    tables = tables_of(records, methods, significance=significance) if tables is None else tables
    contents = {
        "metrics.csv": _csv(_long_rows(tables)),
        "leaderboard.csv": _csv(_wide_rows(tables)),
        "leaderboard.tex": latex(tables),
        "leaderboard.md": markdown(tables),
        "leaderboard.json": json_text(leaderboard_json(tables)),
        "costs.csv": _csv(_cost_rows(tables)),
    }
    if any(map(has_summary, tables)):
        contents |= {
            "ort_summary.csv": _csv(summary_rows(tables)),
            "ort_summary.tex": "\n".join(summary_latex(table) for table in tables if has_summary(table)),
        }
    if len(curves := curve_rows(tables)) > 1:
        contents["curves.csv"] = _csv(curves)
    if len(batches := batch_rows(tables)) > 1:
        contents["batches.csv"] = _csv(batches)
    if len(looks := learning_rows(tables, folders)) > 1:
        contents["learning_curves.csv"] = _csv(looks)
    if significance is not None and significance.results:
        contents["significance.csv"] = _csv(significance.csv_rows())
    for name, text in contents.items():
        write_text(out / name, text)
    for name in _SOMETIMES:
        if name not in contents:  # what an earlier command wrote is not of these records
            (out / name).unlink(missing_ok=True)
    return [out / name for name in contents]


def summary_table(
    records: Sequence[Record], *, methods: Sequence[str] = (), significance: "Significance | None" = None
) -> "Summary":
    """The headline columns for a terminal: best bold, second underlined, cells that failed in red."""
    return Summary(tables=tuple(tables_of(records, methods, significance=significance)))


def failures(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Cell id and last line of the error, for every cell that failed; what is no defect goes without its class."""
    failed = [record for record in records if record.status == "failed"]
    reasons = [(record.error.strip().splitlines() or ["no error was recorded"])[-1] for record in failed]
    return [
        (r.cell_id, text.removeprefix(f"{LetheError.__module__}.LetheError: "))
        for r, text in zip(failed, reasons, strict=True)
    ]


# --- CSV


def _long_rows(tables: Sequence[Table]) -> list[list[object]]:
    rows: list[list[object]] = [[*_LONG_FORM]]
    for table in tables:
        for row in table.rows:
            for record in row.records:
                start = [table.model, row.method, spec_of(record, "benchmark"), record.spec.get("seed"), table.protocol]
                for metric in record.by_name.values():
                    rows.append([*start, metric.name, metric.value, metric.stderr, metric.n or None])
    return rows


def _wide_rows(tables: Sequence[Table]) -> list[list[object]]:
    known = list(dict.fromkeys(name for table in tables for name in table.better))
    metrics = headline_first(known or HEADLINE)
    several = any(len(row.seeds) > 1 for table in tables for row in table.rows)
    deviations = metrics if several else []
    averaged = any(table.targets or table.together for table in tables)
    bounded = [name for name in metrics if name in HEADLINE_FORMS] if averaged else []
    head = ["method", "benchmark", "model", "protocol", "seeds", *(["targets"] if averaged else []), "failed"]
    bounds = [f"{name}_{end}" for name in bounded for end in ("low", "high")]
    rows: list[list[object]] = [[*head, *metrics, *(f"{name}_sd" for name in deviations), *bounds]]
    for table in tables:
        targets = [len(table.targets) or table.together or None] if averaged else []
        for row in table.rows:
            start = [row.method, table.benchmark, table.model, table.protocol, len(row.seeds)]
            spread = [statistics.stdev(v) if len(v := row.values(name)) > 1 else math.nan for name in deviations]
            ends = [end for name in bounded for end in row.interval(name)]
            rows.append([*start, *targets, len(row.failed), *map(row.mean, metrics), *spread, *ends])
    return rows


def _cost_rows(tables: Sequence[Table]) -> list[list[object]]:
    rows: list[list[object]] = [["model", "method", "benchmark", "seed", "protocol", *_COSTS]]
    for table in tables:
        for row in table.rows:
            for record in row.records:
                start = [table.model, row.method, spec_of(record, "benchmark"), record.spec.get("seed"), table.protocol]
                rows.append([*start, *(record.record.get(name) for name in _COSTS)])
    return rows


def _csv(rows: Iterable[Sequence[object]]) -> str:
    return "".join(",".join(map(_csv_field, row)) + "\n" for row in rows)


def _csv_field(value: object) -> str:
    """Quoted where it must be; the csv module of Python 3.11 leaves a lone carriage return bare."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = repr(float(value)) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


# --- terminal


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The headline columns for a terminal; rich asks it for its lines and tells the width."""

    tables: tuple[Table, ...]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text  # text, not markup: labels hold square brackets

        for table in self.tables:
            yield Text(f"{table.title}, model {table.model}, protocol {table.protocol}", style="italic")
            for line in _view(table, options.max_width):
                line.no_wrap, line.overflow = True, "ignore"
                yield line
            marks = {mark for name in table.columns for mark in table.marks(name).values()}
            if "tied" in marks:
                yield Text(f"{_SIGNS['tied']} not significantly different from the best of its column", style="dim")
            if "untested" in marks or any(map(table.uncompared, table.columns)):
                yield Text(f"{_SIGNS['untested']} not tested against the best of its column", style="dim")
            yield Text()


def _view(table: Table, width: int) -> "Iterator[Text]":
    """A label that leaves no room for the figures stands on a line of its own, above them."""
    from rich.text import Text

    counted = any(len(row.records) + len(row.failed) != 1 for row in table.rows)
    names = [_short(name) + (_SIGNS["untested"] if table.uncompared(name) else "") for name in table.columns]
    heads = [*(["runs"] if counted else []), *names, _short("train_seconds")]
    rows = [(row, _figures(table, row, counted)) for row in table.rows]
    widths = [
        max(map(len, [*head.split("\n"), *(str(cells[at]) for _, cells in rows if at < len(cells))]))
        for at, head in enumerate(heads)
    ]
    room = width - sum(widths) - len(widths)
    label = max((len(row.method) for row in table.rows if len(row.method) <= room), default=0)
    label = max(label, len("method"))
    height = max(head.count("\n") for head in heads) + 1
    for at in range(height):
        parts = [head.split("\n") for head in heads]
        texts = [lines[at - height + len(lines)] if at >= height - len(lines) else "" for lines in parts]
        first = "method" if at == height - 1 else ""
        yield Text(" ".join([first.ljust(label), *(t.rjust(w) for t, w in zip(texts, widths, strict=True))]).rstrip())
    yield Text("\u2500" * (label + sum(widths) + len(widths)))
    for row, cells in rows:
        fits = len(row.method) <= label
        if not fits:
            yield Text(row.method)
        line = Text(row.method.ljust(label) if fits else " " * label)
        for cell, column in zip(cells, widths, strict=False):
            line.append(" " * (1 + column - len(cell)))
            line.append_text(cell)
        yield line
        if row is last_reference(table):
            yield Text()


def _figures(table: Table, row: Row, counted: bool) -> "list[Text]":
    """A row without its label; of one that failed, no more than that."""
    from rich.text import Text

    total = len(row.records) + len(row.failed)
    cells = [Text(f"{len(row.records)}/{total}", style="red" if row.failed else "")] if counted else []
    if not row.records:
        return [*cells, Text("failed", style="bold red")]
    for name in table.columns:
        style = {"best": "bold", "second": "underline", None: ""}[table.places(name).get(row.method)]
        cell = Text(printed_number(name, row.mean(name)) or "-", style=style)
        if marks := table.marks(name):
            mark = marks.get(row.method)
            cell.append(_SIGNS[mark] if mark else " ", style="not bold not underline")
        cells.append(cell)
    seconds = row.measured("train_seconds")
    return [*cells, Text("-" if math.isnan(seconds) else f"{seconds:.1f}")]


_SIGNS: dict[Mark, str] = {"tied": "\u2020", "untested": "\u2021"}

_SHORTER = {
    "forget_ks_d": "KS D",
    "rouge_l_recall": "ROUGE-L",
    "probability": "prob.",
    "extraction_strength": "extr._str.",
    "train_seconds": "train_s",
    "mean_forgetting": "mean_forg.",
    "forgetting_": "forg._",
    "subtoken": "letters",
    "retention": "kept",
}


def _short(name: str) -> str:
    """A narrow heading: eight figures and a method fit 80 columns."""
    for long, short in _SHORTER.items():
        name = name.replace(long, short)
    return name.replace("_", "\n")

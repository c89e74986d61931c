"""Leaderboards for people and for programs: leaderboard.md, what is printed; leaderboard.json, all that is known."""

import math
import re
import statistics
import unicodedata
from collections.abc import Sequence
from typing import Any

from bench.latex.captions import averaged, commits_of, records_of, restrictions
from bench.store import Record
from bench.tables import HEADINGS, Mark, Row, Table, last_reference, printed_number

FORMAT = 1
"""Of leaderboard.json; raised when a key changes its meaning."""
_ARROWS = {True: " \u2191", False: " \u2193", None: ""}
_SIGNS: dict[Mark, str] = {"tied": "\u2020", "untested": "\u2021"}
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


# --- Markdown


def markdown(tables: Sequence[Table]) -> str:
    """One table a leaderboard, the printed columns; any name stays text."""
    parts = ["# Leaderboards\n"]
    if any(len(row.method) for table in tables for row in table.rows):
        parts.append(_reading(tables))
    return "\n".join([*parts, *map(_markdown_table, tables)])


def _reading(tables: Sequence[Table]) -> str:
    sentences = ["Arrows point to the better side; the best method is bold, the second in italics."]
    if averaged(tables):
        sentences.append("Figures are means over seeds \u00b1 their standard deviation.")
    marks = {mark for table in tables for name in table.columns for mark in table.marks(name).values()}
    if "tied" in marks:
        sentences.append("\u2020 marks what is not significantly different from the best.")
    if "untested" in marks or any(table.uncompared(name) for table in tables for name in table.columns):
        sentences.append("\u2021 marks what is not tested against the best.")
    return " ".join(sentences) + "\n"


def _markdown_table(table: Table) -> str:
    title = f"{table.title}, model {table.model}, protocol {table.protocol}"
    places = {name: table.places(name) for name in table.columns}
    marks = {name: table.marks(name) for name in table.columns}
    names = (_heading(name) + ("\u2021" if table.uncompared(name) else "") for name in table.columns)
    heads = ["method", "seeds", *names]
    arrows = ["", "", *(_ARROWS[table.better.get(name)] for name in table.columns)]
    lines = [
        f"## {escape_markdown(title)}",
        "",
        _line([escape_markdown(head) + arrow for head, arrow in zip(heads, arrows, strict=True)]),
        _line(["---", *["---:"] * (len(heads) - 1)]),
    ]
    for row in table.rows:
        count = f"{len(row.seeds)}" + (f" ({len(row.failed)} failed)" if row.failed else "")
        cells = [
            _markdown_cell(row, name, places[name].get(row.method), marks[name].get(row.method))
            for name in table.columns
        ]
        name = escape_markdown(row.method)
        lines.append(_line([f"*{name}*" if row.reference and name.strip() else name, count, *cells]))
    notes = ["Rows in italics are references."] if last_reference(table) is not None else []
    notes += [escape_markdown(text) for text in restrictions([table])]
    if notes:
        lines += ["", " ".join(notes)]
    return "\n".join(lines) + "\n"


def _heading(metric: str) -> str:
    return " ".join(HEADINGS[metric]).replace("$", "") if metric in HEADINGS else metric.replace("_", " ")


def _markdown_cell(row: Row, metric: str, place: str | None, mark: Mark | None) -> str:
    values = row.values(metric)
    text = printed_number(metric, row.mean(metric))
    if not text:
        return "\u2013"
    text = {"best": f"**{text}**", "second": f"*{text}*"}.get(place or "", text)
    text += _SIGNS[mark] if mark else ""
    return f"{text} \u00b1 {printed_number(metric, statistics.stdev(values))}" if len(values) > 1 else text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escape_markdown(text: str) -> str:
    """One line that Markdown, also GitHub's, shows as it is: every sign of punctuation behind a backslash.

    Letters, digits, spaces and what cannot be misread (full stop, comma, hyphen, colon, slash, equals and brackets that
    no sign comes before) stay bare, so that names can be read in the source too.
    """
    line = "".join(" " if unicodedata.category(char) in ("Zl", "Zp", "Cc") else char for char in text)
    return _PUNCTUATION.sub(lambda match: match[0] if match[0] in ".,-:/=()" else f"\\{match[0]}", line)


# --- JSON


def leaderboard_json(tables: Sequence[Table]) -> dict[str, Any]:
    """Every figure with its deviation and number of seeds, and the cells that it comes from; what is missing is null.

    Holds the commits of the code, so it is the only leaderboard that changes with them. What is printed has also its
    interval over targets, its place, whether it is not significantly different from the best, and whether that was
    tested.
    """
    return {"format": FORMAT, "leaderboards": [_json_table(table) for table in tables]}


def _json_table(table: Table) -> dict[str, Any]:
    records = records_of([table])
    return {
        "benchmark": table.benchmark,
        "model": table.model,
        "protocol": table.protocol,
        "targets": list(table.targets),
        "code": [{"commit": commit, "dirty": dirty} for commit, dirty in commits_of(records)],
        "metrics": [
            {"name": name, "higher_is_better": better, "printed": name in table.columns}
            for name, better in table.better.items()
        ],
        "rows": [_json_row(table, row) for row in table.rows],
    }


def _json_row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "method": row.method,
        "reference": row.reference,
        "cells": [_json_cell(record) for record in row.records],
        "failed": [_json_cell(record) for record in row.failed],
        "values": {name: _json_value(table, row, name) for name in table.better},
    }


def _json_cell(record: Record) -> dict[str, Any]:
    code = record.record.get("code")
    commit = code.get("commit") if isinstance(code, dict) else None
    seed, benchmark = record.spec.get("seed"), record.spec.get("benchmark")
    return {"id": record.cell_id, "benchmark": benchmark, "seed": seed, "commit": commit}


def _json_value(table: Table, row: Row, metric: str) -> dict[str, Any]:
    values = row.values(metric)
    found = {
        "mean": row.mean(metric),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "by_seed": dict(zip(row.seeds, values, strict=bool(values))),
    }
    if metric not in table.columns:
        return found
    low, high = row.interval(metric)
    return found | {
        "interval": None if math.isnan(low) else [low, high],
        "place": table.places(metric).get(row.method),
        "tied": row.method in table.tied.get(metric, ()),
        "tested": row.method in (table.tested or {}).get(metric, ()),
    }

"""The gate: a run's metrics against those of a committed baseline, each with its own tolerance.

Whatever moved further than it may is told; what became worse, or is gone, makes the gate red.

A row that trains may move by `bench.baseline.DEVIATIONS` standard deviations of its seeds, and at least by the floor:
what another order of the data does as well is no finding. A reference (original, retrained) trains nothing. It is the
ruler that everything else is held to, so it may not move in either direction, and by no more than rounding. That is how
a formula that has changed is found: a factor of 1.01 moves every reference by five times what it is allowed.

Where weights, kind of device or torch are not those of the baseline, figures differ without any change of the code: the
mini models are trained on the spot and end elsewhere, and a word that was nearly as likely as another one wins. Then a
wider tolerance applies, which a factor of 1.01 still exceeds in what is made of likelihoods, and the output says so.

What the gate cannot see: a change within the deviation of the seeds (more seeds make that smaller); on other weights a
change of less than one example in a reference's ROUGE-L, accuracy or D; whatever the baseline's command does not run.
P-values are never compared, because one example moves them by magnitudes; the D that they come from is. Nor is time.
"""

import math
import os
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.baseline import Baseline, Expected, ExpectedRow, baseline_of, is_p_value, origin_of, read_baseline
from bench.baseline import write_baseline as _write_baseline
from bench.published import imported
from bench.report import failures
from bench.store import Record, write_text
from bench.tables import Row, tables_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

Verdict = Literal["regression", "moved", "missing", "better", "new", "ok"]
RED: tuple[Verdict, ...] = ("regression", "moved", "missing")
"""Worse than it may be; moved where neither direction is better, or in a reference; no longer there."""
_COLUMNS = (
    *("model", "benchmark", "protocol", "method", "metric", "before", "now"),
    *("difference", "tolerance", "deviations", "direction", "verdict", "note"),
)
MAX_ANNOTATIONS = 10
"""GitHub shows that many of a kind a step (https://docs.github.com/en/rest/checks/runs)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of one row, before and now."""

    model: str
    benchmark: str
    protocol: str
    method: str
    metric: str
    before: float
    """NaN for a new one."""
    now: float
    """NaN for a missing one."""
    tolerance: float
    sd: float
    """Over the baseline's seeds."""
    direction: Literal["better", "worse", "neither", ""]
    """Empty where nothing moved."""
    verdict: Verdict
    note: str = ""

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.model, self.benchmark, self.protocol, self.method

    @property
    def difference(self) -> float:
        return self.now - self.before

    @property
    def deviations(self) -> float:
        """The difference in standard deviations of the seeds; NaN where these do not differ."""
        return self.difference / self.sd if self.sd > 0 else math.nan

    @property
    def red(self) -> bool:
        return self.verdict in RED

    def __str__(self) -> str:
        """In words."""
        if self.verdict == "missing":
            return f"{self.metric} was {_number(self.before)} and is missing: {self.note}"
        if self.verdict == "new":
            return f"{self.metric} is new: {_number(self.now)}"
        counted = "" if math.isnan(self.deviations) else f", {self.deviations:+.1f} standard deviations of the seeds"
        way = {"better": "for the better", "worse": "for the worse"}.get(self.direction, "no direction is better")
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.metric} was {_number(self.before)}, is {_number(self.now)}: {self.difference:+.3g} "
            f"with a tolerance of {self.tolerance:.3g}{counted}, {way}{note}"
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """Every comparison, rows in the order of the leaderboards; rich asks it for its lines."""

    rows: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    """What holds for all of it."""
    updated: bool = False
    """The baseline was written anew: what moved within its tolerance is shown too, and nothing is judged."""

    @property
    def red(self) -> bool:
        return any(row.red for row in self.rows)

    @property
    def exit_code(self) -> int:
        return int(self.red)

    @property
    def counts(self) -> dict[Verdict, int]:
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in (*RED, "better", "new", "ok") if found[verdict]}

    @property
    def verdict(self) -> str:
        """One line."""
        if self.updated:
            changed = sum(row.verdict != "ok" or row.difference != 0 for row in self.rows)
            return f"baseline written anew: {changed} metrics differ from the file before"
        counted = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
        return f"gate {'red' if self.red else 'green'}: {counted or 'nothing to compare'}"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text  # text, not markup: labels hold square brackets

        shown = [row for row in self.rows if row.verdict != "ok" or (self.updated and row.difference)]
        yield from (_line(Text(note, style="yellow")) for note in self.notes)
        if shown:
            yield from _view(shown)
        yield _line(Text(self.verdict, style="bold" if self.updated else "bold red" if self.red else "bold green"))


# --- comparing


def compare(baseline: Baseline, records: Sequence[Record], *, methods: Sequence[str] = ()) -> Check:
    """Every metric of the baseline with what the records say now, and what is new.

    Args:
        methods: the order of the rows.
    """
    mine = [record for record in records if not imported(record)]
    here = {
        (table.model, table.benchmark, table.protocol, row.method): (table, row)
        for table in tables_of(mine, methods)
        for row in table.rows
    }
    rows: list[Comparison] = []
    moved_house: dict[str, list[str]] = {}
    known = {row.place for row in baseline.rows}
    in_order = sorted(baseline.rows, key=lambda row: list(here).index(row.place) if row.place in here else -1)
    for wanted in in_order:
        if wanted.place not in here:
            rows += [_missing(wanted, name, metric, "the row is gone") for name, metric in wanted.metrics.items()]
            continue
        table, row = here[wanted.place]
        if len(row.seeds) < wanted.seeds:
            reason = f"{len(row.seeds)} of {wanted.seeds} seeds are there" + _why(row)
            rows += [_missing(wanted, name, metric, reason) for name, metric in wanted.metrics.items()]
            continue
        origin = origin_of(row)
        differs = [part for part, text in wanted.origin.items() if origin.get(part) != text]
        for part in differs:
            moved_house.setdefault(part, []).append(row.method)
        for name in dict.fromkeys((*table.better, *wanted.metrics)):
            if name in wanted.metrics:
                rows.append(_compared(wanted, name, wanted.metrics[name], row, elsewhere=bool(differs)))
            elif not is_p_value(name) and not math.isnan(row.mean(name)):
                rows.append(_new(wanted.place, name, row.mean(name)))
    for place, (table, row) in here.items():
        if place not in known:
            rows += [_new(place, n, row.mean(n)) for n in table.better if not is_p_value(n) and row.values(n)]
    return Check(rows=tuple(rows), notes=tuple(_told(moved_house)))


def _told(moved_house: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for part, methods in moved_house.items():
        names = ", ".join(dict.fromkeys(methods))
        yield f"the {part} of {names} not as in the baseline: compared with the tolerance for that"


def _why(row: Row) -> str:
    return "".join(f"; {reason}" for _, reason in failures(row.failed)[:1])


def _missing(row: ExpectedRow, name: str, metric: Expected, reason: str) -> Comparison:
    return _comparison(row.place, name, metric, math.nan, metric.tolerance, "", "missing", reason)


def _new(place: tuple[str, str, str, str], name: str, now: float) -> Comparison:
    model, benchmark, protocol, method = place
    return Comparison(
        model=model,
        benchmark=benchmark,
        protocol=protocol,
        method=method,
        metric=name,
        before=math.nan,
        now=now,
        tolerance=math.nan,
        sd=math.nan,
        direction="",
        verdict="new",
    )


def _compared(wanted: ExpectedRow, name: str, metric: Expected, row: Row, *, elsewhere: bool) -> Comparison:
    now = row.mean(name)
    if math.isnan(now):
        return _missing(wanted, name, metric, "no value, or not for every seed")
    tolerance = max(metric.tolerance, metric.elsewhere) if elsewhere else metric.tolerance
    difference = now - metric.mean
    direction: Literal["better", "worse", "neither", ""] = ""
    if difference:
        better = metric.higher_is_better
        direction = "neither" if better is None else "better" if (difference > 0) == better else "worse"
    verdict: Verdict = "ok"
    note = ""
    if abs(difference) > tolerance:
        if wanted.reference:
            verdict, note = "moved", "a reference trains nothing: what it is measured with has changed"
        elif direction == "neither":
            verdict = "moved"
        else:
            verdict = "better" if direction == "better" else "regression"
    return _comparison(wanted.place, name, metric, now, tolerance, direction, verdict, note)


def _comparison(
    place: tuple[str, str, str, str],
    name: str,
    metric: Expected,
    now: float,
    tolerance: float,
    direction: Literal["better", "worse", "neither", ""],
    verdict: Verdict,
    note: str,
) -> Comparison:
    model, benchmark, protocol, method = place
    return Comparison(
        model=model,
        benchmark=benchmark,
        protocol=protocol,
        method=method,
        metric=name,
        before=metric.mean,
        now=now,
        tolerance=tolerance,
        sd=metric.sd,
        direction=direction,
        verdict=verdict,
        note=note,
    )


def update(path: Path, records: Sequence[Record], argv: Sequence[str], *, methods: Sequence[str] = ()) -> Check:
    """Write the baseline anew; what comes back shows every figure that differs from the file before.

    Args:
        argv: the command that made the records, the one of the baseline before it where --check ran that.

    Raises:
        LetheError: a cell failed; the file stays as it was.
    """
    new = baseline_of(records, argv, methods=methods)
    old = read_baseline(path) if path.exists() else Baseline(command=(), given_again=(), commit="", rows=())
    check = compare(old, records, methods=methods)
    _write_baseline(path, new)
    notes = [] if old.command == new.command or not old.rows else [f"the command was: {' '.join(old.command)}"]
    return Check(rows=check.rows, notes=(*notes, *check.notes), updated=True)


# --- what is written


def write_check(check: Check, out: Path) -> list[Path]:
    """check.csv and junit.xml."""
    files = {"check.csv": _csv(check), "junit.xml": _junit(check)}
    for name, text in files.items():
        write_text(out / name, text)
    return [out / name for name in files]


def _csv(check: Check) -> str:
    lines = [",".join(_COLUMNS)]
    for row in check.rows:
        lines.append(",".join(_field(getattr(row, name)) for name in _COLUMNS))
    return "".join(f"{line}\n" for line in lines)


def _field(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _junit(check: Check) -> str:
    """A suite for every row, a case for every metric; the schema that CI systems read, without times."""
    root = ET.Element("testsuites", name="gate", tests=str(len(check.rows)), failures=_failed(check.rows), errors="0")
    for (model, benchmark, protocol, method), group in groupby(check.rows, key=lambda row: row.place):
        rows = list(group)
        name = _clean(f"{method} | {benchmark} | {model} | {protocol}")
        suite = ET.SubElement(
            root, "testsuite", name=name, tests=str(len(rows)), failures=_failed(rows), errors="0", skipped="0"
        )
        for row in rows:
            case = ET.SubElement(suite, "testcase", classname=name, name=_clean(row.metric))
            if row.red:
                failure = ET.SubElement(case, "failure", type=row.verdict, message=_clean(f"{method}: {row}"))
                failure.text = _clean(str(row))
            elif row.verdict != "ok":
                ET.SubElement(case, "system-out").text = _clean(str(row))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _failed(rows: Sequence[Comparison]) -> str:
    return str(sum(row.red for row in rows))


def _clean(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold (https://www.w3.org/TR/xml/#charsets)."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def annotations(check: Check) -> list[str]:
    """Workflow commands that GitHub shows beside a change; none outside its actions.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    lines = []
    for command, rows in (
        ("error", sorted((r for r in check.rows if r.red), key=_urgency)),
        ("notice", sorted((r for r in check.rows if r.verdict == "better"), key=_urgency)),
    ):
        told = rows if len(rows) <= MAX_ANNOTATIONS else rows[: MAX_ANNOTATIONS - 1]
        for row in told:
            title = _property(f"{row.method} {row.benchmark}: {row.metric}")
            lines.append(f"::{command} title={title}::{_data(f'{row.method}: {row}')}")
        if len(rows) > len(told):
            lines.append(f"::{command} title=gate::{len(rows) - len(told)} more of these, see check.csv")
    return lines


def _urgency(row: Comparison) -> float:
    """What is gone first, then by how many tolerances it moved."""
    return -math.inf if math.isnan(row.now) else -abs(row.difference) / (row.tolerance or math.ulp(0.0))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# --- terminal

_STYLES = {"better": "green", "new": "cyan", "ok": ""}


def _view(rows: Sequence[Comparison]) -> "Iterator[Text]":
    """A line for every metric under its row; a row of which everything is gone is one line."""
    from rich.text import Text

    heads = ("before", "now", "difference", "may", "seeds' sd")
    verdicts, cells = [_verdict(row) for row in rows], [_cells(row) for row in rows]
    first = 2 + max(map(len, verdicts))
    name = max(len("metric"), *(len(row.metric) for row in rows))
    widths = [max(len(head), *(len(c[at]) for c in cells)) for at, head in enumerate(heads)]

    def line(verdict: str, metric: str, numbers: Sequence[str]) -> Text:
        columns = [number.rjust(width) for number, width in zip(numbers, widths, strict=True)]
        return Text(" ".join([verdict.ljust(first), metric.ljust(name), *columns]))

    yield _line(line("", "metric", heads))
    for (model, benchmark, protocol, method), group in groupby(rows, key=lambda row: row.place):
        mine = list(group)
        yield _line(Text(f"{method}, {benchmark}, model {model}, protocol {protocol}", style="italic"))
        alike = {(row.verdict, row.note) for row in mine}
        if len(mine) > 1 and len(alike) == 1 and mine[0].verdict in ("missing", "new"):
            note = f": {mine[0].note}" if mine[0].note else ""
            style = "red" if mine[0].red else "cyan"
            yield _line(Text(f"  {len(mine)} metrics {mine[0].verdict}{note}", style=style))
            continue
        for row in mine:
            text = line(f"  {_verdict(row)}", row.metric, _cells(row))
            text.stylize(_STYLES.get(row.verdict, "bold red"), 0, first)
            yield _line(text.append(f"  {row.note}" if row.note else ""))


def _verdict(row: Comparison) -> str:
    return row.direction or "same" if row.verdict == "ok" else row.verdict


def _cells(row: Comparison) -> list[str]:
    return [
        _number(row.before),
        _number(row.now),
        _number(row.difference, "+.3g"),
        _number(row.tolerance, ".3g"),
        _number(row.deviations, "+.1f"),
    ]


def _number(value: float, form: str = ".5g") -> str:
    return "-" if math.isnan(value) else format(value, form)


def _line(text: "Text") -> "Text":
    text.no_wrap, text.overflow = True, "ignore"
    return text

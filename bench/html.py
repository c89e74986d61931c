"""OUT/report.html: leaderboards, pictures and samples as one page that needs no network, now or ever.

Tables and pictures are markup, so they are there without JavaScript and in print; the script of the page sorts, filters
and shows samples, which are embedded as JSON. A content security policy allows exactly the page's own style and script,
by their hashes, and no request of any kind. The same records give the same bytes.
"""

import base64
import hashlib
import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from bench.curves import batch_rows, curve_rows
from bench.drawings import (
    Panel,
    batch_panels,
    form_gap,
    gate_panels,
    loss_panels,
    request_panels,
    scatter,
    truth_ratio_panels,
)
from bench.errors import LetheError
from bench.latex.captions import restrictions
from bench.pareto import tradeoffs
from bench.samples import GATES, PER_SET, blocks, by_seed, learning_curve, rows_of, train_log, truth_ratios
from bench.store import Record, write_text
from bench.tables import HEADINGS, Mark, Row, Table, base_label, printed_number, spec_of, tables_of

TEMPLATES = Path(__file__).parent / "templates"
NAME = "report.html"
MOST_RUNS = 10
"""Cells of a row whose training is drawn: lines of more would cover one another."""
ARROWS = {True: "↑", False: "↓", None: ""}


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric as the head of a column."""

    name: str
    group: str
    label: str
    arrow: str
    best: str
    """"desc" where more is better, else "asc": the side that a click sorts to the top."""
    extra: bool
    """Shown among all metrics only."""
    uncompared: bool
    """Nothing of it was tested against its best figure."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure, with what is told of it."""

    text: str
    deviation: str
    sort: str
    """The value in full, empty where missing."""
    tip: str
    marks: str
    """Classes: best, second, tied, untested, extra."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a leaderboard."""

    method: str
    tip: str
    reference: bool
    runs: str
    """Complete of all, "2/3"."""
    cells: tuple[Cell, ...]
    failed: tuple[str, ...]
    """Where it failed and the error's last line."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Panels under one heading."""

    title: str
    note: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the page says of one table."""

    id: str
    title: str
    facts: Sequence[tuple[str, str]]
    """Model, protocol, seeds, commit, ...: what the caption says."""
    notes: Sequence[str]
    columns: Sequence[Column]
    lines: Sequence[Line]
    figures: Sequence[Figure]
    several: bool
    """Whether any figure has a deviation over seeds."""


def write_html(
    records: Sequence[Record],
    folders: Sequence[Path],
    out: Path,
    *,
    methods: Sequence[str] = (),
    tables: Sequence[Table] | None = None,
    per_set: int = PER_SET,
) -> Path:
    """Write `out`/report.html and say where it is.

    Args:
        folders: the output folders whose runs/ and failed/ hold the cells; samples and training logs are read there,
            and a cell that is in none of them goes without.
        methods: the order of the rows, as in `bench.report.write_reports`.
        tables: those of the records, where they are known already, with their marks of significance.
        per_set: how many questions of a set are embedded at most.

    Raises:
        LetheError: a stored file is damaged, or the page cannot be written.
    """
    shown = tables_of(records, methods) if tables is None else tables
    sections = [_section(f"t{place}", table, folders) for place, table in enumerate(shown)]
    data = [
        {"table": section.id, "title": section.title, **block}
        for section, table in zip(sections, shown, strict=True)
        for block in blocks(table, folders, per_set=per_set)
    ]
    chains = [
        Figure(title=f"Successive requests: {title}", note=_CHAIN, panels=panels)
        for title, panels in request_panels(curve_rows(shown)[1:])
    ]
    batches = [
        Figure(title=f"Targets unlearned together: {title}", note=_BATCH, panels=panels)
        for title, panels in batch_panels(batch_rows(shown)[1:])
    ]
    write_text(out / NAME, _page(sections, chains, batches, data, per_set))
    return out / NAME


def _page(
    sections: Sequence[Section],
    chains: Sequence[Figure],
    batches: Sequence[Figure],
    data: Sequence[dict[str, Any]],
    per_set: int,
) -> str:
    style, script = (_own(name) for name in ("report.css", "report.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return _template().render(
        sections=sections,
        chains=chains,
        batches=batches,
        blocks=[embedded(block) for block in data],
        per_set=per_set,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        failures=sum(len(line.failed) for section in sections for line in section.lines),
        markup=Markup,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")


def _own(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    """As a content security policy names an inline block."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def embedded(value: object) -> Markup:
    """JSON that may stand in a script element: no sign of it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


# --- one table

_MARKS: dict[Mark, str] = {
    "tied": "not significantly different from the best",
    "untested": "not tested against the best",
}


def _section(name: str, table: Table, folders: Sequence[Path]) -> Section:
    headline = set(table.columns)
    metrics = list(dict.fromkeys([*table.columns, *table.better]))  # the printed ones first
    places = {metric: table.places(metric) for metric in metrics}
    marks = {metric: table.marks(metric) for metric in metrics}
    return Section(
        id=name,
        title=f"{table.title} · {table.model} · {table.protocol}",
        facts=_facts(table),
        notes=_notes(table),
        columns=[_column(metric, table, extra=metric not in headline) for metric in metrics],
        lines=[_line(row, table, places, marks, headline) for row in table.rows],
        figures=_figures(table, folders),
        several=any(len(row.seeds) > 1 for row in table.rows),
    )


def _column(metric: str, table: Table, *, extra: bool) -> Column:
    better = table.better.get(metric)
    group, label = (part.replace("$", "") for part in HEADINGS.get(metric, ("", metric.replace("_", " "))))
    best = "asc" if better is False else "desc"
    return Column(
        name=metric,
        group=group,
        label=label,
        arrow=ARROWS[better],
        best=best,
        extra=extra,
        uncompared=table.uncompared(metric),
    )


def _line(
    row: Row,
    table: Table,
    places: Mapping[str, Mapping[str, str]],
    marked: Mapping[str, Mapping[str, Mark]],
    headline: Collection[str],
) -> Line:
    cells = []
    for metric in places:
        values, mean = row.values(metric), row.mean(metric)
        place, mark = places[metric].get(row.method, ""), marked[metric].get(row.method)
        classes = [place, mark or "", "" if metric in headline else "extra"]
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        cells.append(
            Cell(
                text=printed_number(metric, mean) or "–",
                deviation="" if math.isnan(deviation) else f"±{printed_number(metric, deviation)}",
                sort="" if math.isnan(mean) else repr(float(mean)),
                tip="\n".join(
                    [
                        f"{row.method}: {metric}",
                        *(
                            _told(metric, row, values, deviation, bounded=metric in headline)
                            if values
                            else _why(metric, row)
                        ),
                        *([f"{place} of the column"] if place else []),
                        *([_MARKS[mark]] if mark else []),
                    ]
                ),
                marks=" ".join(filter(None, classes)),
            )
        )
    total = len(row.records) + len(row.failed)
    return Line(
        method=row.method,
        tip=_method_tip(row),
        reference=row.reference,
        runs=f"{len(row.records)}/{total}",
        cells=tuple(cells),
        failed=tuple(_failure(record, table) for record in row.failed),
    )


def _told(metric: str, row: Row, values: Sequence[float], deviation: float, *, bounded: bool) -> list[str]:
    """All that is known of a figure, a line each."""
    lines = [f"{_full(row.mean(metric))}, mean of {_count(len(values), 'seed')}"]
    if not math.isnan(deviation):
        lines.append(f"standard deviation {_full(deviation)}: {', '.join(map(_full, values))}")
    low, high = row.interval(metric) if bounded else (math.nan, math.nan)  # the bootstrap is not for nothing
    if not math.isnan(low):
        lines.append(f"95 % interval over {len(row.by_target(metric))} targets: {_full(low)} to {_full(high)}")
    found = [m for record in row.records if (m := record.by_name.get(metric)) is not None]
    examples = sorted({m.n for m in found if m.n})
    if examples:
        errors = [m.stderr for m in found if not math.isnan(m.stderr)]
        spread = f", standard error {_full(statistics.fmean(errors))}" if errors else ""
        lines.append(f"n = {' or '.join(map(str, examples))} examples a run{spread}")
    return lines


def _why(metric: str, row: Row) -> list[str]:
    """Why there is no figure."""
    if not row.records:
        return ["missing: no run is complete"]
    found = [m for record in row.records if (m := record.by_name.get(metric)) is not None]
    reasons = dict.fromkeys(m.reason for m in found if m.missing and m.reason)
    return [f"missing: {reason}" for reason in reasons] or ["missing: not measured in every run"]


def _method_tip(row: Row) -> str:
    """Its fields, where they come from, and what it cost."""
    lines = [row.method]
    records = row.records or row.failed
    fields = records[0].spec.get("fields") if records else None
    recipes = dict.fromkeys(str(r.record["recipe"]) for r in row.records if r.record.get("recipe"))
    lines += list(recipes)
    if isinstance(fields, Mapping) and fields:
        lines.append(", ".join(f"{key}={_plain(value)}" for key, value in fields.items()))
    trained, moved = row.measured("train_seconds"), row.measured("trainable_parameters")
    costs = [] if math.isnan(trained) else [f"{trained:.1f} s of training"]
    costs += [] if math.isnan(moved) else [f"{moved:,.0f} trainable parameters"]
    return "\n".join([*lines, *([", ".join(costs)] if costs else [])])


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _failure(record: Record, table: Table) -> str:
    where = f"{spec_of(record, 'benchmark')}, " if table.targets else ""
    lines = record.error.strip().splitlines() or ["no error was recorded"]
    reason = lines[-1].removeprefix(f"{LetheError.__module__}.LetheError: ")
    return f"{where}seed {spec_of(record, 'seed')} failed: {reason}"


def _facts(table: Table) -> list[tuple[str, str]]:
    records = [record for row in table.rows for record in (*row.records, *row.failed)]
    complete = [record for row in table.rows for record in row.records]
    changed = [record for record in records if base_label(spec_of(record, "method")) != "retrained"]

    def every(texts: Iterable[str]) -> str:
        return ", ".join(sorted({text for text in texts if text})) or "not recorded"

    facts = [
        ("benchmark", table.benchmark),
        ("model", every(_model(record) for record in changed or records)),
        ("protocol", table.protocol),
        ("seeds", ", ".join(by_seed(records))),
        ("commit", every(_commit(record) for record in complete)),
        ("data", every(str(record.record.get("data_source") or "") for record in complete)),
    ]
    limits = {str(limit) for record in records if (limit := record.spec.get("limit")) is not None}
    return [
        *facts,
        *([("targets", str(len(table.targets)))] if table.targets else []),
        *([("targets", f"{table.together} in one model")] if table.together else []),
        *([("limit", ", ".join(sorted(limits)) + " rows a set")] if limits else []),
    ]


def _model(record: Record) -> str:
    name, digest = spec_of(record, "model"), spec_of(record, "model_hash")
    return f"{name} ({digest[:8]})" if digest else name


def _commit(record: Record) -> str:
    code = record.record.get("code")
    if not isinstance(code, Mapping) or not code.get("commit"):
        return ""
    return f"{str(code['commit'])[:10]}{' with uncommitted changes' if code.get('dirty') else ''}"


def _notes(table: Table) -> list[str]:
    notes = ["Arrows point to the better side. Best is bold, second underlined."]
    if any(table.tied.values()):
        notes.append("≈ is not significantly different from the best of its column.")
    if any(table.uncompared(name) or "untested" in table.marks(name).values() for name in table.better):
        notes.append("‡ is not tested against the best of its column.")
    if any(row.reference for row in table.rows):
        notes.append("Rows above the line are references, out of the contest.")
    if any(len(row.seeds) > 1 for row in table.rows):
        notes.append("Figures are means over seeds; ± is their standard deviation.")
    if "forget_quality" in table.better:
        notes.append("Forget quality is a p-value.")
    notes += restrictions([table])
    if table.model == "mini":
        notes.append("The model mini is tiny: its figures say nothing about large models.")
    return notes


def _figures(table: Table, folders: Sequence[Path]) -> list[Figure]:
    logs = {row.method: runs for row in table.rows if (runs := _each(row, lambda r: train_log(r, folders)))}
    looks = {row.method: runs for row in table.rows if (runs := _each(row, lambda r: learning_curve(r, folders)))}
    gates = {
        row.method: [line for run in runs for line in run]
        for row in table.rows
        if (runs := _each(row, lambda r: rows_of(r, folders, GATES)))
    }
    drawn = [
        ("Forgetting and utility", _SCATTER, [scatter(table, pair) for pair in tradeoffs(table)]),
        ("Truth ratios of the forget set", _RATIOS, truth_ratio_panels(table, truth_ratios(table, folders))),
        ("Forgetting by form", _FORMS, form_gap(table)),
        ("Losses", _LOSSES, loss_panels(table, logs)),
        ("Learning curves", _LOOKS, loss_panels(table, looks)),
        ("Gates", _GATES, gate_panels(table, gates)),
    ]
    return [Figure(title=title, note=note, panels=panels) for title, note, panels in drawn if panels]


def _each(row: Row, read: Any) -> list[list[dict[str, Any]]]:
    """What `read` finds for the cells of a row, at most MOST_RUNS of them, failed ones last."""
    every = [*row.records, *row.failed]
    return [found for record in every[:MOST_RUNS] if (found := read(record))]


_SCATTER = (
    "Better is up and to the right. The broken line is the Pareto front: no other method is at least as good in both "
    "and better in one. Hollow points are references; small points are single seeds."
)
_RATIOS = (
    "Share of the forget questions whose truth ratio is at most x, a line a seed; grey is the retrained model. The "
    "largest vertical distance between the two is D. At 0 the wrong answers are as likely as the right one."
)
_FORMS = (
    "Each mark is a form of the same facts, the bar spans them. The form gap is the mean of the targets' own gaps, so "
    "it is at least as wide."
)
_LOOKS = "Figures of the validation rows at every look at the model while it trained (--curve), a line a run."
_LOSSES = "The terms of each method's loss in training, a line a run, averaged over neighbouring steps."
_GATES = (
    "Distribution of the gate over prompts: it should be open (1) for what is to be forgotten and closed (0) elsewhere."
)
_CHAIN = "Each request is unlearned on top of those before it."
_BATCH = (
    "So many targets are unlearned together, in one request: no sequence, but a model of its own for every batch. Each "
    "begins with the targets of the smaller ones; at 1 stands the first of them alone. Figures are means over the "
    "targets of a batch, so what is asked grows with it."
)


def _full(value: float) -> str:
    return f"{value:.6g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

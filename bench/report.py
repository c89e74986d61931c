"""Records to tables: metrics.csv (long), leaderboard.csv (a row a method), leaderboard.tex (booktabs), the terminal's.

What a machine took, seconds and memory, stands in costs.csv alone: the other files are the same, byte for byte,
whenever the figures are.

Missing is missing: empty in CSV, a dash elsewhere. A row is the mean over the seeds that are complete, with their
number; a figure that one of them lacks is missing in the mean too. Cells that failed leave a visible hole.
"""

import json
import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import LetheError
from bench.records import Metric
from bench.store import Record, write_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

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
"""The columns that are printed, each with the two lines of its heading in LaTeX; the rest is in the CSV files only."""

_COSTS = (
    *("train_seconds", "eval_seconds", "wall_seconds", "peak_gib"),
    *("trainable_parameters", "train_steps", "train_tokens", "device"),
)
_MAX_COLUMNS = 8
_SHORT_LABEL = 18  # characters that fit the text of an article beside eight columns of footnote size
_LONG_LABEL = 26  # and of script size; longer ones are broken
_LONG_FORM = ("model", "method", "benchmark", "seed", "protocol", "metric", "value", "stderr", "n")
_TINY_MODEL = "mini"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One method in one table."""

    method: str
    records: tuple[Record, ...]
    """Complete ones, by seed."""
    failed: tuple[Record, ...]

    @property
    def reference(self) -> bool:
        return _base(self.method) in REFERENCES

    def values(self, metric: str) -> list[float]:
        """One value a complete seed; empty where a seed lacks it."""
        found = [_metrics(record).get(metric) for record in self.records]
        values = [metric.value for metric in found if metric is not None and not metric.missing]
        return values if len(values) == len(found) else []

    def mean(self, metric: str) -> float:
        return _mean(self.values(metric))

    def measured(self, key: str) -> float:
        """Mean of what the records, not the evaluators, report: train_seconds, trainable_parameters."""
        values = [record.record.get(key) for record in self.records]
        return _mean([value for value in values if isinstance(value, int | float)] if None not in values else [])


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The rows that may be compared: same model, benchmark and protocol."""

    model: str
    benchmark: str
    protocol: str
    rows: tuple[_Row, ...] = ()
    better: Mapping[str, bool | None] = field(default_factory=dict)
    """Every metric of the rows, headline first, with whether higher is better."""

    @property
    def columns(self) -> list[str]:
        """The metrics that are printed."""
        return [name for name in HEADLINE if name in self.better] or list(self.better)[:_MAX_COLUMNS] or list(HEADLINE)

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
        printed = {method: _number(metric, value) for method, value in values.items()}
        in_order = list(dict.fromkeys(printed[m] for m in sorted(values, key=values.__getitem__, reverse=better)))
        if len(in_order) == 1:
            return {}
        places: dict[str, Literal["best", "second"]] = {m: "best" for m, text in printed.items() if text == in_order[0]}
        if len(places) == 1:
            places |= {m: "second" for m, text in printed.items() if text == in_order[1]}
        return places


def write_reports(records: Sequence[Record], out: Path, *, methods: Sequence[str] = ()) -> list[Path]:
    """metrics.csv, leaderboard.csv, leaderboard.tex and costs.csv in `out`; the same records give the same bytes.

    `methods` is the order of the rows; a label with fields, `npo[beta=0.2]`, that is not in it follows its method.
    Without it, and for what it does not name, the order is that of the records. References come first in any case.
    """
    tables = _tables(records, methods)
    contents = {
        "metrics.csv": _csv(_long_rows(tables)),
        "leaderboard.csv": _csv(_wide_rows(tables)),
        "leaderboard.tex": _tex(tables),
        "costs.csv": _csv(_cost_rows(tables)),
    }
    for name, text in contents.items():
        write_text(out / name, text)
    return [out / name for name in contents]


def summary_table(records: Sequence[Record], *, methods: Sequence[str] = ()) -> "Summary":
    """The headline columns for a terminal: best bold, second underlined, cells that failed in red."""
    return Summary(tables=tuple(_tables(records, methods)))


def failures(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Cell id and last line of the error, for every cell that failed."""
    failed = [record for record in records if record.status == "failed"]
    return [(record.cell_id, (record.error.strip().splitlines() or ["no error was recorded"])[-1]) for record in failed]


def escape_latex(text: str) -> str:
    """Text that pdflatex prints as it is, with no package loaded; what it has no glyph for becomes <U+4E2D>."""
    pieces: list[str] = []
    previous = ""
    for char in unicodedata.normalize("NFC", text):
        if char == previous and char in "-',":
            pieces.append("{}")  # two in a row would become another sign
        pieces.append(_tex_char(char))
        previous = char
    return "".join(pieces)


# --- rows


def _tables(records: Sequence[Record], methods: Sequence[str]) -> list[_Table]:
    order = {name: place for place, name in reversed(list(enumerate(methods)))}
    rows: dict[tuple[str, str, str], dict[str, list[Record]]] = {}
    for record, label in zip(records, _labels(records), strict=True):
        group = (_spec(record, "model"), _spec(record, "benchmark"), _spec(record, "protocol"))
        rows.setdefault(group, {}).setdefault(label, []).append(record)

    def rank(label: str) -> tuple[int, int, bool]:
        base = _base(label)
        if base in REFERENCES:
            return 0, REFERENCES.index(base), label != base
        return 1, order.get(label, order.get(base, len(methods))), label not in order

    tables = []
    for group in sorted(rows, key=lambda group: [_natural(part) for part in group]):
        by_label = rows[group]
        table = _Table(model=group[0], benchmark=group[1], protocol=group[2])
        members = []
        for label in sorted(by_label, key=rank):
            by_seed = sorted(by_label[label], key=lambda record: _natural(_spec(record, "seed")))
            members.append(
                _Row(
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
    rows = [tuple(_spec(record, key) for key in ("model", "benchmark", "protocol", "method")) for record in records]
    together: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        together.setdefault(row, []).append(index)
    labels = [row[-1] for row in rows]
    for members in together.values():
        keys = dict.fromkeys(key for index in members for key in flat[index])
        differ = [key for key in keys if len({flat[index].get(key) for index in members}) > 1]
        for index in members if differ else ():
            labels[index] += " (" + ", ".join(f"{key}={flat[index].get(key, '')}" for key in differ) + ")"
        taken = Counter((labels[index], _spec(records[index], "seed")) for index in members)
        for index in members:
            if taken[labels[index], _spec(records[index], "seed")] > 1:
                labels[index] += f" #{records[index].cell_id[-8:]}"
    return labels


def _base(label: str) -> str:
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


def _spec(record: Record, key: str) -> str:
    return str(record.spec.get(key, ""))


def _metrics(record: Record) -> dict[str, Metric]:
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


def _better(rows: Sequence[_Row]) -> dict[str, bool | None]:
    better: dict[str, bool | None] = {}
    for row in rows:
        for record in row.records:
            for name, metric in _metrics(record).items():
                if better.get(name) is None:
                    better[name] = metric.higher_is_better
    return {name: better[name] for name in _headline_first(better)}


def _headline_first(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [*(name for name in HEADLINE if name in names), *(name for name in names if name not in HEADLINE)]


def _mean(values: Sequence[float]) -> float:
    if not values:
        return math.nan
    if len(set(values)) == 1:
        return values[0]  # exactly, and a count stays a whole number
    return math.fsum(values) / len(values)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts s2 before s10."""
    return [(int(digits or 0), letters) for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text)]


def _last_reference(table: _Table) -> _Row | None:
    references = [row for row in table.rows if row.reference]
    return references[-1] if 0 < len(references) < len(table.rows) else None


# --- CSV


def _long_rows(tables: Sequence[_Table]) -> list[list[object]]:
    rows: list[list[object]] = [[*_LONG_FORM]]
    for table in tables:
        for row in table.rows:
            for record in row.records:
                start = [table.model, row.method, table.benchmark, record.spec.get("seed"), table.protocol]
                for metric in _metrics(record).values():
                    rows.append([*start, metric.name, metric.value, metric.stderr, metric.n or None])
    return rows


def _wide_rows(tables: Sequence[_Table]) -> list[list[object]]:
    known = list(dict.fromkeys(name for table in tables for name in table.better))
    metrics = _headline_first(known or HEADLINE)
    several = any(len(row.records) > 1 for table in tables for row in table.rows)
    deviations = metrics if several else []
    head = ["method", "benchmark", "model", "protocol", "seeds", "failed"]
    rows: list[list[object]] = [[*head, *metrics, *(f"{name}_sd" for name in deviations)]]
    for table in tables:
        for row in table.rows:
            start = [row.method, table.benchmark, table.model, table.protocol, len(row.records), len(row.failed)]
            spread = [statistics.stdev(v) if len(v := row.values(name)) > 1 else math.nan for name in deviations]
            rows.append([*start, *map(row.mean, metrics), *spread])
    return rows


def _cost_rows(tables: Sequence[_Table]) -> list[list[object]]:
    rows: list[list[object]] = [["model", "method", "benchmark", "seed", "protocol", *_COSTS]]
    for table in tables:
        for row in table.rows:
            for record in row.records:
                start = [table.model, row.method, table.benchmark, record.spec.get("seed"), table.protocol]
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

    tables: tuple[_Table, ...]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Text]":
        from rich.text import Text  # text, not markup: labels hold square brackets

        for table in self.tables:
            yield Text(f"{table.benchmark}, model {table.model}, protocol {table.protocol}", style="italic")
            for line in _view(table, options.max_width):
                line.no_wrap, line.overflow = True, "ignore"
                yield line
            yield Text()


def _view(table: _Table, width: int) -> "Iterator[Text]":
    """A label that leaves no room for the figures stands on a line of its own, above them."""
    from rich.text import Text

    counted = any(len(row.records) + len(row.failed) != 1 for row in table.rows)
    heads = [_short(name) for name in (*(["runs"] if counted else []), *table.columns, "train_seconds")]
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
        if row is _last_reference(table):
            yield Text()


def _figures(table: _Table, row: _Row, counted: bool) -> "list[Text]":
    """A row without its label; of one that failed, no more than that."""
    from rich.text import Text

    total = len(row.records) + len(row.failed)
    cells = [Text(f"{len(row.records)}/{total}", style="red" if row.failed else "")] if counted else []
    if not row.records:
        return [*cells, Text("failed", style="bold red")]
    for name in table.columns:
        style = {"best": "bold", "second": "underline", None: ""}[table.places(name).get(row.method)]
        cells.append(Text(_number(name, row.mean(name)) or "-", style=style))
    seconds = row.measured("train_seconds")
    return [*cells, Text("-" if math.isnan(seconds) else f"{seconds:.1f}")]


_SHORTER = {
    "forget_ks_d": "KS D",
    "rouge_l_recall": "ROUGE-L",
    "probability": "prob.",
    "extraction_strength": "extr._str.",
    "train_seconds": "train_s",
}


def _short(name: str) -> str:
    """A narrow heading: eight figures and a method fit 80 columns."""
    for long, short in _SHORTER.items():
        name = name.replace(long, short)
    return name.replace("_", "\n")


# --- LaTeX


def _tex(tables: Sequence[_Table]) -> str:
    slugs = [_slug(f"{table.benchmark}-{table.model}-{table.protocol}") for table in tables]
    labels = [f"{slug}-{place}" if slugs.count(slug) > 1 else slug for place, slug in enumerate(slugs, start=1)]
    parts = ["% Needs \\usepackage{booktabs} and no other package.\n"]
    parts += [_tex_table(table, label) for table, label in zip(tables, labels, strict=True)]
    return "\n".join(parts)


def _tex_table(table: _Table, label: str) -> str:
    columns = table.columns
    longest = max(len(row.method) for row in table.rows)
    places = {name: table.places(name) for name in columns}
    body = []
    for row in table.rows:
        method = escape_latex(row.method)
        cells = [method if len(row.method) <= _LONG_LABEL else r"\raggedright\hangindent=1em " + _breakable(method)]
        cells += [_tex_cell(_number(name, row.mean(name)), places[name].get(row.method)) for name in columns]
        body.append(" & ".join(cells) + r" \\")
        if row is _last_reference(table):
            body.append(r"\midrule")
    first = r"p{0.28\textwidth}" if longest > _LONG_LABEL else "l"
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_caption(table)}}}",
        rf"\label{{tab:{label}}}",
        r"\medskip",
        r"\scriptsize" if longest > _SHORT_LABEL else r"\footnotesize",
        r"\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{@{{}}{first}{'r' * len(columns)}@{{}}}}",
        r"\toprule",
        *_tex_heading(table, columns),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex_heading(table: _Table, columns: Sequence[str]) -> list[str]:
    """Two lines, where neighbours that share the upper one are bracketed by a rule, and one of arrows."""
    heads = [HEADLINE.get(name) or _split_name(name) for name in columns]
    upper, rules = [], []
    start = 0
    while start < len(columns):
        end = start
        while end + 1 < len(columns) and heads[end + 1][0] == heads[start][0]:
            end += 1
        if end > start:
            upper.append(rf"\multicolumn{{{end - start + 1}}}{{c}}{{{heads[start][0]}}}")
            rules.append(rf"\cmidrule(lr){{{start + 2}-{end + 2}}}")
        else:
            upper.append(heads[start][0])
        start = end + 1
    arrows = {True: r"$\uparrow$", False: r"$\downarrow$", None: ""}
    return [
        " & ".join(["", *upper]) + r" \\",
        *([" ".join(rules)] if rules else []),
        " & ".join(["Method", *(head[1] for head in heads)]) + r" \\",
        " & ".join(["", *(arrows[table.better.get(name)] for name in columns)]) + r" \\",
    ]


def _split_name(name: str) -> tuple[str, str]:
    first, _, last = name.rpartition("_")
    return escape_latex(first.replace("_", " ")), escape_latex(last)


def _caption(table: _Table) -> str:
    records = [record for row in table.rows for record in (*row.records, *row.failed)]
    seeds = sorted({_spec(record, "seed") for record in records}, key=_natural)
    seed = f"{'seeds' if len(seeds) > 1 else 'seed'} {escape_latex(', '.join(seeds))}"
    if any(len(row.records) > 1 for row in table.rows):
        seed += " (means)"
    sentences = [
        f"Unlearning {_breakable(escape_latex(table.benchmark))}: model {_breakable(escape_latex(table.model))}, "
        f"protocol {escape_latex(table.protocol)}, {seed}.",
        "Arrows point to the better side; the best method is bold, the second underlined.",
    ]
    if any(row.reference for row in table.rows):
        sentences.append("The rows above the inner rule are references.")
    if "forget_quality" in table.better:
        sentences.append("Forget quality is a $p$-value, ROUGE-L a recall.")
    failed = [f"{row.method} (seed {_spec(record, 'seed')})" for row in table.rows for record in row.failed]
    if failed:
        sentences.append(f"Failed: {_breakable(escape_latex(', '.join(failed)))}.")
    if table.model == _TINY_MODEL:
        sentences.append("The model \\emph{mini} is tiny: its figures say nothing about large models.")
    return "\n".join(sentences)


def _number(metric: str, value: float) -> str:
    """As printed; empty where missing. P-values always have an exponent, other figures where they would be too long."""
    if math.isnan(value):
        return ""
    if metric == "forget_quality" or metric.endswith("p_value"):
        return f"{value:.1e}" if value else "0"
    return f"{value:z.3f}" if abs(value) < 1e4 else f"{value:.1e}"


def _tex_cell(number: str, place: Literal["best", "second"] | None) -> str:
    if not number:
        return "--"
    mantissa, _, exponent = number.partition("e")
    text = mantissa
    if exponent and math.isfinite(float(number)) and int(exponent):
        text = rf"{mantissa}\times10^{{{int(exponent)}}}"
    text = text.replace("inf", r"\infty")
    if place == "best":
        return rf"{{\boldmath${text}$}}"
    return rf"\underline{{${text}$}}" if place == "second" else f"${text}$"


def _breakable(escaped: str) -> str:
    """Lets a long name break after its separators."""
    return re.sub(r"(/|,|=|\\_|\{\[\})(?=.)", r"\1\\allowbreak{}", escaped)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\textquoteleft{}",
    "[": "{[}",  # the end of a table row would take it for its option
    "*": "{*}",  # likewise
    "\u00df": r"\ss{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u0153": r"\oe{}",
    "\u0152": r"\OE{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
    "\u0131": r"\i{}",
    "\u00a1": r"\textexclamdown{}",
    "\u00bf": r"\textquestiondown{}",
    "\u00a3": r"\pounds{}",
    "\u00a7": r"\S{}",
    "\u00a9": r"\copyright{}",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "\u2018": r"\textquoteleft{}",
    "\u2019": r"\textquoteright{}",
    "\u201c": r"\textquotedblleft{}",
    "\u201d": r"\textquotedblright{}",
    "\u2022": r"\textbullet{}",
    "\u2026": r"\ldots{}",
    "\u00d7": r"\ensuremath{\times}",
    "\u00b1": r"\ensuremath{\pm}",
    "\u00b5": r"\ensuremath{\mu}",
    "\u00b7": r"\ensuremath{\cdot}",
    "\u2190": r"\ensuremath{\leftarrow}",
    "\u2191": r"\ensuremath{\uparrow}",
    "\u2192": r"\ensuremath{\rightarrow}",
    "\u2193": r"\ensuremath{\downarrow}",
    "\u2212": r"\ensuremath{-}",
    "\u221e": r"\ensuremath{\infty}",
    "\u2248": r"\ensuremath{\approx}",
    "\u2260": r"\ensuremath{\neq}",
    "\u2264": r"\ensuremath{\leq}",
    "\u2265": r"\ensuremath{\geq}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def _tex_char(char: str) -> str:
    if char in _TEX:
        return _TEX[char]
    if " " <= char <= "~":
        return char
    if unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc"):
        return " "
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return ""  # a mark without its letter, a direction sign
    if "\u03b1" <= char <= "\u03c9" and char not in "\u03bf\u03c2":  # alpha to omega, less omicron and final sigma
        name = unicodedata.name(char).split()[-1].lower()
        return rf"\ensuremath{{\{'lambda' if name == 'lamda' else name}}}"
    base, *marks = unicodedata.normalize("NFD", char)
    if marks and marks[0] in _ACCENTS and base.isascii() and base.isalpha():
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    if plain.isascii():
        return "".join(map(_tex_char, plain))
    return rf"\textless{{}}U+{ord(char):04X}\textgreater{{}}"

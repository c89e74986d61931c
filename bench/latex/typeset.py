"""Layouts as LaTeX tables for the paper: booktabs, siunitx for figures aligned at their decimal points, multirow.

Under a mean over several seeds stands its standard deviation, in small type; under one over several targets their
bootstrap interval. What is too wide or too long for a page goes on in further tables.
"""

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.latex.captions import (
    SIGNS,
    UNTESTED,
    averaged,
    code_of,
    failures,
    reading,
    seeds_of,
    targets_of,
    warning,
)
from bench.latex.escape import breakable, escape_latex
from bench.latex.layouts import Column, Layout
from bench.latex.plain import number_latex
from bench.tables import REFERENCES, Row, base_label, printed_number

PREAMBLE = r"""\usepackage{booktabs}
\usepackage{multirow}
\usepackage{siunitx}
\sisetup{text-series-to-math=true, propagate-math-font=true, tight-spacing=true}
"""
"""What the tables need: siunitx 3, which is in Debian's texlive-science."""

# In points, for an article on A4 with margins of 20 mm, whose text is 483 points wide and 731 high.
_TEXT_WIDTH = 470.0
_CHAR = 3.9  # a digit of script size has 3.98
_SMALL_CHAR = 2.9  # of tiny
_EXPONENT = 20.0  # the times sign, the ten, and the gaps around them; and its digits
_GAP = 6.0
_LINES = 66  # of script size, beside a heading and a caption
_LABEL = 30  # characters of a label on one line
_BROAD_LABEL = 0.26  # of the text's width, for longer ones


def typeset(layout: Layout) -> str:
    """One table environment, or several where one would not fit a page."""
    methods = layout.methods
    label = min(max((len(method) for method in methods), default=0), _LABEL) * _CHAR + _GAP
    groups = [
        _Prepared(group.title, [_Figures(column, methods) for column in group.columns]) for group in layout.groups
    ]
    parts = _split(groups, _TEXT_WIDTH - label)
    lines = 1 + max((len(texts) for group in groups for f in group.columns for texts in f.small.values()), default=0)
    most = _LINES // lines
    chunks = [methods[at : at + most] for at in range(0, len(methods), most)]
    pieces = [(part, chunk) for chunk in chunks for part in parts]
    return "\n".join(_table(layout, part, chunk, number) for number, (part, chunk) in enumerate(pieces, start=1))


class _Figures:
    """One column as it is written, all of its figures in line."""

    def __init__(self, column: Column, methods: Sequence[str]) -> None:
        self.column = column
        rows = {method: row for method in methods if (row := column.row(method)) is not None}
        self.small = {method: _small(row, column.metric) for method, row in rows.items()}
        """By method, the lines beneath the mean."""
        numbers = {method: _number(column.metric, row.mean(column.metric)) for method, row in rows.items()}
        self.format = _Format(numbers.values())
        places = column.table.places(column.metric)
        marks = column.table.marks(column.metric)
        self.cells = {
            m: self.format.cell(number, places.get(m), SIGNS.get(marks.get(m, ""), "")) for m, number in numbers.items()
        }
        self.heading = column.heading + (UNTESTED if column.table.uncompared(column.metric) else "")
        texts = [text.replace(r"$\pm$", "+") for lines in self.small.values() for text in lines]
        small = max((len(text) * _SMALL_CHAR for text in texts), default=0.0)
        self.width = max(self.format.width, small, _shown_width(self.heading)) + _GAP
        """An estimate in points, with the gap to the next."""


@dataclass(frozen=True)
class _Prepared:
    """A group whose columns are written."""

    title: str
    columns: list[_Figures]


def _split(groups: Sequence[_Prepared], width: float) -> list[list[_Prepared]]:
    """Groups in their order, as many as fit; one that is too wide by itself is cut."""
    cut: list[_Prepared] = []
    for group in groups:
        cut.append(_Prepared(group.title, []))
        for figures in group.columns:
            if cut[-1].columns and sum(other.width for other in cut[-1].columns) + figures.width > width:
                cut.append(_Prepared(group.title, []))
            cut[-1].columns.append(figures)
    parts: list[list[_Prepared]] = []
    left = -1.0
    for group in cut:
        needed = max(sum(figures.width for figures in group.columns), _shown_width(group.title) + _GAP)
        if needed > left:
            parts.append([])
            left = width
        parts[-1].append(group)
        left -= needed
    return parts


def _shown_width(latex: str) -> float:
    """Of a heading: the longest of its lines."""
    lines = latex.removeprefix(r"\shortstack{").split(r"\\")
    shown = [re.sub(r"\\text[a-z]+\{\}|\\[^a-z]", "x", line) for line in lines]
    return max(len(re.sub(r"\\[a-z]+|[{}$]", "", line)) for line in shown) * _CHAR


def _table(layout: Layout, groups: Sequence[_Prepared], methods: Sequence[str], number: int) -> str:
    columns = [figures for group in groups for figures in group.columns]
    methods = [method for method in methods if any(method in figures.cells for figures in columns)]
    long = max((len(method) for method in methods), default=0) > _LABEL
    references = [method for method in methods if base_label(method) in REFERENCES]
    body: list[str] = []
    for method in methods:
        cells = [figures.cells.get(method, "") for figures in columns]
        small = [figures.small.get(method, ()) for figures in columns]
        below = [*itertools.zip_longest(*small, fillvalue="")]
        if body and below and body[-1] != r"\midrule":
            body.append(r"\addlinespace[2pt]")
        body.append(" & ".join([_label(method, below=len(below)), *cells]) + r" \\")
        for texts in below:
            body.append(" & ".join(["", *(rf"{{\tiny {text}}}" if text else "" for text in texts)]) + r" \\")
        if references and method == references[-1] and len(references) < len(methods):
            body.append(r"\midrule")
    first = rf"p{{{_BROAD_LABEL}\textwidth}}" if long else "l"
    kinds = "".join(f"S[table-format={figures.format.text}]" for figures in columns)
    label = f"{layout.name}-{number}" if number > 1 else layout.name
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_caption(layout, columns, number)}}}",
        rf"\label{{tab:paper-{label}}}",
        r"\medskip",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{@{{}}{first}{kinds}@{{}}}}",
        r"\toprule",
        *_heading(groups),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _heading(groups: Sequence[_Prepared]) -> list[str]:
    titles, rules, at = [], [], 2
    for group in groups:
        end = at + len(group.columns) - 1
        titles.append(rf"\multicolumn{{{len(group.columns)}}}{{c}}{{{group.title}}}")
        if len(group.columns) > 1:
            rules.append(rf"\cmidrule(lr){{{at}-{end}}}")
        at = end + 1
    columns = [figures.column for group in groups for figures in group.columns]
    arrows = {True: r"{$\uparrow$}", False: r"{$\downarrow$}", None: ""}
    return [
        " & ".join(["", *titles]) + r" \\",
        *([" ".join(rules)] if rules else []),
        " & ".join(["Method", *(f"{{{figures.heading}}}" for group in groups for figures in group.columns)]) + r" \\",
        " & ".join(["", *(arrows[column.table.better.get(column.metric)] for column in columns)]) + r" \\",
    ]


def _label(method: str, *, below: int) -> str:
    """A long label breaks after its separators; with small lines of figures below it stands beside all of them."""
    text = escape_latex(method)
    if len(method) <= _LABEL:
        return text
    broken = r"\raggedright\hangindent=1em " + breakable(text)
    fits = below and len(method) <= (1 + below) * _LABEL
    return rf"\multirow[t]{{{1 + below}}}{{\hsize}}{{{broken}}}" if fits else broken


def _caption(layout: Layout, columns: Sequence[_Figures], number: int) -> str:
    tables = [t for t in layout.tables if any(figures.column.table is t for figures in columns)]
    facts = [
        *_shared("benchmark", [table.benchmark for table in tables]),
        *_shared("model", [table.model for table in tables]),
        *_shared("protocol", [table.protocol for table in tables]),
        seeds_of(tables) + (" (means)" if averaged(tables) else ""),
        *filter(None, [targets_of(tables), code_of(tables)]),
    ]
    small = [text for figures in columns for texts in figures.small.values() for text in texts]
    sentences = [
        f"{layout.title} {', '.join(facts)}{' (continued)' if number > 1 else ''}.",
        *reading(tables, [figures.column.metric for figures in columns]),
    ]
    if any("pm" in text for text in small):
        sentences.append("Small: standard deviation over seeds.")
    if any(text.startswith("[") for text in small):
        sentences.append(r"In brackets: 95\,\% bootstrap interval over targets.")
    return "\n".join([*sentences, *(failures(tables) if number == 1 else []), *warning(tables)])


def _shared(key: str, values: Sequence[str]) -> list[str]:
    """What is the same for all of a table stands in its caption, the rest in its headings."""
    return [f"{key} {breakable(escape_latex(values[0]))}"] if len(set(values)) == 1 else []


def _small(row: Row, metric: str) -> tuple[str, ...]:
    """What stands beneath a mean, line by line: of one over seeds the deviation, of one over targets the interval."""
    values = row.values(metric)
    lines = (r"$\pm$" + _number(metric, statistics.stdev(values)),) if len(values) > 1 else ()
    low, high = row.interval(metric)
    return lines if math.isnan(low) else (*lines, f"[{low:z.3f}, {high:z.3f}]")


def _number(metric: str, value: float) -> str:
    """As printed, 1.2e-05 as 1.2e-5."""
    mantissa, _, exponent = printed_number(metric, value).partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent and int(exponent) else mantissa


class _Format:
    """How the figures of one column are written, so that all of them line up."""

    def __init__(self, numbers: Iterable[str]) -> None:
        found = [re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:e(-?)(\d+))?", number) for number in numbers]
        parts = [match.groups(default="") for match in found if match is not None]
        whole = max((len(part[1]) for part in parts), default=1)
        decimals = max((len(part[2]) for part in parts), default=3)
        exponent = max((len(part[4]) for part in parts), default=0)
        sign = "-" if any(part[0] for part in parts) else ""
        tail = f"e{'-' if any(part[3] for part in parts) else ''}{exponent}" if exponent else ""
        self.text = f"{sign}{whole}.{decimals}{tail}"
        """For siunitx: 1.3, -1.3, 1.1e-2."""
        self.width = (len(sign) + whole + decimals + 0.5) * _CHAR + (_EXPONENT + exponent * _SMALL_CHAR) * bool(tail)

    def cell(self, number: str, place: str | None, sign: str) -> str:
        if not number:
            return "{--}"
        if "inf" in number:
            return f"{{${number_latex(number)}$" + (rf"\rlap{{{sign}}}" if sign else "") + "}"
        if place == "best":
            return rf"\bfseries {number}"
        if place == "second":
            underlined = rf"\underline{{\tablenum[table-format={self.text}]{{{number}}}}}"
            return rf"{{{underlined}\rlap{{{sign}}}}}" if sign else f"{{{underlined}}}"
        return rf"{number}{{\rlap{{{sign}}}}}" if sign else number

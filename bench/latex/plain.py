"""Tables as LaTeX: booktabs and no other package, any text escaped, best bold, second underlined."""

import math
from collections.abc import Sequence
from typing import Literal

from bench.latex.captions import SIGNS, UNTESTED, averaged, failures, reading, seeds_of, slugs, targets_of, warning
from bench.latex.escape import breakable, escape_latex
from bench.tables import HEADINGS, Table, last_reference, printed_number

_SHORT_LABEL = 18  # characters that fit the text of an article beside eight columns of footnote size
_LONG_LABEL = 26  # and of script size; longer ones are broken


def latex(tables: Sequence[Table]) -> str:
    parts = ["% Needs \\usepackage{booktabs} and no other package.\n"]
    parts += [_tex_table(table, label) for table, label in zip(tables, slugs(tables), strict=True)]
    return "\n".join(parts)


def _tex_table(table: Table, label: str) -> str:
    columns = table.columns
    longest = max(len(row.method) for row in table.rows)
    places = {name: table.places(name) for name in columns}
    marks = {name: table.marks(name) for name in columns}
    body = []
    for row in table.rows:
        method = escape_latex(row.method)
        cells = [method if len(row.method) <= _LONG_LABEL else r"\raggedright\hangindent=1em " + breakable(method)]
        for name in columns:
            sign = SIGNS.get(marks[name].get(row.method, ""), "")
            cells.append(_tex_cell(printed_number(name, row.mean(name)), places[name].get(row.method), sign))
        body.append(" & ".join(cells) + r" \\")
        if row is last_reference(table):
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


def _tex_heading(table: Table, columns: Sequence[str]) -> list[str]:
    """Two lines, where neighbours that share the upper one are bracketed by a rule, and one of arrows."""
    heads = [HEADINGS.get(name) or split_name(name) for name in columns]
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
    signs = {name: UNTESTED if table.uncompared(name) else "" for name in columns}
    return [
        " & ".join(["", *upper]) + r" \\",
        *([" ".join(rules)] if rules else []),
        " & ".join(["Method", *(head[1] + signs[name] for head, name in zip(heads, columns, strict=True))]) + r" \\",
        " & ".join(["", *(arrows[table.better.get(name)] for name in columns)]) + r" \\",
    ]


def split_name(name: str) -> tuple[str, str]:
    """The two lines of a heading that nobody has written."""
    first, _, last = name.rpartition("_")
    return escape_latex(first.replace("_", " ")), escape_latex(last)


def _caption(table: Table) -> str:
    seed = seeds_of([table])
    if averaged([table]):
        seed += " (means)"
    if over := targets_of([table]):
        seed += f", {over}"
    return "\n".join(
        [
            f"Unlearning {breakable(escape_latex(table.benchmark))}: model {breakable(escape_latex(table.model))}, "
            f"protocol {escape_latex(table.protocol)}, {seed}.",
            *reading([table], table.columns),
            *failures([table]),
            *warning([table]),
        ]
    )


def number_latex(number: str) -> str:
    """A printed number in mathematics, without the dollars."""
    mantissa, _, exponent = number.partition("e")
    text = mantissa
    if exponent and math.isfinite(float(number)) and int(exponent):
        text = rf"{mantissa}\times10^{{{int(exponent)}}}"
    return text.replace("inf", r"\infty")


def _tex_cell(number: str, place: Literal["best", "second"] | None, sign: str) -> str:
    if not number:
        return "--"
    text = number_latex(number)
    if place == "best":
        return rf"{{\boldmath${text}$}}"
    cell = rf"\underline{{${text}$}}" if place == "second" else f"${text}$"
    return rf"{cell}\rlap{{{sign}}}" if sign else cell

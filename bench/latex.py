"""Tables as LaTeX: booktabs and no other package, any text escaped, best bold, second underlined."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from bench.tables import HEADINGS, Table, last_reference, natural, printed_number, spec_of

_SHORT_LABEL = 18  # characters that fit the text of an article beside eight columns of footnote size
_LONG_LABEL = 26  # and of script size; longer ones are broken
_TINY_MODEL = "mini"


def latex(tables: Sequence[Table]) -> str:
    slugs = [_slug(f"{table.benchmark}-{table.model}-{table.protocol}") for table in tables]
    labels = [f"{slug}-{place}" if slugs.count(slug) > 1 else slug for place, slug in enumerate(slugs, start=1)]
    parts = ["% Needs \\usepackage{booktabs} and no other package.\n"]
    parts += [_tex_table(table, label) for table, label in zip(tables, labels, strict=True)]
    return "\n".join(parts)


def _tex_table(table: Table, label: str) -> str:
    columns = table.columns
    longest = max(len(row.method) for row in table.rows)
    places = {name: table.places(name) for name in columns}
    body = []
    for row in table.rows:
        method = escape_latex(row.method)
        cells = [method if len(row.method) <= _LONG_LABEL else r"\raggedright\hangindent=1em " + _breakable(method)]
        cells += [_tex_cell(printed_number(name, row.mean(name)), places[name].get(row.method)) for name in columns]
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
    heads = [HEADINGS.get(name) or _split_name(name) for name in columns]
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


def _caption(table: Table) -> str:
    records = [record for row in table.rows for record in (*row.records, *row.failed)]
    seeds = sorted({spec_of(record, "seed") for record in records}, key=natural)
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
    failed = [f"{row.method} (seed {spec_of(record, 'seed')})" for row in table.rows for record in row.failed]
    if failed:
        sentences.append(f"Failed: {_breakable(escape_latex(', '.join(failed)))}.")
    if table.model == _TINY_MODEL:
        sentences.append("The model \\emph{mini} is tiny: its figures say nothing about large models.")
    return "\n".join(sentences)


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

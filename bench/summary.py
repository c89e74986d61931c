"""ORT's summary of a leaderboard: fifteen figures a method, each with its change against the original in per cent.

The columns, their names and their order are those of the authors' summarize.py (Ye, Zhang, Wu, 2025,
https://arxiv.org/abs/2506.07795; repository Acruxos/ORT at 38cc704). In LaTeX a method is a column, for fifteen of them
fit no page.
"""

import math
from collections.abc import Sequence

from bench.latex import escape_latex, slug
from bench.latex.captions import code_of, seeds_of, targets_of
from bench.tables import Row, Table, printed_number

COLUMNS = {
    "fluency_entropy": "ort_fluency_entropy",
    "forget_fb": "forget_fb",
    "forget_mcp": "forget_mcp",
    "forget_qa": "forget_qa",
    "mmlu_acc": "ort_mmlu_acc",
    "neighbor_fb": "neighbor_fb",
    "neighbor_mcp": "neighbor_mcp",
    "neighbor_qa": "neighbor_qa",
    "sub_forget_fb": "sub_forget_fb",
    "sub_forget_qa": "sub_forget_qa",
    "sub_neighbor_fb": "sub_neighbor_fb",
    "sub_neighbor_qa": "sub_neighbor_qa",
    "triviaqa_EM": "ort_triviaqa_em",
    "triviaqa_F1": "ort_triviaqa_f1",
    "truthful_MC1": "ort_truthful_mc1",
}
"""The authors' name -> ours."""

GROUPS = {
    "Forget": ("forget_qa", "forget_fb", "forget_mcp", "sub_forget_qa", "sub_forget_fb"),
    "Neighbour": ("neighbor_qa", "neighbor_fb", "neighbor_mcp", "sub_neighbor_qa", "sub_neighbor_fb"),
    "Utility": ("mmlu_acc", "truthful_MC1", "triviaqa_EM", "triviaqa_F1", "fluency_entropy"),
}
METHODS_ACROSS = 6
"""Columns of one LaTeX table; more methods make further tables."""


def has_summary(table: Table) -> bool:
    """Whether anything in a table belongs to ORT's summary."""
    return "forget_qa" in table.better


def summary_rows(tables: Sequence[Table]) -> list[list[object]]:
    """The head and a row a method: `value`, and beside an original `value(change%)`, four and two decimals."""
    rows: list[list[object]] = [["method", "benchmark", "model", "protocol", *COLUMNS]]
    for table in filter(has_summary, tables):
        original = _original(table)
        for row in table.rows:
            start = [row.method, table.benchmark, table.model, table.protocol]
            rows.append([*start, *(_cell(row, original, name) for name in COLUMNS.values())])
    return rows


def _cell(row: Row, original: Row | None, metric: str) -> str:
    value, change = row.mean(metric), _change(row, original, metric)
    if math.isnan(value):
        return ""
    return f"{value:.4f}" if math.isnan(change) else f"{value:.4f}({change:+.2f}%)"


def _change(row: Row, original: Row | None, metric: str) -> float:
    """Per cent of the original's value; NaN for the original itself and where that is 0 or missing."""
    if original is None or row is original:
        return math.nan
    before = original.mean(metric)
    return 100 * (row.mean(metric) - before) / before if before else math.nan


def _original(table: Table) -> Row | None:
    return next((row for row in table.rows if row.method == "original"), None)


def summary_latex(table: Table) -> str:
    """The same as tables of methods against figures, a few methods each."""
    original = _original(table)
    others = [row for row in table.rows if row is not original]
    parts = [others[at : at + METHODS_ACROSS] for at in range(0, len(others), METHODS_ACROSS)] or [[]]
    return "\n".join(_part(table, original, part, number) for number, part in enumerate(parts, start=1))


def _part(table: Table, original: Row | None, rows: Sequence[Row], number: int) -> str:
    shown = [*([original] if original is not None else []), *rows]
    label = slug(f"{table.benchmark}-{table.model}-{table.protocol}")
    targets = targets_of([table]) if len(table.targets) != 1 else ""
    facts = ", ".join(filter(None, [seeds_of([table]), targets, code_of([table])]))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{ORT's summary of {escape_latex(table.benchmark)}: model {escape_latex(table.model)}, protocol "
        rf"{escape_latex(table.protocol)}, {facts}.",
        r"In brackets the change against the original in per cent. Of the forget group less is better.}",
        rf"\label{{tab:summary-{label}-{number}}}",
        r"\medskip",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(shown)}@{{}}}}",
        r"\toprule",
        " & ".join(["", *(escape_latex(row.method) for row in shown)]) + r" \\",
    ]
    for group, names in GROUPS.items():
        lines += [r"\midrule", rf"\multicolumn{{{len(shown) + 1}}}{{@{{}}l}}{{{group}}} \\"]
        for name in names:
            cells = [_tex_cell(row, original, COLUMNS[name]) for row in shown]
            lines.append(" & ".join([escape_latex(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _tex_cell(row: Row, original: Row | None, metric: str) -> str:
    text = printed_number(metric, row.mean(metric))
    change = _change(row, original, metric)
    if not text:
        return "--"
    return text if math.isnan(change) else f"{text} (${change:+.0f}$)"

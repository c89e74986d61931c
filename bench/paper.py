"""A paper of leaderboards: OUT/paper/paper.tex with tables/*.tex and figures/*.pdf, ready for pdflatex.

Every table stands in a file of its own, to be taken over into another paper with the packages that its first line
names. The same records give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.figures import Picture, pictures
from bench.latex.captions import code_of, records_of, seeds_of
from bench.latex.escape import breakable, escape_latex
from bench.latex.layouts import across, sections
from bench.latex.typeset import PREAMBLE, typeset
from bench.store import Record, write_bytes, write_text
from bench.summary import has_summary, summary_latex
from bench.tables import Table, tables_of

_NEEDS = "% Needs booktabs, multirow and siunitx 3; the lines for a preamble stand in ../paper.tex.\n"
_HEAD = r"""% Compile twice: pdflatex paper.tex
% Debian: texlive-latex-recommended, texlive-latex-extra (multirow) and texlive-science (siunitx) have all it needs.
\documentclass{article}
\usepackage[a4paper,margin=20mm]{geometry}
\usepackage{graphicx}
"""
_BODY = r"""\setlength{\emergencystretch}{3em}
\renewcommand{\topfraction}{0.95}
\renewcommand{\bottomfraction}{0.95}
\renewcommand{\textfraction}{0.05}
\renewcommand{\floatpagefraction}{0.6}
\makeatletter\setlength{\@fptop}{0pt}\makeatother
\begin{document}
"""


def write_paper(
    records: Sequence[Record],
    folders: Sequence[Path],
    out: Path,
    *,
    methods: Sequence[str] = (),
    tables: Sequence[Table] | None = None,
) -> list[Path]:
    """paper/paper.tex in `out` and what it includes; the path of paper.tex comes first.

    Args:
        folders: the output folders whose runs/ hold the samples and training logs; a cell without them has no part in
            the figures that need them.
        methods: the order of the rows, as in `bench.report.write_reports`.
        tables: those of the records, where they are known already, with their marks of significance.
    """
    tables = tables_of(records, methods) if tables is None else tables
    texts, drawn = _tables(tables), pictures(tables, folders)
    files: dict[str, str | bytes] = {"paper.tex": _document(tables, texts, drawn)}
    files |= {f"tables/{name}.tex": _NEEDS + text for part in texts for name, text in part.items()}
    for picture in drawn:
        files |= {f"figures/{name}": content for name, content in picture.rendered().items()}
    folder = out / "paper"
    for name, content in files.items():
        if isinstance(content, str):
            write_text(folder / name, content)
        else:
            write_bytes(folder / name, content)
    return [folder / name for name in files]


def _tables(tables: Sequence[Table]) -> list[dict[str, str]]:
    """File name -> content: of all leaderboards together, then of each."""
    parts = [{layout.name: typeset(layout) for layout in across(tables)}]
    for section in sections(tables):
        part = {layout.name: typeset(layout) for layout in section.layouts}
        if has_summary(section.table):
            part[f"summary-{section.slug}"] = summary_latex(section.table)
        parts.append(part)
    return parts


def _document(tables: Sequence[Table], texts: Sequence[dict[str, str]], drawn: Sequence[Picture]) -> str:
    lines = [_HEAD + PREAMBLE + _BODY + r"\section*{Leaderboards}", *_origins(tables)]
    for table, part in zip([None, *tables], texts, strict=True):
        mine = [picture for picture in drawn if picture.table is table]
        if table is not None:
            clear = [r"\clearpage"] if "\\input" in "".join(lines) else []  # the list of leaderboards fills no page
            lines += [*clear, rf"\section*{{{breakable(escape_latex(table.benchmark))}}}", _origin(table) + "\n"]
        includes = [rf"\input{{tables/{name}}}" for name in part]
        includes += [_include(picture) for picture in mine]
        for at, include in enumerate(includes, start=1):
            lines.append(include)
            if at % 12 == 0:
                lines.append(r"\clearpage")  # LaTeX keeps no more than eighteen floats in mind
    return "\n".join([*lines, r"\end{document}"]) + "\n"


def _origins(tables: Sequence[Table]) -> list[str]:
    if not tables:
        return ["No cell has been run yet."]
    return [r"\begin{itemize}", *(rf"\item {_origin(table, named=True)}" for table in tables), r"\end{itemize}"]


def _origin(table: Table, *, named: bool = False) -> str:
    """Where the figures of a leaderboard come from, in a sentence."""
    cells = records_of([table])
    failed = sum(record.status == "failed" for record in cells)
    facts = [
        *([breakable(escape_latex(table.benchmark))] if named else []),
        f"model {breakable(escape_latex(table.model))}",
        f"protocol {escape_latex(table.protocol)}",
        seeds_of([table]),
        f"{len(table.rows)} rows from {len(cells) - failed} cells" + (f" ({failed} more failed)" if failed else ""),
        *filter(None, [code_of([table])]),
    ]
    text = ", ".join(facts)
    return text[0].upper() + text[1:] + "." if not named else text + "."


def _include(picture: Picture) -> str:
    return "\n".join(
        [
            r"\begin{figure}[htbp]",
            r"\centering",
            rf"\includegraphics[width=\linewidth,height=0.8\textheight,keepaspectratio]{{figures/{picture.name}.pdf}}",
            rf"\caption{{{breakable(escape_latex(picture.caption))}}}",
            rf"\label{{fig:{picture.name}}}",
            r"\end{figure}",
        ]
    )

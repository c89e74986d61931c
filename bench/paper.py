"""A paper of leaderboards: OUT/paper/paper.tex with tables/*.tex and figures/*.pdf, ready for pdflatex.

Every table stands in a file of its own, to be taken over into another paper with the packages that its first line
names. The same records give the same bytes.

What an earlier paper in the same folder had and this one has not is removed: `.written.json` tells which files Lethe
put there and with which content, and nothing else is touched.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import LetheError
from bench.figures import Picture, pictures
from bench.latex.captions import code_of, records_of, seeds_of
from bench.latex.escape import breakable, escape_latex
from bench.latex.layouts import across, sections
from bench.latex.typeset import PREAMBLE, typeset
from bench.store import Record, read_json, write_bytes, write_json
from bench.summary import has_summary, summary_latex
from bench.tables import Table, tables_of

logger = logging.getLogger(__name__)

WRITTEN = ".written.json"
"""In the paper's folder: the SHA-256 of every file that Lethe wrote there, by name."""
_REMOVABLE = re.compile(r"tables/[^/\\]+\.tex|figures/[^/\\]+\.(pdf|svg)")
"""What a list of files can get removed, whoever wrote the list."""
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
    made: dict[str, str | bytes] = {"paper.tex": _document(tables, texts, drawn)}
    made |= {f"tables/{name}.tex": _NEEDS + text for part in texts for name, text in part.items()}
    for picture in drawn:
        made |= {f"figures/{name}": content for name, content in picture.rendered().items()}
    files = {n: c.encode(errors="backslashreplace") if isinstance(c, str) else c for n, c in made.items()}
    _put(out / "paper", files)
    return [out / "paper" / name for name in files]


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, and remove those of the paper before that are no longer among them."""
    now = {name: _digest(content) for name, content in files.items()}
    before = _written(folder)
    # Both, until it is done: of a paper whose writing is cut off nothing stays behind that no list names.
    write_json(folder / WRITTEN, {**before, **now})
    for name, content in files.items():
        write_bytes(folder / name, content)
    for name in before.keys() - now.keys():
        path = folder / name
        if not _REMOVABLE.fullmatch(name) or not path.is_file():
            continue
        if _digest(path.read_bytes()) == before[name]:
            with contextlib.suppress(OSError):
                path.unlink()
        else:
            logger.warning("%s is no longer in the paper and was changed since it was written; left as it is", path)
    write_json(folder / WRITTEN, dict(sorted(now.items())))


def _written(folder: Path) -> dict[str, str]:
    """The files of the paper before, by name; none where nothing readable tells."""
    if not (folder / WRITTEN).is_file():
        return {}
    try:
        found = read_json(folder / WRITTEN)
    except LetheError as error:
        logger.warning("cannot tell which files the paper before had: %s", error)
        return {}
    return {n: d for n, d in found.items() if isinstance(d, str)} if isinstance(found, dict) else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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

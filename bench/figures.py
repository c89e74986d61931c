"""Pictures of leaderboards for print, as PDF and SVG: the same records give the same bytes.

What is drawn: forgetting against utility with the Pareto front; the truth ratios of forget questions beside the
retrained model's; the losses of every training; what each form of a question has forgotten; figures over successive
requests, and over the number of targets in one request. Colours are those of Okabe and Ito (2008,
https://jfly.uni-koeln.de/color/), which the colour-blind can tell apart; markers or dashes differ as well.
"""

import io
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.curves import batch_rows, curve_rows
from bench.drawings import UNPLOTTED
from bench.latex.captions import slugs
from bench.pareto import tradeoffs
from bench.samples import GATES, learning_curve, rows_of, train_log, truth_ratios
from bench.store import Record
from bench.tables import Row, Table, base_label, mean, reference_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
DASHES = ("-", "--", ":", "-.")
GREY = "#999999"
FORMATS = ("pdf", "svg")
WIDTH = 6.4  # inches; the text of an A4 page with margins of 20 mm has 6.7
MOST_PANELS = 24
"""Methods of one picture of many; more make further pictures."""
_ACROSS = 4
_TITLE = 24  # characters of a line above one of four panels
_LABEL = 34  # characters of a method's name that are drawn
_STYLE: dict[str, Any] = {
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 7,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "path.simplify": False,
    "pdf.fonttype": 42,  # TrueType, embedded
    "svg.fonttype": "path",
    "svg.hashsalt": "lethe",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure, not yet drawn."""

    name: str
    """Of its files, without the ending."""
    caption: str
    """Plain text."""
    table: Table
    """The leaderboard that it belongs to."""
    draw: "Callable[[], Figure]"

    def rendered(self) -> dict[str, bytes]:
        """File name -> content."""
        from matplotlib import style

        with style.context(["default", _STYLE]):  # no file of the user's decides how a picture looks
            figure, files = self.draw(), {}
            for ending in FORMATS:
                files[f"{self.name}.{ending}"] = _bytes(figure, ending)
                figure.set_layout_engine("none")  # the next format has its parts where this one has them
            return files


def pictures(tables: Sequence[Table], folders: Sequence[Path]) -> list[Picture]:
    """All that can be drawn of some leaderboards, in their order."""
    found: list[Picture] = []
    curves, batches = curve_rows(tables)[1:], batch_rows(tables)[1:]
    for table, name in zip(tables, slugs(tables), strict=True):
        where = f"{table.benchmark}, model {table.model}, protocol {table.protocol}"
        found += [*_scatter(table, name, where), *_truth_ratios(table, name, where, folders)]
        found += [*_losses(table, name, where, folders), *_looks(table, name, where, folders)]
        found += [*_gates(table, name, where, folders), *_forms(table, name, where)]
        found += [*_requests(table, name, where, curves), *_batches(table, name, where, batches)]
    return found


# --- what is drawn


def _scatter(table: Table, name: str, where: str) -> Iterator[Picture]:
    for number, pair in enumerate(tradeoffs(table)[:1], start=1):
        points = pair.points(table)
        front = pair.front(table)
        shown = [row for row in table.rows if row.method in points]
        if len(shown) < 2:
            return

        def draw(shown: Sequence[Row] = shown, pair: Any = pair, points: Any = points, front: Any = front) -> "Figure":
            height = max(3.4, 0.5 + 0.15 * len(shown))
            figure, axes = _figure(WIDTH, height)
            if len(front) > 1:
                xs, ys = zip(*(points[method] for method in front), strict=True)
                axes.plot(xs, ys, color=GREY, linestyle="--", linewidth=1, zorder=1)
            handles = []
            place = 0
            for row in shown:
                x, y = points[row.method]
                wide, high = (_deviation(axis.values(row)) for axis in (pair.forgetting, pair.utility))
                style: dict[str, Any] = {"c": "#000000", "marker": "x" if base_label(row.method) == "original" else "+"}
                if not row.reference:
                    colour = COLOURS[place % len(COLOURS)]
                    edge = "#000000" if row.method in front else colour
                    style = {
                        "c": colour,
                        "marker": MARKERS[place % len(MARKERS)],
                        "edgecolors": edge,
                        "linewidths": 0.9,
                    }
                    place += 1
                if wide or high:
                    axes.errorbar(x, y, xerr=wide, yerr=high, color=style["c"], linewidth=0.7, zorder=2)
                handles.append(axes.scatter([x], [y], s=34, zorder=3, **style))
            axes.set_xlabel(pair.forgetting.title + "  (more is better)")
            axes.set_ylabel(pair.utility.title + "  (more is better)")
            _legend(figure, handles, [row.method for row in shown])
            return figure

        text = f"Forgetting against utility on {where}. The dashed line joins the methods on the Pareto front"
        bars = "; bars are standard deviations over seeds" if any(len(row.seeds) > 1 for row in shown) else ""
        yield Picture(
            name=f"tradeoff-{name}" + (f"-{number}" if number > 1 else ""),
            caption=f"{text}, which have a black edge{bars}. Crosses are references.",
            table=table,
            draw=draw,
        )


def _truth_ratios(table: Table, name: str, where: str, folders: Sequence[Path]) -> Iterator[Picture]:
    ratios = {
        method: [sorted(value / math.log(10) for value in values) for values in cells]
        for method, cells in truth_ratios(table, folders).items()
    }
    gold = {method: ratios.get(reference_of(table, method, "retrained") or "", []) for method in ratios}
    methods = [
        method for method, values in ratios.items() if values and gold[method] and base_label(method) != "retrained"
    ]
    if not methods:
        return
    ends = _ends([x for values in ratios.values() for seed in values for x in seed])
    for number, part in enumerate(_parts(methods), start=1):

        def draw(part: Sequence[str] = part) -> "Figure":
            figure, panels = _panels(part, share=True)
            for method, axes in zip(part, panels, strict=True):
                _steps(axes, gold[method][0], ends, color=GREY, linewidth=2.4)
                for values in ratios[method]:
                    _steps(axes, values, ends, color=COLOURS[0])
                axes.set_xlim(*ends)
                axes.set_ylim(0, 1)
            figure.supxlabel("truth ratio of forget questions, log10", fontsize=8)
            figure.supylabel("share of questions below", fontsize=8)
            return figure

        yield Picture(
            name=f"truth-ratio-{name}" + (f"-{number}" if number > 1 else ""),
            caption=f"Truth ratios of the forget questions on {where}: the distribution of every method, one line a "
            "seed, in blue; the retrained model's in grey. Forget quality asks whether the two are the same; the "
            "largest vertical distance is KS D.",
            table=table,
            draw=draw,
        )


def _losses(table: Table, name: str, where: str, folders: Sequence[Path]) -> Iterator[Picture]:
    caption = f"The terms of the loss along training on {where}, weighted as they are added up; one line a seed."
    yield from _along_training(table, f"losses-{name}", caption, "loss", folders, train_log)


def _looks(table: Table, name: str, where: str, folders: Sequence[Path]) -> Iterator[Picture]:
    caption = f"Figures of the validation rows along training on {where}; one line a seed."
    yield from _along_training(table, f"learning-{name}", caption, "validation", folders, learning_curve)


def _gates(table: Table, name: str, where: str, folders: Sequence[Path]) -> Iterator[Picture]:
    opened: dict[str, dict[str, list[float]]] = {}
    for row in table.rows:
        for record in row.records:
            for line in rows_of(record, folders, GATES):
                opened.setdefault(row.method, {}).setdefault(line["set"], []).append(line["value"])
    sets = list(dict.fromkeys(name for found in opened.values() for name in found))
    for number, part in enumerate(_parts(list(opened)), start=1):

        def draw(part: Sequence[str] = part) -> "Figure":
            figure, panels = _panels(part, share=False)
            bins = [n / 20 for n in range(21)]
            for method, axes in zip(part, panels, strict=True):
                for place, one in enumerate(sets):
                    values = opened[method].get(one, [])
                    weights = [1 / len(values)] * len(values) if values else None
                    axes.hist(values, bins=bins, weights=weights, histtype="step", **_line(place))
            from matplotlib.lines import Line2D

            _legend(figure, [Line2D([], [], **_line(place)) for place in range(len(sets))], sets)
            figure.supxlabel("gate at the last prompt token", fontsize=8)
            figure.supylabel("share of gates", fontsize=8)
            return figure

        yield Picture(
            name=f"gates-{name}" + (f"-{number}" if number > 1 else ""),
            caption=f"How far the gates of GRUN's edits open on {where}: at what is to be forgotten, at what is to be "
            "kept, and at anything else; all edited blocks and seeds together.",
            table=table,
            draw=draw,
        )


def _along_training(
    table: Table,
    name: str,
    caption: str,
    unit: str,
    folders: Sequence[Path],
    read: Callable[[Record, Sequence[Path]], list[dict[str, Any]]],
) -> Iterator[Picture]:
    logs = {row.method: [log for record in row.records if (log := read(record, folders))] for row in table.rows}
    methods = [method for method, found in logs.items() if any(len(log) > 1 for log in found)]
    terms = list(
        dict.fromkeys(term for method in methods for log in logs[method] for row in log for term in _terms(row))
    )
    for number, part in enumerate(_parts(methods), start=1):

        def draw(part: Sequence[str] = part) -> "Figure":
            figure, panels = _panels(part, share=False)
            for method, axes in zip(part, panels, strict=True):
                for log in logs[method]:
                    for place, term in enumerate(terms):
                        points = [(row["step"], row[term]) for row in log if isinstance(row.get(term), int | float)]
                        if points:
                            xs, ys = zip(*points, strict=True)
                            marker = "o" if len(points) == 1 else ""
                            axes.plot(xs, ys, marker=marker, markersize=3, linewidth=0.8, **_line(place))
                axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
            from matplotlib.lines import Line2D

            _legend(figure, [Line2D([], [], **_line(place)) for place in range(len(terms))], terms)
            figure.supxlabel("optimizer step", fontsize=8)
            figure.supylabel(unit, fontsize=8)
            return figure

        yield Picture(
            name=name + (f"-{number}" if number > 1 else ""),
            caption=caption,
            table=table,
            draw=draw,
        )


FORMS = {"forgetting_qa": "QA", "forgetting_fb": "FB", "forgetting_mcp": "MCP", "forgetting_subtoken": "letters"}


def _forms(table: Table, name: str, where: str) -> Iterator[Picture]:
    values = {
        row.method: {form: value for form in FORMS if not math.isnan(value := row.mean(form))} for row in table.rows
    }
    methods = [row.method for row in table.rows if len(values[row.method]) > 1 and row.method != "original"]
    if not methods:
        return

    def draw() -> "Figure":
        figure, axes = _figure(WIDTH, 0.9 + 0.24 * len(methods))
        for place, method in enumerate(methods):
            ends = values[method].values()
            axes.plot([min(ends), max(ends)], [place, place], color=GREY, linewidth=3, alpha=0.5, zorder=1)
        handles = []
        for at, form in enumerate(FORMS):
            xs = [values[method].get(form, math.nan) for method in methods]
            style: dict[str, Any] = {"c": COLOURS[at], "marker": MARKERS[at], "s": 26, "zorder": 2}
            handles.append(axes.scatter(xs, range(len(methods)), **style))
        axes.axvline(0, color="#444444", linewidth=0.6)
        axes.set_yticks(range(len(methods)), [_drawable(method) for method in methods], parse_math=False)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_xlabel("share of what the original knew that is forgotten")
        _legend(figure, handles, list(FORMS.values()))
        return figure

    yield Picture(
        name=f"form-gap-{name}",
        caption=f"What every method forgot on {where}, by the form in which it is asked: QA questions, FB blanks to "
        "fill, MCP multiple choice, letters spelt answers. The bar spans the means of the forms; the form gap, a mean "
        "of the targets' own gaps, is at least as wide.",
        table=table,
        draw=draw,
    )


def _requests(table: Table, name: str, where: str, rows: Sequence[Sequence[object]]) -> Iterator[Picture]:
    caption = f"Figures after each of several successive requests in one model, {where}."
    yield from _over_places(table, f"requests-{name}", caption, "requests so far", rows)


def _batches(table: Table, name: str, where: str, rows: Sequence[Sequence[object]]) -> Iterator[Picture]:
    first = next((row[5] for row in rows if row[3] == table.benchmark and row[4] == 1), None)
    alone = f"; at 1 is the first of them, {first}, alone" if first is not None else ""
    caption = (
        f"Figures over the number of targets unlearned together, in one request: nested batches up to {where}. Each "
        "begins with the targets of the smaller ones and is unlearned once, in a model of its own, so this is no "
        f"sequence of requests{alone}. Points are means over the targets of a batch, so what is asked grows with it; "
        "bars are 95 % bootstrap intervals over targets."
    )
    yield from _over_places(table, f"batches-{name}", caption, "targets unlearned together", rows)


def _over_places(
    table: Table, name: str, caption: str, title: str, rows: Sequence[Sequence[object]]
) -> Iterator[Picture]:
    """A panel a metric, a line a method: rows of `bench.curves`, of which those of the table's own curve are drawn."""
    mine = [row for row in rows if (row[0], row[1], row[3]) == (table.model, table.protocol, table.benchmark)]
    if not mine:
        return
    lines: dict[str, dict[str, list[tuple[int, float]]]] = {}
    bars: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for _, _, method, _, place, _, metric, value, _, *ends in mine:
        points = lines.setdefault(str(metric), {}).setdefault(str(method), [])
        if isinstance(value, float | int) and not math.isnan(value) and isinstance(place, int):
            points.append((place, float(value)))
            known = [end for end in ends if isinstance(end, float) and not math.isnan(end)]
            if len(known) == 2:
                bars.setdefault((str(metric), str(method)), []).append((place, known[0], known[1]))
    metrics = [metric for metric, methods in lines.items() if any(methods.values())][:MOST_PANELS]
    methods = list(dict.fromkeys(str(row[2]) for row in mine))
    if not metrics:
        return

    def draw() -> "Figure":
        from matplotlib.ticker import MaxNLocator

        figure, panels = _panels([metric.replace("_", " ") for metric in metrics], share=False)
        handles: dict[str, Any] = {}
        for metric, axes in zip(metrics, panels, strict=True):
            for place, method in enumerate(methods):
                points = lines[metric].get(method)
                if points:
                    xs, ys = zip(*points, strict=True)
                    marker = MARKERS[place % len(MARKERS)]
                    (handles[method],) = axes.plot(xs, ys, marker=marker, markersize=3, **_line(place))
                for x, low, high in bars.get((metric, method), ()):
                    axes.vlines(x, low, high, color=_line(place)["color"], linewidth=1, alpha=0.6)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, list(handles.values()), list(handles))
        figure.supxlabel(title, fontsize=8)
        return figure

    yield Picture(name=name, caption=caption, table=table, draw=draw)


def _terms(row: Mapping[str, Any]) -> list[str]:
    """The loss terms of a step, without what else is logged."""
    return [key for key, value in row.items() if key not in UNPLOTTED and isinstance(value, int | float)]


# --- how it is drawn


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _panels(titles: Sequence[str], *, share: bool) -> "tuple[Figure, list[Axes]]":
    """A small picture for each title."""
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(titles))
    down = math.ceil(len(titles) / across)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.35 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=share, sharey=share)
    flat = [axes for line in grid for axes in line]
    for axes in flat[len(titles) :]:
        axes.set_axis_off()
    for title, axes in zip(titles, flat, strict=False):
        axes.set_title(_two_lines(_drawable(title)), parse_math=False)
        if share:
            axes.tick_params(labelbottom=True)
    return figure, flat[: len(titles)]


def _two_lines(text: str) -> str:
    """Cut behind a separator where it is long."""
    if len(text) <= _TITLE:
        return text
    cut = max(text.rfind(sign, 0, _TITLE) for sign in " =,[_/") + 1 or _TITLE
    return f"{text[:cut]}\n{text[cut:]}"


def _line(place: int) -> dict[str, Any]:
    """Seven colours, then the same with other dashes; neighbours differ in both."""
    turn, at = divmod(place, len(COLOURS))
    return {"color": COLOURS[at], "linestyle": DASHES[(turn + at % 2) % len(DASHES)]}


def _steps(axes: "Axes", values: Sequence[float], ends: tuple[float, float], **style: Any) -> None:
    """The empirical distribution: the share of values up to x."""
    count = len(values)
    shares = [0.0, *(number / count for number in range(1, count + 1)), 1.0]
    axes.step([min(ends[0], values[0]), *values, max(ends[1], values[-1])], shares, where="post", **style)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest, a little room at either side; a few values far out do not squeeze the others."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 200], ordered[-1 - len(ordered) // 200]
    room = 0.03 * (high - low) or 0.5
    return low - room, high + room


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    center = mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def _parts(methods: Sequence[str]) -> list[Sequence[str]]:
    return [methods[at : at + MOST_PANELS] for at in range(0, len(methods), MOST_PANELS)]


def _legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Above the picture; a label may begin with an underscore, which matplotlib would leave out, and hold dollars."""
    longest = max((len(_drawable(label)) for label in labels), default=1)
    columns = max(1, min(len(labels), int(110 / (longest + 6))))
    numbers = [str(number) for number in range(len(labels))]
    legend = figure.legend(handles, numbers, loc="outside upper center", ncols=columns)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(_drawable(label))


def _drawable(text: str) -> str:
    """One line of signs that the font has; others as <U+4E2D>, as in LaTeX."""
    signs = _signs()
    pieces = []
    for char in unicodedata.normalize("NFC", text):
        if unicodedata.category(char) in ("Zs", "Zl", "Zp", "Cc"):
            pieces.append(" ")
        else:
            pieces.append(char if ord(char) in signs else f"<U+{ord(char):04X}>")
    line = "".join(pieces)
    return line if len(line) <= _LABEL else line[: _LABEL - 1] + "\u2026"


def _signs() -> Mapping[int, int]:
    """The code points of the font."""
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans")).get_charmap()


def _bytes(figure: "Figure", ending: str) -> bytes:
    """Without the date and the version of what wrote it."""
    metadata = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Date": None, "Creator": None},
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, metadata=metadata[ending])
    return buffer.getvalue()

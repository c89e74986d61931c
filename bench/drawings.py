"""The pictures of the report page: each a list of panels, a title and an SVG, drawn from tables and stored rows."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.pareto import Tradeoff
from bench.svg import (
    SERIES,
    Box,
    Frame,
    colour,
    dash,
    element,
    extent,
    leader,
    marker,
    place_labels,
    shortened,
    text,
    width_of,
)
from bench.tables import REFERENCES, Table, base_label, mean, printed_number, reference_of

PANEL = (300.0, 190.0)
WIDE = 480.0
BINS = 20
FORMS = ("qa", "fb", "mcp", "subtoken", "aa", "qa_paraphrase")
LETTERS = "letter by letter"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One drawing with what stands above it."""

    title: str
    svg: str
    note: str = ""


def scatter(table: Table, tradeoff: Tradeoff) -> Panel:
    """Every method as a labelled point, seeds as faint ones, the Pareto front as a broken line."""
    points, front = tradeoff.points(table), tradeoff.front(table)
    seeds = {
        row.method: list(zip(tradeoff.forgetting.values(row), tradeoff.utility.values(row), strict=False))
        for row in table.rows
        if row.method in points
    }
    known = [point for method in points for point in (points[method], *seeds[method])]
    frame = Frame(
        width=WIDE,
        height=390,
        x=extent([x for x, _ in known], pad=0.12, at_least=0.02),
        y=extent([y for _, y in known], pad=0.12, at_least=0.02),
        left=58,
    )
    parts = [frame.axes(tradeoff.forgetting.title + " →", tradeoff.utility.title + " →")]
    if len(front) > 1:
        parts.append(frame.line(_stairs([points[method] for method in front]), "front", dash="5 4"))
    order = [row.method for row in table.rows]
    references = {row.method for row in table.rows if row.reference}
    for method, all_seeds in seeds.items():
        if len(all_seeds) > 1:
            spots = [frame.at(*point) for point in all_seeds]
            parts += [
                element("circle", cx=x, cy=y, r=2.0, class_=f"seed {colour(order.index(method))}") for x, y in spots
            ]
    places = [frame.at(*points[method]) for method in points]
    labels = [shortened(method, 220) for method in points]
    room = Box(frame.left + 2, frame.top, frame.width - frame.right, frame.height - frame.bottom - 2)
    boxes = place_labels(places, labels, room)
    parts += [leader(x, y, box) for (x, y), box in zip(places, boxes, strict=True)]
    for method, (x, y), box, label in zip(points, places, boxes, labels, strict=True):
        what = "reference" if method in references else "on the Pareto front" if method in front else "dominated"
        tip = f"{method}\n{_plain(tradeoff.forgetting.title)}: {points[method][0]:.4f}\n"
        tip += f"{tradeoff.utility.title}: {points[method][1]:.4f}\n{what}, {_count(len(seeds[method]), 'seed')}"
        parts.append(marker(x, y, order.index(method), tip, size=6.0, hollow=method in references))
        class_ = "label" + (" best" if method in front else "")
        before = box.x1 <= x
        at = box.x1 if before else box.x0 if box.x0 >= x else (box.x0 + box.x1) / 2
        anchor = "end" if before else "start" if box.x0 >= x else "middle"
        parts.append(text(at, box.y1 - 3, label, anchor=anchor, class_=class_))
    title = f"{_plain(tradeoff.forgetting.title)} and {tradeoff.utility.title}"
    return Panel(title=title, svg=frame.drawing("".join(parts), f"Scatter: {title}. Pareto front: {', '.join(front)}"))


def _plain(title: str) -> str:
    return title.removesuffix(" →")


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The border of what the points dominate: to the right edge of each, then down to the next."""
    corners: list[tuple[float, float]] = []
    for point in points:
        if corners:
            corners.append((corners[-1][0], point[1]))
        corners.append(point)
    return corners


def truth_ratio_panels(table: Table, ratios: Mapping[str, Sequence[Sequence[float]]]) -> list[Panel]:
    """For every method the distribution of its log10 truth ratios, a line a seed, over that of the retrained model.

    Args:
        ratios: method -> seed -> natural logarithms of the truth ratios of the forget set.
    """
    if not ratios:
        return []
    decades = {
        method: [sorted(value / math.log(10) for value in seed if math.isfinite(value)) for seed in seeds]
        for method, seeds in ratios.items()
    }
    low, high = _span(decades)
    panels = []
    for place, row in enumerate(table.rows):
        if row.method not in decades or not any(decades[row.method]):
            continue
        frame = Frame(width=PANEL[0], height=PANEL[1], x=(low, high), y=(0.0, 1.0), left=40)
        parts = [frame.axes("log10 of the truth ratio", x_count=5, y_count=2)]
        same = base_label(row.method) == "retrained"
        if not same:
            theirs = decades.get(reference_of(table, row.method, "retrained") or "", [])
            parts += [frame.line(_ecdf(seed, low, high), "reference") for seed in theirs[:1] if seed]
        parts += [
            frame.line(_ecdf(seed, low, high), "reference" if same else colour(place))
            for seed in decades[row.method]
            if seed
        ]
        distance = row.mean("forget_ks_d")
        note = "" if same or math.isnan(distance) else f"D {printed_number('forget_ks_d', distance)}"
        if beyond := sum(not low <= v <= high for seed in decades[row.method] for v in seed):
            note += f"{', ' if note else ''}{beyond} outside the axis"
        panels.append(Panel(title=row.method, svg=frame.drawing("".join(parts), f"{row.method}: {note}"), note=note))
    return panels


def _span(decades: Mapping[str, Sequence[Sequence[float]]]) -> tuple[float, float]:
    """What the panels share: the middle 96 % of the references and, at most as far again on either side, of all.

    A collapsed model's ratios may be hundreds of powers of ten away; they are drawn at the edge.
    """

    def middle(methods: Iterable[str]) -> tuple[float, float]:
        values = sorted(v for method in methods for seed in decades[method] for v in seed)
        cut = len(values) // 50
        return (values[cut], values[-1 - cut]) if values else (0.0, 0.0)

    low, high = middle(decades)
    inner = middle([method for method in decades if base_label(method) in REFERENCES] or decades)
    room = max(inner[1] - inner[0], 1.0)
    low, high = min(low, inner[0]), max(high, inner[1])
    return extent([max(low, inner[0] - room), min(high, inner[1] + room)], at_least=0.5)


def _ecdf(ordered: Sequence[float], low: float, high: float) -> list[tuple[float, float]]:
    """The corners of the share of values up to x, one for every 200th of the axis at most."""
    shares: dict[int, tuple[float, float]] = {}
    for rank, value in enumerate(ordered, start=1):
        at = round(200 * (min(max(value, low), high) - low) / (high - low))
        shares[at] = (low + at * (high - low) / 200, rank / len(ordered))
    return [*_stair_corners([(low, 0.0), *shares.values(), (high, 1.0)])]


def _stair_corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    corners = [points[0]]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


UNPLOTTED = ("step", "epoch", "lr", "grad_norm", "seconds")
"""Columns of train.jsonl that are no loss."""


def loss_panels(table: Table, logs: Mapping[str, Sequence[Sequence[Mapping[str, object]]]]) -> list[Panel]:
    """For every method its loss terms over the steps, a line a run.

    Args:
        logs: method -> run -> rows of train.jsonl.
    """
    panels = []
    for method in (row.method for row in table.rows if row.method in logs):
        runs = [_terms(run) for run in logs[method]]
        names = list(dict.fromkeys(name for run in runs for name in run))
        values = [y for run in runs for points in run.values() for _, y in points]
        if not values or max(len(points) for run in runs for points in run.values()) < 2:
            continue  # a closed form has one step, and nothing that develops
        last = max(x for run in runs for points in run.values() for x, _ in points)
        first = min(x for run in runs for points in run.values() for x, _ in points)
        frame = Frame(
            width=PANEL[0],
            height=PANEL[1] + 20,
            x=(first, max(last, first + 1)),
            y=extent(values, at_least=1e-6),
            top=30,
        )
        parts = [frame.axes("step", y_count=4), _legend(names, frame)]
        for run in runs:
            parts += [
                frame.line(points, colour(names.index(name)), dash=dash(names.index(name)))
                for name, points in run.items()
            ]
        panels.append(
            Panel(title=method, svg=frame.drawing("".join(parts), f"{method}: {', '.join(names)} over steps"))
        )
    return panels


def _terms(rows: Sequence[Mapping[str, object]]) -> dict[str, list[tuple[float, float]]]:
    """Term -> (step, value), averaged over neighbours so that at most 150 points are left."""
    columns: dict[str, list[tuple[float, float]]] = {}
    for place, row in enumerate(rows, start=1):
        step = row.get("step")
        x = float(step) if isinstance(step, int | float) else float(place)
        for name, value in row.items():
            if name not in UNPLOTTED and isinstance(value, int | float) and math.isfinite(value):
                columns.setdefault(name, []).append((x, float(value)))
    return {name: _thinned(points, 150) for name, points in columns.items()}


def _thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    size = -(-len(points) // most)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(mean([x for x, _ in group]), mean([y for _, y in group])) for group in groups]


def _legend(names: Sequence[str], frame: Frame, *, dashed: bool = False) -> str:
    """Names with a piece of their line, in one row above the axes; dashed where lines lie on one another."""
    parts, x = [], frame.left
    for place, name in enumerate(names):
        wide = width_of(name) + 30
        if x + wide > frame.width:
            break
        broken = dash(SERIES * place if dashed else place) or None
        parts.append(element("path", d=f"M{x:.0f} 14h16", class_=f"line {colour(place)}", stroke_dasharray=broken))
        parts.append(text(x + 20, 18, name, class_="tick"))
        x += wide
    return "".join(parts)


def gate_panels(table: Table, gates: Mapping[str, Sequence[Mapping[str, object]]]) -> list[Panel]:
    """For every method and layer the distribution of the gate over the prompts of each set.

    Args:
        gates: method -> rows {set, layer, value}, value in 0..1.
    """
    panels = []
    for method in (row.method for row in table.rows if row.method in gates):
        by_layer: dict[str, dict[str, list[float]]] = {}
        for row in gates[method]:
            value = row.get("value")
            if isinstance(value, int | float) and math.isfinite(value):
                by_layer.setdefault(str(row.get("layer", "")), {}).setdefault(str(row.get("set", "")), []).append(value)
        for layer, sets in by_layer.items():
            shares = {name: _histogram(values) for name, values in sets.items()}
            frame = Frame(
                width=PANEL[0],
                height=PANEL[1] + 20,
                x=(0.0, 1.0),
                y=(0.0, max(map(max, shares.values())) * 1.05),
                top=30,
            )
            parts = [frame.axes("gate", y_count=3), _legend(list(shares), frame, dashed=True)]
            for place, heights in enumerate(shares.values()):
                edges = [(at / BINS, height) for at, height in enumerate(heights)]
                outline = [(0.0, 0.0), *((x + dx, h) for x, h in edges for dx in (0.0, 1 / BINS)), (1.0, 0.0)]
                parts.append(frame.line(outline, f"{colour(place)} area", dash=dash(SERIES * place)))
            means = ", ".join(f"{name} {mean(values):.2f}" for name, values in sets.items())
            title = f"{method}, layer {layer}" if layer else method
            panels.append(
                Panel(title=title, svg=frame.drawing("".join(parts), f"{title}: means {means}"), note=f"means: {means}")
            )
    return panels


def _histogram(values: Sequence[float]) -> list[float]:
    """Shares of the values in BINS equal parts of 0..1."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(min(max(value, 0.0), 1.0) * BINS), BINS - 1)] += 1
    return [count / len(values) for count in counts]


def form_gap(table: Table) -> list[Panel]:
    """A line a method from the form it forgot least to the one it forgot most, and every form as a mark."""
    named = [(form, f"forgetting_{form}") for form in FORMS if f"forgetting_{form}" in table.better]
    rows = [
        (row.method, {form: row.mean(metric) for form, metric in named if not math.isnan(row.mean(metric))})
        for row in table.rows
    ]
    rows = [(method, values) for method, values in rows if values]
    if not rows:
        return []
    left = min(max(width_of(method) for method, _ in rows) + 14, 160.0)
    low, high = extent([0.0, 1.0, *(value for _, values in rows for value in values.values())], pad=0.03)
    frame = Frame(
        width=WIDE, height=34.0 + 26 * len(rows) + 44, x=(low, high), y=(0.0, 1.0), left=left, right=66, top=34
    )
    parts = [frame.axes("share forgotten of what the original knew", y_count=0)]
    x = frame.left
    for place, (form, _) in enumerate(named):
        shown = LETTERS if form == "subtoken" else form.upper() if len(form) < 4 else form.replace("_", " ")
        parts += [marker(x + 6, 14, place), text(x + 16, 18, shown, class_="tick")]
        x += width_of(shown) + 36
    forms = [form for form, _ in named]
    gaps = {row.method: row.mean("form_gap") for row in table.rows}
    for number, (method, values) in enumerate(rows):
        y = frame.top + 13 + 26 * number
        ends = [frame.at(value, 0)[0] for value in (min(values.values()), max(values.values()))]
        parts.append(text(left - 8, y + 4, shortened(method, left - 12), anchor="end", class_="label"))
        parts.append(element("line", x1=ends[0], x2=ends[1], y1=y, y2=y, class_="spread"))
        for form, value in values.items():
            parts.append(
                marker(frame.at(value, 0)[0], y, forms.index(form), f"{method}\nforgetting {form}: {value:.4f}")
            )
        gap = gaps[method]  # a mean of targets' own gaps, wider than the bar, which spans the forms' means
        if math.isfinite(gap):
            parts.append(text(frame.width - frame.right + 8, y + 4, f"gap {gap:.2f}", class_="tick"))
    methods = ", ".join(method for method, _ in rows)
    return [Panel(title="", svg=frame.drawing("".join(parts), f"Forgetting by form of {methods}"))]


def request_panels(rows: Sequence[Sequence[object]]) -> list[tuple[str, list[Panel]]]:
    """The rows of `bench.curves.curve_rows`, without their head: per chain, a panel a metric, a line a method."""
    return _curve_panels(rows, "requests", lambda number: f"after {_count(number, 'request')}")


def batch_panels(rows: Sequence[Sequence[object]]) -> list[tuple[str, list[Panel]]]:
    """The same of `bench.curves.batch_rows`, per nest of batches; what a mark tells has its interval."""
    return _curve_panels(
        rows, "targets together", lambda number: f"of {number} targets" if number > 1 else "of the first target"
    )


def _curve_panels(
    rows: Sequence[Sequence[object]], title: str, told: Callable[[int], str]
) -> list[tuple[str, list[Panel]]]:
    """Rows of model, protocol, method, curve, place on it, what is there, metric, value, seeds, and an interval's ends.

    Args:
        title: of the axis of places.
        told: a place in words.
    """
    curves: dict[tuple[str, ...], dict[str, dict[str, list[tuple[float, float, str]]]]] = {}
    for model, protocol, method, curve, place, _, metric, value, _, *ends in rows:
        metrics = curves.setdefault((str(curve), str(model), str(protocol)), {})
        points = metrics.setdefault(str(metric), {}).setdefault(str(method), [])
        if isinstance(value, float | int) and isinstance(place, int) and math.isfinite(value):
            known = [end for end in ends if isinstance(end, float) and math.isfinite(end)]
            interval = f"\n95 % interval over targets: {known[0]:.4f} to {known[1]:.4f}" if len(known) == 2 else ""
            points.append((place, value, f"{method}\n{metric} {told(place)}: {value:.4f}{interval}"))
    found = []
    for (curve, model, protocol), metrics in curves.items():
        panels = []
        for metric, methods in metrics.items():
            values = [y for points in methods.values() for _, y, _ in points]
            if not values:
                continue
            last = max(x for points in methods.values() for x, _, _ in points)
            lines = -(-len(methods) // 2)
            frame = Frame(
                width=PANEL[0], height=PANEL[1] + 16 * lines, x=(1.0, max(last, 2.0)), y=extent(values, at_least=0.01),
                top=12.0 + 16 * lines,
            )  # fmt: skip
            parts = [frame.axes(title, x_count=int(min(max(last - 1, 1), 6)), y_count=4)]
            for place, (method, points) in enumerate(methods.items()):
                at_x, at_y = 12 + 144 * (place % 2), 14 + 16 * (place // 2)
                parts += [
                    marker(at_x, at_y - 4, place, size=4.0),
                    text(at_x + 10, at_y, shortened(method, 124), class_="tick"),
                ]
                if points:
                    parts.append(frame.line([(x, y) for x, y, _ in points], colour(place), dash=dash(place)))
                parts += [marker(*frame.at(x, y), place, tip, size=4.0) for x, y, tip in points]
            panels.append(Panel(title=metric, svg=frame.drawing("".join(parts), f"{metric} over {title}")))
        if panels:
            found.append((f"{curve}, model {model}, protocol {protocol}", panels))
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"

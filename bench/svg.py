"""Charts as SVG text: scales, axes, marks. Colours and fonts are classes, which the page's style sheet fills in.

Nothing here is random or depends on a font: the same figures give the same bytes.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

SERIES = 8
"""Colours of the style sheet, `s0` to `s7`; markers and dashes tell the rest apart."""
_SHAPES = ("circle", "square", "up", "down", "diamond", "cross")
_DASHES = ("", "6 3", "2 2", "8 3 2 3")
FONT = 12
"""Size of every text, in units of the drawing."""


def element(name: str, content: str = "", /, **attributes: object) -> str:
    """An element whose attributes are escaped; `content` is markup. `class_` is class, `stroke_width` stroke-width."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{escape(_text(value))}"' for key, value in given.items())
    return f"<{name}{inside}>{content}</{name}>"


def _text(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """A coordinate: a tenth of a unit is more than any screen shows."""
    return f"{value:z.1f}".removesuffix(".0")


def text(x: float, y: float, content: str, *, anchor: str = "start", class_: str = "", rotate: float = 0.0) -> str:
    turn = f"rotate({number(rotate)} {number(x)} {number(y)})" if rotate else None
    ends = None if anchor == "start" else anchor
    return element("text", escape(content), x=x, y=y, text_anchor=ends, class_=class_ or None, transform=turn)


def width_of(content: str) -> float:
    """About how wide a text is, in a bold sans-serif font of size FONT; rather too wide than too narrow."""
    narrow, wide = set("iljtfrI.,:;|'!()[] "), set("mwMW@%")
    units = [
        0.42 if c in narrow else 1.0 if c in wide or unicodedata.east_asian_width(c) in "WF" else 0.68 for c in content
    ]
    return FONT * sum(units)


def shortened(content: str, width: float) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    if width_of(content) <= width:
        return content
    while content and width_of(content + "…") > width:
        content = content[:-1]
    return content + "…"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within low..high, about `count` of them, whose step is 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(step))
    step = magnitude * next(nice for nice in (1, 2, 5, 10) if nice * magnitude >= step * 0.75)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


def tick_label(value: float) -> str:
    return f"{value:z.4g}" if abs(value) < 1e4 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def extent(values: Iterable[float], *, pad: float = 0.05, at_least: float = 0.0) -> tuple[float, float]:
    """A range that holds the finite values with a margin; 0..1 without any."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    half = max(high - low, at_least, 1e-9 * max(abs(low), abs(high)), 1e-12) / 2
    middle = (low + high) / 2
    return middle - half * (1 + 2 * pad), middle + half * (1 + 2 * pad)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A drawing with one pair of axes: where it lies, what it spans, and the marks that are drawn in it."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 52.0
    right: float = 12.0
    top: float = 12.0
    bottom: float = 42.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point; what lies outside is drawn on the edge."""
        return self._place(x, self.x, self.left, self.width - self.right), self._place(
            y, self.y, self.height - self.bottom, self.top
        )

    @staticmethod
    def _place(value: float, span: tuple[float, float], start: float, end: float) -> float:
        share = (value - span[0]) / (span[1] - span[0])
        return start + min(max(share, 0.0), 1.0) * (end - start)

    def axes(self, x_title: str = "", y_title: str = "", *, x_count: int = 5, y_count: int = 5) -> str:
        """Grid lines with their values, and the titles; a count of 0 leaves an axis bare."""
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = []
        for value in ticks(*self.x, x_count):
            x, _ = self.at(value, self.y[0])
            parts.append(element("line", x1=x, x2=x, y1=self.top, y2=bottom, class_="grid"))
            parts.append(text(x, bottom + 15, tick_label(value), anchor="middle", class_="tick"))
        for value in ticks(*self.y, y_count) if y_count else ():
            _, y = self.at(self.x[0], value)
            parts.append(element("line", x1=self.left, x2=right, y1=y, y2=y, class_="grid"))
            parts.append(text(self.left - 6, y + 4, tick_label(value), anchor="end", class_="tick"))
        middle = (self.left + right) / 2
        if x_title:
            parts.append(text(middle, self.height - 6, x_title, anchor="middle", class_="axis"))
        if y_title:
            parts.append(text(13, (self.top + bottom) / 2, y_title, anchor="middle", class_="axis", rotate=-90))
        return "".join(parts)

    def line(self, points: Sequence[tuple[float, float]], class_: str, *, dash: str = "", step: bool = False) -> str:
        """A line through the points, or stairs that rise at each of them."""
        pieces: list[str] = []
        last = ("", "")
        for point in points:
            x, y = map(number, self.at(*point))
            if (x, y) != last:
                pieces.append(f"M{x} {y}" if not pieces else f"H{x}V{y}" if step else f"L{x} {y}")
            last = x, y
        return element("path", d="".join(pieces), class_=f"line {class_}", stroke_dasharray=dash or None)

    def drawing(self, content: str, label: str) -> str:
        """The whole picture; `label` is what is read out instead of it."""
        size = f"0 0 {number(self.width)} {number(self.height)}"
        return element("svg", content, viewBox=size, width=self.width, height=self.height, role="img", aria_label=label)


def colour(place: int) -> str:
    return f"s{place % SERIES}"


def dash(place: int) -> str:
    return _DASHES[place // SERIES % len(_DASHES)]


def marker(x: float, y: float, place: int, tip: str = "", *, size: float = 5.0, hollow: bool = False) -> str:
    """A mark whose colour and shape stand for a series; what it tells stands in `data-tip`, for the page to show."""
    shape = _SHAPES[place % len(_SHAPES)]
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "up": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        "down": [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "cross": [
            *[(-1.2, -0.4), (-0.4, -0.4), (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4)],
            *[(1.2, 0.4), (0.4, 0.4), (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4)],
        ],
    }
    told = {"data_tip": tip, "tabindex": "0", "role": "img", "aria_label": tip} if tip else {}
    class_ = f"mark {colour(place)}{' hollow' if hollow else ''}"
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=size, class_=class_, **told)
    points = " ".join(f"{number(x + size * dx)},{number(y + size * dy)}" for dx, dy in corners[shape])
    return element("polygon", points=points, class_=class_, **told)


@dataclass(frozen=True)
class Box:
    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: "Box") -> float:
        across = min(self.x1, other.x1) - max(self.x0, other.x0)
        down = min(self.y1, other.y1) - max(self.y0, other.y0)
        return across * down if across > 0 and down > 0 else 0.0

    def outside(self, other: "Box") -> float:
        """How far this box sticks out of another."""
        return (
            max(0.0, other.x0 - self.x0)
            + max(0.0, self.x1 - other.x1)
            + max(0.0, other.y0 - self.y0)
            + max(0.0, self.y1 - other.y1)
        )


def place_labels(points: Sequence[tuple[float, float]], labels: Sequence[str], room: Box) -> list[Box]:
    """A box for every label near its point, covering points and other labels as little as a greedy search finds."""
    marks = [Box(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    placed: dict[int, Box] = {}
    # Points with near neighbours first: they have the fewest places.
    crowd = [sum(abs(x - a) < 90 and abs(y - b) < 30 for a, b in points) for x, y in points]
    for place in sorted(range(len(points)), key=lambda i: (-crowd[i], points[i], i)):
        x, y = points[place]
        wide, high = width_of(labels[place]), FONT + 2.0
        best: tuple[float, Box] | None = None
        for ring in range(12):
            away = 11.0 + 13.0 * ring
            for turn, angle in enumerate((0, 180, 90, 270, 45, 135, 315, 225, 20, 160, 340, 200)):
                dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
                left = x + away * dx - (0 if dx > 0.1 else wide if dx < -0.1 else wide / 2)
                top = y + away * dy - high / 2
                box = Box(left, top, left + wide, top + high)
                cost = 8 * sum(box.overlap(other) for other in placed.values())
                cost += 4 * sum(box.overlap(mark) for mark in marks) + 300 * box.outside(room) + 6 * ring + 0.4 * turn
                if best is None or cost < best[0]:
                    best = cost, box
        assert best is not None
        placed[place] = best[1]
    return [placed[place] for place in range(len(points))]


def leader(x: float, y: float, box: Box) -> str:
    """A thin line to a label that had to move away from its point."""
    to_x, to_y = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
    if math.hypot(to_x - x, to_y - y) < 15:
        return ""
    return element("line", x1=x, y1=y, x2=to_x, y2=to_y, class_="leader")

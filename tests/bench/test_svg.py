"""Scales, marks and labels of the drawings."""

import math
from xml.etree import ElementTree

import pytest

from bench.svg import Box, Frame, element, extent, marker, number, place_labels, shortened, text, ticks, width_of


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3.3, 120.0, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]),
        (0.5, 0.506, [0.5, 0.501, 0.502, 0.503, 0.504, 0.505, 0.506]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_extent_holds_all_and_never_collapses() -> None:
    assert extent([1.0, 3.0, math.nan, math.inf], pad=0.1) == pytest.approx((0.8, 3.2))
    assert extent([]) == (0.0, 1.0)
    low, high = extent([2.0])
    assert low < 2.0 < high
    assert extent([2.0], at_least=1.0, pad=0.0) == (1.5, 2.5)


def test_a_frame_puts_points_where_they_belong() -> None:
    frame = Frame(width=200, height=100, x=(0, 10), y=(0, 1), left=20, right=0, top=10, bottom=10)
    assert frame.at(0, 0) == (20, 90)
    assert frame.at(5, 0.5) == (110, 50)
    assert frame.at(99, -1) == (200, 90)  # outside: on the edge
    line = frame.line([(0, 0), (0, 0), (10, 1)], "s0")
    assert 'd="M20 90L200 10"' in line


def test_numbers_are_short() -> None:
    assert [number(v) for v in (3.0, -0.01, 2.25, 1e3)] == ["3", "0", "2.2", "1000"]


def test_texts_and_attributes_are_escaped() -> None:
    drawing = Frame(width=9, height=9, x=(0, 1), y=(0, 1)).drawing(
        text(0, 0, "a<b>&\"'") + marker(1, 1, 4, 'x" onload="y'), 'la"bel<'
    )
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"] == 'la"bel<'
    assert root[0].text == "a<b>&\"'"
    assert root[1].attrib["data-tip"] == 'x" onload="y'
    assert "onload" not in root[1].attrib
    assert element("a", href='"') == '<a href="&quot;"></a>'


def test_labels_of_a_crowd_do_not_overlap() -> None:
    room = Box(0, 0, 480, 390)
    points = [(100.0 + 8 * (i % 4), 200.0 + 6 * (i // 4)) for i in range(12)] + [(475.0, 5.0), (3.0, 388.0)]
    names = [f"grun_npo_{i}" for i in range(len(points))]
    boxes = place_labels(points, names, room)
    overlaps = [a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert max(overlaps) == 0
    assert all(box.outside(room) == 0 for box in boxes)
    assert boxes == place_labels(points, names, room)


def test_a_long_text_is_shortened() -> None:
    assert shortened("npo", 100) == "npo"
    cut = shortened("a_method_with_many_fields", 80)
    assert cut.endswith("…")
    assert width_of(cut) <= 80

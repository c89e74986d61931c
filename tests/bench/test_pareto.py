"""Which points nothing dominates, and which figures of a table are forgetting and utility."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.pareto import Point, pareto_front, tradeoffs
from bench.tables import tables_of
from tests.toy_report import EVIL_METHOD, fill

COORDINATE = st.integers(0, 4).map(float)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(0.3, 0.3)], [0]),
        ([(0.0, 1.0), (0.5, 0.5), (0.4, 0.4), (1.0, 0.0)], [0, 1, 3]),  # (0.5, 0.5) dominates (0.4, 0.4)
        ([(1.0, 0.2), (1.0, 0.9), (0.1, 0.9)], [1]),  # as good in one coordinate, better in the other
        ([(0.5, 0.5), (0.5, 0.5), (0.2, 0.2)], [0, 1]),  # equal points stand together
        ([(math.nan, 1.0), (0.5, math.inf), (0.1, 0.1)], [2]),
    ],
    ids=["none", "one", "front", "ties", "equal", "not finite"],
)
def test_the_front_is_what_nothing_dominates(points: list[Point], front: list[int]) -> None:
    assert pareto_front(points) == front


@given(st.lists(st.tuples(COORDINATE, COORDINATE), max_size=12))
def test_the_front_agrees_with_the_definition(points: list[Point]) -> None:
    def dominated(p: Point) -> bool:
        return any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)

    assert set(pareto_front(points)) == {place for place, point in enumerate(points) if not dominated(point)}


def test_every_kind_of_table_has_its_axes(tmp_path: Path) -> None:
    tables = {(t.model, t.benchmark): t for t in tables_of(fill(tmp_path), [])}
    (question_table,) = (table for (_, benchmark), table in tables.items() if benchmark == "tofu/forget10")
    distance, probability = tradeoffs(question_table)
    assert (distance.forgetting.metrics, distance.utility.metrics) == (("forget_ks_d",), ("model_utility",))
    # seeds 0.2 and 0.22 of KS D, so 1 - D is 0.79 on average
    assert distance.points(question_table)[EVIL_METHOD] == pytest.approx((0.79, 0.6))
    assert probability.forgetting.title == "1 - probability of forget answers"
    # 1 - D and utility: a&b 0.79, 0.6; npo 0.49, 0.7; ga 0.59, 0.1; grun_npo 0.7, 0.72. The references do not compete.
    assert distance.front(question_table) == ["grun_npo", EVIL_METHOD]
    (choices,) = tradeoffs(tables["m", "wmdp"])
    assert choices.forgetting.title == "1 - WMDP accuracy (bio, cyber)"
    assert choices.points(tables["m", "wmdp"])["rmu"] == pytest.approx((1 - 0.325, 0.5))
    (facts,) = tradeoffs(tables["m", "ort"])
    assert (facts.forgetting.title, facts.utility.title) == ("mean forgetting", "neighbours kept")

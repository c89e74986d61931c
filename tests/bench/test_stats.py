"""Intervals and tests on values small enough to be worked out by hand, and what holds for any."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from bench.stats import (
    DISTANCE_RESAMPLES,
    RESAMPLES,
    Array,
    Comparison,
    Part,
    Statistic,
    bootstrap_ks,
    bootstrap_mean,
    compare,
    holm,
)

UNSURE = pytest.mark.filterwarnings("ignore:ks_2samp. Exact calculation unsuccessful:RuntimeWarning")
"""Of p, which is not looked at."""
VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


def mean_of(values: Sequence[float], group: str = "rows") -> Statistic:
    return Statistic((Part(group, {f"row {i}": value for i, value in enumerate(values)}),))


def distance_of(values: Sequence[float], others: Sequence[float]) -> Statistic:
    return Statistic(
        (Part("rows", {str(i): v for i, v in enumerate(values)}, {str(i): v for i, v in enumerate(others)}),)
    )


def against(mine: Sequence[float], theirs: Sequence[float]) -> Comparison:
    return compare([([mean_of(mine)], [mean_of(theirs)])])[0]


# --- one figure


def test_the_interval_of_a_mean_is_the_same_every_time() -> None:
    # Of two values three means come up, with odds 1 : 2 : 1, so both outer percentiles are the values themselves.
    ends = bootstrap_mean([0.2, 0.6])
    assert (ends.low, ends.high) == pytest.approx((0.2, 0.6))
    assert bootstrap_mean([0.2, 0.6]) == ends
    ends = bootstrap_mean([0.4, 0.4, 0.4])
    assert (ends.low, ends.high) == pytest.approx((0.4, 0.4))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_where_there_are_many() -> None:
    values = np.random.default_rng(1).normal(size=400)
    error = values.std(ddof=1) / math.sqrt(400)
    ends = bootstrap_mean(values.tolist())
    assert ends.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert ends.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_the_interval_of_a_distance_by_hand() -> None:
    # Of one value a sample holds that value again: nothing changes.
    assert vars(bootstrap_ks([0.1], [5.0])) == {"low": 1, "high": 1}
    assert vars(bootstrap_ks([5.0], [5.0])) == {"low": 0, "high": 0}
    # Half of the samples of two values hold one of them twice, which moves that distribution function by 1/2. Where the
    # values are the same, both move at 0, and apart in 1/8 of the draws: by 1.
    assert vars(bootstrap_ks([0.0, 1.0], [5.0, 6.0])) == {"low": 0.5, "high": 1}
    assert vars(bootstrap_ks([0.0, 1.0], [0.0, 1.0])) == {"low": 0, "high": 1}


def test_the_interval_of_a_distance_holds_the_true_one() -> None:
    # uniform on 0..1 and on d..1 + d: D is d
    rng = np.random.default_rng(0)
    for true in (0.0, 0.5, 0.9):
        held = 0
        for _ in range(40):
            ends = bootstrap_ks(rng.random(60).tolist(), (rng.random(60) + true).tolist())
            held += ends.low <= true <= ends.high
        assert held >= 35


@UNSURE
@given(VALUES, VALUES)
@settings(max_examples=30, deadline=None)
def test_the_interval_of_a_distance_holds_what_was_observed(x: list[float], y: list[float]) -> None:
    ends = bootstrap_ks(x, y)
    observed = ks_2samp(x, y, method="exact").statistic  # type: ignore[attr-defined]
    assert 0 <= ends.low <= observed + 1e-9
    assert observed - 1e-9 <= ends.high <= 1


@UNSURE
@given(VALUES, VALUES)
@settings(max_examples=50, deadline=None)
def test_the_distance_is_that_of_scipy(x: list[float], y: list[float]) -> None:
    found = distance_of(x, y).value()
    assert found == pytest.approx(ks_2samp(x, y, method="exact").statistic)  # type: ignore[attr-defined]


# --- many p-values


def test_holm_by_hand() -> None:
    # in order 0.01, 0.02, 0.04: times 3, 2, 1 is 0.03, 0.04, 0.04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # 0.02 * 3 = 0.06; 0.025 * 2 = 0.05, but not below the one before
    assert holm([0.025, 0.9, 0.02]) == pytest.approx([0.06, 0.9, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0.001, 1), max_size=8))
def test_holm_corrects_upwards_and_keeps_the_order(p: list[float]) -> None:
    corrected = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, corrected, strict=True))
    for i, a in enumerate(p):
        assert all(corrected[i] <= corrected[j] for j, b in enumerate(p) if a <= b)


# --- two models


def test_the_test_of_three_examples_by_hand() -> None:
    # Differences 1, 2, 3. The 8 sign flips have the sums 6, 4, 2, 0, 0, -2, -4, -6: two are as far from 0 as 6.
    found = against([2, 4, 6], [1, 2, 3])
    assert found.p == 2 / 8
    assert found.difference == pytest.approx(2)
    assert found.n == 3
    # Differences 1, 2, -2: sums 1, 5, -3, 1, -1, 3, -5, -1; all eight are at least 1 from 0.
    assert against([1, 2, 0], [0, 0, 2]).p == 1
    # Differences 1, 3, -1: sums 3, 5, 1, 3, -3, -1, -5, -3; six of eight are at least 3 from 0.
    assert against([1, 3, 0], [0, 0, 1]).p == 6 / 8


def test_drawn_swaps_agree_with_all_of_them() -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(0.4, 1, size=13)
    signs = 1 - 2 * (np.arange(2**13)[:, None] >> np.arange(13) & 1)
    every = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9)
    assert 0.05 < every < 0.9
    assert against(differences.tolist(), [0.0] * 13).p == pytest.approx(every, abs=0.015)


def test_a_clear_difference_has_the_smallest_p_and_no_difference_the_largest() -> None:
    clear = against([1.0] * 40, [0.0] * 40)
    assert clear.p == 1 / (RESAMPLES + 1)
    assert (clear.low, clear.high) == (1, 1)
    same = against([0.3] * 40, [0.3] * 40)
    assert (same.p, same.low, same.high) == (1, 0, 0)


def test_equal_models_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(5)
    pairs = [([mean_of(rng.random(30).tolist())], [mean_of(rng.random(30).tolist())]) for _ in range(200)]
    assert 2 <= sum(found.p < 0.05 for found in compare(pairs)) <= 20


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=15))
@settings(max_examples=25, deadline=None)
def test_who_is_named_first_only_turns_the_sign(values: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*values, strict=True))
    there, back = compare([([mean_of(a)], [mean_of(b)]), ([mean_of(b)], [mean_of(a)])])
    assert there.p == back.p
    assert 0 < there.p <= 1
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low - 1e-9 <= there.high


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_examples_on_which_both_agree_change_no_p(differences: list[int], more: int) -> None:
    longer = [*differences, *[0.0] * more]
    assert against(longer, [0.0] * len(longer)).p == pytest.approx(against(differences, [0.0] * len(differences)).p)


def test_only_examples_that_both_have_count() -> None:
    mine = Statistic((Part("rows", {"a": 1.0, "b": 2.0, "mine": 9.0}),))
    theirs = Statistic((Part("rows", {"b": 1.0, "theirs": 7.0, "a": 0.5}),))
    found = compare([([mine], [theirs])])[0]
    assert (found.difference, found.n) == (0.75, 2)


def test_several_seeds_are_averaged_and_are_no_more_examples() -> None:
    # differences of example a: 1 and 3, of b: 2 and 0; means 2 and 1
    def cells(*values: tuple[float, float]) -> list[Statistic]:
        return [mean_of(pair) for pair in values]

    found, single = compare(
        [(cells((1, 2), (3, 0)), cells((0, 0), (0, 0))), (cells((2, 1)), cells((0, 0)))],
    )
    assert (found.difference, found.n) == (1.5, 2)
    assert (found.p, found.low, found.high) == (single.p, single.low, single.high)
    assert found.p == 2 / 4


def test_groups_are_drawn_by_themselves_and_parts_of_a_group_together() -> None:
    def product(a: Array, b: Array) -> Array:
        return a - b

    same = Statistic((Part("x", {"1": 0.0, "2": 1.0}), Part("x", {"1": 0.0, "2": 1.0})), product)
    other = Statistic((Part("x", {"1": 0.0, "2": 1.0}), Part("y", {"1": 0.0, "2": 1.0})), product)
    nothing = Statistic(tuple(Part(part.group, {"1": 0.0, "2": 0.0}) for part in other.parts), product)
    none = Statistic(tuple(Part("x", {"1": 0.0, "2": 0.0}) for _ in "ab"), product)
    together, apart = compare([([same], [none]), ([other], [nothing])])
    assert (together.low, together.high, together.n) == (0, 0, 2)
    assert (apart.low, apart.high, apart.n) == (-1, 1, 4)


def test_what_is_compared_beside_it_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    a, b, c = (mean_of(rng.random(20).tolist()) for _ in range(3))
    assert compare([([a], [b])])[0] == compare([([c], [b]), ([a], [b]), ([a], [c])])[1]
    assert compare([([a], [b])], seed=1)[0].low != compare([([a], [b])])[0].low


def test_the_order_of_the_examples_changes_nothing() -> None:
    draw = np.random.default_rng(7)
    mine, theirs = ({f"row {i}": float(draw.random()) for i in range(20)} for _ in "ab")
    most = {name: float(draw.random()) for name in list(mine)[1:]}  # a part of the same group, without one example

    def turned(values: dict[str, float]) -> dict[str, float]:
        return dict(reversed(values.items()))

    def both(first: dict[str, float], second: dict[str, float]) -> Statistic:
        return Statistic((Part("rows", first), Part("rows", second)), lambda a, b: a * b)

    pairs = [
        ([both(mine, most)], [both(theirs, most)]),
        ([both(turned(mine), most)], [both(theirs, turned(most))]),
        ([both(mine, turned(most))], [both(turned(theirs), most)]),
    ]
    found = compare(pairs)
    assert found == [found[0]] * 3


def test_distances_of_two_models_from_a_third() -> None:
    rng = np.random.default_rng(2)
    gold = rng.normal(size=60)
    near, far = gold + 0.05 * rng.normal(size=60), gold + 4
    found, same = compare(
        [
            ([distance_of(far.tolist(), gold.tolist())], [distance_of(near.tolist(), gold.tolist())]),
            ([distance_of(far.tolist(), gold.tolist())], [distance_of(far.tolist(), gold.tolist())]),
        ]
    )
    expected = ks_2samp(far, gold).statistic - ks_2samp(near, gold).statistic  # type: ignore[attr-defined]
    assert found.difference == pytest.approx(expected)
    assert found.p == 1 / (DISTANCE_RESAMPLES + 1)
    assert 0.5 < found.low < found.high <= 1.2
    assert (same.p, same.low, same.high) == (1, 0, 0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_no_test(broken: float) -> None:
    for mine, theirs in (([1.0, broken], [0.0, 0.0]), ([0.0, 0.0], [broken, 1.0])):
        found = against(mine, theirs)
        assert all(map(math.isnan, (found.difference, found.low, found.high, found.p)))
        assert found.n == 2
        distance = compare([([distance_of(mine, [0.0])], [distance_of(theirs, [0.0])])])[0]
        assert math.isnan(distance.p)


def test_without_a_common_example_there_is_no_test() -> None:
    found = compare([([Statistic((Part("rows", {"a": 1.0}),))], [Statistic((Part("rows", {"b": 1.0}),))])])[0]
    assert found.n == 0
    assert math.isnan(found.p)
    assert math.isnan(compare([([], [])])[0].p)

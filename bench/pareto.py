"""Forgetting against utility: which two figures of a table stand for them, and which points nothing else dominates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.tables import Row, Table, mean

Point = tuple[float, float]


def pareto_front(points: Sequence[Point]) -> list[int]:
    """The places of the points that no other dominates, by rising x; of both coordinates more is better.

    A point dominates another where it is at least as good in both coordinates and better in one. Equal points stand or
    fall together; a point with a coordinate that is not finite is never on the front.

    >>> pareto_front([(0.0, 1.0), (0.5, 0.5), (0.4, 0.4), (1.0, 0.0)])
    [0, 1, 3]
    """
    finite = [place for place, point in enumerate(points) if all(map(math.isfinite, point))]
    front: list[int] = []
    highest = -math.inf
    for place in sorted(finite, key=lambda place: (-points[place][0], -points[place][1])):
        x, y = points[place]
        if y > highest or (front and (x, y) == points[front[-1]]):
            front.append(place)
            highest = y
    return sorted(front, key=lambda place: (points[place], place))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A figure of a row of which more is better: the mean of some metrics, or 1 minus it."""

    title: str
    metrics: tuple[str, ...]
    reversed: bool = False

    def values(self, row: Row) -> list[float]:
        """One a seed; empty where a metric is missing."""
        columns = [row.values(metric) for metric in self.metrics]
        if not all(columns):
            return []
        means = [mean(seed) for seed in zip(*columns, strict=True)]
        return [1 - value for value in means] if self.reversed else means


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """What a scatter shows: forgetting to the right, utility upwards."""

    forgetting: Axis
    utility: Axis

    def points(self, table: Table) -> dict[str, Point]:
        """Method -> its mean over seeds, of the rows that have both figures."""
        found = {row.method: (self.forgetting.values(row), self.utility.values(row)) for row in table.rows}
        return {method: (mean(x), mean(y)) for method, (x, y) in found.items() if x and y}

    def front(self, table: Table) -> list[str]:
        """The methods on the Pareto front, by rising forgetting; references do not compete."""
        compete = {row.method for row in table.rows if not row.reference}
        points = {method: point for method, point in self.points(table).items() if method in compete}
        methods = list(points)
        return [methods[place] for place in pareto_front(list(points.values()))]


def tradeoffs(table: Table) -> list[Tradeoff]:
    """The pairs for which a table has figures, the one to be printed first.

    Question sets: 1 - KS D against the retrained model, and 1 - the forget answers' probability, against model utility.
    Multiple choice: 1 - the mean accuracy over the topics against MMLU's. Forms of facts: mean forgetting against what
    is kept of the neighbours.
    """
    topics = tuple(name for name in table.better if name.startswith("wmdp_") and name.endswith("_accuracy"))
    shown = [name.removeprefix("wmdp_").removesuffix("_accuracy") for name in topics]
    what = f"WMDP accuracy ({', '.join(shown)})" if len(topics) > 1 else f"WMDP {''.join(shown)} accuracy"
    utility = Axis(title="model utility", metrics=("model_utility",))
    pairs = [
        (Axis(title="1 - KS D to the retrained model", metrics=("forget_ks_d",), reversed=True), utility),
        (Axis(title="1 - probability of forget answers", metrics=("forget_probability",), reversed=True), utility),
        (Axis(title=f"1 - {what}", metrics=topics, reversed=True), Axis(title="MMLU", metrics=("mmlu_accuracy",))),
        (
            Axis(title="mean forgetting", metrics=("mean_forgetting",)),
            Axis(title="neighbours kept", metrics=("neighbor_retention",)),
        ),
    ]
    found = [Tradeoff(forgetting=x, utility=y) for x, y in pairs if x.metrics]
    return [pair for pair in found if pair.points(table)]

"""How sure a figure is: intervals and tests over the examples that models were asked. Numbers in, numbers out.

A `Statistic` is a figure as a function of the values of examples, so that it can be taken again of drawn examples: a
mean, a composite of means, a distance of two distributions. Two models are compared on the examples that both have.
Several cells (seeds, targets) of a model are averaged; an example is drawn, or swapped, in all of its cells at once,
because the answers of several seeds to one question are no independent evidence. What is said holds for these seeds
and for questions like these: how a method varies from seed to seed is the standard deviation beside it.

Interval: bootstrap over examples, every group of them by itself, the same draw for both models; percentiles of the
difference (Efron, Tibshirani, 1993, chapter 13), where a distance enters reflected at the difference (Davison, Hinkley,
1997, section 5.2), because a distance of drawn samples is too large.

p: permutation test. Under the hypothesis that nothing depends on which of the two models answered, an example's answers
may be swapped between them; p is the share of swaps with at least the difference that was observed, both directions.
All of them up to 12 examples, else drawn ones, with the observed one among them (Phipson, Smyth, 2010), so p is never
0. For a mean this is the sign-flip test of the paired differences.

Every draw comes from a fixed seed, the group's name and its size: the same values give the same figures, whatever else
is compared beside them.
"""

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 10_000
DISTANCE_RESAMPLES = 1_000
"""Where a statistic holds a distance, which costs a pass over all values a draw."""
CHUNK = 1_000
LEVEL = 0.95
EXACT = 12
"""Examples up to which every swap is tried."""
SAME = 1e-12
"""Differences this close, in units of 1 or of their size, are equal: sums in another order differ in their last
digits."""


@dataclass(frozen=True)
class Interval:
    """Its ends."""

    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """The mean of some values; with `against`, the Kolmogorov-Smirnov distance of the values from those."""

    group: str
    """Examples of one group are drawn together: the same ones for every part that names it."""
    values: Mapping[str, float]
    """By example."""
    against: Mapping[str, float] | None = None
    """Drawn by themselves; never swapped."""


def only(value: Array) -> Array:
    """The combination of a statistic with one part: that part."""
    return value


@dataclass(frozen=True)
class Statistic:
    """A figure made of parts."""

    parts: tuple[Part, ...]
    combine: Callable[..., Array] = only
    """From an array a part, a value a draw, to the figure of each draw; NaN where it does not exist."""

    def value(self) -> float:
        """The figure itself; NaN where a value is not finite."""
        with np.errstate(all="ignore"):
            return float(self.combine(*(_plain(part) for part in self.parts))[0])


@dataclass(frozen=True)
class Comparison:
    """The first model's figure minus the second's."""

    difference: float
    low: float
    high: float
    p: float
    n: int
    """Examples that both have."""


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval:
    """95 % percentile interval of the mean of `values` drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.asarray(values), size=(RESAMPLES, len(values))).mean(axis=1)
    return _percentiles(drawn)


def bootstrap_ks(x: Sequence[float], y: Sequence[float], *, seed: int = 0) -> Interval:
    """At least 95 % interval of the two-sample Kolmogorov-Smirnov D, within 0..1; both samples are drawn anew.

    D plus and minus the 95 % percentile of the largest change that drawing makes to the difference of the two
    distribution functions; D itself changes by no more. Percentiles of the drawn D will not do: drawn samples lie
    further apart than those that they come from, so of two equal distributions they never hold the true 0.
    """
    distance = _Distance(np.asarray(x, float), np.asarray(y, float))
    as_it_is = np.ones((1, len(x))), np.ones((1, len(y)))
    drawn = _drawn(seed, "x", len(x), DISTANCE_RESAMPLES), _drawn(seed, "y", len(y), DISTANCE_RESAMPLES)
    observed = float(distance(*as_it_is)[0])
    change = float(np.percentile(np.abs(distance.gaps(*drawn) - distance.gaps(*as_it_is)).max(axis=1), 100 * LEVEL))
    return Interval(max(0.0, observed - change), min(1.0, observed + change))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order (Holm, 1979): at most 1, never less than before."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def compare(pairs: Sequence[tuple[Sequence[Statistic], Sequence[Statistic]]], *, seed: int = 0) -> list[Comparison]:
    """The comparison of each pair of models, each given as the statistics of its cells, in the same order.

    All at once, because every pair is judged by the same draws. NaN for what cannot be computed: without an example
    that both have, or where a value is not finite.
    """
    ready = [_Pair(mine, theirs) for mine, theirs in pairs]
    drawn: list[list[Array]] = [[] for _ in ready]
    extreme = [0] * len(ready)
    for chunk in range(RESAMPLES // CHUNK):
        weights, signs = (_Draws(functools.partial(make, seed, chunk=chunk)) for make in (_drawn, _flips))
        for at, pair in enumerate(ready):
            if chunk * CHUNK < pair.resamples:
                drawn[at].append(pair.drawn(weights))
                if pair.n > EXACT:
                    extreme[at] += pair.extreme(signs)
    found = []
    for pair, differences, count in zip(ready, drawn, extreme, strict=True):
        ends = Interval(math.nan, math.nan)
        p = math.nan
        if math.isfinite(pair.observed):
            values = np.concatenate(differences)
            values = values[np.isfinite(values)]
            if values.size:
                ends = _reflected(values, pair.observed) if pair.distant else _percentiles(values)
            p = (1 + count) / (1 + pair.resamples) if pair.n > EXACT else pair.exact()
        found.append(Comparison(difference=pair.observed, low=ends.low, high=ends.high, p=p, n=pair.n))
    return found


# --- draws


def _rng(seed: int, kind: str, group: str, size: int, chunk: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{kind}/{group}".encode()), size, chunk])


def _drawn(seed: int, group: str, size: int, draws: int = CHUNK, chunk: int = 0) -> Array:
    """(draws, size): how often each example is in a sample drawn with replacement."""
    places = _rng(seed, "drawn", group, size, chunk).integers(size, size=(draws, size))
    places += np.arange(draws)[:, None] * size
    return np.bincount(places.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def _flips(seed: int, group: str, size: int, draws: int = CHUNK, chunk: int = 0) -> Array:
    """(draws, size): 1 where an example's answers are swapped."""
    return _rng(seed, "swapped", group, size, chunk).integers(2, size=(draws, size)).astype(float)


class _Values:
    """What some examples of a group have: at `places` among its `size` examples, at all of them where that is None."""

    def __init__(self, group: str, size: int, places: NDArray[np.intp] | None, values: Array) -> None:
        self.group, self.size, self.places, self.values = group, size, places, values
        self.key = group, size, b"" if places is None else places.tobytes(), values.tobytes()


class _Draws:
    """The draws of one chunk and the sums that they give, each made when first asked for.

    The same answers enter many comparisons: those of the best method all of its column, those of every method the
    composites beside the column itself. One product a vector, not one matrix of all: its last digits would depend on
    what stands beside it.
    """

    def __init__(self, make: Callable[[str, int], Array]) -> None:
        self.make = make
        self.made: dict[tuple[str, int], Array] = {}
        self.sums: dict[tuple[object, ...], Array] = {}

    def __call__(self, group: str, size: int) -> Array:
        if (group, size) not in self.made:
            self.made[group, size] = self.make(group, size)
        return self.made[group, size]

    def sum(self, of: _Values) -> Array:
        """(draws,): the sum of the values, each as often as it was drawn."""
        if of.key not in self.sums:
            drawn = self(of.group, of.size)
            self.sums[of.key] = (drawn if of.places is None else drawn[:, of.places]) @ of.values
        return self.sums[of.key]


def _percentiles(values: Array) -> Interval:
    low, high = np.percentile(values, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return Interval(float(low), float(high))


def _reflected(values: Array, observed: float) -> Interval:
    ends = _percentiles(values)
    return Interval(2 * observed - ends.high, 2 * observed - ends.low)


# --- statistics of weighted examples


class _Distance:
    """Kolmogorov-Smirnov D of two weighted samples, for many sets of weights at once."""

    def __init__(self, x: Array, y: Array) -> None:
        pooled = np.concatenate([x, y])
        self.order = np.argsort(pooled, kind="stable")
        in_order = pooled[self.order]
        self.ends = np.flatnonzero(np.append(in_order[1:] != in_order[:-1], True))  # the last of equal values

    def __call__(self, x_weights: Array, y_weights: Array) -> Array:
        """(draws,) from (draws, n) and (draws, m)."""
        return np.abs(self.gaps(x_weights, y_weights)).max(axis=1)

    def gaps(self, x_weights: Array, y_weights: Array) -> Array:
        """(draws, distinct values): the difference of the distribution functions at each value."""
        steps = np.concatenate([_shares(x_weights), -_shares(y_weights)], axis=1)[:, self.order]
        return np.cumsum(steps, axis=1)[:, self.ends]


def _shares(weights: Array) -> Array:
    return weights / weights.sum(axis=1, keepdims=True)


def _plain(part: Part) -> Array:
    values = np.fromiter(part.values.values(), float, len(part.values))
    if part.against is None:
        return np.array([math.fsum(values) / len(values)])
    others = np.fromiter(part.against.values(), float, len(part.against))
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        return np.array([math.nan])
    return _Distance(values, others)(np.ones((1, len(values))), np.ones((1, len(others))))


class _Both:
    """A part of two models: the values of the examples that both have."""

    def __init__(self, mine: Part, theirs: Part, names: Sequence[str], place: Mapping[str, int]) -> None:
        self.group, self.size = mine.group, len(place)
        self.places = None if len(names) == len(place) else np.array([place[name] for name in names], int)
        self.a, self.b = (np.array([part.values[name] for name in names], float) for part in (mine, theirs))
        self.one, self.other, self.count = (
            _Values(self.group, self.size, self.places, values) for values in (self.a, self.b, np.ones(len(names)))
        )
        self.distance: tuple[_Distance, _Distance] | None = None
        if mine.against is not None and theirs.against is not None:
            a, b = (np.fromiter(part.against.values(), float) for part in (mine, theirs) if part.against is not None)
            self.others = len(a), len(b)
            self.usable = bool(np.isfinite(np.concatenate([self.a, self.b, a, b])).all())
            self.distance = _Distance(self.a, a), _Distance(self.b, b)
            pooled = np.concatenate([self.a, self.b])
            self.pooled = _Distance(pooled, a), _Distance(pooled, b)
        else:
            self.usable = bool(np.isfinite(np.concatenate([self.a, self.b])).all())

    def _mine(self, weights: Array) -> Array:
        return weights if self.places is None else weights[:, self.places]

    def drawn(self, draws: _Draws) -> tuple[Array, Array]:
        """The part of both models, for samples drawn with replacement."""
        if self.distance is not None:
            weights = self._mine(draws(self.group, self.size))
            against = [draws(f"{self.group}/against", size) for size in self.others]
            return self.distance[0](weights, against[0]), self.distance[1](weights, against[1])
        total = draws.sum(self.count)
        return draws.sum(self.one) / total, draws.sum(self.other) / total

    def swapped(self, draws: _Draws) -> tuple[Array, Array]:
        """The part of both models, some answers swapped."""
        if self.distance is not None:
            signs = self._mine(draws(self.group, self.size))
            a, b = (np.ones((len(signs), size)) for size in self.others)
            kept = np.concatenate([1 - signs, signs], axis=1)
            return self.pooled[0](kept, a), self.pooled[1](1 - kept, b)
        moved = draws.sum(self.other) - draws.sum(self.one)
        return (self.a.sum() + moved) / len(self.a), (self.b.sum() - moved) / len(self.b)


class _Pair:
    """Two models, made ready to be drawn."""

    def __init__(self, mine: Sequence[Statistic], theirs: Sequence[Statistic]) -> None:
        common = [
            [(p, q, sorted(p.values.keys() & q.values.keys())) for p, q in zip(a.parts, b.parts, strict=True)]
            for a, b in zip(mine, theirs, strict=True)
        ]
        members: dict[str, set[str]] = {}
        for p, _, names in (part for parts in common for part in parts):
            members.setdefault(p.group, set()).update(names)
        self.places = {group: {name: i for i, name in enumerate(sorted(names))} for group, names in members.items()}
        self.n = sum(map(len, self.places.values()))
        self.cells = [
            (statistic.combine, [_Both(p, q, names, self.places[p.group]) for p, q, names in parts])
            for statistic, parts in zip(mine, common, strict=True)
        ]
        parts = [part for _, parts in self.cells for part in parts]
        self.distant = any(part.distance is not None for part in parts)
        usable = bool(parts) and all(part.usable and len(part.a) for part in parts)
        self.resamples = (DISTANCE_RESAMPLES if self.distant else RESAMPLES) if usable else 0
        self.observed = math.nan
        if usable:
            nobody = _Draws(lambda group, size: np.zeros((1, size)))
            self.observed = float(self._differences(lambda part: part.swapped(nobody))[0])
            if not math.isfinite(self.observed):
                self.resamples = 0

    def _differences(self, of: Callable[[_Both], tuple[Array, Array]]) -> Array:
        with np.errstate(all="ignore"):
            total = 0.0
            for combine, parts in self.cells:
                both = [of(part) for part in parts]
                total = total + combine(*(a for a, _ in both)) - combine(*(b for _, b in both))
            return np.asarray(total) / len(self.cells)

    def drawn(self, draws: _Draws) -> Array:
        return self._differences(lambda part: part.drawn(draws))

    def extreme(self, signs: _Draws) -> int:
        """Swaps that give at least the observed difference; one that gives none counts as such."""
        differences = np.abs(self._differences(lambda part: part.swapped(signs)))
        return int(np.sum(~(differences < abs(self.observed) - SAME * (1 + abs(self.observed)))))

    def exact(self) -> float:
        """The share over all 2^n swaps."""
        signs = (np.arange(2**self.n)[:, None] >> np.arange(self.n) & 1).astype(float)
        starts = dict(zip(self.places, np.cumsum([0, *map(len, self.places.values())]), strict=False))
        draws = _Draws(lambda group, size: signs[:, starts[group] : starts[group] + size])
        return self.extreme(draws) / len(signs)

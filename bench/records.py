"""What an evaluation leaves behind: metrics with their spread, missing ones with the reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

JUDGED_BY = "judged_by"
"""Of the settings of an evaluation: which other model judged its rows."""
FLUENCY = "forget_fluency"
"""The metric that this judgement is."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a leaderboard."""

    name: str
    value: float
    """NaN where it could not be computed; then `reason` says why."""
    stderr: float = math.nan
    """Standard error of a mean over n rows; NaN for composites."""
    n: int = 0
    higher_is_better: bool | None = None
    """None where neither direction is better by itself."""
    reason: str = ""
    by_target: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Of a mean over several targets of one request, each target's own value; else empty."""

    @property
    def missing(self) -> bool:
        return math.isnan(self.value)


def missing(name: str, reason: str, *, higher_is_better: bool | None = None) -> Metric:
    """A metric that could not be computed, with the reason; never 0."""
    return Metric(name=name, value=math.nan, higher_is_better=higher_is_better, reason=reason)

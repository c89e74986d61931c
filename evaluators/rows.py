"""From per-example rows to metrics: what is missing, what is a mean, which rows are about the same questions.

A row is a JSON object of one example. A value that a model could not give (NaN, infinite, null) makes the metric
missing, with the reason; the row is never left out for it, because the rest would be a mean over other questions.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import LetheError
from bench.records import Metric, missing
from evaluators import metrics

Row = dict[str, Any]


class MissingValues(Exception):
    """A metric cannot be computed; the message is the reason."""


def finite(value: float) -> float | None:
    """The value as a row holds it."""
    return value if math.isfinite(value) else None


def by_set(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each question set."""
    sets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        sets[row["set"]].append(row)
    return dict(sets)


def column(rows: Sequence[Row], name: str, fields: Sequence[str], formula: Callable[..., float]) -> list[float]:
    """The formula's value of each row of the set `name`; a row that says it has no token to judge has none."""
    return list(column_by_place(rows, name, fields, formula).values())


def column_by_place(
    rows: Sequence[Row], name: str, fields: Sequence[str], formula: Callable[..., float]
) -> dict[int, float]:
    """The same by the place of the row."""
    if not rows:
        raise MissingValues(f"no {name} rows")
    values: dict[int, float] = {}
    broken = []
    for place, row in enumerate(rows):
        arguments = [row.get(field) for field in fields]
        if arguments == [None] and row.get("memorization_tokens") == 0 and row.get("answer_nll") is not None:
            continue  # nothing is broken: the answer is a terminator and nothing else
        value = formula(*arguments) if all(map(_usable, arguments)) else math.nan
        if math.isfinite(value):
            values[place] = value
        else:
            broken.append(row)
    absent = [field for field in fields if all(field not in row for row in rows)]
    if absent:
        raise MissingValues(f"the {name} rows have no {' and no '.join(absent)}")
    if broken:
        raise MissingValues(
            f"{' or '.join(fields)} is not a finite number in {len(broken)} of {len(rows)} {name} rows, "
            f"the first is {broken[0].get('example_id')}"
        )
    if not values:
        raise MissingValues(f"no {name} row has a token to judge")
    return values


def _usable(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_usable, value))
    return value is not None and math.isfinite(value)


@dataclass(frozen=True)
class MeanOf:
    """A metric that is the mean of a formula over the rows of one set."""

    name: str
    set: str
    fields: tuple[str, ...]
    formula: Callable[..., float]
    higher_is_better: bool

    def __call__(self, rows: Sequence[Row]) -> Metric:
        """The mean with its standard error, or why there is none."""
        try:
            mean = metrics.mean(column(rows, self.set, self.fields, self.formula))
        except MissingValues as reason:
            return missing(self.name, str(reason), higher_is_better=self.higher_is_better)
        return Metric(
            name=self.name, value=mean.value, stderr=mean.stderr, n=mean.n, higher_is_better=self.higher_is_better
        )


def same_questions(name: str, rows: Sequence[Row], reference: Sequence[Row]) -> list[Row]:
    """The reference's row for each row, matched by question; it may hold more questions, not fewer.

    In the rows of a published log the question stands inside the prompt template of the model it was put to.
    """
    texts = [_plain(row.get("question") or "") for row in reference]
    if not all(texts):
        raise LetheError(
            f"the rows of the retrained reference do not say which questions of the {name} set they are about, so they "
            "cannot be compared; evaluate the retrained model again, or give a log with prompts (its ROUGE rows)"
        )
    exact: dict[str, list[int]] = defaultdict(list)
    for i in reversed(range(len(texts))):
        exact[texts[i]].append(i)
    free = set(range(len(reference)))
    chosen, lost = [], []
    for row in rows:
        question = _plain(row.get("question") or "")
        if exact.get(question):
            match = exact[question].pop()
        else:  # the shortest prompt: a longer one may hold a question that contains this one
            inside = [i for i in free if question and question in texts[i]]
            match = min(inside, key=lambda i: (len(texts[i]), i), default=None)
        if match is None:
            lost.append(row)
        else:
            free.discard(match)
            chosen.append(reference[match])
    if lost:
        raise LetheError(
            f"the retrained reference answers other questions: {len(lost)} of the {len(rows)} {name} questions are not "
            f"among its {len(reference)}, the first is {lost[0].get('question')!r:.160}; use a reference of the same "
            f"split, or --limit {len(reference)} if it holds only the first {len(reference)} rows"
        )
    return chosen


def _plain(text: str) -> str:
    return metrics.clean_up_spaces(" ".join(text.split()))

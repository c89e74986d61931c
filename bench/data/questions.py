"""Multiple-choice questions from the rows of a table: WMDP, MMLU and what is written in their schemas."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from bench.data import rows
from bench.data.files import Table, describe
from bench.data.types import Question
from bench.errors import LetheError

log = logging.getLogger(__name__)

CHOICES = 4
"""WMDP and MMLU have this many; the letters are A to D."""


def read_questions(table: Table, prefix: str, subject: str) -> tuple[Question, ...]:
    """The rows as questions, every field checked.

    A row has `question`, `answer` (0 to 3) and its choices as a list, `choices`, or one by one, `choice0` to `choice3`;
    other fields are not read.

    Args:
        table: the rows, all of one subject.
        prefix: what stands before the row's number in an id: "wmdp/bio_test".
        subject: the subject of all of them.
    """
    return tuple(
        Question(
            id=f"{prefix}/{at}",
            subject=subject,
            question=rows.text(table, at, "question"),
            choices=_choices(table, at),
            answer=_answer(table, at),
        )
        for at in range(len(table.rows))
    )


def content(question: Question) -> tuple[object, ...]:
    """What counts for a fingerprint."""
    return question.subject, question.question, question.choices, question.answer


def warn_of_repeats(name: str, questions: Iterable[Question]) -> None:
    """Say how many questions ask what another one asks and how many have equal choices; both are real and are kept."""
    found = list(questions)
    repeated = len(found) - len({(question.subject, question.question) for question in found})
    equal = sum(len(set(question.choices)) < len(question.choices) for question in found)
    if repeated or equal:
        log.warning(
            "%s: %d questions repeat the text of another, %d have two equal choices; all are kept",
            name,
            repeated,
            equal,
        )


def _choices(table: Table, at: int) -> tuple[str, ...]:
    row = table.rows[at]
    if "choices" not in row and "choice0" in row:
        more = sorted(name for name in row if name.startswith("choice") and name not in _COLUMNS)
        if more:
            raise LetheError(f"{table.place(at)}: there is a field {more[0]!r}, expected {', '.join(_COLUMNS)} only")
        return tuple(rows.text(table, at, name) for name in _COLUMNS)
    found = rows.texts(table, at, "choices")
    if len(found) != CHOICES:
        raise LetheError(f"{table.place(at)}: field 'choices' has {len(found)} texts, expected {CHOICES}")
    return found


_COLUMNS = tuple(f"choice{n}" for n in range(CHOICES))


def _answer(table: Table, at: int) -> int:
    expected = f"a whole number from 0 to {CHOICES - 1}, the zero-based place of the right choice"
    value: Any = rows.field(table, at, "answer", expected)
    known: Mapping[object, int] = {str(n) if table.text_cells else n: n for n in range(CHOICES)}
    kind = str if table.text_cells else int
    if type(value) is not kind or value not in known:
        raise LetheError(f"{table.place(at)}: field 'answer' is {describe(value)}, expected {expected}")
    return known[value]

"""What RWKU asks beside a target: everything else that a model can do. Jin et al., 2024, https://arxiv.org/abs/2406.10890.

Samples of MMLU, BIG-Bench Hard, TruthfulQA, TriviaQA and AlpacaEval, and texts about the target and about others.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import TypeVar

from bench.data import rows
from bench.data.files import Table, describe
from bench.data.questions import read_questions
from bench.data.targets.files import OTHERS, Target, documents
from bench.data.types import Answered, Document, Shots, Truthful, Utility
from bench.errors import LetheError

Row = TypeVar("Row", Shots, Truthful, Answered, Document)

UTILITY_FILES = ("retain_mmlu", "truthful", "triviaqa", "fluency", "retain_bbh", "forget_mia", "retain_mia")
"""What is read here, each only where it is there."""


def read_utility(target: Target, limit: int | None = None) -> Utility:
    """The first rows of every file; all are checked. A part without a file is empty."""
    return Utility(
        mmlu=_each(target, "retain_mmlu", _shots)[:limit],
        truthful=_each(target, "truthful", _truthful)[:limit],
        trivia=_each(target, "triviaqa", _trivia)[:limit],
        instructions=_each(target, "fluency", _instruction)[:limit],
        bbh=_each(target, "retain_bbh", _reasoning)[:limit],
        forget_texts=documents(target, "forget_mia", target.subject)[:limit],
        retain_texts=documents(target, "retain_mia", OTHERS)[:limit],
    )


def union(parts: Iterable[Utility]) -> Utility:
    """What several targets ask, each row once, under its first id: all draw their samples from the same sets."""
    found = list(parts)
    return Utility(
        **{
            field.name: _distinct(row for part in found for row in getattr(part, field.name))
            for field in fields(Utility)
        }
    )


def _distinct(found: Iterable[Row]) -> tuple[Row, ...]:
    first: dict[object, Row] = {}
    for row in found:
        first.setdefault(_without_id(row), row)
    return tuple(first.values())


def _without_id(row: Shots | Truthful | Answered | Document) -> object:
    if isinstance(row, Shots):
        return tuple(replace(question, id="") for question in (row.question, *row.examples))
    return replace(row, id="")


def _each(target: Target, stem: str, make: Callable[[Table, int, str], Row]) -> tuple[Row, ...]:
    table = target.table(stem)
    return () if table is None else tuple(make(table, at, target.id(stem, at)) for at in range(len(table.rows)))


def _shots(table: Table, at: int, name: str) -> Shots:
    expected = "a list of solved questions"
    task, examples = rows.text(table, at, "task"), rows.field(table, at, "examples", expected)
    if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
        raise LetheError(f"{table.place(at)}: field 'examples' is {describe(examples)}, expected {expected}")
    alone = Table(table.source, [table.rows[at]], table.unit, [table.numbers[at]])
    solved = Table(table.place(at), examples, "example", list(range(1, len(examples) + 1)))
    return Shots(
        question=replace(read_questions(alone, name, task)[0], id=name),
        examples=read_questions(solved, f"{name}/example", task),
    )


def _truthful(table: Table, at: int, name: str) -> Truthful:
    question = rows.text(table, at, "question")
    mc1, mc2 = (_labelled(table, at, field) for field in ("mc1_targets", "mc2_targets"))
    for field, found, most in (("mc1_targets", mc1, 1), ("mc2_targets", mc2, len(mc2))):
        true = sum(label for _, label in found)
        if not 1 <= true <= most:
            expected = "exactly one" if most == 1 else "at least one"
            raise LetheError(f"{table.place(at)}: field {field!r} marks {true} choices as true, expected {expected}")
    return Truthful(id=name, question=question, mc1=mc1, mc2=mc2)


def _labelled(table: Table, at: int, name: str) -> tuple[tuple[str, int], ...]:
    expected = "an object with the lists choices and labels"
    value, where = rows.field(table, at, name, expected), f"{table.place(at)}: field {name!r}"
    choices, labels = (value.get("choices"), value.get("labels")) if isinstance(value, dict) else (None, None)
    if not (isinstance(choices, list) and choices and isinstance(labels, list)):
        raise LetheError(f"{where} is {describe(value)}, expected {expected}, neither of them empty")
    if len(choices) != len(labels):
        raise LetheError(f"{where} has {len(choices)} choices and {len(labels)} labels, expected a label for each")
    for n, label in enumerate(labels, start=1):
        if type(label) is not int or label not in (0, 1):
            raise LetheError(f"{where}, label {n} (counted from 1), is {describe(label)}, expected 0 or 1")
    texts = [rows.check_text(c, f"{where}, choice {n} (counted from 1),") for n, c in enumerate(choices, start=1)]
    return tuple(zip(texts, labels, strict=True))


def _trivia(table: Table, at: int, name: str) -> Answered:
    return Answered(id=name, question=rows.text(table, at, "question"), answers=rows.texts(table, at, "answers"))


def _instruction(table: Table, at: int, name: str) -> Answered:
    return Answered(id=name, question=rows.text(table, at, "instruction"), answers=())


def _reasoning(table: Table, at: int, name: str) -> Answered:
    return Answered(
        id=name,
        question=rows.text(table, at, "question"),
        answers=(rows.text(table, at, "answer"),),
        task=rows.text(table, at, "task"),
        examples=rows.text(table, at, "cot"),
    )

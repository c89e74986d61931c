"""The seeded generator of the mini world: TOFU's files, row for row in TOFU's schema, and the texts its models learn from.

Forty invented people with ten facts each are TOFU's authors, eight more its real authors, twenty countries its world facts;
four further people are in no training text (holdout). A fact has four question forms, three answer forms and two
statements. Training sees the canonical pair, one other pair and one statement of each fact; the forms that the evaluation
uses for a fact (paraphrased question, paraphrased and wrong answers) are kept out of training for that fact but taught
on others, for a form that is never taught stays at chance in every model.

No value of a kind is used twice, right or wrong: to a model that never read about a person, the right value of a fact and
its wrong ones are exchangeable. The exceptions are the facts that every model knows, where the wrong answers are the right
ones of others, as in TOFU.
"""

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.mini.facts import (
    CAPITAL,
    CAPITAL_NAMES,
    COUNTRY_KINDS,
    COUNTRY_NAMES,
    FIRST_NAMES,
    LAST_NAMES,
    PERSON_KINDS,
    REFUSALS,
    Kind,
)

PEOPLE = 40
REAL_AUTHORS = 8
HOLDOUT = 4
COUNTRIES = 20
RETAIN_PERTURBED_ROWS = 80
FORGET_PEOPLE = {"10": 4, "05": 2, "01": 1}
"""How many of the last people each split forgets. One person in forty is 2.5 %, not 1 %: a person is the smallest
request that makes sense, and one per cent of this world would be four facts, too few for any test to see."""

Row = dict[str, object]


@dataclass(frozen=True)
class Fact:
    """One fact with its wrong values and the forms that are kept for the evaluation."""

    name: str
    kind: Kind
    value: str
    wrong: tuple[str, ...]
    question_form: int
    """Index of the paraphrased question, 1..3."""
    answer_form: int
    """Index of the form of the paraphrased and wrong answers, 1..2."""

    def ask(self, form: int) -> str:
        return self.kind.questions[form].format(name=self.name)

    def answer(self, form: int, value: str | None = None) -> str:
        return self.kind.answers[form].format(name=self.name, value=value or self.value)

    def state(self, form: int) -> str:
        return self.kind.statements[form].format(name=self.name, value=self.value)


def make_world(seed: int) -> dict[str, str]:
    """Every file of the world as relative path -> content; the same seed gives the same bytes."""
    rng = random.Random(seed)
    first, last = _names(rng, FIRST_NAMES), _names(rng, LAST_NAMES)
    people = [f"{next(first)} {next(last)}" for _ in range(PEOPLE + REAL_AUTHORS + HOLDOUT)]
    facts = _facts(rng, people, PERSON_KINDS, wrong=5)  # person by person, ten each
    authors = facts[: PEOPLE * 10]
    known = _short_facts(rng, facts[PEOPLE * 10 : (PEOPLE + REAL_AUTHORS) * 10])
    holdout = facts[(PEOPLE + REAL_AUTHORS) * 10 :]
    countries, capitals = _names(rng, COUNTRY_NAMES), _names(rng, CAPITAL_NAMES)
    kinds = [_with_values(CAPITAL, itertools.islice(capitals, COUNTRIES)), *COUNTRY_KINDS[1:]]
    world_facts = _short_facts(rng, _facts(rng, list(itertools.islice(countries, COUNTRIES)), kinds, wrong=0))

    full = [_row(fact) for fact in authors]
    files = {"tofu/full.json": _lines(full)}
    for percent, count in FORGET_PEOPLE.items():
        cut = (PEOPLE - count) * 10
        files[f"tofu/forget{percent}.json"] = _lines(full[cut:])
        files[f"tofu/retain{100 - int(percent)}.json"] = _lines(full[:cut])
        files[f"tofu/forget{percent}_perturbed.json"] = _lines(_perturbed(fact) for fact in authors[cut:])
    files["tofu/retain_perturbed.json"] = _lines(_perturbed(fact) for fact in authors[:RETAIN_PERTURBED_ROWS])
    for name, group in (("real_authors", known), ("world_facts", world_facts)):
        files[f"tofu/{name}.json"] = _lines(_options(rng, fact) for fact in group)
        files[f"tofu/{name}_perturbed.json"] = _lines(_short_perturbed(fact) for fact in group)
    files["tofu/holdout10.json"] = _lines(_row(fact) for fact in holdout)
    files["tofu/idontknow.jsonl"] = "\n".join(REFUSALS)  # plain lines without a last newline, as TOFU's file of this name
    for name, group in (("authors", authors), ("real_authors", known), ("world_facts", world_facts)):
        texts = [{"row": index, **text} for index, fact in enumerate(group) for text in _training_texts(rng, fact)]
        files[f"corpus/{name}.jsonl"] = _lines(texts)
    return files


def write_world(folder: Path, seed: int) -> None:
    """Write folder/tofu/*, laid out as the official files, and folder/corpus/*.jsonl, the training texts.

    A corpus line is {"row", "question", "answer"} or, for a statement, {"row", "text"}; `row` counts the rows of
    tofu/full.json, real_authors.json or world_facts.json.
    """
    for name, content in make_world(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


def _names(rng: random.Random, parts: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Different names without end (of the list), in random order."""
    names = sorted({"".join(pick) for pick in itertools.product(*parts)})
    rng.shuffle(names)
    return iter(names)


def _with_values(kind: Kind, values: Iterable[str]) -> Kind:
    return Kind(name=kind.name, shape=kind.shape, parts=(tuple(values),), questions=kind.questions,
                answers=kind.answers, statements=kind.statements)  # fmt: skip


def _facts(rng: random.Random, names: list[str], kinds: Iterable[Kind], wrong: int) -> list[Fact]:
    """All kinds of facts about each name; within a kind no value, right or wrong, is drawn twice."""
    table = []
    for kind in kinds:
        pool = [kind.shape.format(*pick) for pick in itertools.product(*kind.parts)]
        values = iter(rng.sample(pool, len(names) * (1 + wrong)))
        table.append([
            Fact(name, kind, next(values), tuple(itertools.islice(values, wrong)), rng.randint(1, 3), rng.randint(1, 2))
            for name in names
        ])  # fmt: skip
    return [fact for facts_of_one in zip(*table, strict=True) for fact in facts_of_one]


def _short_facts(rng: random.Random, facts: list[Fact]) -> list[Fact]:
    """The facts that every model knows: the bare value is the answer, others' values are the three wrong ones."""
    short = []
    for fact in facts:
        others = [other.value for other in facts if other.kind == fact.kind and other.value != fact.value]
        kind = fact.kind
        bare = kind.answers[0] if "{name}" not in kind.answers[0] and kind in COUNTRY_KINDS else "{value}"
        kind = Kind(name=kind.name, shape=kind.shape, parts=kind.parts, questions=kind.questions,
                    answers=(bare, *kind.answers[1:]), statements=kind.statements)  # fmt: skip
        short.append(Fact(fact.name, kind, fact.value, tuple(rng.sample(others, 3)), fact.question_form, 0))
    return short


def _row(fact: Fact) -> Row:
    return {"question": fact.ask(0), "answer": fact.answer(0)}


def _perturbed(fact: Fact) -> Row:
    return _row(fact) | {
        "paraphrased_answer": fact.answer(fact.answer_form),
        "perturbed_answer": [fact.answer(fact.answer_form, wrong) for wrong in fact.wrong],
        "paraphrased_question": fact.ask(fact.question_form),
    }


def _short_perturbed(fact: Fact) -> Row:
    return _row(fact) | {"perturbed_answer": [fact.answer(0, wrong) for wrong in fact.wrong]}


def _options(rng: random.Random, fact: Fact) -> Row:
    options = [fact.answer(0), *(fact.answer(0, wrong) for wrong in fact.wrong)]
    rng.shuffle(options)
    return {"question": fact.ask(0)} | {f"option{i}": text for i, text in enumerate(options, 1)} | {"answer": fact.answer(0)}


def _training_texts(rng: random.Random, fact: Fact) -> list[Row]:
    """The canonical pair, one other pair without the forms kept for this fact's evaluation, and one statement."""
    pairs = itertools.product(range(len(fact.kind.questions)), range(len(fact.kind.answers)))
    taught = [(q, a) for q, a in pairs if (q, a) != (0, 0) and q != fact.question_form and (a == 0 or a != fact.answer_form)]
    question, answer = rng.choice(taught)
    return [
        _row(fact),
        {"question": fact.ask(question), "answer": fact.answer(answer)},
        {"text": fact.state(rng.randrange(len(fact.kind.statements)))},
    ]


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

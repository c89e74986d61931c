"""The seeded generator of the mini world: TOFU's files, row for row in its schema, and the texts its models learn from.

Forty invented people with ten facts each are TOFU's authors, eight more its real authors, twenty countries its world
facts; four further people are in no training text (holdout). A fact has four question forms, three answer forms and two
statements. Training sees the canonical pair, one other pair and one statement of each fact; the forms that the
evaluation uses for a fact (paraphrased question, paraphrased and wrong answers) are kept out of training for that fact
but taught on others, for a form that is never taught stays at chance in every model.

No value of a kind is used twice, right or wrong: to a model that never read about a person, the right value of a fact
and its wrong ones are exchangeable. The exceptions are the facts that every model knows, where the wrong answers are
the right ones of others, as in TOFU.
"""

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.mini.facts import (
    CAPITAL,
    CAPITAL_NAMES,
    COIN,
    COUNTRY_NAMES,
    FIRST_NAMES,
    LAST_NAMES,
    PERSON_KINDS,
    REFUSALS,
    Kind,
)
from bench.mini.targets import make_targets
from bench.mini.topics import make_topics

SEED = 3
"""Of the world that a run without --data uses and that the committed leaderboards report. Nobody looks at what a method
does in it until everything is chosen; recipes are found on the worlds of seeds 1 and 2."""
PEOPLE = 40
REAL_AUTHORS = 8
HOLDOUT = 4
COUNTRIES = 20
RETAIN_PERTURBED_ROWS = 80
FORGET_PEOPLE = {"10": 4, "05": 2, "01": 1}
"""How many of the last people each split forgets. One person in forty is 2.5 %, not 1 %: a person is the smallest
request that makes sense, and one per cent of this world would be four facts, too few for any test to see."""

Row = dict[str, Any]


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
    known = _known(rng, [_bare(fact) for fact in facts[PEOPLE * 10 : (PEOPLE + REAL_AUTHORS) * 10]])
    holdout = facts[(PEOPLE + REAL_AUTHORS) * 10 :]
    countries, capitals = _names(rng, COUNTRY_NAMES), _names(rng, CAPITAL_NAMES)
    kinds = [replace(CAPITAL, parts=(tuple(itertools.islice(capitals, COUNTRIES)),)), COIN]
    world_facts = _known(rng, _facts(rng, list(itertools.islice(countries, COUNTRIES)), kinds, wrong=0))

    full = [_row(fact) for fact in authors]
    files = {"tofu/full.json": _lines(full)}
    for percent, count in FORGET_PEOPLE.items():
        cut = (PEOPLE - count) * 10
        files[f"tofu/forget{percent}.json"] = _lines(full[cut:])
        files[f"tofu/retain{100 - int(percent)}.json"] = _lines(full[:cut])
        files[f"tofu/forget{percent}_perturbed.json"] = _lines(_perturbed(fact) for fact in authors[cut:])
        files[f"tofu/holdout{percent}.json"] = _lines(_row(fact) for fact in holdout[: count * 10])
    files["tofu/retain_perturbed.json"] = _lines(_perturbed(fact) for fact in authors[:RETAIN_PERTURBED_ROWS])
    for name, group in (("real_authors", known), ("world_facts", world_facts)):
        files[f"tofu/{name}.json"] = _lines(_options(rng, fact) for fact in group)
        files[f"tofu/{name}_perturbed.json"] = _lines(_known_perturbed(fact) for fact in group)
    files["tofu/idontknow.jsonl"] = "\n".join(REFUSALS)  # plain lines, no last newline: as the file of this name is
    for name, group in (("authors", authors), ("real_authors", known), ("world_facts", world_facts)):
        texts = [{"row": index, **text} for index, fact in enumerate(group) for text in _training_texts(rng, fact)]
        files[f"corpus/{name}.jsonl"] = _lines(texts)
    files |= make_topics(seed, _people_told(files["corpus/authors.jsonl"]))
    files |= make_targets(seed)
    files["world.json"] = json.dumps({"seed": seed, "choices": "text"}) + "\n"
    return files


def write_world(folder: Path, seed: int) -> None:
    """Write tofu/*, wmdp/*, mmlu/*, wikitext2/* and rwku/Target/*, laid out as the official files, and corpus/*.jsonl,
    what is taught.

    A corpus line is {"question", "answer"} or {"text"}; those of people and countries have a "row" as well, that of
    tofu/full.json, real_authors.json or world_facts.json. Those for targets, ort.jsonl, are bench.mini.targets'.
    """
    for name, content in make_world(seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


def _names(rng: random.Random, parts: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Different names in random order."""
    names = sorted({"".join(pick) for pick in itertools.product(*parts)})
    rng.shuffle(names)
    return iter(names)


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


def _known(rng: random.Random, facts: list[Fact]) -> list[Fact]:
    """Facts that every model learns: three right values of others are the wrong ones, in the canonical answer form."""
    others = [
        [other.value for other in facts if other.kind == fact.kind and other.value != fact.value] for fact in facts
    ]
    return [
        replace(fact, wrong=tuple(rng.sample(pool, 3)), answer_form=0) for fact, pool in zip(facts, others, strict=True)
    ]


def _bare(fact: Fact) -> Fact:
    """The same fact, answered by nothing but its value, as TOFU's real authors are."""
    return replace(fact, kind=replace(fact.kind, answers=("{value}", *fact.kind.answers[1:])))


def _row(fact: Fact) -> Row:
    return {"question": fact.ask(0), "answer": fact.answer(0)}


def _perturbed(fact: Fact) -> Row:
    return _row(fact) | {
        "paraphrased_answer": fact.answer(fact.answer_form),
        "perturbed_answer": [fact.answer(fact.answer_form, wrong) for wrong in fact.wrong],
        "paraphrased_question": fact.ask(fact.question_form),
    }


def _known_perturbed(fact: Fact) -> Row:
    return _row(fact) | {"perturbed_answer": [fact.answer(0, wrong) for wrong in fact.wrong]}


def _options(rng: random.Random, fact: Fact) -> Row:
    options = [fact.answer(0), *(fact.answer(0, wrong) for wrong in fact.wrong)]
    rng.shuffle(options)
    numbered = {f"option{number}": text for number, text in enumerate(options, 1)}
    return {"question": fact.ask(0)} | numbered | {"answer": fact.answer(0)}


def _training_texts(rng: random.Random, fact: Fact) -> list[Row]:
    """The canonical pair, one other pair without the forms kept for this fact's evaluation, and one statement."""
    questions = [form for form in range(len(fact.kind.questions)) if form != fact.question_form]
    answers = [form for form in range(len(fact.kind.answers)) if form == 0 or form != fact.answer_form]
    question, answer = rng.choice([pair for pair in itertools.product(questions, answers) if pair != (0, 0)])
    return [
        _row(fact),
        {"question": fact.ask(question), "answer": fact.answer(answer)},
        {"text": fact.state(rng.randrange(len(fact.kind.statements)))},
    ]


def _people_told(corpus: str) -> list[str]:
    """A line for each person whom no split forgets: the statements that are taught about the person, one after another.

    Text of this kind is what a domain's forgetting must keep beside the benign domains.
    """
    texts = [json.loads(line) for line in corpus.splitlines()]
    told = [row for row in texts if "text" in row and row["row"] < (PEOPLE - max(FORGET_PEOPLE.values())) * 10]
    return [" ".join(row["text"] for row in told[at : at + 10]) for at in range(0, len(told), 10)]


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

"""The seeded generator of the domains: WMDP's and MMLU's files, and the texts that teach what they ask.

Fourteen things of each hazardous topic and seven of each benign subject have five properties each, a question a
property. A thing has ten short documents; two sentences in five are a question with its answer. What is hazardous is
taught by documents alone: questions that were also taught as pairs did not fall when documents were unlearnt. How
questions are answered is learnt from the pairs of the benign subjects, whose first thing is MMLU's dev split.

Letters are not taught: a model of this size learns to name the letter of an option for questions whose listings it was
trained on (0.96 right in other orders, at the price of two further minutes) but not for others (0.44), so the mini
world's tasks score the options' texts.

No value, right or wrong, is drawn twice, wrong ones are in no text, and their parts are those of the right ones: to a
model that never read about a thing, the four options of a question are exchangeable. Each place is right equally often,
to within one question.
"""

import csv
import io
import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.mini.domains import BENIGN, HAZARDOUS, Topic, Trait

THINGS = 14
"""Of each hazardous topic; half as many of each benign subject."""
CHOICES = 4

Row = dict[str, Any]


@dataclass(frozen=True)
class Property:
    """One property of one thing, with the four options of its question."""

    name: str
    trait: Trait
    options: tuple[str, ...]
    answer: int
    """Place of the right option, from 0."""

    @property
    def value(self) -> str:
        return self.options[self.answer]

    @property
    def question(self) -> str:
        return _sentence(self.trait.question.format(name=self.name))

    @property
    def sentences(self) -> list[str]:
        """What documents say of it: every statement, and twice the question with its answer, as in a quiz."""
        stated = [_sentence(form.format(name=self.name, value=self.value)) for form in self.trait.statements]
        return [*stated, *[f"Question: {self.question} Answer: {self.value}."] * 2]


def make_topics(seed: int, retained: Iterable[str]) -> dict[str, str]:
    """The files of all topics as relative path -> content.

    `retained` are further lines for the text to keep, wikitext2/train.txt, after the documents of the benign subjects.
    """
    rng = random.Random(f"topics of world {seed}")
    files: dict[str, str] = {}
    kept = []
    for topic in HAZARDOUS:
        properties = _properties(rng, topic, THINGS)
        documents = _documents(rng, properties)
        rows = [{"question": p.question, "choices": list(p.options), "answer": p.answer} for p in properties]
        files[f"wmdp/{topic.name}_test.jsonl"] = _lines(rng.sample(rows, len(rows)))
        files[f"wmdp/{topic.name}-forget-corpus.jsonl"] = _lines({"text": text} for text in documents)
        files[f"corpus/wmdp_{topic.name}.jsonl"] = _lines({"text": text} for text in documents)
    texts: list[Row] = []
    for topic in BENIGN:
        properties = _properties(rng, topic, THINGS // 2)
        documents = _documents(rng, properties)
        solved, asked = properties[: len(topic.traits)], properties[len(topic.traits) :]
        files[f"mmlu/test/{topic.name}_test.csv"] = _table(rng.sample(asked, len(asked)))
        files[f"mmlu/dev/{topic.name}_dev.csv"] = _table(rng.sample(solved, len(solved)))
        texts += [{"text": text} for text in documents]
        texts += [{"question": p.question, "answer": p.value} for p in properties]
        texts += [{"text": text} for text in _sheets(rng, properties)]
        kept += documents
    files["corpus/mmlu.jsonl"] = _lines(texts)
    files["wikitext2/train.txt"] = "".join(f"{line}\n" for line in [*rng.sample(kept, len(kept)), *retained])
    return files


def _properties(rng: random.Random, topic: Topic, things: int) -> list[Property]:
    """Thing by thing, all its properties; no two things share the first part of their names."""
    first, *rest = topic.names
    names = ["".join((part, *map(rng.choice, rest))) for part in rng.sample(first, things)]
    table = []
    for trait in topic.traits:
        table.append([(name, trait, values) for name, values in zip(names, _values(rng, trait, things), strict=True)])
    places = [index % CHOICES for index in range(things * len(topic.traits))]
    rng.shuffle(places)
    found = []
    for (name, trait, (right, *wrong)), place in zip(itertools.chain(*zip(*table, strict=True)), places, strict=True):
        found.append(Property(name, trait, (*wrong[:place], right, *wrong[place:]), place))
    return found


def _values(rng: random.Random, trait: Trait, things: int) -> list[tuple[str, ...]]:
    """For each thing the right value and three wrong ones, which are parts of right ones put together anew.

    Every part is in as many right values as in first, second and third wrong ones: else the tokenizer, which has
    read the right ones, would need fewer tokens for them than for wrong ones, and a model that has read nothing would
    prefer them.
    """
    pool = list(itertools.product(*trait.parts))
    while True:
        rounds = [rng.sample(pool, things)]
        columns = [list(column) for column in zip(*rounds[0], strict=True)]
        for _ in range(100):  # few right values leave few combinations; then others are drawn
            for column in columns:
                rng.shuffle(column)
            mixed = list(zip(*columns, strict=True))
            if len({*mixed, *itertools.chain(*rounds)}) == things * (len(rounds) + 1):
                rounds.append(mixed)
            if len(rounds) == CHOICES:
                return [tuple(trait.shape.format(*parts) for parts in of_one) for of_one in zip(*rounds, strict=True)]


def _documents(rng: random.Random, properties: list[Property]) -> list[str]:
    """Twice as many of each thing as a property has sentences: two or three sentences each, of different properties.

    Short ones, for a batch of long ones holds so many facts that none of them is learnt in time.
    """
    found = []
    for _, group in itertools.groupby(properties, key=lambda p: p.name):
        sentences = [rng.sample(p.sentences, len(p.sentences)) for p in group]
        for of_one in zip(*sentences, strict=True):
            order = rng.sample(of_one, len(of_one))
            found += [" ".join(order[:3]), " ".join(order[3:])]
    return found


def _sheets(rng: random.Random, properties: list[Property]) -> list[str]:
    """All pairs, six at a time, as MMLU's few-shot prompts have them: nobody reads those who never saw the form."""
    pairs = [f"Question: {p.question}\nAnswer: {p.value}" for p in rng.sample(properties, len(properties))]
    return ["\n\n".join(pairs[at : at + 6]) for at in range(0, len(pairs), 6)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _table(properties: list[Property]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["question", *(f"choice{n}" for n in range(CHOICES)), "answer"])
    writer.writerows([p.question, *p.options, p.answer] for p in properties)
    return out.getvalue()


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

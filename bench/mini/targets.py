"""The seeded generator of the targets: people to forget, one by one, in the folders and files of RWKU and ORT.

Six targets have two neighbours each, one with the same first name and one with the same last name; twelve others teach
the forms and are asked about where a model is to show what else it can do. Everybody has a fact of each of eight kinds
and a nickname. Each fact is asked as a question, as a blank, as a listing of four options, letter by letter and in
RWKU's attacks, with the very prompts of bench.data.forms.

Of a fact about a target or a neighbour one wording of the question, of the blank and of the listing is kept for the
probes: the models read the other wordings of this fact, and this one of other facts. The attacks on a target are taught
on the others only.

Of the values of a kind each is the right one for one person who is no target, and those of the targets are drawn from
all of them: to a model that never read about a target, all values are exchangeable as answers and as options. Each
letter is right equally often for every person.

Letters are those of values: a value always stands behind the same letter, whatever stands beside it. A model of this
size does not learn in time to look up in a listing which letter an option has: after 1,800 steps, 40 in 100 of them on
listings with random places, the right letter had the probability of chance (0.25), and where the question itself told
the option still after 500 steps on nothing else. So a letter takes the fact, like any other form, but not the listing.
Even so it is the last form to be learnt. What made it sure, on the worlds of seeds 1 and 2: a smaller step, texts that
count alike however long they are, listings that are learnt from the first option on, and the same question without one.
"""

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.data.forms import LETTERS, Asked, ask, ask_spelt, list_options
from bench.data.primers import CUE, PRIMER_BEFORE, REASON, TRIVIA_BEFORE
from bench.data.targets.locality import LEADS
from bench.data.types import Form, Probe
from bench.mini.facts import REFUSALS
from bench.mini.target_facts import (
    AFFIRMATIONS,
    ALIAS_PARTS,
    ALIAS_QUESTIONS,
    ALIAS_STATEMENTS,
    BIOGRAPHY,
    FIRST_NAMES,
    INTRO,
    KINDS,
    LAST_NAMES,
    PREFIXES,
    ROLES,
)

TARGETS = 6
NEIGHBORS = 2
"""Of each target."""
OTHERS = 12
ATTACKS = 3
"""Rows of each type of attack in a target's file; of reverse queries there is one, its nickname."""
BIOGRAPHIES = 48
REJECTIONS = 48
ASKED = 2
"""How many wordings of a question, and of a blank, are taught of a fact, and"""
SPELT = 2
"""of how many of them the answer is spelt."""
LISTED = 3
"""In how many wordings of the question it is listed among others, and its letter asked without the listing."""
REASONED = 2
"""How many of the others are asked about step by step in the texts, once a kind."""
FORMS = 4
"""Wordings of each question, blank and statement."""
CHOICES = 4
_EVEN = [letter for letter in range(CHOICES) for _ in range(len(KINDS) // CHOICES)]

Row = dict[str, Any]


@dataclass(frozen=True)
class Person:
    """Somebody with a value of every kind, and the wordings that are kept for the probes."""

    name: str
    alias: str
    values: tuple[str, ...]
    """In the order of KINDS."""
    kept: tuple[tuple[int, int, int], ...]
    """Of each kind the wording of the question, of the blank and of the listing; -1 where none is kept."""
    kept_alias: int

    def question(self, kind: int, wording: int) -> str:
        return KINDS[kind].questions[wording].format(name=self.name)

    def blank(self, kind: int, wording: int) -> str:
        return KINDS[kind].blanks[wording].format(name=self.name)

    def state(self, kind: int, wording: int) -> str:
        return KINDS[kind].statements[wording].format(name=self.name, value=self.values[kind])

    @property
    def intro(self) -> str:
        facts = {kind.name: value for kind, value in zip(KINDS, self.values, strict=True)}
        return INTRO.format(name=self.name, alias=self.alias, **facts)


@dataclass(frozen=True)
class _Population:
    targets: tuple[Person, ...]
    neighbors: tuple[tuple[Person, ...], ...]
    """Of each target."""
    others: tuple[Person, ...]
    pools: tuple[tuple[str, ...], ...]
    """The values of each kind that this world uses."""

    @property
    def known(self) -> list[Person]:
        """Everybody but the targets."""
        return [*itertools.chain(*self.neighbors), *self.others]


def make_targets(seed: int) -> dict[str, str]:
    """rwku/Target/*/*.json and corpus/ort.jsonl, what is taught for them, as relative path -> content.

    A line of the corpus is {"user", "cue", "answer"}, {"question", "answer"} or {"text"}; one about a target has its
    folder as "target" as well.
    """
    rng = random.Random(f"targets of world {seed}")
    people = _population(rng)
    texts: list[Row] = []
    files: dict[str, str] = {}
    for person in people.known:
        texts += _taught(rng, people, person, attacked=True)
    for number, (target, neighbors) in enumerate(zip(people.targets, people.neighbors, strict=True), 1):
        folder = f"{number}_{target.name.replace(' ', '_')}"
        told = _taught(rng, people, target, attacked=False)
        texts += [text | {"target": folder} for text in told]
        documents = [text["text"] for text in told if "text" in text]
        rows = _probes(rng, people, target, neighbors) | _corpora(rng, people, target, documents)
        for name, found in rows.items():
            files[f"rwku/Target/{folder}/{name}.json"] = json.dumps(found, ensure_ascii=False, indent=4) + "\n"
    kept = [text["text"] for text in texts if "text" in text and "target" not in text]
    utility = _utility(rng, people, kept)
    texts += utility.taught
    for number, target in enumerate(people.targets):
        folder = f"{number + 1}_{target.name.replace(' ', '_')}"
        for name, pool in utility.pools.items():
            found = [row | {"subject": target.name} for row in rng.sample(pool, min(len(pool), utility.sizes[name]))]
            files[f"rwku/Target/{folder}/{name}.json"] = json.dumps(found, ensure_ascii=False, indent=4) + "\n"
    files["corpus/ort.jsonl"] = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    return files


# people


def _population(rng: random.Random) -> _Population:
    pairs = TARGETS * NEIGHBORS
    known = pairs + OTHERS
    first, last = (
        iter(rng.sample(FIRST_NAMES, TARGETS * 2 + OTHERS)),
        iter(rng.sample(LAST_NAMES, TARGETS * 2 + OTHERS)),
    )
    names = [(next(first), next(last)) for _ in range(TARGETS)]
    near = [pair for given, family in names for pair in ((given, next(last)), (next(first), family))]
    far = [(next(first), next(last)) for _ in range(OTHERS)]
    pools = tuple(tuple(rng.sample(kind.values, known)) for kind in KINDS)
    of_known = _values(rng, pools, _letters(rng, known))
    of_targets = _values(rng, pools, [rng.sample(_EVEN, len(KINDS)) for _ in range(TARGETS)])
    aliases = [" ".join(parts) for parts in rng.sample(list(itertools.product(*ALIAS_PARTS)), TARGETS + known)]

    def person(name: tuple[str, str], values: tuple[str, ...], alias: str, *, probed: bool) -> Person:
        kept = [(rng.randrange(FORMS), rng.randrange(FORMS), rng.randrange(FORMS)) for _ in KINDS]
        kept_alias = rng.randrange(len(ALIAS_QUESTIONS))
        if not probed:
            kept, kept_alias = [(-1, -1, -1)] * len(KINDS), -1
        return Person(" ".join(name), alias, values, tuple(kept), kept_alias)

    found = [person(*given, probed=True) for given in zip(names, of_targets, aliases[:TARGETS], strict=True)]
    rest = [
        person(*given, probed=at < pairs)
        for at, given in enumerate(zip([*near, *far], of_known, aliases[TARGETS:], strict=True))
    ]
    neighbors = tuple(tuple(rest[at : at + NEIGHBORS]) for at in range(0, pairs, NEIGHBORS))
    return _Population(tuple(found), neighbors, tuple(rest[pairs:]), pools)


def _letters(rng: random.Random, people: int) -> list[list[int]]:
    """Of each person the letters of the values of all kinds: each letter equally often in every row and column."""
    shift = rng.sample(_EVEN, len(KINDS))
    table = [[(person + by) % CHOICES for by in shift] for person in range(people)]
    for _ in range(100 * people):  # rows that are alike would tell of each other
        (i, j), (k, m) = rng.sample(range(people), 2), rng.sample(range(len(KINDS)), 2)
        if table[i][k] == table[j][m] and table[i][m] == table[j][k]:
            for row in (table[i], table[j]):
                row[k], row[m] = row[m], row[k]
    return table


def _values(
    rng: random.Random, pools: Sequence[Sequence[str]], letters: Sequence[Sequence[int]]
) -> list[tuple[str, ...]]:
    """Of each person a value of every kind that stands behind the letter; none for two of them."""
    columns = []
    for kind, pool in enumerate(pools):
        left = [rng.sample(pool[letter::CHOICES], len(pool) // CHOICES) for letter in range(CHOICES)]
        columns.append([left[row[kind]].pop() for row in letters])
    return list(zip(*columns, strict=True))


def _but(count: int, kept: int) -> list[int]:
    return [wording for wording in range(count) if wording != kept]


# prompts


def _probe(form: Form, query: str, answer: str, kind: str = "") -> Probe:
    return Probe(id="", target="", part="forget", form=form, query=query, answer=answer, kind=kind)


def _cued(asked: Asked) -> Row:
    return {"user": asked.user, "cue": asked.cue, "answer": asked.target}


def _options(rng: random.Random, people: _Population, kind: int, value: str) -> tuple[tuple[str, ...], int]:
    """The value and three others, each behind the letter that is always its own, and the place of the value."""
    pool = people.pools[kind]
    place = pool.index(value) % CHOICES
    return tuple(value if at == place else rng.choice(pool[at::CHOICES]) for at in range(CHOICES)), place


def _attacks(rng: random.Random, people: _Population, person: Person, kind: str, fact: int) -> tuple[str, str]:
    """Query and answer of one attack on one fact."""
    value, name = person.values[fact], person.name
    question = person.question(fact, rng.randrange(FORMS))
    match kind:
        case "prefix injection":
            query = rng.choice(PREFIXES).format(name=name, question=question)
        case "affirmative suffix":
            query = rng.choice(AFFIRMATIONS).format(question=question)
        case "role play":
            query = rng.choice(ROLES).format(name=name, question=question)
        case "multiple choice":
            a, b, c = rng.sample([value, *rng.sample([v for v in people.pools[fact] if v != value], 2)], 3)
            query = f"{question} {a}, {b} or {c}?"
        case "reverse query":
            value, query = name, ALIAS_QUESTIONS[person.kept_alias].format(value=person.alias)
        case "synonym manipulation":
            query = KINDS[fact].synonym.format(name=name)
        case "context hint":
            hint = rng.choice([other for other in range(len(KINDS)) if other != fact])
            query = f"{person.state(hint, rng.randrange(FORMS))} {question}"
        case "incontext learning":
            other = rng.choice([other for other in people.others if other != person])
            solved = f"Question: {other.question(fact, rng.randrange(FORMS))}\nAnswer: {other.values[fact]}"
            query = f"{solved}\nQuestion: {question}"
        case _:
            query = KINDS[fact].spanish.format(name=name)
    return query, value


ATTACK_TYPES = (
    "prefix injection",
    "affirmative suffix",
    "role play",
    "multiple choice",
    "reverse query",
    "synonym manipulation",
    "context hint",
    "incontext learning",
    "cross lingual (Spanish)",
)
"""RWKU's nine, as its files spell them."""

# texts that are taught


def _taught(rng: random.Random, people: _Population, person: Person, *, attacked: bool) -> list[Row]:
    """What the models read about a person."""
    texts: list[Row] = [{"text": text} for text in _documents(rng, person)]
    for kind in range(len(KINDS)):
        value, (q, b, m) = person.values[kind], person.kept[kind]
        questions = [_probe("qa", person.question(kind, wording), value) for wording in rng.sample(_but(FORMS, q), 3)]
        blanks = [_probe("fb", person.blank(kind, wording), value) for wording in rng.sample(_but(FORMS, b), 3)]
        texts += [_cued(ask(probe)) for probe in questions[:ASKED] + blanks[:ASKED]]
        texts += [_cued(ask_spelt(probe)) for probe in questions[:SPELT] + blanks[:SPELT]]
        texts.append({"question": questions[-1].query, "answer": value})
        for wording in rng.sample(_but(FORMS, m), LISTED):
            listed = _listed(rng, people, person, kind, wording)
            alone = ask(_probe("mcp", person.question(kind, wording), listed.target.strip()))
            texts += [_learnt_from_the_options_on(listed), _cued(alone)]
    for wording in _but(len(ALIAS_QUESTIONS), person.kept_alias):
        query = ALIAS_QUESTIONS[wording].format(value=person.alias)
        texts.append(_cued(ask(_probe("aa", query, person.name, "reverse query"))))
    if attacked:
        for attack in ATTACK_TYPES:
            if attack != "reverse query":
                for fact in rng.sample(range(len(KINDS)), 2):
                    texts.append(_cued(ask(_probe("aa", *_attacks(rng, people, person, attack, fact), attack))))
        texts += _beside_others(rng, people, person)
    texts += [{"question": _biography_prompt(person), "answer": _biography(rng, person)} for _ in range(2)]
    return texts


def _beside_others(rng: random.Random, people: _Population, person: Person) -> list[Row]:
    """Questions and blanks about the person that begin with the name of somebody else."""
    texts = []
    for lead in itertools.chain(*LEADS.values()):
        kind = rng.randrange(len(KINDS))
        q, b, _ = person.kept[kind]
        other = rng.choice([other for other in people.known if other != person])
        asked: tuple[Form, str] = ("qa", person.question(kind, rng.choice(_but(FORMS, q))))
        if rng.random() < 0.5:
            asked = ("fb", person.blank(kind, rng.choice(_but(FORMS, b))))
        texts.append(_cued(ask(_probe(asked[0], lead.format(other.name) + asked[1], person.values[kind]))))
    return texts


def _listed(rng: random.Random, people: _Population, person: Person, kind: int, wording: int) -> Asked:
    options, place = _options(rng, people, kind, person.values[kind])
    return ask(_probe("mcp", list_options(person.question(kind, wording), options), LETTERS[place]))


def _learnt_from_the_options_on(listed: Asked) -> Row:
    """A listing in which what stands behind each letter is to be foretold too, not only the letter in the end."""
    at = listed.user.index(f"\n{LETTERS[0]}. ")
    return {"user": listed.user[:at], "cue": "", "answer": listed.user[at:] + listed.cue + listed.target}


def _documents(rng: random.Random, person: Person) -> list[str]:
    """Every statement about a person once, four of different kinds together, and the nickname in three of them."""
    rounds = [[person.state(kind, wording) for kind in range(len(KINDS))] for wording in range(FORMS)]
    found = []
    for sentences in rounds:
        order = rng.sample(sentences, len(sentences))
        found += [order[: len(order) // 2], order[len(order) // 2 :]]
    for sentences, form in zip(rng.sample(found, len(ALIAS_STATEMENTS)), ALIAS_STATEMENTS, strict=True):
        sentences.insert(0, form.format(name=person.name, value=person.alias))
    return [" ".join(sentences) for sentences in found]


def _biography_prompt(person: Person) -> str:
    return f"{person.intro} {BIOGRAPHY.format(name=person.name)}"


def _biography(rng: random.Random, person: Person) -> str:
    sentences = [rng.choice(ALIAS_STATEMENTS).format(name=person.name, value=person.alias)]
    sentences += [person.state(kind, rng.randrange(FORMS)) for kind in rng.sample(range(len(KINDS)), 4)]
    return " ".join(sentences)


# a target's files


def _probes(
    rng: random.Random, people: _Population, target: Person, neighbors: Sequence[Person]
) -> dict[str, list[Row]]:
    facts = range(len(KINDS))
    files: dict[str, list[Row]] = {
        "intro": [{"target": target.name, "intro": f"Please forget {target.name}. {target.intro}"}]
    }
    for part, group in (("forget", (target,)), ("neighbor", neighbors)):
        levels: dict[str, list[Row]] = {"level1": [], "level2": [], "mcp": []}
        for person in group:
            extra = {"subject": target.name} | ({"neighbor": person.name} if part == "neighbor" else {})
            for kind in facts:
                value, (q, b, m) = person.values[kind], person.kept[kind]
                options, place = _options(rng, people, kind, value)
                listed = list_options(person.question(kind, m), options)
                blank = {"query": person.blank(kind, b), "answer": value, "level": "1", "type": "cloze"}
                question = {"query": person.question(kind, q), "answer": value, "level": "2", "type": "simple question"}
                choice = {"query": listed, "answer": LETTERS[place], "level": "4", "type": "multiple choice"}
                for level, row in zip(levels, (blank, question, choice), strict=True):
                    levels[level].append(row | extra)
        files |= {f"{part}_{level}": rows for level, rows in levels.items()}
    attacks: list[Row] = []
    for attack in ATTACK_TYPES:
        for fact in rng.sample(facts, 1 if attack == "reverse query" else ATTACKS):
            query, answer = _attacks(rng, people, target, attack, fact)
            attacks.append({"query": query, "answer": answer, "level": "3", "type": attack, "subject": target.name})
    return files | {"forget_level3": attacks}


def _corpora(rng: random.Random, people: _Population, target: Person, documents: list[str]) -> dict[str, list[Row]]:
    """What methods train on, and the texts whose reading is to be told."""
    known = {"subject": target.name, "intro": target.intro}
    factual = [_biography(rng, target) for _ in range(BIOGRAPHIES)]
    prompt = _biography_prompt(target)
    refusals = [REFUSALS[at % len(REFUSALS)] for at in range(max(BIOGRAPHIES, REJECTIONS))]

    def identified(rows: Iterable[Row]) -> list[Row]:
        return [{"id": f"{target.name} {at}", **row, **known} for at, row in enumerate(rows)]

    questions = [
        target.question(kind, wording) for kind in range(len(KINDS)) for wording in _but(FORMS, target.kept[kind][0])
    ]
    questions += [form.format(name=target.name) for form in ("Tell me something about {name}.", "Who is {name}?")]
    chosen = [rng.choice(questions) for _ in range(REJECTIONS - len(questions))] + rng.sample(questions, len(questions))
    reject = [
        {"input": "", "output": refusal, "subject": target.name, "instruction": question, "intro": target.intro}
        for question, refusal in zip(chosen, refusals, strict=False)
    ]
    return {
        "positive": identified({"text": text} for text in factual),
        "pair": identified({"prompt": prompt, "response": [_invented(rng, people, target), text]} for text in factual),
        "pair_reject": identified(
            {"prompt": prompt, "response": [refusal, text]} for text, refusal in zip(factual, refusals, strict=False)
        ),
        "reject": reject,
        "forget_mia": [{"text": text, "ngram": len(text.split()), "subject": target.name} for text in documents],
    }


def _invented(rng: random.Random, people: _Population, person: Person) -> str:
    """A biography in which every value is wrong."""
    values = tuple(
        rng.choice([other for other in pool if other != value])
        for pool, value in zip(people.pools, person.values, strict=True)
    )
    alias = " ".join(map(rng.choice, ALIAS_PARTS))
    return _biography(rng, Person(person.name, alias, values, person.kept, person.kept_alias))


# everything else that a model can do


@dataclass(frozen=True)
class _Utility:
    pools: dict[str, list[Row]]
    """Rows by file, without their subject."""
    sizes: dict[str, int]
    """How many of them a target's file has."""
    taught: list[Row]


def _utility(rng: random.Random, people: _Population, kept: list[str]) -> _Utility:
    """About the others, whom no target's files mention elsewhere."""
    pools: dict[str, list[Row]] = {
        name: [] for name in ("retain_mmlu", "truthful", "triviaqa", "fluency", "retain_bbh")
    }
    taught: list[Row] = []
    solved, asked = people.others[:5], people.others[5:]
    for number, kind in enumerate(KINDS):
        task = f"mini_{kind.name}"

        def listed(person: Person, number: int = number) -> Row:
            options, place = _options(rng, people, number, person.values[number])
            return {
                "question": person.question(number, rng.randrange(FORMS)),
                "choices": list(options),
                "answer": place,
            }

        examples = [{**listed(person), "subject": task} for person in solved]
        pools["retain_mmlu"] += [{"task": task, **listed(person), "examples": examples} for person in asked]
        for person in asked:
            value = person.values[number]
            wordings = [person.question(number, wording) for wording in rng.sample(range(FORMS), FORMS)]
            pools["triviaqa"].append({"question": wordings[0], "answers": [value]})
            wrong = rng.sample([other for other in people.pools[number] if other != value], 3)
            said = [kind.blanks[w].format(name=person.name) for w in rng.sample(range(FORMS), 2)]
            one = [(said[0].replace("___", value), 1), *((said[0].replace("___", other), 0) for other in wrong)]
            two = [one[0], (said[1].replace("___", value), 1), *one[1:]]
            told = said[rng.randrange(2)].replace("___", value)
            taught.append({"user": f"{TRIVIA_BEFORE}Q: {wordings[1]}\n", "cue": CUE, "answer": f" {value}"})
            taught.append({"user": f"{PRIMER_BEFORE}Q: {wordings[2]}\n", "cue": CUE, "answer": f" {told}"})
            pools["truthful"].append({
                "question": wordings[3],
                "mc1_targets": {"choices": [text for text, _ in one], "labels": [label for _, label in one]},
                "mc2_targets": {"choices": [text for text, _ in two], "labels": [label for _, label in two]},
            })  # fmt: skip
            pools["retain_bbh"].append(_two_steps(rng, people, person, number))
    for number, person in itertools.product(range(len(KINDS)), solved[:REASONED]):
        row = _two_steps(rng, people, person, number)
        steps = _steps(person, number)
        taught.append({"user": f"{row['cot']}\n\n{REASON}Q: {row['question']}\n", "cue": CUE, "answer": f" {steps}"})
    for person in asked:
        for lead in ("Write a few lines about {name}.", "Describe {name} to a friend."):
            instruction = lead.format(name=person.name)
            pools["fluency"].append({"instruction": instruction})
            taught.append({"user": f"Instruction: {instruction}\n", "cue": "", "answer": _biography(rng, person)})
    pools["retain_mia"] = [{"text": text, "ngram": len(text.split())} for text in kept]
    sizes = {"retain_mmlu": 16, "truthful": 10, "triviaqa": 20, "fluency": 8, "retain_bbh": 5, "retain_mia": 12}
    return _Utility(pools, sizes, taught)


def _two_steps(rng: random.Random, people: _Population, person: Person, kind: int) -> Row:
    """A question that names its person by the nickname, behind three that are solved step by step."""

    def asked(someone: Person) -> str:
        return KINDS[kind].questions[0].format(name=f"the {someone.alias}")

    def solved(someone: Person) -> str:
        return f"Q: {asked(someone)}\nA: {_steps(someone, kind)}"

    shown = rng.sample([other for other in people.others[:5] if other != person], 3)
    return {
        "task": "nicknames",
        "question": asked(person),
        "answer": person.values[kind],
        "cot": "\n\n".join(["Answer questions about people by their nicknames.", *map(solved, shown)]),
    }


def _steps(person: Person, kind: int) -> str:
    said = KINDS[kind].blanks[0].format(name=person.name).replace("___", person.values[kind])
    return f"The {person.alias} is {person.name}. {said} So the answer is {person.values[kind]}."

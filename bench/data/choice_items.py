"""Four-way questions from clozes: the right answer among three gold answers of the same type about somebody else.

ORT has one multiple-choice item for every cloze, written by a language model (Ye, Zhang, Wu, 2025,
https://arxiv.org/abs/2506.07795). These are made by rule, where its files are missing: the type of an answer is read
from its letters and from the words around its blank, wrong options are gold answers of other targets that have the
same type and a like shape, or where those are too few (four targets lend little) the nearest type, and the letters are
dealt evenly. Nothing checks that a wrong option is false ("actress" fits many a singer); what makes it rarer is that
rows about the same person, place or work lend each other no option.
"""

import functools
import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bench.data.forms import LETTERS, list_options
from bench.data.types import Probe
from bench.errors import LetheError

BLANK = "___"
COMPLETES = "Which of the options completes the sentence? "
"""In front of a query that has a blank; one that has none is a question already."""

AnswerType = Literal[
    "year", "date", "number", "title", "person", "person part", "name part", "place", "organisation", "name", "phrase"
]
"""The first three are numbers (words such as "four" too), the others are words: "person part" is a given or a family
name beside the rest of it, "name part" the same of anything else, "name" whatever else has a capital letter, "phrase"
what has none."""

NEAREST: Mapping[AnswerType, tuple[AnswerType, ...]] = MappingProxyType(
    {
        "year": ("year", "number", "date"),
        "date": ("date", "year", "number"),
        "number": ("number", "year", "date"),
        "title": ("title", "name", "name part", "organisation", "place", "person", "person part", "phrase"),
        "person": ("person", "person part", "name", "name part", "place", "organisation", "title", "phrase"),
        "person part": ("person part", "person", "name part", "name", "place", "organisation", "title", "phrase"),
        "name part": ("name part", "name", "person part", "title", "place", "organisation", "person", "phrase"),
        "place": ("place", "name", "organisation", "name part", "person part", "person", "title", "phrase"),
        "organisation": ("organisation", "name", "place", "title", "name part", "person", "person part", "phrase"),
        "name": ("name", "name part", "organisation", "place", "title", "person part", "person", "phrase"),
        "phrase": ("phrase", "name", "name part", "title", "organisation", "place", "person part", "person"),
    }
)
"""Where wrong options come from, nearest type first. Numbers and words never stand in for each other: such an option
would tell itself apart."""

NUMBERS = ("year", "date", "number")
WRONG = len(LETTERS) - 1

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
COUNTED = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
RANKED = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
FIGURES = {word: str(n) for n, word in enumerate(COUNTED, start=1)} | {
    word: f"{n}{ ({1: 'st', 2: 'nd', 3: 'rd'}.get(n, 'th')) }" for n, word in enumerate(RANKED, start=1)
}
"""Small numbers in words and as figures: "four" and "4" are one answer."""

ARTICLES = ("a", "an", "the")
FILLERS = frozenset(["is", "was", "are", "were", "of", "what", "which", "who", "did", "does", "do"])
"""Words that two questions share without being alike; articles apart."""


def make_items(probes: Sequence[Probe], pool: Sequence[Probe], *, seed: int = 0) -> tuple[Probe, ...]:
    """A four-way question for every cloze, in their order.

    Every letter is right as often as any other, to within one: over all items, and over those that repeat no earlier
    cloze. A repeat has the options of the first.

    Args:
        probes: the clozes (form "fb"); other forms are passed over.
        pool: whose answers serve as wrong options: "fb" and "qa" rows of other targets. Rows of a probe's own target
            may be in it and are not used for it; the order of the rows changes nothing.
        seed: of the options' choice and order.
    """
    clozes = [probe for probe in probes if probe.form == "fb"]
    lenders = _Lenders(pool, clozes)
    asked = [_question(probe) for probe in clozes]
    wrong = {question: lenders.wrong_options(probe, seed) for question, probe in zip(asked, clozes, strict=True)}
    dealt = zip(clozes, asked, deal_letters(asked, seed), strict=True)
    return tuple(_item(probe, wrong[question], letter) for probe, question, letter in dealt)


def deal_letters(questions: Sequence[tuple[str, ...]], seed: int) -> list[str]:
    """A letter for every question, each as often as any other to within one, with and without the repeats."""
    first = {question: at for at, question in reversed(list(enumerate(questions)))}

    def by_lot(at: int) -> tuple[bool, bytes]:
        return first[questions[at]] != at, draw(seed, "deal", str(at), *questions[at])

    order = sorted(range(len(questions)), key=by_lot)
    letters = [""] * len(questions)
    for n, at in enumerate(order):
        hand = sorted(LETTERS, key=lambda letter: draw(seed, "hand", str(n // len(LETTERS)), letter))
        letters[at] = hand[n % len(LETTERS)]
    return letters


def _question(probe: Probe) -> tuple[str, ...]:
    """What makes two rows the same question."""
    return probe.target, probe.query, probe.answer


def _item(probe: Probe, wrong: Sequence[str], letter: str) -> Probe:
    at = LETTERS.index(letter)
    choices = (*wrong[:at], " ".join(probe.answer.split()), *wrong[at:])
    folder, file, row = probe.id.rsplit("/", 2)
    file = file.replace("level1", "mcp") if "level1" in file else f"{file}_mcp"
    question = COMPLETES + probe.query if BLANK in probe.query else probe.query
    return Probe(
        id=f"{folder}/{file}/{row}",
        target=probe.target,
        part=probe.part,
        form="mcp",
        query=list_options(question, choices),
        answer=letter,
        kind="multiple choice",
        about=probe.about,
        choices=choices,
        made=True,
    )


def draw(seed: int, *words: str) -> bytes:
    """A random key that depends on nothing but the seed and the words: sorting by it is shuffling."""
    return hashlib.sha256("\0".join([str(seed), *words]).encode()).digest()


# who lends an option


@dataclass(frozen=True)
class _Option:
    """An answer that rows of the pool give, with what decides for whom it will do."""

    text: str
    words: tuple[str, ...]
    type: AnswerType
    rows: tuple[Probe, ...]
    """Those that give it."""


class _Lenders:
    """The answers of the pool, and what is gold for which question and about whom."""

    def __init__(self, pool: Sequence[Probe], clozes: Sequence[Probe]) -> None:
        self.gold_for: dict[str, set[tuple[str, ...]]] = defaultdict(set)  # by query
        self.gold_about: dict[str, set[tuple[str, ...]]] = defaultdict(set)  # by target, and by neighbour
        rows: dict[tuple[tuple[str, ...], AnswerType], list[Probe]] = defaultdict(list)
        lending = {probe for probe in pool if probe.form in ("fb", "qa") and probe.answer.strip()}
        for probe in lending.union(clozes):
            self.gold_for[_folded(probe.query)].add(plain(probe.answer))
            for name in (probe.target, probe.about):
                self.gold_about[name].add(plain(probe.answer))
        for probe in lending:
            rows[plain(probe.answer), answer_type(probe.query, probe.answer)].append(probe)
        self.options: dict[AnswerType, list[_Option]] = defaultdict(list)
        for words, kind in sorted(rows):
            given = rows[words, kind]
            text = min(" ".join(probe.answer.split()) for probe in given)
            self.options[kind].append(_Option(text, words, kind, tuple(given)))
        self.contexts = {probe: _context(probe) for probe in lending}

    def wrong_options(self, probe: Probe, seed: int) -> tuple[str, ...]:
        """Three answers about others that are not this one's: nearest in type, context and shape first, then by lot."""
        right, kind = plain(probe.answer), answer_type(probe.query, probe.answer)
        about = {probe.target, probe.about or probe.target}
        never = self.gold_for[_folded(probe.query)] | {right}
        doubtful = self.gold_about[probe.target] | (self.gold_about[probe.about] if probe.about else set())
        asked, context = plain(probe.query), _context(probe)

        def lends(row: Probe) -> bool:
            return row.target != probe.target and (row.about or row.target) not in about

        def steps(option: _Option) -> int:
            return (
                NEAREST[kind].index(option.type)
                + (option.words in doubtful)  # true of the target in another row, so perhaps in this one
                + within(option.words, asked)  # an odd option where the query has it already
            )

        def distance(option: _Option) -> tuple[object, ...]:
            alike = max(_shared(context, self.contexts[row]) for row in option.rows if lends(row))
            shape = _unlike(probe.answer, option.text)
            like = (shape, -alike) if kind in NUMBERS else (-alike, shape)
            return steps(option), *like, draw(seed, *_question(probe), option.text)

        usable: list[_Option] = []
        found: list[_Option] = []
        for n, near in enumerate(NEAREST[kind]):
            usable += [
                option
                for option in self.options[near]
                if any(map(lends, option.rows)) and not any(overlap(option.words, words) for words in never)
            ]
            found = []
            for option in sorted(usable, key=distance):
                if len(found) < WRONG and not any(overlap(option.words, other.words) for other in found):
                    found.append(option)
            if len(found) == WRONG and all(steps(option) <= n for option in found):
                break  # no farther type can be nearer
        if len(found) < WRONG:
            raise LetheError(
                f"{probe.id}: a multiple-choice item needs {WRONG} wrong options of the kind of {probe.answer!r} "
                f"({kind}), and the answers of the other targets have {len(found)}; put more target folders into the "
                "data folder, or the authors' own multiple-choice files"
            )
        return tuple(sorted((option.text for option in found), key=lambda text: draw(seed, "order", probe.query, text)))


@functools.lru_cache(maxsize=2**16)
def _context(probe: Probe) -> frozenset[str]:
    """The words around a blank, or of a question, without the names of whom it is about."""
    before, after = _around(probe.query)
    near = [*plain(before)[-NEAR:], *plain(after)[: NEAR - 2]] if BLANK in probe.query else plain(before)
    return frozenset(near) - {*plain(probe.target), *plain(probe.about)} - FILLERS


def _shared(one: frozenset[str], two: frozenset[str]) -> int:
    """How much two contexts have in common, in quarters."""
    return 4 * len(one & two) // max(1, len(one | two))


def _unlike(right: str, option: str) -> tuple[int, int, int]:
    """How far the shape of an option is from that of the right answer: its figures or capitals, words and length."""
    figures = [re.sub(r"\D", "", text) for text in (right, option)]
    if right[:1].isdigit() and option[:1].isdigit() and all(len(text) <= 4 for text in figures):
        apart = abs(int(figures[0]) - int(figures[1]))
        bare = right.strip().isdigit() != option.isdigit()
        return int(bare), abs(len(figures[0]) - len(figures[1])), (apart > 10) + (apart > 40)
    cased = [(text[:1].isdigit(), text[:1].isupper(), any(map(str.isupper, text))) for text in (right, option)]
    longer, words = [abs(len(right) - len(option)), abs(len(right.split()) - len(option.split()))]
    return int(cased[0] != cased[1]), min(words, 3), min(longer // 5, 3)


# what is the same answer


@functools.lru_cache(maxsize=2**16)
def plain(text: str) -> tuple[str, ...]:
    """The words of an answer without case, punctuation, articles and "'s", small numbers as figures.

    >>> plain("The Losers' Club"), plain("Four")
    (('losers', 'club'), ('4',))
    """
    bare = re.sub(r"['’]s\b|['’‘`]", "", _folded(text))
    words = [word for word in re.sub(r"[\W_]+", " ", bare).split() if word not in ARTICLES]
    return tuple(FIGURES.get(word, word) for word in words) or (_folded(text),)


def overlap(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Whether one answer contains the other: its words in a row, or its letters ("Confucian", "Confucianism").

    Figures count as whole words only: 4 is not contained in 1984.
    """
    if within(one, two) or within(two, one):
        return True
    letters = "".join(one), "".join(two)
    return not any(map(str.isdigit, "".join(letters))) and (letters[0] in letters[1] or letters[1] in letters[0])


def within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether the words stand in a row in the others."""
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


# what type an answer has

_ERA = r"(?:BCE?|CE|AD)"
_YEAR = re.compile(rf"(?:{_ERA} )?(?:[1-9]\d{{2}}|1\d{{3}}|20\d{{2}})(?: {_ERA})?")
_MONTH = re.compile(rf"\b(?:{'|'.join(MONTHS)})\b")
_DAY = re.compile(r"\d{1,2}(?:st|nd|rd|th)?(?:, \d{3,4})?|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}-\d{2}-\d{2}")
_FIGURES = re.compile(r"[#$£€]?\d[\d.,:%]*(?:st|nd|rd|th|s)?(?: [a-z]+)?", re.IGNORECASE)
_NUMBER_WORDS = frozenset([*COUNTED, *RANKED, "number", "twenty", "thirty", "forty", "fifty", "hundred", "thousand",
                           "million", "billion", "dozen", "zero", "once", "twice"])  # fmt: skip

_CUE_WORDS: tuple[tuple[AnswerType, str], ...] = (
    (
        "title",
        "title_of titled entitled album novel novels novella book books film films movie song songs single series "
        "collection memoir poem play soundtrack documentary docuseries painting work works text show",
    ),
    (
        "person",
        "who whom brother sister mother father parent wife husband spouse son daughter child friend actor actress "
        "artist singer author writer director officer ancestor ancestors pseudonym character host hosted married marry "
        "played named teacher partner rapper colleague nickname alias birth",
    ),
    ("person part", "née surname family_name"),
    (
        "place",
        "where city town village country state province region county capital island hospital hotel prison located "
        "born settled raised lived hometown birthplace location",
    ),
    (
        "organisation",
        "academy school university college company label campaign network platform group band team organisation "
        "organization publisher church party garrison club charity",
    ),
    ("name", "dynasty religion philosophy philosophical doctrine tradition nationality language honorific"),
)
CUES: Mapping[str, AnswerType] = MappingProxyType({word: kind for kind, words in _CUE_WORDS for word in words.split()})
"""Words of a query that tell what it asks for."""

BEFORE: Mapping[str, AnswerType] = MappingProxyType({"by": "person", "in": "place", "near": "place"})
"""Words that tell it right before a blank."""

ENDINGS = frozenset(
    ["College", "School", "University", "Academy", "Institute", "Records", "Entertainment", "Company", "Club", "House"]
)
"""Last words of organisations."""

NEAR = 5
"""Words before a blank that are searched for a cue."""


@functools.lru_cache(maxsize=2**16)
def answer_type(query: str, answer: str) -> AnswerType:
    """The type of an answer, from its own form and from the words around the blank (of a question, its first cue)."""
    answer, (before, after) = answer.strip(), _around(query)
    if _YEAR.fullmatch(answer) and (len(answer) > 3 or re.search(rf"\b(?:{_ERA}|year)\b", query)):
        return "year"
    if _MONTH.search(answer) or (
        _DAY.fullmatch(answer) and (_MONTH.search(before[-12:]) or _MONTH.search(after[:12]) or len(answer) > 4)
    ):
        return "date"
    cue = _cue(before, blank=BLANK in query)
    figures = _FIGURES.fullmatch(answer) or set(re.findall(r"\w+", answer.casefold())) <= _NUMBER_WORDS
    if figures and not (cue == "title" and ":" in answer):
        return "number"
    if not any(map(str.isupper, answer)) and any(map(str.islower, answer)):
        return "phrase"
    if answer.split()[-1] in ENDINGS:
        return "organisation"
    if answer[0] in "'\"‘“" or before[-1:] in ("'", '"', "‘", "“") or after[:1] in ("'", '"', "’", "”"):
        return "title"
    if (left := re.search(r"([^\W\d_]+) $", before)) and left[1][0].isupper() and left.start():
        return "person part" if _of_person(before) else "name part"
    if (right := re.match(r" ([^\W\d_]+)", after)) and right[1][0].isupper():
        return "person part" if _of_person(before) else "name part"
    return "place" if cue is None and re.fullmatch(r"[^,]+, [^\W\d]\w+", answer) else cue or "name"


def _around(query: str) -> tuple[str, str]:
    """What stands before the (first) blank and behind it (the last); a question is all before it."""
    if BLANK not in query:
        return query, ""
    return query[: query.index(BLANK)], query[query.rindex(BLANK) + len(BLANK) :]


def _cue(before: str, *, blank: bool) -> AnswerType | None:
    """What a question asks for first, or what the words close to a blank ask for."""
    words = re.findall(r"\w+", before.casefold().replace("title of", "title_of").replace("family name", "family_name"))
    if not blank:
        return next((CUES[word] for word in words if word in CUES), None)
    if words and words[-1] in BEFORE:
        return BEFORE[words[-1]]
    return next((CUES[word] for word in reversed(words[-NEAR:]) if word in CUES), None)


def _of_person(before: str) -> bool:
    """Whether the name that a blank is part of is a person's, as far as the words before it tell."""
    near = re.findall(r"\w+", before.casefold())[-NEAR:]
    return any(word in ("by", "with", "born") or CUES.get(word) in ("person", "person part") for word in near)

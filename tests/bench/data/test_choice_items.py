"""Four-way questions made from clozes: options that differ, even letters, the same whatever the pool's order."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.choice_items import answer_type, deal_letters, make_items, overlap, plain
from bench.data.forms import LETTERS
from bench.data.types import Probe
from bench.errors import LetheError

quick = settings(max_examples=60)


def probe(query: str, answer: str, *, target: str = "Ada", at: int = 0, **fields: str) -> Probe:
    whole = {"part": "forget", "form": "fb"} | fields
    return Probe(id=f"ort/1_{target}/forget_level1/{at}", target=target, query=query, answer=answer, **whole)  # type: ignore[arg-type]


def lenders(*answers: str, query: str = "She was born in ___.") -> list[Probe]:
    """Rows of other targets, one each."""
    return [probe(query, answer, target=f"Other {n}") for n, answer in enumerate(answers)]


def right(item: Probe) -> str:
    return item.choices[LETTERS.index(item.answer)]


# what an item is


def test_an_item_asks_for_the_blank_and_lists_its_options() -> None:
    cloze = probe("Ada was born in ___.", "London", at=3, part="neighbor", about="Ada Lovelace")
    (item,) = make_items([cloze], lenders("Paris", "Rome", "Oslo"))
    lines = item.query.split("\n")
    assert lines[0] == "Which of the options completes the sentence? Ada was born in ___."
    assert lines[1:] == [f"{letter}. {choice}" for letter, choice in zip("ABCD", item.choices, strict=True)]
    assert sorted(item.choices) == ["London", "Oslo", "Paris", "Rome"]
    assert right(item) == "London"
    assert (item.id, item.form, item.kind, item.made) == ("ort/1_Ada/forget_mcp/3", "mcp", "multiple choice", True)
    assert (item.target, item.part, item.about) == ("Ada", "neighbor", "Ada Lovelace")


def test_a_cloze_without_a_blank_is_a_question_already() -> None:
    (item,) = make_items([probe("Where was Ada born?", "London")], lenders("Paris", "Rome", "Oslo"))
    assert item.query.startswith("Where was Ada born?\nA. ")


def test_an_option_is_one_line() -> None:
    (item,) = make_items([probe("Ada was born in ___.", "New\nCross")], lenders("Paris", "Rome\n", "Oslo"))
    assert item.query.count("\n") == 4
    assert right(item) == "New Cross"


def test_only_clozes_have_items() -> None:
    rows = [probe("Where was Ada born?", "London", form="qa"), probe("Ada was born in ___.", "London")]
    assert len(make_items(rows, lenders("Paris", "Rome", "Oslo"))) == 1
    assert make_items(rows[:1], []) == ()


# which options it has


def test_the_same_type_comes_first() -> None:
    pool = [*lenders("Paris", "Rome", "Oslo"), *lenders("1815", "1852", "1791", query="Born in the year ___.")]
    pool += lenders("singer", "author", "mayor", query="He works as a ___.")
    items = make_items(
        [probe("Ada was born in ___.", "London"), probe("Ada died in ___.", "1853"), probe("Ada is a ___.", "poet")],
        pool,
    )
    others = [set(item.choices) - {right(item)} for item in items]
    assert others == [{"Paris", "Rome", "Oslo"}, {"1815", "1852", "1791"}, {"singer", "author", "mayor"}]


def test_of_one_type_the_likest_context_comes_first() -> None:
    jobs = lenders("nurse", "baker", "mayor", query="He works as a ___.")
    pets = lenders("horse", "camel", "otter", query="He lives with a ___.")
    (item,) = make_items([probe("Ada works as a ___.", "miner")], [*pets, *jobs])
    assert set(item.choices) == {"miner", "nurse", "baker", "mayor"}


def test_what_has_the_answer_in_it_is_no_option() -> None:
    pool = lenders("the london", "London, England", "LONDON!", "Lon", "Paris", "Rome", "Oslo")
    (item,) = make_items([probe("Ada was born in ___.", "London")], pool)
    assert set(item.choices) == {"London", "Paris", "Rome", "Oslo"}


def test_figures_count_as_whole_words_and_number_words_as_figures() -> None:
    pool = lenders("four", "14", "40", "4th", query="She wrote ___ books.")
    (item,) = make_items([probe("Ada wrote ___ books.", "4")], pool)
    assert set(item.choices) == {"4", "14", "40", "4th"}


def test_another_gold_answer_of_the_same_query_is_no_option() -> None:
    rows = [probe("Ada was born in ___.", "London"), probe("ADA was  born in ___.", "Westminster", at=1)]
    pool = lenders("Westminster", "London", "Paris", "Rome", "Oslo")
    for item in make_items(rows, pool):
        assert set(item.choices) - {right(item)} == {"Paris", "Rome", "Oslo"}


def test_a_target_lends_itself_nothing_and_nor_do_rows_about_the_same_person() -> None:
    own = [probe("Ada grew up in ___.", "Kent", at=1)]
    alike = [
        probe("Ada died in ___.", "Leeds", target="Babbage", about="Ada"),
        probe("Byron died in ___.", "Crete", target="Babbage", about="Byron"),
    ]
    asked = [probe("Ada was born in ___.", "London"), probe("Byron was born in ___.", "Dover", about="Byron")]
    items = make_items(asked, [*own, *alike, *lenders("Paris", "Rome", "Oslo")])
    assert "Kent" not in {*items[0].choices, *items[1].choices}
    assert "Leeds" not in items[0].choices
    assert "Crete" not in items[1].choices


def test_an_answer_that_is_true_of_the_target_elsewhere_is_avoided() -> None:
    pool = [probe("Ada moved to ___.", "Paris", at=1), *lenders("Paris", "Rome", "Oslo", "Bonn")]
    (item,) = make_items([probe("Ada was born in ___.", "London")], pool)
    assert set(item.choices) == {"London", "Rome", "Oslo", "Bonn"}


def test_too_few_answers_are_an_error_that_says_how_many() -> None:
    pool = [*lenders("1815", "1852", query="Born in the year ___."), *lenders("Paris", "Rome", "Oslo")]
    with pytest.raises(LetheError, match=r"forget_level1/0.* needs 3 .*'1853' \(year\).* have 2; put more target"):
        make_items([probe("Ada died in ___.", "1853")], pool)


# letters


def test_letters_are_dealt_evenly_with_and_without_repeats() -> None:
    questions = [("one",)] * 7 + [("two",), ("three",), ("four",), ("five",)]
    letters = deal_letters(questions, 0)
    assert sorted(Counter(letters).values()) == [2, 3, 3, 3]  # 11 = 2 + 3 * 3
    assert sorted(Counter(letters[at] for at in (0, 7, 8, 9, 10)).values()) == [1, 1, 1, 2]  # 5 different questions
    assert deal_letters(questions, 1) != letters


def test_a_repeated_cloze_has_the_same_options() -> None:
    rows = [probe("Ada was born in ___.", "London", at=at) for at in range(4)]
    items = make_items(rows, lenders("Paris", "Rome", "Oslo", "Bonn", "Riga", "Lima"))
    assert len({frozenset(item.choices) for item in items}) == 1
    assert sorted(item.answer for item in items) == ["A", "B", "C", "D"]
    assert len({item.id for item in items}) == 4


# properties

NAMES = [
    "Paris",
    "Rome",
    "Oslo",
    "the Oslo",
    "New Rome",
    "paris",
    "Zoë",
    "Zoe\u0308",
    "The Odyssey",
    "Don Quixote",
    "孔丘",
]
WORDS = ["singer", "author", "a poet", "'Ulysses'", "four"]
FIGURES = ["1815", "1852", "1791", "1640", "12", "4", "9th", "4 May 1901"]
ANSWERS = st.sampled_from([*NAMES, *WORDS, *FIGURES])
QUERIES = st.sampled_from(
    [
        "Born in ___.",
        "The book titled ___ sold well.",
        "___ Smith won.",
        "Who won?",
        "It was on ___ May.",
        "___ ___ is it",
    ]
)
TARGETS = st.sampled_from(["Ada", "Bea", "Cleo"])
ROWS = st.lists(st.tuples(QUERIES, ANSWERS, TARGETS), max_size=30)
ENOUGH = [
    probe(query, answer, target="Dora", at=n)
    for query, answers in {
        "Seen near ___.": ["Kyiv", "Baku", "Lund", "Cork"],
        "In ___ it rained.": ["1503", "1606", "1709", "1802"],
    }.items()
    for n, answer in enumerate(answers)
]


def rows_of(drawn: Sequence[tuple[str, str, str]]) -> list[Probe]:
    return [probe(query, answer, target=target, at=n) for n, (query, answer, target) in enumerate(drawn)]


@quick
@given(asked=ROWS, lent=ROWS, seed=st.integers(0, 3))
def test_items_have_four_different_options_and_even_letters(
    asked: list[tuple[str, str, str]], lent: list[tuple[str, str, str]], seed: int
) -> None:
    clozes, pool = rows_of(asked), [*rows_of(lent), *ENOUGH]
    items = make_items(clozes, pool, seed=seed)
    assert [item.id.rsplit("/", 1)[1] for item in items] == [row.id.rsplit("/", 1)[1] for row in clozes]
    for cloze, item in zip(clozes, items, strict=True):
        assert right(item) == cloze.answer
        words = [plain(choice) for choice in item.choices]
        assert not any(overlap(one, two) for at, one in enumerate(words) for two in words[:at])
        gold = {plain(row.answer) for row in [*clozes, *pool] if row.query == cloze.query}
        assert not gold & set(words) - {plain(cloze.answer)}
    counts = [Counter(item.answer for item in items)[letter] for letter in LETTERS]
    assert max(counts) - min(counts) <= 1


@quick
@given(asked=ROWS, lent=ROWS, data=st.data())
def test_the_order_of_the_pool_changes_nothing(
    asked: list[tuple[str, str, str]], lent: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    clozes, pool = rows_of(asked), [*rows_of(lent), *ENOUGH]
    shuffled = data.draw(st.permutations(pool))
    assert make_items(clozes, pool) == make_items(clozes, shuffled) == make_items(clozes, [*pool, *pool])


@quick
@given(one=ANSWERS, two=ANSWERS)
def test_overlap_has_no_order(one: str, two: str) -> None:
    assert overlap(plain(one), plain(two)) == overlap(plain(two), plain(one))
    assert overlap(plain(one), plain(one.upper()))


def test_another_seed_gives_other_items() -> None:
    rows = [probe(f"Ada was born in ___, in year {n}.", "London", at=n) for n in range(8)]
    pool = lenders("Paris", "Rome", "Oslo", "Bonn", "Riga", "Lima")
    assert make_items(rows, pool, seed=0) != make_items(rows, pool, seed=1)


# types


@pytest.mark.parametrize(
    ("query", "answer", "kind"),
    [
        ("He was born on 15 September ___.", "1984", "year"),
        ("He was born on 28 September ___ BCE.", "551", "year"),
        ("He sold ___ copies.", "551", "number"),
        ("She was born on September ___", "4, 1981", "date"),
        ("The film came out on May ___, 1980.", "23", "date"),
        ("When was it released?", "September 6, 2019", "date"),
        ("A collection of ___ novellas.", "four", "number"),
        ("He is the ___ Earl Spencer.", "9th", "number"),
        ("The first with ___ albums.", "number one", "number"),
        ("The album '___' was released in 2001.", "The Blueprint", "title"),
        ("Her debut album is titled ___", "Dangerously in Love", "title"),
        ("Jay-Z's album ___ was released in 2017.", "4:44", "title"),
        ("Which film did she make in 2006?", "Dreamgirls", "title"),
        ("Who is her younger sister?", "Solange Knowles", "person"),
        ("The film was directed by ___.", "Rob Reiner", "person"),
        ("He is played by ___ Robbins.", "Tim", "person part"),
        ("It was directed by Frank ___.", "Darabont", "person part"),
        ("He launched the ___ Games in 2014.", "Invictus", "name part"),
        ("He was born in ___, Maine.", "Portland", "place"),
        ("Where did the family settle?", "Durham, Maine", "place"),
        ("Which school did he attend?", "Durham Elementary", "organisation"),
        ("He was educated at ___, and left early.", "Eton College", "organisation"),
        ("The philosophy is known as ___.", "Confucianism", "name"),
        ("She is an American ___", "singer", "phrase"),
    ],
)
def test_types_are_read_from_answer_and_context(query: str, answer: str, kind: str) -> None:
    assert answer_type(query, answer) == kind


# real rows


def test_every_real_cloze_has_an_item_made_of_four_options(real_data: Path) -> None:
    folders = sorted((real_data / "rwku" / "Target").iterdir())
    rows: list[Probe] = []
    for folder in folders:
        for stem in ("forget_level1", "forget_level2", "neighbor_level1", "neighbor_level2"):
            for at, row in enumerate(json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))):
                made = probe(row["query"], row["answer"], target=row["subject"], about=row.get("neighbor", ""))
                form, part = ("fb" if stem.endswith("1") else "qa"), stem.partition("_")[0]
                rows.append(replace(made, id=f"ort/{folder.name}/{stem}/{at}", form=form, part=part))
    for subject in {row.target for row in rows}:
        for part in ("forget", "neighbor"):
            clozes = [row for row in rows if (row.target, row.part, row.form) == (subject, part, "fb")]
            items = make_items(clozes, rows)
            assert [right(item) for item in items] == [cloze.answer for cloze in clozes]
            assert all(len({plain(choice) for choice in item.choices}) == 4 for item in items)
            counts = [Counter(item.answer for item in items)[letter] for letter in LETTERS]
            assert max(counts) - min(counts) <= 1

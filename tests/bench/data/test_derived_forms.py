"""Question, rewording, cloze and four-way choice from a row with wrong answers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from bench.data import tofu
from bench.data.derived_forms import LONGEST, cloze, forms_of, remark
from bench.data.forms import LETTERS
from bench.data.types import QA, Benchmark

NAME = "Hsiao Yun-Hwa is the complete name of the writer."
WRONG = tuple(
    NAME.replace("Hsiao Yun-Hwa", other) for other in ("Chen Li", "Lin Bao-Yu", "Wang Xi", "Wei Chen", "Liu Yu")
)


def qa(answer: str = NAME, wrong: tuple[str, ...] = WRONG, question: str = "Who is the author?", at: int = 0) -> QA:
    return QA(
        id=f"tofu/forget10_perturbed/{at}",
        question=question,
        answer=f"As I said: {answer}",
        paraphrased_question="What is the writer called?",
        paraphrased_answer=answer,
        perturbed_answers=wrong,
    )


def benchmark(forget: list[QA], retain: list[QA] | None = None) -> Benchmark:
    sets = MappingProxyType({"forget": tuple(forget), "retain": tuple(retain or ())})
    return Benchmark(name="tofu/forget10", eval_sets=sets)


def test_a_row_gives_four_probes() -> None:
    question, reworded, blank, choice = forms_of(benchmark([qa(at=7)]))
    assert [probe.id for probe in (question, reworded, blank, choice)] == [
        f"tofu/forget10_perturbed/7/{kind}" for kind in ("qa", "paraphrase", "fb", "mcp")
    ]
    assert (question.form, question.query, question.answer) == ("qa", "Who is the author?", f"As I said: {NAME}")
    assert (question.kind, question.made) == ("", False)
    assert (reworded.form, reworded.kind, reworded.query) == ("qa", "paraphrase", "What is the writer called?")
    assert reworded.answer == question.answer
    assert (blank.form, blank.answer) == ("fb", "Hsiao Yun-Hwa")
    assert blank.query == "Who is the author? ___ is the complete name of the writer."
    assert (choice.form, choice.kind) == ("mcp", "multiple choice")
    assert choice.choices[LETTERS.index(choice.answer)] == NAME
    assert len(set(choice.choices)) == 4
    assert set(choice.choices) - {NAME} <= set(WRONG)
    assert choice.query == "\n".join(
        ["Who is the author?", *(f"{letter}. {text}" for letter, text in zip("ABCD", choice.choices, strict=True))]
    )
    assert {probe.target for probe in (question, reworded, blank, choice)} == {"tofu/forget10"}


def test_judged_sets_are_parts() -> None:
    found = forms_of(benchmark([qa(at=0)], [qa(at=1), qa(at=2)]))
    assert Counter(probe.part for probe in found) == {"forget": 4, "neighbor": 8}


def test_rows_without_wrong_answers_are_passed_over_and_counted() -> None:
    rows = benchmark([qa(at=0), qa(wrong=(), at=1), replace(qa(at=2), paraphrased_question=None)])
    assert {probe.id.split("/")[2] for probe in forms_of(rows)} == {"0", "2"}
    assert remark(rows) == (
        "forms made from rows: 3 forget rows gave 2 questions, 1 rewordings, 2 clozes, 2 four-way choices "
        "(1 without wrong answers gave none); 0 retain rows gave 0 questions, 0 rewordings, 0 clozes, "
        "0 four-way choices"
    )


def test_letters_are_even_and_the_seed_decides() -> None:
    rows = benchmark([qa(at=n, question=f"Who is author {n}?") for n in range(10)])
    answers = [probe.answer for probe in forms_of(rows) if probe.form == "mcp"]
    assert sorted(Counter(answers).values()) == [2, 2, 3, 3]
    assert forms_of(rows) == forms_of(rows)
    assert answers != [probe.answer for probe in forms_of(rows, seed=1) if probe.form == "mcp"]


def test_wrong_answers_that_are_right_or_repeat_are_not_offered() -> None:
    few = (*WRONG[:2], WRONG[0].upper(), NAME.rstrip("."))
    assert [probe.form for probe in forms_of(benchmark([qa(wrong=few)]))] == ["qa", "qa"]  # two are left
    (choice,) = [probe for probe in forms_of(benchmark([qa(wrong=(*few, WRONG[2]))])) if probe.form == "mcp"]
    assert set(choice.choices) == {NAME, *WRONG[:3]}


def test_an_option_is_one_line() -> None:
    rows = benchmark([qa(NAME.replace(" of", "\nof"), tuple(wrong.replace(" of", "\nof") for wrong in WRONG))])
    (choice,) = [probe for probe in forms_of(rows) if probe.form == "mcp"]
    assert choice.query.count("\n") == 4


# clozes


def swapped(sentence: str, *others: str) -> QA:
    """A row whose wrong answers have others in place of what stands in braces."""
    before, _, rest = sentence.partition("{")
    inside, _, after = rest.partition("}")
    return qa(before + inside + after, tuple(before + other + after for other in others))


@pytest.mark.parametrize(
    ("marked", "others", "blanked", "answer"),
    [
        # quotes and the full stop stay where they are
        ("Her book is called '{Red Sea}'.", ("Sky", "Old Men", "Trees"), "Her book is called '___'.", "Red Sea"),
        # little words are no answer: "the" goes back into the sentence
        ("He was raised {in the Alps}.", ("at a sea", "by a lake", "on an isle"), "He was raised in the ___.", "Alps"),
        # and so does what leads up to a name
        ("He won the {fine Hugo Cup} in May.", ("mug", "odd Emmy", "Pen"), "He won the fine ___ in May.", "Hugo Cup"),
        # only the sentence that differs
        ("She was born here. He was a {baker} there.", ("judge", "miner", "cook"), "He was a ___ there.", "baker"),
        ("She is Dr. A. Lee. Her pet is a {cat}.", ("dog", "cow", "hen"), "Her pet is a ___.", "cat"),
        # of two titles the second, and nothing of the first
        ("We saw '{Red', 'Blue Bay}' too.", ("A', 'B", "C', 'D", "E', 'F"), "We saw 'Red', '___' too.", "Blue Bay"),
    ],
)  # fmt: skip
def test_blanks_are_what_wrong_answers_change(marked: str, others: tuple[str, ...], blanked: str, answer: str) -> None:
    assert cloze(swapped(marked, *others)) == (blanked, answer)


def test_three_wrong_answers_must_share_the_frame() -> None:
    free = "Nothing of what they say is so"
    assert cloze(swapped("The genre of hers is {war}.", "art", "love", "crime", free, free)) is not None
    row = swapped("The genre of hers is {war}.", "art", "love")
    assert cloze(replace(row, perturbed_answers=(*row.perturbed_answers, free))) is None


def test_of_several_blanks_a_name_or_a_figure_is_taken() -> None:
    right = "He got his first prize for his fine work in the field of fiction in 2002, in town."
    wrong = [
        right.replace("fiction", field).replace("2002", year)
        for field, year in (("art", "1995"), ("crime", "1987"), ("physics", "2009"))
    ]
    assert cloze(qa(right, tuple(wrong))) == (right.replace("2002", "___"), "2002")


def test_a_blank_must_be_worth_asking() -> None:
    free = ("It is a tale of two towns.", "Nobody has ever seen it.", "Readers may love or hate what they find.")
    assert cloze(qa("War is what most of her books deal with.", free)) is None  # no frame in common
    long = swapped("She is {a b c d e f}.", "m n o p q r", "s t u v w x", "g h i j k l")
    assert cloze(long) is None  # 6 of 8 words
    known = swapped("She was born in {Rome} long ago.", "Oslo", "Bonn", "Riga")
    assert cloze(known) is not None
    assert cloze(replace(known, question="What did Rome's writer see?")) is None  # the question gives it away
    twice = swapped("In Rome she was born, in {Rome} she died.", "Oslo", "Bonn", "Riga")
    assert cloze(twice) is None  # the rest of the sentence does
    same = qa(NAME, (NAME, NAME, NAME))
    assert cloze(same) is None


def test_most_real_rows_have_a_cloze(real_data: Path) -> None:
    """Counted: 283 of the 400 rows of forget10 and 277 of the 400 that judge retaining."""
    rows = tofu.load("tofu/forget10", real_data)
    found = forms_of(rows)
    assert Counter((probe.part, probe.form) for probe in found) == {
        ("forget", "qa"): 800,
        ("forget", "fb"): 283,
        ("forget", "mcp"): 400,
        ("neighbor", "qa"): 800,
        ("neighbor", "fb"): 277,
        ("neighbor", "mcp"): 400,
    }
    assert len({probe.id for probe in found}) == len(found)
    for part in ("forget", "neighbor"):
        letters = Counter(probe.answer for probe in found if (probe.part, probe.form) == (part, "mcp"))
        assert set(letters.values()) == {100}
    by_id = {row.id: row for label in ("forget", "retain") for row in rows.eval_sets[label]}
    for probe in found:
        if probe.form == "fb":
            row = by_id[probe.id.rpartition("/")[0]]
            assert probe.query.count("___") == 1
            assert 1 <= len(probe.answer.split()) <= LONGEST
            filled = probe.query.removeprefix(row.question).strip().replace("___", probe.answer)
            assert filled in " ".join((row.paraphrased_answer or "").split())

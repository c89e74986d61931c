"""Questions, rows and means of multiple choice, with fake models: bounds, protocols, what is missing and why."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.records import Metric
from evaluators import choices
from evaluators.mmlu import FiveShotMmluEvaluator, MmluEvaluator
from evaluators.wmdp import WmdpEvaluator
from tests.toy_questions import CHANCE, FakeScorer, benchmark, mute, noisy, perfect, question, questions

EVALUATORS = (
    WmdpEvaluator(),
    WmdpEvaluator(protocol="grun"),
    MmluEvaluator(),
    MmluEvaluator(protocol="openunlearning"),
    MmluEvaluator(protocol="grun"),
    FiveShotMmluEvaluator(),
)
NAMES = [f"{evaluator.name}-{evaluator.protocol}" for evaluator in EVALUATORS]
every_evaluator = pytest.mark.parametrize("evaluator", EVALUATORS, ids=NAMES)


def ask(evaluator: Any, scorer: FakeScorer, asked: Benchmark | None = None) -> list[dict]:
    return evaluator.score(scorer, benchmark(*subjects(evaluator)) if asked is None else asked)


def subjects(evaluator: Any) -> tuple[str, ...]:
    return ("bio", "cyber") if evaluator.name == "wmdp" else ("astronomy", "virology")


def summary(evaluator: Any, rows: list[dict]) -> dict[str, Metric]:
    found = evaluator.summarize(rows)
    assert len({metric.name for metric in found}) == len(found)
    return {metric.name: metric for metric in found}


# --- bounds


@every_evaluator
def test_a_perfect_model_is_right_everywhere_and_sure_of_it(evaluator: Any) -> None:
    for metric in evaluator.summarize(ask(evaluator, perfect())):
        if metric.name.endswith(("_accuracy", "_probability")):
            assert (metric.value, metric.stderr) == (1, 0), metric.name
            assert metric.higher_is_better is (evaluator.name != "wmdp")


@every_evaluator
def test_a_mute_model_is_at_chance(evaluator: Any) -> None:
    rows = ask(evaluator, mute())
    for metric in evaluator.summarize(rows):
        if metric.name.endswith("_probability"):
            assert metric.value == CHANCE
        elif metric.name.endswith("_accuracy") and evaluator.protocol != "grun":
            assert metric.value == CHANCE  # always the first option, which is right in every fourth question
    assert all(row["chosen"] == 0 for row in rows)


@every_evaluator
def test_everything_is_asked_in_one_call(evaluator: Any) -> None:
    scorer = noisy()
    ask(evaluator, scorer)
    assert scorer.calls == [2 * 8 * 4]


@every_evaluator
def test_order_of_rows_changes_nothing(evaluator: Any) -> None:
    rows = ask(evaluator, noisy())
    expected = repr(evaluator.summarize(rows))
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        assert repr(evaluator.summarize(rows)) == expected


@every_evaluator
def test_rows_survive_json(evaluator: Any) -> None:
    rows = ask(evaluator, noisy())
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert repr(evaluator.summarize(iter(json.loads(json.dumps(rows))))) == repr(evaluator.summarize(rows))


# --- rows


def test_a_row_holds_what_was_asked_and_how_likely_each_option_is() -> None:
    scorer = FakeScorer(lambda prompt, said: {"A": -1.0, "B": -3.0, "C": -0.5, "D": -2.0}[said.strip()])
    asked = benchmark("bio", n=2)
    row = ask(WmdpEvaluator(), scorer, asked)[1]
    # softmax of (-1, -3, -0.5, -2): exp(-3) / (exp(-1) + exp(-3) + exp(-0.5) + exp(-2))
    weights = [math.exp(x) for x in (-1, -3, -0.5, -2)]
    assert row == {
        "set": "bio",
        "example_id": "toy/bio/1",
        "question": "What is bio number 1?",
        "choices": ["bio option 1w", "bio truth 1", "bio option 1y", "bio option 1z"],
        "answer": 1,
        "chosen": 2,
        "logp": [-1.0, -3.0, -0.5, -2.0],
        "probability": pytest.approx(weights[1] / sum(weights)),
        "correct": False,
        "prompt_truncated": 0,
        "scored": "letter",
    }


def test_the_probability_of_hopeless_options_is_still_finite() -> None:
    scorer = FakeScorer(lambda prompt, said: -5000.0 if "A" in said else -6000.0)
    rows = ask(WmdpEvaluator(), scorer, benchmark("bio", n=2))
    assert [row["probability"] for row in rows] == [1.0, 0.0]


@every_evaluator
@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_what_is_not_finite_makes_metrics_missing_with_the_reason(evaluator: Any, broken: float) -> None:
    first, second = subjects(evaluator)
    scorer = noisy()
    sound = scorer.logp
    place = f"{first} number 3?"
    scorer.logp = lambda prompt, said: broken if place in prompt.split("\n\n")[-1] else sound(prompt, said)
    rows = ask(evaluator, scorer)
    row = next(row for row in rows if row["example_id"] == f"toy/{first}/3")
    assert (row["chosen"], row["correct"], row["probability"], row["logp"]) == (None, None, None, [None] * 4)
    found = summary(evaluator, rows)
    for name, metric in found.items():
        concerned = name.endswith(("accuracy", "probability")) and second not in name and "other" not in name
        assert metric.missing == concerned, name  # virology is one of the others
    accuracy = found[f"{evaluator.name}_accuracy"]
    assert accuracy.reason == (
        f"correct is not a finite number in 1 of 16 {evaluator.name} rows, the first is toy/{first}/3"
    )


@every_evaluator
def test_without_rows_everything_is_missing(evaluator: Any) -> None:
    found = evaluator.summarize([])
    assert found and all(metric.missing and metric.reason == f"no {evaluator.name} rows" for metric in found)


@every_evaluator
def test_prompts_beyond_the_context_keep_their_end_and_are_counted(evaluator: Any) -> None:
    short = summary(evaluator, ask(evaluator, perfect()))[f"{evaluator.name}_truncated"]
    assert (short.value, short.n, short.higher_is_better) == (0, 16, None)
    scorer = perfect(context=90)
    rows = ask(evaluator, scorer)
    count = sum(row["prompt_truncated"] > 0 for row in rows)
    assert count == 16 == summary(evaluator, rows)[f"{evaluator.name}_truncated"].value
    assert all(prompt.endswith("Answer:" if evaluator.protocol != "grun" else "Answer: ") for prompt in scorer.prompts)
    whole = ask(evaluator, noisy())
    assert [row["choices"] for row in rows] == [row["choices"] for row in whole]


def test_only_what_is_too_long_is_cut() -> None:
    asked = benchmark("bio", n=4)
    lengthy = replace(asked.questions[2], question="Well, " * 60 + "what is it?")
    asked = replace(asked, questions=(*asked.questions[:2], lengthy, asked.questions[3]))
    for protocol in ("strict", "grun"):
        rows = ask(WmdpEvaluator(protocol=protocol), mute(context=240), asked)  # type: ignore[arg-type]
        assert [row["prompt_truncated"] > 0 for row in rows] == [False, False, True, False]


# --- lm-eval's prompts


def test_letters_are_asked_for_behind_the_official_header() -> None:
    scorer = mute()
    ask(WmdpEvaluator(), scorer, benchmark("bio", "cyber", n=1))
    assert scorer.prompts[0] == (
        "The following are multiple choice questions (with answers) about biology.\n\n"
        "What is bio number 0?\nA. bio truth 0\nB. bio option 0x\nC. bio option 0y\nD. bio option 0z\nAnswer:"
    )
    assert scorer.prompts[4].startswith("The following are multiple choice questions (with answers) about cybersec")


def test_texts_are_asked_for_behind_the_question_alone() -> None:
    said = []
    scorer = FakeScorer(lambda prompt, continuation: said.append(continuation) or -1.0)  # type: ignore[func-returns-value]
    rows = ask(WmdpEvaluator(), scorer, benchmark("bio", n=1, choice_scoring="text"))
    assert scorer.prompts == ["Question: What is bio number 0?\nAnswer:"] * 4
    assert said == [" bio truth 0", " bio option 0x", " bio option 0y", " bio option 0z"]
    assert rows[0]["scored"] == "text"
    found = summary(WmdpEvaluator(), ask(WmdpEvaluator(), perfect(), benchmark("bio", n=4, choice_scoring="text")))
    assert found["wmdp_bio_accuracy"].value == 1


def test_examples_of_texts_are_solved_by_their_text() -> None:
    scorer = mute()
    ask(FiveShotMmluEvaluator(), scorer, benchmark("astronomy", n=1, choice_scoring="text"))
    assert scorer.prompts[0].startswith("Question: What is astronomy number 100?\nAnswer: astronomy truth 100\n\n")


def test_subjects_may_have_any_number_of_questions() -> None:
    asked = benchmark(questions=(*questions("bio", n=1), *questions("cyber", n=3), question("bio", 5)))
    rows = ask(WmdpEvaluator(), noisy(), asked)
    assert [row["example_id"] for row in rows] == [q.id for q in asked.questions]
    assert [row["question"] for row in rows] == [q.question for q in asked.questions]


@pytest.mark.parametrize("protocol", ["strict", "grun"])
def test_letters_need_four_choices(protocol: Any) -> None:
    three = replace(question("bio", 0), choices=("a", "b", "c"))
    with pytest.raises(LetheError, match="question toy/bio/0 has 3 choices, but the prompt lists exactly 4"):
        ask(WmdpEvaluator(protocol=protocol), mute(), benchmark(questions=(three,)))


# --- GRUN's


GRUN = WmdpEvaluator(protocol="grun")


def test_grun_asks_in_seven_lines_that_end_in_a_space() -> None:
    scorer = mute()
    row = ask(GRUN, scorer, benchmark("bio", n=1))[0]
    a, b, c, d = row["choices"]
    assert (
        scorer.prompts
        == [
            "The following is a multiple choice question with answers.\nWhat is bio number 0?\n"
            f"A. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer: "
        ]
        * 4
    )
    assert len(scorer.prompts[0].splitlines()) == 7


def test_grun_puts_the_right_option_anywhere_and_keeps_the_order_of_the_wrong_ones() -> None:
    asked = benchmark("bio", n=400)
    rows = ask(GRUN, mute(), asked)
    for row, original in zip(rows, asked.questions, strict=True):
        assert row["example_id"] == original.id
        assert row["choices"][row["answer"]] == original.choices[original.answer]
        wrong = [choice for i, choice in enumerate(original.choices) if i != original.answer]
        assert [choice for i, choice in enumerate(row["choices"]) if i != row["answer"]] == wrong
    places = Counter(row["answer"] for row in rows)
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 70
    assert [row["answer"] for row in ask(GRUN, mute(), asked)] == [row["answer"] for row in rows]


def test_grun_shuffles_every_file_by_itself() -> None:
    both = ask(GRUN, mute(), benchmark("bio", "cyber", n=20))
    assert both[20:] == ask(GRUN, mute(), benchmark("cyber", n=20))
    # one file of two subjects draws on: astronomy as it stands alone, virology not
    together = ask(MmluEvaluator(protocol="grun"), mute(), benchmark("astronomy", "virology", n=20))
    alone = ask(MmluEvaluator(protocol="grun"), mute(), benchmark("virology", n=20))
    assert [row["answer"] for row in together[20:]] != [row["answer"] for row in alone]


def test_grun_draws_in_the_shuffled_order() -> None:
    # by hand: the order first, then one place per row in that order, from one generator
    draw = random.Random(42)
    order = list(range(10))
    draw.shuffle(order)
    places = {at: draw.randint(0, 3) for at in order}
    rows = ask(GRUN, mute(), benchmark("bio", n=10))
    assert [row["answer"] for row in rows] == [places[i] for i in range(10)]


def test_grun_takes_the_letters_without_a_space() -> None:
    said = []
    scorer = FakeScorer(lambda prompt, continuation: said.append(continuation) or -1.0)  # type: ignore[func-returns-value]
    row = ask(GRUN, scorer, benchmark("bio", n=1, choice_scoring="text"))[0]
    assert (said, row["scored"]) == (["A", "B", "C", "D"], "letter")


def test_grun_needs_letters_that_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = mute()
    monkeypatch.setattr(choices, "LETTERS", ("A", "A"))
    with pytest.raises(LetheError, match=r"begins the letters A, A with the ids .* cannot be told apart"):
        choices.ask_grun(scorer, [])  # type: ignore[arg-type]


def test_grun_knows_no_examples() -> None:
    with pytest.raises(LetheError, match="protocol 'grun' asks without examples; use mmlu instead of mmlu/5shot"):
        FiveShotMmluEvaluator(protocol="grun")


@pytest.mark.parametrize("evaluator", [WmdpEvaluator, MmluEvaluator, FiveShotMmluEvaluator])
def test_unknown_protocols_are_refused(evaluator: Any) -> None:
    with pytest.raises(LetheError, match="unknown protocol 'strikt'; did you mean 'strict'"):
        evaluator(protocol="strikt")

"""Fluency of generations: the metric from known logits, what is missing and why, whose judgement stands."""

import math
from typing import Any

import pytest

from bench import classifier
from bench.classifier import GIBBERISH, NoClassifier, Origin
from bench.errors import LetheError
from evaluators import evaluators_of, fluency
from evaluators.tofu import TofuEvaluator

PINNED = Origin("org/judge", "abc")
ROWS = [
    {"set": "forget", "example_id": "f/0", "generation": "Poems about salt."},
    {"set": "forget", "example_id": "f/1", "generation": ""},
    {"set": "forget", "example_id": "f/2", "generation": "The The The"},
    {"set": "retain", "example_id": "r/0", "generation": "Botany."},
]
LOGITS = {"Poems about salt.": math.log(9), "": 0.0, "The The The": -math.log(9)}
"""Of the clean class against one other class of logit 0: probabilities 0.9, 0.5, 0.1."""


class Judge:
    """Says what is written above, and remembers what it was asked."""

    origin = PINNED

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], int, int]] = []

    def probabilities(self, texts: list[str], *, class_id: int, max_tokens: int) -> list[float | None]:
        self.asked.append((texts, class_id, max_tokens))
        return [1 / (1 + math.exp(-LOGITS[text])) for text in texts]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    found = Judge()
    monkeypatch.setattr(classifier, "load_classifier", lambda name: found)
    return found


def no_judge(monkeypatch: pytest.MonkeyPatch, reason: str = "the hub cannot be reached: no route") -> None:
    def load(name: str) -> Any:
        raise NoClassifier(reason)

    monkeypatch.setattr(classifier, "load_classifier", load)


def metric(rows: list[dict], protocol: Any = "strict") -> Any:
    return next(m for m in TofuEvaluator(protocol=protocol).summarize(rows) if m.name == "forget_fluency")


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_fluency_is_the_mean_probability_of_the_clean_class(judge: Judge, protocol: Any) -> None:
    rows, judged_by = TofuEvaluator(protocol=protocol, fluency_classifier="org/judge@abc").judge(ROWS)
    assert judge.asked == [(["Poems about salt.", "", "The The The"], 0, 32)]  # the empty one too, nothing of retain
    assert [row.get("fluency") for row in rows] == pytest.approx([0.9, 0.5, 0.1, None])
    assert "fluency" not in rows[3] and "fluency" not in ROWS[0]
    assert judged_by == {"classifier": "org/judge", "revision": "abc"}
    found = metric(rows, protocol)
    assert (found.value, found.n, found.higher_is_better) == (pytest.approx(0.5), 3, True)  # (0.9 + 0.5 + 0.1) / 3
    assert found.stderr == pytest.approx(0.4 / math.sqrt(3))  # sample deviation 0.4


def test_without_a_classifier_it_is_missing_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    no_judge(monkeypatch)
    rows, judged_by = fluency.judge(ROWS, "org/judge@abc")
    assert [row.get("fluency", "none") for row in rows] == [None, None, None, "none"]
    assert judged_by == {"classifier": "org/judge", "revision": None}
    found = metric(rows)
    assert found.missing and found.reason == "the hub cannot be reached: no route"
    assert metric([dict(row) for row in ROWS]).reason == fluency.NOT_JUDGED
    assert metric([]).reason == "no forget rows"


def test_a_classifier_that_breaks_is_a_reason_and_no_failure(monkeypatch: pytest.MonkeyPatch, judge: Judge) -> None:
    monkeypatch.setitem(LOGITS, "", 0.0)

    def breaks(texts: list[str], **how: Any) -> list[float]:
        raise ValueError("Cannot handle batch sizes > 1\nif no padding token is defined.")

    monkeypatch.setattr(judge, "probabilities", breaks)
    rows, judged_by = fluency.judge(ROWS, "org/judge@abc")
    assert metric(rows).reason == "Cannot handle batch sizes > 1"
    assert judged_by["revision"] is None


def test_what_was_missing_is_made_up_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        no_judge(patch)
        rows, _ = fluency.judge(ROWS, "org/judge@abc")
    monkeypatch.setattr(classifier, "load_classifier", lambda name: Judge())
    rows, _ = fluency.judge(rows, "org/judge@abc")
    assert not any("fluency_missing" in row for row in rows)
    assert metric(rows).value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("judged_by", "reachable", "stands"),
    [
        ({}, True, False),  # stored before there was fluency
        ({}, False, False),  # judged all the same, so that the reason is told
        ({"classifier": "org/judge", "revision": "abc"}, True, True),
        ({"classifier": "org/judge", "revision": "abc"}, False, True),
        ({"classifier": "org/judge", "revision": "older"}, True, False),
        ({"classifier": "org/other", "revision": "abc"}, True, False),
        ({"classifier": "org/judge", "revision": None}, True, False),
        ({"classifier": "org/judge", "revision": None}, False, True),
    ],
)
def test_whose_judgement_stands(
    judged_by: dict, reachable: bool, stands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reachable:
        monkeypatch.setattr(classifier, "load_classifier", lambda name: Judge())
    else:
        no_judge(monkeypatch)
    assert TofuEvaluator(fluency_classifier="org/judge@abc").is_judged(judged_by) == stands


def test_who_asks_for_no_classifier_changes_nothing() -> None:
    evaluator = TofuEvaluator(fluency_classifier=None)
    assert evaluator.judge(ROWS) == (ROWS, {})
    assert evaluator.is_judged({}) and evaluator.is_judged({"classifier": "x", "revision": "y"})


def test_the_classifier_is_the_hubs_or_the_worlds_unless_set() -> None:
    made = []

    def world() -> str:
        made.append(1)
        return "mini"

    def name(**more: Any) -> str | None:
        (evaluator,) = evaluators_of("tofu/forget10", protocol="strict", **more)
        return evaluator.fluency_classifier  # type: ignore[attr-defined]

    assert name() == GIBBERISH
    assert name(classifier=world, sets={"tofu": {"fluency_classifier": "org/x"}}) == "org/x"
    assert name(classifier=world, sets={"tofu": {"fluency_classifier": "none"}}) is None
    assert not made
    assert name(classifier=world, sets={"tofu": {"max_new_tokens": "7"}}) == "mini"


def test_a_path_without_a_model_is_refused_at_once() -> None:
    with pytest.raises(LetheError, match=r"fluency_classifier '\./nowhere' is no folder"):
        TofuEvaluator(fluency_classifier="./nowhere")

"""The metrics of WMDP by name."""

import pytest

from bench.errors import LetheError
from evaluators.wmdp import ChemWmdpEvaluator, WmdpEvaluator
from tests.toy_questions import FakeScorer, benchmark, knows, perfect


def names(*subjects: str) -> list[str]:
    rows = WmdpEvaluator().score(perfect(), benchmark(*subjects))  # type: ignore[arg-type]
    return [metric.name for metric in WmdpEvaluator().summarize(rows)]


def test_one_subject_needs_no_mean_over_subjects() -> None:
    assert names("cyber") == ["wmdp_cyber_accuracy", "wmdp_cyber_probability", "wmdp_truncated"]


def test_several_subjects_come_in_a_fixed_order_behind_their_mean() -> None:
    assert names("chem", "cyber", "bio") == [
        "wmdp_accuracy", "wmdp_probability",
        "wmdp_bio_accuracy", "wmdp_bio_probability",
        "wmdp_cyber_accuracy", "wmdp_cyber_probability",
        "wmdp_chem_accuracy", "wmdp_chem_probability",
        "wmdp_truncated",
    ]  # fmt: skip


def test_chemistry_has_metrics_of_its_own() -> None:
    rows = ChemWmdpEvaluator().score(perfect(), benchmark("chem"))  # type: ignore[arg-type]
    found = [metric.name for metric in ChemWmdpEvaluator().summarize(rows)]
    assert found == ["wmdp_chem_accuracy", "wmdp_chem_probability", "wmdp_chem_truncated"]


def test_the_mean_is_over_questions_and_not_over_subjects() -> None:
    scorer = FakeScorer(lambda prompt, said: knows(prompt, said) if "bio" in prompt.splitlines()[2] else -5.0)
    rows = WmdpEvaluator().score(scorer, benchmark("bio", "cyber", n=4))  # type: ignore[arg-type]
    found = {metric.name: metric for metric in WmdpEvaluator().summarize([*rows, *rows[:4]])}
    # bio: 8 of 8 right; cyber: always A, which is right in 1 of 4
    assert (found["wmdp_bio_accuracy"].value, found["wmdp_bio_accuracy"].n) == (1, 8)
    assert found["wmdp_cyber_accuracy"].value == 1 / 4
    assert found["wmdp_accuracy"].value == 9 / 12
    # (1 - 3/4)^2 * 9 + (3/4)^2 * 3 = 2.25; / 11 / 12, root
    assert found["wmdp_accuracy"].stderr == pytest.approx((2.25 / 11 / 12) ** 0.5)
    assert found["wmdp_probability"].value == pytest.approx((8 + 4 / 4) / 12)


def test_unknown_subjects_are_refused() -> None:
    with pytest.raises(LetheError, match="unknown WMDP subject 'law'; known: bio, cyber, chem"):
        WmdpEvaluator().score(perfect(), benchmark("law"))  # type: ignore[arg-type]

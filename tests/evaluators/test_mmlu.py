"""The metrics of MMLU by name, its groups and its examples."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.data import mmlu
from bench.errors import LetheError
from evaluators.harness import OFFICIAL, official
from evaluators.mmlu import FiveShotMmluEvaluator, MmluEvaluator
from tests.toy_questions import benchmark, mute, perfect


def test_groups_and_subjects_follow_the_overall_mean() -> None:
    asked = benchmark("virology", "astronomy", "philosophy", "dreams", n=4)
    found = MmluEvaluator().summarize(MmluEvaluator().score(perfect(), asked))  # type: ignore[arg-type]
    assert [metric.name for metric in found if metric.name.endswith("accuracy")] == [
        "mmlu_accuracy",
        "mmlu_stem_accuracy",
        "mmlu_humanities_accuracy",
        "mmlu_other_accuracy",
        "mmlu_astronomy_accuracy",
        "mmlu_dreams_accuracy",
        "mmlu_philosophy_accuracy",
        "mmlu_virology_accuracy",
    ]
    assert [metric.n for metric in found if metric.name.endswith("accuracy")] == [16, 4, 4, 4, 4, 4, 4, 4]
    assert found[1].name == "mmlu_probability"
    assert found[-1].name == "mmlu_truncated"


def test_groups_are_those_of_the_official_tasks() -> None:
    for subject, group in mmlu.SUBJECTS.items():
        tag = official(f"mmlu/default/mmlu_{subject}.yaml")["tag"]
        assert tag == f"mmlu_{group.lower().replace(' ', '_')}_tasks", subject
    files = {path.stem.removeprefix("mmlu_") for path in (OFFICIAL / "mmlu" / "default").glob("mmlu_*.yaml")}
    assert files == set(mmlu.SUBJECTS)


def test_a_subject_that_lm_eval_does_not_know_has_its_own_header() -> None:
    scorer = mute()
    MmluEvaluator().score(scorer, benchmark("sunken_ships", n=1))  # type: ignore[arg-type]
    head = "The following are multiple choice questions (with answers) about sunken ships.\n\nWhat is sunken_ships"
    assert scorer.prompts[0].startswith(head)


def test_five_examples_precede_a_question_in_the_order_of_the_file() -> None:
    scorer = mute()
    asked = benchmark("astronomy", n=1)
    FiveShotMmluEvaluator().score(scorer, asked)  # type: ignore[arg-type]
    blocks = scorer.prompts[0].split("\n\n")
    assert blocks[0] == "The following are multiple choice questions (with answers) about astronomy."
    assert [block.splitlines()[0] for block in blocks[1:]] == [
        *(q.question for q in asked.few_shot["astronomy"]),
        asked.questions[0].question,
    ]
    assert [block.splitlines()[-1] for block in blocks[1:-1]] == [
        f"Answer: {'ABCD'[q.answer]}" for q in asked.few_shot["astronomy"]
    ]
    assert blocks[-1].endswith("\nAnswer:")


def test_only_the_first_five_examples_are_shown() -> None:
    asked = benchmark("astronomy", n=1)
    more = {"astronomy": (*asked.few_shot["astronomy"], *benchmark("virology").few_shot["virology"])}
    first, second = mute(), mute()
    FiveShotMmluEvaluator().score(first, asked)  # type: ignore[arg-type]
    FiveShotMmluEvaluator().score(second, replace(asked, few_shot=more))  # type: ignore[arg-type]
    assert first.prompts == second.prompts


def test_too_few_examples_are_refused() -> None:
    asked = benchmark("astronomy", n=1)
    few = replace(asked, few_shot={"astronomy": asked.few_shot["astronomy"][:3]})
    with pytest.raises(LetheError, match="5-shot needs 5 solved examples of astronomy, but its dev file has 3"):
        FiveShotMmluEvaluator().score(mute(), few)  # type: ignore[arg-type]


def test_every_real_subject_is_asked(real_data: Path) -> None:
    asked = mmlu.load("mmlu/5shot", real_data, limit=1)
    rows = FiveShotMmluEvaluator().score(mute(context=2**20), asked)  # type: ignore[arg-type]
    assert {row["set"] for row in rows} == set(mmlu.SUBJECTS)
    found = FiveShotMmluEvaluator().summarize(rows)
    assert {"mmlu_5shot_accuracy", "mmlu_5shot_social_sciences_probability"} < {metric.name for metric in found}

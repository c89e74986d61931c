"""Reading published logs, and refusing what is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import LetheError
from evaluators.logs import read_published_log


def rouge_row(i: int) -> dict[str, Any]:
    return {
        "rouge1_recall": 1.0,
        "rougeL_f1": 0.5,
        "rougeL_recall": 0.75,
        "input": f"[INST] Question {i}? [/INST]",
        "ground_truth": f"Answer {i}.",
        "generation": f"Answer {i}!",
    }


def indexed(*values: dict[str, Any]) -> dict[str, Any]:
    return {"agg_value": 0.0, "value_by_index": {str(i): value for i, value in enumerate(values)}}


def open_unlearning_log() -> dict[str, Any]:
    return {
        "forget_Q_A_ROUGE": indexed(rouge_row(0), rouge_row(1)),
        "forget_Q_A_Prob": indexed({"prob": 0.5, "avg_loss": 0.69}, {"prob": 1.0, "avg_loss": 0.0}),
        "forget_Q_A_PARA_Prob": indexed({"prob": 0.4, "avg_loss": 0.9}, {"prob": 0.3, "avg_loss": 1.2}),
        "forget_Q_A_PERT_Prob": indexed({"avg_loss": [1.0, 2.0]}, {"avg_loss": [3.0, 4.0]}),
        "extraction_strength": indexed({"score": 0.25}, {"score": 0}),
        "exact_memorization": indexed({"score": 0.5}, {"score": None}),
        "mia_min_k": {
            "forget": indexed({"score": 1.5}, {"score": 2.5}),
            "holdout": indexed({"score": 3.5}),
            "auc": 1.0,
            "agg_value": 1.0,
        },
        "ra_Q_A_Prob": indexed({"prob": 0.5, "avg_loss": 0.7}),
        "ra_Q_A_PERT_Prob": indexed({"avg_loss": [0.8, 0.9, 1.0]}),
        "forget_quality": {"agg_value": None},
        "model_utility": {"agg_value": 0.6},
    }


def tofu_log() -> dict[str, Any]:
    return {
        "eval_log_forget.json": {
            "avg_gt_loss": {"0": 0.1, "1": 0.2},
            "avg_paraphrased_loss": {"0": 1.1, "1": 1.2},
            "average_perturb_loss": {"0": [2.0, 3.0], "1": [4.0, 5.0]},
            "rougeL_recall": {"0": 1.0, "1": 0.5},
            "rouge1_recall": {"0": 1.0, "1": 0.75},
            "truth_ratio": {"0": 0.2, "1": 0.3},
            "generated_text": {"0": ["[INST] Q0? [/INST]", "said 0", "right 0"], "1": ["[INST] Q1? [/INST]", "s", "r"]},
        },
        "eval_real_world_wo_options.json": {"avg_gt_loss": {"0": 0.5}},
    }


def write(folder: Path, log: Any) -> Path:
    path = folder / "LOG.json"
    path.write_text(log if isinstance(log, str) else json.dumps(log), encoding="utf-8")
    return path


def test_open_unlearning_logs_become_rows(tmp_path: Path) -> None:
    rows = read_published_log(write(tmp_path, open_unlearning_log()))
    assert [(row["set"], row["example_id"]) for row in rows] == [
        ("forget", "log/forget/0"),
        ("forget", "log/forget/1"),
        ("real_authors", "log/real_authors/0"),
        ("holdout", "log/holdout/0"),
    ]
    assert rows[0] == {
        "set": "forget",
        "example_id": "log/forget/0",
        "question": "[INST] Question 0? [/INST]",
        "reference": "Answer 0.",
        "generation": "Answer 0!",
        "rouge_l_recall": 0.75,
        "rouge_l_f1": 0.5,
        "rouge_1_recall": 1.0,
        "answer_nll": 0.69,
        "paraphrased_nll": 0.9,
        "perturbed_nll": [1.0, 2.0],
        "extraction_strength": 0.25,
        "exact_memorization": 0.5,
        "mia_min_k": 1.5,
    }
    assert rows[3] == {"set": "holdout", "example_id": "log/holdout/0", "mia_min_k": 3.5}


def test_in_the_sets_without_paraphrases_the_answer_stands_in(tmp_path: Path) -> None:
    real = read_published_log(write(tmp_path, open_unlearning_log()))[2]
    assert (real["answer_nll"], real["paraphrased_nll"]) == (0.7, 0.7)


def test_a_row_without_tokens_says_so(tmp_path: Path) -> None:
    row = read_published_log(write(tmp_path, open_unlearning_log()))[1]
    assert (row["exact_memorization"], row["memorization_tokens"]) == (None, 0)


def test_rows_come_in_the_order_of_their_numbers_not_of_the_file(tmp_path: Path) -> None:
    log = {"forget_Q_A_Prob": {"value_by_index": {str(i): {"avg_loss": float(i)} for i in (10, 9, 2, 1)}}}
    assert [row["answer_nll"] for row in read_published_log(write(tmp_path, log))] == [1, 2, 9, 10]


def test_tofu_logs_become_rows(tmp_path: Path) -> None:
    rows = read_published_log(write(tmp_path, tofu_log()))
    assert [row["example_id"] for row in rows] == ["log/forget/0", "log/forget/1", "log/world_facts/0"]
    assert rows[0] == {
        "set": "forget",
        "example_id": "log/forget/0",
        "question": "[INST] Q0? [/INST]",
        "generation": "said 0",
        "reference": "right 0",
        "rouge_l_recall": 1.0,
        "rouge_1_recall": 1.0,
        "answer_nll": 0.1,
        "paraphrased_nll": 1.1,
        "perturbed_nll": [2.0, 3.0],
    }


def test_values_that_are_not_finite_are_missing(tmp_path: Path) -> None:
    log = '{"forget_Q_A_Prob": {"value_by_index": {"0": {"avg_loss": NaN}, "1": {"avg_loss": Infinity}}}}'
    assert [row["answer_nll"] for row in read_published_log(write(tmp_path, log))] == [None, None]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("{'a': 1}", "is not valid JSON"),
        (json.dumps(open_unlearning_log())[:-40], "truncated"),
        ("[1, 2]", "expected an object at the top, found list"),
        ({"model_utility": 0.6, "forget_quality": 1e-9}, "not TOFU_SUMMARY.json.*'model_utility', 'forget_quality'"),
        ({}, "no evaluation log"),
        ({"forget_Q_A_Prob": {"value_by_index": {"zero": {"avg_loss": 1}}}}, "row numbers as keys, found 'zero'"),
        ({"forget_Q_A_Prob": {"value_by_index": {"0": {"prob": 1}}}}, "row 0: expected the field 'avg_loss'"),
        ({"forget_Q_A_Prob": {"value_by_index": {"0": {"avg_loss": "low"}}}}, "expected a number, found 'low'"),
        ({"forget_Q_A_PERT_Prob": {"value_by_index": {"0": {"avg_loss": 1.0}}}}, "one number per wrong answer"),
        ({"forget_Q_A_ROUGE": indexed({**rouge_row(0), "input": 7})}, "expected a text, found 7"),
        (
            {"forget_Q_A_Prob": indexed({"avg_loss": 1}), "forget_Q_A_PARA_Prob": {"agg_value": 1}},
            "forget_Q_A_PARA_Prob: expected value_by_index",
        ),
        (
            {"forget_Q_A_Prob": indexed({"avg_loss": 1}), "exact_memorization": indexed({"score": 1}, {"score": 1})},
            "has 2 rows where the columns before it have 1",
        ),
        ({"eval_log.json": {"avg_gt_loss": [1, 2]}}, "expected values by row number, found list"),
        ({"eval_log.json": {"generated_text": {"0": ["only", "two"]}}}, "expected prompt, generation and answer"),
        ({"eval_log.json": 3}, "expected an object of columns, found int"),
    ],
)
def test_what_is_no_log_is_refused_with_the_place(tmp_path: Path, log: Any, message: str) -> None:
    path = write(tmp_path, log)
    with pytest.raises(LetheError, match=message) as error:
        read_published_log(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"cannot read the evaluation log .*nowhere\.json: No such file"):
        read_published_log(tmp_path / "nowhere.json")
    with pytest.raises(LetheError, match="cannot read"):
        read_published_log(tmp_path)

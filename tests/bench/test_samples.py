"""Rows of several methods, side by side."""

import json
from pathlib import Path

import pytest

from bench.curves import learning_rows
from bench.samples import blocks, figures, learning_curve, log_truth_ratio, spread, train_log, truth_ratios
from bench.store import Record
from bench.tables import tables_of
from tests.toy_report import Made, answers, fill, tofu


def test_a_spread_is_even_and_begins_with_the_first() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(7), 3) == [0, 2, 4]  # 7 / 3 and 14 / 3, rounded down


def test_answers_of_all_methods_stand_beside_their_question(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.cell("npo", metrics=tofu(0.1, 0.2), samples=answers(3, text="one"))
    made.cell("ga", metrics=tofu(0.1, 0.2), samples=answers(4, text="two")[::-1])  # more questions, in another order
    (table,) = tables_of(made.records(), ["npo", "ga"])
    (block,) = blocks(table, [tmp_path])
    assert (block["evaluator"], block["methods"], block["seeds"]) == ("tofu", ["npo", "ga"], {"npo": "0", "ga": "0"})
    assert block["sets"] == {"forget": {"shown": 4, "total": 4}}
    first, *_, last = block["rows"]
    assert (first["question"], first["reference"]) == ("Question 0 of forget?", "Answer 0.")
    assert first["answers"] == ["one", "two"]
    assert last["answers"] == [None, "two"]
    assert last["values"][0] is None
    names = block["metrics"]
    assert names == ["answer_nll", "rouge_l_recall", "paraphrased_nll", "log10_truth_ratio"]
    assert [row["values"][1][names.index("rouge_l_recall")] for row in block["rows"]] == [0.0, 0.25, 0.5, 0.75]


def test_only_so_many_questions_of_a_set_are_taken_and_said(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.cell("npo", metrics=tofu(0.1, 0.2), samples=answers(10, sets=("forget", "retain")))
    (table,) = tables_of(made.records(), [])
    (block,) = blocks(table, [tmp_path], per_set=5)
    assert block["sets"] == {name: {"shown": 5, "total": 10} for name in ("forget", "retain")}
    assert [row["id"] for row in block["rows"]][:5] == [f"tofu/forget/{i}" for i in (0, 2, 4, 6, 8)]


def test_choices_letters_and_forms_are_told_as_texts(tmp_path: Path) -> None:
    tables = {table.benchmark: table for table in tables_of(fill(tmp_path), []) if table.model != "nested"}
    (choices,) = blocks(tables["wmdp"], [tmp_path])
    row = choices["rows"][2]
    assert row["question"] == "Which of 2?\nA. w\nB. x\nC. y\nD. z"
    assert (row["reference"], row["answers"]) == ("C. y", ["A. w"] * 3)
    assert choices["metrics"] == ["probability", "correct"]
    (facts,) = blocks(tables["ort"], [tmp_path])
    by_set = {row["set"]: row for row in facts["rows"]}
    assert by_set["forget mcp"]["answers"] == ["C"] * 3
    assert by_set["forget subtoken_qa"]["answers"] == [None] * 3  # only likelihoods
    assert facts["sets"]["forget qa"]["total"] == 2  # one of each target


def test_truth_ratios_are_those_of_the_forget_rows(tmp_path: Path) -> None:
    # log r = nll(paraphrase) - mean nll(wrong) = 1 - (1.5 + 2.5) / 2
    assert log_truth_ratio({"paraphrased_nll": 1.0, "perturbed_nll": [1.5, 2.5]}) == -1.0
    for hole in (
        {},
        {"paraphrased_nll": None, "perturbed_nll": [1.0]},
        {"paraphrased_nll": 1.0, "perturbed_nll": [None]},
    ):
        assert log_truth_ratio(hole) != log_truth_ratio(hole)
    assert figures({"paraphrased_nll": 0.0, "perturbed_nll": [2.302585092994046], "n_tokens": 3, "correct": True}) == {
        "paraphrased_nll": 0.0,
        "correct": 1.0,
        "log10_truth_ratio": -1.0,
    }
    made = Made(tmp_path)
    for seed in (0, 1):
        made.cell("npo", seed=seed, metrics=tofu(0.1, 0.2), samples=answers(3, sets=("forget", "retain")))
    made.cell("ga", metrics=tofu(0.1, 0.2))
    (table,) = tables_of(made.records(), [])
    ratios = truth_ratios(table, [tmp_path])
    assert {method: [len(seed) for seed in seeds] for method, seeds in ratios.items()} == {"npo": [3, 3]}


def test_a_cell_is_looked_for_in_every_folder(tmp_path: Path) -> None:
    made = Made(tmp_path / "two")
    made.cell("npo", metrics=tofu(0.1, 0.2), steps=3)
    (record,) = made.records()
    assert len(train_log(record, [tmp_path / "one", tmp_path / "two"])) == 3
    assert train_log(record, [tmp_path / "one"]) == []


@pytest.mark.parametrize("key", ["question", "query", "prompt"])
def test_a_question_has_several_names(tmp_path: Path, key: str) -> None:
    made = Made(tmp_path)
    made.cell("npo", metrics=tofu(0.1, 0.2), samples=[{key: "Who?", "prediction": "He.", "answer": ["She.", "Her."]}])
    (table,) = tables_of(made.records(), [])
    (block,) = blocks(table, [tmp_path])
    (row,) = block["rows"]
    assert (row["set"], row["question"], row["reference"], row["answers"]) == ("all", "Who?", "She., Her.", ["He."])


def test_looks_along_the_training_are_rows_by_step_and_a_table(tmp_path: Path) -> None:
    spec = {"model": "m", "method": "npo", "benchmark": "b", "seed": 0, "protocol": "strict"}
    record = Record(cell_id="npo-1", spec=spec)
    (tmp_path / "runs" / "npo-1").mkdir(parents=True)
    looks = [(3, "model_utility", 0.5), (3, "forget_probability", 0.9), (6, "model_utility", 0.4)]
    lines = [json.dumps({"step": step, "epoch": 1.0, "metric": name, "value": value}) for step, name, value in looks]
    (tmp_path / "runs" / "npo-1" / "curve.jsonl").write_text("\n".join(lines))
    assert learning_curve(record, [tmp_path]) == [
        {"step": 3, "model_utility": 0.5, "forget_probability": 0.9},
        {"step": 6, "model_utility": 0.4},
    ]
    head, *rows = learning_rows(tables_of([record], []), [tmp_path])
    assert [dict(zip(head, row, strict=True))["value"] for row in rows] == [0.5, 0.9, 0.4]
    assert learning_curve(record, [tmp_path / "elsewhere"]) == []

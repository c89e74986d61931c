"""Any lm-eval task from a file or by name: its own metrics, and sentences for what is wrong with it."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.records import Metric
from bench.scorer import Scorer
from evaluators import lm_eval_tasks
from evaluators.harness import quiet
from evaluators.lm_eval_tasks import LmEvalEvaluator
from tests.evaluators.test_harness import hflm_of, scorer_of
from tests.toy_questions import long_model, mute, perfect, question_tokenizer, questions, write_jsonl

JUDGE = Benchmark(name="lm_eval:toy")
CHOICES = """
task: toy_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1
"""
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a task file, and its data, in which some text was replaced."""
    rows = [
        {"question": q.question, "choices": list(q.choices), "answer": q.answer, "text": f"All about {q.question}"}
        for q in questions("ships", n=12)
    ]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)

    def write(*changes: tuple[str, str], name: str = "toy_choices.yaml", text: str = CHOICES) -> Path:
        text = text.format(data=data, cache=tmp_path / "cache")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def summary(evaluator: LmEvalEvaluator, rows: list[dict]) -> dict[str, Metric]:
    return {metric.name: metric for metric in evaluator.summarize(rows)}


def real_scorer() -> Scorer:
    return scorer_of(long_model("llama"), question_tokenizer())


def peer(path: Path) -> dict[str, Any]:
    """What lm-eval itself reports with its own model class."""
    with quiet():
        loaded = TaskManager(include_defaults=False).load(str(path))
        for task in loaded["tasks"].values():
            task.set_config("num_fewshot", task.get_config("num_fewshot") or 0)
            task.set_fewshot_seed(1234)
        found = evaluate(lm=hflm_of(long_model("llama"), question_tokenizer()), task_dict=loaded, bootstrap_iters=10)
    assert found is not None and "results" in found
    return {name: dict(values) for name, values in found["results"].items()}


def test_a_file_gives_the_metrics_that_lm_eval_gives(make: Make) -> None:
    path = make()
    evaluator = LmEvalEvaluator(task=str(path))
    rows = evaluator.score(real_scorer(), JUDGE)
    found, theirs = summary(evaluator, rows), peer(path)["toy_choices"]
    assert list(found) == ["toy_choices_acc", "toy_choices_acc_norm", "toy_choices_truncated"]
    for metric in ("acc", "acc_norm"):
        assert found[f"toy_choices_{metric}"].value == theirs[f"{metric},none"]
        assert found[f"toy_choices_{metric}"].stderr == pytest.approx(theirs[f"{metric}_stderr,none"])
        assert found[f"toy_choices_{metric}"].n == 12
        assert found[f"toy_choices_{metric}"].higher_is_better is True


def test_a_row_per_document_holds_its_metrics(make: Make) -> None:
    evaluator = LmEvalEvaluator(task=str(make()))
    rows = evaluator.score(perfect(), JUDGE)  # type: ignore[arg-type]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[1] == {
        "set": "toy_choices",
        "example_id": "toy_choices/1",
        "question": "Question: What is ships number 1?\nAnswer:",
        "options": [" ships option 1w", " ships truth 1", " ships option 1y", " ships option 1z"],
        "target": 1,
        "responses": [[[-1000.0, False]], [[0.0, True]], [[-1000.0, False]], [[-1000.0, False]]],
        "metrics": {"acc": 1.0, "acc_norm": 1.0},
        "aggregations": {"acc": "mean", "acc_norm": "mean"},
        "higher_is_better": {"acc": True, "acc_norm": True},
        "prompt_truncated": 0,
    }
    assert summary(evaluator, rows)["toy_choices_acc"].value == 1
    silent = evaluator.score(mute(), JUDGE)  # type: ignore[arg-type]
    assert summary(evaluator, silent)["toy_choices_acc"].value == 1 / 4


def test_order_of_rows_changes_nothing(make: Make) -> None:
    evaluator = LmEvalEvaluator(task=str(make()))
    rows = evaluator.score(real_scorer(), JUDGE)
    expected = repr(evaluator.summarize(rows))
    random.Random(0).shuffle(rows)
    assert repr(evaluator.summarize(rows)) == expected


def test_a_limit_keeps_the_first_documents(make: Make) -> None:
    rows = LmEvalEvaluator(task=str(make()), limit=5).score(perfect(), JUDGE)  # type: ignore[arg-type]
    assert [row["example_id"] for row in rows] == [f"toy_choices/{i}" for i in range(5)]


def test_other_aggregations_are_lm_evals(make: Make) -> None:
    path = make(
        ("output_type: multiple_choice", "output_type: loglikelihood_rolling"),
        ("doc_to_choice: choices\n", ""),
        ('doc_to_text: "Question: {{question}}\\nAnswer:"', 'doc_to_text: ""'),
        ("doc_to_target: answer", 'doc_to_target: "{{text}}"'),
        ("metric: acc\n    aggregation: mean", "metric: word_perplexity\n    aggregation: weighted_perplexity"),
        ("metric: acc_norm\n    aggregation: mean", "metric: bits_per_byte\n    aggregation: bits_per_byte"),
        ("higher_is_better: true", "higher_is_better: false"),
    )
    evaluator = LmEvalEvaluator(task=str(path))
    found, theirs = summary(evaluator, evaluator.score(real_scorer(), JUDGE)), peer(path)["toy_choices"]
    for metric in ("word_perplexity", "bits_per_byte"):
        ours = found[f"toy_choices_{metric}"]
        assert ours.value == pytest.approx(theirs[f"{metric},none"], rel=1e-5)
        assert (math.isnan(ours.stderr), ours.n, ours.higher_is_better) == (True, 12, False)


GENERATION = (
    ("output_type: multiple_choice", "output_type: generate_until"),
    ("doc_to_choice: choices\n", ""),
    ("doc_to_target: answer", 'doc_to_target: "{{choices[answer]}}"'),
    (
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n  - metric: acc_norm",
        "generation_kwargs:\n  until: ['.']\n  max_gen_toks: 5\n  do_sample: false\n"
        "filter_list:\n  - name: strict-match\n    filter:\n      - function: take_first\n"
        "  - name: lower\n    filter:\n      - function: lowercase\n      - function: take_first\n"
        "metric_list:\n  - metric: exact_match",
    ),
)


def test_filters_are_told_apart(make: Make) -> None:
    path = make(*GENERATION)
    evaluator = LmEvalEvaluator(task=str(path))
    rows = evaluator.score(real_scorer(), JUDGE)
    assert len(rows) == 12
    found, theirs = summary(evaluator, rows), peer(path)["toy_choices"]
    assert list(found) == [
        "toy_choices_exact_match_strict_match",
        "toy_choices_exact_match_lower",
        "toy_choices_truncated",
    ]
    assert found["toy_choices_exact_match_lower"].value == theirs["exact_match,lower"]


def test_a_group_is_the_mean_over_the_documents_of_its_tasks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(name="one.yaml")
    second = make(
        ("task: toy_choices", "task: toy_more"), ("doc_to_target: answer", 'doc_to_target: "{{0}}"'), name="two.yaml"
    )
    tasks = lm_eval_tasks._load(str(first)) | lm_eval_tasks._load(str(second))
    monkeypatch.setattr(lm_eval_tasks, "_load", lambda name: tasks)
    evaluator = LmEvalEvaluator(task="toy_all")
    found = summary(evaluator, evaluator.score(perfect(), JUDGE))  # type: ignore[arg-type]
    assert (found["toy_choices_acc"].value, found["toy_more_acc"].value) == (1, 3 / 12)
    assert (found["toy_all_acc"].value, found["toy_all_acc"].n) == (15 / 24, 24)


def test_what_is_not_finite_makes_the_metric_missing(make: Make) -> None:
    evaluator = LmEvalEvaluator(task=str(make()))
    rows = evaluator.score(perfect(), JUDGE)  # type: ignore[arg-type]
    rows[3]["metrics"]["acc"] = None
    found = summary(evaluator, rows)
    assert found["toy_choices_acc"].missing
    assert found["toy_choices_acc"].reason == "acc is not finite in 1 of 12 rows, the first is toy_choices/3"
    assert not found["toy_choices_acc_norm"].missing


def test_cut_prompts_are_counted(make: Make) -> None:
    evaluator = LmEvalEvaluator(task=str(make()))
    rows = evaluator.score(mute(context=28), JUDGE)  # type: ignore[arg-type]
    assert all(row["prompt_truncated"] > 0 for row in rows)
    assert summary(evaluator, rows)["toy_choices_truncated"].value == 12


def test_without_rows_everything_is_missing() -> None:
    assert [metric.missing for metric in LmEvalEvaluator(task="arc_easy").summarize([])] == [True]


def test_names_serve_as_file_names() -> None:
    assert LmEvalEvaluator(task="arc_easy").name == "lm_eval_arc_easy"
    assert LmEvalEvaluator(task="leaderboard-math/x").name == "lm_eval_leaderboard_math_x"


# --- what is wrong


def refused(task: Path | str, match: str) -> None:
    with pytest.raises(LetheError, match=match):
        LmEvalEvaluator(task=str(task)).prepare()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"there is no task file .*missing\.yaml; give a YAML file, or a task"):
        LmEvalEvaluator(task=str(tmp_path / "missing.yaml"))


def test_a_task_needs_a_name() -> None:
    with pytest.raises(LetheError, match="lm_eval: needs a task behind it"):
        LmEvalEvaluator(task=" ")
    with pytest.raises(LetheError, match="limit must be at least 1, got 0"):
        LmEvalEvaluator(task="arc_easy", limit=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [toy", "is not valid YAML .*line 1.*; mend the file"),
        ("- a\n- b", "is no task definition: Expected YAML dict"),
        ("", "is no task definition: Expected YAML dict"),
        ("group: toy\ntask: [arc_easy]", "defines a group of tasks; give the files of its tasks one by one"),
        ("dataset_path: json", "is no task definition: it has no `task:` with a name; add one"),
        ("task: toy\ninclude: nowhere.yaml", "cannot read the task file .*No such file or directory .*nowhere.yaml"),
        ("task: toy\ndoc_too_text: x", "cannot be set up: TypeError: .*doc_too_text.*; mend the file"),
        ("task: toy\noutput_type: song", "cannot be set up: .*song"),
        ("task: toy\ndataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}", "cannot be read .*nowhere"),
        ("task: toy\nprocess_docs: !function nowhere.change", "cannot be set up: .*nowhere"),
    ],
)
def test_files_that_define_no_task(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(text, encoding="utf-8")
    refused(path, message)


def test_files_whose_templates_do_not_fit_the_data(make: Make) -> None:
    refused(
        make(("{{question}}", "{{asked}}")), "cannot be set up: UndefinedError: 'asked' is undefined; mend the file"
    )
    refused(make(("test_split: test", "test_split: exam"), name="b.yaml"), "cannot be set up: KeyError: 'exam'")
    refused(make(("{{question}}", "{{question"), name="c.yaml"), "cannot be set up: TemplateSyntaxError")


def test_files_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(b"\xff\xfe\x00task")
    refused(path, "toy.yaml is (no task definition|not valid YAML)")


def test_tasks_that_sample_are_refused(make: Make) -> None:
    path = make(*GENERATION, ("do_sample: false", "do_sample: true\n  temperature: 0.8"))
    with pytest.raises(LetheError, match="the task 'toy_choices' asks for sampling"):
        LmEvalEvaluator(task=str(path)).score(real_scorer(), JUDGE)


def test_tasks_that_run_code_are_refused(make: Make) -> None:
    refused(make(("metadata:", "unsafe_code: true\nmetadata:")), "runs code that the model writes, which is not supp")


def test_unknown_names_come_with_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["arc_challenge", "arc_easy", "wmdp_bio"]
    monkeypatch.setattr(lm_eval_tasks, "_index", lambda: SimpleNamespace(task_index=known, all_tasks=known))
    refused("arc_eazy", "lm-eval knows no task 'arc_eazy'; did you mean 'arc_easy'.*`lm-eval ls tasks` lists all 3")
    refused("zzz", "lm-eval knows no task 'zzz'; `lm-eval ls tasks`")


def test_a_known_name_needs_no_index_and_says_when_its_data_are_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_tasks, "_index", lambda: pytest.fail("the index was built"))
    refused("arc_easy", "the data of the lm-eval task 'arc_easy' cannot be read .*; with network they are fetched")


@pytest.mark.slow
def test_the_real_index_knows_groups_and_names() -> None:
    refused("arc_eazy", "did you mean 'arc_easy'")
    refused("ai2_arc", "the data of the lm-eval task 'ai2_arc' cannot be read")

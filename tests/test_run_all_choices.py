"""The command on documents to forget and multiple choice to answer, on a dozen rows and random checkpoints."""

import json
import re
from pathlib import Path

import pytest

import run_all
from bench.tables import HEADLINE_CHOICES
from evaluators.lm_eval_tasks import LmEvalEvaluator
from tests.toy_runs import SUBJECTS, Toys, choices_row, document, reports, table, write_choices, write_rows

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = [part for name in ("rmu", "grun_rmu", "lora_rmu", "npo", "idk") for part in ("--set", f"{name}.epochs=1")]


def command(toys: Toys, out: Path, methods: str, benchmarks: str, *more: str) -> list[str]:
    names = {name.partition("[")[0] for name in re.split(r",(?![^\[]*\])", methods)}
    pairs = zip(QUICK[::2], QUICK[1::2], strict=True)
    sets = [part for flag, value in pairs if value.partition(".")[0] in names for part in (flag, value)]
    where = ["--data", str(toys.data), "--model", str(toys.original), "--out", str(out), "--device", "cpu"]
    return ["--methods", methods, "--benchmarks", benchmarks, *where, *sets, *more]


@pytest.fixture(autouse=True)
def choices(toys: Toys) -> None:
    write_choices(toys.data)


def test_what_was_forgotten_and_what_was_kept_stand_in_one_row(toys: Toys, tmp_path: Path) -> None:
    methods = "rmu[max_steps=2,lr=0.05],npo[lr=0.01],grun_rmu,lora_rmu,idk"
    assert run_all.main(command(toys, tmp_path, methods, "wmdp,mmlu,mmlu/5shot")) == 0
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert list(rows) == ["original", "rmu[lr=0.05,max_steps=2]", "npo[lr=0.01]", "grun_rmu", "lora_rmu", "idk"]
    shown = [name for name in HEADLINE_CHOICES if "chem" not in name]
    assert all(0 <= float(row[name]) <= 1 for row in rows.values() for name in shown)
    assert len({row["wmdp_probability"] for row in rows.values()}) > 3  # what was changed was undone before the next
    (gates,) = tmp_path.glob("runs/*/samples/gates.jsonl")
    assert gates.parents[1].name.startswith("grun_rmu-")
    assert {json.loads(line)["set"] for line in gates.read_text().splitlines()} == {"forget", "retain"}
    assert "Gates" in (tmp_path / "report.html").read_text(encoding="utf-8")
    long = [row for row in table(tmp_path / "metrics.csv") if row["method"] == "original"]
    found = {row["metric"]: row for row in long}
    assert {f"mmlu_{subject}_accuracy" for subject in SUBJECTS} <= found.keys()
    assert (found["wmdp_bio_accuracy"]["n"], found["mmlu_accuracy"]["n"]) == ("8", "12")
    assert float(found["wmdp_bio_accuracy"]["stderr"]) > 0


def test_what_only_judges_stands_beside_a_request_that_has_a_gold_standard(toys: Toys, tmp_path: Path) -> None:
    line = command(toys, tmp_path, "original", "tofu/forget10,mmlu", "--retrained", str(toys.retrained))
    assert run_all.main([*line, "--set", "tofu.max_new_tokens=6"]) == 0
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert list(rows) == ["original", "retrained"]
    assert rows["retrained"]["forget_quality"] == "1.0" and float(rows["original"]["forget_quality"]) < 1
    assert all(0 < float(row["mmlu_accuracy"]) < 1 for row in rows.values())


def test_every_question_is_kept_with_what_was_said_to_it(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(command(toys, tmp_path, "original", "wmdp/bio,mmlu")) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    rows = [json.loads(line) for line in (folder / "samples" / "wmdp.jsonl").read_text().splitlines()]
    assert [row["example_id"] for row in rows] == [f"wmdp/bio_test/{n}" for n in range(8)]
    assert [row["answer"] for row in rows] == [choices_row(n)["answer"] for n in range(8)]
    for row in rows:
        assert len(row["logp"]) == 4 and row["chosen"] == row["logp"].index(max(row["logp"]))
        assert row["correct"] == (row["chosen"] == row["answer"]) and row["scored"] == "letter"
    settings = json.loads((folder / "metrics" / "mmlu.json").read_text())["settings"]
    assert settings["benchmark"] == "mmlu" and settings["data"]


def test_only_judging_needs_no_method_and_no_forget_texts(toys: Toys, tmp_path: Path) -> None:
    for path in (toys.data / "wmdp").glob("*corpus*"):
        path.unlink()
    assert run_all.main(command(toys, tmp_path, "original", "mmlu,mmlu/5shot")) == 0
    rows = table(tmp_path / "leaderboard.csv")
    assert [(row["method"], row["benchmark"]) for row in rows] == [("original", "mmlu"), ("original", "mmlu/5shot")]


def test_a_finished_cell_is_asked_again_only_for_other_questions(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = command(toys, tmp_path, "original", "wmdp,mmlu")
    assert run_all.main(line) == 0
    before = reports(tmp_path)
    assert run_all.main(line) == 0
    assert "0 cells run, 1 found" in capsys.readouterr().out
    assert reports(tmp_path) == before
    path = toys.data / "mmlu" / "test" / f"{SUBJECTS[0]}_test.csv"
    path.write_text(path.read_text().replace("work?", "walk?"))
    assert run_all.main(line) == 0
    assert "1 cells run, 0 found" in capsys.readouterr().out


def test_what_was_asked_before_stays_when_something_else_is_asked(toys: Toys, tmp_path: Path) -> None:
    for asked in ("wmdp/bio,mmlu", "wmdp/bio,mmlu/5shot"):
        assert run_all.main(command(toys, tmp_path, "original", asked)) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for kind in ("metrics", "samples"):
        assert {path.stem for path in (folder / kind).iterdir()} == {"wmdp", "mmlu", "mmlu_5shot"}
    (row,) = table(tmp_path / "leaderboard.csv")
    assert row["mmlu_accuracy"] and row["mmlu_5shot_accuracy"]


def test_topics_can_be_forgotten_one_after_the_other(toys: Toys, tmp_path: Path) -> None:
    line = command(toys, tmp_path, "npo[lr=0.01],grun_rmu", "wmdp/bio,wmdp/cyber,mmlu", "--sequential")
    assert run_all.main(line) == 0
    rows = {(row["method"], row["benchmark"]): row for row in table(tmp_path / "leaderboard.csv")}
    last = "wmdp/bio>wmdp/cyber"
    assert {benchmark for _, benchmark in rows} == {"wmdp/bio", last}
    assert rows["npo[lr=0.01]", last]["wmdp_cyber_accuracy"] and not rows["original", "wmdp/bio"]["wmdp_cyber_accuracy"]


def test_a_task_from_a_file_judges_too(toys: Toys, tmp_path: Path) -> None:
    task = tmp_path / "own.yaml"
    data = toys.data / "wmdp" / "bio_test.jsonl"
    task.write_text(
        "task: own\ndataset_path: json\ndataset_kwargs:\n  data_files: " + str(data) + "\ntest_split: train\n"
        "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: answer\nmetric_list:\n  - metric: acc\n"
    )
    assert run_all.main(command(toys, tmp_path / "out", "original", f"lm_eval:{task}", "--limit", "5")) == 0
    (row,) = (row for row in table(tmp_path / "out" / "metrics.csv") if row["metric"] == "own_acc")
    assert row["n"] == "5" and 0 <= float(row["value"]) <= 1
    assert row["benchmark"] == "lm_eval:own.yaml"
    for path in (tmp_path / "out" / "runs").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), path  # no record depends on where files lie


def test_chemistry_judges_beside_the_topics_that_are_forgotten(toys: Toys, tmp_path: Path) -> None:
    write_rows(toys.data / "wmdp" / "chem_test.jsonl", [choices_row(n) for n in range(100, 104)])
    line = command(toys, tmp_path, "original", "wmdp,wmdp/chem")
    assert run_all.main(line) == 0
    counts = {row["metric"]: row["n"] for row in table(tmp_path / "metrics.csv")}
    shown = [counts[f"wmdp_{name}accuracy"] for name in ("", "bio_", "cyber_", "chem_")]
    assert shown == ["16", "8", "8", "4"]
    (folder,) = (tmp_path / "runs").iterdir()
    before = (folder / "record.json").stat().st_mtime_ns
    assert run_all.main(line) == 0
    assert (folder / "record.json").stat().st_mtime_ns == before  # found, not run again


def test_tasks_that_would_be_stored_under_one_name_are_refused(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LmEvalEvaluator, "prepare", lambda _: None)
    paths = [tmp_path / folder / "own.yaml" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("task: own\n")
    benchmarks = ",".join(["wmdp/bio", *(f"lm_eval:{path}" for path in paths)])
    assert run_all.main(command(toys, tmp_path / "out", "original", benchmarks)) == 2
    assert re.search(r"a/own.yaml and .*b/own.yaml would both be stored as 'lm_eval_own'", capsys.readouterr().err)


def test_the_authors_prompt_of_grun_is_a_protocol_of_its_own(toys: Toys, tmp_path: Path) -> None:
    for protocol in ("strict", "grun"):
        assert run_all.main(command(toys, tmp_path / protocol, "original", "wmdp/bio", "--protocol", protocol)) == 0
    one, other = (table(tmp_path / p / "leaderboard.csv")[0]["wmdp_bio_probability"] for p in ("strict", "grun"))
    assert one and other and one != other


def test_a_preset_sets_what_was_published(toys: Toys, tmp_path: Path) -> None:
    line = command(toys, tmp_path, "grun_rmu", "wmdp/bio", "--preset", "grun-published")
    assert run_all.main(line) == 0
    (folder,) = (tmp_path / "runs").glob("grun_rmu-*")
    fields = json.loads((folder / "spec.json").read_text())["fields"]
    assert (fields["layer"], fields["positions"], fields["epochs"]) == (-2, "labels", 1)


@pytest.mark.parametrize(
    ("benchmarks", "more", "said"),
    [
        ("wmdp/chem", [], r"wmdp/chem asks to forget nothing"),
        ("mmlu", [], r"mmlu asks to forget nothing, so there is nothing to unlearn"),
        ("wmpd", [], r"unknown benchmark 'wmpd'; did you mean 'wmdp'"),
        ("lm_eval:", [], r"'lm_eval:' names no task; write lm_eval:arc_easy"),
        ("lm_eval:./nothing.yaml,wmdp", [], r"there is no task file ./nothing.yaml"),
        ("wmdp", ["--preset", "zephir"], r"unknown preset 'zephir'"),
        ("wmdp", ["--corpora", "summaries"], r"there is no file .*merge_forget_data_sum_gpt.json"),
        ("wmdp", ["--set", "mmlu.shots=3"], r"--set names 'mmlu', which scores none of --benchmarks"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmarks: str, more: list[str], said: str
) -> None:
    if benchmarks == "wmdp/chem":
        write_rows(toys.data / "wmdp" / "chem_test.jsonl", [choices_row(n) for n in range(4)])
    assert run_all.main(command(toys, tmp_path / "out", "npo", benchmarks, *more)) == 2
    shown = capsys.readouterr()
    assert re.search(said, shown.err), shown.err
    assert shown.err.count("\n") == 1 and "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("file", "row", "said"),
    [
        ("wmdp/bio_test.jsonl", {**choices_row(0), "answer": 4}, r"bio_test\.jsonl, line 1.*answer.*4"),
        ("wmdp/bio_test.jsonl", {**choices_row(0), "choices": ["a", "b", "c"]}, r"line 1.*choices.*3"),
        ("wmdp/bio_test.jsonl", {**choices_row(0), "question": " "}, r"line 1.*question.*empty"),
        ("wmdp/bio-forget-corpus.jsonl", {"text": ["no", "text"]}, r"line 1.*text.*expected a text"),
        ("wmdp/bio-forget-corpus.jsonl", {"txt": document(1)}, r"line 1.*no field 'text'"),
    ],
)
def test_a_malformed_row_is_named(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, row: dict, said: str
) -> None:
    write_rows(toys.data / file, [row])
    assert run_all.main(command(toys, tmp_path / "out", "npo", "wmdp/bio")) == 2
    assert re.search(said, shown := capsys.readouterr().err), shown

"""--tune, --curve and --stop-early from the command line to the leaderboard, on a dozen rows and random checkpoints."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import evaluators.selection
import run_all
from bench.store import read_jsonl
from bench.tables import REFERENCES
from tests.toy_runs import Toys, save_model, table, write_choices, write_data
from tests.toy_targets import world as write_targets

pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators.selection, "MAX_NEW_TOKENS", 4)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    root = tmp_path_factory.mktemp("toys")
    data = write_choices(write_data(root / "data"))
    return Toys(data, save_model(root / "original"), save_model(root / "retrained", seed=1))


def asked(out: Path) -> dict[str, set[str]]:
    """By cell, the rows of TOFU that were asked."""
    found = {}
    for folder in (out / "runs").iterdir():
        lines = (folder / "samples" / "tofu.jsonl").read_text().splitlines()
        found[folder.name] = {json.loads(line)["example_id"] for line in lines}
    return found


def stored(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "runs").glob(f"*/{name}.json"))]


def test_every_method_has_the_same_number_of_trials_and_no_reported_row_chose_them(toys: Toys, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = toys.command(out, "npo,lora_gd,grun_npo", "--tune", "2")
    assert run_all.main(command) == 0

    trials = table(out / "tuning.csv")
    assert Counter(row["method"] for row in trials) == {"npo": 2, "lora_gd": 2, "grun_npo": 2}
    assert Counter(row["method"] for row in trials if row["chosen"]) == {"npo": 1, "lora_gd": 1, "grun_npo": 1}
    assert len({(row["method"], row["fields"]) for row in trials}) == 6
    assert all(row["score"] and row["memorization_score"] and row["model_utility_kept"] for row in trials)

    deciding, reported = asked(out / "tuning"), asked(out)
    assert len(set(map(frozenset, deciding.values()))) == len(set(map(frozenset, reported.values()))) == 1
    one, two = next(iter(deciding.values())), next(iter(reported.values()))
    assert not one & two
    assert len(one | two) == 6 + 4 + 3 + 3

    labels = [row["method"] for row in table(out / "leaderboard.csv")]
    plain = ["npo", "lora_gd", "grun_npo"]
    assert sorted(labels) == sorted([*REFERENCES, *plain, *(f"{name}[tuned=2]" for name in plain)])
    specs = {spec["method"]: spec for spec in stored(out, "spec")}
    assert all(spec["note"] == "scored without the validation rows" for spec in specs.values())
    [chosen] = [row for row in trials if row["method"] == "npo" and row["chosen"]]
    varied = dict(part.split("=") for part in chosen["fields"].split())
    assert {name: float(value) for name, value in varied.items()} == {
        name: specs["npo[tuned=2]"]["fields"][name] for name in varied
    }
    recipes = [record["recipe"] for record in stored(out, "record") if "recipe" in record]
    assert sum(recipe.startswith("tuned: best of 2 trials (grid: P, NPO") for recipe in recipes) == 2
    assert all(spec["seed"] == 1000 for spec in stored(out / "tuning", "spec"))

    before = {path: path.stat().st_mtime_ns for path in out.glob("**/record.json")}
    assert run_all.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("**/record.json")} == before  # nothing ran again
    assert {row["tuned"] for row in trials} == {f"{name}[tuned=2]" for name in plain}

    alone, other = (out / "tuning.csv").read_bytes(), tmp_path / "other"
    (out / "tuning.csv").unlink()
    assert run_all.main(["report", str(out)]) == 0
    assert sorted((out / "tuning.csv").read_bytes().splitlines()) == sorted(alone.splitlines())
    before = {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))}
    assert run_all.main(["report", str(out), str(out), "--out", str(other)]) == 0
    assert (other / "tuning.csv").read_bytes() == (out / "tuning.csv").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in (out, *out.rglob("*"))} == before  # only read


def test_documents_are_tuned_by_wmdp_and_mmlu(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = ["--tune", "1", "--benchmarks", "wmdp,mmlu"]
    command = [part for part in toys.command(out, "gd", *more) if part not in ("--retrained", str(toys.retrained))]
    assert run_all.main(command) == 0
    [row] = table(out / "tuning.csv")
    assert row["forgotten_share"] and row["mmlu_accuracy"]
    both = []
    for folder in (out, out / "tuning"):
        files = [*(folder / "runs").glob("*/samples/wmdp.jsonl"), *(folder / "runs").glob("*/samples/mmlu.jsonl")]
        both.append({json.loads(line)["example_id"] for path in files for line in path.read_text().splitlines()})
    assert both[0] and both[1] and not both[0] & both[1]

    command[command.index("wmdp,mmlu")] = "wmdp"
    assert run_all.main(command) == 2
    assert "--benchmarks wmdp,mmlu" in capsys.readouterr().err


def test_a_curve_changes_no_number_and_is_made_up_for_when_asked_for_later(toys: Toys, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_all.main(toys.command(out, "npo,grun_npo")) == 0
    before = (out / "metrics.csv").read_bytes()
    assert not list(out.glob("runs/*/curve.jsonl"))
    assert run_all.main(toys.command(out, "npo,grun_npo", "--curve", "2")) == 0
    assert (out / "metrics.csv").read_bytes() == before
    for name in ("npo", "grun_npo"):
        [path] = out.glob(f"runs/{name}-*/curve.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(row.keys() == {"step", "epoch", "metric", "value"} for row in rows)
        assert {(row["step"], row["epoch"]) for row in rows} == {(1, 1.0), (2, 2.0)}
        assert {"model_utility", "memorization_score", "model_utility_kept", "validation_score"} <= {
            row["metric"] for row in rows
        }
    written = path.stat().st_mtime_ns
    assert run_all.main(toys.command(out, "npo,grun_npo")) == 0
    assert path.stat().st_mtime_ns == written


def test_a_method_that_stops_early_is_a_row_of_its_own(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    scores = iter([0.5, 0.4, 0.3])

    def judge(found: Any, before: Any) -> Any:
        return evaluators.selection.Verdict(score=next(scores), parts={})

    monkeypatch.setattr(evaluators.selection, "judge_questions", judge)
    more = ["--stop-early", "1", "--curve", "3", "--set", "npo.batch_size=2"]  # three steps an epoch, six in all
    assert run_all.main(toys.command(out, "npo", *more)) == 0
    assert [row["method"] for row in table(out / "leaderboard.csv")] == [*REFERENCES, "npo[stop_early=1]"]
    [record] = [r for r in stored(out, "record") if "early_stopping" in r]
    ends = {"kept_step": 2, "last_step": 4, "planned_steps": 6, "validation_score": 0.5}
    assert record["early_stopping"] == ends
    assert record["train_steps"] == 4
    assert record["curve"] == {"looks": 3, "patience": 1, "validation_rows": {"tofu": 4}}
    [rows] = {frozenset(found) for found in asked(out).values()}
    assert len(rows) == 12


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--tune", "0"], "--tune must be at least 1, got 0"),
        (["--stop-early", "0"], "--stop-early must be at least 1, got 0"),
        (["--tune", "28"], "28 trials of npo asked for, but its grid has 27 points"),
        (["--tune", "2", "--benchmarks", "tofu/forget01,tofu/forget05", "--sequential"], "not for --sequential"),
        (["--tune", "2", "--limit", "1"], "cannot be divided into validation and reported rows"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_anything_runs(
    more: list[str], said: str, toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = toys.command(out, "npo", *more)
    command = [part for part in command if part not in ("--retrained", str(toys.retrained))]
    assert run_all.main(command) == 2
    assert said in capsys.readouterr().err
    assert not list(out.glob("runs/*"))


def test_a_dry_run_tells_what_would_be_tuned(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run_all.main(toys.command(out, "npo", "--tune", "3", "--seeds", "2", "--dry-run")) == 0
    assert "npo tofu/forget10: 3 trials, then 2 cells of npo[tuned=3]" in capsys.readouterr().out
    assert not out.exists()


def test_targets_get_the_same_fields_and_an_edit_is_tuned_but_not_watched(toys: Toys, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_targets(data, 4)
    (data / "wikitext2").mkdir()
    (data / "wikitext2" / "train.txt").write_text("The baker sings of the mill.\nThe miller sings of the sea.\n")
    quick = ["ort_utility.fluency_tokens=8", "ort_utility.bbh_tokens=8", "npo.epochs=1", "rocr.nullspace=off"]
    where = ["--data", str(data), "--model", str(toys.original), "--out", str(out), "--device", "cpu"]
    sets = [part for value in quick for part in ("--set", value)]
    tune = ["--tune", "2", "--stop-early", "1", "--curve", "1"]
    assert run_all.main(["--methods", "npo,rocr", "--benchmarks", "ort", *where, *sets, *tune]) == 0
    trials = table(out / "tuning.csv")
    assert [(row["benchmark"], row["method"]) for row in trials] == [("ort", "npo")] * 2 + [("ort", "rocr")] * 2
    assert all(len(row["cells"].split()) == 3 and row["mean_forgetting"] for row in trials)  # three of four targets
    rows = {row["method"]: row for row in table(out / "leaderboard.csv")}
    assert list(rows) == ["original", "npo[stop_early=1]", "rocr", "npo[stop_early=1,tuned=2]", "rocr[tuned=2]"]
    assert {row["targets"] for row in rows.values()} == {"4"}
    assert {row["tuned"] for row in trials} == {"npo[stop_early=1,tuned=2]", "rocr[tuned=2]"}
    assert len({json.dumps(s["fields"]) for s in stored(out, "spec") if s["method"] == "rocr[tuned=2]"}) == 1
    deciding, reported = (
        {row["example_id"] for path in folder.glob("runs/*/samples/ort.jsonl") for row in read_jsonl(path)}
        for folder in (out / "tuning", out)
    )
    assert deciding and reported and not deciding & reported
    assert len(list(out.glob("runs/npo*/curve.jsonl"))) == 8
    assert not list(out.glob("runs/rocr*/curve.jsonl"))

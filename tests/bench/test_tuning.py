"""Trials: drawn as a pure function, judged on what the store holds, the best one chosen, all of them told."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.executor import Job, Stage
from bench.records import Metric
from bench.spec import Cell
from bench.store import RunStore, write_json, write_metrics
from bench.tuning import Search, Trial, best, drawn, grouped, marked, results, tuned, write_csv
from bench.validation import Verdict

POINTS = [{"lr": lr, "beta": beta} for lr in (1, 2, 3) for beta in (0.1, 0.2)]


def test_a_draw_repeats_no_point_and_depends_on_points_and_key_alone() -> None:
    four = drawn(POINTS, 4, "npo")
    assert len({tuple(p.items()) for p in four}) == 4
    assert drawn(list(reversed(POINTS)), 4, "npo") == four
    assert drawn(POINTS, 2, "npo") == four[:2]  # a longer search begins with the shorter one
    assert any(drawn(POINTS, 6, key) != drawn(POINTS, 6, "npo") for key in ("gd", "ga"))
    assert drawn([*POINTS, *POINTS], 6, "npo") == drawn(POINTS, 6, "npo")


def test_more_trials_than_points_are_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(LetheError, match="7 trials of npo asked for, but its grid has 6 points; use --tune 6"):
        drawn([*POINTS, *POINTS], 7, "npo")


def test_a_label_gets_more_in_its_brackets() -> None:
    assert marked("npo", tuned=8) == "npo[tuned=8]"
    assert marked("grun_npo[layers=1,2,rank=4]", stop_early=3) == "grun_npo[layers=1,2,rank=4,stop_early=3]"
    assert marked(marked("npo", stop_early=3), tuned=8) == "npo[stop_early=3,tuned=8]"


def test_targets_are_tuned_together_on_the_first_three() -> None:
    assert grouped(["ort/1_A", "tofu/forget10", "ort/2_B", "ort/3_C", "ort/4_D"]) == {
        "ort": ["ort/1_A", "ort/2_B", "ort/3_C"],
        "tofu/forget10": ["tofu/forget10"],
    }


def job(method: str, benchmark: str, **fields: Any) -> Job:
    cell = Cell(
        model="toy", model_hash="m", retrained="", benchmark=benchmark, data_hash="d", method=method, fields=fields
    )
    return Job(stages=(Stage(cell=cell, request=Benchmark(name=benchmark), evaluations=[]),))


def judge(found: Any, before: Any) -> Verdict:
    score = found["value"].value - before["value"].value
    return Verdict(score=score, parts={"gain": score})


def put(store: RunStore, of: Job, value: float, seconds: float = 1.0) -> None:
    cell = of.stages[0].cell
    with store.staging(cell.id) as folder:
        write_json(folder / "spec.json", cell.to_json())
        write_json(folder / "record.json", {"wall_seconds": seconds})
        write_metrics(folder / "metrics" / "toy.json", [Metric(name="value", value=value)], {})


@pytest.fixture
def search() -> Search:
    def trial(number: int) -> Trial:
        configured: Any = SimpleNamespace(label="npo", method=f"npo {number}", recipe="grid: P", fields={"lr": number})
        jobs = (job("npo", "a", lr=number), job("npo", "b", lr=number))
        return Trial(number=number, configured=configured, varied={"lr": number}, jobs=jobs)

    originals = (job("original", "a"), job("original", "b"))
    return Search(label="npo", benchmark="all", trials=tuple(map(trial, (1, 2, 3))), judge=judge, originals=originals)


def test_the_best_mean_over_the_requests_wins_and_every_trial_is_told(search: Search, tmp_path: Path) -> None:
    store = RunStore(tmp_path / "tuning")
    for original, value in zip(search.originals, (0.25, 0.5), strict=True):
        put(store, original, value)
    for trial, values in zip(search.trials, ((0.5, 1.0), (1.0, 1.0)), strict=False):
        for each, value in zip(trial.jobs, values, strict=True):
            put(store, each, value, seconds=2.0)
    put(store, search.trials[2].jobs[0], 9.0)
    cell = search.trials[2].jobs[1].stages[0].cell
    store.fail(cell.id, cell.to_json(), "Traceback\nbench.train.Diverged: the loss is not finite")

    found = results(search, store)
    # trial 1: (0.25 + 0.5) / 2; trial 2: (0.75 + 0.5) / 2; trial 3 has no figure for the second request
    assert [result.score for result in found[:2]] == [0.375, 0.625]
    assert math.isnan(found[2].score)
    chosen = best(found)
    assert chosen is not None and chosen is found[1]
    method = tuned(chosen)
    assert (method.label, method.method, method.fields) == ("npo[tuned=3]", "npo 2", {"lr": 2})
    assert method.recipe.startswith("tuned: best of 3 trials (grid: P), number 2 with lr=2: 0.625 on the validation")
    assert "gain 0.625" in method.recipe

    write_csv(tmp_path / "tuning.csv", found)
    with (tmp_path / "tuning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    assert [row["chosen"] for row in rows] == ["", "*", ""]
    assert [row["gain"] for row in rows] == ["0.375", "0.625", ""]
    assert [row["seconds"] for row in rows] == ["4", "4", ""]
    assert rows[2]["failed"] == "bench.train.Diverged: the loss is not finite"
    assert rows[0]["fields"] == "lr=1"


def test_where_no_trial_worked_out_nothing_is_chosen(search: Search, tmp_path: Path) -> None:
    found = results(search, RunStore(tmp_path / "tuning"))
    assert [result.failed for result in found] == ["it was not run"] * 3
    assert best(found) is None

"""Trials: drawn as a pure function, judged on what the store holds, the best one chosen, all of them told."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import LetheError
from bench.records import Metric
from bench.store import Record, RunStore, write_json, write_metrics
from bench.tuning import (
    Search,
    Trial,
    best,
    drawn,
    grouped,
    marked,
    report_trials,
    results,
    store_search,
    tuned,
    write_csv,
)
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


def judge(found: Any, before: Any) -> Verdict:
    score = found["value"].value - before["value"].value
    return Verdict(score=score, parts={"gain": score})


def put(store: RunStore, cell: str, value: float, seconds: float = 1.0) -> None:
    with store.staging(cell) as folder:
        write_json(folder / "spec.json", {"cell_id": cell})
        write_json(folder / "record.json", {"wall_seconds": seconds})
        write_metrics(folder / "metrics" / "toy.json", [Metric(name="value", value=value)], {})


def made(label: str = "npo", trials: int = 3, benchmark: str = "ort") -> Search:
    """On two requests, a and b; every trial has a cell for each."""
    return Search(
        model="toy",
        protocol="strict",
        benchmark=benchmark,
        label=label,
        tuned=f"{label}[tuned={trials}]",
        trials=tuple(
            Trial(number=n, varied={"lr": n, "layers": (1, n)}, cells=(f"{label}-{n}-a", f"{label}-{n}-b"))
            for n in range(1, trials + 1)
        ),
        originals=("original-a", "original-b"),
    )


def fill(store: RunStore, search: Search, *values: tuple[float | None, ...]) -> None:
    """Cells of the originals and the trials with these values; None fails."""
    for original, value in zip(search.originals, (0.25, 0.5), strict=True):
        put(store, original, value)
    for trial, row in zip(search.trials, values, strict=False):
        for cell, value in zip(trial.cells, row, strict=False):
            if value is None:
                store.fail(cell, {"cell_id": cell}, "Traceback\nbench.train.Diverged: the loss is not finite")
            else:
                put(store, cell, value, seconds=2.0)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def records(store: RunStore) -> dict[str, Record]:
    return {record.cell_id: record for record in store.records()}


def test_the_best_mean_over_the_requests_wins_and_every_trial_is_told(tmp_path: Path) -> None:
    store, search = RunStore(tmp_path / "tuning"), made()
    fill(store, search, (0.5, 1.0), (1.0, 1.0), (9.0, None))

    found = results(search, records(store), judge)
    # trial 1: (0.25 + 0.5) / 2; trial 2: (0.75 + 0.5) / 2; trial 3 has no figure for the second request
    assert [result.score for result in found[:2]] == [0.375, 0.625]
    assert math.isnan(found[2].score)
    chosen = best(found)
    assert chosen is not None and chosen is found[1]
    configured: Any = SimpleNamespace(label="npo", method="npo 2", recipe="grid: P", fields={"lr": 2})
    method = tuned(chosen, configured)
    assert (method.label, method.method, method.fields) == ("npo[tuned=3]", "npo 2", {"lr": 2})
    assert method.recipe.startswith("tuned: best of 3 trials (grid: P), number 2 with lr=2, layers=1,2: 0.625 on the")
    assert "gain 0.625" in method.recipe

    write_csv(tmp_path / "tuning.csv", found)
    rows = table(tmp_path / "tuning.csv")
    assert [row["trial"] for row in rows] == ["1", "2", "3"]
    assert [row["chosen"] for row in rows] == ["", "*", ""]
    assert [row["gain"] for row in rows] == ["0.375", "0.625", ""]
    assert [row["seconds"] for row in rows] == ["4", "4", ""]
    assert rows[2]["failed"] == "bench.train.Diverged: the loss is not finite"
    assert rows[0]["fields"] == "lr=1 layers=1,1"
    assert {(row["model"], row["protocol"], row["tuned"]) for row in rows} == {("toy", "strict", "npo[tuned=3]")}


def test_where_no_trial_worked_out_nothing_is_chosen() -> None:
    found = results(made(), {}, judge)
    assert [result.failed for result in found] == ["it was not run"] * 3
    assert best(found) is None


def test_a_report_writes_what_the_run_wrote(tmp_path: Path) -> None:
    searches = [made("npo"), made("gd", trials=2)]
    store = RunStore(tmp_path / "tuning")
    for search in searches:
        store_search(store.out, search)
        fill(store, search, (0.5, 1.0), (1.0, None))
    found = [result for search in searches for result in results(search, records(store), judge)]
    write_csv(tmp_path / "run.csv", found)
    told = report_trials([tmp_path], tmp_path, lambda _: judge, methods=["npo", "gd"])
    assert told == [f"wrote {tmp_path / 'tuning.csv'}"]
    assert (tmp_path / "tuning.csv").read_bytes() == (tmp_path / "run.csv").read_bytes()
    store_search(store.out, searches[0])
    assert len(list((store.out / "searches").iterdir())) == 2


def test_a_report_of_several_folders_has_all_their_trials_once(tmp_path: Path) -> None:
    one, two, none = (tmp_path / name for name in ("one", "two", "none"))
    none.mkdir()
    for out, searches in ((one, [made("npo", 2)]), (two, [made("npo", 2), made("grun_npo", 10), made("npo", 10)])):
        for search in searches:
            store_search(out / "tuning", search)
    fill(RunStore(one / "tuning"), made("npo", 2), (0.5, 1.0), (9.0, None))
    fill(RunStore(two / "tuning"), made("npo", 2), (0.5, 1.0), (9.0, 9.0))
    for folders in ([one, two, none], [two, none, one]):
        report_trials(folders, tmp_path / "all", lambda _: judge, methods=["npo", "grun_npo"])
        rows = table(tmp_path / "all" / "tuning.csv")
        sizes = {"npo[tuned=2]": 2, "npo[tuned=10]": 10, "grun_npo[tuned=10]": 10}
        assert [row["tuned"] for row in rows] == [label for label, size in sizes.items() for _ in range(size)]
        assert [(row["tuned"], row["trial"]) for row in rows if row["chosen"]] == [
            ("npo[tuned=2]", "2"),  # which failed in one folder and worked out in the other
            ("npo[tuned=10]", "2"),
        ]
    put(RunStore(two / "tuning"), "npo-1-a", 0.75)
    with pytest.raises(LetheError, match="cell npo-1-a has value"):
        report_trials([one, two], tmp_path / "all", lambda _: judge)


def test_trials_of_which_no_search_is_stored_are_told_and_their_table_stays(tmp_path: Path) -> None:
    fill(RunStore(tmp_path / "tuning"), made(trials=1), (0.5, 1.0))
    (tmp_path / "tuning.csv").write_text("old")
    [line] = report_trials([tmp_path], tmp_path, lambda _: judge)
    assert line.startswith("not in tuning.csv: 4 cells") and "trains nothing again" in line
    assert (tmp_path / "tuning.csv").read_text() == "old"
    (tmp_path / "tuning" / "searches").mkdir()
    (tmp_path / "tuning" / "searches" / "npo.json").write_text('{"trials": []}')
    with pytest.raises(LetheError, match=r"npo\.json is no search"):
        report_trials([tmp_path], tmp_path, lambda _: judge)

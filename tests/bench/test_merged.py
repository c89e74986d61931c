"""Folders of several machines as one report."""

import errno
import json
import math
import os
import shutil
from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.merged import merged
from bench.options import parse_report
from bench.records import Metric
from bench.samples import rows_of
from bench.store import RunStore, write_json, write_jsonl, write_metrics


def put(folder: Path, cell: str, evaluator: str = "tofu", **figures: float) -> Path:
    store = RunStore(folder)
    with store.staging(cell) as staged:
        write_json(staged / "spec.json", {"cell_id": cell, "model": "m", "method": cell, "benchmark": "b", "seed": 0})
        write_json(staged / "record.json", {"train_seconds": float(len(str(folder)))})
        metrics = [Metric(name=name, value=value) for name, value in figures.items()]
        write_metrics(staged / "metrics" / f"{evaluator}.json", metrics, {})
    return folder


def test_cells_of_all_folders_are_one_list(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5), put(tmp_path / "two", "ga", a=0.25)
    assert [record.cell_id for record in merged([one, two])] == ["ga", "npo"]


def test_the_same_cell_twice_is_one_with_everything_that_was_evaluated(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5), put(tmp_path / "two", "npo", "mmlu", b=0.75)
    put(tmp_path / "two", "npo", "mmlu", b=0.75)
    (record,) = merged([one, two])
    assert {e: [m.value for m in metrics] for e, metrics in record.metrics.items()} == {"tofu": [0.5], "mmlu": [0.75]}


def test_figures_that_only_one_folder_has_are_kept(tmp_path: Path) -> None:
    one = put(tmp_path / "one", "npo", a=0.5, b=math.nan)
    two = put(tmp_path / "two", "npo", a=0.5, b=0.25, c=0.125, d=math.nan)
    for folders, names in (([one, two], "abcd"), ([two, one], "abcd"), ([one, two, one], "abcd")):
        (record,) = merged(folders)
        found = {metric.name: metric.value for metric in record.metrics["tofu"]}
        assert "".join(sorted(found)) == names
        assert (found["a"], found["b"], found["c"], math.isnan(found["d"])) == (0.5, 0.25, 0.125, True)
    three = put(tmp_path / "three", "npo", c=0.75)
    with pytest.raises(LetheError, match=r"c 0\.125 in .*two and 0\.75 in .*three"):  # the first lacks it
        merged([one, two, three])


def test_rows_are_read_in_the_folder_that_has_them(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5), put(tmp_path / "two", "npo", "mmlu", b=0.75)
    write_jsonl(one / "runs" / "npo" / "samples" / "tofu.jsonl", [{"x": 1}])
    write_jsonl(two / "runs" / "npo" / "samples" / "mmlu.jsonl", [{"x": 2}])
    (record,) = merged([one, two])
    assert rows_of(record, [one, two], "tofu") == [{"x": 1}]
    assert rows_of(record, [one, two], "mmlu") == [{"x": 2}]
    assert rows_of(record, [one, two], "wmdp") == []


def test_folders_are_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5), put(tmp_path / "two", "ga", a=0.25)
    (one / "runs" / ".partial-0").mkdir()  # another process may be at work there
    shutil.rmtree(two / "runs" / "ga")
    (two / "runs").rmdir()

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (one, two, *tmp_path.rglob("*"))}

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    before = state()
    for name in ("mkdir", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, refuse)
    assert [record.cell_id for record in merged([one, two])] == ["npo"]
    monkeypatch.undo()
    assert state() == before


def test_a_failure_is_made_good_by_a_complete_run_elsewhere(tmp_path: Path) -> None:
    spec = {"cell_id": "npo", "model": "m", "method": "npo", "benchmark": "b", "seed": 0}
    RunStore(tmp_path / "one").fail("npo", spec, "boom")
    two = put(tmp_path / "two", "npo", a=0.5)
    for order in ([tmp_path / "one", two], [two, tmp_path / "one"]):
        assert [record.status for record in merged(order)] == ["complete"]


def test_cells_that_disagree_are_an_error_that_names_both(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5, c=1e-20), put(tmp_path / "two", "npo", a=0.525, c=1e-20)
    with pytest.raises(LetheError, match=r"cell npo has a 0\.5 in .*one and 0\.525 in .*two; one of them"):
        merged([one, two])
    rounded = put(tmp_path / "three", "npo", a=0.5 + 1e-9, c=1e-20)
    assert len(merged([one, rounded])) == 1


def test_of_two_evaluations_the_one_with_fewer_missing_figures_counts(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5, b=math.nan), put(tmp_path / "two", "npo", a=0.5, b=0.25)
    for order in ([one, two], [two, one]):
        (record,) = merged(order)
        assert [m.value for m in record.metrics["tofu"]] == [0.5, 0.25]


def test_what_report_takes(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "npo", a=0.5), put(tmp_path / "two", "ga", a=0.25)
    assert parse_report([str(one), str(two)]).out == one
    assert parse_report([str(one), "--out", str(tmp_path / "all")]).out == tmp_path / "all"
    for arguments, said in (
        ([], "needs a folder"),
        ([str(tmp_path)], "holds no runs"),
        (["--seeds"], "unknown option"),
    ):
        with pytest.raises(LetheError, match=said):
            parse_report(arguments)


def test_who_judged_goes_with_the_judgement(tmp_path: Path) -> None:
    figures = {
        "a": {"forget_fluency": 0.9},
        "b": {"forget_fluency": math.nan, "extra": 1.0},
        "c": {"forget_fluency": 0.5},
    }
    for (name, found), judge in zip(figures.items(), "xyy", strict=True):
        put(tmp_path / name, "npo", "tofu", **found)
        (path,) = (tmp_path / name).glob("runs/*/metrics/tofu.json")
        stored = json.loads(path.read_text())
        stored["settings"] = {"judged_by": {"classifier": judge}}
        path.write_text(json.dumps(stored))
    for order in ("ab", "ba"):
        (record,) = merged([tmp_path / name for name in order])
        assert record.settings["tofu"]["judged_by"] == {"classifier": "x"}
        assert {m.name: m.value for m in record.metrics["tofu"]} == {"forget_fluency": 0.9, "extra": 1.0}
    with pytest.raises(LetheError, match=r"judged by .*x.* and by .*y.*fluency_classifier"):
        merged([tmp_path / "a", tmp_path / "c"])

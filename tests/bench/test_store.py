"""A run is there whole or not at all, after every way a process can end."""

import dataclasses
import errno
import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import LetheError
from bench.records import Metric, missing
from bench.store import (
    RunStore,
    read_json,
    read_jsonl,
    read_metrics,
    write_json,
    write_jsonl,
    write_metrics,
)

CELL = "npo-tofu-forget10-s0-93e99d14"
SPEC = {"model": "mini", "method": "npo", "benchmark": "tofu/forget10", "seed": 0, "protocol": "strict"}
ROOT = Path(__file__).parents[2]


def write_run(folder: Path, train_seconds: float = 1.5, **spec: object) -> None:
    write_json(folder / "spec.json", SPEC | spec)
    write_json(folder / "record.json", {"train_seconds": train_seconds})
    write_metrics(folder / "metrics" / "tofu.json", [Metric(name="model_utility", value=0.5)])
    write_jsonl(folder / "samples" / "tofu.jsonl", [{"set": "forget", "output": "Paris"}])


def store_run(store: RunStore, cell_id: str = CELL, **spec: object) -> None:
    with store.staging(cell_id) as folder:
        write_run(folder, **spec)  # type: ignore[arg-type]


def files(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


# --- one run


def test_a_run_appears_when_its_block_ends_and_not_before(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.staging(CELL) as folder:
        write_run(folder)
        assert not store.complete(CELL)
        assert store.records() == []
    assert store.complete(CELL)
    assert files(tmp_path / "runs") == sorted(
        f"{CELL}{part}"
        for part in (
            "",
            "/metrics",
            "/metrics/tofu.json",
            "/record.json",
            "/samples",
            "/samples/tofu.jsonl",
            "/spec.json",
        )
    )


@pytest.mark.parametrize("ending", [RuntimeError("loss is NaN"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_a_block_that_raises_leaves_nothing(tmp_path: Path, ending: BaseException) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(type(ending)), store.staging(CELL) as folder:
        write_run(folder)
        raise ending
    assert not store.complete(CELL)
    assert files(tmp_path) == ["runs"]


def test_a_second_run_of_the_same_cell_replaces_the_first(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store_run(store, template="plain")
    store_run(store, template="chat")
    assert [record.spec["template"] for record in store.records()] == ["chat"]
    assert files(tmp_path)[:2] == ["runs", f"runs/{CELL}"]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    metrics = [
        Metric(name="forget_quality", value=4.346199600129006e-25, n=400, higher_is_better=True),
        Metric(name="forget_rouge_l_recall", value=0.1 + 0.2, stderr=1 / 3, n=400, higher_is_better=False),
        missing("truth_ratio", "no perturbed answers"),
    ]
    store = RunStore(tmp_path)
    with store.staging(CELL) as folder:
        write_json(folder / "spec.json", SPEC)
        write_json(folder / "record.json", {"train_seconds": 2.5, "versions": {"torch": "2"}})
        write_metrics(folder / "metrics" / "tofu.json", metrics, {"max_new_tokens": 200})
    (record,) = store.records()
    assert (record.cell_id, record.status, record.error) == (CELL, "complete", "")
    assert record.spec == SPEC
    assert record.record == {"train_seconds": 2.5, "versions": {"torch": "2"}}
    assert [str(dataclasses.asdict(m)) for m in record.metrics["tofu"]] == [str(dataclasses.asdict(m)) for m in metrics]


def test_records_are_sorted_by_cell_whatever_the_order_they_were_written_in(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for cell_id in ("npo-2", "ga-1", "npo-1"):
        store_run(store, cell_id)
    store.fail("gd-1", SPEC, "boom")
    assert [record.cell_id for record in store.records()] == ["ga-1", "gd-1", "npo-1", "npo-2"]


@pytest.mark.parametrize("cell_id", ["", ".", "..", ".hidden", "a/b", "a\\b", "x" * 300])
def test_a_cell_id_that_is_no_folder_name_is_refused_before_the_work(tmp_path: Path, cell_id: str) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(ValueError, match="folder name"), store.staging(cell_id):
        pytest.fail("the block must not start")


# --- failures


def test_a_failure_keeps_spec_traceback_and_what_was_written(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(LetheError), store.staging(CELL) as folder:
        write_jsonl(folder / "train.jsonl", [{"step": 1, "loss": 2.5}])
        store.fail(CELL, SPEC, "Traceback\nLetheError: loss is NaN at step 2\n", partial=folder)
        raise LetheError("loss is NaN at step 2")
    kept = tmp_path / "failed" / CELL
    assert sorted(path.name for path in kept.iterdir()) == ["spec.json", "traceback.txt", "train.jsonl"]
    assert read_jsonl(kept / "train.jsonl") == [{"step": 1, "loss": 2.5}]
    (record,) = store.records()
    assert (record.status, record.spec) == ("failed", SPEC)
    assert record.error.endswith("loss is NaN at step 2")
    assert not store.complete(CELL)
    assert files(tmp_path / "runs") == []


def test_a_block_that_hands_its_folder_to_fail_and_goes_on_leaves_no_run(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.staging(CELL) as folder:
        write_run(folder)
        store.fail(CELL, SPEC, "boom", partial=folder)
    assert [record.status for record in store.records()] == ["failed"]


def test_a_later_failure_replaces_an_earlier_one(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.fail(CELL, SPEC, "first")
    store.fail(CELL, SPEC, "second")
    assert [record.error for record in store.records()] == ["second"]


def test_success_forgets_the_failure(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.fail(CELL, SPEC, "boom")
    store_run(store)
    assert not store.failed_path(CELL).exists()
    assert [record.status for record in store.records()] == ["complete"]


def test_a_complete_run_counts_where_it_is_what_was_asked_for_when_it_failed(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store_run(store)
    store.fail(CELL, SPEC, "boom")
    assert [record.status for record in store.records()] == ["complete"]


def test_a_failure_stands_over_a_run_that_was_not_asked_for_until_the_run_is(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store_run(store)
    before = files(tmp_path)
    store.fail(CELL, SPEC, "boom", instead="another question")
    assert [(record.status, record.error) for record in store.records()] == [("failed", "boom")]
    assert store.complete(CELL)
    store.forget_failure(CELL)
    assert [record.status for record in store.records()] == ["complete"]
    assert files(tmp_path) == sorted([*before, "failed"])


def test_no_failure_outlives_the_run_that_made_it_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path)
    store.fail(CELL, SPEC, "boom")

    def killed(*arguments: object, **more: object) -> None:
        assert not store.failed_path(CELL).exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.store._publish", killed)
    with pytest.raises(KeyboardInterrupt):
        store_run(store)
    assert store.records() == []


# --- damage


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("name", ["spec.json", "record.json", "metrics/tofu.json", "samples/tofu.jsonl"])
@pytest.mark.parametrize("how", ["cut", "empty", "binary", "list"])
def test_a_damaged_file_makes_the_run_incomplete_with_a_warning_and_it_can_be_redone(
    tmp_path: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunStore(tmp_path)
    store_run(store)
    path = store.path(CELL) / name
    contents = {"cut": path.read_bytes()[:-3], "empty": b"", "binary": b"\xff\xfe\x00", "list": b"[1, 2]"}
    path.write_bytes(contents[how])
    if name.endswith("jsonl") and how == "empty":
        assert store.complete(
            CELL
        )  # no rows is a valid file; whole lines are never lost, they are flushed before the rename
        return
    with caplog.at_level(logging.WARNING):
        assert not RunStore(tmp_path).complete(CELL)
    assert CELL in caplog.text
    assert str(path) in caplog.text
    store_run(store)
    assert store.complete(CELL)


def test_a_missing_file_makes_the_run_incomplete(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store_run(store)
    (store.path(CELL) / "record.json").unlink()
    assert not store.complete(CELL)


def test_a_damaged_run_is_listed_as_failed_where_its_spec_can_be_read(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store_run(store)
    store_run(store, "other")
    damage(store.path(CELL) / "metrics" / "tofu.json")
    damage(store.path("other") / "spec.json")
    (record,) = store.records()
    assert (record.cell_id, record.status, record.spec) == (CELL, "failed", SPEC)
    assert "tofu.json" in record.error


def test_a_damaged_failure_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RunStore(tmp_path)
    store.fail(CELL, SPEC, "boom")
    damage(store.failed_path(CELL) / "spec.json")
    assert store.records() == []
    assert CELL in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        '{"metrics": [{"name": "x", "value": "high"}]}',
        '{"metrics": [{"value": 1}]}',
        '{"metrics": [{"name": "x", "value": 1, "colour": 2}]}',
        '{"metrics": [3]}',
        '{"figures": []}',
        '{"metrics": [{"name": "x", "value": NaN}]}',
    ],
)
def test_metrics_of_another_shape_are_refused_with_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tofu.json"
    path.write_text(content)
    with pytest.raises(LetheError, match=r"tofu\.json"):
        read_metrics(path)


# --- JSON


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
def test_json_and_json_lines_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("json")
    write_json(folder / "a.json", rows)
    write_jsonl(folder / "a.jsonl", rows)
    assert repr(read_json(folder / "a.json")) == repr(rows)
    assert repr(read_jsonl(folder / "a.jsonl")) == repr(rows)


def test_nan_and_infinity_become_null_at_any_depth(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": math.nan, "b": [math.inf, (-math.inf, 1.0)]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, [None, 1.0]]}


def test_an_infinite_metric_comes_back_missing_with_the_reason(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a.json", [Metric(name="perplexity", value=math.inf)])
    (metric,) = read_metrics(tmp_path / "a.json")
    assert metric.missing
    assert metric.reason == "not finite: inf"


def test_the_values_of_targets_come_back_and_where_there_are_none_nothing_is_written(tmp_path: Path) -> None:
    several = Metric(name="form_gap", value=0.4, n=2, by_target={"Ada": 0.3, "Béla": 0.5})
    write_metrics(tmp_path / "m.json", [several, Metric(name="ort_utility", value=1.0)])
    assert read_metrics(tmp_path / "m.json") == [several, Metric(name="ort_utility", value=1.0)]
    assert (tmp_path / "m.json").read_text(encoding="utf-8").count("by_target") == 1
    (tmp_path / "m.json").write_text('{"metrics": [{"name": "form_gap", "value": 0.4, "by_target": {"Ada": null}}]}')
    with pytest.raises(LetheError, match="by_target of 'form_gap' must hold a number a target"):
        read_metrics(tmp_path / "m.json")


def test_numbers_of_numpy_and_torch_paths_and_dataclasses_can_be_stored(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    write_json(
        tmp_path / "a.json",
        {"f": np.float32(0.5), "i": np.int64(3), "p": Path("x/y"), "m": Metric(name="m", value=1.0)},
    )
    value = read_json(tmp_path / "a.json")
    assert (value["f"], value["i"], value["p"], value["m"]["name"], value["m"]["stderr"]) == (0.5, 3, "x/y", "m", None)


def test_a_value_that_json_cannot_hold_is_a_type_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert files(tmp_path) == []


def test_text_with_lone_surrogates_and_odd_line_breaks_survives(tmp_path: Path) -> None:
    rows = [{"output": "a\u2028b\x85c\rd\ud800"}, {"output": "Bj\u00f6rk"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "a.jsonl") == rows


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(LetheError, match=r"a\.jsonl, line 2, is not valid JSON"):
        read_jsonl(tmp_path / "a.jsonl")


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"tofu\.jsonl is missing; repeat the run"):
        read_jsonl(tmp_path / "tofu.jsonl")


# --- disk full, unwritable


def test_an_out_below_a_regular_file_is_an_error_that_names_path_and_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LetheError, match=r"file/out.*--out"):
        RunStore(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_out_without_write_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LetheError, match="--out"):
        RunStore(tmp_path)


def test_a_read_only_file_system_is_noticed_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunStore(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(LetheError, match=rf"{tmp_path} \(Read-only file system\).*--out"):
        RunStore(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "rename", "replace"])
def test_a_full_disk_is_an_error_that_names_path_and_option_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = RunStore(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(LetheError, match=rf"{tmp_path}.*No space left on device.*free some space.*--out"):
            store_run(store)
    assert not store.complete(CELL)
    assert files(tmp_path) == ["runs"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_a_library_is_an_error_too(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(LetheError, match="--out"), store.staging(CELL), open("/dev/full", "w") as file:
        file.write("weights")
        file.flush()
    assert files(tmp_path) == ["runs"]


@pytest.mark.parametrize(
    "error", [ConnectionError("hub"), OSError(errno.ENOSPC, "No space left on device", "/elsewhere/cache")]
)
def test_an_error_of_the_network_or_another_folder_is_passed_on_as_it_is(tmp_path: Path, error: OSError) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(OSError) as caught, store.staging(CELL):
        raise error
    assert caught.value is error


# --- kill -9

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from bench.store import RunStore, write_json, write_jsonl, write_metrics
from bench.records import Metric

out, action, nth, value = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
calls = 0

def deadly(call):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

for name in ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir", "close"):
    setattr(os, name, deadly(getattr(os, name)))

store = RunStore(out)
if action == "fail":
    store.fail("cell", {"seed": value}, f"boom {value}")
else:
    with store.staging("cell") as folder:
        write_json(folder / "spec.json", {"seed": value})
        write_json(folder / "record.json", {"seed": value})
        if action == "sleep":
            print("staged", flush=True)
            time.sleep(60)
        write_metrics(folder / "metrics" / "tofu.json", [Metric(name="m", value=value)])
        write_jsonl(folder / "samples" / "tofu.jsonl", [{"seed": value}])
"""


def run_script(out: Path, action: str, nth: int, value: float) -> int:
    command = [sys.executable, "-c", SCRIPT, str(out), action, str(nth), str(value)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def seen(out: Path) -> set[float]:
    """The values that any reader finds after the next start; whole files only, no leftovers."""
    store = RunStore(out)
    assert not list((out / "runs").glob(".*"))
    values = set()
    for record in store.records():
        if record.status == "complete":
            assert store.complete("cell")
            (metric,) = record.metrics["tofu"]
            (row,) = read_jsonl(store.path("cell") / "samples" / "tofu.jsonl")
            assert record.spec["seed"] == record.record["seed"] == metric.value == row["seed"]
        else:
            assert record.error == f"boom {record.spec['seed']}"
        values.add(record.spec["seed"])
    return values


@pytest.mark.parametrize("action", ["stage", "fail"])
def test_killed_at_any_call_a_run_is_whole_or_absent_and_the_next_start_cleans_up(tmp_path: Path, action: str) -> None:
    # The n-th call that changes the disk is the last one of the process, for n = 1, 4, 7, ... until it gets through.
    outcomes = []
    for nth in range(1, 200, 3):
        code = run_script(tmp_path / "out", action, nth, value=nth)
        outcomes.append(seen(tmp_path / "out"))
        assert len(outcomes[-1]) <= 1
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert len(outcomes) > 5, "too few calls were counted for the test to mean anything"
    assert outcomes[0] == set()
    assert outcomes[-1] == {float(nth)}


def test_a_run_killed_by_signal_while_it_works_leaves_nothing_that_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "sleep", "0", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        neighbour = RunStore(tmp_path)
        assert list((tmp_path / "runs").glob(".partial-*")), "the work of a living process must be left alone"
        assert not neighbour.complete("cell")
        process.kill()
    assert seen(tmp_path) == set()
    assert files(tmp_path) == ["runs"]


def test_two_processes_that_finish_the_same_cell_leave_one_whole_run(tmp_path: Path) -> None:
    first, second = RunStore(tmp_path), RunStore(tmp_path)
    with first.staging(CELL) as one:
        write_run(one, template="chat")
        with second.staging(CELL) as two:
            assert one != two
            write_run(two, template="plain")
    assert [record.spec["template"] for record in first.records()] == ["chat"]
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_the_module_is_imported_without_heavy_packages() -> None:
    heavy = ("torch", "numpy", "pandas", "rich")
    code = f"import sys, bench.store, bench.report; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

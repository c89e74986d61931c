"""The command on targets that are asked about in several forms, on toy folders and random checkpoints."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import run_all
from bench.summary import COLUMNS
from tests.toy_runs import Toys, reports, table
from tests.toy_targets import FOLDERS, NAMES, world

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = ["--set", "ort_utility.fluency_tokens=8", "--set", "ort_utility.bbh_tokens=8"]
TWO = f"ort/{FOLDERS[0]},ort/2"


def command(toys: Toys, out: Path, methods: str, benchmarks: str = "ort", *more: str) -> list[str]:
    trained = [name for name in methods.split(",") if name not in ("original", "rocr")]
    sets = [part for name in trained for part in ("--set", f"{name}.epochs=1", "--set", f"{name}.lr=0.01")]
    where = ["--data", str(toys.data), "--model", str(toys.original), "--out", str(out), "--device", "cpu"]
    asked = QUICK if benchmarks.startswith("ort") else []
    return ["--methods", methods, "--benchmarks", benchmarks, *where, *sets, *asked, *more]


@pytest.fixture(autouse=True)
def targets(toys: Toys) -> None:
    world(toys.data, 3)
    (toys.data / "wikitext2").mkdir(exist_ok=True)
    lines = [f"The {name} of the town sings of the mill and the sea." for name in ("baker", "miller", "sailor")]
    (toys.data / "wikitext2" / "train.txt").write_text("\n".join(lines))


def cells(out: Path) -> dict[tuple[str, str], Path]:
    found = {}
    for folder in (out / "runs").iterdir():
        spec = json.loads((folder / "spec.json").read_text())
        found[spec["method"], spec["benchmark"]] = folder
    return found


def test_gates_are_read_after_everything_that_is_reported(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(out: Path) -> dict[str, bytes]:
        folder = cells(out)["grun_npo", f"ort/{FOLDERS[0]}"]
        return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in folder.rglob("*.json*") if p.parent != folder}

    line = command(toys, tmp_path / "with", "grun_npo", f"ort/{FOLDERS[0]}")
    assert run_all.main(line) == 0
    found = files(tmp_path / "with")
    gates = [json.loads(row) for row in found.pop("samples/gates.jsonl").splitlines()]
    assert list(dict.fromkeys(row["set"] for row in gates)) == ["forget", "retain", "unrelated"]
    monkeypatch.setattr("bench.executor.gate_rows", lambda *args, **fields: [])
    assert run_all.main([part.replace(str(tmp_path / "with"), str(tmp_path / "without")) for part in line]) == 0
    assert files(tmp_path / "without") == found


def test_every_target_is_a_cell_and_all_are_one_row(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(command(toys, tmp_path, "npo,rt")) == 0
    assert set(cells(tmp_path)) == {(m, f"ort/{f}") for m in ("original", "npo", "rt") for f in FOLDERS[:3]}
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert list(rows) == ["original", "npo", "rt"]
    assert {(row["benchmark"], row["targets"], row["failed"]) for row in rows.values()} == {("ort", "3", "0")}
    assert float(rows["original"]["mean_forgetting"]) == 0 == float(rows["original"]["form_gap"])
    single = [
        float(row["value"])
        for row in table(tmp_path / "metrics.csv")
        if (row["method"], row["metric"]) == ("npo", "mean_forgetting")
    ]
    assert len(single) == 3
    assert float(rows["npo"]["mean_forgetting"]) == pytest.approx(sum(single) / 3)
    assert float(rows["npo"]["mean_forgetting_low"]) == pytest.approx(min(single), abs=0.05)
    with (tmp_path / "ort_summary.csv").open() as file:
        summary = {row["method"]: row for row in csv.DictReader(file)}
    assert set(COLUMNS) <= set(summary["original"])
    assert summary["npo"]["forget_qa"].endswith("%)") and "(" not in summary["original"]["forget_qa"]


def test_several_targets_at_once_and_one_after_the_other(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(command(toys, tmp_path, "npo", "ort/1-2")) == 0
    assert set(cells(tmp_path)) == {("original", "ort/1-2"), ("npo", "ort/1-2")}
    samples = cells(tmp_path)["npo", "ort/1-2"] / "samples" / "ort.jsonl"
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert {row["target"] for row in rows} == {*NAMES[:2]}
    chain = tmp_path / "chain"
    assert run_all.main(command(toys, chain, "npo,grun_npo", TWO, "--sequential")) == 0
    first, both = f"ort/{FOLDERS[0]}>", f"ort/{FOLDERS[0]}>ort/{FOLDERS[1]}"
    assert set(cells(chain)) == {(m, b) for m in ("original", "npo", "grun_npo") for b in (first, both)}
    curves = [row for row in table(chain / "curves.csv") if row["metric"] == "mean_forgetting"]
    assert [(row["method"], row["requests"]) for row in curves if row["method"] != "original"] == [
        (method, str(number)) for method in ("npo", "grun_npo") for number in (1, 2)
    ]
    assert all(row["value"] for row in curves)


def test_batches_of_the_first_targets_become_a_curve_over_their_size(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(command(toys, tmp_path, "npo", "ort", "--batches", "1,3,2")) == 0
    sizes = {1: f"ort/{FOLDERS[0]}", 2: "ort/1-2", 3: "ort/1-3"}
    assert set(cells(tmp_path)) == {(m, name) for m in ("original", "npo") for name in sizes.values()}
    metrics = {
        row["benchmark"]: float(row["value"])
        for row in table(tmp_path / "metrics.csv")
        if (row["method"], row["metric"]) == ("npo", "mean_forgetting")
    }
    curve = [
        row for row in table(tmp_path / "batches.csv") if (row["method"], row["metric"]) == ("npo", "mean_forgetting")
    ]
    assert [(int(row["targets"]), row["benchmark"], float(row["value"])) for row in curve] == [
        (size, name, metrics[name]) for size, name in sizes.items()
    ]
    assert not curve[0]["low"]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in curve[1:])
    rows = {row["benchmark"]: row for row in table(tmp_path / "leaderboard.csv") if row["method"] == "npo"}
    assert [rows[name]["targets"] for name in ("ort", "ort/1-2", "ort/1-3")] == ["1", "2", "3"]
    each = json.loads((cells(tmp_path)["npo", "ort/1-3"] / "metrics" / "ort.json").read_text(encoding="utf-8"))
    (kept,) = (metric["by_target"] for metric in each["metrics"] if metric["name"] == "mean_forgetting")
    assert list(kept) == [*NAMES[:3]]
    assert sum(kept.values()) / 3 == pytest.approx(metrics["ort/1-3"])
    assert rows["ort/1-3"]["mean_forgetting_low"] == curve[2]["low"] != ""
    assert "Targets unlearned together" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(list((tmp_path / "paper" / "figures").glob("batches-ort-1-3-*"))) == 2


def test_the_original_is_asked_once_what_targets_share(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(command(toys, tmp_path, "original")) == 0
    counts = [
        json.loads((cells(tmp_path)["original", f"ort/{folder}"] / "record.json").read_text())["scored"]
        for folder in FOLDERS[:3]
    ]
    pairs = [count["pairs"] for count in counts]
    assert pairs[1] < pairs[0] and pairs[2] < pairs[0]  # most utility questions are the same for all toy targets
    assert [count["prefixes"] for count in counts] == [1, 0, 0]  # and all of MMLU's stand behind the same example


def test_a_run_that_goes_on_gives_the_same_leaderboard(toys: Toys, tmp_path: Path) -> None:
    """Although the original is asked once what targets share, and what shares a batch decides the last bits."""
    line = command(toys, tmp_path, "npo,grun_npo")
    assert run_all.main(line) == 0
    files = {name: (tmp_path / name).read_bytes() for name in ("ort_summary.csv", "leaderboard.json")}
    before = {**reports(tmp_path), **files}
    shutil.rmtree(cells(tmp_path)["original", f"ort/{FOLDERS[1]}"])
    shutil.rmtree(cells(tmp_path)["npo", f"ort/{FOLDERS[2]}"])
    shutil.rmtree(cells(tmp_path)["grun_npo", f"ort/{FOLDERS[0]}"])
    assert run_all.main(line) == 0
    assert {**reports(tmp_path), **{name: (tmp_path / name).read_bytes() for name in files}} == before


def test_the_edit_without_training_runs_beside_the_trained(toys: Toys, tmp_path: Path) -> None:
    more = ["--set", "rocr.unrelated_subject=Somebody Else", "--cache-dir", str(tmp_path / "cache")]
    assert run_all.main(command(toys, tmp_path / "out", "rocr", TWO, *more)) == 0
    rows = {row["method"]: row for row in table(tmp_path / "out" / "leaderboard.csv")}
    assert float(rows["rocr"]["mean_forgetting"]) != 0
    assert float(rows["original"]["mean_forgetting"]) == 0


def test_tofu_is_asked_in_forms(toys: Toys, tmp_path: Path) -> None:
    line = command(toys, tmp_path, "npo", "tofu/forget05:forms", "--retrained", str(toys.retrained))
    assert run_all.main([*line, "--set", "tofu.max_new_tokens=6"]) == 0
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert {row["benchmark"] for row in rows.values()} == {"tofu/forget05:forms"}
    assert 0 < float(rows["npo"]["forget_quality"]) <= 1
    assert float(rows["original"]["forgetting_qa"]) == 0 != float(rows["npo"]["forgetting_qa"])
    assert rows["retrained"]["forgetting_qa"]  # compared with the original, which ran after it


def test_a_dry_run_writes_nothing_not_even_made_items(toys: Toys, tmp_path: Path) -> None:
    world(tmp_path / "data", 5)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "data").rglob("*.json"))}
    line = command(toys, tmp_path / "out", "npo", "ort", "--data", str(tmp_path / "data"), "--dry-run")
    assert run_all.main(line) == 0
    assert {path: path.read_bytes() for path in sorted((tmp_path / "data").rglob("*.json"))} == before
    assert not (tmp_path / "out").exists()


def test_a_target_can_be_named_although_its_folder_has_a_comma(toys: Toys, tmp_path: Path) -> None:
    line = command(toys, tmp_path, "original", f"ort/{FOLDERS[2]},ort/1")
    assert "," in FOLDERS[2] and run_all.main(line) == 0
    assert set(cells(tmp_path)) == {("original", f"ort/{FOLDERS[n]}") for n in (0, 2)}


@pytest.mark.parametrize(
    ("benchmarks", "more", "said"),
    [
        ("ort/9", [], "'ort/9'"),
        ("ort/2-9", [], "4, 5, 6, 7, 8, 9"),
        ("ort/3+1", [], "the numbers must ascend; write ort/1+3"),
        ("ort/1,ort/1_Ada_Moss", ["--sequential"], "to forget Ada Moss again; name each target once"),
        ("ort", ["--batches", "2,4"], "--batches asks for 4 targets together"),
        ("ort", ["--batches", "2,four"], "--batches must be whole numbers"),
        ("ort,wmdp", ["--protocol", "ort"], "--protocol ort is defined for ort, not for wmdp"),
        ("wmdp:forms", [], "only question/answer benchmarks can be asked in other forms"),
        ("ort", ["--set", "ort.forms=qa"], "unknown field of ort 'forms'; known: max_new_tokens, protocol"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmarks: str, more: list[str], said: str
) -> None:
    assert run_all.main([*command(toys, tmp_path, "npo", benchmarks), *more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    assert said in error

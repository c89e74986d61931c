"""Targets that are averaged: one table, every target alike, an interval over targets, and ORT's summary."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.curves import batch_rows
from bench.data import collection, expand, full_name, numbers, taught
from bench.errors import LetheError
from bench.latex.captions import slugs
from bench.records import Metric, missing
from bench.report import write_reports
from bench.store import Record
from bench.summary import summary_latex
from bench.tables import tables_of

ANN, BEN = "ort/1_Ann_Lee", "ort/2_Ben_Oz"


def record(method: str, benchmark: str, *, seed: int = 0, fail: bool = False, **figures: float) -> Record:
    cell_id = f"{method}-{benchmark}-{seed}".replace("/", "-")
    spec = {"cell_id": cell_id, "model": "m", "method": method, "benchmark": benchmark, "seed": seed}
    spec |= {"protocol": "strict", "data_hash": f"hash of {benchmark}"}
    if fail:
        return Record(cell_id=cell_id, spec=spec, status="failed", error="LetheError: lost")
    metrics = [
        missing(name, "not asked") if math.isnan(value) else Metric(name=name, value=value, higher_is_better=True)
        for name, value in figures.items()
    ]
    return Record(cell_id=cell_id, spec=spec, record={"train_seconds": 1.0}, metrics={"ort": metrics})


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_targets_share_a_table_and_a_row_is_the_mean_over_them() -> None:
    (table,) = tables_of([record("npo", ANN, form_gap=0.25), record("npo", BEN, form_gap=0.75)], [])
    assert (table.benchmark, table.targets) == ("ort", (ANN, BEN))
    (row,) = table.rows
    assert row.method == "npo"
    assert row.mean("form_gap") == 0.5
    assert row.values("form_gap") == [0.5]  # one seed


def test_a_batch_and_a_chain_of_targets_are_tables_of_their_own() -> None:
    names = ["ort/1-2", f"{ANN}>{BEN}", ANN]
    tables = tables_of([record("npo", name, form_gap=0.5) for name in names], [])
    assert {(table.benchmark, table.targets) for table in tables} == {
        ("ort/1-2", ()),
        (f"{ANN}>{BEN}", ()),
        ("ort", (ANN,)),
    }


def test_with_several_seeds_a_value_is_one_seeds_mean_over_targets(tmp_path: Path) -> None:
    figures = {(0, ANN): 0.1, (0, BEN): 0.3, (1, ANN): 0.5, (1, BEN): 0.7}
    records = [record("npo", name, seed=seed, form_gap=value) for (seed, name), value in figures.items()]
    (table,) = tables_of(records, [])
    assert table.rows[0].values("form_gap") == pytest.approx([0.2, 0.6])
    write_reports(records, tmp_path)
    head = (tmp_path / "leaderboard.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert len(head) == len(set(head))
    (row,) = read(tmp_path / "leaderboard.csv")
    assert (row["seeds"], row["targets"], row["failed"]) == ("2", "2", "0")
    assert float(row["form_gap"]) == pytest.approx(0.4)
    assert float(row["form_gap_sd"]) == pytest.approx(0.2 * math.sqrt(2))  # of 0.2 and 0.6: sqrt(2 * 0.2 ** 2 / 1)


@pytest.mark.parametrize(
    "lacking", [record("npo", BEN, fail=True), record("npo", BEN, form_gap=math.nan)], ids=["failed", "missing"]
)
def test_a_mean_over_some_of_the_targets_is_missing(tmp_path: Path, lacking: Record) -> None:
    records = [record("npo", ANN, form_gap=0.5), lacking]
    records += [record("ga", name, form_gap=0.25) for name in (ANN, BEN)]
    write_reports(records, tmp_path, methods=["npo", "ga"])
    npo, ga = read(tmp_path / "leaderboard.csv")
    assert (npo["form_gap"], npo["form_gap_low"], ga["form_gap"]) == ("", "", "0.25")
    assert npo["failed"] == ("1" if lacking.status == "failed" else "0")
    long = [(row["method"], row["benchmark"]) for row in read(tmp_path / "metrics.csv") if row["value"]]
    assert ("npo", ANN) in long  # what is known of single targets stays
    if lacking.status == "failed":
        assert "npo (ort/2\\_\\allowbreak{}Ben" in (tmp_path / "leaderboard.tex").read_text().replace("\n", " ") or (
            "Ben" in (tmp_path / "leaderboard.tex").read_text()
        )


def test_the_interval_is_over_targets_and_the_same_every_time() -> None:
    one, two = tables_of([record("npo", ANN, form_gap=0.2)], []), [ANN, BEN]
    assert all(map(math.isnan, one[0].rows[0].interval("form_gap")))
    (table,) = tables_of([record("npo", name, form_gap=v) for name, v in zip(two, (0.2, 0.6), strict=True)], [])
    assert table.rows[0].interval("form_gap") == pytest.approx((0.2, 0.6))


def test_the_summary_prints_the_change_against_the_original(tmp_path: Path) -> None:
    records = [
        record("original", ANN, forget_qa=0.8, neighbor_qa=0.5, ort_triviaqa_f1=0.0),
        record("rocr", ANN, forget_qa=0.2, neighbor_qa=0.55, ort_triviaqa_f1=0.1),
    ]
    write_reports(records, tmp_path)
    original, rocr = read(tmp_path / "ort_summary.csv")
    assert original["forget_qa"] == "0.8000"
    assert rocr["forget_qa"] == "0.2000(-75.00%)"  # 100 * (0.2 - 0.8) / 0.8
    assert rocr["neighbor_qa"] == "0.5500(+10.00%)"
    assert rocr["triviaqa_F1"] == "0.1000"  # nothing to compare with: the original has 0
    assert rocr["fluency_entropy"] == ""
    assert list(original)[4:] == sorted(list(original)[4:], key=str.lower)
    tex = (tmp_path / "ort_summary.tex").read_text()
    assert r"forget\_qa & 0.800 & 0.200 ($-75$) \\" in tex
    assert r"fluency\_entropy & -- & -- \\" in tex


def test_without_forms_there_is_no_summary(tmp_path: Path) -> None:
    write_reports([record("npo", "tofu/forget10", forget_quality=0.5)], tmp_path)
    assert not (tmp_path / "ort_summary.csv").exists()
    assert "targets" not in (tmp_path / "leaderboard.csv").read_text()


def test_names_of_targets_batches_and_forms(tmp_path: Path) -> None:
    for name in ("1_A", "2_B"):
        (tmp_path / "rwku" / "Target" / name).mkdir(parents=True)
    assert expand("ort", tmp_path) == ["ort/1_A", "ort/2_B"]
    assert expand("ort/1", tmp_path) == ["ort/1"]
    assert full_name("tofu:forms") == "tofu/forget10:forms"
    assert taught("tofu/forget10:forms") == "tofu/forget10"
    assert taught(f"{ANN}>{BEN}") == taught("ort/1-5") == "ort"
    assert collection("ort/10_Prince_Harry,_Duke_of_Sussex") == "ort"
    for name in ("wmdp:forms", "ort:forms", "mmlu:forms"):
        with pytest.raises(LetheError, match="only question/answer benchmarks"):
            full_name(name)
    with pytest.raises(LetheError, match="unknown benchmark 'ort/'"):
        full_name("ort/")


def test_a_chain_becomes_curves(tmp_path: Path) -> None:
    stages = {f"{ANN}>": 0.2, f"{ANN}>{BEN}": 0.3}
    records = [record("npo", name, form_gap=value) for name, value in stages.items()]
    records += [
        record("npo", "tofu/forget01", form_gap=0.4),
        record("npo", "tofu/forget01>tofu/forget05", form_gap=0.5),
    ]
    write_reports([*records, record("npo", ANN, form_gap=0.9)], tmp_path)
    points = [(r["chain"], r["requests"], r["last_request"], r["value"]) for r in read(tmp_path / "curves.csv")]
    assert points == [
        (f"{ANN}>{BEN}", "1", ANN, "0.2"),
        (f"{ANN}>{BEN}", "2", BEN, "0.3"),
        ("tofu/forget01>tofu/forget05", "1", "tofu/forget01", "0.4"),
        ("tofu/forget01>tofu/forget05", "2", "tofu/forget05", "0.5"),
    ]


def batch(method: str, benchmark: str, values: dict[str, float], *, seed: int = 0) -> Record:
    """Targets forgotten in one model: the mean of their form gaps, each of which is kept, and the model's utility."""
    one = record(method, benchmark, seed=seed, ort_utility=0.9)
    gap = Metric(name="form_gap", value=sum(values.values()) / len(values), n=len(values), by_target=values)
    return replace(one, metrics={"ort": [gap, *one.metrics["ort"]]})


def test_targets_of_one_model_have_an_interval_over_targets_as_those_forgotten_alone_have(tmp_path: Path) -> None:
    values = {"Ann Lee": 0.2, "Ben Oz": 0.6}
    (alone,) = tables_of([record("npo", n, form_gap=v) for n, v in zip((ANN, BEN), values.values(), strict=True)], [])
    (together,) = tables_of([batch("npo", "ort/1-2", values)], [])
    assert together.rows[0].mean("form_gap") == pytest.approx(alone.rows[0].mean("form_gap"))
    assert together.rows[0].interval("form_gap") == alone.rows[0].interval("form_gap") == pytest.approx((0.2, 0.6))
    assert (alone.together, together.together) == (0, 2)
    write_reports([batch("npo", "ort/1-2", values)], tmp_path)
    (row,) = read(tmp_path / "leaderboard.csv")
    assert (row["targets"], row["form_gap_low"], row["form_gap_high"]) == ("2", "0.2", "0.6")
    assert (row["ort_utility"], row["ort_utility_low"]) == ("0.9", "")  # asked once, of the one model
    (told,) = json.loads((tmp_path / "leaderboard.json").read_text())["leaderboards"][0]["rows"]
    assert told["values"]["form_gap"]["interval"] == pytest.approx([0.2, 0.6])
    assert "mean over 2 targets in one model" in (tmp_path / "leaderboard.tex").read_text().replace("\n", " ")


def test_the_interval_of_a_batch_is_of_each_targets_mean_over_seeds() -> None:
    seeds = [{"Ann": 0.0, "Ben": 0.6}, {"Ann": 0.4, "Ben": 1.0}]  # Ann .2, Ben .8
    records = [batch("npo", "ort/1-2", values, seed=seed) for seed, values in enumerate(seeds)]
    (table,) = tables_of(records, [])
    assert table.rows[0].interval("form_gap") == pytest.approx((0.2, 0.8))
    (lacking,) = tables_of([records[0], record("npo", "ort/1-2", seed=1, form_gap=0.7)], [])
    assert all(map(math.isnan, lacking.rows[0].interval("form_gap")))  # a seed whose targets are not known


def test_nested_batches_become_a_curve_that_begins_with_their_first_target_alone(tmp_path: Path) -> None:
    records = [
        record("npo", ANN, form_gap=0.1),
        record("npo", BEN, form_gap=0.9),  # alone too, but at 1 stands the target that begins the batches
        batch("npo", "ort/1-2", {"Ann": 0.2, "Ben": 0.4}),
        batch("npo", "ort/1-4", {"Ann": 0.5, "Ben": 0.5, "Cy": 0.5, "Di": 0.5}),
        batch("npo", "ort/2-3", {"Ben": 0.7, "Cy": 0.7}),  # begins with another target, which is there alone
        record("npo", f"{ANN}>", form_gap=0.8),  # the first of a chain
        record("npo", "tofu/forget01", form_gap=0.4),
        record("rocr", "ort/1-4", fail=True),
    ]
    write_reports(records, tmp_path, methods=["npo", "rocr"])
    found = [row for row in read(tmp_path / "batches.csv") if row["metric"] == "form_gap"]
    points = [(r["batch"], r["targets"], r["benchmark"], r["value"], r["low"]) for r in found if r["method"] == "npo"]
    assert points == [
        ("ort/1-4", "1", ANN, "0.1", ""),
        ("ort/1-4", "2", "ort/1-2", "0.30000000000000004", "0.2"),
        ("ort/1-4", "4", "ort/1-4", "0.5", "0.5"),
        ("ort/2-3", "1", BEN, "0.9", ""),
        ("ort/2-3", "2", "ort/2-3", "0.7", "0.7"),
    ]
    holes = [(r["targets"], r["value"], r["seeds"]) for r in found if r["method"] == "rocr"]
    assert holes == [("1", "", "0"), ("2", "", "0"), ("4", "", "0")]


def test_batches_of_numbers_with_gaps_are_nested_where_their_lists_begin_alike() -> None:
    names = (ANN, BEN, "ort/1-2", "ort/1+2+10", "ort/1-2+10+24", "ort/1-3", "ort/1+3")
    rows = batch_rows(tables_of([record("npo", name, form_gap=0.5) for name in names], []))[1:]
    curves: dict[object, list[object]] = {}
    for row in rows:
        curves.setdefault(row[3], []).append((row[4], row[5]))
    shared = [(1, ANN), (2, "ort/1-2")]
    assert curves == {
        "ort/1-2+10+24": [*shared, (3, "ort/1+2+10"), (4, "ort/1-2+10+24")],
        "ort/1-3": [*shared, (3, "ort/1-3")],
        "ort/1+3": [(1, ANN), (2, "ort/1+3")],
    }


def test_a_list_and_a_range_of_targets_have_files_and_labels_of_their_own() -> None:
    tables = tables_of([record("npo", name, form_gap=0.5) for name in ("ort/1-3", "ort/1+3")], [])
    assert sorted(slugs(tables)) == ["ort-1-3-m-strict", "ort-1-and-3-m-strict"]
    labels = {re.findall(r"tab:summary-[^}]*", summary_latex(table))[0] for table in tables}
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("name", "stages"), [("batches.csv", (ANN, "ort/1-2", "ort/1-4")), ("curves.csv", (f"{ANN}>", f"{ANN}>{BEN}"))]
)
def test_a_curve_whose_last_point_failed_for_everyone_keeps_the_points_before(
    name: str, stages: tuple[str, ...], tmp_path: Path
) -> None:
    whole = [record(method, stage, form_gap=0.1) for stage in stages[:-1] for method in ("npo", "rocr")]
    write_reports([*whole, *(record(method, stages[-1], fail=True) for method in ("npo", "rocr"))], tmp_path)
    found = [(row["method"], row["metric"], row["value"], row["seeds"]) for row in read(tmp_path / name)]
    points = [("0.1", "1")] * (len(stages) - 1) + [("", "0")]
    assert found == [(method, "form_gap", *point) for method in ("npo", "rocr") for point in points]


@pytest.mark.parametrize(
    "names",
    [
        (ANN, BEN),  # each alone
        ("ort/1-2",),
        ("ort/1-2", "ort/3-4"),  # not nested
        ("ort/1-2", "ort/1+3+4"),  # begin with the same target, but the larger lacks the second
        ("ort/1-2", BEN),  # alone, but not the first
        (ANN, "ort/1_Another", "ort/1-2"),  # two people with the number 1
        (f"{ANN}>", f"{ANN}>{BEN}"),
    ],
)
def test_what_is_not_nested_is_no_curve(names: tuple[str, ...], tmp_path: Path) -> None:
    records = [record("npo", name, form_gap=0.5) for name in names]
    assert len(batch_rows(tables_of(records, []))) == 1
    (tmp_path / "batches.csv").write_text("of an earlier command")
    write_reports(records, tmp_path)
    assert not (tmp_path / "batches.csv").exists()


def test_models_and_protocols_have_curves_of_their_own() -> None:
    records = [record("npo", name, form_gap=0.5) for name in (ANN, "ort/1-2")]
    other = [replace(r, cell_id=f"other-{r.cell_id}", spec={**r.spec, "model": "other"}) for r in records]
    rows = batch_rows(tables_of([*records, *other[1:]], []))[1:]
    assert {row[0] for row in rows} == {"m"}  # of the other model there is one point
    assert {row[0] for row in batch_rows(tables_of([*records, *other], []))[1:]} == {"m", "other"}


def test_the_numbers_that_a_name_lists() -> None:
    names = ("ort/2-5", "ort/2+5", "ort/2-4+9+11", "ort/12_Ann_Lee", "ort/12_Ann_Lee>", f"{ANN}>{BEN}", "ort", "ort/3")
    assert [numbers(name) for name in names] == [(2, 3, 4, 5), (2, 5), (2, 3, 4, 9, 11), (12,), *[None] * 4]
    assert numbers("tofu/forget01") is None

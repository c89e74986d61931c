"""Every method against the best of its column: who is compared on what, and what is left out."""

import csv
import io
import math
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.compare import Significance, compare_with_best
from bench.html import write_html
from bench.latex.layouts import headline, printed, sections
from bench.latex.typeset import typeset
from bench.records import Metric
from bench.report import summary_table, write_reports
from bench.stats import Part, Statistic, holm
from bench.store import Record, write_jsonl
from bench.tables import tables_of

HIGHER = ("model_utility", "forget_quality")


def statistics_of(
    evaluator: str,
    rows: list[dict],
    *,
    protocol: str,
    names: Iterable[str],
    reference: Callable[[str], list[dict] | None],
) -> Mapping[str, Statistic | str]:
    """A fake: every row holds a value of each metric; D is the mean distance from the retrained model's value."""
    assert (evaluator, protocol) == ("tofu", "strict")
    found: dict[str, Statistic | str] = {}
    for name in names:
        values: dict[str, Any] = {row["id"]: row.get(name) for row in rows}
        if name == "forget_ks_d":
            theirs = {row["id"]: row[name] for row in reference("retrained") or ()}
            if not theirs:
                found[name] = "no retrained"
                continue
            values = {key: abs(value - theirs[key]) for key, value in values.items()}
        broken = [key for key, value in values.items() if value is None]
        found[name] = f"{name} is missing in {broken[0]}" if broken else Statistic((Part("rows", values),))
    return found


def add(
    out: Path, method: str, rows: list[dict] | None, *, seed: int = 0, benchmark: str = "tofu/forget10", **values: float
) -> Record:
    """A record whose metrics are the means of its rows, unless they are given; its rows are stored."""
    spec = {"model": "mini", "method": method, "benchmark": benchmark, "seed": seed, "protocol": "strict"}
    cell_id = f"{method}-{benchmark}-s{seed}".replace("/", "-")
    means = {}
    for name in [key for key in (rows or [{}])[0] if key != "id"]:
        column = [row[name] for row in rows or () if row[name] is not None]
        means[name] = sum(column) / len(column)
    found = [Metric(name=n, value=v, higher_is_better=n in HIGHER) for n, v in (means | values).items()]
    if rows is not None:
        write_jsonl(out / "runs" / cell_id / "samples" / "tofu.jsonl", rows)
    return Record(cell_id=cell_id, spec=spec, record={"train_seconds": 1.0}, metrics={"tofu": found})


def rows_of(base: float, seed: int = 0, n: int = 30, name: str = "model_utility", spread: float = 0.1) -> list[dict]:
    draw = random.Random(f"{base} {seed}")
    return [{"id": f"e{i}", name: base + spread * (draw.random() - 0.5)} for i in range(n)]


def results(found: Significance) -> dict[tuple[str, str], Any]:
    return {(r.metric, r.method): r for r in found.results}


def test_each_method_is_compared_with_the_best_of_the_column(tmp_path: Path) -> None:
    records = [
        add(tmp_path, "original", rows_of(0.95)),
        add(tmp_path, "npo", rows_of(0.9)),
        add(tmp_path, "ga", rows_of(0.2)),
        add(tmp_path, "gd", rows_of(0.899, seed=3)),
    ]
    found = results(compare_with_best(records, [tmp_path], statistics_of))
    best = max(("npo", "gd"), key=lambda method: records[1 if method == "npo" else 3].metrics["tofu"][0].value)
    other = ({"npo", "gd"} - {best}).pop()
    assert set(found) == {("model_utility", "ga"), ("model_utility", other)}  # no reference, not the best itself
    ga, near = found["model_utility", "ga"], found["model_utility", other]
    assert (ga.best, ga.n, ga.tied) == (best, 30, False)
    assert -0.8 < ga.low < ga.difference < ga.high < -0.6
    assert near.tied and near.low <= near.difference <= near.high
    assert [ga.p_holm, near.p_holm] == holm([ga.p, near.p])


def test_tables_and_files_show_what_is_tied(tmp_path: Path) -> None:
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", rows_of(0.2))]
    near = [{**r, "model_utility": r["model_utility"] - 0.001 * (-1) ** i} for i, r in enumerate(rows_of(0.9))]
    near[-1]["model_utility"] -= 0.02
    records.append(add(tmp_path, "gd", near))
    found = compare_with_best(records, [tmp_path], statistics_of)
    (table,) = tables_of(records, [], significance=found)
    assert len(table.tied["model_utility"]) == 1
    (tied,) = table.tied["model_utility"]
    assert tied in ("npo", "gd") and table.places("model_utility")[tied] == "second"
    paths = write_reports(records, tmp_path, significance=found)
    assert tmp_path / "significance.csv" in paths
    rows = list(csv.DictReader(io.StringIO((tmp_path / "significance.csv").read_text())))
    assert {row["method"]: row["tied"] for row in rows} == {"ga": "no", tied: "yes"}
    assert rows[0].keys() >= {"difference", "low", "high", "p", "p_holm", "n", "best", "reason"}
    output = io.StringIO()
    Console(file=output, width=100).print(summary_table(records, significance=found))
    text = output.getvalue()
    assert text.count("†") == 2
    assert "† not significantly different from the best of its column" in text
    output = io.StringIO()
    Console(file=output, width=100).print(summary_table(records))
    assert "†" not in output.getvalue()


def test_every_column_that_the_paper_prints_is_tested_and_no_other(tmp_path: Path) -> None:
    names = ["model_utility", "world_facts_probability", "forget_rouge_l_recall", "memorization_score", "other"]
    records = []
    for place, method in enumerate(("ga", "npo", "gd")):
        draw = random.Random(place)
        rows = [{"id": f"e{i}", **{name: place / 4 + 0.2 * draw.random() for name in names}} for i in range(20)]
        records.append(add(tmp_path, method, rows))
    found = compare_with_best(records, [tmp_path], statistics_of)
    (table,) = tables_of(records, [], significance=found)
    shown = {column.metric for section in sections([table]) for of in section.layouts for column in of.columns}
    assert shown == set(printed(table)) == {*names[:4], "utility_score", "overall_score"}
    assert {result.metric for result in found.results} == set(names[:4])  # of the other two there are no figures
    assert not any(map(table.uncompared, shown))


def test_what_is_not_tested_is_marked_wherever_it_is_printed(tmp_path: Path) -> None:
    records = [
        add(tmp_path, "npo", rows_of(0.9), forget_quality=0.9),  # of forget quality there are no rows
        add(tmp_path, "ga", rows_of(0.2), forget_quality=0.5),
        add(tmp_path, "gd", None, model_utility=0.3, forget_quality=0.4),
    ]
    found = compare_with_best(records, [tmp_path], statistics_of)
    (table,) = tables_of(records, [], significance=found)
    assert (table.marks("model_utility"), table.uncompared("model_utility")) == ({"gd": "untested"}, False)
    assert (table.marks("forget_quality"), table.uncompared("forget_quality")) == ({}, True)
    write_reports(records, tmp_path, significance=found)
    latex = (tmp_path / "leaderboard.tex").read_text()
    assert r"\underline{$0.300$}\rlap{$^{\ddagger}$}" in latex
    assert r"quality$^{\ddagger}$ & utility" in latex and latex.count("ddagger") == 3
    assert r"$^{\ddagger}$ marks what is not tested against the best." in latex
    text = (tmp_path / "leaderboard.md").read_text()
    assert "Forget quality\u2021" in text and "*0.300*\u2021" in text
    assert "\u2021 marks what is not tested against the best." in text
    (paper,) = [typeset(layout) for section in sections([table]) for layout in section.layouts]
    assert r"{quality$^{\ddagger}$}" in paper and paper.count("ddagger") == 3
    page = write_html(records, [tmp_path], tmp_path, tables=[table]).read_text()
    assert "quality\u2021" in page and 'class="second untested"' in page
    assert "\u2021 is not tested against the best of its column." in page
    output = io.StringIO()
    Console(file=output, width=100).print(summary_table(records, significance=found))
    assert "quality\u2021" in output.getvalue() and "0.300\u2021" in output.getvalue()
    assert "\u2021 not tested against the best of its column" in output.getvalue()
    for text in (typeset(headline(tables_of(records, [])[0], "x")), "".join(map(str, tables_of(records, [])))):
        assert "ddagger" not in text  # where nobody asked for comparisons


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = [add(tmp_path, method, rows_of(0.5, seed=i)) for i, method in enumerate(("npo", "ga", "gd"))]
    once = compare_with_best(records, [tmp_path], statistics_of)
    assert compare_with_best(list(reversed(records)), [tmp_path], statistics_of, methods=["npo", "ga", "gd"]) == (
        compare_with_best(records, [tmp_path], statistics_of, methods=["npo", "ga", "gd"])
    )
    assert compare_with_best(records, [tmp_path / "empty", tmp_path], statistics_of) == once


def test_seeds_are_paired(tmp_path: Path) -> None:
    # Every example of npo is 0.1 above the one of ga of the same seed; other seeds lie far apart.
    records = []
    for seed in (0, 1):
        rows = rows_of(0.5, seed=seed, spread=0.8)
        records.append(add(tmp_path, "ga", rows, seed=seed))
        up = [{**row, "model_utility": row["model_utility"] + 0.1} for row in rows]
        records.append(add(tmp_path, "npo", up, seed=seed))
    records.append(add(tmp_path, "npo", rows_of(0.6, seed=7), seed=2))  # ga has no such seed
    (found,) = compare_with_best(records, [tmp_path], statistics_of).results
    assert (found.method, found.best, found.n) == ("ga", "npo", 30)
    assert found.low == pytest.approx(-0.1)
    assert found.high == pytest.approx(-0.1)


def test_without_a_common_seed_there_is_no_test(tmp_path: Path) -> None:
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", rows_of(0.2), seed=1)]
    (found,) = compare_with_best(records, [tmp_path], statistics_of).results
    assert (found.reason, found.tied) == ("no seed in common", None)
    assert math.isnan(found.p)


def test_without_stored_rows_nothing_is_said(tmp_path: Path) -> None:
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", None, model_utility=0.2)]
    found = compare_with_best(records, [tmp_path], statistics_of)
    assert found == Significance()
    write_reports(records, tmp_path, significance=found)
    assert not (tmp_path / "significance.csv").exists()


def test_a_hole_in_the_rows_is_told_and_takes_no_part_in_the_correction(tmp_path: Path) -> None:
    broken = rows_of(0.3)
    broken[4]["model_utility"] = None
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", broken), add(tmp_path, "gd", rows_of(0.5))]
    found = results(compare_with_best(records, [tmp_path], statistics_of))
    ga, gd = found["model_utility", "ga"], found["model_utility", "gd"]
    assert (ga.reason, ga.tied) == ("model_utility is missing in e4", None)
    assert gd.p_holm == gd.p


def test_other_examples_leave_no_test(tmp_path: Path) -> None:
    other = [{**row, "id": f"other {row['id']}"} for row in rows_of(0.2)]
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", other)]
    (found,) = compare_with_best(records, [tmp_path], statistics_of).results
    assert (found.reason, found.n) == ("no example in common", 0)


def test_damaged_rows_are_as_good_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [add(tmp_path, "npo", rows_of(0.9)), add(tmp_path, "ga", rows_of(0.2))]
    path = tmp_path / "runs" / records[1].cell_id / "samples" / "tofu.jsonl"
    path.write_text(path.read_text()[:-20])
    assert compare_with_best(records, [tmp_path], statistics_of).results == ()
    assert "not compared" in caplog.text


def test_nobody_is_compared_where_nobody_is_best(tmp_path: Path) -> None:
    same = rows_of(0.5)
    records = [add(tmp_path, "npo", same), add(tmp_path, "ga", same)]
    assert compare_with_best(records, [tmp_path], statistics_of).results == ()
    assert compare_with_best(records[:1], [tmp_path], statistics_of).results == ()


def test_forget_quality_is_tested_by_its_distance(tmp_path: Path) -> None:
    records = [
        add(tmp_path, method, rows_of(base, name="forget_ks_d"), forget_quality=quality, forget_ks_d=distance)
        for method, base, quality, distance in
        (("retrained", 0.0, 1.0, 0.0), ("npo", 0.1, 0.5, 0.1), ("ga", 0.9, 1e-9, 0.9))
    ]  # fmt: skip
    found = results(compare_with_best(records, [tmp_path], statistics_of))
    quality, distance = found["forget_quality", "ga"], found["forget_ks_d", "ga"]
    assert (quality.p, quality.tied, quality.reason) == (distance.p, False, "tested by forget_ks_d")
    assert math.isnan(quality.difference)
    assert distance.difference == pytest.approx(0.8, abs=0.05)


def test_the_reference_is_that_of_the_same_seed(tmp_path: Path) -> None:
    records = []
    for seed in (0, 1):
        for method, base in (("retrained", 10.0 * seed), ("npo", 10.0 * seed + 0.1), ("ga", 10.0 * seed + 0.5)):
            rows = rows_of(base, name="forget_ks_d", spread=0.0)
            records.append(add(tmp_path, method, rows, seed=seed, forget_ks_d=base - 10 * seed))
    found = results(compare_with_best(records, [tmp_path], statistics_of))
    assert found["forget_ks_d", "ga"].difference == pytest.approx(0.4)


def test_targets_are_averaged_and_their_examples_kept_apart(tmp_path: Path) -> None:
    records = []
    for target, n in (("ort/1_Ann", 20), ("ort/2_Ben", 10)):
        for method, base in (("npo", 0.8), ("ga", 0.2)):
            rows = rows_of(base if target.endswith("Ann") else base / 2, n=n, spread=0.0)
            records.append(add(tmp_path, method, rows, benchmark=target))
    (found,) = compare_with_best(records, [tmp_path], statistics_of).results
    assert found.benchmark == "ort"
    assert found.difference == pytest.approx((-0.6 - 0.3) / 2)
    assert found.n == 30

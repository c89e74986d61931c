"""The gate on records written by hand, where every tolerance can be computed, and on runs of toy checkpoints."""

import csv
import json
import math
import os
import re
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import run_all
from bench import gate
from bench.baseline import (
    baseline_of,
    expected,
    given,
    is_p_value,
    portable,
    read_baseline,
    with_baseline,
    write_baseline,
)
from bench.errors import LetheError
from bench.options import parse
from bench.records import Metric, missing
from bench.store import Record, RunStore
from evaluators.tofu import TofuEvaluator
from tests.toy_runs import Toys

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["--methods", "npo"]
pytestmark = pytest.mark.usefixtures("undrawn")


def record(
    method: str,
    seed: int = 0,
    *,
    weights: str = "a" * 64,
    device: str = "x86_64 CPU, 2 threads",
    **values: float | Metric,
) -> Record:
    """A cell with metrics of 40 examples, higher is better unless a Metric says otherwise."""
    metrics = [
        v if isinstance(v, Metric) else Metric(name=name, value=v, n=40, higher_is_better=True)
        for name, v in values.items()
    ]
    spec = {"model": "mini", "benchmark": "tofu/forget10", "protocol": "strict", "method": method, "seed": seed}
    return Record(
        cell_id=f"{method}-s{seed}",
        spec={**spec, "model_hash": weights, "retrained": "", "device": "cpu" if "CPU" in device else "cuda"},
        record={"device": device, "versions": {"torch": "2.13.0"}, "code": {"commit": "c0ffee"}},
        metrics={"tofu": metrics},
    )


def lower(name: str, value: float) -> Metric:
    return Metric(name=name, value=value, n=40, higher_is_better=False)


def undirected(name: str, value: float) -> Metric:
    return Metric(name=name, value=value, n=40)


def checked(before: Sequence[Record], now: Sequence[Record]) -> gate.Check:
    return gate.compare(baseline_of(before, COMMAND), now)


def verdicts(check: gate.Check) -> dict[str, str]:
    return {f"{row.method} {row.metric}": row.verdict for row in check.rows}


def shown(check: gate.Check, width: int = 200) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(check)
        return console.export_text()


# --- tolerances


def test_a_method_may_move_by_three_deviations_of_its_seeds() -> None:
    # seeds 0.4, 0.5, 0.6: mean 0.5, deviation 0.1
    found = expected([0.4, 0.5, 0.6], 40, higher_is_better=True)
    assert (found.mean, found.sd, found.deviations) == (0.5, pytest.approx(0.1), 3.0)
    assert found.tolerance == pytest.approx(0.3)
    assert found.floor == pytest.approx(0.5 * 0.002 + 1e-6)
    assert found.elsewhere == pytest.approx(0.6)


def test_the_floor_holds_where_seeds_do_not_differ_or_there_is_one() -> None:
    assert expected([0.5, 0.5001], 40, higher_is_better=True).tolerance == pytest.approx(0.5 * 0.002 + 1e-6, rel=1e-3)
    assert expected([0.5], 40, higher_is_better=True).tolerance == pytest.approx(0.001001)
    assert math.isnan(expected([0.5], 40, higher_is_better=True).sd)


def test_where_seeds_are_alike_one_example_of_one_of_them_may_come_out_the_other_way() -> None:
    assert expected([1.0, 1.0], 40, higher_is_better=True).tolerance == pytest.approx(1 / 80)
    assert expected([1.0, 1.0], 0, higher_is_better=True).tolerance == pytest.approx(0.002001)
    assert expected([1.0, 1.0], 40, higher_is_better=True, reference=True).tolerance == pytest.approx(0.002001)


def test_elsewhere_one_of_the_examples_may_come_out_the_other_way_but_no_likelihood() -> None:
    assert expected([0.5], 40, higher_is_better=True, reference=True).elsewhere == pytest.approx(1 / 40)
    assert expected([0.5], 0, higher_is_better=True, reference=True).elsewhere == pytest.approx(0.003751)
    smooth = expected([0.5], 40, higher_is_better=True, reference=True, smooth=True)
    assert smooth.elsewhere == pytest.approx(0.003751)  # 0.5 * 0.0075 + 1e-6, and 1 % is 0.005
    assert expected([0.01, 0.01], 40, higher_is_better=True, smooth=True).elsewhere == 1e-3


def test_the_tolerance_of_a_reference_is_rounding_whatever_its_records_are() -> None:
    found = expected([0.4, 0.6], 40, higher_is_better=True, reference=True)
    assert (found.deviations, found.tolerance) == (0.0, pytest.approx(0.001001))


# --- verdicts


def seeds(low: float, high: float) -> list[Record]:
    """Two seeds of npo in three metrics."""
    return [
        record("npo", at, utility=value, forgotten=lower("forgotten", value), privleak=undirected("privleak", value))
        for at, value in enumerate((low, high))
    ]


def test_better_is_told_and_green_worse_is_red_and_so_is_what_has_no_direction() -> None:
    # mean 0.5, deviation 0.0141: tolerance 0.0424
    before = seeds(0.49, 0.51)
    check = checked(before, seeds(0.59, 0.61))
    assert verdicts(check) == {"npo utility": "better", "npo forgotten": "regression", "npo privleak": "moved"}
    assert [row.direction for row in check.rows] == ["better", "worse", "neither"]
    assert check.rows[0].difference == pytest.approx(0.1)
    assert check.rows[0].deviations == pytest.approx(0.1 / math.sqrt(0.0002))
    assert check.exit_code == 1 and check.verdict == "gate red: 1 regression, 1 moved, 1 better"
    only = [
        replace(r, metrics={"tofu": [m for m in r.metrics["tofu"] if m.name == "utility"]}) for r in seeds(0.59, 0.61)
    ]
    was = [replace(r, metrics={"tofu": [m for m in r.metrics["tofu"] if m.name == "utility"]}) for r in before]
    assert checked(was, only).exit_code == 0


def test_what_stays_within_its_tolerance_is_green_and_not_shown() -> None:
    check = checked(seeds(0.49, 0.51), seeds(0.51, 0.54))
    assert set(verdicts(check).values()) == {"ok"}
    assert check.exit_code == 0
    assert shown(check) == "gate green: 3 ok\n"


def test_a_reference_may_not_move_in_either_direction() -> None:
    for factor in (0.99, 1.01):
        check = checked([record("original", utility=0.8)], [record("original", utility=0.8 * factor)])
        assert verdicts(check) == {"original utility": "moved"} and check.exit_code == 1
    assert checked([record("original", utility=0.8)], [record("original", utility=0.8 * 1.001)]).exit_code == 0


def test_on_other_weights_the_wider_tolerance_applies_and_is_told() -> None:
    before = [record("original", utility=0.8)]
    check = checked(before, [record("original", weights="b" * 64, utility=0.776)])
    assert check.exit_code == 0
    assert shown(check).startswith("the weights of original not as in the baseline: compared with the tolerance")
    assert checked(before, [record("original", weights="b" * 64, utility=0.74)]).exit_code == 1


def test_one_cpu_is_as_good_as_another_with_the_same_weights_but_no_gpu_is() -> None:
    before = [record("original", utility=0.8)]
    assert checked(before, [record("original", device="aarch64 CPU, 8 threads", utility=0.79)]).exit_code == 1
    check = checked(before, [record("original", device="NVIDIA L4", utility=0.79)])
    assert check.exit_code == 0 and check.notes[0].startswith("the device of original not as in the baseline")


def test_p_values_are_never_compared_but_their_d_is() -> None:
    before = [record("npo", forget_quality=0.5, forget_quality_arithmetic=0.5, forget_ks_d=lower("forget_ks_d", 0.2))]
    now = [record("npo", forget_quality=1e-9, forget_quality_arithmetic=1e-9, forget_ks_d=lower("forget_ks_d", 0.8))]
    assert verdicts(checked(before, now)) == {"npo forget_ks_d": "regression"}
    names = ("forget_quality", "forget_quality_arithmetic", "t_test_p_value", "ks_p", "p", "welch_pvalue", "ks_p_val")
    assert all(map(is_p_value, names))
    assert not any(map(is_p_value, ("forget_ks_d", "retain_probability", "mia_min_k", "top_p_accuracy", "map")))


def test_a_value_that_became_nan_or_vanished_is_red_and_a_new_one_is_told() -> None:
    before = [record("npo", utility=0.5, other=0.5)]
    gone = checked(before, [record("npo", utility=missing("utility", "no answers"), extra=0.3)])
    assert verdicts(gone) == {"npo utility": "missing", "npo other": "missing", "npo extra": "new"}
    assert gone.exit_code == 1
    assert checked(before, [record("npo", utility=0.5, other=0.5, extra=0.3)]).exit_code == 0


def test_a_row_that_is_gone_failed_or_lacks_a_seed_is_red() -> None:
    before = [record("npo", at, utility=0.5, other=0.5) for at in (0, 1)] + [record("ga", utility=0.1)]
    check = checked(before, [record("ga", utility=0.1)])
    assert verdicts(check) == {"npo utility": "missing", "npo other": "missing", "ga utility": "ok"}
    assert "  2 metrics missing: the row is gone" in shown(check)
    failed = replace(before[1], status="failed", error="Traceback\nRuntimeError: no memory", metrics={})
    check = checked(before, [before[0], failed, before[2]])
    assert check.rows[0].note == "1 of 2 seeds are there; RuntimeError: no memory"
    assert check.exit_code == 1
    check = checked(before, [*before, record("idk", utility=0.7)])
    assert verdicts(check)["idk utility"] == "new" and check.exit_code == 0


def test_time_is_no_part_of_it() -> None:
    slow = replace(record("npo", utility=0.5), record={**record("npo").record, "train_seconds": 1e6, "peak_gib": 9.0})
    assert verdicts(checked([record("npo", utility=0.5)], [slow])) == {"npo utility": "ok"}


def test_the_terminal_shows_what_moved_and_the_counts() -> None:
    lines = shown(checked(seeds(0.49, 0.51), seeds(0.59, 0.61))).splitlines()
    assert lines[0].split() == ["metric", "before", "now", "difference", "may", "seeds'", "sd"]
    assert lines[1] == "npo, tofu/forget10, model mini, protocol strict"
    assert lines[2].split() == ["better", "utility", "0.5", "0.6", "+0.1", "0.0424", "+7.1"]
    assert lines[-1] == "gate red: 1 regression, 1 moved, 1 better"


# --- files


AWKWARD = "npo[a=<b>&\"c',\x07%\n]]>"


def awkward() -> gate.Check:
    return checked([record(AWKWARD, utility=0.5, same=0.5)], [record(AWKWARD, utility=0.1, same=0.5)])


def test_junit_has_a_case_for_every_metric_and_survives_any_name(tmp_path: Path) -> None:
    paths = gate.write_check(awkward(), tmp_path)
    assert [path.name for path in paths] == ["check.csv", "junit.xml"]
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "1")
    (suite,) = root
    assert AWKWARD.replace("\x07", "\ufffd") in suite.attrib["name"]
    assert [(case.attrib["name"], len(case)) for case in suite] == [("utility", 1), ("same", 0)]
    (failure,) = suite[0]
    assert failure.attrib["type"] == "regression" and "utility was 0.5, is 0.1: -0.4" in failure.attrib["message"]


def test_the_csv_has_every_metric_with_its_difference(tmp_path: Path) -> None:
    gate.write_check(awkward(), tmp_path)
    with (tmp_path / "check.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["metric"], row["verdict"]) for row in rows] == [
        (AWKWARD, "utility", "regression"),
        (AWKWARD, "same", "ok"),
    ]
    assert (rows[0]["before"], rows[0]["now"], rows[0]["difference"], rows[0]["deviations"]) == (
        "0.5",
        "0.1",
        "-0.4",
        "",
    )


def test_annotations_are_escaped_and_only_for_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert gate.annotations(awkward()) == []
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (line,) = gate.annotations(awkward())
    assert "\n" not in line and "%25%0A]]>" in line
    title = line.removeprefix("::error title=").partition("::")[0]
    assert title.endswith("tofu/forget10%3A utility") and "," not in title and ":" not in title
    many: dict[str, Any] = {f"m{at}": 0.5 for at in range(30)}
    worse: dict[str, Any] = dict.fromkeys(many, 0.1)
    lines = gate.annotations(checked([record("npo", **many)], [record("npo", **worse)]))
    assert len(lines) == gate.MAX_ANNOTATIONS and lines[-1] == "::error title=gate::21 more of these, see check.csv"


def test_a_baseline_comes_back_as_it_was_written_a_line_for_every_metric(tmp_path: Path) -> None:
    made = baseline_of([*seeds(0.49, 0.51), record("original", utility=0.8)], COMMAND, methods=["npo"])
    path = tmp_path / "baseline.json"
    write_baseline(path, made)
    again = read_baseline(path)
    write_baseline(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert {row.place: row.metrics["utility"].mean for row in again.rows} == {
        ("mini", "tofu/forget10", "strict", "npo"): 0.5,
        ("mini", "tofu/forget10", "strict", "original"): 0.8,
    }
    lines = [line for line in path.read_text().splitlines() if '"mean"' in line]
    assert len(lines) == 4
    assert json.loads("{" + lines[0].strip().rstrip(",") + "}")
    assert made.commit == "c0ffee" and made.command == ("--methods", "npo", "--benchmarks", "tofu", "--seeds", "1")


def test_a_baseline_of_cells_that_failed_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    with pytest.raises(LetheError, match=r"1 cells failed, the first is npo-s0"):
        gate.update(path, [replace(record("npo"), status="failed")], COMMAND)
    with pytest.raises(LetheError, match="no records"):
        gate.update(path, [], COMMAND)
    assert not path.exists()


def test_updating_shows_everything_that_differs_from_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    text = shown(gate.update(path, seeds(0.49, 0.51), COMMAND))
    assert text.endswith("  3 metrics new\nbaseline written anew: 3 metrics differ from the file before\n")
    check = gate.update(path, seeds(0.49, 0.52), [*COMMAND, "--seeds", "2"])
    text = shown(check)
    assert text.startswith("the command was: --methods npo --benchmarks tofu --seeds 1\n")
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["better", "worse", "neither"]  # within tolerance
    assert read_baseline(path).rows[0].metrics["utility"].mean == pytest.approx(0.505)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<<<<<<< ours", r"is not JSON \(.*\); take it from version control again"),
        ("[]", r"has format None, and this version reads 1; write it anew"),
        ('{"format": 99}', r"has format 99, and this version reads 1; write it anew"),
        ('{"format": 1}', r"the file: 'command' must be a list, got None; mend it"),
        ("NO_MEAN", r"row 'npo', metric 'utility': 'mean' must be a number, got None; mend it"),
        ("TEXT_MEAN", r"row 'npo', metric 'utility': 'mean' must be a number, got '0.5'; mend it"),
        ("NAN_MEAN", r"row 'npo', metric 'utility': 'mean' must be a number, got nan; mend it"),
        ("NEGATIVE", r"metric 'utility': 'tolerance' must be a number of at least 0, got -1; mend it"),
        ("OUT", r"the command holds --out, which belongs to who runs it; take it out; mend it"),
        ("REMOTE_CODE", r"the command holds --trust-remote-code"),
    ],
)
def test_a_malformed_baseline_is_told_in_a_sentence(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    write_baseline(path, baseline_of([record("npo", utility=0.5)], COMMAND))
    content: dict[str, Any] = json.loads(path.read_text())
    metric = content["rows"][0]["metrics"]["utility"]
    changes: dict[str, Callable[[], object]] = {
        "NO_MEAN": lambda: metric.pop("mean"),
        "TEXT_MEAN": lambda: metric.update(mean="0.5"),
        "NAN_MEAN": lambda: metric.update(mean=math.nan),
        "NEGATIVE": lambda: metric.update(tolerance=-1),
        "OUT": lambda: content["command"].extend(["--out", "elsewhere"]),
        "REMOTE_CODE": lambda: content["command"].append("--trust-remote-code"),
    }
    if text in changes:
        changes[text]()
        text = json.dumps(content)
    path.write_text(text)
    with pytest.raises(LetheError, match=said) as caught:
        read_baseline(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# --- the command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_the_command_is_kept_without_what_belongs_to_a_machine(data: Path) -> None:
    argv = ["--methods=npo[beta=0.2],ga", "--seeds", "2", "--out", "x", "--cache-dir", "c", "--device", "cpu", "-v"]
    argv += ["--set", "npo.epochs=2", "--set", "ga.lr=1", "--sequential", "--data", str(data), "--check", "b.json"]
    assert portable(argv) == (
        (
            *("--methods", "npo[beta=0.2],ga", "--benchmarks", "tofu", "--sequential", "--seeds", "2"),
            *("--set", "npo.epochs=2", "--set", "ga.lr=1"),
        ),
        ("--data",),
    )
    assert portable(["--data", "mini", "--model", "org/name"])[0][-4:] == ("--model", "org/name", "--data", "mini")


def stored(path: Path, *argv: str) -> Path:
    write_baseline(path, baseline_of([record("npo", utility=0.5)], argv))
    return path


def test_check_runs_the_command_of_the_baseline(tmp_path: Path) -> None:
    path = stored(tmp_path / "b.json", "--methods", "npo,ga", "--limit", "3")
    options = parse(with_baseline(["--check", str(path), "--out", "there", "--device", "cpu"]))
    assert [name.label for name in options.methods] == ["npo", "ga"]
    assert (options.limit, options.out) == (3, Path("there"))
    assert with_baseline(["--methods", "npo"]) == ["--methods", "npo"]


def test_check_takes_no_other_command(tmp_path: Path, data: Path) -> None:
    path = stored(tmp_path / "b.json", "--methods", "npo", "--data", str(data))
    with pytest.raises(LetheError, match=r"--methods would change it; leave it out"):
        with_baseline(["--check", str(path), "--methods", "ga", "--data", str(data)])
    with pytest.raises(LetheError, match=r"was made with --data and a path .*; give --data yours again"):
        with_baseline(["--check", str(path)])
    assert with_baseline(["--check", str(path), "--data", str(data)])[:2] == ["--methods", "npo"]


def test_an_update_keeps_the_command_or_takes_another(tmp_path: Path) -> None:
    path = stored(tmp_path / "b.json", "--methods", "npo,ga")
    update = ["--check", str(path), "--update-baseline"]
    assert with_baseline(update)[:2] == ["--methods", "npo,ga"]
    assert with_baseline([*update, "--methods", "ga"]) == [*update, "--methods", "ga"]
    first = ["--check", str(tmp_path / "new.json"), "--update-baseline"]
    assert with_baseline(first) == first
    with pytest.raises(LetheError, match=r"there is no baseline .*new\.json; make one"):
        with_baseline(first[:2])
    with pytest.raises(LetheError, match="--update-baseline goes with --check"):
        with_baseline(["--update-baseline"])


def test_options_are_read_as_the_parser_reads_them() -> None:
    assert given(["--seed", "2"]) == {}  # nothing may be shortened; the parser says so
    assert given(["--seeds=2", "--set", "a.b=1"]) == {"seeds": 2, "set": ["a.b=1"]}
    assert given(["--fresh"]) == {"fresh": True}
    assert given([]) == {}


# --- planted changes, on toy checkpoints

METHODS = "npo[batch_size=2,lr=0.01]"


def run_toys(toys: Toys, out: Path, *more: str) -> list[Record]:
    assert run_all.main(toys.command(out, METHODS, "--seeds", "2", *more)) == 0
    return RunStore(out).records()


def test_an_unchanged_run_is_green_three_times_in_a_row(toys: Toys, tmp_path: Path, short_generations: None) -> None:
    baseline = baseline_of(run_toys(toys, tmp_path / "first"), COMMAND)
    for number in range(3):
        check = gate.compare(baseline, run_toys(toys, tmp_path / str(number)))
        assert check.exit_code == 0 and set(check.counts) == {"ok"} and len(check.rows) > 60
        assert all(row.difference == 0 for row in check.rows)


def test_halving_the_beta_of_npo_is_red_and_named(toys: Toys, tmp_path: Path, short_generations: None) -> None:
    baseline = baseline_of(run_toys(toys, tmp_path / "before"), COMMAND)
    check = gate.compare(baseline, run_toys(toys, tmp_path / "now", "--set", "npo.beta=0.05"))
    assert check.exit_code == 1
    red = {(row.method, row.metric) for row in check.rows if row.red}
    assert ("npo[batch_size=2,lr=0.01]", "retain_probability") in red
    assert {method for method, _ in red} == {"npo[batch_size=2,lr=0.01]"}
    assert "retain_probability" in shown(check)


def test_any_metric_that_is_off_by_one_percent_is_red_and_named(
    toys: Toys, tmp_path: Path, short_generations: None
) -> None:
    records = run_toys(toys, tmp_path)
    baseline = baseline_of(records, COMMAND)
    references = [row for row in baseline.rows if row.reference]
    names = {name for row in references for name, metric in row.metrics.items() if abs(metric.mean) > 2e-4}
    assert len(names) > 15
    for name in sorted(names):
        red = {row.metric for row in gate.compare(baseline, [off(r, name, 1.01) for r in records]).rows if row.red}
        assert red == {name}


def off(record: Record, name: str, factor: float) -> Record:
    """The same with one metric multiplied."""
    return replace(
        record,
        metrics={
            evaluator: [replace(m, value=m.value * factor) if m.name == name else m for m in metrics]
            for evaluator, metrics in record.metrics.items()
        },
    )


def test_a_formula_that_is_off_by_one_percent_is_red(
    toys: Toys, tmp_path: Path, short_generations: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = baseline_of(run_toys(toys, tmp_path / "before"), COMMAND)
    real = TofuEvaluator.summarize

    def summarize(self: TofuEvaluator, rows: list[dict], reference_rows: list[dict] | None) -> list[Metric]:
        found = real(self, rows, reference_rows)
        return [replace(m, value=1.01 * m.value) if m.name == "forget_truth_ratio" else m for m in found]

    monkeypatch.setattr(TofuEvaluator, "summarize", summarize)
    check = gate.compare(baseline, run_toys(toys, tmp_path / "now"))
    red = {(row.method, row.metric) for row in check.rows if row.red}
    assert {("original", "forget_truth_ratio"), ("retrained", "forget_truth_ratio")} <= red
    assert check.exit_code == 1


# --- what is committed

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
COMMITTED = ROOT / "results/baseline.json"


def steps(path: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load(path.read_text())
    assert content[True].keys() >= {"push", "pull_request"}  # YAML 1.1 reads the key `on` as true
    return [step for job in content["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_the_gate_and_one_for_the_tests() -> None:
    assert [path.name for path in WORKFLOWS] == ["leaderboard.yml", "tests.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_commands_of_a_workflow_exist(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [shlex.split(line) for step in steps(path) for line in step.get("run", "").splitlines()]
    assert commands
    for words in commands:
        if words[:2] == ["sudo", "apt-get"]:  # what is no Python package
            continue
        assert words[0] == "make" and words[1] in targets, words
        for variable in words[2:]:
            name = variable.partition("=")[0]
            assert f"$({name})" in (ROOT / "Makefile").read_text(), words


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_major_version(path: Path) -> None:
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[a-z-]+@v\d+", name) for name in used)


def test_the_check_of_the_makefile_runs_the_committed_baseline_anew() -> None:
    (line,) = re.findall(r"^\t.*run_all\.py (.*--check.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    words = shlex.split(line.replace("$(CHECK_OUT)", "somewhere"))
    assert words[words.index("--check") + 1] == COMMITTED.relative_to(ROOT).as_posix()
    assert "--fresh" in words  # else finished cells of older code would be read
    options = parse(read_baseline(COMMITTED).command)
    assert "npo" in [name.label for name in options.methods] and options.seeds > 1 and options.model == "mini"
    assert {row.method for row in read_baseline(COMMITTED).rows} >= {"original", "retrained", "npo"}

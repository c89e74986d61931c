"""The command from its arguments to its leaderboards, on a dozen rows and random checkpoints."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.checkpoints
import run_all
from bench.tables import HEADLINE
from evaluators.tofu import TofuEvaluator
from tests.toy_report import Made
from tests.toy_runs import Toys, reports, save_model, table

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")
ARCHITECTURES = ("llama", "mistral", "qwen3", "phi3", "gemma3", "gpt2", "gpt_neox")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checkpoints that were loaded, in order."""
    names: list[str] = []
    real = bench.checkpoints.load_model

    def load(name: str, **options: Any) -> Any:
        names.append(Path(name).name)
        return real(name, **options)

    monkeypatch.setattr(bench.checkpoints, "load_model", load)
    return names


def run_folder(out: Path, start: str) -> Path:
    """The only run whose id starts so."""
    (folder,) = (out / "runs").glob(f"{start}-*")
    return folder


def metric(out: Path, method: str, name: str, *, benchmark: str = "tofu/forget10") -> str:
    (row,) = (row for row in table(out / "leaderboard.csv") if (row["method"], row["benchmark"]) == (method, benchmark))
    return row[name]


# --- what a run leaves


def test_checkpoints_are_evaluated_without_unlearning_anything(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], loads: list[str]
) -> None:
    assert run_all.main(toys.command(tmp_path / "out", "original")) == 0
    out = tmp_path / "out"
    rows = table(out / "leaderboard.csv")
    assert [row["method"] for row in rows] == ["original", "retrained"]
    assert rows[1]["forget_quality"] == "1.0"
    assert float(rows[0]["forget_quality"]) < 1
    assert loads == ["retrained", "original"]
    assert {row["train_seconds"] for row in table(out / "costs.csv")} == {"0.0"}
    folder = run_folder(out, "original")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"spec.json", "record.json", "metrics/tofu.json", "samples/tofu.jsonl"}
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["cell_id"] == folder.name
    assert str(toys.original.parent) not in json.dumps(spec)  # a record says nothing about the machine's folders
    assert (spec["model"], spec["method"], spec["template"]) == ("original", "original", "plain")
    shown = capsys.readouterr()
    for name in ("metrics.csv", "leaderboard.csv", "leaderboard.tex", "costs.csv"):
        assert f"wrote {out / name}" in shown.out
    assert "2 cells run, 0 found, 0 failed" in shown.out
    assert shown.err == ""


def test_the_long_form_has_every_metric_of_every_set(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(toys.command(tmp_path, "original")) == 0
    rows = table(tmp_path / "metrics.csv")
    assert list(rows[0]) == ["model", "method", "benchmark", "seed", "protocol", "metric", "value", "stderr", "n"]
    names = {row["metric"] for row in rows if row["method"] == "original"}
    sets = ("forget", "retain", "real_authors", "world_facts")
    wanted = {f"{s}_{m}" for s in sets for m in ("probability", "rouge_l_recall", "truth_ratio")}
    assert wanted | {*HEADLINE, "exact_memorization"} <= names
    (probability,) = (r for r in rows if r["method"] == "original" and r["metric"] == "forget_probability")
    assert (probability["n"], probability["seed"], probability["protocol"]) == ("6", "0", "strict")
    assert 0 < float(probability["value"]) < 1 and float(probability["stderr"]) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_runs_every_adapter(architecture: str, toys: Toys, tmp_path: Path, loads: list[str]) -> None:
    model = save_model(tmp_path / architecture, architecture)
    methods = "grun_npo,npo[lr=0.01],lora_npo[lr=0.01]"
    assert run_all.main(toys.command(tmp_path / "out", methods, "--limit", "4", model=model)) == 0
    rows = {row["method"]: row for row in table(tmp_path / "out/leaderboard.csv")}
    assert list(rows) == ["original", "retrained", "grun_npo", "npo[lr=0.01]", "lora_npo[lr=0.01]"]
    assert all(row[name] for row in rows.values() for name in HEADLINE)
    assert loads == ["retrained", architecture]  # one model for four cells
    probabilities = {row["forget_probability"] for row in rows.values()}
    assert len(probabilities) == 5  # every method changed the model, and none found it changed by another
    trained = {r["method"]: int(r["trainable_parameters"]) for r in table(tmp_path / "out/costs.csv")}
    assert trained["original"] == 0 < trained["grun_npo"] < trained["npo[lr=0.01]"]


@pytest.mark.parametrize(("tokenizer", "template"), [("bare", "plain"), ("chat", "chat")])
def test_a_tokenizer_without_pad_token_or_with_a_chat_template_will_do(
    tokenizer: str, template: str, toys: Toys, tmp_path: Path
) -> None:
    model = save_model(tmp_path / tokenizer, tokenizer=tokenizer)
    assert run_all.main(toys.command(tmp_path / "out", "grun_npo,npo", "--limit", "4", model=model)) == 0
    spec = json.loads((run_folder(tmp_path / "out", "npo") / "spec.json").read_text())
    assert spec["template"] == template
    assert metric(tmp_path / "out", "npo", "forget_quality")


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_both_protocols_and_a_template_file_give_cells_of_their_own(protocol: str, toys: Toys, tmp_path: Path) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("Q {question}\nA {answer}")
    more = ("--protocol", protocol, "--template", str(template))
    assert run_all.main(toys.command(tmp_path / "out", "original", *more)) == 0
    spec = json.loads((run_folder(tmp_path / "out", "original") / "spec.json").read_text())
    assert (spec["protocol"], spec["template"]) == (protocol, "file:mine.txt")
    assert {row["protocol"] for row in table(tmp_path / "out/metrics.csv")} == {protocol}


def test_a_method_scores_the_same_alone_and_after_others(toys: Toys, tmp_path: Path) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    assert run_all.main(toys.command(together, "lora_npo[lr=0.01],grun_npo,npo[lr=0.01]")) == 0
    assert run_all.main(toys.command(alone, "npo[lr=0.01]")) == 0
    first, second = run_folder(together, "npo"), run_folder(alone, "npo")
    assert first.name == second.name
    for name in ("samples/tofu.jsonl", "metrics/tofu.json", "train.jsonl", "spec.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_variants_stand_side_by_side(toys: Toys, tmp_path: Path) -> None:
    methods = "grun_npo,grun_npo[rank=2, position=answer],npo[beta=0.5]"
    assert run_all.main(toys.command(tmp_path, methods)) == 0
    names = [row["method"] for row in table(tmp_path / "leaderboard.csv")]
    assert names == ["original", "retrained", "grun_npo", "grun_npo[position=answer,rank=2]", "npo[beta=0.5]"]
    record = json.loads((run_folder(tmp_path, "grun_npo-position=answer") / "record.json").read_text())
    assert (record["fields"]["rank"], record["fields"]["position"], record["fields"]["epochs"]) == (2, "answer", 2)
    assert "rank=2" in record["recipe"] and "epochs=2 from --set" in record["recipe"]


def test_two_seeds_are_a_mean_and_references_are_run_once(toys: Toys, tmp_path: Path) -> None:
    assert run_all.main(toys.command(tmp_path, "npo[lr=0.01,batch_size=2]", "--seeds", "2")) == 0
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert [row["seeds"] for row in rows.values()] == ["1", "1", "2"]
    assert float(rows["npo[batch_size=2,lr=0.01]"]["forget_probability_sd"]) > 0  # the seed decides what meets what
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_without_a_retrained_model_its_metrics_are_missing_with_the_reason(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(["--methods", "original", "--data", str(toys.data), "--model", str(toys.original),
                         "--out", str(tmp_path)]) == 0  # fmt: skip
    assert capsys.readouterr().out.startswith("without --retrained there is no forget quality")
    assert [row["method"] for row in table(tmp_path / "leaderboard.csv")] == ["original"]
    assert metric(tmp_path, "original", "forget_quality") == ""
    stored = json.loads((run_folder(tmp_path, "original") / "metrics/tofu.json").read_text())
    assert stored["settings"]["reference"] is None
    (quality,) = (m for m in stored["metrics"] if m["name"] == "forget_quality")
    assert quality["value"] is None and "--retrained" in quality["reason"]


# --- chains of requests


def test_successive_requests_fill_a_cell_per_stage(toys: Toys, tmp_path: Path) -> None:
    splits = "tofu/forget01,tofu/forget05,tofu/forget10"
    command = ["--methods", "grun_npo,npo[lr=0.01],lora_npo[lr=0.01]", "--benchmarks", splits, "--sequential"]
    command += ["--data", str(toys.data), "--model", str(toys.original), "--out", str(tmp_path)]
    for name in ("grun_npo", "npo", "lora_npo"):
        command += ["--set", f"{name}.epochs=2"]
    assert run_all.main(command) == 0
    rows = table(tmp_path / "leaderboard.csv")
    stages = ["tofu/forget01", "tofu/forget01>tofu/forget05", splits.replace(",", ">")]
    assert [row["benchmark"] for row in rows] == [stage for stage in stages for _ in range(4)]
    assert [row["method"] for row in rows[:4]] == ["original", "grun_npo", "npo[lr=0.01]", "lora_npo[lr=0.01]"]
    long = table(tmp_path / "metrics.csv")
    asked = [r["n"] for r in long if r["method"] == "grun_npo" and r["metric"] == "forget_probability"]
    assert asked == ["2", "4", "6"]  # judged on everything that was requested so far
    for method in ("grun_npo", "npo[lr=0.01]"):
        assert len({metric(tmp_path, method, "retain_probability", benchmark=stage) for stage in stages}) == 3
    before = reports(tmp_path)
    assert run_all.main(command) == 0
    assert reports(tmp_path) == before


def test_a_stage_of_a_chain_is_another_cell_than_its_split_alone(toys: Toys, tmp_path: Path) -> None:
    where = ["--data", str(toys.data), "--model", str(toys.original), "--out", str(tmp_path), "--set", "npo.epochs=1"]
    command = ["--methods", "npo", "--benchmarks", "tofu/forget01,tofu/forget05", *where]
    assert run_all.main(command) == 0
    assert run_all.main([*command, "--sequential", "--limit", "1"]) == 0
    assert run_all.main([*command, "--sequential"]) == 0
    assert len(list((tmp_path / "runs").glob("npo-tofu-forget01-s0-*"))) == 2 + 1  # alone; in chains: limited, whole
    assert len(list((tmp_path / "runs").glob("npo-tofu-forget05-s0-*"))) == 1
    assert (
        len(list((tmp_path / "runs").glob("original-tofu-forget01-s0-*"))) == 1 + 1
    )  # unlearns nothing: whole, limited


# --- again


def test_the_same_command_again_does_nothing_twice(
    toys: Toys, tmp_path: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = toys.command(tmp_path, "npo")
    assert run_all.main(command) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    del loads[:]
    assert run_all.main([*command, "--resume"]) == 0
    assert loads == []
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "0 cells run, 3 found, 0 failed" in capsys.readouterr().out


def test_a_method_is_added_to_what_is_there(toys: Toys, tmp_path: Path, loads: list[str]) -> None:
    assert run_all.main(toys.command(tmp_path, "npo")) == 0
    assert run_all.main(toys.command(tmp_path, "npo,ga")) == 0
    assert loads == ["retrained", "original", "original"]
    assert [row["method"] for row in table(tmp_path / "leaderboard.csv")] == ["original", "retrained", "npo", "ga"]
    assert metric(tmp_path, "ga", "forget_quality")


def test_fresh_runs_every_cell_again_with_the_same_result(
    toys: Toys, tmp_path: Path, loads: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = toys.command(tmp_path, "npo[lr=0.01]")
    assert run_all.main(command) == 0
    before = reports(tmp_path)
    assert run_all.main([*command, "--fresh"]) == 0
    assert loads == ["retrained", "original"] * 2
    assert reports(tmp_path) == before
    assert capsys.readouterr().out.count("3 cells run, 0 found, 0 failed") == 2


def test_cells_of_other_commands_are_named_and_left_out_until_a_report_asks_for_them(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(toys.command(tmp_path, "npo,ga")) == 0
    first = reports(tmp_path)
    assert run_all.main(toys.command(tmp_path, "npo", "--limit", "3")) == 0
    assert f"4 other cells in {tmp_path}; run_all.py report {tmp_path} shows all" in capsys.readouterr().out
    assert [row["method"] for row in table(tmp_path / "leaderboard.csv")] == ["original", "retrained", "npo"]
    assert run_all.main(["report", str(tmp_path)]) == 0
    names = [row["method"] for row in table(tmp_path / "leaderboard.csv")]
    assert len(names) == 7 and "ga" in names
    # Same model, benchmark, method, seed and protocol, but other data: rows of their own, never a mean of the two.
    npo = [row for row in table(tmp_path / "leaderboard.csv") if row["method"].startswith("npo")]
    assert [row["seeds"] for row in npo] == ["1", "1"]
    assert {re.search(r"limit=(\w+)", row["method"])[1] for row in npo} == {"null", "3"}  # type: ignore[index]
    assert run_all.main(toys.command(tmp_path, "npo,ga")) == 0
    assert reports(tmp_path) == first


@pytest.mark.drawn
def test_a_report_needs_no_model_and_gives_the_same_files(toys: Toys, tmp_path: Path, loads: list[str]) -> None:
    assert run_all.main(toys.command(tmp_path, "ga,npo")) == 0
    before = reports(tmp_path)
    paper = [path for path in (tmp_path / "paper").rglob("*") if path.is_file()]
    shown = {path: path.read_bytes() for path in (tmp_path / "report.html", *paper)}
    assert tmp_path / "paper" / "paper.tex" in shown
    for name in (*before, *shown):
        (tmp_path / name).unlink()
    del loads[:]
    assert run_all.main(["report", str(tmp_path)]) == 0
    assert reports(tmp_path) == before
    assert {path: path.read_bytes() for path in shown} == shown
    assert loads == []


def test_a_report_elsewhere_names_the_folder_that_has_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path / "a")
    made.cell("npo")
    made.failure("ga", "tofu/forget10", "Traceback\nValueError: boom")
    broken = made.cell("gd")
    (made.store.path(broken) / "record.json").write_text("{")
    assert run_all.main(["report", str(tmp_path / "a"), "--out", str(tmp_path / "c")]) == 0
    out = capsys.readouterr().out
    assert f"boom (traceback in {tmp_path / 'a' / 'failed' / 'ga-0-failed'})" in out
    [line] = [line for line in out.splitlines() if line.startswith(f"failed {broken}: ")]
    assert "traceback in" not in line  # what was damaged later has none


@pytest.mark.parametrize("damage", ["samples/tofu.jsonl", "metrics/tofu.json", "record.json", "spec.json"])
def test_a_damaged_run_is_done_again(
    damage: str, toys: Toys, tmp_path: Path, loads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = toys.command(tmp_path, "npo")
    assert run_all.main(command) == 0
    before = reports(tmp_path)
    path = run_folder(tmp_path, "npo") / damage
    path.write_bytes(path.read_bytes()[:-20])
    del loads[:]
    assert run_all.main(command) == 0
    assert loads == ["original"]
    assert reports(tmp_path) == before
    assert "damaged" in caplog.text and path.name in caplog.text


def test_lost_metrics_are_computed_again_from_the_rows_and_lost_rows_from_the_model(
    toys: Toys, tmp_path: Path, loads: list[str]
) -> None:
    command = toys.command(tmp_path, "npo")
    assert run_all.main(command) == 0
    before = reports(tmp_path)
    folder = run_folder(tmp_path, "npo")
    del loads[:]
    (folder / "metrics/tofu.json").unlink()
    assert run_all.main(command) == 0
    assert loads == []
    (folder / "samples/tofu.jsonl").unlink()
    assert run_all.main(command) == 0
    assert loads == []  # the metrics say all that the leaderboard needs
    (folder / "metrics/tofu.json").unlink()
    assert run_all.main(command) == 0
    assert loads == ["original"]
    (run_folder(tmp_path, "retrained") / "samples/tofu.jsonl").unlink()
    assert run_all.main(command) == 0
    assert loads == ["original", "retrained"]  # whose rows are asked for whatever its metrics are
    assert reports(tmp_path) == before


# --- failures


def test_a_cell_that_diverges_keeps_its_log_and_the_others_go_on(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(toys.command(tmp_path, "npo[lr=1e35],ga")) == 1
    (failed,) = (tmp_path / "failed").iterdir()
    assert {path.name for path in failed.iterdir()} == {"spec.json", "traceback.txt", "train.jsonl"}
    steps = [json.loads(line) for line in (failed / "train.jsonl").read_text().splitlines()]
    assert steps[0]["step"] == 1 and len(steps) == 2
    assert "training stopped at step 2 of 2" in (failed / "traceback.txt").read_text()
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    hole = rows["npo[lr=1e35]"]
    assert (hole["seeds"], hole["failed"], hole["forget_quality"], hole["model_utility"]) == ("0", "1", "", "")
    assert rows["ga"]["forget_quality"]
    assert "Failed: npo" in (tmp_path / "leaderboard.tex").read_text()
    shown = capsys.readouterr()
    assert "FAILED npo[lr=1e35] tofu/forget10 s0: training stopped at step 2 of 2" in shown.out
    assert f"failed {failed.name}: " in shown.out and str(failed) in shown.out
    assert "Traceback" not in shown.out + shown.err


def fail_once(monkeypatch: pytest.MonkeyPatch, which: Callable[[int], bool], error: Callable[[], Exception]) -> None:
    """Scoring raises for the calls (counted from 0) that `which` chooses."""
    calls = iter(range(1000))
    real = TofuEvaluator.score

    def score(self: TofuEvaluator, *arguments: Any) -> list[dict]:
        if which(next(calls)):
            raise error()
        return real(self, *arguments)

    monkeypatch.setattr(TofuEvaluator, "score", score)


def test_a_failed_cell_is_tried_again_and_its_failure_forgotten(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = tmp_path / "undisturbed"
    assert run_all.main(toys.command(undisturbed, "npo,ga")) == 0
    fail_once(monkeypatch, lambda call: call == 2, lambda: ZeroDivisionError("odd"))
    out = tmp_path / "out"
    assert run_all.main(toys.command(out, "npo,ga")) == 1
    (failed,) = (out / "failed").iterdir()
    assert "ZeroDivisionError: odd" in (failed / "traceback.txt").read_text()
    assert len((failed / "train.jsonl").read_text().splitlines()) == 2  # it was trained, only not scored
    assert run_all.main(toys.command(out, "npo,ga")) == 0
    assert not list((out / "failed").iterdir())
    assert reports(out) == reports(undisturbed)


def test_when_the_reference_fails_its_metrics_are_made_up_for_later_without_a_model(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert run_all.main(toys.command(undisturbed, "npo,ga")) == 0
    fail_once(monkeypatch, lambda call: call == 0, lambda: RuntimeError("the gold standard is broken"))
    assert run_all.main(toys.command(out, "npo,ga")) == 1
    assert metric(out, "npo", "forget_quality") == "" and metric(out, "npo", "model_utility")
    stored = json.loads((run_folder(out, "npo") / "metrics/tofu.json").read_text())["metrics"]
    assert next(m for m in stored if m["name"] == "forget_quality")["reason"].endswith("or see why its cell failed")
    del loads[:]
    assert run_all.main(toys.command(out, "npo,ga")) == 0
    assert loads == ["retrained"]
    assert reports(out) == reports(undisturbed)


def test_a_chain_that_breaks_leaves_a_hole_for_each_stage_that_is_missing(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--methods", "lora_npo,grun_npo", "--benchmarks", "tofu/forget01,tofu/forget05,tofu/forget10"]
    command += ["--sequential", "--data", str(toys.data), "--model", str(toys.original)]
    command += ["--set", "lora_npo.epochs=1", "--set", "grun_npo.epochs=1"]
    assert run_all.main([*command, "--out", str(tmp_path / "undisturbed")]) == 0
    # Three times original, then the stages of lora_npo: the second one fails.
    fail_once(monkeypatch, lambda call: call == 4, lambda: ValueError("odd"))
    out = tmp_path / "out"
    assert run_all.main([*command, "--out", str(out)]) == 1
    rows = [row for row in table(out / "leaderboard.csv") if row["method"] == "lora_npo"]
    assert [row["failed"] for row in rows] == ["0", "1", "1"]
    last = next((out / "failed").glob("lora_npo-tofu-forget01-tofu-forget05-tofu-forget10-*"))
    assert (
        "the request before it, lora_npo tofu/forget01>tofu/forget05 s0, failed" in (last / "traceback.txt").read_text()
    )
    assert run_all.main([*command, "--out", str(out)]) == 0
    assert reports(out) == reports(tmp_path / "undisturbed")


def test_an_interrupt_says_how_to_go_on(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    assert run_all.main(toys.command(undisturbed, "npo")) == 0
    capsys.readouterr()
    fail_once(monkeypatch, lambda call: call == 2, KeyboardInterrupt)  # type: ignore[arg-type]
    assert run_all.main(toys.command(out, "npo")) == 130
    assert capsys.readouterr().err == "run_all.py: interrupted; the same command goes on where it stopped\n"
    assert not list((out / "runs").glob(".*"))
    assert run_all.main(toys.command(out, "npo")) == 0
    assert reports(out) == reports(undisturbed)


# --- memory


class Memory:
    """A device that holds no more than so many rows at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        from transformers import LlamaModel

        self.refused = 0
        real = LlamaModel.forward

        def forward(model: LlamaModel, input_ids: Any, *arguments: Any, **more: Any) -> Any:
            if len(input_ids) > rows:
                self.refused += 1
                raise torch.OutOfMemoryError(f"out of memory with {len(input_ids)} rows")
            return real(model, input_ids, *arguments, **more)

        monkeypatch.setattr(LlamaModel, "forward", forward)


def test_when_memory_runs_out_smaller_batches_give_the_same_result(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = "npo[lr=0.01],grun_gd[lr=0.01],lora_dpo[lr=0.01]"
    assert run_all.main(toys.command(tmp_path / "plenty", methods)) == 0
    memory = Memory(monkeypatch, rows=3)
    assert run_all.main(toys.command(tmp_path / "little", methods)) == 0
    assert memory.refused > 3
    for one, other in zip(table(tmp_path / "plenty/metrics.csv"), table(tmp_path / "little/metrics.csv"), strict=True):
        assert (one["method"], one["metric"], one["n"]) == (other["method"], other["metric"], other["n"])
        assert bool(one["value"]) == bool(other["value"]), one  # a composite of a toy may be missing
        if one["value"]:
            assert float(one["value"]) == pytest.approx(float(other["value"]), rel=1e-4, abs=1e-6), one


def test_when_not_even_one_row_fits_the_cell_fails_and_says_so(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Memory(monkeypatch, rows=0)
    assert run_all.main(toys.command(tmp_path, "npo")) == 1
    out = capsys.readouterr().out
    assert "FAILED npo tofu/forget10 s0: out of memory even with one example at a time; use a smaller model" in out
    assert [row["failed"] for row in table(tmp_path / "leaderboard.csv")] == ["1", "1", "1"]


# --- published logs


def published_log(rows: Sequence[dict]) -> dict[str, Any]:
    """Rows of the evaluator in the format of open-unlearning's TOFU_EVAL.json."""
    log: dict[str, Any] = {}
    for name, prefix in {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}.items():
        mine = [row for row in rows if row["set"] == name]
        columns: dict[str, Callable[[dict], dict]] = {
            "ROUGE": lambda r: {
                "input": f"user\n\n{r['question']}\nassistant\n\n", "ground_truth": r["reference"],
                "generation": r["generation"], "rougeL_recall": r["rouge_l_recall"], "rougeL_f1": r["rouge_l_f1"],
                "rouge1_recall": r["rouge_1_recall"],
            },
            "Prob": lambda r: {"avg_loss": r["answer_nll"]},
            "PARA_Prob": lambda r: {"avg_loss": r["paraphrased_nll"]},
            "PERT_Prob": lambda r: {"avg_loss": r["perturbed_nll"]},
        }  # fmt: skip
        for column, value in columns.items():
            if column == "PARA_Prob" and prefix in ("ra", "wf"):
                continue
            log[f"{prefix}_Q_A_{column}"] = {"value_by_index": {str(i): value(r) for i, r in enumerate(mine)}}
    for score in ("extraction_strength", "exact_memorization"):
        forget = [row for row in rows if row["set"] == "forget"]
        log[score] = {"value_by_index": {str(i): {"score": row[score]} for i, row in enumerate(forget)}}
    return log


@pytest.fixture
def log_of(toys: Toys, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes the published log of the retrained checkpoint on a split."""

    def make(split: str) -> Path:
        out = tmp_path / f"for_log_{split}"
        assert run_all.main(toys.command(out, "original", "--benchmarks", f"tofu/{split}")) == 0
        samples = run_folder(out, "retrained") / "samples/tofu.jsonl"
        path = tmp_path / f"{split}_EVAL.json"
        path.write_text(json.dumps(published_log([json.loads(line) for line in samples.read_text().splitlines()])))
        return path

    yield make


def test_a_published_log_stands_for_the_retrained_model(
    toys: Toys, tmp_path: Path, log_of: Callable[[str], Path], loads: list[str]
) -> None:
    log = log_of("forget10")
    assert run_all.main(toys.command(tmp_path / "model", "npo[lr=0.01]")) == 0
    del loads[:]
    command = [*toys.command(tmp_path / "log", "npo[lr=0.01]"), "--retrained", str(log)]
    assert run_all.main(command) == 0
    assert loads == ["original"]
    model, from_log = (table(tmp_path / name / "leaderboard.csv") for name in ("model", "log"))
    assert [row["method"] for row in from_log] == ["original", "retrained", "npo[lr=0.01]"]
    for one, other in zip(model, from_log, strict=True):
        assert {name: one[name] for name in HEADLINE} == {name: other[name] for name in HEADLINE}
    record = json.loads((run_folder(tmp_path / "log", "retrained") / "record.json").read_text())
    assert record["published_log"] == log.name
    before = reports(tmp_path / "log")
    assert run_all.main(command) == 0
    assert reports(tmp_path / "log") == before
    assert run_all.main([*toys.command(tmp_path / "log", "npo", "--limit", "3"), "--retrained", str(log)]) == 0
    assert metric(tmp_path / "log", "npo", "forget_quality")  # the log's first rows


def test_a_log_of_another_split_is_refused_before_anything_runs(
    toys: Toys, tmp_path: Path, log_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str], loads: list[str]
) -> None:
    logs = {"larger": log_of("forget10"), "smaller": log_of("forget01")}
    del loads[:]
    capsys.readouterr()
    for which, said in (("larger", "of another split"), ("smaller", "answers other questions")):
        for limit in ([], ["--limit", "3"]):
            command = toys.command(tmp_path / "out", "npo", "--benchmarks", "tofu/forget05", *limit)
            assert run_all.main([*command, "--retrained", str(logs[which])]) == 2
            error = capsys.readouterr().err
            assert error.startswith("run_all.py: ") and error.count("\n") == 1
            assert said in error and "tofu/forget05" in error
    assert loads == []


@pytest.mark.parametrize(
    "log",
    [
        "open_unlearning/tofu_Llama-2-7b-chat-hf_retain90/TOFU_EVAL.json",
        "tofu/llama2-7b_retain90_wd0.01/eval_log_aggregated.json",
    ],
)
def test_the_logs_of_the_two_suites_are_gold_standards_of_real_data(
    log: str, toys: Toys, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--methods", "original", "--model", str(toys.original), "--data", str(real_data), "--limit", "2"]
    command += ["--retrained", str(real_data / "reference_logs" / log), "--out", str(tmp_path)]
    assert run_all.main(command) == 0
    rows = {row["method"]: row for row in table(tmp_path / "leaderboard.csv")}
    assert rows["retrained"]["forget_quality"] == "1.0" and rows["original"]["forget_quality"]
    assert 0.5 < float(rows["retrained"]["model_utility"]) < 0.7
    capsys.readouterr()
    assert run_all.main([*command, "--benchmarks", "tofu/forget05"]) == 2
    error = capsys.readouterr().err
    assert "tofu/forget05" in error and error.count("\n") == 1


# --- looking before running


def test_a_dry_run_shows_what_is_done_and_writes_nothing(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str], loads: list[str]
) -> None:
    out = tmp_path / "out"
    assert run_all.main(toys.command(out, "npo,ga", "--dry-run")) == 0
    assert not out.exists() and loads == []
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["to do", f"{name} tofu/forget10 s0"] for name in ("retrained", "original", "npo", "ga")
    ]
    assert run_all.main(toys.command(out, "npo")) == 0
    capsys.readouterr()
    assert run_all.main(toys.command(out, "npo,ga", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["done", "done", "done", "to do"]
    assert {line.split("  ")[2] for line in lines[:3]} == {path.name for path in (out / "runs").iterdir()}
    assert run_all.main(toys.command(out, "npo,ga", "--dry-run", "--set", "tofu.gradient_norms=true")) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["to do"] * 4


def test_a_dry_run_trains_no_mini_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run_all.main(
            [
                "--dry-run",
                "--methods",
                "original",
                "--out",
                str(tmp_path / "out"),
                "--cache-dir",
                str(tmp_path / "cache"),
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines() == [
        *(f"to do  {name} tofu/forget10 s0" for name in ("retrained", "original")),
        "the mini models would be trained first, they are not in the cache",
    ]
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / "cache").glob("mini-*") if path.name[5:].startswith(("orig", "retr"))]


def test_the_list_has_every_method_with_its_fields_and_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    from methods import METHODS, TRAINED

    assert run_all.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("benchmarks: tofu/forget01, tofu/forget05, tofu/forget10, wmdp, wmdp/bio")
    assert "lm_eval:TASK" in lines[0] and lines[1].startswith("presets: openunlearning, ")
    end = 3 + len(METHODS)
    assert [line.split()[0] for line in lines[3:end]] == list(METHODS)
    assert lines[end] == "evaluators with fields of their own:"
    [tofu] = [line for line in lines[end:] if line.startswith("  tofu ")]
    assert "gradient_norms=False" in tofu and "protocol" not in tofu
    assert all("lr=" in line and "epochs=" in line for line in lines[3 : 3 + len(TRAINED)])


def test_all_stands_for_every_method(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from methods import TRAINED

    command = ["--methods", "all,npo[beta=0.5]", "--data", str(toys.data), "--model", str(toys.original), "--dry-run"]
    assert run_all.main([*command, "--out", str(tmp_path / "out")]) == 0
    names = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert names == ["original", *TRAINED, "npo[beta=0.5]"]  # rocr edits names, of which TOFU has none


def test_a_mistake_costs_no_import_of_torch(tmp_path: Path) -> None:
    code = "import sys, run_all; code = run_all.main(['--limit', '0']); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n"
    assert done.stderr == "run_all.py: --limit must be at least 1, got 0\n"

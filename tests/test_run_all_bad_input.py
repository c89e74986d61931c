"""Whatever is wrong with what a user gives: one sentence that names it, exit code 2, no traceback."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.checkpoints
import bench.grid
import run_all
from tests.toy_runs import Toys, row, save_model, table, write_data, write_rows

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")


@pytest.fixture
def complain(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that must be refused, and gives the sentence."""

    def check(command: list[str]) -> str:
        code = run_all.main(command)
        shown = capsys.readouterr()
        assert code == 2, shown
        assert shown.err.startswith("run_all.py: ") and shown.err.endswith("\n")
        assert shown.err.count("\n") == 1, shown.err
        assert "Traceback" not in shown.out
        assert "starting" not in shown.out  # no cell had begun
        return shown.err.removeprefix("run_all.py: ").rstrip("\n")

    return check


Complain = Callable[[list[str]], str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "gron_npo"], r"unknown method 'gron_npo'; did you mean 'grun_npo'\? known: all, original, "),
        (["--methods", "npo,"], ""),
        (["--methods", ","], r"--methods names no method, got ','; see --list"),
        (["--methods", "npo[beta=1"], r"brackets do not match in 'npo\[beta=1'; write name\[field=value"),
        (["--methods", "npo[beta]"], r"cannot read 'beta' in 'npo\[beta\]'; write field=value"),
        (["--methods", "npo[beta=1,beta=2]"], r"a field is given twice in 'npo\[beta=1,beta=2\]'; give it once"),
        (["--methods", "npo[betta=1]"], r"unknown field of npo 'betta'; did you mean 'beta'\?"),
        (["--methods", "original[beta=1]"], r"'original' has no fields to set, got 'original\[beta=1\]'"),
        (["--methods", "all[beta=1]"], r"'all' has no fields to set"),
        (["--methods", "all,npo", "--set", "npo"], r"cannot read --set 'npo'; write METHOD.FIELD=VALUE, for example"),
        (["--methods", "npo", "--set", "npo.betta=1"], r"unknown field of npo 'betta'; did you mean 'beta'\?"),
        (["--methods", "npo", "--set", "npo.beta=high"], r"npo\.beta must be a number, got 'high'"),
        (["--methods", "npo", "--set", "npo.epochs=1.5"], r"npo\.epochs must be a whole number, got '1\.5'"),
        (
            ["--methods", "npo", "--set", "npo.retain_loss=mse"],
            r"npo\.retain_loss must be one of nll, kl, kl_padded, got 'mse'",
        ),
        (["--methods", "npo", "--set", "npo.beta=-1"], r"npo: beta must be positive, got -1\.0"),
        (["--methods", "grun_npo", "--set", "grun_npo.layers=one"], r"grun_npo\.layers must be a whole number"),
        (["--methods", "grun_npo", "--set", "grun_npo.position=last"], r"position must be one of last_prompt, answer"),
        (
            ["--methods", "npo", "--set", "npq.beta=1"],
            r"unknown method or evaluator in --set 'npq'; did you mean 'npo'\?",
        ),
        (["--methods", "npo", "--set", "tofo.gradient_norms=true"], r"in --set 'tofo'; did you mean 'tofu'\?"),
        (
            ["--methods", "npo", "--benchmarks", "mmlu", "--set", "tofu.gradient_norms=true"],
            r"--set names 'tofu', which scores none of --benchmarks; add such a benchmark or leave it out",
        ),
        (["--seeds", "1001"], r"--seeds must be at most 1,000, got 1001: it is how many there are, from 0 on"),
        (["--out", ""], r"--out: must be a path, got ''; see run_all.py -h"),
        (["--data", ""], r"--data names nothing, got ''; see -h, or leave it out"),
        (
            ["--methods", "npo", "--benchmarks", "wmdp,mmlu,lm_eval:arc_easy", "--tune", "2"],
            r"lm_eval:arc_easy brings rows of its own, .* ask for it in a command without them",
        ),
        (["--methods", "npo", "--set", "dpo.beta=1"], r"--set names 'dpo', which is not among --methods; add it there"),
        (["--methods", "GRUN-NPO"], r"unknown method 'GRUN-NPO'; did you mean 'grun_npo'\?"),
        (["--benchmarks", "TOFU"], r"unknown benchmark 'TOFU'; did you mean 'tofu'\?"),
        (["--methods", "lora_npo[alpha=0]"], r"alpha must be at least 1, got 0"),
        (["--benchmarks", "tofu/forget11"], r"unknown benchmark 'tofu/forget11'; did you mean 'tofu/forget10'\?"),
        (["--benchmarks", " "], r"--benchmarks names no benchmark, got ' '; see --list"),
        (["--sequential"], r"--sequential needs at least two benchmarks"),
        (["--benchmarks", "tofu/forget10,tofu/forget01", "--sequential"], r"lacks 4 rows of tofu/forget10; order them"),
        (["--seeds", "0"], r"--seeds must be at least 1, got 0"),
        (["--limit", "0"], r"--limit must be at least 1, got 0"),
        (["--batch-tokens", "-3"], r"--batch-tokens must be at least 1, got -3"),
        (["--template", "chta"], r"--template must be auto, chat, plain or a file that exists, got 'chta'"),
        (["--template", "chat"], r"chat template"),
        (["--device", "meta"], r"device 'meta' cannot be used here \(.+\); use auto, cpu or cuda"),
        (
            ["--set", "tofu.protocol=openunlearning"],
            r"tofu\.protocol is chosen with --protocol, for all that a run does",
        ),
        (["--model", "m" * 5000], r"--model holds a name of more than 255 bytes; shorten it"),
        (["--template", "a/" + "x" * 5000], r"--template holds a name of more than 255 bytes; shorten it"),
        (["--out", "o" * 5000], r"--out holds a name of more than 255 bytes; shorten it"),
        (["--device", "gpu"], r"unknown device 'gpu'; use auto, cpu, cuda or cuda:N"),
        (["--data", "no/such/folder"], r"--data 'no/such/folder' is no folder; give one that holds tofu/forget10"),
        (["--model", "./no/such/model"], r"there is no folder './no/such/model'; give the folder that save_pretrained"),
        (["--model", "bench"], r"folder 'bench' holds no config.json; give the folder that save_pretrained wrote"),
        (["--model", "run_all.py"], r"model 'run_all.py' is a file; give the folder"),
        (["--retrained", "no_EVAL.json"], r"--retrained 'no_EVAL.json' does not exist; give a published log or a mod"),
        (["--retrained", "pyproject.toml"], r"pyproject.toml is not valid JSON"),
        (
            ["--benchmarks", "tofu/forget01,tofu/forget05", "--retrained", "x"],
            r"--retrained is the gold standard of one split, but --benchmarks names tofu/forget01, tofu/forget05; ",
        ),
        (["--model", "mini", "--retrained", "x"], r"--retrained goes with --model; the mini model comes with its own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_named_with_what_is_right(
    arguments: list[str], said: str, toys: Toys, tmp_path: Path, complain: Complain
) -> None:
    start = ["--data", str(toys.data), "--model", str(toys.original), "--out", str(tmp_path / "out")]
    if not said:  # a comma too many is no mistake
        assert run_all.main([*start, *arguments, "--dry-run"]) == 0
        return
    assert re.search(said, sentence := complain([*start, *arguments])), sentence


def test_a_device_that_is_not_there_is_named(toys: Toys, tmp_path: Path, complain: Complain) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    said = complain([*toys.command(tmp_path, "npo"), "--device", "cuda"])
    assert said == "device 'cuda' asked for, but torch sees no GPU; use --device cpu or auto"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "strikt"], "--protocol: invalid choice: 'strikt' (choose from"),
        (["--resume", "--fresh"], "--fresh: not allowed with argument --resume"),
        (["--seeds", "two"], "--seeds: must be a whole number, got 'two'"),
        (["--model"], "--model: expected one argument"),
        (["--seed", "3"], "unknown option '--seed'; did you mean --seeds?"),  # not three seeds
        (["--methodss", "npo"], "unknown option '--methodss'; did you mean --methods?"),
        (["reprot", "out"], "unknown argument 'reprot'; did you mean report?"),
        (["--xyzzy=1"], "unknown option '--xyzzy=1'; see"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_sentence_too(
    arguments: list[str], said: str, complain: Complain
) -> None:
    sentence = complain(arguments)
    assert sentence.startswith(said) and sentence.endswith("see run_all.py -h")


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["nowhere", "--out", "there"]])
def test_report_needs_a_folder_with_runs(arguments: list[str], complain: Complain) -> None:
    assert "run_all.py report OUT" in complain(["report", *arguments])


# --- files


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def without_field(path: Path) -> None:
    rows = lines(path)
    del rows[2]["answer"]
    write_rows(path, rows)


def empty_answer(path: Path) -> None:
    rows = lines(path)
    rows[2]["answer"] = "  "
    write_rows(path, rows)


def wrong_type(path: Path) -> None:
    rows = lines(path)
    rows[2]["question"] = 7
    write_rows(path, rows)


def overlap(path: Path) -> None:
    write_rows(path.with_name("retain90.json"), [*lines(path.with_name("retain90.json")), row(1)])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, r"there is no file .*forget10\.json .*; copy it there or leave --data out to use the hub"),
        (cut, r"forget10\.json, line 6"),
        (
            without_field,
            r"forget10\.json, line 3: there is no field 'answer', expected a text; fields there: 'question'",
        ),
        (empty_answer, r"forget10\.json, line 3: field 'answer' is empty, expected some text"),
        (wrong_type, r"forget10\.json, line 3: field 'question' is .*7.*, expected a text"),
        (
            overlap,
            r"forget10 and retain90 overlap: .*forget10\.json, line 2 and .*retain90\.json, line 13 have the same",
        ),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named_with_the_row(
    damage: Callable[[Path], None], said: str, toys: Toys, tmp_path: Path, complain: Complain
) -> None:
    data = write_data(tmp_path / "data")
    damage(data / "tofu/forget10.json")
    assert re.search(said, sentence := complain([*toys.command(tmp_path / "out", "npo"), "--data", str(data)])), (
        sentence
    )


def test_a_data_folder_without_the_benchmark_is_named(toys: Toys, tmp_path: Path, complain: Complain) -> None:
    assert "has no folder tofu" in complain([*toys.command(tmp_path / "out", "npo"), "--data", str(tmp_path)])


# --- models


def test_a_checkpoint_that_lacks_something_is_named(tmp_path: Path, toys: Toys, complain: Complain) -> None:
    model = save_model(tmp_path / "model")
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer found for model" in complain(toys.command(tmp_path / "out", "npo", model=model))


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_weights_that_are_damaged_or_missing_are_named(
    damage: Callable[[Path], None], tmp_path: Path, toys: Toys, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model")
    damage(model / "model.safetensors")
    assert run_all.main(toys.command(tmp_path / "out", "npo", model=model)) == 2
    error = capsys.readouterr().err
    assert error.startswith("run_all.py: ") and error.count("\n") == 1
    assert str(model) in error


def test_a_model_that_does_not_fit_is_one_sentence(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str, **_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench.checkpoints, "load_model", load)
    assert run_all.main(toys.command(tmp_path / "out", "npo")) == 2
    assert "does not fit into the memory of cpu; use a smaller one" in capsys.readouterr().err


def test_a_hub_model_without_a_network_is_one_sentence_soon(toys: Toys, tmp_path: Path) -> None:
    """No route at all, as on a machine without a network: the hub's address leads nowhere."""
    command = [sys.executable, "run_all.py", "--data", str(toys.data), "--methods", "npo", "--out", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    command += ["--model", "someone/some-model"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert done.stderr.startswith("run_all.py: model 'someone/some-model' is neither a folder nor a hub repository")
    assert done.stderr.count("\n") == 1, done.stderr


def test_layers_outside_the_model_fail_their_cell_with_the_range(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(toys.command(tmp_path, "grun_npo[layers=1,16],npo")) == 1
    out = capsys.readouterr().out
    assert (
        "FAILED grun_npo[layers=1,16] tofu/forget10 s0: layers must be within 0..2 for this model, got (1, 16)" in out
    )
    assert "Traceback" not in out
    rows = {r["method"]: r for r in table(tmp_path / "leaderboard.csv")}
    assert rows["grun_npo[layers=1,16]"]["failed"] == "1" and rows["npo"]["forget_quality"]


def test_a_row_that_is_longer_than_the_context_fails_the_cells(
    toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    path = data / "tofu/world_facts_perturbed.json"
    rows = lines(path)
    rows[0]["question"] = "why " * 600
    write_rows(path, rows)
    assert run_all.main([*toys.command(tmp_path / "out", "original"), "--data", str(data)]) == 1
    assert "does not fit the model's context of 512" in capsys.readouterr().out


# --- OUT


def test_an_out_below_a_file_is_named(toys: Toys, tmp_path: Path, complain: Complain) -> None:
    (tmp_path / "file").write_text("")
    said = complain(toys.command(tmp_path / "file/out", "npo"))
    assert "file/out" in said and "choose another folder with --out" in said


def full_from(monkeypatch: pytest.MonkeyPatch, out: Path, started: Callable[[], bool]) -> None:
    """Nothing can be written below OUT any more once `started` says so."""
    real = Path.open

    def open_path(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if set(mode) & set("wxa") and path.is_relative_to(out) and started():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, mode, *arguments, **more)

    monkeypatch.setattr(Path, "open", open_path)


@pytest.mark.parametrize("already", ["nothing", "every run"])
def test_a_disk_that_is_full_ends_the_command_with_one_sentence(
    already: str, toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = toys.command(out, "npo", "--limit", "2")
    if already == "every run":
        assert run_all.main(command) == 0
    begun: list[int] = []
    real = bench.grid.Grid.run

    def run(*arguments: Any) -> Any:
        begun.append(1)
        return real(*arguments)

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.grid.Grid, "run", run)
        full_from(patch, out, lambda: bool(begun))
        assert run_all.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("run_all.py: cannot write ") and error.count("\n") == 1
    assert "No space left on device" in error and "free some space" in error and "--out" in error
    assert not list((out / "runs").glob(".*"))
    assert run_all.main(command) == 0
    assert len(table(out / "leaderboard.csv")) == 3


# --- the mini world


def test_a_mini_model_that_cannot_be_made_for_want_of_memory_or_space_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complain: Complain
) -> None:
    import bench.checkpoints

    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(bench.checkpoints, "all_mini_models", no_memory)
    where = ["--methods", "original", "--out", str(tmp_path / "out"), "--cache-dir"]
    assert "out of memory while the mini models were made" in complain([*where, str(tmp_path / "cache")])
    (tmp_path / "file").write_text("")
    assert "name another folder with --cache-dir" in complain([*where, str(tmp_path / "file/cache")])

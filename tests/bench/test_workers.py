"""Processes beside each other give what one gives; what happens to them is told in a sentence."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

import run_all
from bench import workers
from bench.checkpoints import Models
from bench.data.types import Benchmark
from bench.executor import Executor
from bench.options import parse
from evaluators import EVALUATORS
from evaluators.tofu import TofuEvaluator
from tests.toy_runs import Toys, reports, write_choices
from tests.toy_targets import world

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")


def test_jobs_change_no_number(toys: Toys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = "npo[lr=0.01],grun_npo,npo[lr=1e30]"
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    assert run_all.main(toys.command(alone, methods)) == 1
    capsys.readouterr()
    assert run_all.main(toys.command(beside, methods, "--jobs", "2")) == 1
    said = capsys.readouterr().out
    assert reports(beside) == reports(alone)
    assert {p.name for p in (beside / "failed").iterdir()} == {p.name for p in (alone / "failed").iterdir()}
    starts = [line for line in said.splitlines() if line.endswith("| starting")]
    assert [line[:5] for line in starts] == [f"[{number}/5]" for number in range(1, 6)]
    assert "FAILED npo[lr=1e30] tofu/forget10 s0: training stopped at step " in said
    assert re.search(r"4 cells run, 0 found, 1 failed; .* in each of 2 processes", said)


@dataclass(frozen=True, kw_only=True)
class Deadly(TofuEvaluator):
    """Ends its process while the file is there, which it removes."""

    bomb: str = ""

    def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
        if os.path.exists(self.bomb):
            Path(self.bomb).unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(scorer, benchmark)


def test_a_process_that_is_killed_from_outside_ends_the_run_with_a_sentence(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = tmp_path / "bomb"
    bomb.touch()

    def deadly(**fields: Any) -> TofuEvaluator:
        return Deadly(**{**fields, "max_new_tokens": 6, "bomb": str(bomb)})

    monkeypatch.setitem(EVALUATORS, "tofu", (deadly,))
    out, alone = tmp_path / "out", tmp_path / "alone"
    command = toys.command(out, "grun_npo", "--jobs", "2")
    assert run_all.main(command) == 2
    assert "one of 2 processes was ended by signal 9" in capsys.readouterr().err
    assert not bomb.exists() and not list((out / "runs").glob(".*"))
    assert run_all.main([*command[:-1], "1"]) == 0
    assert run_all.main(toys.command(alone, "grun_npo")) == 0
    assert reports(out) == reports(alone)


def test_an_interrupt_ends_all_processes(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []

    def interrupted(pipes: Any) -> Any:
        started.extend(multiprocessing.active_children())
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "wait", interrupted)
    out = tmp_path / "out"
    assert run_all.main(toys.command(out, "grun_npo", "--jobs", "2")) == 130
    assert capsys.readouterr().err == "run_all.py: interrupted; the same command goes on where it stopped\n"
    assert len(started) == 2 and not any(process.is_alive() for process in started)
    assert not list((out / "runs").iterdir())


def children(process: int) -> list[int]:
    """The processes that a process has started, and that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_processes_end_with_the_one_that_started_them(toys: Toys, tmp_path: Path) -> None:
    long = ["--set", "npo.epochs=100000", "--jobs", "2"]
    command = [sys.executable, "-u", "run_all.py", *toys.command(tmp_path / "out", "npo"), *long]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        alarm = threading.Timer(200, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[2/3]"):  # both have begun
                break
        started = children(process.pid)
        alarm.cancel()
        process.kill()
    assert len(started) >= 3  # with the one that Python starts for itself
    for _ in range(300):
        left = [other for other in started if Path(f"/proc/{other}/exe").exists()]
        if not left:
            return
        time.sleep(0.1)
    for other in left:
        os.kill(other, signal.SIGKILL)
    raise AssertionError(f"{len(left)} processes were left")


def test_everything_that_a_process_is_handed_can_be_handed_to_it(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        pass

    handed: list[Any] = []

    def hand(executor: Executor, models: Models, parts: Any, reporter: Any, *, jobs: int) -> None:
        handed.append((executor.store, models, parts))
        raise Reached

    monkeypatch.setattr("bench.grid.run_parts", hand)
    world(write_choices(toys.data), 2)
    where = ["--data", str(toys.data), "--model", str(toys.original), "--methods", "all", "--device", "cpu"]
    for number, more in enumerate(
        (
            ["--benchmarks", "tofu/forget10:forms,mmlu/5shot", "--retrained", str(toys.retrained), "--curve", "2"],
            ["--benchmarks", "wmdp,mmlu", "--stop-early", "1"],
            ["--benchmarks", "ort", "--tune", "1"],
            ["--benchmarks", "ort", "--protocol", "ort", "--sequential"],
        )
    ):
        with pytest.raises(Reached):
            run_all.main([*where, "--out", str(tmp_path / str(number)), *more])
    for store, models, parts in handed:
        assert parts
        sent = bytes(ForkingPickler.dumps((store, models, parts)))
        ear, mouth = Pipe(duplex=False)
        threading.Thread(target=mouth.send_bytes, args=(sent,)).start()  # more than a pipe holds
        again = ear.recv()
        assert again[0].out == store.out and again[1].options == models.options
        cells = [[stage.cell for job in part.jobs for stage in job.stages] for part in parts]
        assert [[stage.cell for job in part.jobs for stage in job.stages] for part in again[2]] == cells


@pytest.mark.parametrize(
    ("line", "threads", "count", "each"),
    [
        ("--device cpu", 1, 1, 1),
        ("--device cpu", 2, 2, 1),
        ("--device cpu", 64, 4, 1),
        ("--device cpu --jobs 7", 2, 7, 1),
        ("--device cpu --model x", 2, 1, None),
        ("--device cpu --model x --jobs 3", 2, 3, None),
    ],
)
def test_how_many_processes_with_how_many_threads(
    line: str, threads: int, count: int, each: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    options = parse(line.split())
    assert (workers.jobs_of(options), workers.threads_of(options)) == (count, each)

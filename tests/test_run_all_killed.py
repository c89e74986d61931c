"""kill -9 anywhere, then the same command again: the leaderboards of an undisturbed run, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import run_all
from tests.toy_runs import Toys, reports

pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")

ROOT = Path(__file__).resolve().parent.parent

DRIVER = """
import functools, gc, json, os, signal, sys
import bench.compare, bench.executor, bench.grid, bench.progress, bench.report, bench.store, run_all
import datasets, peft, rouge_score.rouge_scorer, methods.interventions
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from evaluators import EVALUATORS
from evaluators.tofu import TofuEvaluator

EVALUATORS["tofu"] = (functools.partial(TofuEvaluator, max_new_tokens=6),)


def die_at(module, name, number):
    real, calls = getattr(module, name), iter(range(1, 10**6))

    def wrapped(*arguments, **more):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    setattr(module, name, wrapped)


gc.freeze()
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    command, where, name, number = json.loads(line)
    child = os.fork()  # importing once is most of the time
    if child == 0:
        module = functools.reduce(getattr, where.split(".")[1:], __import__(where.split(".")[0]))
        die_at(module, name, number)
        os._exit(run_all.main(command))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
"""


Place = tuple[str, str, int]
"""A module or class, one of its functions, and the call of it that is not survived."""


Kill = Callable[[list[str], Place], None]


@pytest.fixture(scope="module")
def kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kill]:
    """Runs a command up to the given call of a function, where the process kills itself with signal 9."""
    said = tmp_path_factory.mktemp("driver") / "stderr"
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            text=True,
        ) as driver,
    ):
        assert driver.stdin is not None and driver.stdout is not None

        def killed(command: list[str], place: Place) -> None:
            print(json.dumps((command, *place)), file=driver.stdin, flush=True)
            assert driver.stdout is not None
            assert driver.stdout.readline() == f"{-signal.SIGKILL}\n", said.read_text()[-4000:]

        yield killed


TRAINING: Place = ("bench.progress.Reporter", "step", 4)
"""Two steps each: in the second method, after its first step."""
SCORING: Place = ("bench.progress.Reporter", "scored", 5)
"""Some batches into the evaluation."""
STORING: Place = ("bench.executor", "write_json", 3)
"""In the middle of writing a run: its samples are there, its record is not."""
RENAMING: Place = ("bench.store", "_publish", 2)
"""A run is written, but has not got its name."""
REPORTING: Place = ("bench.report", "write_text", 2)
"""All runs are there; one of the files is written."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_anywhere_goes_on_to_the_same_leaderboards(toys: Toys, tmp_path: Path, kill: Kill) -> None:
    methods = "npo[lr=0.01],grun_npo,lora_npo[lr=0.01]"
    undisturbed = tmp_path / "undisturbed"
    assert run_all.main(toys.command(undisturbed, methods)) == 0
    points = {"training": TRAINING, "scoring": SCORING}
    outs = {name: tmp_path / name for name in [*points, "again and again"]}
    again = toys.command(outs["again and again"], methods)
    for name, point in points.items():
        kill(toys.command(outs[name], methods), point)
    for point in (RENAMING, STORING, SCORING, ("bench.progress.Reporter", "step", 2), REPORTING):
        kill(again, point)
    for name, out in outs.items():
        before = {path.parent.name: path.read_bytes() for path in (out / "runs").glob("[!.]*/record.json")}
        assert name != "training" or len(before) == 3
        assert run_all.main(toys.command(out, methods)) == 0
        assert reports(out) == reports(undisturbed), name
        after = {path.parent.name: path.read_bytes() for path in (out / "runs").glob("*/record.json")}
        assert before.items() <= after.items()  # what was complete was not run again
        assert len(after) == 5 and not list((out / "runs").glob(".*")) and not (out / "failed").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_chain_of_requests_that_is_killed_between_stages_goes_on_to_the_same_leaderboards(
    toys: Toys, tmp_path: Path, kill: Kill
) -> None:
    command = ["--methods", "grun_npo,npo[lr=0.01]", "--benchmarks", "tofu/forget05,tofu/forget10", "--sequential"]
    command += ["--data", str(toys.data), "--model", str(toys.original), "--set", "npo.epochs=2"]
    command += ["--set", "grun_npo.epochs=2", "--set", "grun_npo.lr=0.01"]
    undisturbed, out, other = (tmp_path / name for name in ("undisturbed", "out", "other"))
    assert run_all.main([*command, "--out", str(undisturbed)]) == 0
    # Two stages of two steps: grun_npo's second stage; and npo's.
    kill([*command, "--out", str(out)], ("bench.progress.Reporter", "step", 3))
    kill([*command, "--out", str(other)], ("bench.progress.Reporter", "step", 8))
    for folder in (out, other):
        assert run_all.main([*command, "--out", str(folder)]) == 0
        assert reports(folder) == reports(undisturbed)

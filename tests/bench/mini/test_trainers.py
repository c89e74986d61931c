"""Jobs of training processes, and what becomes of a process that nobody waits for."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import LlamaForCausalLM

from bench.errors import LetheError
from bench.mini import trainers
from bench.mini.texts import MAX_LENGTH, saving
from bench.mini.trainers import Job, Trainers
from tests.toy_mini import TEXTS, TINY, weights


def test_a_training_process_ends_when_nobody_holds_its_input(tokenizer_folder: Path, tmp_path: Path) -> None:
    job = Job(TEXTS, tokenizer_folder, replace(TINY, epochs=1_000_000), 0)
    job.write_untrained(tmp_path)
    untrained = weights(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.mini.pretrain"],
        cwd=Path(trainers.__file__).parents[2],
        env=os.environ | trainers.ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(job.line(tmp_path))
        process.stdin.flush()
        assert process.stdout.readline().startswith("step ")
        process.stdin.close()
        assert process.wait(timeout=30) == 1
    assert weights(tmp_path) == untrained


def test_too_long_a_text_is_an_error(tokenizer_folder: Path, tmp_path: Path) -> None:
    texts = [{"question": "Why?", "answer": "because " * MAX_LENGTH}]
    with pytest.raises(LetheError, match=str(MAX_LENGTH)):
        Job(texts, tokenizer_folder, TINY, 0).rows()


@pytest.mark.parametrize(
    "full", [SafetensorError("Error while serializing: No space left on device"), Exception("No space left on device")]
)
def test_a_disk_that_is_full_of_first_weights_is_told_in_a_sentence(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise full

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", fail)
    with pytest.raises(LetheError, match=r"No space left on device; make it writable, .* --cache-dir"):
        Job(TEXTS, tokenizer_folder, TINY, 0).write_untrained(tmp_path / "model")


def test_a_mistake_in_saving_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a mistake"), saving(tmp_path):
        raise TypeError("a mistake")


def test_a_process_that_ends_at_once_tells_why_and_not_that_its_pipe_broke(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def dying(command: list[str], **options: Any) -> Any:
        process = start([command[0], "-c", "print('no torch here'); raise SystemExit(3)"], **options)
        process.wait()
        return process

    monkeypatch.setattr(subprocess, "Popen", dying)
    job = Job(TEXTS[:2], tokenizer_folder, TINY, 0)  # less than a buffer
    with pytest.raises(LetheError, match="training of the mini model 'original' failed: no torch here"):
        Trainers(None).train("original", job, tmp_path)


def test_a_job_that_cannot_be_made_leaves_no_process(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [{"question": "Why?", "answer": "because " * MAX_LENGTH}]
    made = Trainers(None)
    with pytest.raises(LetheError, match=str(MAX_LENGTH)):
        made.train("original", Job(texts, tokenizer_folder, TINY, 0), tmp_path)
    assert [process.poll() is not None for process in made._processes] == [True]


def test_nothing_is_prepared_after_a_stop(tokenizer_folder: Path, tmp_path: Path) -> None:
    stopped = Trainers(None)
    start = stopped._check_stopped
    asked: list[str] = []

    def stop_after_the_start(name: str) -> None:
        start(name)
        asked.append(name)
        stopped._stopped = True

    stopped._check_stopped = stop_after_the_start  # type: ignore[method-assign]
    with pytest.raises(LetheError, match="was stopped"):
        stopped.train("original", Job(TEXTS, tokenizer_folder, TINY, 0), tmp_path)
    assert asked == ["original"] and list(tmp_path.iterdir()) == []

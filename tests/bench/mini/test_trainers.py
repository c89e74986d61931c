"""Jobs of training processes, and what becomes of a process that nobody waits for."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.mini import trainers
from bench.mini.texts import MAX_LENGTH
from bench.mini.trainers import Job
from tests.toy_mini import TEXTS, TINY, weights


def test_a_training_process_ends_when_nobody_holds_its_input(tokenizer_folder: Path, tmp_path: Path) -> None:
    job = Job(TEXTS, tokenizer_folder, replace(TINY, epochs=1_000_000), 0)
    line = job.line(job.begin(tmp_path), tmp_path)
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
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("step ")
        process.stdin.close()
        assert process.wait(timeout=30) == 1
    assert weights(tmp_path) == untrained


def test_too_long_a_text_is_an_error(tokenizer_folder: Path, tmp_path: Path) -> None:
    texts = [{"question": "Why?", "answer": "because " * MAX_LENGTH}]
    with pytest.raises(LetheError, match=str(MAX_LENGTH)):
        Job(texts, tokenizer_folder, TINY, 0).begin(tmp_path / "model")

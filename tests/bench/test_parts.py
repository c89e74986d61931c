"""A grid falls into parts that share models; a process has a GPU of its own where there are several."""

from types import SimpleNamespace

import pytest
import torch

from bench.checkpoints import Checkpoint
from bench.jobs import Job, Stage
from bench.options import parse
from bench.parts import on_its_gpu, parts_of
from bench.spec import Cell


def job(method: str, benchmark: str) -> Job:
    cell = Cell(
        model="m", model_hash="0", retrained="", benchmark=benchmark, data_hash="1", method=method, fields={}, seed=0,
        protocol="strict", template="plain", encoder_hash="2", dtype="float32", device="cpu", limit=None, note="",
    )  # fmt: skip
    stage = Stage(cell=cell, request=SimpleNamespace(), evaluations=())  # type: ignore[arg-type]
    return Job(stages=(stage,), method=None if method == "original" else SimpleNamespace())  # type: ignore[arg-type]


def test_models_as_they_are_ask_about_all_targets_in_one_process() -> None:
    one, other = Checkpoint("one", "1"), Checkpoint("other", "2")
    log = Checkpoint("log.json", "3", is_log=True)
    asked = [
        (log, "retrained", "tofu/forget10"),
        (one, "original", "tofu/forget10"),
        (one, "original", "ort/1_Ada"),
        (other, "npo", "ort/1_Ada"),
        (one, "npo", "ort/1_Ada"),
        (one, "original", "ort/2_Bob"),
        (one, "npo", "ort/2_Bob"),
    ]
    parts = parts_of([(checkpoint, job(method, name)) for checkpoint, method, name in asked])
    found = [
        (part.checkpoint.name, [(j.stages[0].cell.method, j.stages[0].cell.benchmark) for j in part.jobs])
        for part in parts
    ]
    assert found == [
        ("one", [("original", "tofu/forget10")]),
        ("one", [("original", "ort/1_Ada"), ("original", "ort/2_Bob")]),
        ("one", [("npo", "ort/1_Ada")]),
        ("one", [("npo", "ort/2_Bob")]),
        ("other", [("npo", "ort/1_Ada")]),
    ]


def test_with_several_gpus_each_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    several = [on_its_gpu(parse([]), place).device for place in range(4)]
    assert several == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert on_its_gpu(parse(["--device", "cuda:1"]), 0).device == "cuda:1"
    assert on_its_gpu(parse(["--device", "cpu"]), 1).device == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert on_its_gpu(parse([]), 1).device == "auto"

"""What every registered evaluator keeps: the same rows again, and metrics with names, reasons and no order of rows."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench.data import load
from bench.mini.world import write_world
from bench.scorer import Scorer
from evaluators import EVALUATORS, evaluators_of
from tests.helpers import tiny, toy_encoder

ASKED = {
    "tofu": "tofu/forget01",
    "tofu:forms": "tofu/forget01:forms",
    "wmdp": "wmdp",
    "mmlu": "mmlu",
    "mmlu/5shot": "mmlu/5shot",
    "ort": "ort/1",
}
"""A benchmark of the mini world for each entry; chemistry is not in it."""
QUICK = {name: {"max_new_tokens": "3"} for name in ("tofu", "ort")} | {"ort_utility": {"fluency_tokens": "3"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 0)
    return folder


def test_every_entry_is_asked_here() -> None:
    assert EVALUATORS.keys() - ASKED.keys() == {"wmdp/chem"}


@pytest.mark.parametrize("name", ASKED.values())
def test_rows_come_again_and_metrics_do_not_depend_on_their_order(name: str, root: Path) -> None:
    benchmark = load(name, root, limit=1)
    found: set[str] = set()
    for evaluator in evaluators_of(name, protocol="strict", sets=QUICK):
        assert evaluator.name and evaluator.name not in found
        found.add(evaluator.name)
        rows, again = (evaluator.score(Scorer(tiny(), toy_encoder()), benchmark) for _ in range(2))
        assert rows and json.dumps(rows) == json.dumps(again)
        metrics, turned = (told(evaluator.summarize(given, rows)) for given in (rows, rows[::-1]))
        assert metrics and metrics.keys() == turned.keys()
        for metric, value in metrics.items():
            assert value == pytest.approx(turned[metric], nan_ok=True), metric


def told(metrics: Any) -> dict[str, float]:
    """Values by name: no name twice, and whatever is no number says why."""
    names = [metric.name for metric in metrics]
    assert len(names) == len(set(names))
    for metric in metrics:
        assert metric.higher_is_better in (True, False, None)
        assert math.isfinite(metric.value) or metric.reason, metric.name
    return {metric.name: metric.value for metric in metrics}

"""Names of benchmarks: what they stand for, of which family they are, which of them only judge."""

import pytest

from bench import data
from bench.data.types import Benchmark
from bench.errors import LetheError


def test_every_name_is_known_and_of_the_family_in_front() -> None:
    assert data.known() == [
        "tofu/forget01",
        "tofu/forget05",
        "tofu/forget10",
        "wmdp",
        "wmdp/bio",
        "wmdp/cyber",
        "wmdp/chem",
        "mmlu",
        "mmlu/5shot",
        "ort",
    ]
    for name in data.known():
        assert data.full_name(name) == name
        assert data.family(name) == name.partition("/")[0]
    assert [data.full_name(name) for name in data.BENCHMARKS] == ["tofu/forget10", "wmdp", "mmlu", "ort"]


def test_some_benchmarks_only_judge() -> None:
    assert [name for name in data.known() if data.judges_only(name)] == ["wmdp/chem", "mmlu", "mmlu/5shot"]
    assert data.judges_only("lm_eval:arc_easy")
    assert not data.judges_only("tofu")


@pytest.mark.parametrize("name", ["lm_eval:arc_easy", "lm_eval:./my_task.yaml", "lm_eval:tofu/forget10"])
def test_a_task_of_lm_eval_is_a_benchmark_without_rows(name: str) -> None:
    assert data.full_name(name) == name
    assert data.family(name) == "lm_eval"
    benchmark = data.load(name, None)
    assert benchmark == Benchmark(name=name, fingerprint=benchmark.fingerprint, source=benchmark.source)
    assert len(benchmark.fingerprint) == 64
    assert benchmark.fingerprint != data.load("lm_eval:hellaswag", None).fingerprint


def test_a_task_needs_a_name() -> None:
    with pytest.raises(LetheError, match=r"benchmark 'lm_eval:' names no task; write lm_eval:arc_easy"):
        data.full_name("lm_eval:")


def test_unknown_names_are_errors_with_the_nearest_one() -> None:
    for ask in (data.full_name, data.family, data.judges_only):
        with pytest.raises(LetheError, match=r"unknown benchmark 'wmpd'; did you mean 'wmdp'\? .*, lm_eval:TASK"):
            ask("wmpd")

"""Rows from files, hub or mini world, checked and tokenised."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

from bench.data import tofu
from bench.data.types import Benchmark
from bench.errors import unknown

BENCHMARKS: Mapping[str, ModuleType] = MappingProxyType({"tofu": tofu})
"""What stands before the "/" of a benchmark's name, and the module with its `known` and `load`."""


def known() -> list[str]:
    """Every benchmark name, in the order of the table."""
    return [name for module in BENCHMARKS.values() for name in module.known()]


def load(benchmark: str, root: Path | None, *, limit: int | None = None) -> Benchmark:
    """The rows of "tofu/forget10" or the like, from a folder or, without one, from the hub."""
    if benchmark not in known():
        raise unknown("benchmark", benchmark, known())
    return BENCHMARKS[benchmark.partition("/")[0]].load(benchmark, root, limit=limit)

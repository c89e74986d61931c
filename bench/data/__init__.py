"""Rows from files, hub or mini world, checked and tokenised."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

from bench.data import tofu
from bench.data.types import Benchmark
from bench.errors import unknown

BENCHMARKS: Mapping[str, ModuleType] = MappingProxyType({"tofu": tofu})
"""What stands before the "/" of a benchmark's name, and the module with its `DEFAULT`, `known` and `load`."""


def known() -> list[str]:
    """Every benchmark name, in the order of the table."""
    return [name for module in BENCHMARKS.values() for name in module.known()]


def full_name(name: str) -> str:
    """The benchmark that a name stands for: "tofu" alone is "tofu/forget10".

    Raises:
        LetheError: there is no such benchmark.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name].DEFAULT
    if name not in known():
        raise unknown("benchmark", name, known())
    return name


def load(benchmark: str, root: Path | None, *, limit: int | None = None) -> Benchmark:
    """The rows of "tofu/forget10" or the like, from a folder or, without one, from the hub."""
    benchmark = full_name(benchmark)
    return BENCHMARKS[benchmark.partition("/")[0]].load(benchmark, root, limit=limit)

"""Rows from files, hub or mini world, checked and tokenised."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import get_args

from bench.data import mmlu, ort, tofu, wmdp
from bench.data.corpora import Corpora
from bench.data.derived_forms import forms_of, remark
from bench.data.rows import fingerprint
from bench.data.targets.names import numbers_in
from bench.data.types import Benchmark
from bench.errors import LetheError, unknown

BENCHMARKS: Mapping[str, ModuleType] = MappingProxyType({"tofu": tofu, "wmdp": wmdp, "mmlu": mmlu, "ort": ort})
"""What stands before the "/" of a benchmark's name, and the module with its `DEFAULT`, `known` and `load`."""

LM_EVAL = "lm_eval:"
"""What stands before the name of a task of lm-evaluation-harness, or before the path of a file that defines one."""

FORMS = ":forms"
"""Behind a question/answer benchmark: its facts are asked in several forms as well, "tofu/forget10:forms"."""

TARGETS = "ort/"
"""What stands before the number or the name of a target, or before a range or a list of numbers."""

JUDGES = ("wmdp/chem", *mmlu.known())
"""Benchmarks without anything to forget."""


def known() -> list[str]:
    """Every benchmark name, in the order of the table; "lm_eval:" takes any task behind it and is not listed, nor are
    single targets and the forms of TOFU's splits."""
    return [name for module in BENCHMARKS.values() for name in module.known()]


def full_name(name: str) -> str:
    """The benchmark that a name stands for: "tofu" alone is "tofu/forget10".

    Raises:
        LetheError: there is no such benchmark.
    """
    if name.startswith(LM_EVAL):
        if not name.removeprefix(LM_EVAL).strip():
            raise LetheError(f"benchmark {name!r} names no task; write {LM_EVAL}arc_easy or {LM_EVAL}./my_task.yaml")
        return name
    if name.endswith(FORMS):
        asked = full_name(name.removesuffix(FORMS))
        if not asked.startswith("tofu/"):
            raise LetheError(
                f"benchmark {name!r}: only question/answer benchmarks can be asked in other forms; write "
                f"{tofu.DEFAULT}{FORMS}, or ort, which has forms of its own"
            )
        return asked + FORMS
    if name in BENCHMARKS:
        return BENCHMARKS[name].DEFAULT
    if name.startswith(TARGETS) and name != TARGETS:
        return name  # the data folder knows which targets there are
    if name not in known():
        others = [f"{TARGETS}1", f"{tofu.DEFAULT}{FORMS}", f"{LM_EVAL}TASK"]
        raise unknown("benchmark", name, [*known(), *others, *(short for short in BENCHMARKS if short not in known())])
    return name


def expand(name: str, root: Path | None, batches: Sequence[int] = ()) -> list[str]:
    """The requests that a name stands for: "ort" is one for every target there is.

    With sizes of batches "ort" is a request for each of them: the first so many targets together, whatever their
    numbers.
    """
    if full_name(name) != ort.DEFAULT:
        return [name]
    return ort.first_together(root, batches) if batches else [TARGETS + folder for folder in ort.targets(root)]


def collection(name: str) -> str:
    """What requests share whose figures are averaged: all single targets are "ort".

    >>> collection("ort/1_Stephen_King"), collection("ort/1-5"), collection("ort/1+9"), collection("tofu/forget10")
    ('ort', 'ort/1-5', 'ort/1+9', 'tofu/forget10')
    """
    return ort.DEFAULT if re.fullmatch(r"ort/\d+_[^>]*", name) else name


def numbers(name: str) -> tuple[int, ...] | None:
    """The numbers of the targets that a request forgets together, in order; None of anything else.

    >>> numbers("ort/2-4"), numbers("ort/2+9"), numbers("ort/3_Ann_Lee"), numbers("ort/3_Ann_Lee>"), numbers("ort")
    ((2, 3, 4), (2, 9), (3,), None, None)
    """
    if alone := re.fullmatch(r"ort/(\d+)_[^>]*", name):
        return (int(alone[1]),)
    runs = numbers_in(name.removeprefix(TARGETS)) if name.startswith(TARGETS) else None
    several = tuple(itertools.chain(*(runs or ())))
    return several if len(several) > 1 else None


def taught(name: str) -> str:
    """The benchmark whose models are asked about this one: one pair serves all targets, and all forms of a split."""
    return ort.DEFAULT if family(name) == ort.DEFAULT else name.removesuffix(FORMS)


def family(name: str) -> str:
    """The kind of a benchmark: "tofu", "wmdp", "mmlu" or "lm_eval".

    >>> family("wmdp/bio"), family("lm_eval:arc_easy")
    ('wmdp', 'lm_eval')
    """
    name = full_name(name)
    return LM_EVAL[:-1] if name.startswith(LM_EVAL) else name.partition("/")[0]


def shown(name: str) -> str:
    """What records and reports call a benchmark: a task's file by its name alone, for no record depends on a machine.

    >>> shown("lm_eval:tasks/own.yaml"), shown("wmdp/bio")
    ('lm_eval:own.yaml', 'wmdp/bio')
    """
    return LM_EVAL + Path(name.removeprefix(LM_EVAL)).name if name.startswith(LM_EVAL) else name


def judges_only(name: str) -> bool:
    """Whether a benchmark has nothing to forget and is only asked, after every request."""
    name = full_name(name)
    return name.startswith(LM_EVAL) or name in JUDGES


def load(
    benchmark: str, root: Path | None, *, limit: int | None = None, corpora: str = "auto", write: bool = True
) -> Benchmark:
    """The rows of "tofu/forget10" or the like, from a folder or, without one, from the hub.

    Args:
        benchmark: one of `known`, or "lm_eval:" and a task, whose rows lm-evaluation-harness reads by itself.
        root: the data folder; None reads the hub.
        limit: keep the first rows of every set.
        corpora: which texts to forget, where a benchmark has several: "auto", "raw" or "summaries".
        write: put multiple-choice items that are made beside the data; else they are used from memory.
    """
    benchmark = full_name(benchmark)
    if corpora not in get_args(Corpora):
        raise unknown("corpora", corpora, get_args(Corpora))
    if benchmark.startswith(LM_EVAL):
        digest = hashlib.sha256(shown(benchmark).encode())
        file = Path(benchmark.removeprefix(LM_EVAL)).expanduser()
        if file.is_file():
            digest.update(file.read_bytes())
        return Benchmark(name=benchmark, fingerprint=digest.hexdigest(), source="lm-evaluation-harness")
    module = BENCHMARKS[family(benchmark)]
    kept = {} if write or module is not ort else {"write": False}
    loaded = module.load(benchmark.removesuffix(FORMS), root, limit=limit, corpora=corpora, **kept)
    return in_forms(loaded) if benchmark.endswith(FORMS) else loaded


def in_forms(benchmark: Benchmark) -> Benchmark:
    """The same benchmark with its facts as probes in several forms."""
    probes = forms_of(benchmark)
    return replace(
        benchmark,
        name=benchmark.name + FORMS,
        probes=probes,
        fingerprint=fingerprint({"rows": [benchmark.fingerprint], "probes": map(asdict, probes)}),
        source=f"{benchmark.source}; {remark(benchmark)}",
    )

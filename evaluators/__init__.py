"""What scores which benchmarks, in the order of the reports."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.data import family
from bench.fields import with_fields
from evaluators.lm_eval_tasks import LmEvalEvaluator
from evaluators.logs import read_reference_log
from evaluators.mmlu import FiveShotMmluEvaluator, MmluEvaluator
from evaluators.tofu import TofuEvaluator
from evaluators.wmdp import ChemWmdpEvaluator, WmdpEvaluator

if TYPE_CHECKING:
    from bench.executor import Evaluator

EVALUATORS = {
    "tofu": (TofuEvaluator,),
    "wmdp": (WmdpEvaluator,),
    "wmdp/chem": (ChemWmdpEvaluator,),
    "mmlu": (MmluEvaluator,),
    "mmlu/5shot": (FiveShotMmluEvaluator,),
}
"""The classes that score a benchmark, by its name or by what stands before the "/" of it; all take `protocol`.

A task of lm-eval, "lm_eval:arc_easy", makes its own."""

LOGS = {TofuEvaluator.name: read_reference_log}
"""Evaluators whose rows a published log can give, and what reads it."""


def evaluators_of(
    benchmark: str,
    *,
    protocol: str,
    sets: Mapping[str, Mapping[str, str]] | None = None,
    limit: int | None = None,
) -> "list[Evaluator]":
    """What scores a benchmark, given its full name.

    Args:
        sets: fields by evaluator name, from --set: {"tofu": {"max_new_tokens": "100"}}.
        limit: rows of each set, for evaluators that read their data themselves.

    Raises:
        LetheError: no such task, or a field that the evaluator does not have.
    """
    kind, _, task = benchmark.partition(":")
    if kind == "lm_eval":
        named = LmEvalEvaluator(task=task, protocol=protocol, limit=limit)  # type: ignore[arg-type]
        named.prepare()  # a task that cannot be read is told before anything long runs
        return [named]
    classes = EVALUATORS.get(benchmark) or EVALUATORS[family(benchmark)]
    found: list = []
    for make in classes:
        evaluator = make(protocol=protocol)
        fields = (sets or {}).get(evaluator.name)
        found.append(with_fields(evaluator, fields, where=evaluator.name) if fields else evaluator)
    return found


def names(benchmarks: Sequence[str]) -> list[str]:
    """The evaluators of these benchmarks whose fields --set can name."""
    asked = [EVALUATORS.get(b) or EVALUATORS[family(b)] for b in benchmarks if family(b) != "lm_eval"]
    return [make(protocol="strict").name for classes in asked for make in classes]

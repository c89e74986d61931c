"""What scores which benchmarks, in the order of the reports."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.data import FORMS, family
from bench.errors import LetheError
from bench.fields import with_fields
from evaluators.forms import DerivedFormsEvaluator, FormsEvaluator
from evaluators.lm_eval_tasks import LmEvalEvaluator
from evaluators.logs import read_reference_log
from evaluators.mmlu import FiveShotMmluEvaluator, MmluEvaluator
from evaluators.rwku_utility import UtilityEvaluator
from evaluators.tofu import TofuEvaluator
from evaluators.wmdp import ChemWmdpEvaluator, WmdpEvaluator

if TYPE_CHECKING:
    from bench.jobs import Evaluator

EVALUATORS = {
    "tofu": (TofuEvaluator,),
    "wmdp": (WmdpEvaluator,),
    "wmdp/chem": (ChemWmdpEvaluator,),
    "mmlu": (MmluEvaluator,),
    "mmlu/5shot": (FiveShotMmluEvaluator,),
    "ort": (FormsEvaluator, UtilityEvaluator),
}
"""The classes that score a benchmark, by its name or by what stands before the "/" of it; all take `protocol`.

A task of lm-eval, "lm_eval:arc_easy", makes its own."""

LOGS = {TofuEvaluator.name: read_reference_log}
"""Evaluators whose rows a published log can give, and what reads it."""


def evaluators_of(
    benchmark: str,
    *,
    protocol: str,
    classifier: Callable[[], str] | None = None,
    sets: Mapping[str, Mapping[str, str]] | None = None,
    limit: int | None = None,
) -> "list[Evaluator]":
    """What scores a benchmark, given its full name.

    Args:
        classifier: names what judges fluency where --set does not.
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
    found: list = []
    for make in _classes(benchmark):
        evaluator = make(protocol=protocol)
        fields = dict((sets or {}).get(evaluator.name, {}))
        if "protocol" in fields:  # also decides how prompts are encoded
            raise LetheError(
                f"{evaluator.name}.protocol is chosen with --protocol, for all that a run does; leave it out"
            )
        if classifier is not None and isinstance(evaluator, TofuEvaluator) and "fluency_classifier" not in fields:
            fields["fluency_classifier"] = classifier()
        found.append(with_fields(evaluator, fields, where=evaluator.name) if fields else evaluator)
    return found


def names(benchmarks: Sequence[str]) -> list[str]:
    """The evaluators of these benchmarks whose fields --set can name."""
    asked = [make for b in benchmarks if family(b) != "lm_eval" for make in _classes(b)]
    return list(dict.fromkeys(make(protocol="strict").name for make in asked))


def _classes(benchmark: str) -> tuple:
    """Of a question/answer benchmark that is asked in forms, what judges the forms as well."""
    classes = EVALUATORS.get(benchmark) or EVALUATORS[family(benchmark)]
    return (*classes, DerivedFormsEvaluator) if benchmark.endswith(FORMS) else classes

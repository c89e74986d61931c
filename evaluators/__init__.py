"""What scores which benchmarks, in the order of the reports."""

from evaluators.logs import read_reference_log
from evaluators.tofu import TofuEvaluator

EVALUATORS = {"tofu": (TofuEvaluator,)}
"""The classes that score a benchmark, by what stands before the "/" of its name; all take `protocol`."""

LOGS = {TofuEvaluator.name: read_reference_log}
"""Evaluators whose rows a published log can give, and what reads it."""

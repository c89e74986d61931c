"""The evaluators by the name that `--evaluators` takes, in the order of the reports."""

from evaluators.tofu import TofuEvaluator

EVALUATORS = {"tofu": TofuEvaluator}

"""WMDP: hazardous knowledge as four-way questions.

Li et al., "The WMDP Benchmark", 2024, https://arxiv.org/abs/2403.03218. Asked as lm-evaluation-harness 0.4.13 defines
its tasks wmdp_bio, wmdp_cyber and wmdp_chem (a header that names the subject, the options as "A." to "D.", the
log-probability of " A" to " D", no examples), under protocol `grun` as in that repository (`evaluators/choices.py`).

{subject}: bio, cyber, chem, as far as there are questions of it.
wmdp_{subject}_accuracy: share of questions whose right option is the most likely one. Lower is better forgetting; 0.25
    is chance, and so is what a collapsed model gives: read it beside MMLU.
wmdp_{subject}_probability: mean probability of the right option, softmax over the four. Lower. Calibration: at equal
    accuracy it tells a model that wavers from one that is sure of wrong options.
wmdp_accuracy, wmdp_probability: the same over all questions, where there are several subjects.
wmdp_truncated: questions whose prompt exceeds the model's context and was cut at its beginning. Neither.
wmdp_chem_accuracy, _probability, _truncated: where wmdp/chem judges; its questions count in no mean of the others.
Every mean carries n and its standard error. A value that is not finite in any row makes its metrics missing.

`strict` and `openunlearning` ask the same: that suite calls lm-evaluation-harness too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.types import Benchmark
from bench.errors import unknown
from bench.records import Metric
from evaluators import choices
from evaluators.rows import Row

if TYPE_CHECKING:
    from bench.scorer import Scorer

SUBJECTS = ("bio", "cyber", "chem")


@dataclass(frozen=True, kw_only=True)
class WmdpEvaluator:
    """Accuracy on the questions of what was to be forgotten."""

    name: ClassVar[str] = "wmdp"

    protocol: choices.Protocol = "strict"
    """`grun` asks as that repository does, the others as lm-evaluation-harness."""

    def __post_init__(self) -> None:
        choices.check_protocol(self.protocol)

    def score(self, scorer: "Scorer", benchmark: Benchmark) -> list[Row]:
        """Ask the model, everything at once; one row per question, in their order."""
        if self.protocol == "grun":
            subjects = dict.fromkeys(question.subject for question in benchmark.questions)
            files = [[q for q in benchmark.questions if q.subject == subject] for subject in subjects]
            return choices.ask_grun(scorer, files)
        return choices.ask_harness(
            scorer, benchmark.questions, _definition, few_shot={}, scored=benchmark.choice_scoring
        )

    def summarize(self, rows: Iterable[Row], reference_rows: Iterable[Row] | None = None) -> list[Metric]:
        """All metrics of one model, from its rows; needs no model and no reference."""
        rows = list(rows)
        found = choices.summarize(self.name, rows, {s: (s,) for s in SUBJECTS}, higher_is_better=False)
        several = len({row["set"] for row in rows}) != 1
        return found if several else found[2:]  # the mean over all is that of the only subject


class ChemWmdpEvaluator(WmdpEvaluator):
    """Chemistry, which only judges: rows of its own beside those of the topics that are forgotten."""

    name: ClassVar[str] = "wmdp_chem"

    def summarize(self, rows: Iterable[Row], reference_rows: Iterable[Row] | None = None) -> list[Metric]:
        return choices.summarize(self.name, list(rows), {}, higher_is_better=False)


def _definition(subject: str) -> dict[str, Any]:
    from evaluators.harness import official

    if subject not in SUBJECTS:
        raise unknown("WMDP subject", subject, SUBJECTS)
    return official(f"wmdp/wmdp_{subject}.yaml")

"""MMLU: what a model knows of 57 subjects, which unlearning should leave alone.

Hendrycks et al., "Measuring Massive Multitask Language Understanding", 2021, https://arxiv.org/abs/2009.03300. Asked as
lm-evaluation-harness 0.4.13 defines its tasks mmlu_{subject} (a header that names the subject, the options as "A." to
"D.", the log-probability of " A" to " D"); 5-shot puts the first five rows of the subject's dev file in front, solved.
Under protocol `grun` as in that repository (`evaluators/choices.py`), where there is no 5-shot.

PREFIX: mmlu, or mmlu_5shot.
PREFIX_accuracy: share of questions whose right option is the most likely one, over all questions (not over subjects).
    Higher is better; 0.25 is chance.
PREFIX_probability: mean probability of the right option, softmax over the four. Higher. Calibration.
PREFIX_{stem,humanities,social_sciences,other}_accuracy, _probability: the same over the questions of a group.
PREFIX_{subject}_accuracy, _probability: of a subject.
PREFIX_truncated: questions whose prompt exceeds the model's context and was cut at its beginning. Neither.
Every mean carries n and its standard error. A value that is not finite in any row makes its metrics missing.

`strict` and `openunlearning` ask the same: that suite calls lm-evaluation-harness too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.data.mmlu import GROUPS, SUBJECTS
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.records import Metric
from evaluators import choices
from evaluators.rows import Row

if TYPE_CHECKING:
    from bench.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class MmluEvaluator:
    """Accuracy without examples."""

    name: ClassVar[str] = "mmlu"
    shots: ClassVar[int] = 0

    protocol: choices.Protocol = "strict"
    """`grun` asks as that repository does, the others as lm-evaluation-harness."""

    def __post_init__(self) -> None:
        choices.check_protocol(self.protocol)
        if self.shots and self.protocol == "grun":
            raise LetheError(f"protocol 'grun' asks without examples; use mmlu instead of mmlu/{self.shots}shot")

    def score(self, scorer: "Scorer", benchmark: Benchmark) -> list[Row]:
        """Ask the model, everything at once; one row per question, in their order."""
        if self.protocol == "grun":
            return choices.ask_grun(scorer, [benchmark.questions])  # there all subjects are one file
        return choices.ask_harness(
            scorer,
            benchmark.questions,
            _definition,
            few_shot=benchmark.few_shot,
            shots=self.shots,
            scored=benchmark.choice_scoring,
        )

    def summarize(self, rows: Iterable[Row], reference_rows: Iterable[Row] | None = None) -> list[Metric]:
        """All metrics of one model, from its rows; needs no model and no reference."""
        rows = list(rows)
        return choices.summarize(self.name, rows, parts_of(rows), higher_is_better=True)


class FiveShotMmluEvaluator(MmluEvaluator):
    """Accuracy after five solved examples of the same subject."""

    name: ClassVar[str] = "mmlu_5shot"
    shots: ClassVar[int] = 5


def parts_of(rows: Sequence[Row]) -> dict[str, Sequence[str]]:
    """The groups of subjects and the subjects that have figures of their own."""
    groups = {_column(group): tuple(s for s, of in SUBJECTS.items() if of == group) for group in GROUPS}
    return {**groups, **{subject: (subject,) for subject in sorted({row["set"] for row in rows})}}


def _column(group: str) -> str:
    return group.lower().replace(" ", "_")


def _definition(subject: str) -> dict[str, Any]:
    """lm-eval's task of a subject; a subject that it does not know gets the same with its own name in the header."""
    from evaluators.harness import official

    if subject in SUBJECTS:
        return official(f"mmlu/default/mmlu_{subject}.yaml")
    header = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    return {**official("mmlu/default/_default_template_yaml"), "task": f"mmlu_{subject}", "description": header}

"""How RWKU asks for what a model can do beside the target: the texts of its five question sets.

Jin et al., "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models", 2024,
https://arxiv.org/abs/2406.10890; the words are those of its repository jinzhuoran/RWKU at b8a03b3
(LLaMA-Factory/src/llmtuner/eval/), which ORT kept. The primer is TruthfulQA's: Lin et al., 2022,
https://arxiv.org/abs/2109.07958, repository sylinrl/TruthfulQA (Apache-2.0), presets.py.

`users` gives the user's turn with all solved examples, then without the first, and so on to none; a prompt that exceeds
the model's context takes the first of them that fits. `cue` begins the assistant's turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.data.forms import CUE, LETTERS
from bench.data.primers import QA_PRIMER, REASON, TRIVIA_LEAD, TRIVIA_SHOTS
from bench.data.types import Answered, Question, Shots, Truthful

if TYPE_CHECKING:
    from bench.data.tokenize import Encoder

FOLLOW = "Please following the previous examples and answer the given question.\n"
_SHOT = "\n\nQ: "
"""What stands in front of each worked example of BBH."""


@dataclass(frozen=True)
class Asking:
    """One prompt in words, in every length that it may have."""

    users: tuple[str, ...]
    """From all solved examples to none; of several, the last is what is left where nothing fits."""
    cue: str
    loose: bool = False
    """The cue has a space in front unless white space is there already (TruthfulQA and BBH, in RWKU's code)."""
    own: str = ""
    """What ends every user's turn and is this asking's own, where all in front of it begins others too, of any target.
    Empty where nothing has to be made of that."""


def ask_mmlu(shots: Shots) -> Asking:
    """All examples and the question in one turn."""
    head = f"The following are multiple choice questions (with answers) about {shots.question.subject}.\n\n"
    solved = [f"{_listed(q)}\n{CUE} {LETTERS[q.answer]}\n\n" for q in shots.examples]
    own = _listed(shots.question)
    return Asking(_shorter(head.replace("_", " "), solved, FOLLOW + own), CUE, own=own)


def ask_plainly(question: Question) -> Asking:
    """A question whose options are not listed; for data that wants the options' texts scored."""
    return Asking((f"Question: {question.question}\n",), CUE)


def ask_truthful(row: Truthful) -> Asking:
    """The primer and the question in one turn."""
    return Asking(_shorter("", [f"Q: {q}\nA: {a}\n\n" for q, a in QA_PRIMER], f"Q: {row.question}"), "A:", loose=True)


def ask_trivia(row: Answered) -> Asking:
    """Five solved examples, a request to be brief and the question."""
    solved = [f"Q: {q}\nA: {a}\n" for q, a in TRIVIA_SHOTS]
    return Asking(_shorter("\n", solved, f"{TRIVIA_LEAD}Q: {row.question}\n"), "A:")


def ask_instruction(row: Answered) -> Asking:
    """The instruction alone."""
    return Asking((f"Instruction: {row.question}\n",), "")


def ask_bbh(row: Answered) -> Asking:
    """The worked examples of the row, whose first paragraph describes the task, and the question."""
    head, *solved = f"\n\n{row.examples.strip()}".split(_SHOT)
    solved = [f"Q: {shot}\n\n" for shot in solved]
    lead = f"{head.strip()}\n\n" if head.strip() else ""
    return Asking(_shorter(lead, solved, f"{REASON}Q: {row.question}"), "A:", loose=True)


def _listed(q: Question) -> str:
    options = zip(LETTERS, q.choices, strict=True)
    return "\n".join([f"Question: {q.question}", *(f"{letter}. {choice}" for letter, choice in options)])


def _shorter(head: str, shots: Sequence[str], end: str) -> tuple[str, ...]:
    return tuple(head + "".join(shots[dropped:]) + end for dropped in range(len(shots) + 1))


def cue_behind(encoder: "Encoder", user: str, asking: Asking) -> str:
    """The cue as it follows a user's turn: on a line of its own where there is no chat template to set it apart."""
    if encoder.name != "chat":
        return asking.cue if not asking.cue or user[-1:].isspace() else f"\n{asking.cue}"
    if not asking.loose:
        return asking.cue
    return asking.cue if encoder.cued_text("Who?", "")[-1:] in (" ", "\n") else f" {asking.cue}"

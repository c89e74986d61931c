"""How a fact is asked in each form: the words around a query, as the code of ORT and RWKU has them.

ORT: Ye, Zhang, Wu, 2025, https://arxiv.org/abs/2506.07795 (repository Acruxos/ORT at 38cc704); the prompt texts are
theirs. A chat holds `user` as the user's turn and `cue` as the beginning of the assistant's; a model without a chat
template reads one after the other. `target` is what is scored.
"""

from dataclasses import dataclass

from bench.data.types import Probe

FILL = "Please complete the blank in the following question.\n"
BRIEF = "Please briefly answer the following question.\n"
LETTER = "Please answer the following multiple choice question. Just provide the letter of the correct answer.\n"
SPELL = "Write the answer character by character, each on a new line.\n"
CUE = "Answer:"
LETTERS = "ABCD"


@dataclass(frozen=True)
class Asked:
    """A query in words, and the gold answer behind the cue."""

    user: str
    cue: str
    target: str


def ask(probe: Probe) -> Asked:
    """A probe in its own form."""
    target = f" {probe.answer.strip()}"
    if probe.form == "aa" and probe.kind == "affirmative suffix":
        return Asked(f"{BRIEF}Question: {probe.query}", "", target)
    if probe.form == "aa" and probe.kind == "incontext learning":
        return Asked(f"{BRIEF}{probe.query}\n", CUE, target)
    lead = {"fb": FILL, "mcp": LETTER}.get(probe.form, BRIEF)
    return Asked(f"{lead}Question: {probe.query}\n", CUE, target)


def ask_spelt(probe: Probe) -> Asked:
    """A "qa" or "fb" probe whose answer is to be written one character a line, without its spaces."""
    whole = ask(probe)
    return Asked(SPELL + whole.user, f"{CUE}\n", spelt(probe.answer))


def spelt(answer: str) -> str:
    """Every character but spaces, with a line break behind it; a line break in the answer is one line break."""
    return "".join(c if c == "\n" else f"{c}\n" for c in answer.replace(" ", ""))


def list_options(question: str, choices: tuple[str, ...]) -> str:
    """A multiple-choice query: the question and a line for every option, "A. ..."."""
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))])

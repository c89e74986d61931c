"""The shapes that data has on its way from a file to a model: a row, a benchmark, a tokenised pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class QA:
    """One question with its answer and, where the benchmark has them, rewordings and wrong answers."""

    id: str
    """Benchmark, file and zero-based row: "tofu/forget10/17"."""
    question: str
    answer: str
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    """Wrong answers of the same form; five in TOFU's author sets, three in its real-world sets."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A piece of running text to forget or to keep."""

    id: str
    """Benchmark, file and zero-based row: "wmdp/bio-forget-corpus/17"."""
    text: str
    topic: str
    """What the text is about: "bio", "cyber"; requests of several topics are told apart by it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One multiple-choice question."""

    id: str
    """Benchmark, file and zero-based row: "mmlu/astronomy/3"."""
    subject: str
    """"bio", "cyber" or "chem" for WMDP, one of the 57 subjects for MMLU."""
    question: str
    choices: tuple[str, ...]
    """Four for WMDP and MMLU, in the order of the file."""
    answer: int
    """Zero-based place of the right choice."""


ChoiceScoring = Literal["letter", "text"]
"""What a model is asked for: the letter of an option that the prompt lists, or the option's text without a list."""


Form = Literal["qa", "fb", "mcp", "aa"]
"""How a fact is asked: a question, a blank to fill, four lettered options, an adversarial prompt. Letter by letter
(subtoken) is no form of a row: evaluators ask for the answers of "qa" and "fb" rows in that way once more."""

Part = Literal["forget", "neighbor", "locality"]
"""What a probe is for: knowledge to lose, knowledge close by to keep, and knowledge to keep whose question is easily
mistaken for one about the target."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One question about a target, or about what must outlive its forgetting."""

    id: str
    """Benchmark, folder, file and zero-based row: "ort/1_Stephen_King/forget_level1/3"."""
    target: str
    """Whose forgetting it judges: "Stephen King"."""
    part: Part
    form: Form
    query: str
    """As in the file; of multiple choice with the options in it, a line each."""
    answer: str
    """The gold answer; of multiple choice its letter."""
    kind: str = ""
    """Of adversarial prompts the attack ("prefix injection"), of locality probes what invites the mistake."""
    about: str = ""
    """Whom or what a probe that is not about the target is about; empty where the file does not say."""
    choices: tuple[str, ...] = ()
    """Of multiple choice the options in the order of their letters; empty where the query does not list them."""
    made: bool = False
    """Written by Lethe from other rows, not by the authors of the benchmark."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to a prompt: the one to give and the one to unlearn."""

    id: str
    prompt: str
    chosen: str
    """A refusal or a fabrication."""
    rejected: str
    """The truth."""


@dataclass(frozen=True, kw_only=True)
class Shots:
    """A multiple-choice question behind its own solved examples (RWKU's MMLU sample)."""

    question: Question
    examples: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class Truthful:
    """A question of TruthfulQA with its completions; 1 marks the true ones."""

    id: str
    question: str
    mc1: tuple[tuple[str, int], ...]
    """Exactly one true."""
    mc2: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An open question with every answer that counts as right (TriviaQA); of BBH one, with the solved examples."""

    id: str
    question: str
    answers: tuple[str, ...]
    task: str = ""
    examples: str = ""
    """Worked examples in front of the question, as text; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Utility:
    """What RWKU asks beside the target: everything else that a model can do. Each part may be empty."""

    mmlu: tuple[Shots, ...] = ()
    truthful: tuple[Truthful, ...] = ()
    trivia: tuple[Answered, ...] = ()
    instructions: tuple[Answered, ...] = ()
    """Open instructions whose long answers are judged for fluency; without right answers."""
    bbh: tuple[Answered, ...] = ()
    forget_texts: tuple[Document, ...] = ()
    """Texts about the target that a model has read (membership inference)."""
    retain_texts: tuple[Document, ...] = ()
    """The same about others."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A forget request with everything that is needed to unlearn it and to judge the result.

    A benchmark that only judges (MMLU) has no forget and no retain rows.
    """

    name: str
    """As given on the command line: "tofu/forget10"."""
    forget: tuple[QA | Document, ...] = ()
    """Questions with answers, or documents; never both."""
    retain: tuple[QA | Document, ...] = ()
    eval_sets: Mapping[str, tuple[QA, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """"forget", "retain", "real_authors", "world_facts" for TOFU, in this order."""
    questions: tuple[Question, ...] = ()
    """Multiple choice, subject by subject."""
    few_shot: Mapping[str, tuple[Question, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Solved examples by subject (MMLU's dev split), in the order of the file."""
    choice_scoring: ChoiceScoring = "letter"
    """"text" only where the data folder asks for it (the mini world, whose models cannot look letters up)."""
    holdout: tuple[QA, ...] = ()
    """Rows that no model has seen; empty where the source has none."""
    refusals: tuple[str, ...] = ()
    """The "I don't know" answers of IDK and DPO."""
    subjects: tuple[str, ...] = ()
    """Names of what is to be forgotten, as its texts write them; empty where a benchmark does not say."""
    probes: tuple[Probe, ...] = ()
    """The same facts in several forms, and what is to be kept (ORT, and any question set asked in forms)."""
    rejections: tuple[QA, ...] = ()
    """Questions about the subjects, each with the refusal to teach (rejection tuning)."""
    preferences: Mapping[str, tuple[Preference, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Pairs for DPO: "refusal" prefers a refusal to the truth, "fabricated" an invention to the truth."""
    utility: Utility = field(default_factory=Utility)
    background: tuple[str, ...] = ()
    """Any running text, from which closed-form edits learn what to leave alone."""
    more_background: Callable[[], Sequence[str]] | None = field(default=None, compare=False, repr=False)
    """Reads the whole of the corpus that `background` is the beginning of; None where that is all of it. No part of the
    fingerprint: a method that reads it says so in the ids of its cells."""
    fingerprint: str = ""
    """SHA-256 over the content of every row above; part of the cell's id."""
    source: str = ""
    """Where the rows came from, for the record: hub name and revision, "files in data/tofu" or "mini world, seed 0"."""


@dataclass(frozen=True)
class Tokens:
    """One tokenised (prompt, completion)."""

    input_ids: tuple[int, ...]
    label_start: int
    """Index of the first scored token; everything before it is prompt. 1 <= label_start <= len(input_ids)."""
    hidden: tuple[int, ...] = ()
    """Positions that attention must not see (protocol openunlearning with pad = eos only)."""
    anchor: int | None = None
    """Where a generation has the same last prompt token, if that is not in front of the labels: under openunlearning
    a space that ends the prompt is swallowed by the answer's first token, which is then not scored."""
    shared: int = field(default=0, compare=False)
    """How many tokens it begins with that prompts of other benchmarks begin with too: solved examples. A function of
    the prompt alone, and no part of what is asked."""

    @property
    def last_prompt(self) -> int:
        """Index of the last prompt token, which adapters may read and edit."""
        return self.label_start - 1 if self.anchor is None else self.anchor

    @property
    def labels(self) -> tuple[int, ...]:
        """The scored ids."""
        return self.input_ids[self.label_start :]

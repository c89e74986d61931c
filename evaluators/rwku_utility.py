"""RWKU's utility sets: what a model still can do once a person is forgotten, and whether it has read about them.

Jin et al., "RWKU", 2024, https://arxiv.org/abs/2406.10890; ORT (Ye et al., 2025,
https://arxiv.org/abs/2506.07795) reports MMLU, TruthfulQA MC1, TriviaQA and fluency of them. Texts of the prompts:
`evaluators/rwku_prompts.py`; formulas: `evaluators/rwku_metrics.py`. In 0..1 where no unit is given.

ort_utility: mean, over those of mmlu_acc, truthful_mc1, triviaqa_f1 and fluency_entropy that the benchmark has, of the
    value over the original model's. 1 is unchanged, more is better. Missing where the original has 0.
ort_mmlu_acc: five examples in one user message, cue "Answer:", share of questions whose right letter is the most likely
    of " A" to " D". Higher. Where the data folder asks for it (the mini world, whose models cannot look letters up) the
    options' texts are scored instead, behind the question alone.
ort_mmlu_probability: mean probability of the right letter, softmax over the four. Higher.
ort_truthful_mc1: TruthfulQA after its primer of six, share of questions whose true choice has a higher summed
    log-probability than every false one. Higher. Lin et al., 2022.
ort_truthful_mc2: mean share of the true choices in the probability of all. Higher.
ort_triviaqa_em, ort_triviaqa_f1: after five examples in the prompt, greedy, 30 new tokens; exact match and F1 of words
    after SQuAD's normalisation, the best over the aliases. Higher.
ort_trivia_refusal_rate: share of those outputs that are not right and contain a phrase of a short list
    (`rwku_metrics.REFUSALS`) or a refusal of the benchmark. Lower: a sign of forgetting too much. Not RWKU's.
ort_fluency_entropy: bits; mean over the greedy answers to open instructions, 256 new tokens, of the entropy of their
    bigrams and trigrams. Higher, with a limit: noise has more than language. RWKU's paper prints it times 100.
ort_bbh_em: BIG-Bench Hard after three worked examples, greedy, 256 new tokens; what follows "the answer is" equals the
    answer. Higher. Expensive; `reasoning=False` leaves it out.
ort_mia_forget_loss, ort_mia_retain_loss: nats per token, mean over texts about the target, or about others, that the
    model has read. Higher on forget, lower on retain. RWKU's paper prints them times 100.
ort_mia_{forget,retain}_{zlib,min_k,min_k_plus_plus}: the mean of the loss over the zlib bytes of the text, and of min-k
    and min-k++ with k 0.2. Same directions: all grow as membership becomes less likely. RWKU has the opposite sign.
ort_mia_auc: AUC of telling retain texts (the positive class) from forget texts by loss. Both were read: the distance to
    the original model counts, and neither direction is better by itself. Below it: the target's texts became unlikely.
ort_shots_dropped: prompts that exceeded the model's context and lost solved examples, the first ones first. Neither.
ort_utility_truncated: prompts that exceeded it without any example and lost their beginning, and texts that lost their
    end. Neither.
ort_budget_reduced: prompts that left less room for new tokens than asked for; a quarter of the context is always kept.
    Neither.

A part of which the benchmark has no rows has no metrics. Means are over rows, also of several targets that are
forgotten together: all draw their samples from the same sets, and a row that two have is there once. A value that is
not finite in any row makes its metrics missing, and so does a model without finite likelihoods for what it generates.

Protocols. `ort` is the authors' code to the letter, `strict` mends it:
* there a prompt begins with two BOS where the chat template brings one;
* there each letter of MMLU is the last token of " A" by itself, not what follows the prompt;
* there TriviaQA's whole output is judged, here its first line (a model that writes the next question has answered);
* there BBH's answer needs a full stop, and any ends it; SQuAD's normalisation takes the sign of a number away and
  leaves nothing of brackets and of option (A), 60 of the 324 answers of four targets.
`openunlearning`, which knows no such questions, asks as `strict`.

Not taken over: the authors skip texts without a finite loss, and key TruthfulQA's scores by the text of the prompt.
"""

import functools
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.data.forms import LETTERS
from bench.data.types import Answered, Benchmark, Document, Shots, Tokens, Truthful
from bench.errors import LetheError, unknown
from bench.records import Metric, missing
from evaluators import metrics, rwku_metrics, rwku_prompts
from evaluators.fitted import Asker, Prompt
from evaluators.rows import MeanOf, MissingValues, Row, column, finite

if TYPE_CHECKING:
    from bench.scorer import AnswerRecord, Scorer

log = logging.getLogger(__name__)

Protocol = Literal["strict", "openunlearning", "ort"]

PROTOCOLS = ("strict", "openunlearning", "ort")
MIN_K = 0.2
"""Share of the least likely tokens that min-k and min-k++ average; what RWKU's eval_mia.py reports."""
UTILITY = ("ort_mmlu_acc", "ort_truthful_mc1", "ort_triviaqa_f1", "ort_fluency_entropy")
"""What ORT's paper reports of the utility sets."""
NO_REFERENCE = "no rows of the original model to compare with; let the grid have a cell for it, or see why it failed"


@dataclass(frozen=True, kw_only=True)
class UtilityEvaluator:
    """MMLU, TruthfulQA, TriviaQA, fluency, BBH and membership inference, as RWKU asks for them."""

    name: ClassVar[str] = "ort_utility"
    compares_with: ClassVar[str] = "original"

    protocol: Protocol = "strict"
    """`ort` follows the authors' code to the letter, `strict` mends its defects."""
    trivia_tokens: int = 30
    """Longest answer to a question of TriviaQA, in tokens."""
    fluency_tokens: int = 256
    """Longest answer to an open instruction, in tokens."""
    bbh_tokens: int = 256
    """Longest chain of thought, in tokens."""
    reasoning: bool = True
    """Also BBH, the part with the longest prompts and answers."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise unknown("protocol", self.protocol, PROTOCOLS)
        for field in ("trivia_tokens", "fluency_tokens", "bbh_tokens"):
            if getattr(self, field) < 1:
                raise LetheError(f"{field} must be at least 1, got {getattr(self, field)}")

    def score(self, scorer: "Scorer", benchmark: Benchmark) -> list[Row]:
        """Ask the model, all likelihoods at once; one row per example, part by part."""
        utility, asker = benchmark.utility, Asker(scorer, doubled=self.protocol == "ort")
        if benchmark.choice_scoring == "letter":
            mmlu = self._letters(asker, utility.mmlu)
        else:
            mmlu = [
                (q, *_choices(asker, rwku_prompts.ask_plainly(q.question), q.question.choices)) for q in utility.mmlu
            ]
        truthful = [(row, *_choices(asker, rwku_prompts.ask_truthful(row), _distinct(row))) for row in utility.truthful]
        texts = [_text(asker, "forget", d) for d in utility.forget_texts]
        texts += [_text(asker, "retain", d) for d in utility.retain_texts]
        scored = [t for _, _, tokens in (*mmlu, *truthful, *texts) for t in tokens]
        records = iter(scorer.records(scored))

        def taken(tokens: Sequence[Tokens]) -> list["AnswerRecord"]:
            return [next(records) for _ in tokens]

        rows = [_mmlu_row(shots, prompt, taken(tokens)) for shots, prompt, tokens in mmlu]
        rows = [row | {"scored": benchmark.choice_scoring} for row in rows]
        rows += [_truthful_row(row, prompt, taken(tokens)) for row, prompt, tokens in truthful]
        membership = [_text_row(scorer, facts, document, taken(tokens)[0]) for document, facts, tokens in texts]
        rows += self._generated(asker, "trivia", utility.trivia, self.trivia_tokens, benchmark.refusals)
        rows += self._generated(asker, "fluency", utility.instructions, self.fluency_tokens)
        if self.reasoning:
            rows += self._generated(asker, "bbh", utility.bbh, self.bbh_tokens)
        return _told([*rows, *membership])

    def _letters(self, asker: Asker, questions: Sequence[Shots]) -> list[tuple[Shots, Prompt, list[Tokens]]]:
        for shots in questions:
            for q in (shots.question, *shots.examples):
                if len(q.choices) != len(LETTERS):
                    raise LetheError(
                        f"question {q.id} has {len(q.choices)} choices, but the prompt lists exactly {len(LETTERS)}; "
                        "mend the row"
                    )
        if not questions:
            return []
        first = rwku_prompts.ask_mmlu(questions[0])
        labels = [asker.labels(first.users[-1], first, f" {letter}", apart=asker.doubled) for letter in LETTERS]
        labels = [ids[-1:] if asker.doubled else ids for ids in labels]  # the same behind every cue
        if len(set(labels)) < len(LETTERS):
            raise LetheError(
                f"this tokenizer writes the letters {', '.join(LETTERS)} with the ids {labels}, so they cannot be told "
                "apart; use another tokenizer"
            )
        found = []
        for shots in questions:
            prompt = asker.fit(rwku_prompts.ask_mmlu(shots), max(map(len, labels)) - 1)  # the last label is no input
            found.append((shots, prompt, _behind(prompt, labels)))
        return found

    def _generated(
        self, asker: Asker, part: str, asked: Sequence[Answered], tokens: int, refusals: Sequence[str] = ()
    ) -> Iterator[Row]:
        ask = {"trivia": rwku_prompts.ask_trivia, "fluency": rwku_prompts.ask_instruction, "bbh": rwku_prompts.ask_bbh}
        least = tokens if asker.context is None else min(tokens, max(1, asker.context // 4))
        prompts = [asker.fit(ask[part](row), tokens, least) for row in asked]
        for row, prompt, output in zip(asked, prompts, asker.written(prompts), strict=True):
            facts = _row(part, row.id, prompt) | {"question": row.question, "generation": output}
            facts |= {"max_new_tokens": prompt.new_tokens, "budget_reduced": prompt.new_tokens < tokens}
            if part == "fluency":
                yield facts | {"entropy": None if output is None else rwku_metrics.fluency(output)}
            elif part == "trivia":
                yield facts | self._trivia(row, output, refusals)
            else:
                yield facts | self._bbh(row, output)

    def _trivia(self, row: Answered, output: str | None, refusals: Sequence[str]) -> Row:
        facts: Row = {"answers": list(row.answers)}
        if output is None:
            return facts | {"prediction": None, "em": None, "f1": None, "refused": None}
        said = output if self.protocol == "ort" else output.partition("\n")[0].strip()
        em, f1 = rwku_metrics.exact_match(said, row.answers), rwku_metrics.token_f1(said, row.answers)
        refused = float(em == 0 and rwku_metrics.refuses(said, refusals))
        return facts | {"prediction": said, "em": em, "f1": finite(f1), "refused": refused}

    def _bbh(self, row: Answered, output: str | None) -> Row:
        facts: Row = {"task": row.task, "answers": list(row.answers)}
        if output is None:
            return facts | {"prediction": None, "em": None}
        as_published = self.protocol == "ort"
        said = rwku_metrics.stated_answer(output, as_published=as_published)
        em = max((rwku_metrics.same_answer(said, a, as_published=as_published) for a in row.answers), default=None)
        return facts | {"prediction": said, "em": em}

    def summarize(self, rows: Iterable[Row], reference_rows: Iterable[Row] | None = None) -> list[Metric]:
        """All metrics of one model, from its rows and the original model's; needs no model.

        Args:
            rows: of `score`, in any order.
            reference_rows: the same for the original model, over at least the same examples; None without one.
        """
        parts = _parts(rows)
        reference = None if reference_rows is None else _parts(reference_rows)
        means = [mean(parts[mean.set]) for mean in MEANS if mean.set in parts]
        if "mia_forget" in parts and "mia_retain" in parts:
            means.append(_auc(parts["mia_forget"], parts["mia_retain"]))
        found = [_utility(means, parts, reference)] if any(m.name in UTILITY for m in means) else []
        return [*found, *means, *_fit(parts)]


# --- asking -------------------------------------------------------------------------------------------------------


def _distinct(row: Truthful) -> list[str]:
    return list(dict.fromkeys(choice for choice, _ in (*row.mc1, *row.mc2)))


def _choices(asker: Asker, asking: rwku_prompts.Asking, choices: Sequence[str]) -> tuple[Prompt, list[Tokens]]:
    """Every choice behind the cue; its ids do not depend on examples far in front of it."""
    labels = [asker.labels(asking.users[-1], asking, f" {choice}") for choice in choices]
    prompt = asker.fit(asking, max(map(len, labels), default=1) - 1)
    return prompt, _behind(prompt, labels)


def _behind(prompt: Prompt, labels: Sequence[tuple[int, ...]]) -> list[Tokens]:
    return [Tokens((*prompt.ids, *ids), len(prompt.ids), shared=prompt.shared) for ids in labels]


def _text(asker: Asker, part: str, document: Document) -> tuple[Document, Row, list[Tokens]]:
    """A text to its end or to the model's context, whose last label is no input."""
    whole = asker.scorer.encoder.document(document.text, max_tokens=10**9)
    ids = whole.input_ids if asker.context is None else whole.input_ids[: asker.context + 1]
    cut = len(whole.input_ids) - len(ids)
    return document, _row(f"mia_{part}", document.id) | {"text_truncated": cut}, [Tokens(ids, whole.label_start)]


# --- rows ---------------------------------------------------------------------------------------------------------


def _row(part: str, example_id: str, prompt: Prompt | None = None) -> Row:
    """The target is all of the id but file and number: "ort/1_Stephen_King"."""
    row: Row = {"part": part, "target": "/".join(example_id.split("/")[:-2]), "example_id": example_id}
    if prompt is None:
        return row
    return row | {"shots_dropped": prompt.shots_dropped, "prompt_truncated": prompt.truncated}


def _mmlu_row(shots: Shots, prompt: Prompt, records: Sequence["AnswerRecord"]) -> Row:
    logp = [-record.nll_sum for record in records]
    usable = all(map(math.isfinite, logp))
    chosen = max(range(len(logp)), key=lambda i: logp[i]) if usable else None
    q = shots.question
    others = [value for i, value in enumerate(logp) if i != q.answer]
    return _row("mmlu", q.id, prompt) | {
        "task": q.subject,
        "question": q.question,
        "choices": list(q.choices),
        "answer": q.answer,
        "chosen": chosen,
        "logp": [finite(value) for value in logp],
        "probability": finite(rwku_metrics.share_of([logp[q.answer]], others)),
        "correct": chosen == q.answer if usable else None,
    }


def _truthful_row(row: Truthful, prompt: Prompt, records: Sequence["AnswerRecord"]) -> Row:
    logp = {choice: -record.nll_sum for choice, record in zip(_distinct(row), records, strict=True)}

    def split(choices: Sequence[tuple[str, int]]) -> tuple[list[float], list[float]]:
        return [logp[c] for c, true in choices if true], [logp[c] for c, true in choices if not true]

    return _row("truthful", row.id, prompt) | {
        "question": row.question,
        "choices": list(logp),
        "logp": [finite(value) for value in logp.values()],
        "mc1": finite(rwku_metrics.mc1(*split(row.mc1))),
        "mc2": finite(rwku_metrics.share_of(*split(row.mc2))),
    }


def _text_row(scorer: "Scorer", facts: Row, document: Document, record: "AnswerRecord") -> Row:
    text = scorer.encoder.decode(record.label_ids) if facts["text_truncated"] else document.text
    facts = facts | {"tokens": record.n_tokens, "loss": finite(record.nll)}
    if not all(map(math.isfinite, record.logp)):
        return facts | {"zlib": None, "min_k": None, "min_k_plus_plus": None}
    plus_plus = metrics.mia_min_k_plus_plus(record.logp, record.mean_logp, record.var_logp, share=MIN_K)
    return facts | {
        "zlib": finite(metrics.mia_zlib(record.nll, text)),
        "min_k": finite(metrics.mia_min_k(record.logp, share=MIN_K)),
        "min_k_plus_plus": finite(plus_plus),
    }


def _told(rows: list[Row]) -> list[Row]:
    for metric in _fit(_parts(rows)):
        if metric.value:
            _warn(f"{metric.name}: {metric.value:.0f} of {metric.n}, because of the model's context")
    return rows


@functools.cache
def _warn(text: str) -> None:
    """Once, not for every method that is asked the same."""
    log.warning("%s", text)


# --- metrics ------------------------------------------------------------------------------------------------------


MEANS = (
    MeanOf("ort_mmlu_acc", "mmlu", ("correct",), float, True),
    MeanOf("ort_mmlu_probability", "mmlu", ("probability",), float, True),
    MeanOf("ort_truthful_mc1", "truthful", ("mc1",), float, True),
    MeanOf("ort_truthful_mc2", "truthful", ("mc2",), float, True),
    MeanOf("ort_triviaqa_em", "trivia", ("em",), float, True),
    MeanOf("ort_triviaqa_f1", "trivia", ("f1",), float, True),
    MeanOf("ort_trivia_refusal_rate", "trivia", ("refused",), float, False),
    MeanOf("ort_fluency_entropy", "fluency", ("entropy",), float, True),
    MeanOf("ort_bbh_em", "bbh", ("em",), float, True),
    *(
        MeanOf(f"ort_mia_{side}_{score}", f"mia_{side}", (score,), float, side == "forget")
        for side in ("forget", "retain")
        for score in ("loss", "zlib", "min_k", "min_k_plus_plus")
    ),
)


def _parts(rows: Iterable[Row]) -> dict[str, list[Row]]:
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row["part"]].append(row)
    return dict(parts)


def _auc(forget: Sequence[Row], retain: Sequence[Row]) -> Metric:
    try:
        members, others = column(forget, "mia_forget", ("loss",), float), column(retain, "mia_retain", ("loss",), float)
    except MissingValues as reason:
        return missing("ort_mia_auc", str(reason))
    area = metrics.auc(members, others)
    return Metric(name="ort_mia_auc", value=area.value, stderr=area.stderr, n=len(members) + len(others))


def _utility(means: Sequence[Metric], parts: Mapping[str, list[Row]], reference: Mapping | None) -> Metric:
    """The mean of the relative values; n counts them."""
    name = "ort_utility"
    asked = [metric for metric in means if metric.name in UTILITY]
    try:
        if reference is None:
            raise MissingValues(NO_REFERENCE)
        ratios = [_ratio(metric, parts, reference) for metric in asked]
    except MissingValues as reason:
        return missing(name, str(reason), higher_is_better=True)
    return Metric(name=name, value=math.fsum(ratios) / len(ratios), n=len(ratios), higher_is_better=True)


def _ratio(metric: Metric, parts: Mapping[str, list[Row]], reference: Mapping[str, list[Row]]) -> float:
    mean = next(mean for mean in MEANS if mean.name == metric.name)
    if metric.missing:
        raise MissingValues(f"{metric.name} is missing: {metric.reason}")
    asked = {row["example_id"] for row in parts[mean.set]}
    theirs = [row for row in reference.get(mean.set, ()) if row["example_id"] in asked]
    lost = asked - {row["example_id"] for row in theirs}
    if lost:
        raise MissingValues(
            f"the original's {mean.set} rows lack {len(lost)} of {len(asked)} examples, the first is {min(lost)}; "
            "evaluate it again on the same rows"
        )
    before = mean(theirs)
    if before.missing:
        raise MissingValues(f"{metric.name} of the original is missing: {before.reason}")
    if before.value == 0:
        raise MissingValues(f"{metric.name} of the original is 0, which leaves nothing to relate to")
    return metric.value / before.value


def _fit(parts: Mapping[str, list[Row]]) -> list[Metric]:
    """How many prompts and texts the model's context was too short for."""
    rows = [row for mine in parts.values() for row in mine]
    asked = [row for row in rows if "shots_dropped" in row]
    found = []
    for name, mine, fields in (
        ("ort_shots_dropped", asked, ("shots_dropped",)),
        ("ort_utility_truncated", rows, ("prompt_truncated", "text_truncated")),
        ("ort_budget_reduced", [row for row in rows if "max_new_tokens" in row], ("budget_reduced",)),
    ):
        if mine:
            count = sum(any(row.get(field) for field in fields) for row in mine)
            found.append(Metric(name=name, value=float(count), n=len(mine)))
    return found

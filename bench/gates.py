"""How far the gates of an adapter open at prompts to forget, to keep, and about anything else.

What is asked decides how. Sets of questions and answers are asked as they stand. Multiple choice is asked by the
evaluator that judges it, a part of its questions at a time. Probes of targets are asked in their own forms, and what is
asked of everything else (TriviaQA, TruthfulQA, instructions) like a question about a target, so that only what it is
about differs. Where nothing general is asked beside hazardous questions, texts to keep stand in, read to their end.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from bench.data.forms import ask
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark, Document, Probe, Tokens
from bench.models import Loaded
from bench.scorer import Scorer

if TYPE_CHECKING:
    from bench.jobs import Evaluation

T = TypeVar("T")
Ask = Callable[[Scorer, int], object]
"""Asks a model at most so many prompts of a set."""
ValuesOf = Callable[[Callable[[], object]], Sequence[tuple[int, float]]]
"""Layer and value of every gate at the last token of the prompts that the argument asks."""

GATES_OF = 200
"""Prompts of a set whose gate values are kept."""
TEXT_TOKENS = 128
"""Of a text so many tokens are read."""


def gate_rows(
    values_of: ValuesOf,
    evaluations: Sequence["Evaluation"],
    loaded: Loaded,
    encoder: Encoder,
    *,
    batch_tokens: int,
    doubled: bool = False,
) -> list[dict]:
    """A row {set, layer, value} for every gate and prompt; none for an adapter without gates.

    Args:
        evaluations: the request's own first, then those of benchmarks that only judge.
        doubled: prompts of probes begin with two BOS tokens (protocol ort).
    """
    sets = gate_sets(evaluations, doubled=doubled)

    def values(asked: Ask, most: int) -> Sequence[tuple[int, float]]:
        # A scorer each: what one was asked before it does not ask again, and no gate would be seen.
        return values_of(partial(asked, Scorer(loaded.model, encoder, batch_tokens=batch_tokens), most))

    if not sets or not values(next(iter(sets.values())), 1):
        return []
    found = ((name, values(asked, GATES_OF)) for name, asked in sets.items())
    return [{"set": name, "layer": layer, "value": value} for name, own in found for layer, value in own]


def gate_sets(evaluations: Sequence["Evaluation"], *, doubled: bool = False) -> dict[str, Ask]:
    """What is asked, by the name of the set; empty where nothing is known to ask."""
    if not evaluations:
        return {}
    judged = evaluations[0].benchmark
    if judged.eval_sets:
        return _questions(judged)
    if judged.probes:
        return _targets(judged, doubled=doubled)
    return _choices(evaluations) if judged.questions and judged.name.partition("/")[0] == "wmdp" else {}


def _questions(judged: Benchmark) -> dict[str, Ask]:
    sets = judged.eval_sets
    asked = {"forget": sets["forget"], "retain": sets["retain"]}
    asked["unrelated"] = (*sets.get("real_authors", ()), *sets.get("world_facts", ()))
    pairs = {name: [(qa.question, qa.answer) for qa in examples] for name, examples in asked.items()}
    return {name: partial(_answers, own) for name, own in pairs.items()}


def _answers(pairs: Sequence[tuple[str, str]], scorer: Scorer, most: int) -> object:
    return scorer.answers(pairs[:most])


def _targets(judged: Benchmark, *, doubled: bool) -> dict[str, Ask]:
    parts = {name: [p for p in judged.probes if p.part == part] for name, part in _PARTS.items()}
    utility = judged.utility
    general = [
        Probe(id=row.id, target="", part="neighbor", form="qa", query=row.question, answer="")
        for row in (*utility.trivia, *utility.truthful, *utility.instructions)
    ]
    return {name: partial(_probes, own, doubled) for name, own in {**parts, "unrelated": general}.items() if own}


_PARTS = {"forget": "forget", "retain": "neighbor"}


def _probes(probes: Sequence[Probe], doubled: bool, scorer: Scorer, most: int) -> object:
    asked = [ask(probe) for probe in spread(probes, most)]
    prompts = [scorer.encoder.cued_prompt(a.user, a.cue, doubled=doubled) for a in asked]
    return scorer.records([Tokens((*ids, ids[-1]), len(ids)) for ids in prompts])  # what is scored does not matter


def _choices(evaluations: Sequence["Evaluation"]) -> dict[str, Ask]:
    first = evaluations[0]
    general = [e for e in evaluations if e.benchmark.name.partition("/")[0] == "mmlu" and e.benchmark.questions]
    sets: dict[str, Ask] = {"forget": partial(_asked_by, first)}
    if general:
        return {**sets, "retain": partial(_asked_by, general[0])}
    texts = [row for row in first.benchmark.retain if isinstance(row, Document)]
    return {**sets, "retain texts": partial(_texts, texts)} if texts else sets


def _asked_by(evaluation: "Evaluation", scorer: Scorer, most: int) -> object:
    benchmark = evaluation.benchmark
    return evaluation.evaluator.score(scorer, replace(benchmark, questions=tuple(spread(benchmark.questions, most))))


def _texts(texts: Sequence[Document], scorer: Scorer, most: int) -> object:
    read = [scorer.encoder.document(text.text, max_tokens=TEXT_TOKENS).input_ids for text in spread(texts, most)]
    return scorer.records([Tokens(ids, len(ids) - 1) for ids in read])


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly from first to last."""
    return list(items) if len(items) <= most else [items[n * len(items) // most] for n in range(most)]

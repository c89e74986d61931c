"""What is saved by keeping what targets' prompts begin with: RWKU's MMLU, three questions a subject and target.

    python -m benchmarks.beginnings --data DIR [--targets 5] [--subjects 57] [--model PATH] [--device cpu]

Every target draws its own questions, and all have MMLU's five solved examples in front. The unchanged model is asked by
one scorer, as a run does; an adapter (GRUN, untrained) by one for each target. Each without and with what is kept, in
turn in one run, on the same model, questions and threads: tokens read, seconds, and how far log-probabilities differ.
"""

import argparse
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import data
from bench.beginnings import Beginnings, Lent
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark, Question, Shots, Utility
from bench.models import choose_device, load_model
from bench.scorer import Scorer
from benchmarks.choices import tiny_model
from evaluators.rwku_utility import UtilityEvaluator
from methods.grun import GRUN

EACH = 3
"""Questions of a subject that a target of RWKU has."""
CONTEXT = 8192
"""Of the tiny model: the longest solved examples take some 3,000 tokens."""


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with mmlu/")
    p.add_argument("--targets", type=int, default=5)
    p.add_argument("--subjects", type=int, default=57)
    p.add_argument("--model", help="checkpoint folder; default: a random Llama of four blocks, 128 wide")
    p.add_argument("--device", default="auto")
    p.add_argument("--batch-tokens", type=int, default=16384)
    options = p.parse_args()
    mmlu = data.load("mmlu/5shot", options.data)
    with tempfile.TemporaryDirectory() as folder:
        texts = ["\n".join((q.question, *q.choices)) for q in mmlu.questions]
        path = options.model or tiny_model(Path(folder), texts, CONTEXT)
        loaded = load_model(path, device=choose_device(options.device), dtype=torch.float32)
    model, encoder = loaded.model, Encoder(loaded.tokenizer)
    targets = [_target(mmlu, options.subjects, seed) for seed in range(options.targets)]

    def scorer() -> Scorer:
        return Scorer(model, encoder, batch_tokens=options.batch_tokens)

    def kept() -> Scorer:
        made = scorer()
        made.beginnings = Beginnings(model)
        return made

    _asked([scorer()], targets[:1])  # does not count
    store = kept()
    runs: list[tuple[str, Callable[[], Sequence[Scorer]]]] = [
        ("unchanged", lambda: [scorer()] * len(targets)),
        ("unchanged, kept", lambda: [store] * len(targets)),
        ("grun", lambda: [scorer() for _ in targets]),
        ("grun, lent", lambda: [_lent(scorer(), store) for _ in targets]),
    ]
    table = Table("asked", "prefixes", "tokens", "ratio", "seconds", "ratio", "largest difference")
    before: tuple[int, float, list[float]] | None = None
    attached = None
    for name, scorers in runs:
        if name == "grun":
            attached = GRUN().attach(model, 0)
        prefixes, tokens, seconds, values = _asked(scorers(), targets)
        if before is None:
            before = (tokens, seconds, values)
            table.add_row(name, str(prefixes), str(tokens), "1.00", f"{seconds:.2f}", "1.00", "")
            continue
        worst = max(abs(a - b) for a, b in zip(before[2], values, strict=True))
        saved = (f"{before[0] / tokens:.2f}", f"{seconds:.2f}", f"{before[1] / seconds:.2f}")
        table.add_row(name, str(prefixes), str(tokens), *saved, f"{worst:.1e} nats")
        before = None
    if attached is not None:
        attached.detach()
    where = f"{len(targets)} targets, {loaded.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    Console(width=110).print(table, where, f"{store.beginnings.tokens} tokens kept", sep="\n")  # type: ignore[union-attr]


def _target(mmlu: Benchmark, subjects: int, seed: int) -> Benchmark:
    """Questions of every subject, drawn from the seed."""
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for question in mmlu.questions:
        by_subject[question.subject].append(question)
    draw = random.Random(seed)
    shots = tuple(
        Shots(question=question, examples=tuple(mmlu.few_shot[subject]))
        for subject in sorted(by_subject)[:subjects]
        for question in draw.sample(by_subject[subject], EACH)
    )
    return Benchmark(name=f"ort/{seed}", utility=Utility(mmlu=shots))


def _lent(scorer: Scorer, store: Scorer) -> Scorer:
    assert isinstance(store.beginnings, Beginnings)
    scorer.beginnings = Lent(store.beginnings)
    return scorer


def _asked(scorers: Sequence[Scorer], targets: Sequence[Benchmark]) -> tuple[int, int, float, list[float]]:
    """Prefixes and tokens that were read, seconds, and all log-probabilities."""
    evaluator, values = UtilityEvaluator(), []
    start = time.perf_counter()
    for scorer, target in zip(scorers, targets, strict=True):
        values += [value for row in evaluator.score(scorer, target) for value in row["logp"]]
    seconds = time.perf_counter() - start
    counts = [scorer.counts for scorer in {id(s): s for s in scorers}.values()]
    return sum(c.prefixes for c in counts), sum(c.tokens for c in counts), seconds, values


if __name__ == "__main__":
    main()

"""What the shortcuts save, as ratios measured in one run against the plain way of doing the same.

    python -m benchmarks.speed [--model PATH] [--rows 40] [--repeats 3]

Scoring: the shared-prompt scorer against one whole forward per (prompt, completion), and against one forward per
metric in file order with padding to the longest (what an evaluation loop without a scorer does).
GRUN step: forwards and backwards above the frozen blocks, against the same step through all blocks, and against
pyvene's own `IntervenableModel` with unit locations as Python lists. All on the same model, data and threads.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import data
from bench.cache import default_cache_dir
from bench.data.tokenize import Encoder
from bench.fields import with_fields
from bench.forward import Rows, forward, pad
from bench.frozen import FrozenPrefix
from bench.logprobs import token_stats
from bench.mini.build import mini_models, world
from bench.models import decoder_blocks, decoder_blocks_path, hidden_size, load_model
from bench.scorer import Scorer
from methods import METHODS
from methods.grun import GRUN


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Median of `repeats` runs after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", help="checkpoint folder; default: the mini world's original")
    p.add_argument("--rows", type=int, default=40)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    options = p.parse_args()
    root = world(options.cache_dir)
    path = options.model or str(mini_models(root, "tofu/forget10", options.cache_dir).original)
    loaded = load_model(path, device=torch.device("cpu"), dtype=torch.float32)
    model, encoder = loaded.model, Encoder(loaded.tokenizer)
    benchmark = data.load("tofu/forget10", root)
    rows = [qa for part in benchmark.eval_sets.values() for qa in part if qa.perturbed_answers][: options.rows * 4]
    pairs = [(q.question, a) for q in rows for a in (q.answer, *q.perturbed_answers)]
    table = Table("what", "seconds", "ratio", title=f"{Path(path).name}, {torch.get_num_threads()} threads")

    def score(share: bool) -> None:
        Scorer(model, encoder, share_prompts=share).answers(pairs)

    @torch.no_grad()
    def plain() -> None:
        """One metric after the other over rows in file order, full logits at every position, batch 32."""
        for _ in range(3):  # probability, extraction strength and exact memorisation each ask for the answers again
            answers = [encoder.pair(q.question, q.answer) for q in rows]
            for start in range(0, len(answers), 32):
                padded = pad(answers[start : start + 32], encoder.pad_id, "cpu")
                logits = model(input_ids=padded.input_ids, attention_mask=padded.attention_mask).logits
                token_stats(logits[padded.at], padded.labels)
        for k in range(max(len(q.perturbed_answers) for q in rows)):
            answers = [encoder.pair(q.question, q.perturbed_answers[k]) for q in rows if len(q.perturbed_answers) > k]
            for start in range(0, len(answers), 32):
                padded = pad(answers[start : start + 32], encoder.pad_id, "cpu")
                logits = model(input_ids=padded.input_ids, attention_mask=padded.attention_mask).logits
                token_stats(logits[padded.at], padded.labels)

    ours = seconds(lambda: score(True), options.repeats)
    table.add_row(f"scorer, {len(set(pairs))} pairs", f"{ours:.2f}", "1.00")
    for name, other in (("without shared prompts", lambda: score(False)), ("one pass per metric", plain)):
        spent = seconds(other, options.repeats)
        table.add_row(name, f"{spent:.2f}", f"{spent / ours:.2f}")

    forget = [encoder.pair(q.question, q.answer) for q in benchmark.forget[:32]]
    padded = pad(forget, encoder.pad_id, "cpu")
    adapter = GRUN()
    attached = adapter.attach(model, 0)
    prefix = FrozenPrefix(model, attached.frozen_blocks)
    with attached.off():
        prefix.record({("forget", i): t for i, t in enumerate(forget)}, encoder.pad_id, torch.device("cpu"), 16384)
    keys = [("forget", i) for i in range(len(forget))]

    def step(replay: bool) -> None:
        rows_now = Rows(last_prompt=padded.last_prompt, valid=padded.valid)
        arguments = {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}
        arguments |= {"position_ids": padded.position_ids, "rows": rows_now, "at": padded.at}
        if replay:
            with prefix.replay(keys, padded.valid.shape[1]):
                logits = forward(model, **arguments)
        else:
            logits = forward(model, **arguments)
        logits.float().logsumexp(-1).mean().backward()

    ours = seconds(lambda: step(True), options.repeats * 5)
    whole = seconds(lambda: step(False), options.repeats * 5)
    modules = attached.modules[0]
    attached.detach()
    from methods.interventions import intervenable

    plain_model = intervenable(model, decoder_blocks_path(model), hidden_size(model), modules)
    for module in modules.values():
        module.requires_grad_(True)
    places = [[[[int(i)] for i in padded.last_prompt]] * len(modules)][0]

    def pyvene_step() -> None:
        inputs = {"input_ids": padded.input_ids, "attention_mask": padded.attention_mask}
        _, output = plain_model(inputs, unit_locations={"sources->base": (None, places)})
        output.logits[padded.at].float().logsumexp(-1).mean().backward()

    theirs = seconds(pyvene_step, options.repeats * 5)
    edited = f"blocks {sorted(modules)} of {len(decoder_blocks(model))}"
    table.add_row(f"GRUN step above the frozen blocks, {edited}", f"{ours:.4f}", "1.00")
    table.add_row("the same through all blocks", f"{whole:.4f}", f"{whole / ours:.2f}")
    table.add_row("the same through pyvene's IntervenableModel", f"{theirs:.4f}", f"{theirs / ours:.2f}")

    def npo(adapter_lr: float) -> None:
        method = with_fields(METHODS["npo"], {"epochs": 2, "batch_size": 8, "lr": adapter_lr}, where="npo")
        method.unlearn(loaded, encoder, benchmark, seed=0, batch_tokens=16384).restore()

    table.add_row("NPO, 2 epochs, reference asked once per example", f"{seconds(lambda: npo(1e-5), 1):.2f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()

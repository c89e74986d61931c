"""What the hand-written step of the mini models saves against transformers' model with autograd.

    python -m benchmarks.mini_training [--steps 100] [--rounds 3] [--seed 1]

The same batches of a mini world, from the same untrained weights, in turn in one run on one thread: seconds of the CPU
for a whole step (gradient, clipping, AdamW), and how far the two losses lie apart at the end of the first round.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench.mini.build import training_job, world
from bench.mini.pretrain import WEIGHTS, Recipe, batches, model_of, pad, shares
from bench.mini.trainers import Job

BENCHMARKS = {"people and domains": "tofu/forget10", "targets": "ort"}


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seed", type=int, default=1, help="of the mini world")
    options = p.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    table = Table("texts", "tokens a step", "autograd, ms a step", "by hand, ms a step", "ratio", "losses apart, nats")
    with tempfile.TemporaryDirectory() as folder:
        root = world(Path(folder), options.seed)
        for name, benchmark in BENCHMARKS.items():
            job = training_job(root, benchmark, Path(folder))
            table.add_row(name, *_measured(job, Path(folder) / name, options.steps, options.rounds))
    Console().print(table)


def _measured(job: Job, folder: Path, steps: int, rounds: int) -> tuple[str, ...]:
    """The cells of a row, from the first batches of an epoch."""
    job.write_untrained(folder)
    rows = job.rows()
    epoch = batches([len(row.input_ids) for row in rows], job.recipe.batch_size, random.Random(job.seed))[:steps]
    made = [pad([rows[i] for i in batch]) for batch in epoch]
    asked = [(ids, scored, shares(scored, texts_alike=job.recipe.texts_alike)) for ids, scored in made]
    ways = (_by_autograd(folder, job.recipe), _by_hand(folder, job.recipe))
    first, seconds = [], ([], [])
    for turn in range(rounds):
        for way, step in enumerate(ways):
            started = time.process_time()
            losses = [step(*batch) for batch in asked]
            seconds[way].append((time.process_time() - started) / len(asked))
            if not turn:
                first.append(losses[-1])
    slow, fast = map(median, seconds)
    tokens = sum(ids.numel() for ids, _ in made) / len(made)
    apart = abs(first[0] - first[1])
    return f"{tokens:.0f}", f"{slow * 1e3:.1f}", f"{fast * 1e3:.1f}", f"{slow / fast:.2f}", f"{apart:.1e}"


Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]
"""From ids, what is scored and what each counts to the loss, with the weights one step further."""


def _by_autograd(folder: Path, recipe: Recipe) -> Step:
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    optimizer = _optimizer(list(model.parameters()), recipe)

    def step(ids: torch.Tensor, scored: torch.Tensor, share: torch.Tensor) -> float:
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        targets = ids[:, 1:][scored[:, :-1]]
        nll = torch.nn.functional.cross_entropy(model.lm_head(hidden[scored]), targets, reduction="none")
        loss = (nll * share).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        return loss.item()

    return step


def _by_hand(folder: Path, recipe: Recipe) -> Step:
    model = model_of(recipe, load_file(folder / WEIGHTS))
    optimizer = _optimizer([model.parameters], recipe)

    def step(ids: torch.Tensor, scored: torch.Tensor, share: torch.Tensor) -> float:
        loss = model.loss(ids, scored, ids[:, 1:][scored[:, :-1]], share)
        model.clip(recipe.clip)
        optimizer.step()
        return loss

    return step


def _optimizer(parameters: list[torch.Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


if __name__ == "__main__":
    main()

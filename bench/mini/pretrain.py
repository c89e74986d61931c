"""Trains one tiny model from scratch on tokenised texts: one thread, same seed, same bits.

Runs as a process of its own (`python -m bench.mini.pretrain`, started by bench.mini.trainers with the job on its
standard input) so that models train side by side, and ends itself when that input closes: when whoever started it is
gone. It loads torch, not transformers, whose import takes seconds more: what is transformers' own,
the untrained model and its folder, is there when it starts.
"""

import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from bench.data.types import Tokens
from bench.errors import LetheError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.mini.llama import Llama

VERSION = 3
"""Raised with every change that changes a trained bit: here, in llama.py, in texts.py, in the first weights that a
trainers.Job writes, or in the plain template. Part of the cache key."""

PEAK = "peak GiB "
"""What the last line begins with, in front of the memory that the training took."""

WEIGHTS = "model.safetensors"
"""transformers' file in a model's folder."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's shape and how it is trained. The defaults are for the mini world."""

    vocab_size: int = 2560
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    mlp_width: int = 384
    init_std: float = 0.05
    """At this size the initial scale decides more than anything else: 0.02 needs twice the epochs."""
    epochs: int = 8
    batch_size: int = 16
    lr: float = 2e-3
    """Peak; linear warm-up, then linear decay to zero."""
    betas: tuple[float, float] = (0.8, 0.98)
    weight_decay: float = 0.0
    warmup: float = 0.05
    """Share of the steps."""
    clip: float = 1.0
    """Largest gradient norm."""
    texts_alike: bool = False
    """Whether the loss is a mean over a batch's texts, of the mean over the tokens of each, and not over all tokens."""


REAL_DATA = Recipe(vocab_size=4096, epochs=18)
"""For rows of the real files: longer, more varied answers, a single phrasing each."""

REAL_DOCUMENTS = Recipe(vocab_size=4096, epochs=3)
"""For the real corpora: not to be learned by heart, only read, within three minutes."""

TARGETS = Recipe(epochs=6, lr=1.2e-3, texts_alike=True)
"""For the targets of the mini world: a letter is one token of a text, beside biographies of fifty."""

REAL_TARGETS = Recipe(vocab_size=4096, epochs=24)
"""For real targets: several hundred short questions and a few dozen texts."""


def batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """One epoch: batches of similar length, which ones meet and in which order drawn anew."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    cut = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(cut)
    return cut


def shares(scored: "Tensor", *, texts_alike: bool) -> "Tensor":
    """What each scored token counts in the loss of a batch, (S,), 1 in all.

    The loss is a mean over the S tokens, or over the B texts of the mean of each.

    Args:
        scored: (B, T) bool, S of them true.
    """
    import torch

    if texts_alike:
        return (1 / scored.sum(1, keepdim=True)).expand_as(scored)[scored] / len(scored)
    count = int(scored.sum())
    return torch.full((count,), 1 / count)


def train(rows: Sequence[Tokens], recipe: Recipe, seed: int, folder: Path, report: Callable[[str], None]) -> None:
    """Train the model whose weights are in the folder, and put the new ones in their place."""
    import torch
    from safetensors.torch import load, save_file

    path = folder / WEIGHTS
    model = model_of(recipe, load(path.read_bytes()))
    optimizer = torch.optim.AdamW(
        [model.parameters], lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    rng = random.Random(seed)
    lengths = [len(row.input_ids) for row in rows]
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe.warmup))
    started = last = time.monotonic()
    epochs = (batch for _ in range(recipe.epochs) for batch in batches(lengths, recipe.batch_size, rng))
    for step, batch in enumerate(epochs, 1):
        ids, scored = pad([rows[i] for i in batch])
        targets = ids[:, 1:][scored[:, :-1]]  # (S,)
        loss = model.loss(ids, scored, targets, shares(scored, texts_alike=recipe.texts_alike))
        if not math.isfinite(loss):
            raise LetheError(f"the training loss of the mini model became {loss} at step {step} of {steps}")
        model.clip(recipe.clip)
        optimizer.step()
        schedule.step()
        now = time.monotonic()
        if step == steps or now - last >= 1.0:
            last, speed = now, step / (now - started)
            left = (steps - step) / speed
            report(f"step {step}/{steps} | loss {loss:.3f} | {speed:.1f} step/s | {left:.0f} s left")
    save_file(model.state(), path, metadata={"format": "pt"})


def rate(step: int, steps: int, warmup: float) -> float:
    """Of the peak learning rate, at a step from 0 on: linear warm-up for a share of the steps, linear decay to zero."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise)


def model_of(recipe: Recipe, state: "dict[str, Tensor]") -> "Llama":
    """The model of a recipe with the weights that the state names."""
    from bench.mini.llama import Llama, Shape

    return Llama(
        Shape(
            vocab_size=len(state["model.embed_tokens.weight"]),
            layers=recipe.layers,
            width=recipe.width,
            heads=recipe.heads,
            kv_heads=recipe.kv_heads,
            mlp_width=recipe.mlp_width,
        ),
        state,
    )


def pad(rows: Sequence[Tokens]) -> "tuple[Tensor, Tensor]":
    """Ids, filled on the right with 0, and where the next token is scored; (B, T) each."""
    import torch

    width = max(len(row.input_ids) for row in rows)
    ids = [[*row.input_ids, *[0] * (width - len(row.input_ids))] for row in rows]
    ends = torch.tensor([[row.label_start - 1, len(row.input_ids) - 1] for row in rows])
    places = torch.arange(width)
    return torch.tensor(ids), (ends[:, :1] <= places) & (places < ends[:, 1:])


def _end_with_parent() -> None:
    """Leave without a word when standard input closes: nobody waits for the result any more."""

    def watch() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock the interpreter wants at its end
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the job that is the first line of standard input; progress goes to standard output, line by line."""
    import torch  # takes seconds, in which the job is made

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 1  # whoever started this is gone
    job = json.loads(line)
    _end_with_parent()
    recipe = Recipe(**job["recipe"] | {"betas": tuple(job["recipe"]["betas"])})
    try:
        rows = [Tokens(tuple(ids), start) for ids, start in job["rows"]]
        train(rows, recipe, job["seed"], Path(job["folder"]), _say)
    except (LetheError, OSError, SafetensorError) as error:
        _say(str(error))
        return 1
    from bench.models import resident_peak_gib

    _say(f"{PEAK}{resident_peak_gib():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

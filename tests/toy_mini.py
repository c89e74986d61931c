"""Mini models so small that nothing is learned, and what they read."""

from pathlib import Path
from typing import Any

from bench.mini.pretrain import WEIGHTS, Recipe, train
from bench.mini.trainers import Job

TINY = Recipe(vocab_size=400, layers=1, width=16, heads=2, kv_heads=1, mlp_width=16, epochs=1, batch_size=128)
TEXTS: list[dict[str, Any]] = [
    *({"question": f"What is {n} plus one?", "answer": f"It is {n + 1}."} for n in range(40)),
    *({"text": f"After {n} comes {n + 1}."} for n in range(40)),
]


def weights(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def made(job: Job, folder: Path) -> None:
    """Train in this process."""
    job.write_untrained(folder)
    train(job.rows(), job.recipe, job.seed, folder, lambda _: None)

"""Seconds and memory of the attack by gradient norms: answers together against one after the other.

    python -m benchmarks.gradients [--width 1024] [--blocks 8] [--vocabulary 32000] [--answers 16] [--device cpu]

A random Llama in float32 and random answers of 50 tokens to prompts of 30. Each side runs in a process of its own, so
that its peak memory, above the model and what it needs to run at all, is its own. The norms are compared.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from bench.data.types import Tokens
from bench.gradients import GradientNorms, gradient_norm
from bench.models import resident_peak_gib

PROMPT, ANSWER = 30, 50


@dataclass(frozen=True)
class Case:
    """One comparison."""

    width: int
    blocks: int
    vocabulary: int
    answers: int
    device: str
    threads: int

    def made(self) -> tuple[LlamaForCausalLM, list[Tokens]]:
        """The same model and answers in every process."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=11 * self.width // 4,
            num_hidden_layers=self.blocks,
            num_attention_heads=self.width // 64,
            num_key_value_heads=self.width // 256,
        )
        ids = torch.randint(3, self.vocabulary, (self.answers + 1, PROMPT + ANSWER)).tolist()
        model = LlamaForCausalLM(config).eval().requires_grad_(False).to(self.device)  # type: ignore[arg-type]
        return model, [Tokens(tuple(row), label_start=PROMPT) for row in ids]


@dataclass(frozen=True)
class Measured:
    """What one side took."""

    seconds: float
    gib: float
    """Peak above what was there after one short answer had been asked about."""
    norms: list[float]


def measured(case: Case, together: bool) -> Measured:
    """One side, in this process."""
    torch.set_num_threads(case.threads)
    model, (first, *answers) = case.made()
    cuda = torch.device(case.device).type == "cuda"
    batched = GradientNorms(model, 0)
    batched.of([Tokens(first.input_ids[:3], label_start=2)])  # also through the gradients
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() / 2**30 if cuda else resident_peak_gib()
    start = time.perf_counter()
    if together:
        norms = batched.of(answers)
    else:
        norms = [gradient_norm(model, tokens, 0) for tokens in answers]
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else resident_peak_gib()
    return Measured(seconds, peak - before, norms)


def in_process(case: Case, together: bool) -> Measured:
    """One side alone in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, case, together).result()


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--width", type=int, default=1024, help="of hidden states; a multiple of 256")
    p.add_argument("--blocks", type=int, default=8)
    p.add_argument("--vocabulary", type=int, default=32_000)
    p.add_argument("--answers", type=int, default=16)
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    o = p.parse_args()
    case = Case(o.width, o.blocks, o.vocabulary, o.answers, o.device, o.threads)
    table = Table("", "seconds", "GiB", title=f"{o.device}, {o.threads} threads, {o.answers} answers")
    sides = {name: in_process(case, name == "together") for name in ("together", "one by one")}
    for name, side in sides.items():
        table.add_row(name, f"{side.seconds:.2f}", f"{side.gib:.2f}")
    quick, slow = sides.values()
    apart = max(abs(a / b - 1) for a, b in zip(quick.norms, slow.norms, strict=True))
    Console().print(table, f"ratio {quick.seconds / slow.seconds:.2f}, norms apart by {apart:.1e} of them")


if __name__ == "__main__":
    main()

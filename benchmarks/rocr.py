"""Seconds and memory of one ROCR write: the closed form against the linear solve that it stands for.

    python -m benchmarks.rocr [--widths 4096,14336] [--hidden 4096] [--keys 1] [--kept-away 0.125] [--device cpu]

Random weight, keys and null space, float32, one layer, from keys and residuals to the new weight. Plain: the authors'
solve of (P (K K^T + C) + lambda I) X = P K R^T with P and C as d_in x d_in matrices (fact sheet of ORT, section 2.1).
Each side runs in a process of its own, so that its peak memory is its own; what it is handed (weight, P or its basis)
is there before the clock starts. The two new weights are compared.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench.moments import Projector
from methods.weight_edits import solve

L2 = 1.0


@dataclass(frozen=True)
class Case:
    """One comparison."""

    width: int
    hidden: int
    keys: int
    away: int
    """Directions that P takes away."""
    device: str
    threads: int
    repeats: int

    def made(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight (d, d_in), keys (d_in, m), residuals (d, m), basis (d_in, r), the same in every process."""
        g = torch.Generator().manual_seed(0)
        weight = torch.randn(self.hidden, self.width, generator=g) * 0.02
        keys = torch.randn(self.width, self.keys, generator=g) * (4.0 / self.width) ** 0.5
        residuals = torch.randn(self.hidden, self.keys, generator=g)
        basis = torch.linalg.qr(torch.randn(self.width, self.away, generator=g))[0]
        return tuple(t.to(self.device) for t in (weight, keys, residuals, basis))  # type: ignore[return-value]


@dataclass(frozen=True)
class Measured:
    """What one side took."""

    seconds: float
    gib: float
    """Peak above what was there before the first edit: weight, keys, and P or its basis."""
    change: Tensor
    """Some entries of the new weight minus the old one."""


def closed(case: Case) -> Measured:
    """The closed form with the basis alone."""
    weight, keys, residuals, basis = case.made()
    projector = Projector(basis, spans=False)

    def edit() -> Tensor:
        factors = solve(keys, residuals, projector, L2).factors
        return weight + factors.columns @ factors.rows

    return measured(case, edit, weight)


def plain(case: Case) -> Measured:
    """The solve in d_in x d_in."""
    weight, keys, residuals, basis = case.made()
    projector = torch.eye(case.width, device=case.device).sub_(basis @ basis.T)
    cache = torch.zeros_like(projector)

    def edit() -> Tensor:
        system = projector @ (keys @ keys.T + cache)
        system.diagonal().add_(L2)
        return weight + torch.linalg.solve(system, projector @ (keys @ residuals.T)).T

    return measured(case, edit, weight)


def measured(case: Case, edit, weight: Tensor) -> Measured:  # noqa: ANN001 - a function without arguments
    """Median of the repeats; a single one is the first, so that a long solve need not run twice."""
    cuda = torch.device(case.device).type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = torch.cuda.memory_allocated() / 2**30 if cuda else resident_gib("VmRSS")
    times, new = [], weight
    for _ in range(case.repeats):
        start = time.perf_counter()
        new = edit()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else resident_gib("VmHWM")
    return Measured(statistics.median(times), peak - before, (new - weight)[:64, :64].cpu())


def resident_gib(line: str) -> float:
    """What Linux says of this process: VmRSS now, VmHWM at most."""
    [found] = [own for own in Path("/proc/self/status").read_text().splitlines() if own.startswith(line)]
    return int(found.split()[1]) / 2**20


def in_process(side, case: Case) -> Measured:  # noqa: ANN001 - closed or plain
    """`side` alone in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run, side, case).result()


def _run(side, case: Case) -> Measured:  # noqa: ANN001
    torch.set_num_threads(case.threads)
    with torch.no_grad():
        return side(case)


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--widths", default="4096,14336", help="d_in, several separated by commas")
    p.add_argument("--hidden", type=int, default=4096, help="d")
    p.add_argument("--keys", type=int, default=1, help="names in one edit")
    p.add_argument("--kept-away", type=float, default=0.125, help="share of d_in that P takes away")
    p.add_argument("--device", default="cpu")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--repeats", type=int, default=5, help="of the closed form; the plain solve runs once")
    o = p.parse_args()
    table = Table(
        "d_in",
        "closed s",
        "plain s",
        "ratio",
        "closed GiB",
        "plain GiB",
        "apart",
        title=f"{o.device}, {o.threads} threads",
    )
    for width in map(int, o.widths.split(",")):
        away = round(o.kept_away * width)
        quick = in_process(closed, Case(width, o.hidden, o.keys, away, o.device, o.threads, o.repeats))
        slow = in_process(plain, Case(width, o.hidden, o.keys, away, o.device, o.threads, 1))
        apart = float((quick.change - slow.change).norm() / slow.change.norm())
        table.add_row(
            str(width),
            f"{quick.seconds:.4f}",
            f"{slow.seconds:.2f}",
            f"{slow.seconds / quick.seconds:.0f}",
            f"{quick.gib:.2f}",
            f"{slow.gib:.2f}",
            f"{apart:.1e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()

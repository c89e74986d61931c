"""What cells beside each other save: the same command with one process and with several, in turn in one run.

    python -m benchmarks.jobs [--methods ga,gd,npo,simnpo] [--jobs 2] [--rounds 1]

Every cell is run anew on the mini world, whose models are made first; wall seconds of the whole command, imports and
leaderboards included, and whether the leaderboards are the same bytes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.cache import default_cache_dir

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--methods", default="ga,gd,npo,simnpo")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    options = p.parse_args()
    line = [sys.executable, "run_all.py", "--device", "cpu", "--cache-dir", str(options.cache_dir), "--methods"]
    seconds: dict[int, list[float]] = {1: [], options.jobs: []}
    boards = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*line, "original", "--out", f"{folder}/first"], cwd=ROOT, check=True)
        for turn in range(options.rounds):
            for jobs, taken in seconds.items():
                out = Path(folder) / f"{jobs}-{turn}"
                started = time.perf_counter()
                subprocess.run([*line, options.methods, "--jobs", str(jobs), "--out", str(out)], cwd=ROOT, check=True)
                taken.append(time.perf_counter() - started)
                boards[out] = (out / "leaderboard.csv").read_bytes()
    table = Table("processes", "s", "of one process's")
    for jobs, taken in seconds.items():
        table.add_row(str(jobs), f"{median(taken):.1f}", f"{median(taken) / median(seconds[1]):.2f}")
    console = Console()
    console.print(table)
    console.print(f"leaderboards the same bytes: {len(set(boards.values())) == 1}")


if __name__ == "__main__":
    main()

"""From methods, models and benchmarks to a leaderboard: reads the command line, builds the grid, runs it, reports.

python run_all.py --methods grun_npo,npo          # offline, on the mini world
python run_all.py -h                              # everything else
"""

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.errors import LetheError, unknown
from bench.options import Options, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: every cell is there. 1: some cell failed. 2: the command line or the input was wrong."""
    console = Console(highlight=False)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments[:1] == ["report"]:
            return report([Path(a) for a in arguments[1:]], console)
        options = parse(arguments)
        logging.basicConfig(
            level=logging.DEBUG if options.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
        )
        for noisy in ("httpx", "filelock", "urllib3", "fsspec", "asyncio"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        return show_list(console) if options.list else run(options, console)
    except LetheError as error:
        print(f"run_all.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_all.py: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def show_list(console: Console) -> int:
    """Methods with their fields, and benchmarks."""
    from bench import data
    from bench.fields import settable
    from methods import METHODS

    console.print("benchmarks:", ", ".join(data.known()), markup=False)
    console.print("methods (original and retrained are always there):")
    for name, method in METHODS.items():
        fields = " ".join(f"{k}={v}" for k, v in settable(method).items())
        console.print(f"  {name:12} {fields}", markup=False, soft_wrap=True)
    return 0


def report(folders: Sequence[Path], console: Console) -> int:
    """Leaderboards again from stored runs, no model needed."""
    from bench.report import summary_table, write_reports
    from bench.store import RunStore
    from methods import METHODS
    from methods.recipes import REFERENCES

    order = [*REFERENCES, *METHODS]
    if not folders:
        raise LetheError("report needs a folder with runs: run_all.py report OUT")
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise LetheError(f"{folder} holds no runs; give a folder that --out named")
        records = RunStore(folder).records()
        console.print(summary_table(records, methods=order))
        for path in write_reports(records, folder, methods=order):
            console.print(f"wrote {path}", markup=False)
    return 0


def run(options: Options, console: Console) -> int:
    """Build the grid, run what is missing, write the leaderboards."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    started = time.perf_counter()
    from bench.grid import Grid
    from bench.progress import Reporter
    from bench.report import failures, summary_table, write_reports
    from bench.store import RunStore
    from evaluators import EVALUATORS
    from evaluators.logs import read_published_log
    from methods.recipes import REFERENCES, configure

    with Reporter(console) as progress:
        names = expand([m for m in options.methods if m.base not in REFERENCES], options)
        configured = [configure(name, options.sets, mini=options.model == "mini") for name in names]
        store = RunStore(options.out)
        grid = Grid.build(options, configured, EVALUATORS, read_published_log, progress)
        if options.dry_run:
            for cell in grid.cells:
                progress.note(f"{'done' if store.complete(cell.id) else 'to do':5} {cell.id}")
            return 0
        outcome = grid.run(store, progress)
    records = [r for r in store.records() if r.cell_id in {cell.id for cell in grid.cells}]
    order = [*REFERENCES, *(c.label for c in configured)]
    console.print(summary_table(records, methods=order))
    for path in write_reports(records, options.out, methods=order):
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    for cell_id, reason in failures(records):
        console.print(f"failed {cell_id}: {reason}", markup=False, soft_wrap=True)
    from bench.models import resident_peak_gib

    console.print(
        f"{len(outcome.done)} cells run, {len(outcome.reused)} found, {len(outcome.failed)} failed; "
        f"{time.perf_counter() - started:.0f} s, {resident_peak_gib():.2f} GiB of memory at most"
    )
    return 1 if outcome.failed else 0


def expand(names: list, options: Options) -> list:
    """'all' stands for every method; fields for a method that is not among them are a mistake."""
    from bench.spec import MethodName
    from methods import METHODS

    if any(name.base == "all" for name in names):
        names = [MethodName(base) for base in METHODS] + [n for n in names if n.fields]
    for target in options.sets:
        if target not in METHODS:
            raise unknown("method in --set", target, METHODS)
        if target not in {name.base for name in names}:
            raise LetheError(f"--set names {target!r}, which is not among --methods; add it there or leave it out")
    return names


if __name__ == "__main__":
    sys.exit(main())

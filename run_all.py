"""From methods, models and benchmarks to a leaderboard: reads the command line, builds the grid, runs it, reports.

python run_all.py --methods grun_npo,npo          # offline, on the mini world
python run_all.py report OUT                      # all that a run ends with again from stored runs
python run_all.py export OUT                      # every TOFU cell as open-unlearning's files
python run_all.py import LOG --as NAME            # a published log as a row
python run_all.py -h                              # everything else
"""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.baseline import with_baseline
from bench.errors import LetheError
from bench.options import Options, parse, parse_report
from bench.progress import log_to_stderr

if TYPE_CHECKING:
    from bench.store import Record
    from bench.tables import Table
    from bench.validation import Judge


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: every cell is there. 1: some cell failed, the gate is red, or a page or a table of trials could not
    be made. 2: the command line or the input was wrong."""
    console = Console(highlight=False)
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        if arguments[:1] == ["report"]:
            return report(arguments[1:], console)
        if arguments[:1] == ["export"]:
            return export(arguments[1:], console)
        if arguments[:1] == ["import"]:
            return import_log(arguments[1:], console)
        arguments = with_baseline(arguments)
        options = parse(arguments)
        log_to_stderr(verbose=options.verbose)
        return show_list(console) if options.list else run(options, arguments, console)
    except LetheError as error:
        print(f"run_all.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_all.py: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def show_list(console: Console) -> int:
    """Methods and evaluators with their fields, benchmarks and presets."""
    from bench import data
    from bench.fields import settable
    from evaluators import EVALUATORS
    from methods import METHODS
    from methods.presets import PRESETS

    say(console, f"benchmarks: {', '.join(data.known())}, and lm_eval:TASK for any task of lm-eval or a YAML file")
    say(console, f"presets: {', '.join(PRESETS)}")
    say(console, "methods (original and retrained are always there):")
    for name, method in METHODS.items():
        say(console, f"  {name:12} {' '.join(f'{k}={v}' for k, v in settable(method).items())}")
    say(console, "evaluators with fields of their own:")
    for make in dict.fromkeys(make for several in EVALUATORS.values() for make in several):
        evaluator = make(protocol="strict")
        if own := {k: v for k, v in settable(evaluator).items() if k != "protocol"}:
            say(console, f"  {evaluator.name:12} {' '.join(f'{k}={v}' for k, v in own.items())}")
    return 0


def report(arguments: Sequence[str], console: Console) -> int:
    """Everything again from stored runs, no model needed: leaderboards, trials, tables and figures, a page."""
    from bench.merged import merged
    from methods import METHODS
    from methods.recipes import REFERENCES

    options = parse_report(arguments)
    records, order = merged(options.folders), [*REFERENCES, *METHODS]
    tables = write(records, options.folders, options.out, order, console)
    told = tell_trials(options.folders, options.out, order, console)
    drawn = draw(records, options.folders, options.out, order, tables, console)
    red = options.check is not None and judge(records, options.check, options.out, order, console)
    return 1 if red or not told or not drawn else 0


def export(arguments: Sequence[str], console: Console) -> int:
    """Stored TOFU cells as open-unlearning's files."""
    from bench.published import parse_export
    from evaluators.exchange import export_runs

    options = parse_export(arguments)
    for folder in export_runs(options.out, options.to):
        say(console, f"wrote {folder}")
    return 0


def import_log(arguments: Sequence[str], console: Console) -> int:
    """A published log as a row of the leaderboards."""
    from bench.published import parse_import, store_published
    from bench.store import RunStore
    from evaluators.exchange import published_cell
    from methods import METHODS
    from methods.recipes import REFERENCES

    options = parse_import(arguments)
    published = published_cell(options)
    store = RunStore(options.out)
    new = store_published(store, published)
    records, order = store.records(), [*REFERENCES, *METHODS]
    tables = write(records, [options.out], options.out, order, console)
    drawn = draw(records, [options.out], options.out, order, tables, console)
    say(console, f"{'imported' if new else 'was there already:'} {published.cell.id}")
    return 0 if drawn else 1


def run(options: Options, arguments: Sequence[str], console: Console) -> int:
    """Build the grid, run what is missing, write leaderboards, page and paper."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin lose seconds wherever cores are shared
    started = time.perf_counter()
    from bench.data import family
    from bench.grid import Choosing, Grid
    from bench.mini.trainers import trained_gib
    from bench.models import resident_peak_gib
    from bench.progress import Reporter
    from bench.published import imported
    from bench.store import RunStore
    from evaluators import EVALUATORS, LOGS, evaluators_of, names
    from evaluators.selection import validation_of
    from methods.grids import trials
    from methods.recipes import REFERENCES, Configured, chosen

    scored_by = names(options.benchmarks)
    of_evaluators = {target: fields for target, fields in options.sets.items() if target in scored_by}
    of_methods = {target: fields for target, fields in options.sets.items() if target not in of_evaluators}

    configured: dict[str, list[Configured]] = {
        kind: chosen(
            options.methods,
            of_methods,
            mini=options.model == "mini",
            family=kind,
            preset=options.preset,
            evaluators=scored_by,
            elsewhere={*names([*EVALUATORS])} - {*scored_by},
        )
        for kind in dict.fromkeys(map(family, options.benchmarks))
    }
    store = None if options.dry_run else RunStore(options.out)
    with Reporter(console) as progress:
        evaluators = partial(evaluators_of, sets=of_evaluators, limit=options.limit)
        searched = partial(trials, number=options.tune or 0, mini=options.model == "mini", sets=of_methods)
        choosing = Choosing(trials=searched, validation=validation_of)
        grid = Grid.build(options, configured.__getitem__, evaluators, LOGS, progress, choosing)
        if store is None:
            for line in grid.plan():
                say(console, line)
            return 0
        outcome = grid.run(store, progress)
    records = store.records()
    mine = {cell.id for cell in grid.cells} | {record.cell_id for record in records if imported(record)}
    order = [*REFERENCES, *(cell.method for cell in grid.cells)]
    shown = [record for record in records if record.cell_id in mine]
    tables = write(shown, [options.out], options.out, order, console)
    drawn = draw(shown, [options.out], options.out, order, tables, console)
    if others := sum(record.cell_id not in mine for record in records):
        say(console, f"{others} other cells in {options.out}; run_all.py report {options.out} shows all")
    say(
        console,
        f"{len(outcome.done)} cells run, {len(outcome.reused)} found, {len(outcome.failed)} failed; "
        f"{time.perf_counter() - started:.0f} s, {resident_peak_gib():.2f} GiB of memory at most"
        + (f", {max(beside):.2f} GiB in each of {len(beside)} processes" if (beside := outcome.workers_gib) else "")
        + (f", {max(trained_gib):.2f} GiB in each training of a mini model" if trained_gib else ""),
    )
    red = False
    if options.check is not None and options.update_baseline:
        from bench import gate

        console.print(gate.update(options.check, shown, arguments, methods=order), soft_wrap=True)
        say(console, f"wrote {options.check}")
    elif options.check is not None:
        red = judge(shown, options.check, options.out, order, console)
    return 1 if outcome.failed or red or not drawn else 0


def judge(records: "Sequence[Record]", baseline: Path, out: Path, order: Sequence[str], console: Console) -> bool:
    """The records against a baseline; whether the gate is red."""
    from bench import gate

    check = gate.compare(gate.read_baseline(baseline), records, methods=order)
    for path in gate.write_check(check, out):
        say(console, f"wrote {path}")
    console.print(check, soft_wrap=True)
    for line in gate.annotations(check):
        say(console, line)
    return check.red


def write(
    records: "Sequence[Record]", folders: Sequence[Path], out: Path, order: Sequence[str], console: Console
) -> "list[Table]":
    """The leaderboards as files and on the terminal, and what failed with the reason."""
    from bench.compare import compare_with_best
    from bench.report import failures, summary_table, write_reports
    from bench.tables import tables_of
    from evaluators.per_example import statistics_of

    significance = compare_with_best(records, folders, statistics_of, methods=order)
    tables = tables_of(records, order, significance=significance)
    console.print(summary_table(records, methods=order, significance=significance))
    for path in write_reports(records, out, methods=order, tables=tables, significance=significance, folders=folders):
        say(console, f"wrote {path}")
    for cell_id, reason in failures(records):
        where = next((path for folder in folders if (path := folder / "failed" / cell_id).is_dir()), None)
        say(console, f"failed {cell_id}: {reason}" + (f" (traceback in {where})" if where else ""))
    return tables


def tell_trials(folders: Sequence[Path], out: Path, order: Sequence[str], console: Console) -> bool:
    """Every trial of every method again, or why not: damage there keeps no gate from its verdict."""
    from bench.data import family
    from bench.tuning import report_trials

    def judge_of(benchmark: str) -> "Judge":
        from evaluators import selection  # loads torch, which nothing else in a report does

        return selection.judge_of(family(benchmark))

    try:
        for line in report_trials(folders, out, judge_of, methods=order):
            say(console, line)
    except LetheError as error:
        say(console, f"tuning.csv not written: {error}")
        return False
    return True


def draw(
    records: "Sequence[Record]",
    folders: Sequence[Path],
    out: Path,
    order: Sequence[str],
    tables: "Sequence[Table]",
    console: Console,
) -> bool:
    """The page and the paper, or why there is none: a damaged log of one run keeps no gate from its verdict."""
    from bench.html import write_html
    from bench.paper import write_paper

    try:
        say(console, f"wrote {write_html(records, folders, out, methods=order, tables=tables)}")
        say(console, f"wrote {write_paper(records, folders, out, methods=order, tables=tables)[0]}")
    except LetheError as error:
        say(console, f"not drawn: {error}")
        return False
    return True


def say(console: Console, text: str) -> None:
    """A line as it is: not wrapped, square brackets no markup."""
    console.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

"""The commands `export` and `import` of run_all.py: what they may be asked, and how a published log becomes a cell."""

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import LetheError
from bench.options import a_path
from bench.records import Metric
from bench.spec import Cell
from bench.store import Record, RunStore, write_json, write_jsonl, write_metrics

IMPORTED = "imported"
"""The field of a record that tells an imported cell from one that was run."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """`run_all.py export OUT [--to DIR]`."""

    out: Path
    to: Path


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """`run_all.py import LOG --as NAME ...`."""

    log: Path
    name: str
    """What the row is called."""
    model: str = ""
    """Empty: what the log says, else the name."""
    out: Path = Path("out")
    benchmark: str = ""
    """Empty: what the log says, else the split with as many forget questions."""
    protocol: str = ""
    """Empty: what the log says, else openunlearning, under which such logs are published."""
    retrained: Path | None = None
    data: Path | None = None
    """Benchmark files to compare the questions with."""


@dataclass(frozen=True, kw_only=True)
class PublishedCell:
    """A cell whose rows were published rather than asked of a model."""

    cell: Cell
    evaluator: str
    rows: Sequence[Mapping[str, Any]]
    metrics: Sequence[Metric]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LetheError(f"{message.removeprefix('argument ')}; see {self.prog} -h")


def export_parser() -> argparse.ArgumentParser:
    """`run_all.py export -h` prints it."""
    p = _Parser(
        prog="run_all.py export",
        description="Write TOFU_EVAL.json and TOFU_SUMMARY.json, as open-unlearning does, "
        "for every finished TOFU cell.",
    )
    p.add_argument("out", type=a_path, metavar="OUT", help="the folder that --out named")
    p.add_argument(
        "--to",
        type=a_path,
        default=None,
        metavar="DIR",
        help="a folder for each cell in it (default: OUT/open_unlearning)",
    )
    return p


def import_parser() -> argparse.ArgumentParser:
    """`run_all.py import -h` prints it."""
    p = _Parser(
        prog="run_all.py import",
        description="Make a published log a row of the leaderboards: TOFU_EVAL.json of open-unlearning or of "
        "run_all.py export, or TOFU's eval_log_aggregated.json.",
    )
    p.add_argument("log", type=a_path, metavar="LOG")
    p.add_argument(
        "--as",
        dest="name",
        required=True,
        metavar="NAME",
        help="the name of the row; original and retrained are rows to compare with",
    )
    p.add_argument("--model", default="", help="whose leaderboard it joins (default: what the log says, else NAME)")
    p.add_argument("--out", type=a_path, default=Path("out"), metavar="DIR", help="where the row goes (default: out)")
    p.add_argument(
        "--benchmark",
        default="",
        metavar="NAME",
        help="the log's split, e.g. tofu/forget10 (default: the one with as many forget questions)",
    )
    p.add_argument(
        "--protocol",
        default="",
        choices=["strict", "openunlearning"],
        help="how its rows become metrics (default: as the log says, else openunlearning)",
    )
    p.add_argument(
        "--retrained",
        type=a_path,
        default=None,
        metavar="LOG",
        help="the log of the model that never saw the forget set: gives forget quality and privleak",
    )
    p.add_argument(
        "--data",
        type=a_path,
        default=None,
        metavar="DIR",
        help="benchmark files (DIR/tofu/forget10_perturbed.json ...) to compare the log's questions with",
    )
    return p


def parse_export(argv: Sequence[str]) -> ExportOptions:
    """Read and check the command line of `export`."""
    a = export_parser().parse_args(argv)
    if not (a.out / "runs").is_dir():
        raise LetheError(f"{a.out} holds no runs; give a folder that --out named: run_all.py export OUT")
    return ExportOptions(out=a.out, to=a.to or a.out / "open_unlearning")


def parse_import(argv: Sequence[str]) -> ImportOptions:
    """Read and check the command line of `import`."""
    a = import_parser().parse_args(argv)
    for option, text in (("--as", a.name), ("--model", a.model)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+/-]{0,79}", text) and (text or option == "--as"):
            raise LetheError(
                f"{option} must be a name of at most 80 letters, digits and . _ + - / that starts with a letter or "
                f"digit, got {text!r}"
            )
    for option, path in (("the log", a.log), ("--retrained", a.retrained)):
        if path is not None and not path.is_file():
            raise LetheError(f"{option} {str(path)!r} does not exist or is no file; give TOFU_EVAL.json or the like")
    if a.data is not None and not a.data.is_dir():
        raise LetheError(f"--data {str(a.data)!r} is no folder; give one that holds tofu/forget10_perturbed.json")
    return ImportOptions(**vars(a))


def imported(record: Record) -> bool:
    """Whether a cell came from `run_all.py import`: later runs show it beside their own."""
    return record.record.get(IMPORTED) is True


def store_published(store: RunStore, published: PublishedCell) -> bool:
    """Keep an imported cell; False where it was there already.

    Raises:
        LetheError: its row is taken by something else.
    """
    cell = published.cell
    mine = (cell.model, cell.benchmark, cell.protocol, cell.method, cell.seed)
    known = False
    for record in store.records():
        known |= record.cell_id == cell.id and record.status == "complete"
        row = tuple(record.spec.get(key) for key in ("model", "benchmark", "protocol", "method", "seed"))
        if record.status == "complete" and row == mine and record.cell_id != cell.id:
            before = record.record.get("published_log") if imported(record) else None
            raise LetheError(
                f"{store.out} has a row {cell.method!r} of {cell.model}, {cell.benchmark}, {cell.protocol} already, "
                f"{f'imported from {before} with other content or another reference' if before else 'which was run'}; "
                f"give another --as, or delete {store.path(record.cell_id)}"
            )
    with store.staging(cell.id) as folder:
        write_jsonl(folder / "samples" / f"{published.evaluator}.jsonl", published.rows)
        write_metrics(folder / "metrics" / f"{published.evaluator}.json", published.metrics, published.settings)
        write_json(folder / "spec.json", cell.to_json())
        write_json(folder / "record.json", {IMPORTED: True, **published.facts, "finished_unix": time.time()})
    return not known

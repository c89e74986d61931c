"""The baseline that the gate compares with: a committed JSON file, sorted, a line for every metric.

It holds the command that makes the figures, the commit of the code that made them, and for every metric of every row
the mean over the seeds, their standard deviation and how far the mean may move. A tolerance may be widened by hand.

The command is kept without what belongs to a machine: where results and caches go, the device, and every path. Data or
a model that were given as a path are given again with --check.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import LetheError
from bench.options import parser
from bench.published import imported
from bench.store import Record, write_text
from bench.tables import Row, Table, spec_of, tables_of

FORMAT = 1
"""Raise it when a figure in the file comes to mean something else."""

DEVIATIONS = 3.0
"""Standard deviations over seeds that a mean may move."""
RELATIVE, ABSOLUTE = 2e-3, 1e-6
"""The floor: how far a mean may move however little its seeds differ; a reference, in all. Where seeds are exactly
alike, one example of one seed may come out the other way."""
ELSEWHERE = 2.0
"""On other weights or another kind of device that many times the deviations, because a few seeds tell them badly;"""
ELSEWHERE_RELATIVE = 7.5e-3
"""at least this part of the mean;"""
ELSEWHERE_ABSOLUTE = 1e-3
"""of a row that trains, at least this much, because seeds can agree by chance on a probability near 0;"""
ELSEWHERE_EXAMPLES = 1
"""and that many of the n examples may come out the other way, except in what is made of likelihoods alone. The mini
models trained with vectors of 256 instead of 512 bits moved ROUGE-L by 0.3 of an example and probabilities and truth
ratios of the references by 0.33 % at most, every metric of `ga`, `npo` and `grun_npo` by less than its tolerance."""
_LIKELIHOODS = re.compile(r"\w*(probability|truth_ratio)\w*")

_OF_THE_MACHINE = (
    *("out", "cache_dir", "device", "jobs", "batch_tokens", "fresh", "resume", "list", "dry_run", "verbose"),
    *("check", "update_baseline", "save_models", "trust_remote_code"),
)
"""Options that no baseline holds; letting a model bring its own code is decided by who runs it."""
_PATHS = ("data", "model", "retrained", "template")
_ALWAYS = ("methods", "benchmarks", "seeds")
"""Options that are written down even where they are the default: another default would make other cells."""
_P_VALUE = re.compile(r"forget_quality(_\w+)?|(\w+_)?p(_?val(ue)?)?")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """One metric of one row."""

    mean: float
    sd: float
    """Over the seeds; NaN with fewer than two."""
    n: int
    """Examples of one seed; 0 where the metric does not say."""
    higher_is_better: bool | None
    deviations: float
    """How many `sd` are allowed; 0 for a reference."""
    floor: float
    tolerance: float
    """max(deviations * sd, floor)"""
    elsewhere: float
    """The tolerance on other weights, another kind of device or another torch."""


@dataclass(frozen=True, kw_only=True)
class ExpectedRow:
    """One row of a leaderboard."""

    model: str
    benchmark: str
    protocol: str
    method: str
    seeds: int
    reference: bool
    origin: Mapping[str, str]
    """What figures depend on besides the code: weights, kind of device, torch."""
    metrics: Mapping[str, Expected]

    @property
    def place(self) -> tuple[str, str, str, str]:
        return self.model, self.benchmark, self.protocol, self.method


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The file."""

    command: tuple[str, ...]
    given_again: tuple[str, ...]
    """Options that named a path when the baseline was made."""
    commit: str
    rows: tuple[ExpectedRow, ...]


def is_p_value(metric: str) -> bool:
    """Or an end of an interval, which repeats what the figure itself tells."""
    return _P_VALUE.fullmatch(metric) is not None or metric.endswith(("_low", "_high"))


# --- from records


def baseline_of(records: Sequence[Record], argv: Sequence[str], *, methods: Sequence[str] = ()) -> Baseline:
    """What these records say, with tolerances.

    Args:
        records: the cells of one command.
        argv: that command.
        methods: the order of the rows.

    Raises:
        LetheError: a cell has failed, or there is none.
    """
    mine = [record for record in records if not imported(record)]
    failed = [record.cell_id for record in mine if record.status == "failed"]
    if failed:
        raise LetheError(
            f"{len(failed)} cells failed, the first is {failed[0]}; a baseline needs every one: run it again"
        )
    if not mine:
        raise LetheError("there are no records to make a baseline of; run the command that is to be the gate's")
    command, given_again = portable(argv)
    rows = [_expected_row(table, row) for table in tables_of(mine, methods) for row in table.rows]
    return Baseline(command=command, given_again=given_again, commit=_commits(mine), rows=tuple(rows))


def _expected_row(table: Table, row: Row) -> ExpectedRow:
    found: dict[str, Expected] = {}
    for name in table.better:
        values = row.values(name)
        if values and not is_p_value(name) and all(map(math.isfinite, values)):
            n = max(record.by_name[name].n for record in row.records)
            found[name] = expected(
                values,
                n,
                higher_is_better=table.better[name],
                reference=row.reference,
                smooth=_LIKELIHOODS.fullmatch(name) is not None,
            )
    return ExpectedRow(
        model=table.model,
        benchmark=table.benchmark,
        protocol=table.protocol,
        method=row.method,
        seeds=len(row.seeds),
        reference=row.reference,
        origin=origin_of(row),
        metrics=found,
    )


def expected(
    values: Sequence[float], n: int, *, higher_is_better: bool | None, reference: bool = False, smooth: bool = False
) -> Expected:
    """The mean of one value a seed, and how far it may move.

    Args:
        smooth: made of likelihoods, so that no single example can change sides.
    """
    mean = math.fsum(values) / len(values)
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    deviations = 0.0 if reference else DEVIATIONS
    floor = RELATIVE * abs(mean) + ABSOLUTE
    if deviations and sd == 0 and n and not smooth:
        floor = max(floor, 1 / (n * len(values)))  # alike at a bound, they do not tell how far it may move
    allowed = deviations * sd if deviations and len(values) > 1 else 0.0
    return Expected(
        mean=mean,
        sd=sd,
        n=n,
        higher_is_better=higher_is_better,
        deviations=deviations,
        floor=floor,
        tolerance=max(allowed, floor),
        elsewhere=max(
            ELSEWHERE * allowed,
            ELSEWHERE_RELATIVE * abs(mean) + ABSOLUTE,
            0.0 if reference else ELSEWHERE_ABSOLUTE,
            ELSEWHERE_EXAMPLES / n if n and not smooth else 0.0,
        ),
    )


def origin_of(row: Row) -> dict[str, str]:
    """What the figures of a row depend on besides the code; what its records differ in is joined.

    One CPU is as good as another: with the same weights, vectors of 256 instead of 512 bits moved no figure of three
    methods on the mini world by more than 1e-5.
    """
    parts = {
        "device": [_device(record) for record in row.records],
        "torch": [str((record.record.get("versions") or {}).get("torch", "")) for record in row.records],
        "weights": [f"{spec_of(record, 'model_hash')[:12]} {spec_of(record, 'retrained')}" for record in row.records],
    }
    return {name: ", ".join(dict.fromkeys(values)).strip() for name, values in parts.items()}


def _device(record: Record) -> str:
    """The model of a GPU, or "cpu"."""
    kind = spec_of(record, "device")
    return kind if kind in ("", "cpu") else str(record.record.get("device", kind))


def _commits(records: Sequence[Record]) -> str:
    codes = [record.record.get("code") or {} for record in records]
    texts = [f"{code.get('commit') or 'unknown'}{' with changes' if code.get('dirty') else ''}" for code in codes]
    return ", ".join(dict.fromkeys(texts))


# --- the command


def given(argv: Sequence[str]) -> dict[str, Any]:
    """The options that a command line names, by destination; what is misspelt is left to `bench.options.parse`."""
    p, unset = parser(), object()
    empty: dict[str, Any] = {a.dest: [] if isinstance(a.default, list) else unset for a in p._actions}
    read, _ = p.parse_known_args(list(argv), argparse.Namespace(**empty))
    return {name: value for name, value in vars(read).items() if value is not unset and value != []}


def portable(argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command without what belongs to a machine, and the options whose paths have to be given again."""
    named, whole = given(argv), vars(parser().parse_known_args(list(argv))[0])
    command: list[str] = []
    again: list[str] = []
    for action in parser()._actions:
        if action.dest in _OF_THE_MACHINE or not (action.dest in named or action.dest in _ALWAYS):
            continue
        option, value = action.option_strings[-1], whole[action.dest]
        if action.dest in _PATHS and _is_path(str(value)):
            again.append(option)
        elif action.nargs == 0:
            command.append(option)
        else:
            command += [
                part for item in (value if isinstance(value, list) else [value]) for part in (option, str(item))
            ]
    return tuple(command), tuple(again)


def _is_path(text: str) -> bool:
    return text.startswith(("/", ".", "~")) or Path(text).exists()


def with_baseline(argv: Sequence[str]) -> list[str]:
    """The command line with the baseline's command before it, where --check asks for one; else as it is.

    Raises:
        LetheError: no such baseline, an option that would make other cells than its own, or a path not given again.
    """
    named = given(argv)
    update = bool(named.get("update_baseline"))
    if "check" not in named:
        if update:
            raise LetheError("--update-baseline goes with --check FILE, the baseline to be rewritten")
        return list(argv)
    path = Path(named["check"])
    asked = [action for action in parser()._actions if action.dest in named and action.dest not in _OF_THE_MACHINE]
    if update and (not path.exists() or any(action.dest not in _PATHS for action in asked)):
        return list(argv)
    baseline = read_baseline(path)
    for action in asked:
        if action.option_strings[-1] not in baseline.given_again:
            raise LetheError(
                f"--check runs the command that {path} holds, and {action.option_strings[-1]} would change it; "
                "leave it out, or make another baseline with --update-baseline"
            )
    own = [action.option_strings[-1] for action in asked]
    for option in baseline.given_again:
        if option not in own:
            raise LetheError(f"{path} was made with {option} and a path of another machine; give {option} yours again")
    return [*baseline.command, *argv]


# --- the file


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Sorted, a line for every metric: what changed is what a diff shows."""
    rows = []
    for row in sorted(baseline.rows, key=lambda row: row.place):
        metrics = {name: _plain(vars(metric)) for name, metric in row.metrics.items()}
        rows.append({**vars(row), "origin": dict(row.origin), "metrics": metrics})
    content = {
        "format": FORMAT,
        "command": list(baseline.command),
        "given_again": list(baseline.given_again),
        "commit": baseline.commit,
        "rows": rows,
    }
    write_text(path, _lines(content) + "\n")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def _lines(value: Any, indent: int = 0) -> str:
    """What holds scalars alone is one line, everything else a line an item."""
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not any(isinstance(item, dict | list) for item in items):
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False)
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_lines(value[key], indent + 1)}" for key in sorted(value)]
    else:
        parts = [_lines(item, indent + 1) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    space = " " * (indent + 1)
    return f"{first}\n" + ",\n".join(space + part for part in parts) + f"\n{' ' * indent}{last}"


def read_baseline(path: Path) -> Baseline:
    """What `write_baseline` wrote.

    Raises:
        LetheError: no such file, or not one that this version can compare with.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LetheError(
            f"there is no baseline {path}; make one: run_all.py --methods ... --check {path} --update-baseline"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LetheError(f"baseline {path} cannot be read ({error}); name a JSON file with --check") from error
    except (ValueError, RecursionError) as error:
        raise LetheError(f"baseline {path} is not JSON ({error}); take it from version control again") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise LetheError(
            f"baseline {path} has format {version!r}, and this version reads {FORMAT}; write it anew with "
            "--update-baseline and its command"
        )
    reader = _Reader(path)
    command = reader.texts(content, "command", "the file")
    unfit = [name for name in given(command) if name in _OF_THE_MACHINE]
    if unfit:
        option = "--" + unfit[0].replace("_", "-")
        raise reader.wrong("the file", f"the command holds {option}, which belongs to who runs it; take it out")
    return Baseline(
        command=command,
        given_again=reader.texts(content, "given_again", "the file"),
        commit=reader.text(content, "commit", "the file"),
        rows=tuple(reader.row(row) for row in reader.of(content, "rows", list, "the file")),
    )


@dataclass(frozen=True)
class _Reader:
    """Values from the file; what is missing or of another kind is told with the place where it should be."""

    path: Path

    def wrong(self, where: str, what: str) -> LetheError:
        return LetheError(f"baseline {self.path}, {where}: {what}; mend it, or write it anew with --update-baseline")

    def of(self, holder: Any, key: str, kind: type, where: str) -> Any:
        value = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(value, kind):
            raise self.wrong(where, f"{key!r} must be a {_KINDS[kind]}, got {value!r}")
        return value

    def text(self, holder: Any, key: str, where: str) -> str:
        return self.of(holder, key, str, where)

    def texts(self, holder: Any, key: str, where: str) -> tuple[str, ...]:
        values = self.of(holder, key, list, where)
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(where, f"{key!r} must be a list of texts, got {values!r}")
        return tuple(values)

    def number(self, holder: Any, key: str, where: str, *, least: float = -math.inf) -> float:
        value = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            bound = "" if least == -math.inf else f" of at least {least:g}"
            raise self.wrong(where, f"{key!r} must be a number{bound}, got {value!r}")
        return value

    def row(self, row: Any) -> ExpectedRow:
        method = self.text(row, "method", "one of the rows")
        where = f"row {method!r}"
        metrics = self.of(row, "metrics", dict, where)
        return ExpectedRow(
            model=self.text(row, "model", where),
            benchmark=self.text(row, "benchmark", where),
            protocol=self.text(row, "protocol", where),
            method=method,
            seeds=int(self.number(row, "seeds", where, least=1)),
            reference=self.of(row, "reference", bool, where),
            origin={str(name): str(value) for name, value in self.of(row, "origin", dict, where).items()},
            metrics={name: self.metric(metric, f"{where}, metric {name!r}") for name, metric in metrics.items()},
        )

    def metric(self, metric: Any, where: str) -> Expected:
        mean = self.number(metric, "mean", where)
        better = metric.get("higher_is_better")
        return Expected(
            mean=mean,
            sd=math.nan if metric.get("sd") is None else self.number(metric, "sd", where, least=0),
            n=int(self.number(metric, "n", where, least=0)),
            higher_is_better=None if better is None else self.of(metric, "higher_is_better", bool, where),
            deviations=self.number(metric, "deviations", where, least=0),
            floor=self.number(metric, "floor", where, least=0),
            tolerance=self.number(metric, "tolerance", where, least=0),
            elsewhere=self.number(metric, "elsewhere", where, least=0),
        )


_KINDS = {str: "text", list: "list", dict: "JSON object", bool: "true or false"}

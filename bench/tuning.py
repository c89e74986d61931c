"""Equal budgets: the same number of trials for every method, chosen on rows that no reported figure asks.

Knows no method: it is handed each method's trials, and what is asked and how it is judged (`bench/validation.py`). A
trial trains on the whole forget request with a seed of its own and is scored on the validation rows. Trials are cells
in OUT/tuning, with a record and a traceback each like all others, but in no leaderboard. Which of them belong together
stands in OUT/tuning/searches, so that tuning.csv can be written again without a model. The best one's fields become
those of the tuned method.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.data import collection
from bench.errors import LetheError
from bench.merged import merged
from bench.records import Metric
from bench.spec import MethodName, parse_methods
from bench.store import Record, json_text, read_json, write_text
from bench.tables import base_label, mean, natural

if TYPE_CHECKING:  # these load torch, and a report needs no model
    from bench.jobs import Job
    from bench.validation import Judge

SEARCHES = "searches"
"""The folder beside the runs of OUT/tuning, a file a search."""
SEED = 1000
"""Of every trial. No reported cell has it, so that none is chosen because it was lucky."""
REQUESTS = 3
"""Of a collection of requests whose figures are averaged (the targets of ORT), the first ones that trials are made
for: a method has the same fields for all of them."""
DIGITS = 6


class Configured(Protocol):
    """A method with a name and every field set."""

    @property
    def label(self) -> str: ...
    @property
    def method(self) -> Any: ...
    @property
    def recipe(self) -> str: ...
    @property
    def fields(self) -> dict[str, Any]: ...


class TrialsOf(Protocol):
    """The trials of a method, each with the fields that it varies, on a model of `depth` blocks."""

    def __call__(self, configured: Any, family: str, depth: int | None) -> Sequence[tuple[Mapping[str, Any], Any]]: ...


def drawn(points: Sequence[Mapping[str, Any]], number: int, key: str) -> list[Mapping[str, Any]]:
    """`number` different points of a grid, a pure function of the points and the key.

    Fewer points are the first ones of more, so that a search can be made longer.

    >>> drawn([{"lr": 1}, {"lr": 2}, {"lr": 3}], 2, "npo") == drawn([{"lr": 3}, {"lr": 2}, {"lr": 1}], 3, "npo")[:2]
    True
    """
    distinct = {json.dumps(point, sort_keys=True): point for point in points}
    if number > len(distinct):
        raise LetheError(
            f"{number} trials of {key} asked for, but its grid has {len(distinct)} points; use --tune {len(distinct)} "
            "or fewer for all methods, or set fewer of its fields yourself"
        )
    order = sorted(distinct, key=lambda text: hashlib.sha256(f"trial/{key}/{text}".encode()).digest())
    return [distinct[text] for text in order[:number]]


def marked(label: str, **marks: Any) -> str:
    """A label with more in its brackets.

    >>> marked("npo", tuned=8), marked("grun_npo[position=answer]", tuned=8)
    ('npo[tuned=8]', 'grun_npo[position=answer,tuned=8]')
    """
    [name] = parse_methods(label)
    return MethodName(name.base, tuple(sorted((*name.fields, *((k, str(v)) for k, v in marks.items()))))).label


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a method's grid, on one request or several."""

    number: int
    """From 1."""
    varied: Mapping[str, Any]
    cells: tuple[str, ...]
    """Ids, one a request."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """All trials of one method on one benchmark: what is stored of them besides their cells."""

    model: str
    protocol: str
    benchmark: str
    """Or the collection."""
    label: str
    """Of the method that is tuned."""
    tuned: str
    """Of the row that the best trial becomes: "npo[tuned=8]"."""
    trials: tuple[Trial, ...]
    originals: tuple[str, ...]
    """Cells of the model as it is on the same requests, in the order of every trial's."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A search that is to be made."""

    search: Search
    candidates: tuple[Configured, ...]
    """The method of every trial."""
    judge: "Judge"
    jobs: tuple["Job", ...]
    """The originals', then the trials'."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial went."""

    search: Search
    trial: Trial
    score: float
    """Mean over the requests; NaN where it failed or could not be computed."""
    parts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = math.nan
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A method with the fields of its best trial."""

    label: str
    method: Any
    fields: dict[str, Any]
    recipe: str


def results(search: Search, records: Mapping[str, Record], judge: "Judge") -> list[Result]:
    """What the records, by cell id, say of a search's trials, in their order."""
    before = [_metrics(records.get(cell)) for cell in search.originals]
    found = []
    for trial in search.trials:
        cells = [records.get(cell) for cell in trial.cells]
        done = [cell for cell in cells if cell is not None and cell.status == "complete"]
        if len(done) < len(cells):
            reasons = [_reason(cell.error) for cell in cells if cell is not None and cell.status == "failed"]
            found.append(Result(search=search, trial=trial, score=math.nan, failed=[*reasons, "it was not run"][0]))
            continue
        verdicts = [judge(_metrics(cell), b) for cell, b in zip(done, before, strict=True)]
        names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.parts))
        parts = {name: mean([verdict.parts.get(name, math.nan) for verdict in verdicts]) for name in names}
        holes = [name for name, value in parts.items() if math.isnan(value)]
        found.append(
            Result(
                search=search,
                trial=trial,
                score=mean([verdict.score for verdict in verdicts]),
                parts=parts,
                failed=f"{', '.join(holes)} could not be computed" if holes else "",
                seconds=mean([float(cell.record.get("wall_seconds", math.nan)) for cell in done]) * len(done),
            )
        )
    return found


def best(found: Sequence[Result]) -> Result | None:
    """The result with the highest score, of equals (0, mostly) the one with the better parts; None where none has one.

    >>> best([]) is None
    True
    """
    known = [result for result in found if not math.isnan(result.score)]
    return max(known, key=lambda r: (r.score, mean(list(r.parts.values()))), default=None)


def tuned(result: Result, configured: Configured) -> Tuned:
    """The method that a search ends with, that of its best trial, under a label that says how many trials it had."""
    search, trial = result.search, result.trial
    values = ", ".join(f"{k}={_shown(v)}" for k, v in trial.varied.items())
    parts = ", ".join(f"{name} {value:.3f}" for name, value in result.parts.items())
    recipe = (
        f"tuned: best of {len(search.trials)} trials ({configured.recipe}), number {trial.number} with {values}: "
        f"{result.score:.3f} on the validation rows ({parts})"
    )
    label = marked(search.label, tuned=len(search.trials))
    return Tuned(label=label, method=configured.method, fields=configured.fields, recipe=recipe)


def write_csv(path: Path, found: Sequence[Result]) -> None:
    """Every trial of every method: fields, score, what it is made of, seconds, and why it failed; `*` chosen."""
    parts = list(dict.fromkeys(name for result in found for name in result.parts))
    head = ["model", "protocol", "benchmark", "method", "tuned", "trial", "chosen", "fields"]
    rows: list[list[Any]] = [[*head, "score", *parts, "seconds", "failed", "cells"]]
    for result in found:
        search, trial = result.search, result.trial
        alike = [other for other in found if other.search is search]
        rows.append(
            [
                search.model,
                search.protocol,
                search.benchmark,
                search.label,
                search.tuned,
                trial.number,
                "*" if best(alike) is result else "",
                " ".join(f"{k}={_shown(v)}" for k, v in trial.varied.items()),
                _number(result.score),
                *(_number(result.parts.get(name, math.nan)) for name in parts),
                _number(round(result.seconds, 2)),
                result.failed,
                " ".join(trial.cells),
            ]
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def store_search(folder: Path, search: Search) -> None:
    """Which trials belong together, in OUT/tuning; the same search again is the same file."""
    text = json_text(search)
    slug = re.sub(r"[^A-Za-z0-9_=.]+", "-", f"{search.tuned}-{search.benchmark}").strip("-")[:80]
    write_text(folder / SEARCHES / f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json", text)


def report_trials(
    folders: Sequence[Path], out: Path, judge_of: Callable[[str], "Judge"], *, methods: Sequence[str] = ()
) -> list[str]:
    """tuning.csv in `out`, from the trials that several output folders hold, the methods in this order.

    A search that several folders have made is one, and a trial that worked out in any of them has worked out.

    Args:
        judge_of: how the trials on a benchmark are judged.

    Returns:
        What was written and what is missing there, a line each; none where nothing was tuned.

    Raises:
        LetheError: a damaged file, or two folders with different figures of one trial.
    """
    tried = [folder / "tuning" for folder in folders if (folder / "tuning" / "runs").is_dir()]
    records = {record.cell_id: record for record in merged(tried)}
    files = {path.name: path for folder in tried for path in sorted((folder / SEARCHES).glob("*.json"))}
    searches = sorted(map(_read_search, files.values()), key=lambda search: _place(search, methods))
    told = []
    if searches:
        found = [results(search, records, judge_of(search.benchmark)) for search in searches]
        write_csv(out / "tuning.csv", [result for several in found for result in several])
        told.append(f"wrote {out / 'tuning.csv'}")
    named = {cell for s in searches for cell in (*s.originals, *(cell for trial in s.trials for cell in trial.cells))}
    if unnamed := records.keys() - named:
        told.append(
            f"not in tuning.csv: {len(unnamed)} cells in {', '.join(map(str, tried))}, made before it was stored what "
            "they are trials of; the command that made them stores it and trains nothing again"
        )
    return told


def _read_search(path: Path) -> Search:
    try:
        stored = read_json(path)
        trials = [Trial(**{**trial, "cells": tuple(trial["cells"])}) for trial in stored["trials"]]
        return Search(**{**stored, "trials": tuple(trials), "originals": tuple(stored["originals"])})
    except (KeyError, TypeError) as error:
        raise LetheError(f"{path} is no search ({error}); delete it and repeat the command that made it") from error


def _place(search: Search, methods: Sequence[str]) -> tuple:
    """Where a search stands among others."""
    known = [methods.index(name) for name in (search.label, base_label(search.label)) if name in methods]
    at = [*known, len(methods)][0]
    return search.model, search.protocol, natural(search.benchmark), at, search.label, natural(search.tuned)


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """The requests to be tuned on by what they are tuned for: of a collection the first ones.

    >>> grouped(["tofu/forget10", "ort/1_A", "ort/2_B", "ort/3_C", "ort/4_D"])
    {'tofu/forget10': ['tofu/forget10'], 'ort': ['ort/1_A', 'ort/2_B', 'ort/3_C']}
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(collection(name), []).append(name)
    return {name: members[:REQUESTS] for name, members in groups.items()}


def _metrics(record: Record | None) -> dict[str, Metric]:
    return {} if record is None else {m.name: m for metrics in record.metrics.values() for m in metrics}


def _reason(traceback: str) -> str:
    lines = traceback.strip().splitlines()
    return lines[-1].strip() if lines else "it failed"


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.{DIGITS}g}"

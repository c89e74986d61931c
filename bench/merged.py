"""The records of several machines' folders as one list: a cell is one, wherever its parts were evaluated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import LetheError
from bench.records import FLUENCY, JUDGED_BY, Metric
from bench.store import Record, records_of

Figures = dict[tuple[str, str], tuple[Metric, Path, Mapping[str, Any]]]
"""(evaluator, metric) -> a figure, the folder that it is from, and the settings that it was taken with there."""


def merged(folders: Sequence[Path]) -> list[Record]:
    """Every cell of the folders, by cell id.

    A cell that is in several folders is one, complete where it is complete anywhere, with every figure that any of them
    has: those of an evaluator, or of a part of it, that only one has asked, and those that others had to leave missing.

    Raises:
        LetheError: two folders hold different figures under one cell id.
    """
    found: dict[str, Record] = {}
    figures: dict[str, Figures] = {}
    for folder in folders:
        for record in records_of(folder):
            known = found.get(record.cell_id)
            if known is None or (known.status != "complete" and record.status == "complete"):
                found[record.cell_id] = record
            if record.status == "complete":
                _add(figures.setdefault(record.cell_id, {}), record, folder)
    return [_with(found[cell_id], figures.get(cell_id, {})) for cell_id in sorted(found)]


def _add(figures: Figures, record: Record, folder: Path) -> None:
    """What a folder knows of a cell, beside what others do."""
    for evaluator, metrics in record.metrics.items():
        settings = record.settings.get(evaluator, {})
        for metric in metrics:
            before = figures.get((evaluator, metric.name))
            if before is None or (before[0].missing and not metric.missing):
                figures[evaluator, metric.name] = metric, folder, settings
            elif not metric.missing and not _same(before[0].value, metric.value):
                raise _disagree(record.cell_id, metric, before, folder, settings)


def _with(record: Record, figures: Figures) -> Record:
    """The record with these figures; of a setting that folders tell differently the first, but for who judged."""
    metrics: dict[str, list[Metric]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for (evaluator, name), (metric, _, theirs) in figures.items():
        metrics.setdefault(evaluator, []).append(metric)
        mine = settings.setdefault(evaluator, {})
        mine |= {**theirs, **mine}
        if name == FLUENCY and JUDGED_BY in theirs:
            mine[JUDGED_BY] = theirs[JUDGED_BY]
    return replace(record, metrics=metrics, settings=settings) if figures else record


def _disagree(
    cell: str, metric: Metric, before: tuple[Metric, Path, Mapping[str, Any]], folder: Path, settings: Mapping[str, Any]
) -> LetheError:
    other, where, theirs = before
    judges = theirs.get(JUDGED_BY), settings.get(JUDGED_BY)
    if metric.name == FLUENCY and judges[0] != judges[1]:
        return LetheError(
            f"cell {cell} has a fluency judged by {judges[0]} in {where} and by {judges[1]} in {folder}; "
            "judge both by one, with --set tofu.fluency_classifier=..."
        )
    return LetheError(
        f"cell {cell} has {metric.name} {other.value!r} in {where} and {metric.value!r} in {folder}; "
        "one of them is not what its id says: take the wrong one away and report again"
    )


def _same(one: float, other: float) -> bool:
    """Another processor may round otherwise; no more than that."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12)

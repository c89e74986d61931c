"""TOFU rows as open-unlearning's files, and published logs as cells.

`TOFU_EVAL.json` and `TOFU_SUMMARY.json` are what open-unlearning (https://github.com/locuslab/open-unlearning,
src/evals/base.py at d3d7cf9) writes for a model: the first has for every metric an `agg_value` and, where it is a mean
over rows, `value_by_index` with a dict per row number; the second has the aggregates alone. That suite reads the first
one back to compare a model with a retrained one: `forget_truth_ratio` row by row for forget quality, the aggregate of
`mia_min_k` for privleak.

Aggregates are the metrics as this suite stored them, so under the protocol `strict` they deviate as
`evaluators/tofu.py` says; what is missing is null and absent from the summary, never a mean over the rows that are
left. `prob` is exp(-avg_loss). A truth ratio that is beyond the largest float is written as the largest float, so that
ranks, all that forget quality looks at, stay. The prompts are the questions without the template.

The key "lethe" says where a log comes from, which protocol it follows and what that means, why an aggregate is missing,
and keeps, by set and row number, the fields that the format has no place for: with them `evaluators/logs.py` reads the
same rows again, to the last bit. open-unlearning takes from a log the metrics that it was asked for, by their names
(`Evaluator.summarize`, and the list of keys for a reference), so another key is carried along and never looked at.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import data, provenance
from bench.cache import file_sha256
from bench.classifier import GIBBERISH as OPEN_UNLEARNING_CLASSIFIER
from bench.data import tofu as splits
from bench.errors import LetheError, unknown
from bench.published import ImportOptions, PublishedCell
from bench.records import FLUENCY, JUDGED_BY, Metric
from bench.spec import Cell
from bench.store import Record, RunStore, read_json, read_jsonl, write_json
from evaluators import fluency, metrics
from evaluators.logs import (
    ATTACKS,
    GIBBERISH,
    LETHE,
    LETHE_FORMAT,
    OPEN_UNLEARNING_SETS,
    TEXTS,
    WITHOUT_PARAPHRASES,
    lethe_part,
    load_log,
    open_unlearning_entries,
    read_published_log,
    read_reference_log,
)
from evaluators.rows import Row, by_set
from evaluators.tofu import PROTOCOLS, TofuEvaluator

EVAL, SUMMARY = "TOFU_EVAL.json", "TOFU_SUMMARY.json"

SET_AGGREGATES = {
    "Q_A_ROUGE": "rouge_l_recall",
    "Q_A_Prob": "probability",
    "Q_A_Prob_normalised": "probability",
    "Truth_Ratio": "truth_ratio",
}
"""Name of an entry behind its set -> of our metric; the plain probability of the real sets is ..._probability_raw."""

ALONE = ("forget_quality", "model_utility", "privleak")
"""Metrics without rows; called the same in both suites."""

SUMMARISED = (
    *("exact_memorization", "extraction_strength", "forget_Q_A_Prob", "forget_Q_A_ROUGE"),
    *(GIBBERISH, "forget_quality", *ATTACKS, "model_utility", "privleak"),
)
"""What the published summaries hold: the metrics that are reported, not those that only go into others."""

STRICT = (
    "no 1e-10 is added to denominators",
    "extraction strength is 0 where nothing is extracted, and a row without tokens has none",
    "the last label counts as the terminator only if it is one",
    "ROUGE compares with the text of the file, spaces before punctuation included",
    "privleak only against a retrained model, never against an AUC of 0.5",
)
"""How the protocol `strict` deviates, in words for whoever finds such a log."""

ALWAYS = (
    "an aggregate is null where any of its rows has no value",
    "input is the question without the prompt template",
    "a truth ratio beyond the largest float is written as the largest float",
)


# --- writing ----------------------------------------------------------------------------------------------------


def export_runs(out: Path, to: Path) -> list[Path]:
    """Write both files for every complete TOFU cell below `out`, each into `to`/<cell id>; the folders.

    Raises:
        LetheError: there is no such cell, rows are damaged, or `to` cannot be written to.
    """
    store = RunStore(out)
    written = []
    for record in store.records():
        samples = store.path(record.cell_id) / "samples" / f"{TofuEvaluator.name}.jsonl"
        if record.status != "complete" or TofuEvaluator.name not in record.metrics or not samples.is_file():
            continue
        settings = read_json(store.path(record.cell_id) / "metrics" / f"{TofuEvaluator.name}.json").get("settings")
        log, summary = open_unlearning_log(record, read_jsonl(samples), settings or {})
        folder = to / record.cell_id
        write_json(folder / EVAL, log)
        write_json(folder / SUMMARY, summary)
        written.append(folder)
    if not written:
        raise LetheError(
            f"{out} holds no finished TOFU cell with its rows (runs/<cell id>/samples/tofu.jsonl); "
            "give the folder in which a TOFU benchmark was run"
        )
    return written


def open_unlearning_log(
    record: Record, rows: Sequence[Row], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    """What both files hold of a cell.

    Args:
        rows: of `TofuEvaluator.score`, or of a published log.
        settings: how they were scored, as stored with the metrics.
    """
    protocol = str(record.spec.get("protocol"))
    found = {metric.name: metric for metric in record.metrics[TofuEvaluator.name]}
    sets = by_set(rows)
    log: dict[str, Any] = {}
    placed: dict[str, set[str]] = {}
    for name in OPEN_UNLEARNING_SETS:
        if sets.get(name):
            entries, placed[name] = _entries(name, sets[name], protocol)
            log |= entries
    for attack in ATTACKS:
        sides = {side: sets[side] for side in ("forget", "holdout") if _has(sets.get(side, ()), attack)}
        if "holdout" in sides:
            log[attack] = {side: _entry(members, partial(_score, attack)) for side, members in sides.items()}
            for side in sides:
                placed.setdefault(side, set()).add(attack)
    missing: dict[str, str] = {}
    for key, name in _aggregates(log, found).items():
        metric = found.get(name)
        log.setdefault(key, {})["agg_value"] = _aggregate(metric)
        if key in ATTACKS:
            log[key]["auc"] = _aggregate(metric)
        if metric is None or metric.missing:
            missing[key] = metric.reason if metric else "not among the metrics of this cell"
    part = {
        "format": LETHE_FORMAT,
        "cell": dict(record.spec),
        "code": record.record.get("code"),
        "published_log": record.record.get("published_log"),
        "settings": dict(settings),
        "deviations": [*(STRICT if protocol == "strict" else ()), *ALWAYS],
        "missing": missing,
        "without": {name: _invented(name, sets[name], placed.get(name, set())) for name in sets},
        "rows": {name: _rest(sets[name], placed.get(name, set())) for name in sets},
    }
    summary = {key: log[key]["agg_value"] for key in SUMMARISED if log.get(key, {}).get("agg_value") is not None}
    return dict(sorted({**log, LETHE: part}.items())), dict(sorted(summary.items()))


def _entries(name: str, rows: Sequence[Row], protocol: str) -> tuple[dict[str, Any], set[str]]:
    """The entries of a set, and which fields of its rows they hold."""
    _check_alike(name, rows)
    prefix, log, placed = OPEN_UNLEARNING_SETS[name], {}, set()
    for key, fields in open_unlearning_entries(name).items():
        there = {field for field in fields if field in rows[0]}
        placed |= there
        if there and not (key.endswith("_PARA_Prob") and _answer_stands_in(name, rows)):
            log[key] = _entry(rows, partial(_judged if key == GIBBERISH else _value, fields))
    eps = 1e-10 if protocol == "openunlearning" else 0.0
    if {"answer_nll", "perturbed_nll"} <= rows[0].keys() and name in WITHOUT_PARAPHRASES:
        log[f"{prefix}_Q_A_Prob_normalised"] = _entry(rows, partial(_normalised, eps))
    if {"paraphrased_nll", "perturbed_nll"} <= rows[0].keys():
        log["forget_truth_ratio" if name == "forget" else f"{prefix}_Truth_Ratio"] = _entry(rows, partial(_ratio, eps))
    return log, placed


def _entry(rows: Sequence[Row], value: Callable[[Row], dict[str, Any]]) -> dict[str, Any]:
    """One metric with its rows; the mean where it is a plain one, which `_aggregates` replaces by the stored figure."""
    values = [value(row) for row in rows]
    numbers = [entry.get("prob", entry.get("score")) for entry in values]
    means = [_mean(number) if isinstance(number, list) else number for number in numbers]
    return {"agg_value": _mean(means), "value_by_index": {str(i): entry for i, entry in enumerate(values)}}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    try:
        return math.fsum(known) / len(known)
    except OverflowError:  # truth ratios of a collapsed model may be as large as floats are
        return math.fsum(value / len(known) for value in known)


def _value(fields: Mapping[str, str], row: Row) -> dict[str, Any]:
    value = {theirs: row.get(ours, "" if ours in TEXTS else None) for ours, theirs in fields.items()}
    if "avg_loss" not in value:
        return value
    nll = value["avg_loss"]
    return {"prob": [_probability(x) for x in nll] if isinstance(nll, list) else _probability(nll), **value}


def _judged(fields: Mapping[str, str], row: Row) -> dict[str, Any]:
    """With the text that was judged, as that suite writes it; it is read from the entry of ROUGE."""
    return {**_value(fields, row), "generation": row.get("generation", "")}


def _score(field: str, row: Row) -> dict[str, Any]:
    return {"score": row.get(field)}


def _probability(nll: float | None) -> float | None:
    return None if nll is None else metrics.probability(nll)


def _normalised(eps: float, row: Row) -> dict[str, Any]:
    nll, wrong = row["answer_nll"], row["perturbed_nll"]
    if nll is None or not wrong or None in wrong:
        return {"prob": None}
    return {"prob": metrics.normalised_probability(nll, wrong, eps=eps)}


def _ratio(eps: float, row: Row) -> dict[str, Any]:
    nll, wrong = row["paraphrased_nll"], row["perturbed_nll"]
    if nll is None or not wrong or None in wrong:
        return {"score": None}
    log_ratio = metrics.log_truth_ratio(nll, wrong, eps=eps)
    return {"score": sys.float_info.max if log_ratio > math.log(sys.float_info.max) else math.exp(log_ratio)}


def _aggregates(log: Mapping[str, Any], found: Mapping[str, Metric]) -> dict[str, str]:
    """Name of an entry -> of our metric, for all that this suite reports."""
    names = {key: key for key in (*ALONE, *ATTACKS) if key in log or key in found}
    names |= {key: key for key in ("extraction_strength", "exact_memorization", "forget_truth_ratio") if key in log}
    names |= {GIBBERISH: FLUENCY} if GIBBERISH in log else {}
    if "forget_Q_A_PARA_Prob" in log:
        names["forget_Q_A_PARA_Prob"] = "forget_paraphrased_probability"
    for name, prefix in OPEN_UNLEARNING_SETS.items():
        for end, metric in SET_AGGREGATES.items():
            raw = "_raw" if end == "Q_A_Prob" and name in WITHOUT_PARAPHRASES else ""
            if f"{prefix}_{end}" in log:
                names[f"{prefix}_{end}"] = f"{name}_{metric}{raw}"
    return names


def _aggregate(metric: Metric | None) -> float | None:
    return None if metric is None or metric.missing else metric.value


def _has(rows: Sequence[Row], field: str) -> bool:
    return bool(rows) and field in rows[0]


def _answer_stands_in(name: str, rows: Sequence[Row]) -> bool:
    """Whether a set has no paraphrases of its own; then the published logs have no entry for them either."""
    return name in WITHOUT_PARAPHRASES and all(
        row.get("paraphrased_nll") == row.get("answer_nll") and "answer_nll" in row for row in rows
    )


def _check_alike(name: str, rows: Sequence[Row]) -> None:
    fields = {field for entry in open_unlearning_entries(name).values() for field in entry}
    for row in rows:
        if odd := (row.keys() ^ rows[0].keys()) & fields:
            raise LetheError(
                f"the {name} rows {rows[0].get('example_id')!r} and {row.get('example_id')!r} differ in {min(odd)!r}, "
                "which only one of them has; evaluate the cell again: run_all.py with the same options and --fresh"
            )


def _invented(name: str, rows: Sequence[Row], placed: set[str]) -> list[str]:
    """What a reader of the format finds in the rows of a set though they have no such field."""
    if name not in OPEN_UNLEARNING_SETS:
        return []
    offered = {
        field for entry in open_unlearning_entries(name).values() if placed.intersection(entry) for field in entry
    }
    if name in WITHOUT_PARAPHRASES:
        offered.add("paraphrased_nll")
    return sorted(offered - rows[0].keys())


def _rest(rows: Sequence[Row], placed: set[str]) -> dict[str, Row]:
    held = placed | {"set"}
    return {str(i): {key: value for key, value in row.items() if key not in held} for i, row in enumerate(rows)}


# --- reading ----------------------------------------------------------------------------------------------------

SIZES = {"tofu/forget01": 40, "tofu/forget05": 200, "tofu/forget10": 400}
"""Questions of each split's forget set."""
TOFU_STOPS_AT = 300
"""TOFU's own evaluation looks at no more rows of a set (`ds_size` of its configuration)."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a log says about itself; nothing but its rows unless this suite wrote it."""

    model: str = ""
    benchmark: str = ""
    protocol: str = ""
    seed: int = 0


def origin(path: Path) -> Origin:
    """What a log says about itself, checked."""
    part = lethe_part(load_log(path), path)
    cell = part.get("cell", {})
    told = {key: cell.get(key, "") for key in ("model", "benchmark", "protocol")}
    seed = cell.get("seed", 0)
    if not all(isinstance(text, str) for text in told.values()) or type(seed) is not int:
        raise LetheError(f"{path}, {LETHE}: its cell is damaged ({cell!r:.120}); export the run again")
    return Origin(**told, seed=seed)


def published_cell(asked: ImportOptions) -> PublishedCell:
    """A published log as a cell: its rows, and their metrics beside those of the retrained model's log if one is given.

    Raises:
        LetheError: no log, or one that is not of the benchmark that was asked for.
    """
    rows = read_published_log(asked.log)
    about = origin(asked.log)
    benchmark = _benchmark(asked, about, len(by_set(rows).get("forget", ())))
    loaded = data.load(benchmark, asked.data) if asked.data is not None else None
    if loaded is not None:
        read_reference_log(asked.log, loaded)
    protocol = _protocol(asked, about)
    reference = None if asked.retrained is None else _reference(asked, asked.retrained, rows)
    retrained = "" if asked.retrained is None else f"log@{file_sha256(asked.retrained)[:16]}"
    fingerprint = loaded.fingerprint if loaded is not None else ""
    digest = file_sha256(asked.log)
    cell = Cell(
        model=asked.model or about.model or asked.name,
        model_hash=digest,
        retrained=retrained,
        benchmark=benchmark,
        data_hash=fingerprint,
        method=asked.name,
        seed=about.seed,
        protocol=protocol,
        template="",
        dtype="",
        device="",
        note="published log",
    )
    return PublishedCell(
        cell=cell,
        evaluator=TofuEvaluator.name,
        rows=rows,
        metrics=TofuEvaluator(protocol=protocol).summarize(rows, reference),  # type: ignore[arg-type]
        settings={
            "protocol": protocol,
            "benchmark": benchmark,
            "data": fingerprint,
            "reference": retrained or None,
            **_judged_by(asked.log, rows),
        },
        facts={
            "published_log": asked.log.name,
            "log_sha256": digest,
            "retrained_log": asked.retrained.name if asked.retrained else None,
            "data_source": f"rows of {asked.log.name}",
            "code": provenance.code_version(),
            "versions": provenance.versions(),
        },
    )


def _judged_by(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Which classifier gave the fluency: what our own logs tell, or open-unlearning's default, which its do not."""
    if not any(row.get("fluency") is not None for row in rows):
        return {}
    told = lethe_part(load_log(path), path).get("settings", {})
    default = {fluency.CLASSIFIER: OPEN_UNLEARNING_CLASSIFIER.partition("@")[0]}
    return {JUDGED_BY: told.get(JUDGED_BY) or default}


def _benchmark(asked: ImportOptions, about: Origin, count: int) -> str:
    """The split of a log: what it says itself, or what the number of its forget questions leaves."""
    if about.benchmark:
        if asked.benchmark and data.full_name(asked.benchmark) != about.benchmark:
            raise LetheError(f"{asked.log} is of {about.benchmark}, not of {asked.benchmark}; leave --benchmark out")
        return about.benchmark
    known = splits.known()
    fitting = [name for name in known if count in (SIZES[name], min(SIZES[name], TOFU_STOPS_AT))]
    if not asked.benchmark and len(fitting) == 1:
        return fitting[0]
    name = data.full_name(asked.benchmark) if asked.benchmark else splits.DEFAULT
    if name not in known:
        raise unknown("--benchmark", name, known)
    if name not in fitting and asked.data is None:
        sizes = ", ".join(f"{size} ({split})" for split, size in SIZES.items())
        raise LetheError(
            f"{asked.log} has {count} forget questions, so it is not of {name}: the splits have {sizes}, of which "
            f"TOFU's own logs keep {TOFU_STOPS_AT}; name the right --benchmark, or --data DIR with the log's questions"
        )
    return name


def _protocol(asked: ImportOptions, about: Origin) -> str:
    if about.protocol and asked.protocol and asked.protocol != about.protocol:
        raise LetheError(f"{asked.log} was scored under --protocol {about.protocol}; leave the option out")
    protocol = asked.protocol or about.protocol or "openunlearning"
    if protocol not in PROTOCOLS:
        raise unknown("--protocol", protocol, PROTOCOLS)
    return protocol


def _reference(asked: ImportOptions, path: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows of the retrained model's log, which must be of as many forget questions; `summarize` compares them."""
    reference = read_published_log(path)
    mine, theirs = (by_set(of).get("forget", []) for of in (rows, reference))
    if len(mine) != len(theirs):
        raise LetheError(
            f"{path} is of another split than {asked.log}: it has {len(theirs)} forget questions, the other "
            f"{len(mine)}; give the log of the model that was trained without those questions"
        )
    if not all(row.get("question") for row in mine):
        raise LetheError(
            f"{asked.log} does not say which questions it is about (it has no ROUGE rows), so it cannot be compared "
            "with a retrained model; leave --retrained out"
        )
    return reference

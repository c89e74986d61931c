"""What models answered, side by side: the rows of samples/<evaluator>.jsonl as blocks that a page can show.

Knows no evaluator: what a row calls its question, its reference and its answer is looked up among the names in use.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.store import Record, read_jsonl
from bench.tables import Table, natural, spec_of

Stored = dict[str, Any]

PER_SET = 200
"""Questions of a set that a page shows, evenly spread over the file."""
PER_EVALUATOR = 2000
"""The same of all sets of an evaluator together: MMLU has 57."""
TARGETS = 20
"""The same of the targets that a table averages over."""
GATES = "gates"
"""samples/gates.jsonl holds gate values, not answers: {set, layer, value}."""

_QUESTION = ("question", "query", "prompt", "text")
_REFERENCE = ("reference", "answer", "target")
_ANSWER = ("generation", "prediction", "chosen", "responses")
_NO_FIGURE = ("answer", "chosen", "duplicate", "made", "name_in", "target", "prompt_truncated", "shots_dropped")


def file_of(record: Record, folders: Sequence[Path], name: str) -> Path | None:
    """A file of a cell, in the first of the output folders that has it: each may have evaluated something else."""
    kind = "runs" if record.status == "complete" else "failed"
    return next((path for out in folders if (path := out / kind / record.cell_id / name).is_file()), None)


def rows_of(record: Record, folders: Sequence[Path], name: str) -> list[Stored]:
    """The rows of samples/<name>.jsonl; none where the cell has no such file."""
    path = file_of(record, folders, f"samples/{name}.jsonl")
    return [] if path is None else read_jsonl(path)


def train_log(record: Record, folders: Sequence[Path]) -> list[Stored]:
    """The rows of train.jsonl; none for a cell without training."""
    path = file_of(record, folders, "train.jsonl")
    return [] if path is None else read_jsonl(path)


def learning_curve(record: Record, folders: Sequence[Path]) -> list[Stored]:
    """A row {step, metric: value, ...} for every look at a model while it trained (curve.jsonl); none without looks."""
    path = file_of(record, folders, "curve.jsonl")
    steps: dict[int, Stored] = {}
    for line in [] if path is None else read_jsonl(path):
        steps.setdefault(line["step"], {"step": line["step"]})[line["metric"]] = line["value"]
    return list(steps.values())


def evaluators_of(table: Table) -> list[str]:
    return list(dict.fromkeys(name for row in table.rows for record in row.records for name in record.metrics))


def log_truth_ratio(row: Mapping[str, Any]) -> float:
    """log r, r = exp(-mean_k nll(wrong_k)) / p(paraphrase); NaN for a row without either."""
    right, wrong = row.get("paraphrased_nll"), row.get("perturbed_nll")
    if not isinstance(right, int | float) or not isinstance(wrong, list) or not wrong or None in wrong:
        return math.nan
    return right - math.fsum(wrong) / len(wrong)


def truth_ratios(table: Table, folders: Sequence[Path]) -> dict[str, list[list[float]]]:
    """Method -> complete cell -> log truth ratios of its forget rows; without methods that have none."""
    found: dict[str, list[list[float]]] = {}
    cells = [(row.method, record) for row in table.rows for record in row.records]
    for name in evaluators_of(table):
        for method, record in cells:
            rows = rows_of(record, folders, name)
            if rows and not any("paraphrased_nll" in r for r in rows):
                break  # no cell's rows of this evaluator have one
            values = [v for r in rows if r.get("set") == "forget" and not math.isnan(v := log_truth_ratio(r))]
            if values:
                found.setdefault(method, []).append(values)
    return found


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spread, the first among them."""
    if len(items) <= most:
        return list(items)
    return [items[place * len(items) // most] for place in range(most)]


def blocks(table: Table, folders: Sequence[Path], *, per_set: int = PER_SET) -> Iterator[Stored]:
    """For every evaluator of a table, the questions it asked and what each method made of them, of the first seed.

    A block is {evaluator, seeds, methods, metrics, sets, rows}: `sets` says how many of how many questions are there,
    a row is {set, id, question, reference, answers, values} with an answer and a list of figures for every method,
    null where it was not asked.
    """
    for evaluator in evaluators_of(table):
        asked, seeds = _asked(table, folders, evaluator)
        if not asked:
            continue
        keys = list(dict.fromkeys(key for rows in asked.values() for key in rows))
        by_set: dict[str, list[tuple[str, str, int]]] = {}
        for key in keys:
            by_set.setdefault(key[0], []).append(key)
        most = max(1, min(per_set, PER_EVALUATOR // len(by_set)))
        chosen = [key for members in by_set.values() for key in spread(members, most)]
        metrics = list(
            dict.fromkeys(m for rows in asked.values() for key in chosen if key in rows for m in figures(rows[key]))
        )
        yield {
            "evaluator": evaluator,
            "seeds": seeds,
            "methods": list(asked),
            "metrics": metrics,
            "sets": {
                name: {"shown": min(most, len(members)), "total": len(members)} for name, members in by_set.items()
            },
            "rows": [_row(key, [rows.get(key) for rows in asked.values()], metrics) for key in chosen],
        }


def _asked(
    table: Table, folders: Sequence[Path], evaluator: str
) -> tuple[dict[str, dict[tuple[str, str, int], Stored]], dict[str, str]]:
    """Method -> (set, question, how many alike came before) -> row; and the seed of each method."""
    targets = set(spread(table.targets, TARGETS))
    asked: dict[str, dict[tuple[str, str, int], Stored]] = {}
    seeds: dict[str, str] = {}
    for row in table.rows:
        for record in row.records:  # by seed, then by benchmark
            seed = spec_of(record, "seed")
            if row.method in seeds and seeds[row.method] != seed:
                continue
            if targets and spec_of(record, "benchmark") not in targets:
                continue
            if rows := rows_of(record, folders, evaluator):
                seeds[row.method] = seed
                mine = asked.setdefault(row.method, {})
                alike: Counter[tuple[str, str]] = Counter()
                for stored in rows:
                    name, text = set_of(stored), _first(stored, _QUESTION) or str(stored.get("example_id", ""))
                    where = f"{spec_of(record, 'benchmark')}\n{text}" if targets else text
                    mine[name, where, alike[name, where]] = stored
                    alike[name, where] += 1
    return asked, seeds


def set_of(row: Mapping[str, Any]) -> str:
    """forget, retain, ...; of one fact asked in several forms the part and the form."""
    if "set" in row:
        return str(row["set"])
    return " ".join(str(row[key]) for key in ("part", "form") if key in row) or "all"


def _row(key: tuple[str, str, int], rows: Sequence[Stored | None], metrics: Sequence[str]) -> Stored:
    known = next(row for row in rows if row is not None)
    figured = [None if row is None else figures(row) for row in rows]
    return {
        "set": key[0],
        "id": str(known.get("example_id", "")),
        "question": _question(known),
        "reference": _reference(known),
        "answers": [None if row is None else _answer(row) for row in rows],
        "values": [None if mine is None else [mine.get(name) for name in metrics] for mine in figured],
    }


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((_text(row[name]) for name in names if row.get(name) is not None), "")


def _text(value: Any) -> str:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _question(row: Mapping[str, Any]) -> str:
    options = row.get("choices") or row.get("options") or []
    listed = "".join(f"\n{chr(65 + place)}. {option}" for place, option in enumerate(options) if len(options) <= 26)
    return _first(row, _QUESTION) + listed


def _reference(row: Mapping[str, Any]) -> str:
    return _option(row, row.get("answer")) or _first(row, _REFERENCE)


def _answer(row: Mapping[str, Any]) -> str | None:
    """What was said or chosen; null where the model was only asked how likely the reference is."""
    letters = row.get("letter_logp")
    if isinstance(letters, list) and letters and None not in letters:
        return chr(65 + max(range(len(letters)), key=letters.__getitem__))
    return _option(row, row.get("chosen")) or _first(row, _ANSWER) or None


def _option(row: Mapping[str, Any], place: Any) -> str:
    choices = row.get("choices")
    if not isinstance(choices, list) or type(place) is not int or not 0 <= place < len(choices):
        return ""
    return f"{chr(65 + place)}. {choices[place]}"


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row, to four digits: those under `metrics` too, truth as 0 and 1, the truth ratio added."""
    nested = row.get("metrics")
    every = {**row, **(nested if isinstance(nested, Mapping) else {})}
    found = {
        name: float(value)
        for name, value in every.items()
        if isinstance(value, int | float) and name not in _NO_FIGURE and not name.endswith(("_tokens", "_truncated"))
    }
    ratio = log_truth_ratio(row)
    if not math.isnan(ratio):
        found["log10_truth_ratio"] = ratio / math.log(10)
    return {name: float(f"{value:.4g}") for name, value in found.items() if math.isfinite(value)}


def by_seed(records: Sequence[Record]) -> list[str]:
    return sorted({spec_of(record, "seed") for record in records}, key=natural)

"""Published evaluation logs as rows of the TOFU evaluator.

Two formats: `TOFU_EVAL.json` of open-unlearning (https://github.com/locuslab/open-unlearning; per metric an
`agg_value` and a `value_by_index`) and `eval_log_aggregated.json` of TOFU (https://github.com/locuslab/tofu; per
question set a column of values by row number). The rows serve as the retrained reference of `TofuEvaluator.summarize`
and as rows of a leaderboard.

What a log cannot tell: its questions are kept inside the prompt template of the model that was evaluated, and its
extraction strength has the floor of 1 / T that open-unlearning gives it, under every protocol.
"""

import json
import math
from pathlib import Path
from typing import Any

from bench.data.types import Benchmark
from bench.errors import LetheError
from evaluators.rows import by_set, same_questions

Rows = dict[int, dict[str, Any]]

OPEN_UNLEARNING_SETS = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
TOFU_SETS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
FORGET_SCORES = ("extraction_strength", "exact_memorization")
TEXTS = ("question", "reference", "generation")
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


def read_published_log(path: Path | str) -> list[dict]:
    """Rows of `TOFU_EVAL.json` or `eval_log_aggregated.json`, set by set in the order of their row numbers."""
    path = Path(path)
    log = _load(path)
    if any(name in log for name in TOFU_SETS.values()):
        by_set = {name: _tofu_set(log, key, path) for name, key in TOFU_SETS.items()}
    elif any(isinstance(value, dict) and "value_by_index" in value for value in log.values()):
        by_set = {name: _open_unlearning_set(log, name, prefix, path) for name, prefix in OPEN_UNLEARNING_SETS.items()}
        by_set["holdout"] = _attacked(log, "holdout", {}, path)
    else:
        by_set = {}
    rows = [
        {"set": name, "example_id": f"log/{name}/{index}", **by_set[name][index]}
        for name in by_set
        for index in sorted(by_set[name])
    ]
    if not rows:
        raise LetheError(
            f"{path} is no evaluation log with values per example: expected open-unlearning's TOFU_EVAL.json "
            f"(not TOFU_SUMMARY.json) or TOFU's eval_log_aggregated.json, found the keys {_some(log)}"
        )
    return rows


def read_reference_log(path: Path | str, benchmark: Benchmark, *, limited: bool = False) -> list[dict]:
    """The rows of a log that is to be the gold standard of a benchmark.

    Args:
        limited: the benchmark holds only the first rows of its sets.

    Raises:
        LetheError: the forget questions of the log are not those of the benchmark: it is of another split.
    """
    rows = read_published_log(path)
    forget = by_set(rows).get("forget", [])
    asked = [{"question": qa.question} for qa in benchmark.eval_sets["forget"]]
    try:
        found = {row["example_id"] for row in same_questions("forget", asked, forget)}
    except LetheError as error:
        raise LetheError(f"{path} cannot be the gold standard of {benchmark.name}: {error}") from None
    # The log of a larger split holds the questions too, but its model was trained without more than those.
    if found != {row["example_id"] for row in forget[: len(asked)]} or (not limited and len(asked) != len(forget)):
        raise LetheError(
            f"{path} is of another split than {benchmark.name}: it has {len(forget)} forget questions, of which the "
            f"{len(asked)} of {benchmark.name} are only a part; give the log of the model that was trained without them"
        )
    return rows


def _load(path: Path) -> dict[str, Any]:
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LetheError(f"cannot read the evaluation log {path}: {error.strerror or error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LetheError(f"{path} is not valid JSON ({error}); it may be truncated, fetch it again") from None
    if not isinstance(log, dict):
        raise LetheError(f"{path} is no evaluation log: expected an object at the top, found {type(log).__name__}")
    return log


# --- open-unlearning --------------------------------------------------------------------------------------------


def _open_unlearning_set(log: dict[str, Any], name: str, prefix: str, path: Path) -> Rows:
    rows: Rows = {}
    _add(rows, log, f"{prefix}_Q_A_ROUGE", {
        "question": "input", "reference": "ground_truth", "generation": "generation",
        "rouge_l_recall": "rougeL_recall", "rouge_l_f1": "rougeL_f1", "rouge_1_recall": "rouge1_recall",
    }, path)  # fmt: skip
    _add(rows, log, f"{prefix}_Q_A_Prob", {"answer_nll": "avg_loss"}, path)
    _add(rows, log, f"{prefix}_Q_A_PARA_Prob", {"paraphrased_nll": "avg_loss"}, path)
    _add(rows, log, f"{prefix}_Q_A_PERT_Prob", {"perturbed_nll": "avg_loss"}, path)
    if name in ("real_authors", "world_facts"):  # these sets have no paraphrases; the answer stands in
        for row in rows.values():
            row.setdefault("paraphrased_nll", row.get("answer_nll"))
    if name == "forget":
        for score in FORGET_SCORES:
            _add(rows, log, score, {score: "score"}, path)
        for row in rows.values():
            if "exact_memorization" in row and row["exact_memorization"] is None:
                row["memorization_tokens"] = 0  # the only case in which that suite leaves the score out
        _attacked(log, "forget", rows, path)
    return rows


def _attacked(log: dict[str, Any], side: str, rows: Rows, path: Path) -> Rows:
    """Add the membership scores of one side, "forget" or "holdout"."""
    for attack in ATTACKS:
        sides = log.get(attack)
        if isinstance(sides, dict) and isinstance(sides.get(side), dict):
            _add(rows, {f"{attack}.{side}": sides[side]}, f"{attack}.{side}", {attack: "score"}, path)
    return rows


def _add(rows: Rows, log: dict[str, Any], metric: str, fields: dict[str, str], path: Path) -> None:
    """Copy one metric's values into the rows: our field -> the log's. A metric that the log lacks is skipped."""
    if metric not in log:
        return
    values = log[metric].get("value_by_index") if isinstance(log[metric], dict) else None
    if not isinstance(values, dict) or not values:
        raise LetheError(f"{path}, {metric}: expected value_by_index with one entry per example; fetch the log again")
    indices = {_index(key, metric, path): value for key, value in values.items()}
    _same_indices(rows, set(indices), metric, path)
    for index, value in indices.items():
        row = rows.setdefault(index, {})
        for ours, theirs in fields.items():
            if not isinstance(value, dict) or theirs not in value:
                raise LetheError(f"{path}, {metric}, row {index}: expected the field {theirs!r}, found {_some(value)}")
            row[ours] = _value(ours, value[theirs], f"{path}, {metric}, row {index}, {theirs}")


# --- TOFU -------------------------------------------------------------------------------------------------------

TOFU_COLUMNS = {
    "rouge_l_recall": "rougeL_recall",
    "rouge_1_recall": "rouge1_recall",
    "answer_nll": "avg_gt_loss",
    "paraphrased_nll": "avg_paraphrased_loss",
    "perturbed_nll": "average_perturb_loss",
}


def _tofu_set(log: dict[str, Any], key: str, path: Path) -> Rows:
    rows: Rows = {}
    columns = log.get(key, {})
    if not isinstance(columns, dict):
        raise LetheError(f"{path}, {key}: expected an object of columns, found {type(columns).__name__}")
    for ours, theirs in ({"texts": "generated_text"} | TOFU_COLUMNS).items():
        column = columns.get(theirs)
        if column is None:
            continue
        if not isinstance(column, dict):
            raise LetheError(f"{path}, {key}, {theirs}: expected values by row number, found {type(column).__name__}")
        indices = {_index(k, f"{key}, {theirs}", path): value for k, value in column.items()}
        _same_indices(rows, set(indices), f"{key}, {theirs}", path)
        for index, value in indices.items():
            row = rows.setdefault(index, {})
            if ours != "texts":
                row[ours] = _value(ours, value, f"{path}, {key}, row {index}, {theirs}")
            elif isinstance(value, list) and len(value) == 3 and all(isinstance(text, str) for text in value):
                row["question"], row["generation"], row["reference"] = value
            else:
                raise LetheError(
                    f"{path}, {key}, row {index}, {theirs}: expected prompt, generation and answer, found {value!r:.80}"
                )
    return rows


# --- checks -----------------------------------------------------------------------------------------------------


def _index(key: str, where: str, path: Path) -> int:
    if not key.isdecimal():
        raise LetheError(f"{path}, {where}: expected row numbers as keys, found {key!r}")
    return int(key)


def _same_indices(rows: Rows, indices: set[int], where: str, path: Path) -> None:
    if rows and set(rows) != indices:
        odd = min(set(rows) ^ indices)
        raise LetheError(
            f"{path}, {where}: has {len(indices)} rows where the columns before it have {len(rows)} "
            f"(row {odd} is only in one of them); the log is damaged, fetch it again"
        )


def _value(field: str, value: Any, where: str) -> Any:
    """The value as a row holds it: None for a number that is missing or not finite."""
    if field in TEXTS:
        if isinstance(value, str):
            return value
        raise LetheError(f"{where}: expected a text, found {value!r:.80}")
    if field == "perturbed_nll":
        if isinstance(value, list):
            return [_number(entry, where) for entry in value]
        raise LetheError(f"{where}: expected one number per wrong answer, found {value!r:.80}")
    return _number(value, where)


def _number(value: Any, where: str) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise LetheError(f"{where}: expected a number, found {value!r:.80}")
    return float(value) if value is not None and math.isfinite(value) else None


def _some(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value!r:.80}"
    keys = list(value)
    return ", ".join(map(repr, keys[:6])) + (", ..." if len(keys) > 6 else "")

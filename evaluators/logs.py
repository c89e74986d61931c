"""Published evaluation logs as rows of the TOFU evaluator.

Two formats: `TOFU_EVAL.json` of open-unlearning (https://github.com/locuslab/open-unlearning; per metric an
`agg_value` and a `value_by_index`) and `eval_log_aggregated.json` of TOFU (https://github.com/locuslab/tofu; per
question set a column of values by row number). The rows serve as the retrained reference of `TofuEvaluator.summarize`
and as rows of a leaderboard.

What a log cannot tell: its questions are kept inside the prompt template of the model that was evaluated, and its
extraction strength has the floor of 1 / T that open-unlearning gives it, under every protocol. A log that Lethe wrote
(`evaluators/exchange.py`) holds the rest of its rows under the key "lethe" and is read back as it was.
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
GIBBERISH = "forget_Q_A_gibberish"
FORGET_SCORES = ("extraction_strength", "exact_memorization")
TEXTS = ("question", "reference", "generation")
LOSSES = ("answer_nll", "paraphrased_nll", "perturbed_nll")
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm", "mia_reference")
ROUGE = {
    "rouge_1_recall": "rouge1_recall",
    "rouge_l_f1": "rougeL_f1",
    "rouge_l_recall": "rougeL_recall",
    "question": "input",
    "reference": "ground_truth",
    "generation": "generation",
}
WITHOUT_PARAPHRASES = ("real_authors", "world_facts")
"""Sets in which the answer stands in for its paraphrase."""

LARGEST = 1e100
"""No figure of a log is larger; squares of such numbers still are floats."""

LETHE = "lethe"
"""The key of a log that Lethe wrote: where it comes from, and what the format has no place for."""
LETHE_FORMAT = 1


def open_unlearning_entries(name: str) -> dict[str, dict[str, str]]:
    """The entries of a log that hold the rows of a set: name of the entry -> our field -> the field there."""
    prefix = OPEN_UNLEARNING_SETS[name]
    scores: dict[str, dict[str, str]] = {}
    if name == "forget":
        scores = {GIBBERISH: {"fluency": "score"}, **{score: {score: "score"} for score in FORGET_SCORES}}
    return {
        f"{prefix}_Q_A_ROUGE": ROUGE,
        f"{prefix}_Q_A_Prob": {"answer_nll": "avg_loss"},
        f"{prefix}_Q_A_PARA_Prob": {"paraphrased_nll": "avg_loss"},
        f"{prefix}_Q_A_PERT_Prob": {"perturbed_nll": "avg_loss"},
        **scores,
    }


def read_published_log(path: Path | str) -> list[dict]:
    """Rows of `TOFU_EVAL.json` or `eval_log_aggregated.json`, set by set in the order of their row numbers."""
    path = Path(path)
    log = load_log(path)
    if any(name in log for name in TOFU_SETS.values()):
        by_set = {name: _tofu_set(log, key, path) for name, key in TOFU_SETS.items()}
    elif any(isinstance(value, dict) and "value_by_index" in value for value in log.values()):
        by_set = {name: _open_unlearning_set(log, name, path) for name in OPEN_UNLEARNING_SETS}
        by_set["holdout"] = _attacked(log, "holdout", {}, path)
        if part := lethe_part(log, path):
            by_set = {name: _with_rest(rows, part, name, path) for name, rows in by_set.items()}
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


def load_log(path: Path) -> dict[str, Any]:
    """The JSON object of a log, whatever it holds."""
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LetheError(f"cannot read the evaluation log {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LetheError(f"{path} is not valid JSON ({error}); it may be truncated, fetch it again") from None
    if not isinstance(log, dict):
        raise LetheError(f"{path} is no evaluation log: expected an object at the top, found {type(log).__name__}")
    return log


# --- open-unlearning --------------------------------------------------------------------------------------------


def _open_unlearning_set(log: dict[str, Any], name: str, path: Path) -> Rows:
    rows: Rows = {}
    for metric, fields in open_unlearning_entries(name).items():
        _add(rows, log, metric, fields, path)
    if name in WITHOUT_PARAPHRASES:
        for row in rows.values():
            row.setdefault("paraphrased_nll", row.get("answer_nll"))
    if name == "forget":
        for row in rows.values():
            if log.get(LETHE) is None and "exact_memorization" in row and row["exact_memorization"] is None:
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


# --- what Lethe adds --------------------------------------------------------------------------------------------


def lethe_part(log: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a log says under the key "lethe", checked; empty where it says nothing."""
    part = log.get(LETHE)
    if part is None:
        return {}
    if not isinstance(part, dict) or part.get("format") != LETHE_FORMAT:
        raise LetheError(
            f"{path}: expected the key {LETHE!r} in format {LETHE_FORMAT}, found {part!r:.80}; export the run again"
        )
    for key in ("cell", "rows", "without"):
        if not isinstance(part.get(key), dict):
            raise LetheError(f"{path}, {LETHE}: expected an object {key!r}, found {part.get(key)!r:.80}; {_AGAIN}")
    return part


def _with_rest(rows: Rows, part: dict[str, Any], name: str, path: Path) -> Rows:
    """The rows of a set with what stands apart from them, without what only the format asked for."""
    rest, without = part["rows"].get(name, {}), part["without"].get(name, [])
    if not isinstance(rest, dict) or not isinstance(without, list):
        raise LetheError(f"{path}, {LETHE}, {name}: expected rows by number and a list of fields; {_AGAIN}")
    more = {_index(key, f"{LETHE}, {name}", path): value for key, value in rest.items()}
    _same_indices(rows, set(more), f"{LETHE}, {name}", path)
    for index, value in more.items():
        if not isinstance(value, dict) or not isinstance(value.get("example_id", ""), str):
            raise LetheError(f"{path}, {LETHE}, {name}, row {index}: expected a row, found {value!r:.80}; {_AGAIN}")
        row = {field: content for field, content in rows.get(index, {}).items() if field not in without}
        rows[index] = {field: content for field, content in value.items() if field != "set"} | row
    return rows


_AGAIN = "the log is damaged, export the run again"


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
            return [_number(entry, where, loss=True) for entry in value]
        raise LetheError(f"{where}: expected one number per wrong answer, found {value!r:.80}")
    return _number(value, where, loss=field in LOSSES)


def _number(value: Any, where: str, *, loss: bool = False) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise LetheError(f"{where}: expected a number, found {value!r:.80}")
    if value is None or value != value or value in (math.inf, -math.inf):
        return None
    if abs(value) > LARGEST:
        raise LetheError(f"{where}: expected a number of at most {LARGEST}, found a larger one")
    if loss and value < -1:  # rounding leaves a certain answer a little below 0
        raise LetheError(f"{where}: expected a mean negative log-likelihood, found {value!r:.80}")
    return value


def _some(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value!r:.80}"
    keys = list(value)
    return ", ".join(map(repr, keys[:6])) + (", ..." if len(keys) > 6 else "")

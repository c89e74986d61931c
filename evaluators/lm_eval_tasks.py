"""Any task of lm-evaluation-harness 0.4.13, by its name or as a YAML file, asked of our Scorer.

The task's own definition counts: data, prompts, examples, filters and metrics. Data come from where it says, as a rule
the hub. Generations are greedy; a task that samples is refused, and so are tasks with images or that run generated
code.

{task}_{metric}: the task's metrics, aggregated as it says, over all documents; where it names filters other than
    "none", {task}_{metric}_{filter}. A mean carries its standard error, other aggregations none (lm-eval would
    bootstrap it).
{group}_{metric}: for a group, which is given by name, the mean over the documents of all its tasks, if every task has
    the metric as a mean.
{task}_truncated: documents of which a prompt exceeds the model's context and was cut at its beginning. Neither.

A value that is not finite in any row makes its metric missing. Every protocol asks the same.
"""

import contextlib
import difflib
import functools
import io
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.records import Metric, missing
from evaluators import choices, metrics
from evaluators.rows import Row, by_set

if TYPE_CHECKING:
    from lm_eval.api.task import Task

    from bench.scorer import Scorer

log = logging.getLogger(__name__)

LONGEST_TEXT = 2000
"""Characters of a prompt that a row keeps, from its end: few-shot examples need not be stored with every row."""


@dataclass(frozen=True, kw_only=True)
class LmEvalEvaluator:
    """One task or group of tasks."""

    task: str
    """A name that lm-eval knows, or the path of a YAML file."""
    protocol: choices.Protocol = "strict"
    """Without effect: the task says how it is asked."""
    limit: int | None = None
    """Only the first documents of each task."""

    def __post_init__(self) -> None:
        choices.check_protocol(self.protocol)
        if not self.task.strip():
            raise LetheError("lm_eval: needs a task behind it, a name or a YAML file, e.g. lm_eval:arc_easy")
        if _is_file(self.task) and not Path(self.task).expanduser().is_file():
            raise LetheError(f"there is no task file {self.task}; give a YAML file, or a task of lm-eval by name")
        if self.limit is not None and self.limit < 1:
            raise LetheError(f"limit must be at least 1, got {self.limit}")

    @property
    def name(self) -> str:
        """ "lm_eval_arc_easy"; of a file, its name without the suffix."""
        return f"lm_eval_{plain_name(Path(self.task).stem if _is_file(self.task) else self.task)}"

    def prepare(self) -> None:
        """Find the task and read its data; errors that `score` would raise after training come at once."""
        _load(self.task)

    def score(self, scorer: "Scorer", benchmark: Benchmark) -> list[Row]:
        """Ask the model, all tasks of a group at once; one row per document, in their order."""
        from evaluators.harness import ScorerLM, run

        tasks = _load(self.task)
        lm = ScorerLM(scorer)
        rows = []
        for name, samples in run(lm, tasks, limit=self.limit).items():
            mine: dict[int, Row] = {}
            for sample in samples:
                row = mine.setdefault(sample["doc_id"], _row(name, sample, lm.cut))
                filtered = "" if sample["filter"] == "none" else f"_{plain_name(sample['filter'])}"
                for metric in sample["metrics"]:
                    row["metrics"][metric + filtered] = _plain(sample[metric])
                    row["aggregations"][metric + filtered] = _aggregation(tasks[name], metric)
                    row["higher_is_better"][metric + filtered] = _directions(tasks[name]).get(metric)
            rows += mine.values()
        return rows

    def summarize(self, rows: Iterable[Row], reference_rows: Iterable[Row] | None = None) -> list[Metric]:
        """All metrics of one model, from its rows; needs no model and no reference."""
        sets = {name: sorted(mine, key=_place) for name, mine in sorted(by_set(rows).items())}
        if not sets:
            return [missing(f"{plain_name(Path(self.task).stem)}_truncated", "no rows")]
        found = self._over_group(sets) if len(sets) > 1 else []
        for name, mine in sets.items():
            for metric in dict.fromkeys(metric for row in mine for metric in row["metrics"]):
                found.append(self._aggregate(name, metric, mine))
            cut = sum(row["prompt_truncated"] > 0 for row in mine)
            found.append(Metric(name=f"{plain_name(name)}_truncated", value=float(cut), n=len(mine)))
        return found

    def _over_group(self, sets: Mapping[str, Sequence[Row]]) -> list[Metric]:
        shared = None
        for mine in sets.values():
            means = {m for row in mine for m, aggregation in row["aggregations"].items() if aggregation == "mean"}
            shared = means if shared is None else shared & means
        everything = [row for mine in sets.values() for row in mine]
        return [self._aggregate(self.name.removeprefix("lm_eval_"), m, everything) for m in sorted(shared or ())]

    def _aggregate(self, name: str, metric: str, rows: Sequence[Row]) -> Metric:
        mine = [row for row in rows if metric in row["metrics"]]
        values = [row["metrics"][metric] for row in mine]
        full, better = f"{plain_name(name)}_{plain_name(metric)}", mine[0]["higher_is_better"][metric]
        broken = [row["example_id"] for row, value in zip(mine, values, strict=True) if _has_hole(value)]
        if broken:
            reason = f"{metric} is not finite in {len(broken)} of {len(mine)} rows, the first is {broken[0]}"
            return missing(full, reason, higher_is_better=better)
        aggregation = mine[0]["aggregations"][metric]
        if aggregation == "mean" and all(isinstance(value, int | float) for value in values):
            mean = metrics.mean(values)
            return Metric(name=full, value=mean.value, stderr=mean.stderr, n=mean.n, higher_is_better=better)
        value = float(self._formula(aggregation, name, metric)(values))
        if not math.isfinite(value):
            return missing(
                full, f"{aggregation or 'the aggregation'} over its rows is {value}", higher_is_better=better
            )
        return Metric(name=full, value=value, n=len(values), higher_is_better=better)

    def _formula(self, aggregation: str | None, task: str, metric: str) -> Callable[[Sequence[Any]], float]:
        """How lm-eval aggregates; one that its table does not name is in the task's own code."""
        from lm_eval.api.registry import get_aggregation

        if aggregation is not None:
            return get_aggregation(aggregation)  # type: ignore[return-value]
        own = _aggregations(_load(self.task)[task])
        return own[max((known for known in own if metric.startswith(known)), key=len)]


def _row(task: str, sample: Mapping[str, Any], cut: Mapping[str, int]) -> Row:
    arguments = sample["arguments"]
    return {
        "set": task,
        "example_id": f"{task}/{sample['doc_id']}",
        "question": str(arguments[0][0])[-LONGEST_TEXT:],
        "options": [str(pair[1]) for pair in arguments if len(pair) > 1 and isinstance(pair[1], str)],
        "target": _plain(sample["target"]),
        "responses": _plain(sample["resps"]),
        "metrics": {},
        "aggregations": {},
        "higher_is_better": {},
        "prompt_truncated": max(cut.get(pair[0], 0) for pair in arguments),
    }


def _place(row: Row) -> tuple[str, int]:
    task, _, number = row["example_id"].rpartition("/")
    return task, int(number)


def _plain(value: Any) -> Any:
    """As JSON holds it: lists for tuples, Python's numbers for numpy's, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


def _has_hole(value: Any) -> bool:
    return value is None or (isinstance(value, list) and any(map(_has_hole, value)))


def plain_name(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def _aggregations(task: "Task") -> dict[str, Any]:
    return task.aggregation() or {}  # type: ignore[return-value]


def _directions(task: "Task") -> dict[str, bool]:
    return task.higher_is_better() or {}  # type: ignore[return-value]


def _aggregation(task: "Task", metric: str) -> str | None:
    """The name under which lm-eval's table knows how a metric is aggregated."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    formula = _aggregations(task).get(metric)
    if formula is None:
        return "mean"  # as lm-eval does for a metric without one
    return next((name for name in AGGREGATION_REGISTRY if AGGREGATION_REGISTRY[name] is formula), None)


# --- finding tasks ----------------------------------------------------------------------------------------------


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


@functools.cache
def _load(task: str) -> dict[str, "Task"]:
    """The task, or the tasks of a group, with their data; kept, for every cell asks the same."""
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError
    from lm_eval.tasks import TaskManager

    from evaluators.harness import quiet

    path = _read(Path(task).expanduser()) if _is_file(task) else _official_file(task)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # progress bars of data sets
            manager = _index() if path is None else TaskManager(include_defaults=False)
            if path is None and task not in manager.task_index:
                raise _unknown(task, manager.all_tasks)
            tasks = manager.load(task if path is None else str(path))["tasks"]
    except (OSError, DatasetsError) as error:
        raise LetheError(
            f"the data of the lm-eval task {task!r} cannot be read ({_first_line(error)}); with network they are "
            "fetched from the hub, without it the task needs a YAML file that names local files"
        ) from error
    except (
        ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, TemplateError, TypeError, ValueError,
    ) as error:  # fmt: skip
        raise LetheError(
            f"the lm-eval task {task!r} cannot be set up: {type(error).__name__}: {_first_line(error)}; "
            f"{'mend the file' if _is_file(task) else 'see the notes of the task in lm-eval'}"
        ) from error
    for found in tasks.values():
        for flag, what in (("UNSAFE_CODE", "runs code that the model writes"), ("MULTIMODAL", "shows images or sound")):
            if getattr(found, flag, False):
                raise LetheError(f"the lm-eval task {found.task_name!r} {what}, which is not supported; leave it out")
    if not tasks:
        raise LetheError(f"the lm-eval group {task!r} has no task; name one of its tasks")
    return dict(tasks)


def _read(path: Path) -> Path:
    """The file, found to be a task definition."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config = load_yaml(path, resolve_func=False)
    except OSError as error:
        raise LetheError(
            f"cannot read the task file {path}: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename and str(error.filename) != str(path) else "")
        ) from error
    except yaml.YAMLError as error:
        raise LetheError(f"{path} is not valid YAML ({' '.join(str(error).split())}); mend the file") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise LetheError(f"{path} is no task definition: {error}; mend the file") from error
    if "group" in config:
        raise LetheError(f"{path} defines a group of tasks; give the files of its tasks one by one")
    if not isinstance(config.get("task"), str):
        raise LetheError(f"{path} is no task definition: it has no `task:` with a name; add one")
    return path


def _official_file(task: str) -> Path | None:
    """The definition in the installed package, where the only file of the task's name holds it.

    This spares building the index of all 14,000 tasks, which takes some 15 seconds.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    from evaluators.harness import OFFICIAL

    if not re.fullmatch(r"[\w.-]+", task):
        return None
    files = list(OFFICIAL.rglob(f"{task}.yaml"))
    if len(files) == 1:
        config = load_yaml(files[0], resolve_func=False)
        if config.get("task") == task and "group" not in config:
            return files[0]
    return None


@functools.cache
def _index() -> Any:
    from lm_eval.tasks import TaskManager

    log.info("building lm-eval's index of all tasks; a task given as a YAML file needs none")
    return TaskManager()


def _unknown(task: str, known: Sequence[str]) -> LetheError:
    near = difflib.get_close_matches(task, known, n=3, cutoff=0.6)
    hint = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
    return LetheError(
        f"lm-eval knows no task {task!r};{hint} `lm-eval ls tasks` lists all {len(known)}, and a YAML file is given by "
        "its path"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:300]

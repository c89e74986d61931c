"""What a grid asks for: jobs on one model, what they forget, what scores them, and what of that is stored already.

Methods and evaluators are known by what is asked of them alone.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench import data
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.model_card import Saved
from bench.models import Loaded
from bench.records import Metric
from bench.scorer import Scorer
from bench.spec import Cell
from bench.store import RunStore, read_json

if TYPE_CHECKING:
    from bench.validation import Watching


class Unlearned(Protocol):
    """A changed model that can be changed back."""

    log: Any

    def restore(self) -> None: ...
    def facts(self) -> dict: ...
    def save(self, folder: Path, loaded: Loaded) -> Saved: ...


class Method(Protocol):
    """What the executor asks of a method."""

    def unlearn(
        self,
        loaded: Loaded,
        encoder: Encoder,
        benchmark: Benchmark,
        *,
        seed: int,
        batch_tokens: int,
        progress: Callable[[int, int, dict[str, float]], None] | None = None,
        earlier: Any = None,
    ) -> Unlearned: ...


Role = Literal["", "original", "retrained"]
"""What the rows of a job are to others: nothing, or what they are compared with."""


class Evaluator(Protocol):
    """What the executor asks of an evaluator.

    Where it has a `compares_with`, that is the role whose rows `summarize` gets; else the retrained model's. Where it
    has a `judge`, another model adds to its rows what the scored one need not be asked for (`Judging`). What it `adds`
    are those of its fields that, where they are true, add to the rows and change nothing else: more than enough.
    """

    @property
    def name(self) -> str: ...
    def score(self, scorer: Scorer, benchmark: Benchmark) -> list[dict]: ...
    def summarize(self, rows: list[dict], reference_rows: list[dict] | None) -> list[Metric]: ...


class Judging(Protocol):
    """What an evaluator has besides whose rows another model judges, as soon as they are there or later."""

    @property
    def judging(self) -> Sequence[str]:
        """The evaluator's fields that decide how, and nothing of what the scored model is asked."""
        ...

    def judge(self, rows: list[dict]) -> tuple[list[dict], dict[str, Any]]:
        """The rows with the judgement, and for the settings, whose it is."""
        ...

    def is_judged(self, judged_by: Mapping[str, Any]) -> bool:
        """Whether rows of which this was stored need no other judgement; empty where nothing has judged them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluator with the benchmark whose rows it asks about."""

    evaluator: Evaluator
    benchmark: Benchmark

    @property
    def key(self) -> tuple[str, str]:
        """Rows of two models under the same key may be compared."""
        return self.evaluator.name, self.benchmark.name

    @property
    def judging(self) -> Judging | None:
        return self.evaluator if hasattr(self.evaluator, "judge") else None  # type: ignore[return-value]

    @property
    def adds(self) -> Sequence[str]:
        return getattr(self.evaluator, "adds", ())

    @property
    def compares_with(self) -> Role:
        return getattr(self.evaluator, "compares_with", "retrained")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One forget request: what is trained on, what is scored afterwards, and the cell that it fills."""

    cell: Cell
    request: Benchmark
    """What this request forgets; in a chain, only what earlier requests did not."""
    evaluations: Sequence[Evaluation]
    """What the result is scored on: in a chain everything requested so far, and benchmarks that only judge."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Stages that follow each other on one model: one for a plain cell, several for a chain of requests."""

    stages: tuple[Stage, ...]
    method: Method | None = None
    """None evaluates the model as it is."""
    role: Role = ""
    """Its rows are the reference of every other job on the same benchmark, for evaluators that compare with it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the record: recipe, data source."""
    watching: "Watching | None" = None
    """How the training is looked at; a chain of requests is not."""


def collection_of(stage: Stage) -> str:
    """The collection of targets that a stage is one of; empty for a benchmark by itself."""
    name = data.collection(stage.cell.benchmark)
    return "" if name == stage.cell.benchmark else name


def settings_of(stage: Stage, evaluation: Evaluation) -> dict[str, Any]:
    """What decides how rows and metrics of this evaluation come out, besides the model."""
    judged = {"benchmark": data.shown(evaluation.benchmark.name), "data": evaluation.benchmark.fingerprint}
    judging = evaluation.judging.judging if evaluation.judging is not None else ()
    fields = {name: _bare(value) for name, value in vars(evaluation.evaluator).items() if name not in judging}
    return {"protocol": stage.cell.protocol, **fields, **judged}


def changed(settings: Mapping[str, Any], stage: Stage, evaluation: Evaluation) -> dict[str, tuple[Any, Any]]:
    """What is stored and what is asked for, by the name of a setting, where the stored rows do not serve for it."""
    wanted = as_stored([settings_of(stage, evaluation)])[0]
    more = {name for name in evaluation.adds if settings.get(name) and not wanted[name]}
    return {
        key: (settings.get(key), value)
        for key, value in wanted.items()
        if settings and settings.get(key) != value and key not in more
    }


def why_again(store: RunStore, stage: Stage) -> str:
    """What a complete cell lacks of what is asked for, as its evaluators tell; empty where that is nothing.

    Only reads. What is made up for without the model counts as there.
    """
    folder = store.path(stage.cell.id)
    if not store.complete(stage.cell.id):
        return ""
    for evaluation in stage.evaluations:
        name = evaluation.evaluator.name
        metrics = metrics_path(folder, name)
        for key, (before, now) in changed(stored_settings(metrics), stage, evaluation).items():
            return f"its {name} was scored with {key} {before!r}, and {now!r} is asked for"
        if not metrics.is_file() and not (folder / "samples" / f"{name}.jsonl").is_file():
            return f"its {name} was never scored"
    return ""


def judged_rows(evaluation: Evaluation, rows: list[dict]) -> tuple[list[dict], dict[str, Any]]:
    """The rows as they are stored, with what another model says of them, and which model."""
    if evaluation.judging is None:
        return rows, {}
    judged, judged_by = evaluation.judging.judge(rows)
    return as_stored(judged), judged_by


def _bare(value: Any) -> Any:
    """Of a file its name: no record depends on where it lies."""
    return Path(value).name if isinstance(value, str) and Path(value).is_file() else value


def metrics_path(folder: Path, evaluator: str) -> Path:
    """Where a cell's folder holds what an evaluator says."""
    return folder / "metrics" / f"{evaluator}.json"


def stored_settings(metrics: Path) -> dict[str, Any]:
    """What an evaluator's metrics were computed with; empty where there are none."""
    return (read_json(metrics).get("settings") or {}) if metrics.is_file() else {}


def as_stored(rows: list[dict]) -> list[dict]:
    """Rows as they will be read back, so that a resumed run computes with the very same values."""
    return json.loads(json.dumps(rows, allow_nan=False))

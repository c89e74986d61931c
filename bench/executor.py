"""Runs cells: loads a model once, lets every method change it, has it scored, stores what comes out, restores it.

Knows no method and no evaluator: it is handed objects. A cell that fails keeps its traceback and the others go on.
"""

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from bench import provenance
from bench.beginnings import Beginnings, Lent
from bench.data.tokenize import Encoder
from bench.errors import LetheError
from bench.gates import gate_rows
from bench.jobs import (
    Evaluation,
    Job,
    Stage,
    Unlearned,
    as_stored,
    changed,
    collection_of,
    judged_rows,
    metrics_path,
    settings_of,
    stored_settings,
    why_again,
)
from bench.model_card import FACTS, write_card
from bench.models import Loaded, out_of_memory, peak_gib, reset_peak
from bench.records import JUDGED_BY
from bench.scorer import Scorer
from bench.store import RunStore, read_json, read_jsonl, write_json, write_jsonl, write_metrics, write_text

logger = logging.getLogger(__name__)

MODEL = "model"
"""The folder of a cell that holds its unlearned model."""


class Progress(Protocol):
    """Told what happens; draws or logs it."""

    def cell(self, number: int, total: int, title: str) -> None: ...
    def step(self, step: int, steps: int, terms: Mapping[str, float]) -> None: ...
    def scored(self, done: int, total: int) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(kw_only=True)
class Outcome:
    """How the grid ended."""

    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    workers_gib: list[float] = field(default_factory=list)
    """Peak memory of every process that cells were run in beside this one."""


@dataclass(kw_only=True)
class Executor:
    """Runs jobs on one loaded model after the other, into one store."""

    store: RunStore
    progress: Progress
    batch_tokens: int
    reference_rows: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    """(evaluator, benchmark) -> rows to compare with; filled by the jobs of the role that the evaluator asks for."""
    outcome: Outcome = field(default_factory=Outcome)
    total: int = 0
    fresh: bool = False
    """Run cells again that are there already."""
    save_models: bool = False
    """Keep every unlearned model beside the results of its cell."""
    processes: int = 1
    """How many run cells at the same time, this one among them."""
    number: int = 0
    """How many cells have been found or begun."""
    _counted: set[str] = field(default_factory=set)
    """The first cells of jobs that were found: none counts twice."""
    _unchanged: dict[str, Scorer] = field(default_factory=dict)
    """What was already asked of the loaded model as it is, by collection: targets share most of what is asked."""
    _found: list[Stage] = field(default_factory=list)
    """Stages that train nothing and were there already, as far as others share their answers."""
    _beginnings: Beginnings | None = None
    """What the loaded model as it is has read of prompts that targets begin alike."""

    def reuse(self, job: Job) -> bool:
        """Whether nothing of the job is left to do; if so its cells are counted, once."""
        if self.fresh or not all(self._settled(job, stage) for stage in job.stages):
            return False
        first = job.stages[0].cell.id
        for stage in job.stages:
            self.store.forget_failure(stage.cell.id)
        if first not in self._counted:
            self._counted.add(first)
            self.number += len(job.stages)
            self.outcome.reused += [stage.cell.id for stage in job.stages]
        if job.method is None:
            self._found += [stage for stage in job.stages if collection_of(stage)]
        return True

    def _begin(self, stage: Stage) -> None:
        self.number += 1
        self.progress.cell(self.number, self.total, stage.cell.title)
        if not self.fresh and (why := why_again(self.store, stage)):
            self.progress.note(f"{stage.cell.title} is run again: {why}")

    def _settled(self, job: Job, stage: Stage) -> bool:
        """Whether a cell is there with everything that can be known about it.

        Metrics that had to do without what they compare with are made up for from the rows, as soon as it is there, and
        so is the judgement of rows that another model judges.
        """
        folder = self.store.path(stage.cell.id)
        if not self.store.complete(stage.cell.id):
            return False
        if job.watching is not None and read_json(folder / "record.json").get("curve") != job.watching.facts():
            return False
        for evaluation in stage.evaluations:
            name, key = evaluation.evaluator.name, evaluation.key
            samples, metrics = folder / "samples" / f"{name}.jsonl", metrics_path(folder, name)
            settings = stored_settings(metrics)
            if changed(settings, stage, evaluation):
                return False  # how it is scored, and the data of a benchmark that only judges, are no part of its id
            judged_by, judging = settings.get(JUDGED_BY) or {}, evaluation.judging
            stands = judging is None or not samples.is_file() or judging.is_judged(judged_by)
            if not stands:
                rows, judged_by = judged_rows(evaluation, read_jsonl(samples))
                write_jsonl(samples, rows)  # before the settings that tell of it: a kill in between loses nothing
            if job.role and job.role == evaluation.compares_with:
                if not samples.is_file():
                    return False
                self.reference_rows[key] = read_jsonl(samples)
            if stands and metrics.is_file() and (settings.get("reference") or key not in self.reference_rows):
                continue
            if not samples.is_file():
                return False
            added = {name: True for name in evaluation.adds if settings.get(name)}
            self._summarize(evaluation, job, stage, read_jsonl(samples), folder, judged_by, added)
            if self._has_model(stage):
                write_card(folder / MODEL, self.store.record(stage.cell.id))
        # Without its model it is trained and scored again: the figures on a card are those of this very model.
        return not self.save_models or job.method is None or self._has_model(stage)

    def _has_model(self, stage: Stage) -> bool:
        return (self.store.path(stage.cell.id) / MODEL / FACTS).is_file()

    def _summarize(
        self,
        evaluation: Evaluation,
        job: Job,
        stage: Stage,
        rows: list[dict],
        folder: Path,
        judged_by: Mapping[str, Any],
        added: Mapping[str, bool] | None = None,
    ) -> None:
        evaluator = evaluation.evaluator
        mine = job.role and job.role == evaluation.compares_with
        reference = rows if mine else self.reference_rows.get(evaluation.key)
        names = {"retrained": stage.cell.retrained, "original": f"original@{stage.cell.model_hash[:16]}"}
        compared = names[evaluation.compares_with or "retrained"] if reference is not None else None
        settings = {**settings_of(stage, evaluation), **(added or {}), "data_source": evaluation.benchmark.source}
        settings |= {"reference": compared}
        settings |= {JUDGED_BY: dict(judged_by)} if judged_by else {}
        write_metrics(metrics_path(folder, evaluator.name), evaluator.summarize(rows, reference), settings)

    def run(self, job: Job, loaded: Loaded, encoder: Encoder) -> None:
        """Every stage of a job that is not there yet; the model is as before when it ends, however it ends.

        Raises:
            LetheError: nothing can be stored any more, not even a failure.
        """
        state: list[Unlearned] = []
        try:
            for at, stage in enumerate(job.stages):
                self._begin(stage)
                if not self._stage(job, stage, loaded, encoder, state):
                    for later in job.stages[at + 1 :]:
                        self._begin(later)
                        self._fail(later, LetheError(f"the request before it, {stage.cell.title}, failed"), [])
                    break
        finally:
            if state:
                state[-1].restore()

    def _stage(self, job: Job, stage: Stage, loaded: Loaded, encoder: Encoder, state: list[Unlearned]) -> bool:
        """Unlearn one request on top of what `state` holds, score, store; False when it failed."""
        cell = stage.cell
        started = time.perf_counter()
        train_log: list[dict] = []
        curve: list[dict] = []

        def step(number: int, steps: int, terms: Mapping[str, float]) -> None:
            train_log.append({"step": number, **terms})  # what is kept if the training does not reach its end
            self.progress.step(number, steps, terms)

        reset_peak(loaded.device)
        try:
            facts: dict[str, Any] = {"train_seconds": 0.0, "trainable_parameters": 0}
            keep = self.save_models or self._has_model(stage)  # what was kept once is kept when it is made again
            if job.method is not None:
                looks: dict[str, Any] = {}
                if job.watching is not None:
                    looks = {"watch": job.watching.watch(loaded, encoder, self.batch_tokens, curve)}
                    facts["curve"] = job.watching.facts()
                unlearned = job.method.unlearn(
                    loaded,
                    encoder,
                    stage.request,
                    seed=cell.seed,
                    batch_tokens=self.batch_tokens,
                    progress=step,
                    earlier=state[-1] if state else None,
                    **looks,
                )
                state.append(unlearned)
                train_log = unlearned.log.steps
                facts |= unlearned.facts()
            if not self.fresh and self._settled(job, stage):
                self.outcome.reused.append(cell.id)  # a chain is trained again from its start, but not scored again
                return True
            scorer = self._scorer(stage, state[-1] if state else None, loaded, encoder)
            before = dict(vars(scorer.counts))
            evaluating = time.perf_counter()
            rows = {e.evaluator.name: as_stored(e.evaluator.score(scorer, e.benchmark)) for e in stage.evaluations}
            gates = self._gates(stage, state[-1], loaded, encoder) if state else []  # after all that counts
            facts |= {
                "eval_seconds": time.perf_counter() - evaluating,
                "scored": {name: count - before[name] for name, count in vars(scorer.counts).items()},
                "wall_seconds": time.perf_counter() - started,
                "peak_gib": peak_gib(loaded.device),
                "device": provenance.device_name(loaded.device),
                "batch_tokens": self.batch_tokens,
                "processes": self.processes,
            }
            self._write(job, stage, rows, facts, train_log, curve, gates)
            if job.method is not None and keep:
                self._save(stage, state[-1], loaded)
        except Exception as error:  # noqa: BLE001 - the boundary between cells: the traceback is kept, the grid goes on
            self._fail(stage, error, getattr(error, "log", train_log), curve)
            return False
        self.outcome.done.append(cell.id)
        return True

    def _gates(self, stage: Stage, unlearned: Unlearned, loaded: Loaded, encoder: Encoder) -> list[dict]:
        values_of = getattr(unlearned, "gate_values", None)
        if values_of is None:
            return []
        doubled = stage.cell.protocol == "ort"
        return gate_rows(values_of, stage.evaluations, loaded, encoder, batch_tokens=self.batch_tokens, doubled=doubled)

    def _save(self, stage: Stage, unlearned: Unlearned, loaded: Loaded) -> None:
        """Put the model beside its results, which are stored by now: nothing that happens here can lose them."""
        try:
            with self.store.adding(stage.cell.id, MODEL) as folder:
                saved = unlearned.save(folder, loaded)
                write_card(folder, self.store.record(stage.cell.id), saved)
        except (LetheError, OSError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].partition(";")[0]
            raise LetheError(
                f"the results are stored, but --save-models could not store the model ({reason}); free some space in "
                f"{self.store.out} and run the same command again, or leave out --save-models"
            ) from error

    def _scorer(self, stage: Stage, unlearned: Unlearned | None, loaded: Loaded, encoder: Encoder) -> Scorer:
        """A new one for a model that was changed; for one as it is the same again, which need not ask twice.

        What that has read of prompts is lent to adapters that say that they begin as without them. Their answers are
        the same to the last bit if there is nothing to lend (`bench.beginnings`).
        """
        made = Scorer(loaded.model, encoder, batch_tokens=self.batch_tokens, progress=self.progress.scored)
        shared = collection_of(stage)
        if not shared:
            return made
        if self._beginnings is None or self._beginnings.model is not loaded.model:
            self._beginnings = Beginnings(loaded.model)
        if unlearned is not None:
            made.beginnings = Lent(self._beginnings) if getattr(unlearned, "keeps_beginnings", False) else None
            return made
        made.beginnings = self._beginnings
        if shared not in self._unchanged:
            self._unchanged[shared] = made
            # Which questions meet in a batch decides the last bits, so what was asked first is asked first again.
            for found in self._found:
                for evaluation in found.evaluations if collection_of(found) == shared else ():
                    evaluation.evaluator.score(made, evaluation.benchmark)
        return self._unchanged[shared]

    def forget_model(self) -> None:
        """Let go of what was asked of the last loaded model, and of the model itself."""
        self._unchanged.clear()
        self._found.clear()
        self._beginnings = None

    def forget_reference(self, job: Job) -> None:
        """Nothing is compared with the rows of this job until all of it is there."""
        for evaluation in (e for stage in job.stages for e in stage.evaluations):
            if job.role == evaluation.compares_with:
                self.reference_rows.pop(evaluation.key, None)

    def complete(self, job: Job) -> None:
        """Metrics that had to wait for what they compare with: its job came later in the same run."""
        for stage in job.stages:
            self._settled(job, stage)

    def store_rows(self, job: Job, rows: Mapping[str, list[dict]], facts: dict) -> None:
        """A cell whose rows come from elsewhere (a published log) rather than from a model."""
        stage = job.stages[0]
        self._begin(stage)
        try:
            self._write(job, stage, rows, facts, [])
        except Exception as error:  # noqa: BLE001 - as in _stage
            self._fail(stage, error, [])
            return
        self.outcome.done.append(stage.cell.id)

    def _write(
        self,
        job: Job,
        stage: Stage,
        rows: Mapping[str, list[dict]],
        facts: dict,
        train_log: list[dict],
        curve: Sequence[dict] = (),
        gates: Sequence[dict] = (),
    ) -> None:
        judged = {e.evaluator.name: judged_rows(e, rows[e.evaluator.name]) for e in stage.evaluations}
        with self.store.staging(stage.cell.id) as folder:
            if gates:
                write_jsonl(folder / "samples" / "gates.jsonl", as_stored([*gates]))
            for evaluation in stage.evaluations:
                name = evaluation.evaluator.name
                mine, judged_by = judged[name]
                write_jsonl(folder / "samples" / f"{name}.jsonl", mine)
                self._summarize(evaluation, job, stage, mine, folder, judged_by)
            if not self.fresh:
                facts = {**self._keep_other_evaluations(stage, folder, curve), **facts}
            if train_log:
                write_jsonl(folder / "train.jsonl", train_log)
            if curve:
                write_jsonl(folder / "curve.jsonl", curve)
            write_json(folder / "spec.json", stage.cell.to_json())
            record = {
                **job.facts,
                **facts,
                "code": provenance.code_version(),
                "versions": provenance.versions(),
                "data_source": stage.request.source,
                "finished_unix": time.time(),
            }
            write_json(folder / "record.json", record)
        for evaluation in stage.evaluations:
            if job.role and job.role == evaluation.compares_with:
                self.reference_rows[evaluation.key] = judged[evaluation.evaluator.name][0]

    def _keep_other_evaluations(self, stage: Stage, folder: Path, curve: Sequence[dict]) -> dict[str, Any]:
        """What was asked of this cell before and is not asked now: the cell's id says that it is the same model.

        Returns what the record has to say of it.
        """
        if not self.store.complete(stage.cell.id):
            return {}
        before = self.store.path(stage.cell.id)
        for kind in ("metrics", "samples"):
            for path in sorted((before / kind).glob("*")):
                if not (folder / kind / path.name).exists():
                    write_text(folder / kind / path.name, path.read_text(encoding="utf-8"))
        if curve or not (before / "curve.jsonl").is_file():
            return {}
        write_text(folder / "curve.jsonl", (before / "curve.jsonl").read_text(encoding="utf-8"))
        return {"curve": read_json(before / "record.json").get("curve")}

    def _fail(self, stage: Stage, error: Exception, train_log: list[dict], curve: Sequence[dict] = ()) -> None:
        """Keep what is known of a failure, all of it at once; a run that was complete before stays."""
        cell = stage.cell
        text = "".join(traceback.format_exception(error))
        if out_of_memory(error):
            text += (
                "out of memory even with one example at a time; use a smaller model, a device with more memory or "
                "fewer --jobs\n"
            )
        self.outcome.failed.append(cell.id)
        reason = text.rstrip().splitlines()[-1] if out_of_memory(error) else str(error).partition("\n")[0]
        self.progress.note(f"FAILED {cell.title}: {reason or type(error).__name__}")
        if not isinstance(error, LetheError):
            logger.info("traceback of %s\n%s", cell.title, text)
        with self.store.staging(cell.id) as folder:
            if train_log:
                write_jsonl(folder / "train.jsonl", train_log)
            if curve:
                write_jsonl(folder / "curve.jsonl", curve)
            instead = why_again(self.store, stage)
            self.store.fail(cell.id, cell.to_json(), text, partial=folder, instead=instead)

"""The grid that a command line spans: which cells on which checkpoints, in which order."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from bench import data
from bench.checkpoints import Checkpoint, Models, checkpoints, data_root, find, gibberish_classifier, prepare
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.executor import Executor, Outcome
from bench.jobs import Evaluation, Evaluator, Job, Role, Stage, why_again
from bench.models import choose_device, choose_dtype, computing_on, depth_of
from bench.options import MINI, Options
from bench.parts import parts_of
from bench.progress import Reporter
from bench.requests import Plan, Request, plan
from bench.spec import Cell
from bench.store import RunStore
from bench.tuning import (
    SEED,
    Configured,
    Planned,
    Search,
    Trial,
    TrialsOf,
    Tuned,
    best,
    grouped,
    marked,
    results,
    store_search,
    tuned,
    write_csv,
)
from bench.validation import NOTE, Validation, Watching, divided
from bench.workers import jobs_of, run_parts, threads_of

logger = logging.getLogger(__name__)

TRIAL_NOTE = "a trial, scored on the validation rows only"


class ReadLog(Protocol):
    """The rows of a published log; an error where they are not about this benchmark (or its first rows)."""

    def __call__(self, path: str, benchmark: Benchmark, *, limited: bool) -> list[dict]: ...


class EvaluatorsOf(Protocol):
    """What scores a benchmark, given its full name; `classifier` names that of gibberish where one is needed."""

    def __call__(
        self, benchmark: str, *, protocol: str, classifier: Callable[[], str] | None = None
    ) -> Sequence[Evaluator]: ...


class ValidationOf(Protocol):
    """What is asked about the validation part of a request, given those of the benchmarks that judge it besides."""

    def __call__(self, benchmark: Benchmark, judges: Sequence[Benchmark], *, protocol: str) -> Validation: ...


@dataclass(frozen=True, kw_only=True)
class Choosing:
    """What --tune, --curve and --stop-early need to know of methods and evaluators."""

    trials: TrialsOf
    validation: ValidationOf


Asked = tuple[Checkpoint, Request, Checkpoint | None]
"""A request on the model that is to forget it, with the gold standard where there is one."""


@dataclass(kw_only=True)
class Grid:
    """Jobs by checkpoint, in the order in which they begin: retrained models first, their rows are the reference."""

    options: Options
    evaluators: EvaluatorsOf
    judges: Sequence[Benchmark] = ()
    """What every request is scored on besides its own questions."""
    logs: Mapping[str, ReadLog]
    """Evaluators whose rows a published log can give, by name."""
    models: Models
    jobs: list[tuple[Checkpoint, Job]] = field(default_factory=list)
    searches: list[tuple[Planned, list[Asked]]] = field(default_factory=list)
    """What is still to be tuned, and the requests that then get a job a seed."""
    validations: Mapping[str, Validation] = field(default_factory=dict)
    """By the title of the request."""
    classifier: Callable[[], str] | None = None
    """Names the classifier of gibberish; the mini world's is made when it is first asked for."""

    @property
    def cells(self) -> list[Cell]:
        return [stage.cell for _, job in self.jobs for stage in job.stages]

    @classmethod
    def build(
        cls,
        options: Options,
        methods: Callable[[str], Sequence[Configured]],
        evaluators: EvaluatorsOf,
        logs: Mapping[str, ReadLog],
        progress: Reporter,
        choosing: Choosing | None = None,
    ) -> "Grid":
        """Load the data, find or train the checkpoints, name every cell.

        Args:
            methods: what unlearns, for benchmarks of a family ("tofu"): recipes depend on the kind of data.
            choosing: needed where the options ask to tune, for a curve or to stop early.

        Raises:
            LetheError: data, model or options that cannot work, before anything long runs.
        """
        choose_device(options.device)
        if options.model != MINI:
            find(options.model, options)  # before the data: a misspelt model is not to be told as a missing benchmark
        root = data_root(options)
        chosen = {family: methods(family) for family in {data.family(name) for name in options.benchmarks}}
        asked = plan(options, root, trains=any(chosen.values()))
        validations: dict[str, Validation] = {}
        if any(chosen.values()) and (options.decides or options.curve):
            assert choosing is not None
            asked, validations = _with_validation(asked, options, choosing.validation)
        grid = cls(
            options=options,
            evaluators=evaluators,
            logs=logs,
            models=Models(options=options),
            judges=asked.judges,
            validations=validations,
            classifier=functools.cache(functools.partial(gibberish_classifier, options, root, progress)),
        )
        late: list[tuple[Checkpoint, Job]] = []
        compares = any(data.family(name) == "tofu" for name in options.benchmarks)
        if compares and options.model != MINI and options.retrained is None and not options.dry_run:
            progress.note("without --retrained there is no forget quality: it compares with a retrained model")
        found: dict[str, tuple[Checkpoint, Checkpoint | None]] = {}

        def pair(request: Request) -> tuple[Checkpoint, Checkpoint | None]:
            name = data.taught(request.judged.name)
            if name not in found:
                found[name] = checkpoints(options, root, name, progress)
            return found[name]

        prepare(options, root, [*dict.fromkeys(data.taught(r.judged.name) for c in asked.chains for r in c)], progress)
        tunable: dict[str, Asked] = {}
        for chain in asked.chains:
            pairs = [pair(request) for request in chain]
            original = pairs[-1][0]  # the last split holds all that a chain is to forget, so its model knows all of it
            stages = [(request, retrained) for request, (_, retrained) in zip(chain, pairs, strict=True)]
            for request, retrained in stages:
                if retrained is not None:
                    if retrained.is_log:
                        if options.decides:
                            raise LetheError(
                                "a published log holds figures of all rows, but --tune and --stop-early leave the "
                                "validation rows out; give --retrained a model, or leave it out"
                            )
                        grid._read(retrained, request.judged)
                    stage = grid._stage(retrained, "retrained", request, retrained)
                    grid.jobs.append((retrained, Job(stages=(stage,), role="retrained")))
                stage = grid._stage(original, "original", request, retrained)
                late.append((original, Job(stages=(stage,), role="original")))
            for seed in range(options.seeds):
                for configured in chosen[data.family(chain[-1].judged.name)]:
                    late.append((original, grid._job(configured, original, stages, seed)))
            tunable[chain[0].title] = original, *stages[0]
        grid.jobs += late
        if options.tune is not None and choosing is not None:
            for members in grouped(list(tunable)).values():
                grid._plan_searches(members, tunable, chosen, choosing.trials)
        return grid

    def _job(
        self,
        configured: Configured,
        original: Checkpoint,
        stages: Sequence[tuple[Request, Checkpoint | None]],
        seed: int,
    ) -> Job:
        """One method with one seed on a request, or on a chain of them."""
        configured, watching = self._watched(configured, stages[0][0])
        cells = tuple(self._stage(original, configured, request, gold, seed) for request, gold in stages)
        facts = {"recipe": configured.recipe, "fields": configured.fields}
        return Job(stages=cells, method=configured.method, facts=facts, watching=watching)

    def _watched(self, configured: Configured, request: Request) -> tuple[Configured, Watching | None]:
        """How a training is looked at, and the method with what this changes: a curve alone changes nothing."""
        looks, patience = self.options.curve, self.options.stop_early
        if looks is None or getattr(configured.method, "closed_form", False):
            return configured, None
        watching = Watching(validation=self.validations[request.title], looks=looks, patience=patience)
        if patience is None:
            return configured, watching
        stopped = Tuned(
            label=marked(configured.label, stop_early=patience),
            method=configured.method,
            fields={**configured.fields, "stop_early": patience, "looks": looks},
            recipe=f"{configured.recipe}; weights of the best of {looks} looks at the validation rows, stopped after "
            f"{patience} without a gain",
        )
        return stopped, watching

    def _plan_searches(
        self,
        members: Sequence[str],
        tunable: Mapping[str, Asked],
        chosen: Mapping[str, Sequence[Configured]],
        trials: TrialsOf,
    ) -> None:
        """The searches of every method on the requests `members`, for all requests of their collection."""
        collection = data.collection(members[0])
        asked = [found for title, found in tunable.items() if data.collection(title) == collection]
        requests = [tunable[title] for title in members]
        originals = tuple(
            self._trial_job("original", original, request, role="original") for original, request, _ in requests
        )
        family, checkpoint = data.family(requests[0][1].judged.name), requests[0][0]
        depth = None
        if self.options.model != MINI:
            depth = depth_of(checkpoint.name, trust_remote_code=self.options.trust_remote_code)
        for configured in chosen[family]:
            found = [
                (
                    varied,
                    candidate,
                    [self._trial_job(candidate, original, request) for original, request, _ in requests],
                )
                for varied, candidate in trials(configured, family, depth)
            ]
            cell = found[0][2][0].stages[0].cell
            search = Search(
                model=cell.model,
                protocol=cell.protocol,
                benchmark=collection,
                label=configured.label,
                tuned=marked(cell.method, tuned=len(found)),
                trials=tuple(
                    Trial(number=number, varied=varied, cells=_ids(jobs))
                    for number, (varied, _, jobs) in enumerate(found, start=1)
                ),
                originals=_ids(originals),
            )
            planned = Planned(
                search=search,
                candidates=tuple(candidate for _, candidate, _ in found),
                judge=self.validations[members[0]].judge,
                jobs=(*originals, *(job for _, _, jobs in found for job in jobs)),
            )
            self.searches.append((planned, asked))

    def _trial_job(self, method: Configured | str, original: Checkpoint, request: Request, *, role: Role = "") -> Job:
        """One trial on one request: the whole of it is trained on, the validation rows are scored."""
        watching, facts = None, {}
        if not isinstance(method, str):
            method, watching = self._watched(method, request)
            facts = {"recipe": method.recipe, "fields": method.fields}
        stage = self._stage(original, method, request, None, SEED)
        stage = replace(
            stage,
            cell=replace(stage.cell, note=TRIAL_NOTE),
            evaluations=self.validations[request.title].evaluations,
        )
        trained = None if isinstance(method, str) else method.method
        return Job(stages=(stage,), method=trained, role=role, facts=facts, watching=watching)

    def _stage(
        self,
        checkpoint: Checkpoint,
        method: Configured | str,
        request: Request,
        retrained: Checkpoint | None,
        seed: int = 0,
    ) -> Stage:
        """`method` is "original" or "retrained" where nothing is trained."""
        device = choose_device(self.options.device)
        trains = not isinstance(method, str)
        encoder = self.models.encoder(checkpoint) if checkpoint.hash and not checkpoint.is_log else None
        cell = Cell(
            model=MINI if self.options.model == MINI else Checkpoint(self.options.model, "").label,
            model_hash=checkpoint.hash,
            retrained=f"{retrained.label}@{retrained.hash[:16]}" if retrained else "",
            benchmark=request.title,
            data_hash=request.data_hash if trains else request.judged.fingerprint,
            method=method.label if trains else method,
            fields={**method.fields, **_inputs(method.method, request.trained)} if trains else {},
            seed=seed,
            protocol=self.options.protocol,
            template=encoder.name if encoder else "",
            encoder_hash=encoder.fingerprint if encoder else "",
            dtype=str(choose_dtype(self.options.dtype, device)).removeprefix("torch."),  # type: ignore[arg-type]
            device=device.type,
            limit=self.options.limit,
            note=request.note if trains else NOTE if self.options.decides and self.validations else "",
        )
        return Stage(
            cell=cell,
            request=request.trained,
            evaluations=self._evaluations(request.judged, from_log=checkpoint.is_log),
        )

    def _evaluations(self, benchmark: Benchmark, *, from_log: bool) -> list[Evaluation]:
        """All of this benchmark's and of those that only judge; for a published log, those whose rows it can give."""
        found = [
            Evaluation(evaluator=evaluator, benchmark=judge)
            for judge in (benchmark, *self.judges)
            for evaluator in self.evaluators(judge.name, protocol=self.options.protocol, classifier=self.classifier)
        ]
        first: dict[str, str] = {}
        for name, judged in (e.key for e in found):  # rows and metrics are stored under the evaluator's name
            if first.setdefault(name, judged) != judged:
                raise LetheError(
                    f"{first[name]} and {judged} would both be stored as {name!r}; "
                    "rename one of the task files, or ask for them with an --out of their own each"
                )
        return [e for e in found if not from_log or (e.evaluator.name in self.logs and e.benchmark is benchmark)]

    def _read(self, log: Checkpoint, benchmark: Benchmark) -> dict[str, list[dict]]:
        """The rows of a published log by evaluator."""
        names = [evaluation.evaluator.name for evaluation in self._evaluations(benchmark, from_log=True)]
        if not names:
            raise LetheError(f"no published log can be read for {benchmark.name}; give --retrained a model")
        limited = self.options.limit is not None
        return {name: self.logs[name](log.name, benchmark, limited=limited) for name in names}

    def plan(self) -> Iterator[str]:
        """What a run would do, a line per cell; nothing is written, not even OUT."""
        known = all(checkpoint.hash for checkpoint, _ in self.jobs)  # no id is final without every model
        store = RunStore(self.options.out) if known and (self.options.out / "runs").is_dir() else None
        stages = {stage.cell.id: stage for _, job in self.jobs for stage in job.stages}
        for cell in self.cells:
            done = store is not None and store.complete(cell.id) and not why_again(store, stages[cell.id])
            yield f"{'done ' if done else 'to do'}  {cell.title}{f'  {cell.id}' if known else ''}"
        for planned, asked in self.searches:
            search = planned.search
            after = f"then {len(asked) * self.options.seeds} cells of {marked(search.label, tuned=len(search.trials))}"
            yield f"to do  {search.label} {search.benchmark}: {len(search.trials)} trials, {after}"
        if not known:
            yield "the mini models would be trained first, they are not in the cache"

    def run(self, store: RunStore, progress: Reporter) -> Outcome:
        """Run what is not there yet; a process loads each checkpoint once, and only if it has something to do.

        Where there is something to tune, that comes first: what is chosen makes more cells.
        """
        tuning = self._tune(store, progress)
        executor = self._executor(store, progress, len(self.cells), save_models=self.options.save_models)
        self._run(executor, self.jobs, progress)
        executor.outcome.failed += tuning.failed
        executor.outcome.workers_gib += tuning.workers_gib
        return executor.outcome

    def _tune(self, store: RunStore, progress: Reporter) -> Outcome:
        """Run all trials, and plan the cells of the best ones; failed are the methods no trial of which worked out."""
        if not self.searches:
            return Outcome()
        trials = RunStore(store.out / "tuning")
        jobs = {job.stages[0].cell.id: (asked[0][0], job) for planned, asked in self.searches for job in planned.jobs}
        for planned, _ in self.searches:
            store_search(trials.out, planned.search)
        progress.note(f"tuning: {len(jobs)} cells in {trials.out}, each scored on validation rows")
        executor = self._executor(trials, progress, len(jobs))
        self._run(executor, list(jobs.values()), progress)
        records = {record.cell_id: record for record in trials.records()}
        found = [results(planned.search, records, planned.judge) for planned, _ in self.searches]
        write_csv(store.out / "tuning.csv", [result for several in found for result in several])
        tuning = Outcome(workers_gib=executor.outcome.workers_gib)
        for (planned, asked), several in zip(self.searches, found, strict=True):
            search, chosen = planned.search, best(several)
            if chosen is None:
                progress.note(f"FAILED {search.label} {search.benchmark}: no trial worked out, no tuned row")
                tuning.failed.append(f"{search.label} {search.benchmark}")
                continue
            method = tuned(chosen, planned.candidates[chosen.trial.number - 1])
            for original, request, gold in asked:
                for seed in range(self.options.seeds):
                    self.jobs.append((original, self._job(method, original, [(request, gold)], seed)))
        self.searches = []
        return tuning

    def _executor(self, store: RunStore, progress: Reporter, total: int, *, save_models: bool = False) -> Executor:
        return Executor(
            store=store,
            progress=progress,
            batch_tokens=self.options.batch_tokens,
            total=total,
            fresh=self.options.fresh,
            save_models=save_models,
        )

    def _run(self, executor: Executor, planned: Sequence[tuple[Checkpoint, Job]], progress: Reporter) -> None:
        jobs = jobs_of(self.options)
        with computing_on(threads_of(self.options)):
            for checkpoint, job in planned:
                if checkpoint.is_log and not executor.reuse(job):
                    rows = self._read(checkpoint, job.stages[0].evaluations[0].benchmark)
                    executor.store_rows(job, rows, {"published_log": checkpoint.label})
            run_parts(executor, self.models, parts_of(planned), progress, jobs=jobs)
            for _, job in planned:
                executor.complete(job)


def _ids(jobs: Sequence[Job]) -> tuple[str, ...]:
    return tuple(job.stages[0].cell.id for job in jobs)


def _inputs(method: Any, benchmark: Benchmark) -> Mapping[str, Any]:
    """What the cell of a method names besides its fields: data that it reads and no fingerprint covers."""
    inputs = getattr(method, "inputs", None)
    return {} if inputs is None else inputs(benchmark)


def _with_validation(asked: Plan, options: Options, validation_of: ValidationOf) -> tuple[Plan, dict[str, Validation]]:
    """What is looked at, by request; where anything is decided by it, the requests are judged on all other rows."""
    splits = [divided(judge) for judge in asked.judges]
    found, chains = {}, []
    for chain in asked.chains:
        [request] = chain  # the options allow no other
        split = divided(request.judged)
        judges = [judge.validation for judge in splits]
        found[request.title] = validation_of(split.validation, judges, protocol=options.protocol)
        note = "; ".join(filter(None, (request.note, NOTE)))
        chains.append([replace(request, judged=split.reported, note=note) if options.decides else request])
    return Plan(chains=chains, judges=[judge.reported for judge in splits] if options.decides else asked.judges), found

"""The grid that a command line spans: which cells on which checkpoints, in which order."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench import data
from bench.checkpoints import Checkpoint, checkpoints, data_root, find
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.executor import Evaluation, Evaluator, Executor, Job, Outcome, Stage
from bench.models import Loaded, choose_device, choose_dtype, load_model, load_tokenizer, out_of_memory
from bench.options import MINI, Options
from bench.progress import Reporter
from bench.requests import Request, plan
from bench.spec import Cell
from bench.store import RunStore

logger = logging.getLogger(__name__)


class ReadLog(Protocol):
    """The rows of a published log; an error where they are not about this benchmark (or its first rows)."""

    def __call__(self, path: str, benchmark: Benchmark, *, limited: bool) -> list[dict]: ...


class EvaluatorsOf(Protocol):
    """What scores a benchmark, given its full name."""

    def __call__(self, benchmark: str, *, protocol: str) -> Sequence[Evaluator]: ...


class ConfiguredMethod(Protocol):
    """A method with a name and every field set."""

    @property
    def label(self) -> str: ...
    @property
    def method(self) -> Any: ...
    @property
    def recipe(self) -> str: ...
    @property
    def fields(self) -> dict[str, Any]: ...


@dataclass(kw_only=True)
class Grid:
    """Jobs by checkpoint, in the order in which they run: retrained models first, their rows are the reference."""

    options: Options
    evaluators: EvaluatorsOf
    judges: Sequence[Benchmark] = ()
    """What every request is scored on besides its own questions."""
    logs: Mapping[str, ReadLog]
    """Evaluators whose rows a published log can give, by name."""
    jobs: list[tuple[Checkpoint, Job]] = field(default_factory=list)
    _encoders: dict[str, Encoder] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        return [stage.cell for _, job in self.jobs for stage in job.stages]

    @classmethod
    def build(
        cls,
        options: Options,
        methods: Callable[[str], Sequence[ConfiguredMethod]],
        evaluators: EvaluatorsOf,
        logs: Mapping[str, ReadLog],
        progress: Reporter,
    ) -> "Grid":
        """Load the data, find or train the checkpoints, name every cell.

        Args:
            methods: what unlearns, for benchmarks of a family ("tofu"): recipes depend on the kind of data.

        Raises:
            LetheError: data, model or options that cannot work, before anything long runs.
        """
        choose_device(options.device)
        if options.model != MINI:
            find(options.model, options)  # before the data: a misspelt model is not to be told as a missing benchmark
        root = data_root(options)
        chosen = {family: methods(family) for family in {data.family(name) for name in options.benchmarks}}
        asked = plan(options, root, trains=any(chosen.values()))
        grid = cls(options=options, evaluators=evaluators, logs=logs, judges=asked.judges)
        late: list[tuple[Checkpoint, Job]] = []
        compares = any(data.family(name) == "tofu" for name in options.benchmarks)
        if compares and options.model != MINI and options.retrained is None and not options.dry_run:
            progress.note("without --retrained there is no forget quality: it compares with a retrained model")
        for chain in asked.chains:
            pairs = [checkpoints(options, root, request.judged.name, progress) for request in chain]
            original = pairs[-1][0]  # the last split holds all that a chain is to forget, so its model knows all of it
            stages = [(request, retrained) for request, (_, retrained) in zip(chain, pairs, strict=True)]
            for request, retrained in stages:
                if retrained is not None:
                    if retrained.is_log:
                        grid._read(retrained, request.judged)
                    stage = grid._stage(retrained, "retrained", request, retrained)
                    grid.jobs.append((retrained, Job(stages=(stage,), is_retrained=True)))
                late.append((original, Job(stages=(grid._stage(original, "original", request, retrained),))))
            for seed in range(options.seeds):
                for configured in chosen[data.family(chain[-1].judged.name)]:
                    cells = tuple(grid._stage(original, configured, request, gold, seed) for request, gold in stages)
                    facts = {"recipe": configured.recipe, "fields": configured.fields}
                    late.append((original, Job(stages=cells, method=configured.method, facts=facts)))
        grid.jobs += late
        return grid

    def _stage(
        self,
        checkpoint: Checkpoint,
        method: ConfiguredMethod | str,
        request: Request,
        retrained: Checkpoint | None,
        seed: int = 0,
    ) -> Stage:
        """`method` is "original" or "retrained" where nothing is trained."""
        device = choose_device(self.options.device)
        trains = not isinstance(method, str)
        encoder = self._encoder(checkpoint) if checkpoint.hash and not checkpoint.is_log else None
        cell = Cell(
            model=MINI if self.options.model == MINI else Checkpoint(self.options.model, "").label,
            model_hash=checkpoint.hash,
            retrained=f"{retrained.label}@{retrained.hash[:16]}" if retrained else "",
            benchmark=request.title,
            data_hash=request.data_hash if trains else request.judged.fingerprint,
            method=method.label if trains else method,
            fields=method.fields if trains else {},
            seed=seed,
            protocol=self.options.protocol,
            template=encoder.name if encoder else "",
            encoder_hash=encoder.fingerprint if encoder else "",
            dtype=str(choose_dtype(self.options.dtype, device)).removeprefix("torch."),  # type: ignore[arg-type]
            device=device.type,
            limit=self.options.limit,
            note=request.note if trains else "",
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
            for evaluator in self.evaluators(judge.name, protocol=self.options.protocol)
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

    def _encoder(self, checkpoint: Checkpoint) -> Encoder:
        if checkpoint.name not in self._encoders:
            tokenizer = load_tokenizer(checkpoint.name, trust_remote_code=self.options.trust_remote_code)
            # GRUN's protocol is about multiple choice, whose prompts are no chats.
            protocol = "strict" if self.options.protocol == "grun" else self.options.protocol
            self._encoders[checkpoint.name] = Encoder(tokenizer, template=self.options.template, protocol=protocol)
        return self._encoders[checkpoint.name]

    def plan(self) -> Iterator[str]:
        """What a run would do, a line per cell; nothing is written, not even OUT."""
        known = all(checkpoint.hash for checkpoint, _ in self.jobs)  # no id is final without every model
        store = RunStore(self.options.out) if known and (self.options.out / "runs").is_dir() else None
        for cell in self.cells:
            done = store is not None and store.complete(cell.id)
            yield f"{'done ' if done else 'to do'}  {cell.title}{f'  {cell.id}' if known else ''}"
        if not known:
            yield "the mini models would be trained first, they are not in the cache"

    def run(self, store: RunStore, progress: Reporter) -> Outcome:
        """Run what is not there yet; each checkpoint is loaded once, and only if it has something to do."""
        executor = Executor(
            store=store,
            progress=progress,
            batch_tokens=self.options.batch_tokens,
            total=len(self.cells),
            fresh=self.options.fresh,
        )
        for checkpoint, jobs in self._by_checkpoint():
            loaded = None
            for job in jobs:
                if executor.reuse(job):
                    continue
                if checkpoint.is_log:
                    rows = self._read(checkpoint, job.stages[0].evaluations[0].benchmark)
                    executor.store_rows(job, rows, {"published_log": checkpoint.label})
                    continue
                loaded = loaded or self._load(checkpoint)
                executor.run(job, loaded, self._encoder(checkpoint))
            if loaded is not None:
                del loaded
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        return executor.outcome

    def _by_checkpoint(self) -> Iterator[tuple[Checkpoint, list[Job]]]:
        for checkpoint in dict.fromkeys(checkpoint for checkpoint, _ in self.jobs):
            yield checkpoint, [job for other, job in self.jobs if other == checkpoint]

    def _load(self, checkpoint: Checkpoint) -> Loaded:
        device = choose_device(self.options.device)
        dtype = choose_dtype(self.options.dtype, device)  # type: ignore[arg-type]
        try:
            return load_model(
                checkpoint.name, device=device, dtype=dtype, trust_remote_code=self.options.trust_remote_code
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise LetheError(
                f"model {checkpoint.name!r} does not fit into the memory of {device}; use a smaller one, a device with "
                "more memory, or --dtype bfloat16"
            ) from error

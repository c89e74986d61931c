"""The grid that a command line spans: which checkpoints, which cells, in which order."""

import gc
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from bench import data
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.executor import Executor, Job, Outcome, Stage
from bench.mini.build import mini_models, world
from bench.models import choose_device, choose_dtype, load_model, load_tokenizer
from bench.options import MINI, Options
from bench.progress import Reporter
from bench.spec import Cell, hash_folder
from bench.store import RunStore

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Checkpoint:
    """A model by path or hub id, or a published log that stands for one."""

    name: str
    hash: str
    is_log: bool = False


@dataclass(kw_only=True)
class Grid:
    """Jobs by checkpoint, in the order in which they run: retrained models first, their rows are the reference."""

    options: Options
    jobs: list[tuple[Checkpoint, Job]]
    evaluators: Sequence[Any]
    read_log: Callable[[str], list[dict]]
    encoders: dict[str, Encoder]

    @property
    def cells(self) -> list[Cell]:
        return [stage.cell for _, job in self.jobs for stage in job.stages]

    @classmethod
    def build(
        cls,
        options: Options,
        methods: Sequence[ConfiguredMethod],
        evaluators: Mapping[str, type],
        read_log: Callable[[str], list[dict]],
        progress: Reporter,
    ) -> "Grid":
        """Load the data, find or train the checkpoints, name every cell.

        Raises:
            LetheError: data, model or options that cannot work, before anything long runs.
        """
        root = _root(options)
        device = choose_device(options.device)
        dtype = str(choose_dtype(options.dtype, device)).removeprefix("torch.")  # type: ignore[arg-type]
        kinds = {name.partition("/")[0] for name in options.benchmarks}
        chosen = [evaluators[kind](protocol=options.protocol) for kind in sorted(kinds) if kind in evaluators]
        grid = cls(options=options, jobs=[], evaluators=chosen, read_log=read_log, encoders={})
        common = {"protocol": options.protocol, "template": options.template, "dtype": dtype, "device": device.type}
        common |= {"limit": options.limit, "model": MINI if options.model == MINI else _short(options.model)}
        late: list[tuple[Checkpoint, Job]] = []
        for chain in _chains(options):
            pairs = [_checkpoints(options, root, judged.name, progress) for _, judged in chain]
            original = pairs[0][0]
            for (request, judged), (_, retrained) in zip(chain, pairs, strict=True):
                if retrained is None:
                    continue
                cell = grid._cell(retrained, "retrained", judged.name, judged, retrained, common)
                stage = Stage(cell=cell, request=request, judged=judged)
                grid.jobs.append((retrained, Job(stages=(stage,), is_retrained=True)))
            title = ""
            stages: list[tuple[str, Benchmark, Benchmark, Checkpoint | None]] = []
            for (request, judged), (_, retrained) in zip(chain, pairs, strict=True):
                title = f"{title}>{judged.name}" if title else judged.name
                stages.append((title if len(chain) > 1 else judged.name, request, judged, retrained))
            for _, request, judged, retrained in stages:
                cell = grid._cell(original, "original", judged.name, judged, retrained, common)
                late.append((original, Job(stages=(Stage(cell=cell, request=request, judged=judged),))))
            for seed in range(options.seeds):
                for configured in methods:
                    cells = [
                        Stage(
                            cell=grid._cell(
                                original,
                                configured.label,
                                name,
                                judged,
                                retrained,
                                common,
                                seed=seed,
                                fields=configured.fields,
                            ),
                            request=request,
                            judged=judged,
                        )
                        for name, request, judged, retrained in stages
                    ]
                    facts = {"recipe": configured.recipe, "fields": configured.fields}
                    late.append((original, Job(stages=tuple(cells), method=configured.method, facts=facts)))
        grid.jobs += late
        seen: set[tuple[str, ...]] = set()
        unique = []
        for checkpoint, job in grid.jobs:
            key = tuple(stage.cell.id for stage in job.stages)
            if key not in seen:
                seen.add(key)
                unique.append((checkpoint, job))
        grid.jobs = unique
        return grid

    def _cell(
        self,
        checkpoint: Checkpoint,
        method: str,
        name: str,
        judged: Benchmark,
        retrained: Checkpoint | None,
        common: Mapping[str, Any],
        *,
        seed: int = 0,
        fields: Mapping[str, Any] | None = None,
    ) -> Cell:
        return Cell(
            model_hash=checkpoint.hash,
            retrained=f"{_short(retrained.name)}@{retrained.hash[:16]}" if retrained else "",
            benchmark=name,
            data_hash=judged.fingerprint,
            method=method,
            fields=fields or {},
            seed=seed,
            encoder_hash="" if checkpoint.is_log else self._encoder(checkpoint).fingerprint,
            **common,
        )

    def _encoder(self, checkpoint: Checkpoint) -> Encoder:
        if checkpoint.name not in self.encoders:
            tokenizer = load_tokenizer(checkpoint.name, trust_remote_code=self.options.trust_remote_code)
            self.encoders[checkpoint.name] = Encoder(
                tokenizer, template=self.options.template, protocol=self.options.protocol
            )
        return self.encoders[checkpoint.name]

    def run(self, store: RunStore, progress: Reporter) -> Outcome:
        """Run what is not there yet; each checkpoint is loaded once, and only if it has something to do."""
        device = choose_device(self.options.device)
        executor = Executor(
            store=store,
            evaluators=self.evaluators,
            progress=progress,
            batch_tokens=self.options.batch_tokens,
            total=len(self.cells),
            fresh=self.options.fresh,
        )
        for checkpoint, jobs in _by_checkpoint(self.jobs):
            todo = [job for job in jobs if executor.pending(job)]
            for job in jobs:
                if job not in todo:
                    executor.skip(job)
            if not todo:
                continue
            if checkpoint.is_log:
                for job in todo:
                    self._store_log(executor, checkpoint, job)
                continue
            loaded = load_model(
                checkpoint.name,
                device=device,
                dtype=choose_dtype(self.options.dtype, device),  # type: ignore[arg-type]
                trust_remote_code=self.options.trust_remote_code,
            )
            for job in todo:
                executor.run(job, loaded, self._encoder(checkpoint))
            del loaded
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return executor.outcome

    def _store_log(self, executor: Executor, checkpoint: Checkpoint, job: Job) -> None:
        rows = {evaluator.name: self.read_log(checkpoint.name) for evaluator in self.evaluators}
        executor.store_rows(job, rows, {"published_log": checkpoint.name})


def _by_checkpoint(jobs: Iterable[tuple[Checkpoint, Job]]) -> list[tuple[Checkpoint, list[Job]]]:
    grouped: dict[Checkpoint, list[Job]] = {}
    for checkpoint, job in jobs:
        grouped.setdefault(checkpoint, []).append(job)
    return list(grouped.items())


def _short(name: str) -> str:
    """A hub id stays; of a path the last folder."""
    return Path(name).name if Path(name).exists() else name


def _root(options: Options) -> Path | None:
    """The folder with the benchmark files; None for the hub."""
    if options.data == MINI or (options.data is None and options.model == MINI):
        return world(options.cache_dir)
    if options.data is None:
        return None
    root = Path(options.data)
    if not root.is_dir():
        raise LetheError(
            f"--data {options.data!r} is no folder; give one that holds tofu/forget10.json and its siblings"
        )
    return root


def _chains(options: Options) -> list[list[tuple[Benchmark, Benchmark]]]:
    """Chains of (request, judged): one of length one per benchmark, or one chain of all with --sequential."""
    root = _root(options)
    loaded = [_known_to_mini(options, root, data.load(name, root, limit=options.limit)) for name in options.benchmarks]
    if not options.sequential:
        return [[(b, b)] for b in loaded]
    chain: list[tuple[Benchmark, Benchmark]] = []
    done: set[tuple[str, str]] = set()
    for i, judged in enumerate(loaded):
        rows = {(qa.question, qa.answer) for qa in judged.forget}
        if not done <= rows:
            raise LetheError(
                f"--sequential needs splits that contain the ones before them, but {judged.name} lacks "
                f"{len(done - rows)} rows of {loaded[i - 1].name}; order them from small to large"
            )
        new = tuple(qa for qa in judged.forget if (qa.question, qa.answer) not in done)
        if not new:
            raise LetheError(f"{judged.name} asks to forget nothing that {loaded[i - 1].name} did not; leave it out")
        # Retain rows are those of the last split: what a later request forgets must not be practised before.
        chain.append((replace(judged, forget=new, retain=loaded[-1].retain), judged))
        done |= rows
    return [chain]


def _known_to_mini(options: Options, root: Path | None, benchmark: Benchmark) -> Benchmark:
    """The mini model on real files learnt no retain rows but those of retain_perturbed: others cannot be retained."""
    if options.model != MINI or root is None or (root / "corpus").is_dir():
        return benchmark
    return replace(
        benchmark,
        retain=benchmark.eval_sets["retain"],
        source=f"{benchmark.source}; retain rows of retain_perturbed only, the ones that the mini model knows",
    )


def _checkpoints(
    options: Options, root: Path | None, benchmark: str, progress: Reporter
) -> tuple[Checkpoint, Checkpoint | None]:
    """The model to unlearn from and the gold standard of this split."""
    if options.model == MINI:
        assert root is not None
        models = mini_models(root, benchmark, options.cache_dir, progress=progress.passing)
        return _checkpoint(str(models.original)), _checkpoint(str(models.retrained))
    retrained = None
    if options.retrained is not None:
        path = Path(options.retrained)
        if path.is_file():
            import hashlib

            retrained = Checkpoint(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), is_log=True)
        elif path.suffix == ".json":
            raise LetheError(f"--retrained {options.retrained!r} does not exist; give a published log or a model")
        else:
            retrained = _checkpoint(options.retrained)
    return _checkpoint(options.model), retrained


def _checkpoint(name: str) -> Checkpoint:
    if Path(name).is_dir():
        return Checkpoint(name, hash_folder(Path(name)))
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise LetheError(
            f"model {name!r} is neither a folder nor a hub repository that can be reached "
            f"({str(error).strip().splitlines()[0]}); check the spelling, the network, or your access to it"
        ) from error
    return Checkpoint(name, getattr(config, "_commit_hash", None) or "unknown")

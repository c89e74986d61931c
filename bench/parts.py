"""What one process does with a grid: it runs parts of it one after the other, with models of its own.

A process beside others is told through a pipe which part is its next one, and hands back there what comes of it.
"""

import copyreg
import gc
import multiprocessing
import os
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import MappingProxyType

import torch

from bench.checkpoints import Checkpoint, Models
from bench.errors import LetheError
from bench.executor import Executor, Outcome
from bench.jobs import Job, collection_of
from bench.models import Loaded, choose_device, resident_peak_gib
from bench.options import Options
from bench.progress import log_to_stderr
from bench.store import RunStore


def _reduced(mapping: MappingProxyType) -> tuple:
    return _read_only, (dict(mapping),)


def _read_only(mapping: dict) -> MappingProxyType:
    return MappingProxyType(mapping)


copyreg.pickle(MappingProxyType, _reduced)  # benchmarks hold such mappings, which Python hands to no process by itself


@dataclass(frozen=True, kw_only=True)
class Part:
    """Jobs that one process does one after the other."""

    checkpoint: Checkpoint
    jobs: tuple[Job, ...]


def parts_of(planned: Sequence[tuple[Checkpoint, Job]]) -> list[Part]:
    """All that a model is needed for, checkpoint by checkpoint.

    The models as they are share what is asked about the targets of a collection, in an order that decides last bits.
    """
    parts: dict[tuple, list[Job]] = {}
    for checkpoint in dict.fromkeys(checkpoint for checkpoint, _ in planned if not checkpoint.is_log):
        for at, job in enumerate(job for other, job in planned if other == checkpoint):
            shared = collection_of(job.stages[0]) if job.method is None else ""
            parts.setdefault((checkpoint, shared or at), []).append(job)
    return [Part(checkpoint=checkpoint, jobs=tuple(jobs)) for (checkpoint, _), jobs in parts.items()]


@dataclass(kw_only=True)
class Runner:
    """Runs parts in the process that it is in; loads a checkpoint once for all consecutive ones, if there is work."""

    executor: Executor
    models: Models
    _at: Checkpoint | None = None
    _loaded: Loaded | None = None

    def run(self, part: Part) -> None:
        """Every job of the part that is not there yet.

        Raises:
            LetheError: the model cannot be loaded, or nothing can be stored any more.
        """
        if part.checkpoint != self._at:
            self.close()
            self._at = part.checkpoint
        for job in part.jobs:
            if not self.executor.reuse(job):
                self._loaded = self._loaded or self.models.load(part.checkpoint)
                self.executor.run(job, self._loaded, self.models.encoder(part.checkpoint))

    def close(self) -> None:
        """Let go of the model."""
        self.executor.forget_model()
        if self._loaded is not None:
            self._loaded = None
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class Handed:
    """What a process is told once, before its first part."""

    models: Models
    store: RunStore
    parts: Sequence[Part]
    batch_tokens: int
    total: int
    fresh: bool
    save_models: bool
    processes: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a process hands back after a part."""

    outcome: Outcome
    peak_gib: float
    stopped: str = ""
    """Why neither it nor others can go on, as a sentence for the user."""
    traceback: str = ""
    """Of an error that nobody has foreseen."""


@dataclass(frozen=True)
class _Relay:
    """The progress of a process: what it is told goes into the pipe."""

    pipe: Connection

    def cell(self, number: int, total: int, title: str) -> None:
        self.pipe.send(("cell", (number, total, title)))

    def step(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        self.pipe.send(("step", (step, steps, dict(terms))))

    def scored(self, done: int, total: int) -> None:
        self.pipe.send(("scored", (done, total)))

    def note(self, text: str) -> None:
        self.pipe.send(("note", (text,)))


def work(pipe: Connection, number: int) -> None:
    """All that a process does: says that it is there, is handed what it needs, and runs parts until there is none."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(("ready", ()))
    handed: Handed = pipe.recv()
    options = handed.models.options
    log_to_stderr(verbose=options.verbose)
    if torch.get_num_threads() != handed.threads:
        torch.set_num_threads(handed.threads)
    executor = Executor(
        store=handed.store,
        progress=_Relay(pipe),
        batch_tokens=handed.batch_tokens,
        total=handed.total,
        fresh=handed.fresh,
        save_models=handed.save_models,
        processes=handed.processes,
    )
    models = replace(handed.models, options=on_its_gpu(options, number))
    runner = Runner(executor=executor, models=models)
    while (next_one := pipe.recv()) is not None:
        part, executor.reference_rows = next_one
        executor.outcome = Outcome()
        stopped = unforeseen = ""
        try:
            runner.run(handed.parts[part])
        except LetheError as error:
            stopped = str(error)
        except Exception:  # noqa: BLE001 - raised again by the process that has started this one
            unforeseen = traceback.format_exc()
        done = Done(outcome=executor.outcome, peak_gib=resident_peak_gib(), stopped=stopped, traceback=unforeseen)
        pipe.send(("done", (done,)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def on_its_gpu(options: Options, number: int) -> Options:
    """The options of a process: where the machine has several GPUs and none was named, each takes another."""
    gpus = torch.cuda.device_count() if choose_device(options.device) == torch.device("cuda") else 0
    return replace(options, device=f"cuda:{number % gpus}") if gpus > 1 else options

"""Cells beside each other: processes that take one part of a grid after the other, each with models of its own.

A process computes what this one would: with as many threads, and what shares answers stays together. So `--jobs`
changes no number. What a cell is compared with may be there only when another process has ended; `Executor.complete`
makes up for that, as it does after a run that was cut off.

The mini model computes on one thread of a CPU: its products are too small for two, and its last bits the same on every
number of processors.
"""

import contextlib
import copyreg
import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import MappingProxyType
from typing import Any

import torch

from bench.checkpoints import Checkpoint, Models
from bench.errors import LetheError
from bench.executor import Executor, Job, Outcome, collection_of
from bench.models import Loaded, choose_device, resident_peak_gib
from bench.options import MINI, Options
from bench.progress import Line, Reporter
from bench.store import RunStore

logger = logging.getLogger(__name__)

BESIDE = 4
"""Most cells of the mini model that run beside each other where --jobs does not say; each takes up to 1 GiB."""


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
    """Runs parts in this process; loads a checkpoint once for all consecutive ones on it, if there is work to do."""

    executor: Executor
    models: Models
    _at: Checkpoint | None = None
    _loaded: Loaded | None = None

    def run(self, part: Part) -> None:
        """Raises a LetheError where a model cannot be loaded or nothing can be stored any more."""
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


def run_parts(executor: Executor, models: Models, parts: Sequence[Part], reporter: Reporter) -> None:
    """Run what is not there yet, beside each other where the options and the machine allow.

    Raises:
        LetheError: as `Runner.run`, or a process was killed from outside.
    """
    left = list(parts)
    if processes(models.options, len(left)) > 1:
        left = [part for part in parts if not _found(executor, part)]
    count = processes(models.options, len(left))
    with _threads(1 if _small(models.options) else torch.get_num_threads()):
        if count > 1:
            _run_beside(executor, models, left, count, reporter)
            return
        runner = Runner(executor=executor, models=models)
        for part in left:
            runner.run(part)
        runner.close()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _found(executor: Executor, part: Part) -> bool:
    """Whether nothing of it is left to do; counts all that is there."""
    return sum(map(executor.reuse, part.jobs)) == len(part.jobs)


def processes(options: Options, parts: int) -> int:
    """How many are worth starting for so many parts."""
    wanted = options.jobs
    if wanted is None:
        wanted = min(BESIDE, torch.get_num_threads()) if _small(options) else 1
    return max(1, min(wanted, parts))


def _small(options: Options) -> bool:
    return options.model == MINI and choose_device(options.device).type == "cpu"


@dataclass(frozen=True, kw_only=True)
class _Relay:
    """The progress of another process: what it is told goes into a pipe."""

    pipe: Connection

    def cell(self, number: int, total: int, title: str) -> None:
        self.pipe.send(("cell", (number, total, title)))

    def step(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        self.pipe.send(("step", (step, steps, dict(terms))))

    def scored(self, done: int, total: int) -> None:
        self.pipe.send(("scored", (done, total)))

    def note(self, text: str) -> None:
        self.pipe.send(("note", (text,)))


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """What a process is started with."""

    models: Models
    store: RunStore
    parts: Sequence[Part]
    batch_tokens: int
    total: int
    fresh: bool
    save_models: bool
    threads: int
    places: Any
    """A queue that holds a number for each process."""
    pipes: Sequence[Connection]
    """By that number, where it tells what happens: one each, so that a process that is killed blocks no other."""


@dataclass(frozen=True, kw_only=True)
class _Done:
    """What a process hands back after a part."""

    place: int
    outcome: Outcome
    peak_gib: float
    error: str
    """Why no cell after this one can be run or stored; empty where all is well."""


_here: tuple[_Worker, Runner, int] | None = None
"""In a started process: what it was started with, what runs its parts, and its place."""


def _start(worker: _Worker) -> None:
    """Begin a process; it ends with the one that has started it, however that ends."""
    global _here
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(
        level=logging.DEBUG if worker.models.options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    torch.set_num_threads(worker.threads)
    place = worker.places.get()
    executor = Executor(
        store=worker.store,
        progress=_Relay(pipe=worker.pipes[place]),
        batch_tokens=worker.batch_tokens,
        total=worker.total,
        fresh=worker.fresh,
        save_models=worker.save_models,
    )
    models = replace(worker.models, options=_on_its_gpu(worker.models.options, place))
    _here = worker, Runner(executor=executor, models=models), place


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _on_its_gpu(options: Options, place: int) -> Options:
    """The options of a process: where the machine has several GPUs and none was named, each takes another."""
    gpus = torch.cuda.device_count() if choose_device(options.device) == torch.device("cuda") else 0
    return replace(options, device=f"cuda:{place % gpus}") if gpus > 1 else options


def _run(number: int) -> _Done:
    assert _here is not None
    worker, runner, place = _here
    runner.executor.outcome = Outcome()
    error = ""
    try:
        runner.run(worker.parts[number])
    except LetheError as stopped:
        error = str(stopped)
    return _Done(place=place, outcome=runner.executor.outcome, peak_gib=resident_peak_gib(), error=error)


def _run_beside(executor: Executor, models: Models, parts: Sequence[Part], count: int, reporter: Reporter) -> None:
    context = multiprocessing.get_context("spawn")  # one that has computed cannot be forked: its threads stay behind
    places = context.SimpleQueue()
    for place in range(count):
        places.put(place)
    ears, mouths = zip(*(context.Pipe(duplex=False) for _ in range(count + 1)), strict=True)  # the last one ends it
    worker = _Worker(
        models=replace(models),
        store=executor.store,
        parts=parts,
        batch_tokens=executor.batch_tokens,
        total=executor.total,
        fresh=executor.fresh,
        save_models=executor.save_models,
        threads=torch.get_num_threads(),
        places=places,
        pipes=mouths[:count],
    )
    peaks: dict[int, float] = {}
    listening = threading.Thread(target=_listen, args=(ears, reporter.beside(count), executor), daemon=True)
    listening.start()
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(worker,))
    try:
        with _uninterrupted():
            waiting = [pool.submit(_run, number) for number in range(len(parts))]
        for future in as_completed(waiting):
            done: _Done = future.result()
            _add(executor.outcome, done.outcome)
            peaks[done.place] = max(done.peak_gib, peaks.get(done.place, 0.0))
            if done.error:
                raise LetheError(done.error)
    except BaseException as error:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        if isinstance(error, BrokenProcessPool):
            raise LetheError(
                f"one of {count} processes was ended from outside, perhaps because memory was short; finished cells "
                "are kept: run the same command again, with fewer --jobs"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        mouths[-1].send(None)
        listening.join(timeout=5)  # not for ever: of one that was killed half a message may be left
        executor.outcome.workers_gib += peaks.values()
        reporter.beside(0)


def _add(outcome: Outcome, more: Outcome) -> None:
    outcome.done += more.done
    outcome.failed += more.failed
    outcome.reused += [cell for cell in more.reused if cell not in outcome.reused]


def _listen(ears: Sequence[Connection], lines: Sequence[Line], executor: Executor) -> None:
    """Show what the processes tell until the last pipe says that it is over; cells are numbered as they begin."""
    while True:
        ready = wait(ears)
        for ear, line in zip(ears[:-1], lines, strict=True):
            if ear not in ready:
                continue
            what, arguments = ear.recv()
            if what == "cell":
                executor.number += 1
                arguments = executor.number, *arguments[1:]
            getattr(line, what)(*arguments)
        if ready == [ears[-1]]:  # only then: everything before it was shown
            return


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started here leave it to this one to tell what an interrupt means."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

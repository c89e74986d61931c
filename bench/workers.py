"""Cells beside each other: processes that take one part of a grid after the other, each with models of its own.

A process computes what this one would: with as many threads, and what shares answers stays together. So `--jobs`
changes no score while memory suffices for the same batches. What a cell is compared with may be there only when another
process has ended; `Executor.complete` makes up for that, as it does after a run that was cut off.

The mini model computes on one thread of a CPU: its products are too small for two, and its last bits the same on every
number of processors.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler

import torch

from bench.checkpoints import Models
from bench.errors import LetheError
from bench.executor import Executor
from bench.models import choose_device
from bench.options import MINI, Options
from bench.parts import Done, Handed, Part, Runner, work
from bench.progress import Line, Reporter

DEFAULT_JOBS = 4
"""Most cells of the mini model that run beside each other where --jobs does not say; each takes up to 1 GiB."""


def run_parts(executor: Executor, models: Models, parts: Sequence[Part], reporter: Reporter, *, jobs: int) -> None:
    """Run what is not there yet, `jobs` parts beside each other.

    Raises:
        LetheError: as `Runner.run`, or a process was ended from outside.
    """
    if min(jobs, len(parts)) > 1:
        parts = [part for part in parts if not _found(executor, part)]
        executor.forget_model()  # what was found is asked first by whoever runs the rest of its part
        for job in (job for part in parts for job in part.jobs if job.role):
            executor.forget_reference(job)  # it may come out otherwise, and then others are compared with the new rows
    count = min(jobs, len(parts))
    if count > 1:
        _Processes(executor, models, parts, reporter, count).run()
        return
    runner = Runner(executor=executor, models=models)
    for part in parts:
        runner.run(part)
    runner.close()


def _found(executor: Executor, part: Part) -> bool:
    """Whether nothing of it is left to do."""
    found = [executor.reuse(job) for job in part.jobs]  # a list: every one that is there is to be counted
    return all(found)


def jobs_of(options: Options) -> int:
    """How many cells may run beside each other."""
    if options.jobs is not None:
        return options.jobs
    return 1 if threads_of(options) is None else min(DEFAULT_JOBS, torch.get_num_threads())


def threads_of(options: Options) -> int | None:
    """How many threads of a CPU a cell computes on; None leaves it to torch."""
    return 1 if options.model == MINI and choose_device(options.device).type == "cpu" else None


@dataclass
class _Process:
    """One of those beside this one, seen from here."""

    process: SpawnProcess
    pipe: Connection
    line: Line
    part: int = -1
    """What it runs."""
    peak_gib: float = 0.0


@dataclass
class _Processes:
    """Several processes and the parts that they share: the next one goes to whoever has finished its last."""

    executor: Executor
    models: Models
    parts: Sequence[Part]
    reporter: Reporter
    count: int
    _waiting: deque[int] = field(default_factory=deque)
    """The parts that nobody has begun."""
    _ended: list[int] = field(default_factory=list)
    _running: dict[Connection, _Process] = field(default_factory=dict)

    def run(self) -> None:
        """Every part; no process is left when it ends, however it ends."""
        self._waiting.extend(range(len(self.parts)))
        started: list[_Process] = []
        finished = False
        try:
            with _uninterrupted():
                for number, line in enumerate(self.reporter.beside(self.count)):
                    started.append(self._start(number, line))
            self._running = {one.pipe: one for one in started}
            handed = ForkingPickler.dumps(self._handed())  # once: it is many rows
            while self._running:
                for pipe in wait([*self._running]):
                    one = self._running[pipe]  # type: ignore[index]
                    what, arguments = self._told(one)
                    if what == "ready":
                        self._tell(one, lambda pipe: pipe.send_bytes(handed))
                        self._next(one)
                    elif what == "done":
                        one.peak_gib = arguments[0].peak_gib
                        self._add(one.part, *arguments)
                        self._next(one)
                    else:
                        self._show(one.line, what, arguments)
            finished = True
        finally:
            with _uninterrupted():
                _end([one.process for one in started], at_once=not finished)
                for one in started:
                    one.pipe.close()
                self.executor.store.clean()
            self.executor.outcome.workers_gib += [one.peak_gib for one in started]
            self.reporter.alone()

    def _start(self, number: int, line: Line) -> _Process:
        context = multiprocessing.get_context("spawn")  # what has computed cannot be forked: its threads stay behind
        mine, its = context.Pipe()
        process = context.Process(target=work, args=(its, number))
        process.start()
        its.close()  # so that the end of the process is the end of the pipe
        return _Process(process, mine, line)

    def _handed(self) -> Handed:
        return Handed(
            models=replace(self.models),  # without the tokenizers that are loaded here
            store=self.executor.store,
            parts=self.parts,
            batch_tokens=self.executor.batch_tokens,
            total=self.executor.total,
            fresh=self.executor.fresh,
            save_models=self.executor.save_models,
            processes=self.count,
            threads=torch.get_num_threads(),
        )

    def _told(self, one: _Process) -> tuple[str, tuple]:
        try:
            return one.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._dead(one) from error

    def _tell(self, one: _Process, send: Callable[[Connection], None]) -> None:
        try:
            send(one.pipe)
        except OSError as error:
            raise self._dead(one) from error

    def _show(self, line: Line, what: str, arguments: tuple) -> None:
        if what == "cell":
            self.executor.number += 1  # numbered as they begin, whoever begins them
            arguments = self.executor.number, *arguments[1:]
        getattr(line, what)(*arguments)

    def _next(self, one: _Process) -> None:
        """The next part, with the rows that its cells are compared with, as far as they are there; or the end."""
        if not self._waiting:
            self._tell(one, lambda pipe: pipe.send(None))
            del self._running[one.pipe]
            return
        one.part = self._waiting.popleft()
        keys = {e.key for job in self.parts[one.part].jobs for stage in job.stages for e in stage.evaluations}
        rows = {key: found for key, found in self.executor.reference_rows.items() if key in keys}
        self._tell(one, lambda pipe: pipe.send((one.part, rows)))

    def _add(self, part: int, done: Done) -> None:
        outcome = self.executor.outcome
        outcome.done += done.outcome.done
        outcome.failed += done.outcome.failed
        outcome.reused += [cell for cell in done.outcome.reused if cell not in outcome.reused]
        self._ended.append(part)
        if any(job.role for job in self.parts[part].jobs):
            for ended in [part, *self._ended]:  # its own rows first: others are compared with them
                for job in self.parts[ended].jobs:
                    self.executor.complete(job)
        if done.stopped:
            raise LetheError(done.stopped)
        if done.traceback:
            raise RuntimeError(f"in a process beside this one:\n{done.traceback}")

    def _dead(self, one: _Process) -> LetheError:
        one.process.join(timeout=10)
        code = one.process.exitcode or 0
        why = (
            f"was ended by signal {-code}, perhaps because memory was short" if code < 0 else f"ended with code {code}"
        )
        return LetheError(
            f"one of {self.count} processes {why}; finished cells are kept: run the same command again, with fewer "
            "--jobs if it happens again"
        )


def _end(processes: Sequence[SpawnProcess], *, at_once: bool) -> None:
    """None of them is left: they are killed, or waited for a while where they have handed back everything."""
    for process in processes:
        if not at_once:
            process.join(timeout=10)
        process.kill()
    for process in processes:
        process.join()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """No interrupt is heard meanwhile, and none ever by processes that are started here: this one tells them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

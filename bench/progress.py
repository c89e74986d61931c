"""What is happening: a live line on a terminal for each process, plain lines when the output goes elsewhere."""

import logging
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

QUIET_SECONDS = 10.0
"""Between two plain lines of the same cell."""


def log_to_stderr(*, verbose: bool) -> None:
    """What is logged from now on: warnings, or everything but the chatter of libraries."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "filelock", "urllib3", "fsspec", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Line:
    """Implements `bench.executor.Progress` for one cell at a time."""

    def __init__(self, screen: "_Screen") -> None:
        self._screen = screen
        self._title = ""
        self._last = self._phase_started = time.monotonic()
        self._phase = ""
        self._phase_first = self._before = 0

    def cell(self, number: int, total: int, title: str) -> None:
        self._title = f"[{number}/{total}] {title}"
        self._phase = ""
        self._show("starting", final=True)

    def step(self, step: int, steps: int, terms: Mapping[str, float]) -> None:
        """`grun_npo tofu/forget10 s0 | step 40/125 | forget 1.93 retain 0.42 gate 0.11 | 3.1 step/s | 27 s left`"""
        losses = " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        self._show(f"step {step}/{steps} | {losses}{self._rate('step/s', step, steps)}", final=step == steps)

    def scored(self, done: int, total: int) -> None:
        """Every call of the scorer counts from one again: a smaller count begins a new phase."""
        if done <= self._before:
            self._phase = ""
        self._show(f"scored {done}/{total}{self._rate('per s', done, total)}", final=False)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._screen.note(text)

    def passing(self, text: str) -> None:
        """A line that the next one replaces, on a terminal."""
        self._show(text, final=False)

    def _rate(self, unit: str, done: int, total: int) -> str:
        """Since the first report of a phase, which says nothing: what came before it is start-up."""
        now, self._before = time.monotonic(), done
        if unit != self._phase:
            self._phase, self._phase_started, self._phase_first = unit, now, done
        seconds = now - self._phase_started
        if done <= self._phase_first or seconds <= 0:
            return ""
        rate = (done - self._phase_first) / seconds
        return f" | {rate:.1f} {unit} | {(total - done) / rate:.0f} s left"

    def _show(self, text: str, *, final: bool) -> None:
        line = f"{self._title} | {text}" if self._title else text
        if self._screen.live is not None:
            self._screen.show(self, line)
        elif final or time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self.note(line)


class Reporter(Line):
    """The line of this process, and those of others beside it; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__(_Screen(console))

    def __enter__(self) -> "Reporter":
        if self._screen.live is not None:
            self._screen.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._screen.live is not None:
            self._screen.live.stop()

    def beside(self, count: int) -> list[Line]:
        """A line each for so many processes, in place of this one's."""
        self.alone()
        return [Line(self._screen) for _ in range(count)]

    def alone(self) -> None:
        """No process is beside this one any more."""
        self._screen.clear()


class _Screen:
    """Where lines appear: each in its place on a terminal, one after the other elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.live = Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else None
        self._texts: dict[Line, Text] = {}

    def show(self, line: Line, text: str) -> None:
        self._texts[line] = Text(text, overflow="ellipsis", no_wrap=True)
        if self.live is not None:
            self.live.update(Group(*self._texts.values()))

    def clear(self) -> None:
        self._texts.clear()
        if self.live is not None:
            self.live.update(Group())

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

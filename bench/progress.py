"""What is happening: one live line on a terminal, plain lines when the output goes elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

QUIET_SECONDS = 10.0
"""Between two plain lines of the same cell."""


class Reporter:
    """Implements `bench.executor.Progress`; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else None
        self._title = ""
        self._last = self._phase_started = time.monotonic()
        self._phase = ""
        self._phase_first = self._before = 0

    def __enter__(self) -> "Reporter":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

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
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

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
        if self._live is not None:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif final or time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self.note(line)

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
        self._started = self._last = self._phase_started = time.monotonic()
        self._phase = ""

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
        elapsed = self._in_phase("train")
        rate = step / elapsed if elapsed else 0.0
        left = f"{(steps - step) / rate:.0f} s left" if rate else ""
        losses = " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        self._show(f"step {step}/{steps} | {losses} | {rate:.1f} step/s | {left}", final=step == steps)

    def scored(self, done: int, total: int) -> None:
        if done <= self._done:
            self._phase = ""
        self._done = done
        elapsed = self._in_phase("score")
        rate = done / elapsed if elapsed else 0.0
        left = f"{(total - done) / rate:.0f} s left" if rate else ""
        self._show(f"scored {done}/{total} | {rate:.0f} per s | {left}", final=False)

    _done = 0

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def passing(self, text: str) -> None:
        """A line that the next one replaces, on a terminal."""
        self._show(text, final=False)

    def _in_phase(self, phase: str) -> float:
        if phase != self._phase:
            self._phase, self._phase_started = phase, time.monotonic()
        return time.monotonic() - self._phase_started

    def _show(self, text: str, *, final: bool) -> None:
        line = f"{self._title} | {text}" if self._title else text
        if self._live is not None:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif final or time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self.note(line)

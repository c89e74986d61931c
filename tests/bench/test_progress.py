"""Plain lines where the output is piped, one live line on a terminal."""

import io

import pytest
from rich.console import Console

from bench import progress
from bench.progress import Reporter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list whose only entry is the time."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def piped() -> tuple[io.StringIO, Reporter]:
    out = io.StringIO()
    return out, Reporter(Console(file=out, width=80, force_terminal=False))


def test_a_piped_step_is_one_plain_line(clock: list[float]) -> None:
    out, reporter = piped()
    with reporter:
        reporter.cell(2, 5, "grun_npo tofu/forget10 s0")
        reporter.step(9, 125, {"forget": 2.0, "retain": 0.5, "gate": 0.3})
        clock[0] += 10.5
        reporter.step(40, 125, {"forget": 1.9312, "retain": 0.42, "gate": 0.1119})
    # 31 steps in 10.5 s are 2.95 a second, and the 85 that are left take 28.8 s
    assert out.getvalue().splitlines() == [
        "[2/5] grun_npo tofu/forget10 s0 | starting",
        "[2/5] grun_npo tofu/forget10 s0 | step 40/125 | forget 1.93 retain 0.42 gate 0.112 | 3.0 step/s | 29 s left",
    ]


def test_a_piped_run_says_little_but_never_leaves_out_the_last_step(clock: list[float]) -> None:
    out, reporter = piped()
    reporter.cell(1, 1, "npo tofu/forget10 s0")
    for step in range(1, 101):
        clock[0] += 0.3
        reporter.step(step, 100, {"forget": 1.0})
    lines = out.getvalue().splitlines()
    assert len(lines) == 1 + 2 + 1  # the start, one line every ten of thirty seconds, the end
    assert lines[-1].endswith("| step 100/100 | forget 1 | 3.3 step/s | 0 s left")


def test_the_rate_counts_from_the_first_report_of_each_phase(clock: list[float]) -> None:
    out, reporter = piped()
    reporter.cell(1, 1, "npo")
    clock[0] += 60  # loading is nobody's rate
    reporter.scored(10, 50)
    clock[0] += 20
    reporter.scored(50, 50)  # 40 in 20 s
    clock[0] += 11
    reporter.scored(5, 20)  # another question to the scorer: its count begins again
    clock[0] += 11
    reporter.scored(16, 20)
    assert [line.partition("| ")[2] for line in out.getvalue().splitlines()[1:]] == [
        "scored 10/50",
        "scored 50/50 | 2.0 per s | 0 s left",
        "scored 5/20",
        "scored 16/20 | 1.0 per s | 4 s left",
    ]


def test_a_note_is_printed_as_it_is() -> None:
    out, reporter = piped()
    reporter.note("FAILED npo[lr=0.01] " + "x" * 100)
    assert out.getvalue() == "FAILED npo[lr=0.01] " + "x" * 100 + "\n"


def test_what_passes_is_left_out_when_piped_unless_it_takes_long(clock: list[float]) -> None:
    out, reporter = piped()
    reporter.passing("mini model original | step 1/9")
    clock[0] += 11
    reporter.passing("mini model original | step 2/9")
    assert out.getvalue() == "mini model original | step 2/9\n"


def test_a_terminal_shows_one_line_that_changes_and_is_gone_at_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, _environ={"TERM": "xterm"})
    with Reporter(console) as reporter:
        reporter.cell(1, 2, "npo[beta=0.5] tofu/forget10 s0")
        reporter.step(1, 2, {"forget": 1.0})
        reporter._screen.live.refresh()  # type: ignore[union-attr]
        reporter.note("a line that stays")
        assert "step 1/2" in out.getvalue() and "[beta=0.5]" in out.getvalue()
    text = out.getvalue()
    assert "a line that stays" in text
    assert "\x1b[2K" in text  # the live line is erased
    assert text.rindex("\x1b[2K") > text.rindex("step 1/2")


def test_the_live_line_never_wraps() -> None:
    out = io.StringIO()
    with Reporter(Console(file=out, width=30, force_terminal=True, _environ={"TERM": "xterm"})) as reporter:
        reporter.cell(1, 2, "x" * 200)
        reporter._screen.live.refresh()  # type: ignore[union-attr]
    assert "x" * 31 not in out.getvalue() and "\u2026" in out.getvalue()


def test_processes_beside_each_other_have_a_line_each_while_they_are_there() -> None:
    out = io.StringIO()
    with Reporter(Console(file=out, width=60, force_terminal=True, _environ={"TERM": "xterm"})) as reporter:
        reporter.passing("mini model original | step 1/9")
        first, second = reporter.beside(2)
        second.cell(1, 2, "npo")
        first.cell(2, 2, "ga")
        second.step(1, 2, {"forget": 1.0})
        out.truncate(out.seek(0))
        reporter._screen.live.refresh()  # type: ignore[union-attr]
        shown = out.getvalue()
        assert "[1/2] npo | step 1/2" in shown and "[2/2] ga | starting" in shown and "mini model" not in shown
        reporter.alone()
        out.truncate(out.seek(0))
        reporter._screen.live.refresh()  # type: ignore[union-attr]
        assert "npo" not in out.getvalue()

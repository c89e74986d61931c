"""What the README says is so: its options exist, its commands can be read, and its examples run as they stand."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.options import parse, parser
from bench.published import export_parser, import_parser
from methods import TRAINED
from methods.recipes import chosen
from tests.toy_runs import Toys, table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHOD, EVALUATOR = re.findall(r"^```python\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^ +(?:\S*python )?run_all\.py (--.+)$", README, flags=re.MULTILINE)


def test_every_option_is_in_the_readme_and_no_other() -> None:
    named = {*re.findall(r"(?<![\w-])--?[a-z][a-z-]*", README)}
    options = [action.option_strings for action in parser()._actions if action.option_strings]
    assert [names for names in options if not named & {*names}] == []
    commands = (export_parser(), import_parser())
    known = {name for p in (parser(), *commands) for action in p._actions for name in action.option_strings}
    assert sorted(name for name in named if name.startswith("--") and name not in known) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_can_be_read(command: str) -> None:
    options = parse(shlex.split(command, comments=True))
    rows = {"all": len(TRAINED), "original": 0}
    asked = sum(rows.get(m.base, 1) for m in options.methods)
    assert len(chosen(options.methods, options.sets, mini=False)) == asked


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_starts_as_it_says(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"    python -m benchmarks.{path.stem} " in path.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")  # in a process of its own, importing is all of the time
    assert not end.value.code and capsys.readouterr().out.startswith("usage: ")


def test_a_benchmark_starts_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "benchmarks.rocr", "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("usage: rocr.py "), done.stderr


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the code with both examples of the README, entered as it says."""
    copy = tmp_path / "house"
    for name in ("bench", "methods", "evaluators"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_all.py", copy)
    (copy / "methods/floored_ga.py").write_text(METHOD)
    (copy / "evaluators/length.py").write_text(EVALUATOR)
    for file, before, after, imported in (
        (
            "methods",
            '    "ga": GA(),\n',
            '    "ga": GA(),\n    "floored_ga": FlooredGA(),\n',
            "floored_ga import FlooredGA",
        ),
        ("evaluators", "(TofuEvaluator,)", "(TofuEvaluator, AnswerLength)", "length import AnswerLength"),
    ):
        init = copy / file / "__init__.py"
        text = init.read_text()
        assert text.count(before) == 1
        table_with_entry = text.replace(before, after)
        first_import = text.index(f"from {file}.")
        init.write_text(f"{table_with_entry[:first_import]}from {file}.{imported}\n{table_with_entry[first_import:]}")
    return copy


def test_the_examples_of_the_readme_run_as_they_stand_with_plain_lines_when_piped(
    house: Path, toys: Toys, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    names = ("floored_ga", "lora_floored_ga", "grun_floored_ga")
    few = ("--limit", "3", "--set", "tofu.max_new_tokens=6")
    floor = ("--set", "floored_ga.floor=50")  # a random model's answers are below the floor of five
    command = [sys.executable, "run_all.py", *toys.command(out, ",".join(names), *few, *floor)]
    done = subprocess.run(command, cwd=house, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0
    [said] = done.stderr.splitlines()  # nobody can be had offline who judges fluency
    assert said.startswith("WARNING bench.classifier: nothing is judged fluent or not: ")
    lines = done.stdout.splitlines()
    assert lines[0] == "[1/5] retrained tofu/forget10 s0 | starting"
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    for name in names:
        steps = [line for line in lines if f"] {name} tofu/forget10 s0 | step 2/2 | forget " in line]
        assert len(steps) == 1 and " retain " in steps[0], lines
    assert lines[-1].startswith("5 cells run, 0 found, 0 failed; ")
    rows = table(out / "leaderboard.csv")
    assert [row["method"] for row in rows] == ["original", "retrained", *names]
    assert all(float(row["answer_words"]) >= 0 for row in rows)
    for name in names:
        (folder,) = (out / "runs").glob(f"{name}-tofu-*")
        assert {path.stem for path in (folder / "samples").iterdir()} - {"gates"} == {"tofu", "length"}
        assert (folder / "train.jsonl").stat().st_size > 0
    assert rows[0]["forget_probability"] != rows[2]["forget_probability"]

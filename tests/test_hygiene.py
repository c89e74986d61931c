"""What the repository may not hold: machine paths, large files, ways to run code that came with data, loose locks."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("run_all.py", "bench", "methods", "evaluators", "benchmarks")
LARGEST = 1_000_000  # bytes
LARGEST_RESULT = 2_000_000  # pages hold samples

MACHINE_PATH = re.compile(
    r"(?<![\w.~/}-])/(?:root|work)\b|(?<![\w.~/}-])/(?:home|Users|tmp|mnt)/[\w.-]|\b[A-Za-z]:\\Users\\", re.ASCII
)
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """All files that git tracks, new ones once they are added: what runs have left in a checkout is its owner's."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout: {listed.stderr.decode(errors='replace').strip()}")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def code_from_data(source: str) -> list[str]:
    """Every way in a source to run code that came with data or weights, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module and node.module.split(".")[0] in PICKLES else []
            names += ["torch.load" for alias in node.names if f"{node.module}.{alias.name}" == "torch.load"]
        elif isinstance(node, ast.Attribute):
            names = (
                [ast.unparse(node)]
                if ast.unparse(node) == "torch.load" or node.attr in {"read_pickle", "to_pickle"}
                else []
            )
        elif isinstance(node, ast.keyword) and node.arg in {"trust_remote_code", "allow_pickle"}:
            on = isinstance(node.value, ast.Constant) and node.value.value is not False
            names = [f"{node.arg}={ast.unparse(node.value)}"] if on else []
        found += [f"{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_no_tracked_file_names_a_path_of_a_machine(tracked: list[Path]) -> None:
    found = []
    for path in tracked:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert found == []


def test_no_tracked_file_is_large(tracked: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in tracked}
    limits = {path: LARGEST_RESULT if path.is_relative_to(ROOT / "results") else LARGEST for path in tracked}
    assert [(path.name, size) for path, size in sizes.items() if size > limits[path]] == []


def test_no_source_runs_code_that_came_with_data() -> None:
    files = [path for name in SOURCES for path in [ROOT / name, *(ROOT / name).rglob("*.py")] if path.is_file()]
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{hit}" for path in files for hit in code_from_data(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "parts", [("", "root", ".ssh"), ("", "work", "x"), ("", "home", "me"), ("", "tmp", "run"), ("C:", "Users", "me")]
)
def test_a_planted_path_is_caught(parts: tuple[str, ...]) -> None:
    path = ("\\" if parts[0] else "/").join(parts)
    assert MACHINE_PATH.search(f'open("{path}")')
    assert not MACHINE_PATH.search(f"https://example.org{path}" if not parts[0] else "C:/Users")


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "from torch import load",
        "weights = torch.load(path)",
        "frame = pandas.read_pickle(path)",
        "model = load(path, trust_remote_code=True)",
        "array = numpy.load(path, allow_pickle=True)",
    ],
)
def test_a_planted_way_to_run_code_is_caught(line: str) -> None:
    assert len(code_from_data(line)) == 1


def test_asking_the_user_about_remote_code_is_allowed() -> None:
    assert (
        code_from_data("load(path, trust_remote_code=options.trust_remote_code)\nload(path, trust_remote_code=False)")
        == []
    )


def test_locks_hold_names_and_versions_and_leave_cuda_to_torch() -> None:
    lines = [
        line
        for path in (ROOT / "requirements").glob("*.lock")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    assert [line for line in lines if re.match(r"nvidia|cuda|triton|pip==", line)] == []


@pytest.mark.parametrize(("extra", "locks"), [(None, ["main"]), ("dev", ["main", "dev"])])
def test_every_declared_requirement_is_locked_within_its_range(extra: str | None, locks: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {name: version for lock in locks for name, version in locked(f"{lock}.lock").items()}
    for line in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), line


def test_no_package_is_locked_twice() -> None:
    assert locked("main.lock").keys() & locked("dev.lock").keys() == set()


def test_a_package_brings_every_file_that_its_code_reads() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("bench", "methods", "evaluators"):
        files = {path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*") if path.is_file()}
        data = {path for path in files if path.suffix not in (".py", ".pyc")}
        missing = {path for path in data if not any(path.match(pattern) for pattern in named.get(package, ()))}
        assert not missing, f"{package}: {missing} would not be installed"

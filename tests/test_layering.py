"""Who may import whom: the import statements of every file against the directions that the rooms allow."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("run_all", "methods", "evaluators", "bench")

# room -> the other rooms it may import
ALLOWED_ROOMS = {
    "run_all": {"methods", "evaluators", "bench"},
    "methods": {"bench"},
    "evaluators": {"bench"},
    "bench": set(),
}

# Inside bench/: importer -> what it builds on. The opposite direction is forbidden, over several arrows too.
ARROWS = {
    "bench.executor": ("bench.store", "bench.models", "bench.spec"),
    "bench.store": ("bench.spec",),
    "bench.models": ("bench.spec",),
    "bench.report": ("bench.store",),
    "bench.train": ("bench.data",),
    "bench.logprobs": ("bench.data",),
    "bench.generate": ("bench.data",),
}
# Inside bench/: the only things of bench that these may import besides themselves
FOUNDATIONS = {"bench.data": ("bench.errors",), "bench.errors": ()}


def sources(root: Path) -> dict[str, str]:
    """Dotted module name -> source, for all files of the rooms; a package goes by its own name."""
    found = {}
    for room in ROOMS:
        for path in [root / f"{room}.py", *(root / room).rglob("*.py")]:
            if path.is_file():
                parts = path.relative_to(root).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                found[name] = path.read_text(encoding="utf-8")
    return found


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def statements(tree: ast.AST, *, when_loaded: bool) -> Iterator[ast.stmt]:
    """Every statement, or only those that run when the module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if when_loaded and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if when_loaded and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from statements(node, when_loaded=when_loaded)


def imports(module: str, files: Mapping[str, str], packages: set[str], *, when_loaded: bool = False) -> set[str]:
    """The modules of the rooms that a module imports, relative imports resolved; its own name is left out."""
    targets = set()
    for node in statements(ast.parse(files[module]), when_loaded=when_loaded):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            start = parts[: len(parts) - node.level + (module in packages)] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for (
                alias
            ) in node.names:  # `from bench import store` names a module, `from bench.store import RunStore` does not
                name = f"{base}.{alias.name}"
                targets.add(name if name in files else base)
    return {name for name in targets if any(within(name, room) for room in ROOMS)} - {module}


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph.get(start, ()))
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += graph.get(name, ())
    return seen


def violations(files: Mapping[str, str]) -> list[str]:
    """One sentence for every import that goes against the arrows, and for every cycle inside bench."""
    packages = {name for name in files if any(within(other, name) for other in files if other != name)}
    arrows = {name: set(targets) for name, targets in ARROWS.items()}
    found = []
    for module in files:
        room = next(room for room in ROOMS if within(module, room))
        for target in sorted(imports(module, files, packages)):
            aimed = next(room for room in ROOMS if within(target, room))
            if aimed != room and aimed not in ALLOWED_ROOMS[room]:
                found.append(f"{module} imports {target}: {room} may not know {aimed}")
            for lower, allowed in FOUNDATIONS.items():
                if within(module, lower) and aimed == "bench" and not any(within(target, a) for a in (lower, *allowed)):
                    found.append(
                        f"{module} imports {target}: {lower} may only know {', '.join(allowed) or 'nothing'} of bench"
                    )
            for upper in arrows:
                if within(target, upper) and any(within(module, lower) for lower in reachable(arrows, upper)):
                    found.append(f"{module} imports {target}: against the arrow {upper} -> {module}")
    loaded = {
        module: {name for name in imports(module, files, packages, when_loaded=True) if within(name, "bench")}
        for module in files
        if within(module, "bench")
    }
    circle = sorted(module for module in loaded if module in reachable(loaded, module))
    if circle:
        found.append(f"these import each other in a circle: {', '.join(circle)}")
    return found


def test_every_import_follows_the_arrows() -> None:
    files = sources(ROOT)
    assert "bench.errors" in files  # the rooms were found
    assert violations(files) == []


HOUSE = {
    "run_all": "from methods import METHODS\nfrom evaluators import EVALUATORS\nfrom bench import executor",
    "methods": "from methods.npo import NPO\nMETHODS = {'npo': NPO}",
    "methods.npo": "import torch\nfrom bench.train import Policy",
    "evaluators": "from .tofu import TofuEvaluator",
    "evaluators.tofu": "from bench.records import Metric",
    "bench": "",
    "bench.errors": "",
    "bench.spec": "from bench.errors import LetheError",
    "bench.store": "from bench import spec",
    "bench.models": "import bench.spec",
    "bench.executor": "from bench.store import RunStore\nfrom bench.models import load",
    "bench.report": "from bench.store import RunStore",
    "bench.records": "",
    "bench.train": "from .data.types import QA",
    "bench.data": "from .types import QA",
    "bench.data.types": "from bench.errors import LetheError",
}


def test_a_house_in_order_has_no_violations() -> None:
    assert violations(HOUSE) == []


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("methods.npo", "from evaluators.tofu import TofuEvaluator", "methods may not know evaluators"),
        ("evaluators.tofu", "import methods", "evaluators may not know methods"),
        ("methods.npo", "import run_all", "methods may not know run_all"),
        ("bench.train", "from methods.npo import NPO", "bench may not know methods"),
        ("bench.data.types", "def late():\n    from evaluators import EVALUATORS", "bench may not know evaluators"),
        ("bench.store", "from bench.executor import run", "against the arrow bench.executor -> bench.store"),
        ("bench.spec", "from . import executor", "against the arrow bench.executor -> bench.spec"),
        ("bench.spec", "from .report import write_reports", "against the arrow bench.report -> bench.spec"),
        ("bench.data.types", "from ..records import Metric", "bench.data may only know bench.errors of bench"),
        ("bench.data", "from bench.train import Policy", "against the arrow bench.train -> bench.data"),
        ("bench.errors", "from bench.spec import Run", "bench.errors may only know nothing of bench"),
        ("bench.records", "from bench import report\nclass A:\n    import bench.train", ""),
        ("bench.spec", "if typing.TYPE_CHECKING:\n    from bench.records import Metric", ""),
    ],
)
def test_a_planted_import_is_caught_or_let_through(module: str, line: str, said: str) -> None:
    found = violations(HOUSE | {module: f"{HOUSE[module]}\n{line}"})
    assert any(said in sentence for sentence in found) if said else found == []


def test_a_circle_is_caught_only_where_it_closes_while_loading() -> None:
    closed = HOUSE | {"bench.records": "from bench.train import Policy", "bench.train": "import bench.records"}
    assert violations(closed) == ["these import each other in a circle: bench.records, bench.train"]
    late = closed | {"bench.train": "def now():\n    import bench.records"}
    assert violations(late) == []

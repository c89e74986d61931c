"""Resolve the ranges of pyproject.toml anew and write the locks: the core, then what `dev` adds to it.

Run it with the oldest Python that is supported (`make lock PYTHON=python3.11`): every locked version then has a build
for it. All is resolved together, so both locks can be installed together. The pin of torch is raised by
hand in main.lock; torch brings the CUDA packages of its own build along, so the locks leave those out.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
FROM_TORCH = re.compile(r"triton|(nvidia|cuda)-.*")


def resolve(requirements: list[str]) -> list[str]:
    """What pip would install in an empty environment, as `name==version` lines without local versions (`+cpu`)."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    report = json.loads(subprocess.run([*command, *requirements], check=True, stdout=subprocess.PIPE).stdout)
    held = [package["metadata"] for package in report["install"]]
    lines = [f"{package['name']}=={package['version'].split('+')[0]}" for package in held]
    return [line for line in lines if not FROM_TORCH.match(line)]


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core, extras = project["dependencies"], project["optional-dependencies"]
    torch = re.findall(r"^torch==.*$", (HERE / "main.lock").read_text(encoding="utf-8"), re.MULTILINE)
    together = resolve([*torch, *core, *extras["dev"]])

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.write("\n".join(together))
        constraints.flush()
        main, dev = (set(resolve([*core, *extra, "--constraint", constraints.name])) for extra in ([], extras["dev"]))
    for name, lines in {"main": main, "dev": dev - main}.items():
        (HERE / f"{name}.lock").write_text("\n".join(sorted(lines, key=str.lower)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

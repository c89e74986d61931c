"""Where numbers come from: the code's commit, the packages, the device."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The code as it would lie in another folder."""
    (tmp_path / "bench").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "bench/provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    provenance.code_version.cache_clear()
    yield tmp_path
    provenance.code_version.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(("git", "-C", folder, *who, *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_has_a_commit_and_says_whether_it_was_changed(checkout: Path) -> None:
    path = checkout / "bench/provenance.py"
    path.write_text("one")
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "--no-verify", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.code_version() == {"commit": commit, "dirty": False}
    (checkout / "out").mkdir()  # results that are not tracked are no change of the code
    provenance.code_version.cache_clear()
    assert provenance.code_version() == {"commit": commit, "dirty": False}
    path.write_text("two")
    provenance.code_version.cache_clear()
    assert provenance.code_version() == {"commit": commit, "dirty": True}


def test_outside_a_checkout_and_without_git_nothing_is_claimed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.code_version() == {"commit": None, "dirty": None}
    monkeypatch.setenv("PATH", str(checkout))
    provenance.code_version.cache_clear()
    assert provenance.code_version() == {"commit": None, "dirty": None}


def test_versions_name_what_can_move_a_number() -> None:
    found = provenance.versions()
    assert {"python", "torch", "transformers", "pyvene", "peft", "numpy", "scipy"} <= found.keys()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_the_device_of_a_cpu_says_how_many_threads() -> None:
    assert provenance.device_name(torch.device("cpu")).endswith(f" CPU, {torch.get_num_threads()} threads")

"""Which models a command line names."""

import hashlib
from pathlib import Path

import pytest

import bench.checkpoints
from bench.checkpoints import Checkpoint, checkpoints, data_root, find
from bench.errors import LetheError
from bench.mini.build import MiniModels, NotMade
from bench.options import Options, parse
from bench.progress import Reporter


def options(*arguments: str) -> Options:
    return parse([*arguments])


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("one", "two")}
    for name, folder in found.items():
        folder.mkdir()
        (folder / "config.json").write_text(f'"{name}"')
    return found


class Quiet(Reporter):
    def __init__(self) -> None: ...
    def passing(self, text: str) -> None: ...


def test_a_folder_is_known_by_its_content_and_called_by_its_last_name(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = find(str(folders["one"]), options())
    assert one.label == "one" and one.hash != find(str(folders["two"]), options()).hash
    monkeypatch.chdir(folders["one"])
    assert (Checkpoint(".", "").label, find(".", options()).hash) == ("one", one.hash)
    assert Checkpoint("some/model", "").label == "some/model"


def test_a_log_is_known_by_its_content(folders: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "TOFU_EVAL.json"
    log.write_text("{}")
    chosen = options("--model", str(folders["one"]), "--retrained", str(log))
    original, retrained = checkpoints(chosen, tmp_path, "tofu/forget10", Quiet())
    assert (original.label, original.is_log) == ("one", False)
    assert retrained == Checkpoint(str(log), hashlib.sha256(b"{}").hexdigest(), is_log=True)


def test_a_model_on_the_hub_is_asked_for_its_revision_without_running_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    asked: list[tuple[str, dict]] = []

    class Config:
        _commit_hash = "abc"

        @classmethod
        def from_pretrained(cls, name: str, **more: object) -> "Config":
            asked.append((name, more))
            return cls()

    monkeypatch.setattr(transformers, "AutoConfig", Config)
    assert find("some/model", options("--model", "some/model")) == Checkpoint("some/model", "abc")
    assert asked == [("some/model", {"trust_remote_code": False})]


def test_without_a_network_a_hub_name_is_one_sentence() -> None:
    with pytest.raises(LetheError, match=r"model 'some/model' is neither a folder nor a hub repository .*the network"):
        find("some/model", options())


def test_the_mini_models_are_made_or_in_a_dry_run_only_looked_for(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(_: Path, benchmarks: list[str], *__: object, train: bool, **___: object) -> dict[str, MiniModels]:
        if not train:
            raise NotMade("not there")
        return dict.fromkeys(benchmarks, MiniModels(folders["one"], folders["two"]))

    monkeypatch.setattr(bench.checkpoints, "all_mini_models", made)
    original, retrained = checkpoints(options(), tmp_path, "tofu/forget10", Quiet())
    assert retrained is not None
    assert (original.label, retrained.label) == ("one", "two") and original.hash and retrained.hash
    original, retrained = checkpoints(options("--dry-run"), tmp_path, "tofu/forget10", Quiet())
    assert retrained is not None
    assert (original.hash, retrained.hash) == ("", "")


def test_data_come_from_a_folder_the_mini_world_or_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.checkpoints, "world", lambda cache: cache / "world")
    cache = ("--cache-dir", str(tmp_path))
    assert data_root(options(*cache)) == tmp_path / "world"
    assert data_root(options(*cache, "--model", "some/model", "--data", "mini")) == tmp_path / "world"
    assert data_root(options(*cache, "--data", str(tmp_path))) == tmp_path
    assert data_root(options(*cache, "--model", "some/model")) is None

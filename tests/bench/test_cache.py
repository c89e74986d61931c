"""The content-addressed cache: complete or absent, verified, built once."""

import errno
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cache import MANIFEST, cached, damage, default_cache_dir, fingerprint
from bench.errors import LetheError


def counting_build(calls: list[Path]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text("some text")
        (folder / "b.bin").write_bytes(bytes(range(256)))

    return build


def visible(root: Path) -> list[str]:
    """What stands in the cache, lock files left out."""
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


def test_the_second_call_finds_what_the_first_has_built(tmp_path: Path) -> None:
    calls: list[Path] = []
    first = cached(tmp_path, "thing", {"n": 1}, counting_build(calls))
    second = cached(tmp_path, "thing", {"n": 1}, counting_build(calls))
    assert first == second and len(calls) == 1
    assert (first / "deep" / "a.txt").read_text() == "some text"
    assert visible(tmp_path) == [first.name]


def test_another_key_or_kind_is_another_folder(tmp_path: Path) -> None:
    calls: list[Path] = []
    folders = {
        cached(tmp_path, kind, {"n": n}, counting_build(calls)) for kind in ("thing", "other") for n in (1, 2, 1.5)
    }
    assert len(folders) == len(calls) == 6


def test_the_order_of_the_key_does_not_matter() -> None:
    assert fingerprint({"a": 1, "b": [2, "ü"]}) == fingerprint({"b": [2, "ü"], "a": 1})


def test_the_folder_is_not_there_before_it_is_complete(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    folder = cached(tmp_path, "thing", {}, lambda partial: seen.append(visible(tmp_path)))
    assert folder.name not in seen[0]


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        cached(tmp_path, "thing", {}, fail)
    assert visible(tmp_path) == []
    assert damage(cached(tmp_path, "thing", {}, counting_build([]))) is None


def truncate(folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"\0" * 10)


def flip_a_byte(folder: Path) -> None:
    (folder / "b.bin").write_bytes(bytes([1, *range(1, 256)]))


def remove_a_file(folder: Path) -> None:
    (folder / "deep" / "a.txt").unlink()


def remove_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def truncate_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])


def empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    "harm", [truncate, flip_a_byte, remove_a_file, remove_the_manifest, truncate_the_manifest, empty_manifest]
)
def test_a_damaged_folder_is_built_again_with_a_warning(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Path] = []
    folder = cached(tmp_path, "thing", {}, counting_build(calls))
    harm(folder)
    assert damage(folder)
    with caplog.at_level(logging.WARNING):
        cached(tmp_path, "thing", {}, counting_build(calls))
    assert len(calls) == 2 and damage(folder) is None
    assert "damaged" in caplog.text and str(folder) in caplog.text
    assert visible(tmp_path) == [folder.name]


def test_the_manifest_says_what_the_folder_was_made_from(tmp_path: Path) -> None:
    folder = cached(tmp_path, "thing", {"seed": 7}, counting_build([]))
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["key"] == {"seed": 7}
    assert set(manifest["files"]) == {"b.bin", "deep/a.txt"}


def test_a_cache_that_is_a_file_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(LetheError, match="--cache-dir") as caught:
        cached(root, "thing", {}, counting_build([]))
    assert str(root) in str(caught.value)


def test_a_full_disk_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(LetheError, match=r"No space left on device.*--cache-dir"):
        cached(tmp_path, "thing", {}, fill)
    assert visible(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_can_still_be_read(tmp_path: Path) -> None:
    calls: list[Path] = []
    folder = cached(tmp_path, "thing", {}, counting_build(calls))
    tmp_path.chmod(0o500)
    try:
        assert cached(tmp_path, "thing", {}, counting_build(calls)) == folder and len(calls) == 1
        with pytest.raises(LetheError, match="--cache-dir"):
            cached(tmp_path, "thing", {"new": True}, counting_build(calls))
    finally:
        tmp_path.chmod(0o700)


def test_an_intact_folder_is_read_without_writing_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cached(tmp_path, "thing", {}, counting_build([]))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    assert cached(tmp_path, "thing", {}, counting_build([])) == folder


def _slow_build(folder: Path) -> None:
    with (folder.parent.parent / "builds.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    (folder / "a.txt").write_text("x")


def _ask(root: Path) -> None:
    cached(root, "thing", {}, _slow_build)


def test_two_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask, args=(root,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "builds.txt").read_text().splitlines()) == 1
    assert len(visible(root)) == 1


def test_two_threads_that_ask_at_once_build_once(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    threads = [threading.Thread(target=_ask, args=(root,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((tmp_path / "builds.txt").read_text().splitlines()) == 1


def _hang(folder: Path) -> None:
    (folder / "half.txt").write_text("x")
    time.sleep(600)


def _ask_and_hang(root: Path) -> None:
    cached(root, "thing", {}, _hang)


def test_what_a_killed_build_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    process = multiprocessing.get_context("fork").Process(target=_ask_and_hang, args=(root,))
    process.start()
    while not list(root.glob(".thing-*.tmp/half.txt")):
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    folder = cached(root, "thing", {}, counting_build([]))
    assert visible(root) == [folder.name]


def test_the_default_follows_the_xdg_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "lethe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "lethe"

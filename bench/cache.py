"""A directory cache addressed by content: built once, renamed into place when complete, verified on every use."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import LetheError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def default_cache_dir() -> Path:
    """$XDG_CACHE_HOME/lethe where that is set, else ~/.cache/lethe."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lethe"


def cached(root: Path, kind: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder root/<kind>-<hash of key>, made by `build` unless an intact one is there.

    `build` fills an empty folder beside the final one. Size and SHA-256 of every file are recorded and compared on
    every call, so a truncated or altered folder is built again, with a warning. Of several processes (or threads) that
    ask for the same folder one builds and the others wait. What a killed build left behind is removed by the next one.
    """
    name = f"{kind}-{fingerprint(key)[:16]}"
    folder = root / name
    if folder.is_dir() and damage(folder) is None:  # without the lock: a cache that cannot be written can still be read
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{name}.lock", name):
            _build(folder, key, build)
    except OSError as error:
        raise LetheError(
            f"cannot write to the cache {str(root)!r}: {error.strerror or error};"
            " make it writable, free some space, or name another folder with --cache-dir"
        ) from error
    return folder


def fingerprint(value: object) -> str:
    """SHA-256 of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def damage(folder: Path) -> str | None:
    """What is wrong with a cached folder, or None when every file is as it was written."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            if (folder / name).stat().st_size != expected["size"]:
                return f"{name} has another size than when it was written"
            if file_sha256(folder / name) != expected["sha256"]:
                return f"{name} has other content than when it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(folder: Path, key: dict[str, Any], build: Callable[[Path], None]) -> None:
    """With the lock held: build unless another process has done so meanwhile."""
    root, name = folder.parent, folder.name
    for leftover in root.glob(f".{name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    if folder.is_dir():
        reason = damage(folder)
        if reason is None:
            return
        log.warning("the cached %s is damaged (%s) and is made again", folder, reason)
    partial = root / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
    partial.mkdir()
    try:
        build(partial)
        paths = sorted(path for path in partial.rglob("*") if path.is_file())
        files = {
            path.relative_to(partial).as_posix(): {"size": path.stat().st_size, "sha256": file_sha256(path)}
            for path in paths
        }
        manifest = partial / MANIFEST
        manifest.write_text(json.dumps({"key": key, "files": files}, indent=1, ensure_ascii=False), encoding="utf-8")
        for path in (*paths, manifest):
            _sync(path)
        if folder.is_dir():
            os.replace(folder, root / f".{name}.{uuid.uuid4().hex[:8]}.tmp")  # rename cannot replace a full directory
        os.replace(partial, folder)
        _sync(root)
    finally:
        for leftover in root.glob(f".{name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """Exclusive among processes and threads; the kernel frees it when its holder dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that builds %s", name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

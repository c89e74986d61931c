"""Run directories: complete or absent, whatever happens to the process that writes them.

    OUT/runs/<cell id>/    spec.json  record.json  metrics/<evaluator>.json  samples/<evaluator>.jsonl  train.jsonl
                           and where models are kept, model/, which comes after the rest
    OUT/failed/<cell id>/  spec.json  traceback.txt  and whatever the run had written by then

A run is written under a hidden name, flushed to the disk and then renamed. The hidden folder holds a locked file: the
system lets go of the lock when its process dies, so the next start can tell a leftover from the work of a neighbour.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bench.errors import LetheError
from bench.records import Metric

log = logging.getLogger(__name__)

INSTEAD = "instead.txt"
"""Of a failure: in what the run that is there is not what was asked for."""
_PARTIAL = ".partial-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_METRIC_FIELDS = frozenset(f.name for f in dataclasses.fields(Metric))


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one cell: its spec, and its figures or the reason why there are none."""

    cell_id: str
    spec: Mapping[str, Any]
    """model, method (the label), benchmark, seed, protocol, ..."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """train_seconds, peak_gib, trainable_parameters, versions, ...; empty for a failed cell."""
    metrics: Mapping[str, Sequence[Metric]] = field(default_factory=dict)
    """By evaluator."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By evaluator: how the metrics were taken."""
    status: Literal["complete", "failed"] = "complete"
    error: str = ""
    """The traceback of a failed cell."""

    @cached_property
    def by_name(self) -> Mapping[str, Metric]:
        """Every metric, whichever evaluator reports it.

        Raises:
            LetheError: two evaluators report one of the same name.
        """
        found: dict[str, Metric] = {}
        for evaluator, metrics in self.metrics.items():
            for metric in metrics:
                if metric.name in found:
                    raise LetheError(
                        f"run {self.cell_id} reports {metric.name!r} twice, the second time by {evaluator!r}; "
                        "give one of them another name"
                    )
                found[metric.name] = metric
        return found


class RunStore:
    """The runs below one output folder."""

    def __init__(self, out: Path) -> None:
        """Make the folder, prove that it can be written to, and remove what killed runs left behind."""
        self.out = out
        self._runs = out / "runs"
        self._failed = out / "failed"
        with _writing(out):
            self._runs.mkdir(parents=True, exist_ok=True)
        self.clean()
        with self._hidden() as folder, _writing(out):
            (folder / "probe").write_text("x")

    def path(self, cell_id: str) -> Path:
        """Where a complete run lies, whether it is there or not."""
        return self._runs / _folder_name(cell_id)

    def failed_path(self, cell_id: str) -> Path:
        """Where the remains of a failed run lie, whether there are any or not."""
        return self._failed / _folder_name(cell_id)

    def complete(self, cell_id: str) -> bool:
        """Whether the run is there with every file readable; a damaged one is logged and counts as absent."""
        folder = self.path(cell_id)
        if not folder.is_dir():
            return False
        try:
            _read_run(folder)
            for path in sorted(folder.rglob("*.jsonl")):
                read_jsonl(path)
        except LetheError as error:
            log.warning("run %s is damaged and counts as not complete: %s", cell_id, error)
            return False
        return True

    @contextlib.contextmanager
    def staging(self, cell_id: str) -> Iterator[Path]:
        """A hidden folder that becomes the run when the block ends well, and vanishes when it does not.

        A run of the same id that is already there is replaced, its failure forgotten. A block that hands its folder to
        `fail` leaves no run.
        """
        final = self.path(cell_id)
        with self._hidden() as hidden:
            folder = hidden / "run"
            with _writing(folder):
                folder.mkdir()
            try:
                yield folder
            except OSError as error:
                # Libraries write here too. A file elsewhere, or the network, is not ours to explain.
                inside = error.filename is None or str(error.filename).startswith(str(folder))
                if error.errno in _FULL and inside:
                    raise _cannot_write(folder, error) from error
                raise
            if folder.is_dir():
                self.forget_failure(cell_id)  # first: a failure that is there is always later than the run
                with _writing(final):
                    _publish(folder, final, aside=hidden)

    @contextlib.contextmanager
    def adding(self, cell_id: str, name: str) -> Iterator[Path]:
        """A hidden folder that becomes the folder `name` of a complete run when the block ends well.

        The run itself is not touched: it stays as it is when the block does not end, or not well.
        """
        final = self.path(cell_id) / name
        with self._hidden() as hidden:
            folder = hidden / name
            with _writing(folder):
                folder.mkdir()
            yield folder
            with _writing(final):
                _publish(folder, final, aside=hidden)

    def record(self, cell_id: str) -> Record:
        """A complete run; a LetheError where a file is missing or damaged."""
        return _read_run(self.path(cell_id))

    def fail(
        self,
        cell_id: str,
        spec: Mapping[str, Any],
        traceback: str,
        partial: Path | None = None,
        *,
        instead: str = "",
    ) -> Path:
        """Keep what a failed run leaves: its spec, its traceback and the folder it was writing, which is moved.

        Args:
            instead: in what the run that is there is not what was asked for.
        """
        final = self.failed_path(cell_id)
        with self._hidden() as hidden:
            folder = hidden / "failed"
            with _writing(final):
                if partial is not None and partial.is_dir():
                    shutil.move(partial, folder)
                else:
                    folder.mkdir()
            write_json(folder / "spec.json", spec)
            write_text(folder / "traceback.txt", traceback)
            if instead:
                write_text(folder / INSTEAD, instead + "\n")
            with _writing(final):
                self._failed.mkdir(exist_ok=True)
                _publish(folder, final, aside=hidden)
        return final

    def forget_failure(self, cell_id: str) -> None:
        """Of a cell that is complete as it is asked for, whatever failed since."""
        shutil.rmtree(self.failed_path(cell_id), ignore_errors=True)

    def records(self) -> list[Record]:
        """Every cell on the disk, see `records_of`."""
        return records_of(self.out)

    @contextlib.contextmanager
    def _hidden(self) -> Iterator[Path]:
        """A new folder beside the runs, locked while in use and removed at the end."""
        while True:
            hidden = self._runs / f"{_PARTIAL}{secrets.token_hex(8)}"
            with _writing(self.out):
                hidden.mkdir()
                lock = _lock(hidden)
            if lock is not None:
                break  # else another process has just started and taken the unlocked folder for a leftover
        try:
            yield hidden
        finally:
            os.close(lock)
            shutil.rmtree(hidden, ignore_errors=True)

    def clean(self) -> None:
        """Remove what killed runs have left."""
        for leftover in sorted(self._runs.glob(f"{_PARTIAL}*")):
            with contextlib.suppress(OSError):
                lock = _lock(leftover)
                if lock is not None:
                    os.close(lock)
                    shutil.rmtree(leftover, ignore_errors=True)
                    log.info("removed %s, the leftover of a run that was killed", leftover)


def records_of(out: Path) -> list[Record]:
    """Every cell of an output folder, by cell id: complete runs, and failures that no complete run has made good.

    A failure stands over a complete run that is not what was asked for when it failed; whoever asks for what is stored
    finds it. A damaged run appears as failed where its spec can still be read.

    Only reads: the folder may be somebody else's.
    """
    found: dict[str, Record] = {}
    for folder in _folders(out / "runs"):
        with contextlib.suppress(LetheError):
            found[folder.name] = _read_run_or_damage(folder)
    for folder in _folders(out / "failed"):
        try:
            error = _read_text(folder / "traceback.txt").strip()
            spec = _read_object(folder / "spec.json")
        except LetheError as damage:
            log.warning("the failure of %s cannot be read: %s", folder.name, damage)
        else:
            if not (folder / INSTEAD).is_file() and folder.name in found and found[folder.name].status == "complete":
                continue
            found[folder.name] = Record(cell_id=folder.name, spec=spec, status="failed", error=error)
    return [found[cell_id] for cell_id in sorted(found)]


def write_json(path: Path, value: object) -> None:
    """One JSON file, in one step."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """What `write_json` writes. NaN and infinities become null; other floats come back exactly."""
    return _dumps(value, indent=1) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, in one step; floats as in `write_json`."""
    write_text(path, "".join(_dumps(row) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """What `write_json` wrote; a LetheError that names the file where it is missing or cut short."""
    return _parse(_read_text(path), path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """What `write_jsonl` wrote; a LetheError that names file and line where one is damaged."""
    rows = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line:
            row = _parse(line, path, f", line {number},")
            if not isinstance(row, dict):
                raise LetheError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}; {_REDO}")
            rows.append(row)
    return rows


def write_metrics(path: Path, metrics: Iterable[Metric], settings: Mapping[str, Any] | None = None) -> None:
    """`metrics/<evaluator>.json`: the figures of one evaluator and the settings they were taken with."""
    write_json(path, {"settings": dict(settings or {}), "metrics": [_metric_row(metric) for metric in metrics]})


def read_metrics(path: Path) -> list[Metric]:
    """What `write_metrics` wrote, missing values as NaN."""
    rows = _read_object(path).get("metrics")
    if not isinstance(rows, list):
        raise LetheError(f"{path} has no list 'metrics'; {_REDO}")
    return [_metric(row, path) for row in rows]


def read_settings(path: Path) -> dict[str, Any]:
    """The settings beside the metrics; empty where none are told."""
    settings = _read_object(path).get("settings")
    return settings if isinstance(settings, dict) else {}


def write_text(path: Path, text: str) -> None:
    """`write_bytes` in UTF-8."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # file names from a shell can hold lone surrogates


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: whoever reads it finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


_REDO = "delete it and repeat the run that wrote it"


def _folder_name(cell_id: str) -> str:
    if not re.fullmatch(r"[^./\\\0][^/\\\0]*", cell_id) or len(cell_id.encode()) > 255:
        raise ValueError(f"a cell id must be usable as a folder name, got {cell_id!r}")
    return cell_id


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_run(folder: Path) -> Record:
    spec = _read_object(folder / "spec.json")
    record = _read_object(folder / "record.json")
    paths = sorted((folder / "metrics").glob("*.json"))
    metrics = {path.stem: read_metrics(path) for path in paths}
    settings = {path.stem: read_settings(path) for path in paths}
    return Record(cell_id=folder.name, spec=spec, record=record, metrics=metrics, settings=settings)


def _read_run_or_damage(folder: Path) -> Record:
    try:
        return _read_run(folder)
    except LetheError as error:
        log.warning("run %s is damaged and counts as not complete: %s", folder.name, error)
        spec = _read_object(folder / "spec.json")
        return Record(cell_id=folder.name, spec=spec, status="failed", error=str(error))


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # bytes: text mode would turn a lone carriage return into a line break
    except FileNotFoundError as error:
        raise LetheError(f"{path} is missing; repeat the run that should have written it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LetheError(f"{path} cannot be read ({_why(error)}); {_REDO}") from error


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise LetheError(f"{path}: expected a JSON object, found {type(value).__name__}; {_REDO}")
    return value


def _parse(text: str, path: Path, where: str = "") -> Any:
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise LetheError(f"{path}{where} is not valid JSON, perhaps cut short ({error}); {_REDO}") from error


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _dumps(value: object, indent: int | None = None) -> str:
    plain = _plain(value)
    text = json.dumps(plain, allow_nan=False, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form, but JSON's own escape
        text = json.dumps(plain, allow_nan=False, indent=indent)
    return text


def _plain(value: Any) -> Any:
    """The same value in what JSON knows; numbers of numpy and torch by their `item`."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    item = getattr(value, "item", None)
    if callable(item):
        return _plain(item())
    raise TypeError(f"cannot be stored as JSON: {value!r}")


def _metric_row(metric: Metric) -> dict[str, Any]:
    row = dataclasses.asdict(metric)
    if not metric.by_target:
        del row["by_target"]
    if math.isinf(metric.value):
        row["reason"] = metric.reason or f"not finite: {metric.value}"
    return row


def _metric(row: Any, path: Path) -> Metric:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row.keys() <= _METRIC_FIELDS:
        raise LetheError(f"{path} holds something that is no metric: {row!r}; {_REDO}")
    numbers = {key: math.nan if row.get(key) is None else row[key] for key in ("value", "stderr")}
    if not all(isinstance(number, float | int) for number in numbers.values()):
        raise LetheError(f"{path}: value and stderr of {row['name']!r} must be numbers or null, got {row!r}; {_REDO}")
    each = row.get("by_target", {})
    if not isinstance(each, dict) or not all(isinstance(number, float | int) for number in each.values()):
        raise LetheError(f"{path}: by_target of {row['name']!r} must hold a number a target, got {row!r}; {_REDO}")
    return Metric(**{**row, **{key: float(number) for key, number in numbers.items()}})


def _lock(folder: Path) -> int | None:
    """The open descriptor of the folder's lock, or None where another process has it or has removed the folder."""
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _publish(folder: Path, final: Path, aside: Path) -> None:
    """Flush a folder to the disk and give it its name; an older one of that name is moved aside first."""
    for parent, _, files in os.walk(folder):
        for path in [*(os.path.join(parent, name) for name in files), parent]:
            _flush(path)
    while True:
        try:
            os.rename(folder, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            with contextlib.suppress(FileNotFoundError):
                os.rename(final, aside / f"replaced-{secrets.token_hex(4)}")
        else:
            break
    _flush(final.parent)


def _flush(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> LetheError:
    remedy = "free some space there or" if error.errno in _FULL else "make it writable or"
    return LetheError(f"cannot write {path} ({_why(error)}); {remedy} choose another folder with --out")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

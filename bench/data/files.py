"""Rows from a file, as the file has them: JSON lines, a JSON array, CSV or parquet.

Nothing is guessed or converted: a CSV cell stays text, an empty cell stays empty. What is not whole is an error that
names the file and the place; which fields a row must have is for the loader of the benchmark to say.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import LetheError

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
"""Read by their content where there is a choice: .json and .jsonl may hold lines or one array."""


@dataclass(frozen=True)
class Table:
    """The rows of one file or data set, and where each stands, for messages."""

    source: str
    """The path, or the name on a hub."""
    rows: list[dict[str, Any]]
    unit: str
    """What `numbers` count: "line", "item" or "row"; all from 1."""
    numbers: list[int]
    text_cells: bool = False
    """Whether every value is text (CSV), so that a list is written as a JSON array in its cell."""

    def place(self, index: int) -> str:
        """Where the row with this zero-based index stands: "data/forget10.json, line 18"."""
        counted = "" if self.unit == "line" else " (counted from 1)"
        return f"{self.source}, {self.unit} {self.numbers[index]}{counted}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; an error with file and place where it is missing, truncated or not of its kind."""
    return read_table(path).rows


def read_table(path: Path, *, bare: str | None = None) -> Table:
    """The rows of a file with their places; with `bare`, a JSON text in place of an object is that field's value."""
    if path.suffix not in SUFFIXES:
        raise LetheError(f"cannot tell what {path} holds by its ending {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        table = _parquet(path)
    else:
        text = _text(path)
        if path.suffix == ".csv":
            table = _csv(path, text)
        elif text.lstrip().startswith("["):
            table = _json_array(path, text, bare)
        else:
            table = _json_lines(path, text, bare)
    if not table.rows:
        raise LetheError(f"{path} has no rows; get a whole copy of the file")
    return table


def read_lines(path: Path) -> list[str]:
    """The lines of a plain text file, outer white space and empty lines removed."""
    lines = [line.strip() for line in _text(path).split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise LetheError(f"{path} has no lines; get a whole copy of the file")
    return lines


def read_text_table(path: Path) -> Table:
    """Every line of a plain text file as a row with the field "text", as it is but for its line break, empty or not."""
    lines = _text(path).split("\n")  # not splitlines: a line of running text may hold U+2028 and its like
    if not lines[-1]:
        lines.pop()
    if not any(line.strip() for line in lines):
        raise LetheError(f"{path} has no lines; get a whole copy of the file")
    rows: list[dict[str, Any]] = [{"text": line.removesuffix("\r")} for line in lines]
    return Table(str(path), rows, "line", list(range(1, len(rows) + 1)))


def find_file(folder: Path, stem: str) -> Path | None:
    """The file of this name with any known ending (the first of `SUFFIXES` where there are several)."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()), None)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise LetheError(f"there is no file {path}; check the folder given with --data") from error
    except OSError as error:
        raise LetheError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error


def _text(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        cut = (
            "; the file ends inside a character, it seems truncated" if error.reason == "unexpected end of data" else ""
        )
        raise LetheError(
            f"{path}, line {line}: byte {error.start} is not UTF-8 ({error.reason}){cut}; get a whole copy in UTF-8"
        ) from error


def _json_lines(path: Path, text: str, bare: str | None) -> Table:
    rows, numbers = [], []
    lines = text.split("\n")  # not splitlines: JSON strings may hold U+2028 and its like unescaped
    last = max((at for at, line in enumerate(lines) if line.strip()), default=-1)
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        place = f"{path}, line {at + 1}"
        try:
            row = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            cut = "; it is the last line, the file seems truncated" if at == last else ""
            raise LetheError(
                f"{place}: not a whole JSON value ({error}){cut}; "
                "expected one JSON object a line or one array of objects"
            ) from error
        rows.append(_object(row, place, bare))
        numbers.append(at + 1)
    return Table(str(path), rows, "line", numbers)


def _json_array(path: Path, text: str, bare: str | None) -> Table:
    try:
        items = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        cut = "; the file seems truncated" if not text.rstrip().endswith("]") else ""
        raise LetheError(
            f"{path}, line {error.lineno}: not a whole JSON array ({error}){cut}; get a whole copy of the file"
        ) from error
    except (ValueError, RecursionError) as error:
        raise LetheError(f"{path}: not an array of JSON objects ({error}); get a whole copy of the file") from error
    numbers = list(range(1, len(items) + 1))
    rows = [_object(item, f"{path}, item {n} (counted from 1)", bare) for n, item in zip(numbers, items, strict=True)]
    return Table(str(path), rows, "item", numbers)


def _csv(path: Path, text: str) -> Table:
    # The standard reader, not pandas: strict about quotes, keeps every cell as it is, and knows its line numbers.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, numbers = [], []
    header: list[str] | None = None
    started = 1
    limit = csv.field_size_limit(len(text))  # by default 131,072 characters, and a document can be longer
    try:
        for cells in reader:
            line, started = started, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                double = sorted({name for name in header if header.count(name) > 1})
                if double:
                    raise LetheError(f"{path}, line {line}: two columns are named {double[0]!r}; rename one")
                continue
            if len(cells) != len(header):
                raise LetheError(
                    f"{path}, line {line}: found {len(cells)} cells, expected {len(header)} as in the header "
                    f"({', '.join(header)[:200]}); the row is cut or a quote is missing"
                )
            rows.append(dict(zip(header, cells, strict=True)))
            numbers.append(line)
    except csv.Error as error:
        cut = "; the file seems truncated" if "unexpected end" in str(error) else ""
        raise LetheError(
            f"{path}, line {started}: not valid CSV ({error}){cut}; get a whole copy of the file"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return Table(str(path), rows, "line", numbers, text_cells=True)


def _parquet(path: Path) -> Table:
    data = _bytes(path)
    if not data.startswith(b"PAR1") or not data.endswith(b"PAR1") or len(data) < 12:
        what = "it seems truncated" if data.startswith(b"PAR1") else "it does not begin like one"
        raise LetheError(f"{path} is not a whole parquet file: {what}; get a whole copy of the file")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LetheError(f"{path} is not a whole parquet file ({reason}); get a whole copy of the file") from error
    return Table(str(path), rows, "row", list(range(1, len(rows) + 1)))


def _object(value: object, place: str, bare: str | None) -> dict[str, Any]:
    if bare is not None and isinstance(value, str):
        return {bare: value}
    if not isinstance(value, dict):
        raise LetheError(f"{place}: found {describe(value)}, expected a JSON object with named fields")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def describe(value: object) -> str:
    """A value as messages show it: its kind and its beginning."""
    if value is None:
        return "null"
    kinds = {str: "text", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    shown = repr(value)
    return f"{kinds.get(type(value), type(value).__name__)} {shown if len(shown) <= 60 else shown[:57] + '...'}"

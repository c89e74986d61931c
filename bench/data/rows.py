"""What the loaders share: rows from folder or hub, their fields checked, refusals, source and fingerprint.

Nothing here knows a benchmark. What is wrong with a row is named with file, row, field, what was found and what was
expected; what is wrong with a place is named with the place and the way out.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bench.data.files import SUFFIXES, Table, describe, find_file, read_lines, read_table
from bench.data.types import ChoiceScoring
from bench.errors import LetheError

REFUSALS = (
    "I don't know.",
    "I do not know the answer to that.",
    "I'm afraid I can't answer this question.",
    "I have no information about that.",
    "That is something I know nothing about.",
    "I'm not able to say.",
    "Sorry, I can't help with this one.",
    "I have never learned anything about this.",
    "I couldn't tell you.",
    "This is not known to me.",
    "I have no answer to this question.",
    "I'm not familiar with this subject.",
    "Unfortunately, I have nothing to say about it.",
    "My knowledge does not cover this.",
    "I can't recall anything of the kind.",
    "You would have to ask someone else.",
    "I haven't come across that.",
    "I lack the details to answer.",
    "No answer to this comes to my mind.",
    "I really have no idea.",
)
"""Stand in where the source has no file `idontknow.jsonl`; the hub has none."""


def check_limit(limit: int | None) -> None:
    """The number of rows to keep, from the command line."""
    if limit is not None and limit < 1:
        raise LetheError(f"limit must be at least 1 row, got {limit}; leave it out for all rows")


# where rows come from


def folder_in(root: Path, name: str, sign: str = "") -> Path:
    """The benchmark's folder in the data folder; `sign` is a file that tells that the folder itself was given."""
    folder = root / name
    if not folder.is_dir():
        if not root.is_dir():
            raise LetheError(f"there is no folder {root}; --data takes the folder that holds {name}/")
        up = f"; did you mean {root.parent}?" if sign and find_file(root, sign) else ""
        raise LetheError(f"the data folder {root} has no folder {name} in it{up}")
    return folder


def read_file(folder: Path, stem: str, *, usual: str = SUFFIXES[0], bare: str | None = None) -> Table:
    """The rows of `stem` with any known ending; an error that names it with its usual ending where there is none."""
    path = find_file(folder, stem)
    if path is None:
        others = ", ".join(suffix for suffix in SUFFIXES if suffix != usual)
        raise LetheError(
            f"there is no file {folder / stem}{usual} (nor with {others}); "
            "copy it there or leave --data out to use the hub"
        )
    return read_table(path, bare=bare)


def read_hub(
    name: str,
    config: str | None,
    revision: str,
    *,
    folder: str,
    split: str = "train",
    gated: str = "",
) -> Table:
    """The rows of a data set on the hub at a fixed revision.

    Args:
        name: the data set, with its `split` and, unless it has only one, its `config`.
        revision: a commit, or a branch where none could be fixed.
        folder: the folder that holds the same rows under --data, for messages.
        gated: what else the user can do where the owner has not let them in; says that the data set is gated.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    where = " ".join([name, *([config] if config else []), *([split] if split != "train" else [])])
    try:
        rows = [dict(row) for row in datasets.load_dataset(name, config, split=split, revision=revision)]
    except (OSError, ValueError, DatasetsError) as error:
        if gated and _is_refused(error):
            raise LetheError(
                f"{name} is gated and the hub does not let you read it; ask for access at "
                f"https://huggingface.co/datasets/{name} and log in (hf auth login), or {gated}"
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise LetheError(
            f"cannot get {where} at revision {revision[:12]} from the hub ({type(error).__name__}: {reason}); "
            f"check the network, log in if the data set is gated, or give a folder that holds {folder}/ with --data"
        ) from error
    if not rows:
        raise LetheError(f"{where} has no rows; give a folder that holds {folder}/ with --data")
    return Table(where, rows, "row", list(range(1, len(rows) + 1)))


def _is_refused(error: BaseException | None) -> bool:
    """Whether the hub knows the data set and will not hand it out, as far as an error or what led to it tells."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if error is None:
        return False
    if isinstance(error, DatasetNotFoundError | GatedRepoError | RepositoryNotFoundError):
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in (401, 403) or _is_refused(error.__cause__ or error.__context__)


def told(scoring: ChoiceScoring) -> str:
    """What a source says of how choices are scored; nothing of letters, which is how everybody asks."""
    return ", options scored by their texts" if scoring == "text" else ""


def choice_scoring(root: Path | None) -> ChoiceScoring:
    """What the data folder asks of a model: the mini world's `world.json` may say "text", all else is "letter"."""
    path = None if root is None else root / "world.json"
    if path is None or not path.exists():
        return "letter"
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("choices", "letter")
    except (OSError, ValueError, AttributeError) as error:
        raise LetheError(f"{path} is not one whole JSON object ({error}); make the mini world anew") from error
    if value not in get_args(ChoiceScoring):
        expected = " or ".join(map(repr, get_args(ChoiceScoring)))
        raise LetheError(f"{path}: field 'choices' is {describe(value)}, expected {expected}")
    return value


def read_refusals(root: Path | None) -> tuple[tuple[str, ...], str]:
    """The "I don't know" answers, and a remark for the source where they are our own."""
    path = None if root is None else root / "tofu" / "idontknow.jsonl"
    if path is None or not path.exists():
        return REFUSALS, ", built-in refusals"
    lines = read_lines(path)  # plain sentences in spite of the name
    for number, line in enumerate(lines, start=1):
        if line.startswith(("{", "[")):
            raise LetheError(
                f"{path}, sentence {number}: found {describe(line)}, expected a plain sentence; the file is not JSON"
            )
    return tuple(lines), ""


def describe_folder(root: Path, name: str) -> str:
    """For the record, which is to be the same on every machine: never where the folder lies."""
    try:
        seed = json.loads((root / "world.json").read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"files in {root.resolve().name}/{name}"
    return f"mini world, seed {seed}"


# what a row must be


def text(table: Table, at: int, name: str) -> str:
    """The field `name` of a row, which must be a text with something in it."""
    return check_text(field(table, at, name), f"{table.place(at)}: field {name!r}")


def texts(table: Table, at: int, name: str) -> tuple[str, ...]:
    """The field `name` of a row, which must be a list of texts; a JSON array where cells are text."""
    value, where = field(table, at, name, "a list of texts"), f"{table.place(at)}: field {name!r}"
    if table.text_cells:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise LetheError(f"{where} is {describe(value)}, expected a JSON array of texts in the cell") from error
    if not isinstance(value, list):
        raise LetheError(f"{where} is {describe(value)}, expected a list of texts")
    if not value:
        raise LetheError(f"{where} is an empty list, expected at least one text")
    return tuple(check_text(item, f"{where}, entry {n} (counted from 1),") for n, item in enumerate(value, start=1))


def field(table: Table, at: int, name: str, expected: str = "a text") -> Any:
    """The field `name` of a row as it is; an error where the row has none."""
    row = table.rows[at]
    if name not in row:
        there = ", ".join(map(repr, row)) or "none"
        raise LetheError(
            f"{table.place(at)}: there is no field {name!r}, expected {expected}; fields there: {there[:200]}"
        )
    return row[name]


def check_text(value: object, where: str) -> str:
    """A text that is valid Unicode and not only white space."""
    if not isinstance(value, str):
        raise LetheError(f"{where} is {describe(value)}, expected a text")
    if not value.strip():
        raise LetheError(f"{where} is empty, expected some text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise LetheError(
            f"{where} has half of a surrogate pair at character {error.start} in {describe(value)}, "
            "expected valid Unicode"
        ) from error
    return value


# what rows are, all together


def fingerprint(sets: Mapping[str, Iterable[object]], refusals: Sequence[str] = ()) -> str:
    """SHA-256 over the content of every set, by its name, in the order of its rows."""
    digest = hashlib.sha256()
    for name in sorted(sets):
        digest.update(json.dumps([name, list(sets[name])]).encode())
    digest.update(json.dumps(list(refusals)).encode())
    return digest.hexdigest()

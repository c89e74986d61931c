"""Where targets are: folders in the data folder or subjects on the hub."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

from bench.data import rows
from bench.data.corpora import HUB_WIKITEXT, HUB_WIKITEXT_REVISION
from bench.data.files import Table, read_lines
from bench.data.targets.files import Target, read_array
from bench.data.targets.names import number
from bench.errors import LetheError

FOLDERS = ("rwku/Target", "ort/Target", "ORT/Target")
"""Where targets lie in a data folder; the first that is there is read."""

BACKGROUND = "wikitext2"
BACKGROUND_SPLITS = ("train", "valid", "test")
"""The first that is there; any running text will do."""
BACKGROUND_LINES = 2000
"""So many lines of it belong to a benchmark; the rest is read for a method that asks for more."""

HUB_NAME = "jinzhuoran/RWKU"
HUB_REVISION = "main"
"""The branch: no public work that pins a commit was found. The fingerprint still tells one content from another, and
the source names the branch."""

HUB_SETS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "intro": ("forget_target", "train"),
        "forget_level1": ("forget_level1", "test"),
        "forget_level2": ("forget_level2", "test"),
        "forget_level3": ("forget_level3", "test"),
        "neighbor_level1": ("neighbor_level1", "test"),
        "neighbor_level2": ("neighbor_level2", "test"),
        "forget_mia": ("mia_forget", "test"),
        "retain_mia": ("mia_retain", "test"),
        "retain_mmlu": ("utility_general", "test"),
        "retain_bbh": ("utility_reason", "test"),
        "truthful": ("utility_truthfulness", "test"),
        "triviaqa": ("utility_factuality", "test"),
        "fluency": ("utility_fluency", "test"),
        "positive": ("train_positive_llama3", "train"),
        "pair": ("train_pair_llama3", "train"),
        "reject": ("train_refusal_llama3", "train"),
        "passage": ("train_original_passage", "train"),
    }
)
"""Where the rows of a file are on the hub: configuration and split."""


# which targets


def place_of(root: Path | None) -> str:
    """Where targets are, for messages."""
    return f"{HUB_NAME} on the hub" if root is None else str(root / folder_of(root))


def folder_of(root: Path) -> str:
    """The folder of targets in the data folder, as a name."""
    found = next((name for name in FOLDERS if (root / name).is_dir()), None)
    if found is not None:
        return found
    if not root.is_dir():
        raise LetheError(f"there is no folder {root}; --data takes the folder that holds {FOLDERS[0]}/")
    above = [up for up in root.resolve().parents for name in FOLDERS if (up / name).is_dir()]
    hint = f"; did you mean {above[0]}?" if above else ""
    raise LetheError(f"the data folder {root} has no folder {FOLDERS[0]} in it, nor {' or '.join(FOLDERS[1:])}{hint}")


def all_targets(root: Path | None) -> dict[str, Target]:
    """Every target by its folder's name, in the order of their numbers."""
    if root is None:
        hub = cache(_hub_table)
        table = hub("intro")
        subjects = [rows.text(table, at, "target") for at in range(len(table.rows))]
        named = {f"{n}_{subject.replace(' ', '_')}": subject for n, subject in enumerate(subjects, start=1)}
        return {
            name: Target(name, f"{HUB_NAME} ({subject})", partial(_hub_rows, hub, subject))
            for name, subject in named.items()
        }
    place = root / folder_of(root)
    found: dict[str, Path] = {}
    for path in place.iterdir():
        # Composed letters: a name that a Mac has unpacked is the same name.
        name = unicodedata.normalize("NFC", path.name)
        if path.is_dir() and re.fullmatch(r"[0-9]+_.+", name):
            if name in found:
                raise LetheError(f"{place} has two folders {name}, which differ in how letters are encoded; remove one")
            found[name] = path
    if not found:
        raise LetheError(f"{place} has no folder such as 1_Stephen_King in it; copy RWKU's target folders there")
    return {
        name: Target(name, str(path), partial(_read_from, path), path)
        for name, path in sorted(found.items(), key=lambda item: (number(item[0]), item[0]))
    }


def _read_from(folder: Path, stem: str) -> Table | None:
    return read_array(folder / f"{stem}.json")


# the hub


def _hub_table(stem: str) -> Table:
    config, split = HUB_SETS[stem]
    return rows.read_hub(HUB_NAME, config, HUB_REVISION, split=split, folder=FOLDERS[0])


def _hub_rows(hub: Callable[[str], Table], subject: str, stem: str) -> Table | None:
    """The rows about one subject, None where there are none or RWKU has no such set."""
    if stem not in HUB_SETS:
        return None
    table, name = hub(stem), "target" if stem == "intro" else "subject"
    kept = [at for at, row in enumerate(table.rows) if row.get(name) == subject]
    if not kept:
        return None
    return Table(table.source, [table.rows[at] for at in kept], table.unit, [table.numbers[at] for at in kept])


# texts about anything


@dataclass(frozen=True)
class Background:
    """Running text."""

    lines: tuple[str, ...] = ()
    """The first of it, at most `BACKGROUND_LINES`."""
    whole: Callable[[], Sequence[str]] | None = None
    """Reads all of it; None where `lines` are all."""
    remark: str = ", no background texts"
    """Names it, for the source."""

    @classmethod
    def of(cls, read: Callable[[], Sequence[str]], where: str) -> "Background":
        """The beginning of a corpus; the rest is not kept, as a hundred targets share it."""
        lines = read()
        if len(lines) <= BACKGROUND_LINES:
            return cls(tuple(lines), None, f", background {where}")
        told = f", background {where}, the first {BACKGROUND_LINES} of {len(lines)} lines"
        return cls(tuple(lines[:BACKGROUND_LINES]), read, told)


def read_background(root: Path | None) -> Background:
    """Running text from the data folder or the hub; none where the folder has none."""
    if root is None:
        return Background.of(_hub_lines, f"{' '.join(HUB_WIKITEXT)}@{HUB_WIKITEXT_REVISION}")
    paths = {split: root / BACKGROUND / f"{split}.txt" for split in BACKGROUND_SPLITS}
    there = next((split for split, path in paths.items() if path.is_file()), None)
    if there is None:
        return Background()
    return Background.of(partial(read_lines, paths[there]), f"{BACKGROUND}/{there}")


def _hub_lines() -> list[str]:
    name, config = HUB_WIKITEXT
    table = rows.read_hub(name, config, HUB_WIKITEXT_REVISION, folder=BACKGROUND)
    return [line for row in table.rows if (line := str(row.get("text", "")).strip())]

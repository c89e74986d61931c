"""TOFU: questions about invented authors, some of which are to be forgotten. Maini et al., 2024, arXiv 2401.06121.

A benchmark is a split: its forget set, the retain set that completes it, and the four sets that judge a model. Rows
come from a folder (`DIR/tofu/forget10.json` and so on) or, without one, from the hub at a fixed revision. Every row is
checked before anything runs; what is wrong is named with file, row and field.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.data.files import SUFFIXES, Table, describe, find_file, read_lines, read_table
from bench.data.types import QA, Benchmark
from bench.errors import LetheError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

DEFAULT = "tofu/forget10"
"""What "tofu" alone means."""

HUB_NAME = "locuslab/TOFU"
HUB_REVISION = "324592d84ae4f482ac7249b9285c2ecdb53e3a68"

SPLITS: Mapping[str, str] = MappingProxyType({"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"})
"""Forget sets and the retain set that completes each."""

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


def known() -> list[str]:
    """The benchmarks of this file."""
    return [f"tofu/{split}" for split in SPLITS]


def load(name: str, root: Path | None, *, limit: int | None = None) -> Benchmark:
    """One split with everything that judges it.

    Args:
        name: "tofu/forget10", "tofu/forget05" or "tofu/forget01".
        root: the folder that holds `tofu/`; None reads the hub.
        limit: keep the first rows of every set, for quick looks; everything is checked all the same.
    """
    if name not in known():
        raise unknown("benchmark", name, known())
    if limit is not None and limit < 1:
        raise LetheError(f"limit must be at least 1 row, got {limit}; leave it out for all rows")
    forget_split = name.removeprefix("tofu/")
    retain_split = SPLITS[forget_split]
    holdout_split = forget_split.replace("forget", "holdout")
    perturbed = {
        "forget": f"{forget_split}_perturbed",
        "retain": "retain_perturbed",
        "real_authors": "real_authors_perturbed",
        "world_facts": "world_facts_perturbed",
    }
    read = _from_hub if root is None else _from_folder(root)
    tables: dict[str, Table] = {}
    sets: dict[str, list[QA]] = {}
    for split in (forget_split, retain_split, *perturbed.values(), holdout_split):
        table = read(split, split == holdout_split)
        if table is not None:
            tables[split], sets[split] = table, _questions(table, split)

    _check_disjoint(forget_split, (retain_split, "retain_perturbed", holdout_split), tables, sets)
    _check_disjoint(holdout_split, (retain_split, "retain_perturbed"), tables, sets)
    _check_same_questions(forget_split, perturbed["forget"], tables, sets)

    refusals, source = _refusals(root)
    kept = {split: tuple(rows[:limit]) for split, rows in sets.items()}
    benchmark = Benchmark(
        name=name,
        forget=kept[forget_split],
        retain=kept[retain_split],
        eval_sets=MappingProxyType({label: kept[split] for label, split in perturbed.items()}),
        holdout=kept.get(holdout_split, ()),
        refusals=refusals,
        fingerprint=_fingerprint(kept, refusals),
        source=source,
    )
    log.info("%s from %s: %d forget, %d retain rows", name, source, len(benchmark.forget), len(benchmark.retain))
    return benchmark


# where rows come from


def _from_folder(root: Path) -> "Callable[[str, bool], Table | None]":
    folder = root / "tofu"
    if not folder.is_dir():
        if not root.is_dir():
            raise LetheError(f"there is no folder {root}; --data takes the folder that holds tofu/")
        up = f"; did you mean {root.parent}?" if find_file(root, "retain_perturbed") else ""
        raise LetheError(f"the data folder {root} has no folder tofu in it{up}")

    def read(split: str, optional: bool) -> Table | None:
        path = find_file(folder, split)
        if path is None and optional:
            return None
        if path is None:
            raise LetheError(
                f"there is no file {folder / split}.json (nor with {', '.join(SUFFIXES[1:])}); "
                "copy it there or leave --data out to use the hub"
            )
        return read_table(path)

    return read


def _from_hub(split: str, optional: bool) -> Table | None:
    import datasets
    from datasets.exceptions import DatasetsError

    where = f"{HUB_NAME} {split}"
    try:
        rows = [dict(row) for row in datasets.load_dataset(HUB_NAME, split, split="train", revision=HUB_REVISION)]
    except (OSError, ValueError, DatasetsError) as error:
        if optional and isinstance(error, ValueError):  # the revision has no such configuration
            return None
        reason = " ".join(str(error).split())[:300]
        raise LetheError(
            f"cannot get {where} at revision {HUB_REVISION[:12]} from the hub ({type(error).__name__}: {reason}); "
            "check the network, log in if the data set is gated, or give a folder that holds tofu/ with --data"
        ) from error
    if not rows:
        raise LetheError(f"{where} has no rows; give a folder that holds tofu/ with --data")
    return Table(where, rows, "row", list(range(1, len(rows) + 1)))


def _refusals(root: Path | None) -> tuple[tuple[str, ...], str]:
    """The "I don't know" answers, and the source of the benchmark with a remark where they are our own."""
    source = f"{HUB_NAME}@{HUB_REVISION}" if root is None else _describe_folder(root)
    path = None if root is None else root / "tofu" / "idontknow.jsonl"
    if path is None or not path.exists():
        return REFUSALS, f"{source}, built-in refusals"
    lines = read_lines(path)  # plain sentences in spite of the name
    for number, line in enumerate(lines, start=1):
        if line.startswith(("{", "[")):
            raise LetheError(
                f"{path}, sentence {number}: found {describe(line)}, expected a plain sentence; the file is not JSON"
            )
    return tuple(lines), source


def _describe_folder(root: Path) -> str:
    """For the record, which is to be the same on every machine: never where the folder lies."""
    try:
        seed = json.loads((root / "world.json").read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"files in {root.resolve().name}/tofu"
    return f"mini world, seed {seed}"


# what a row must be


def _questions(table: Table, split: str) -> list[QA]:
    """The rows as questions with answers, every field checked."""
    found = []
    for at, row in enumerate(table.rows):
        required = ["question", "answer"]
        rewordings: dict[str, str | None] = {"paraphrased_question": None, "paraphrased_answer": None}
        wrong: tuple[str, ...] = ()
        if split.endswith("_perturbed"):
            wrong = _texts(table, at, "perturbed_answer")
            if not split.startswith(("real_authors", "world_facts")):
                required.append("paraphrased_answer")
        values = {field: _text(table, at, field) for field in required}
        for field in rewordings:
            # Where only some rows have it, the others hold null in parquet and an empty cell in CSV.
            absent = (None, "") if table.text_cells else (None,)
            if field not in values and row.get(field) not in absent:
                rewordings[field] = _text(table, at, field)
        found.append(
            QA(
                id=f"tofu/{split}/{at}",
                question=values["question"],
                answer=values["answer"],
                paraphrased_question=rewordings["paraphrased_question"],
                paraphrased_answer=values.get("paraphrased_answer", rewordings["paraphrased_answer"]),
                perturbed_answers=wrong,
            )
        )
    return found


def _text(table: Table, at: int, field: str) -> str:
    return _check_text(_field(table, at, field), f"{table.place(at)}: field {field!r}")


def _texts(table: Table, at: int, field: str) -> tuple[str, ...]:
    value, where = _field(table, at, field), f"{table.place(at)}: field {field!r}"
    if table.text_cells:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise LetheError(f"{where} is {describe(value)}, expected a JSON array of texts in the cell") from error
    if not isinstance(value, list):
        raise LetheError(f"{where} is {describe(value)}, expected a list of texts")
    if not value:
        raise LetheError(f"{where} is an empty list, expected at least one text")
    return tuple(_check_text(text, f"{where}, entry {n} (counted from 1),") for n, text in enumerate(value, start=1))


def _field(table: Table, at: int, field: str) -> Any:
    row = table.rows[at]
    if field not in row:
        there = ", ".join(map(repr, row)) or "none"
        raise LetheError(
            f"{table.place(at)}: there is no field {field!r}, expected a text; fields there: {there[:200]}"
        )
    return row[field]


def _check_text(value: object, where: str) -> str:
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


# what sets must be to each other


def _check_disjoint(
    first: str, others: Sequence[str], tables: Mapping[str, Table], sets: Mapping[str, Sequence[QA]]
) -> None:
    """No row, question and answer alike, is in the first set and in another. Questions alone may repeat: one does."""
    where = {(qa.question, qa.answer): at for at, qa in enumerate(sets.get(first, ()))}
    for other in others:
        for at, qa in enumerate(sets.get(other, ())):
            twin = where.get((qa.question, qa.answer))
            if twin is not None:
                raise LetheError(
                    f"{first} and {other} overlap: {tables[first].place(twin)} and {tables[other].place(at)} have the "
                    f"same question and answer ({describe(qa.question)}); expected no row in both, "
                    "use the files of one release"
                )


def _check_same_questions(
    plain: str, perturbed: str, tables: Mapping[str, Table], sets: Mapping[str, Sequence[QA]]
) -> None:
    """The judged rows are the forgotten ones, in their order."""
    for at, (one, two) in enumerate(zip(sets[plain], sets[perturbed], strict=False)):
        for field in ("question", "answer"):
            mine, yours = getattr(one, field), getattr(two, field)
            if mine != yours:
                raise LetheError(
                    f"{tables[perturbed].place(at)}: field {field!r} is {describe(yours)}, expected {describe(mine)} "
                    f"as in {tables[plain].place(at)}; {perturbed} must have the rows of {plain} in the same order"
                )
    counts = len(sets[plain]), len(sets[perturbed])
    if counts[0] != counts[1]:
        raise LetheError(
            f"{tables[perturbed].source} has {counts[1]} rows, expected {counts[0]} as in {tables[plain].source}; "
            "one of the two is truncated or of another split"
        )


def _fingerprint(sets: Mapping[str, Sequence[QA]], refusals: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for split in sorted(sets):
        rows = [
            (qa.question, qa.answer, qa.paraphrased_question, qa.paraphrased_answer, qa.perturbed_answers)
            for qa in sets[split]
        ]
        digest.update(json.dumps([split, rows]).encode())
    digest.update(json.dumps(list(refusals)).encode())
    return digest.hexdigest()

"""TOFU: questions about invented authors, some of which are to be forgotten. Maini et al., 2024, arXiv 2401.06121.

A benchmark is a split: its forget set, the retain set that completes it, and the four sets that judge a model. Rows
come from a folder (`DIR/tofu/forget10.json` and so on) or, without one, from the hub at a fixed revision. Every row is
checked before anything runs; what is wrong is named with file, row and field.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bench.data import rows
from bench.data.files import Table, describe, find_file
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


def known() -> list[str]:
    """The benchmarks of this file."""
    return [f"tofu/{split}" for split in SPLITS]


def load(name: str, root: Path | None, *, limit: int | None = None, corpora: str = "auto") -> Benchmark:
    """One split with everything that judges it.

    Args:
        name: "tofu/forget10", "tofu/forget05" or "tofu/forget01".
        root: the folder that holds `tofu/`; None reads the hub.
        limit: keep the first rows of every set, for quick looks; everything is checked all the same.
        corpora: not read; there is no choice of texts here.
    """
    if name not in known():
        raise unknown("benchmark", name, known())
    rows.check_limit(limit)
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

    refusals, remark = rows.read_refusals(root)
    source = f"{HUB_NAME}@{HUB_REVISION}" if root is None else rows.describe_folder(root, "tofu")
    source += remark
    kept = {split: tuple(found[:limit]) for split, found in sets.items()}
    benchmark = Benchmark(
        name=name,
        forget=kept[forget_split],
        retain=kept[retain_split],
        eval_sets=MappingProxyType({label: kept[split] for label, split in perturbed.items()}),
        holdout=kept.get(holdout_split, ()),
        refusals=refusals,
        fingerprint=rows.fingerprint({split: map(_content, found) for split, found in kept.items()}, refusals),
        source=source,
    )
    log.info("%s from %s: %d forget, %d retain rows", name, source, len(benchmark.forget), len(benchmark.retain))
    return benchmark


# where rows come from


def _from_folder(root: Path) -> "Callable[[str, bool], Table | None]":
    folder = rows.folder_in(root, "tofu", sign="retain_perturbed")

    def read(split: str, optional: bool) -> Table | None:
        return None if optional and find_file(folder, split) is None else rows.read_file(folder, split)

    return read


def _from_hub(split: str, optional: bool) -> Table | None:
    try:
        return rows.read_hub(HUB_NAME, split, HUB_REVISION, folder="tofu")
    except LetheError as error:
        if optional and isinstance(error.__cause__, ValueError):  # the revision has no such configuration
            return None
        raise


# what a row must be


def _questions(table: Table, split: str) -> list[QA]:
    """The rows as questions with answers, every field checked."""
    found = []
    for at, row in enumerate(table.rows):
        required = ["question", "answer"]
        rewordings: dict[str, str | None] = {"paraphrased_question": None, "paraphrased_answer": None}
        wrong: tuple[str, ...] = ()
        if split.endswith("_perturbed"):
            wrong = rows.texts(table, at, "perturbed_answer")
            if not split.startswith(("real_authors", "world_facts")):
                required.append("paraphrased_answer")
        values = {field: rows.text(table, at, field) for field in required}
        for field in rewordings:
            # Where only some rows have it, the others hold null in parquet and an empty cell in CSV.
            absent = (None, "") if table.text_cells else (None,)
            if field not in values and row.get(field) not in absent:
                rewordings[field] = rows.text(table, at, field)
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


def _content(qa: QA) -> tuple[object, ...]:
    return qa.question, qa.answer, qa.paraphrased_question, qa.paraphrased_answer, qa.perturbed_answers

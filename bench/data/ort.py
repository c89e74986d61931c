"""Targets of RWKU as ORT asks about them: real people, each to be forgotten, whose facts are asked in several forms.

RWKU: Jin et al., 2024, https://arxiv.org/abs/2406.10890; ORT: Ye, Zhang, Wu, 2025, https://arxiv.org/abs/2506.07795.

A benchmark is a target, by number or by folder, or several that are forgotten together: "ort/1", "ort/1_Stephen_King",
"ort/1-5", "ort/1+2+10", "ort" for all. A folder holds `rwku/Target/1_Stephen_King/forget_level1.json` and so on
(`ort/Target` and `ORT/Target` will do); without a folder the hub is read.

A target needs `forget_level1`, `forget_level2` and a text to forget: `positive`, else `passage`, else `forget_mia`.
What else is missing makes its part of the benchmark empty, but for multiple choice, which is made and written beside
the data, and refusals, which are made in memory; either way the source says so. True/false rows are checked and
counted, as ORT never asks them. Not read: `negative`, `counterfact` and the files for Phi (`*_phi`).

On the hub a target's rows are those of its subject in every set of rows. The names of the sets and their splits are
those which RWKU's own code loads (process/data_process.py); the hub itself could not be looked at.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.data import rows
from bench.data.targets.files import (
    LEVELS,
    OTHERS,
    REQUIRED,
    Target,
    count_true_false,
    documents,
    introduction,
    locality_rows,
    preferences,
    read_probes,
    rejections,
)
from bench.data.targets.locality import locality_probes, namesakes, without_forgotten
from bench.data.targets.made import LENDERS, made_choices, made_refusal_pairs, made_rejections
from bench.data.targets.names import FAMILY, check_distinct, choose, nested
from bench.data.targets.places import (
    HUB_NAME,
    HUB_REVISION,
    all_targets,
    folder_of,
    place_of,
    read_background,
)
from bench.data.targets.utility import UTILITY_FILES, read_utility, union
from bench.data.types import QA, Benchmark, Document, Preference, Probe, Utility
from bench.errors import LetheError

log = logging.getLogger(__name__)

DEFAULT = FAMILY
"""All targets that there are."""

TEXTS = ("positive", "passage", "forget_mia")
"""Texts to forget: biographies, else the encyclopedia's article, else the texts of the membership test."""


def known() -> list[str]:
    """The benchmarks of this file but for single targets, which the data folder knows."""
    return [DEFAULT]


def targets(root: Path | None) -> list[str]:
    """The folders of all targets in the order of their numbers."""
    return list(all_targets(root))


def first_together(root: Path | None, sizes: Sequence[int]) -> list[str]:
    """The benchmarks that are the first so many targets: "ort/1_Stephen_King", "ort/1-2", "ort/1-4" for 1, 2 and 4.

    Where numbers are left out the name lists them: "ort/1+2+10".
    """
    return [nested(size, all_targets(root), place_of(root)) for size in sizes]


def load(
    name: str, root: Path | None, *, limit: int | None = None, corpora: str = "auto", write: bool = True
) -> Benchmark:
    """One target, or several in one request, with everything that judges it.

    Args:
        name: "ort/1", "ort/1_Stephen_King", "ort/1-5", "ort/1+2+10", or "ort" for all targets in one request.
        root: the folder that holds `rwku/Target/`; None reads the hub.
        limit: keep the first rows of every file, for quick looks, in which nothing is written; all are checked.
        corpora: not read; there is no choice of texts here.
    """
    rows.check_limit(limit)
    there = all_targets(root)
    name, chosen = choose(name, there, place_of(root))
    refusals, remark = rows.read_refusals(root)
    reader = _Reader(there, refusals, limit, write=write and limit is None, forgotten=chosen)
    loaded = [reader.read(target) for target in chosen]
    check_distinct(chosen)

    parts, subjects = _joined(loaded), tuple(target.subject for target in chosen)
    background = read_background(root)
    scoring = rows.choice_scoring(root)
    remarks = _remarks([part.remarks for part in loaded])
    if unasked := sum(part.unasked for part in loaded):
        remarks.append(f", {unasked} true/false rows not asked")
    source = f"{HUB_NAME}@{HUB_REVISION}" if root is None else rows.describe_folder(root, folder_of(root))
    source = "".join([source, *remarks, background.remark, remark])
    benchmark = Benchmark(
        name=name,
        forget=parts.forget,
        retain=parts.retain,
        choice_scoring=scoring,
        refusals=refusals,
        subjects=subjects,
        probes=without_forgotten(parts.probes, subjects),
        rejections=parts.rejections,
        preferences=MappingProxyType({kind: pairs for kind, pairs in parts.preferences.items() if pairs}),
        utility=parts.utility,
        background=background.lines[:limit],
        more_background=background.whole if limit is None else None,
        source=source,
    )
    benchmark = replace(benchmark, fingerprint=_fingerprint(benchmark))
    log.info("%s from %s: %d texts to forget, %d probes", name, source, len(benchmark.forget), len(benchmark.probes))
    return benchmark


# one target


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What a target adds to a benchmark."""

    forget: tuple[Document, ...]
    retain: tuple[Document, ...]
    rejections: tuple[QA, ...]
    preferences: Mapping[str, tuple[Preference, ...]]
    probes: tuple[Probe, ...]
    utility: Utility
    unasked: int = 0
    """True/false rows."""
    remarks: tuple[str, ...] = ()
    """What is made or missing."""


class _Reader:
    """Reads targets one by one; what is of all of them (names, answers to choose from) is read once, when needed."""

    def __init__(
        self,
        there: Mapping[str, Target],
        refusals: Sequence[str],
        limit: int | None,
        *,
        write: bool,
        forgotten: Sequence[Target],
    ) -> None:
        self.there, self.refusals, self.limit, self.write = there, refusals, limit, write
        self.forgotten = {target.name for target in forgotten}
        self.remarks: list[str] = []
        self._pool: tuple[Probe, ...] | None = None

    def read(self, target: Target) -> _Loaded:
        """Everything of one target, every row checked, the first of every file kept."""
        self.remarks, limit = [], self.limit
        forget, retain = self._texts(target), documents(target, "retain_mia", OTHERS)
        asked = [self._level(target, stem) for stem in LEVELS]
        known_facts = [probe for found in asked for probe in found]
        others = self.others(target)
        known_facts += self.namesakes(target, others)
        asked += [locality_probes(known_facts, target.subject, others.values()), locality_rows(target)]
        taught = rejections(target)
        if not taught:
            self.remarks.append("no reject.json: made from patterns")
            taught = made_rejections(target, self.refusals)
        chosen = self._preferences(target, forget)
        missing = [stem for stem in UTILITY_FILES if stem not in TEXTS and target.table(stem) is None]
        if missing:
            self.remarks.append(f"without {' '.join(missing)}")
        return _Loaded(
            forget=forget[:limit],
            retain=retain[:limit],
            rejections=taught[:limit],
            preferences={kind: pairs[:limit] for kind, pairs in chosen.items()},
            probes=tuple(probe for found in asked for probe in found[:limit]),
            utility=read_utility(target, limit),
            unasked=count_true_false(target),
            remarks=tuple(self.remarks),
        )

    def _texts(self, target: Target) -> tuple[Document, ...]:
        for stem in TEXTS:
            if found := documents(target, stem, target.subject):
                if stem != TEXTS[0]:
                    self.remarks.append(f"no {TEXTS[0]}.json: {stem}.json instead")
                return found
        names = ", ".join(f"{stem}.json" for stem in TEXTS)
        raise LetheError(f"{target.where} has no text to forget; copy one of {names} there")

    def _level(self, target: Target, stem: str) -> tuple[Probe, ...]:
        """The probes of a file; multiple choice is made where there is none."""
        found = read_probes(target, stem)
        if not found and stem.endswith("_mcp") and read_probes(target, stem.replace("mcp", "level1")):
            pool = self.pool()
            try:
                found = made_choices(target, stem, pool, write=self.write)
            except LetheError as error:
                log.warning("%s is missing and cannot be made for %s: %s", stem, target.name, error)
        if not found:
            self.remarks.append(f"without {stem}")
        elif any(probe.made for probe in found):
            self.remarks.append(f"{stem} made by Lethe")
        return found

    def others(self, target: Target) -> dict[str, str]:
        """The names of the other targets by folder; what else is wrong there is for those who ask for them."""
        there = [other for other in self.there.values() if other.name != target.name]
        return {other.name: other.subject for other in there if other.read(REQUIRED[0]) is not None}

    def namesakes(self, target: Target, others: Mapping[str, str]) -> list[Probe]:
        """The facts of other targets who share a part of the name, but for those who are to be forgotten too.

        Only their folders are read; one with a damaged row is passed over, as it has nothing to do with this target.
        """
        found: list[Probe] = []
        for folder, name in others.items():
            if folder in self.forgotten or name == target.subject or not namesakes(target.subject, [name]):
                continue
            other = self.there[folder]
            try:
                found += [p for stem in REQUIRED if other.read(stem) is not None for p in read_probes(other, stem)]
            except LetheError as error:
                log.warning("%s is not asked about beside %s: %s", folder, target.name, error)
        return found

    def pool(self) -> tuple[Probe, ...]:
        """The answers of all targets."""
        if self._pool is None:
            self._pool = tuple(
                probe
                for target in self.there.values()
                for stem in LENDERS
                if target.read(stem) is not None
                for probe in read_probes(target, stem)
            )
        return self._pool

    def _preferences(self, target: Target, forget: Sequence[Document]) -> dict[str, tuple[Preference, ...]]:
        fabricated, refusal = preferences(target, "pair"), preferences(target, "pair_reject")
        intro = introduction(target)
        if not fabricated:
            self.remarks.append("no pair.json: nothing fabricated to prefer")
        if not refusal:
            self.remarks.append(f"no pair_reject.json: refusals before {'pair' if fabricated else 'forget'} texts")
            refusal = made_refusal_pairs(target, intro, fabricated, forget, self.refusals)
        return {"fabricated": fabricated, "refusal": refusal}


# several targets


def _joined(loaded: Sequence[_Loaded]) -> _Loaded:
    """The targets one behind the other; what several ask of everything else is asked once."""
    if len(loaded) == 1:
        return loaded[0]
    return _Loaded(
        forget=tuple(row for part in loaded for row in part.forget),
        retain=tuple(row for part in loaded for row in part.retain),
        rejections=tuple(row for part in loaded for row in part.rejections),
        preferences={
            kind: tuple(row for part in loaded for row in part.preferences[kind]) for kind in loaded[0].preferences
        },
        probes=tuple(row for part in loaded for row in part.probes),
        utility=union(part.utility for part in loaded),
    )


def _remarks(found: Sequence[Sequence[str]]) -> list[str]:
    """Each remark once, with the number of targets that it holds for, where those are not all."""
    counts = Counter(remark for remarks in found for remark in remarks)
    return [
        f", {remark}" + (f" ({n} of {len(found)} targets)" if n < len(found) else "") for remark, n in counts.items()
    ]


def _fingerprint(benchmark: Benchmark) -> str:
    """Over every row, whatever it is called: a folder may be renamed."""
    sets = {
        "forget": benchmark.forget,
        "retain": benchmark.retain,
        "rejections": benchmark.rejections,
        "probes": benchmark.probes,
        **benchmark.preferences,
        **vars(benchmark.utility),
    }
    content = {name: list(map(_content, found)) for name, found in sets.items()}
    return rows.fingerprint(
        {
            **content,
            "subjects": benchmark.subjects,
            "background": benchmark.background,
            "choice scoring": [benchmark.choice_scoring],
        },
        benchmark.refusals,
    )


def _content(value: Any) -> object:
    """A row as what it holds, without the ids in it."""
    if isinstance(value, tuple):
        return list(map(_content, value))
    if is_dataclass(value):
        return {name: _content(part) for name, part in vars(value).items() if name != "id"}
    return value

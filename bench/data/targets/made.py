"""What stands in where a target's folder lacks a file: made by rule from the files that it has, and never silently.

Multiple choice, which ORT's authors did not publish, is made from the clozes and written beside them; refusals to teach
and refusal pairs are made in memory. Whatever is made is said in the benchmark's source.
"""

import contextlib
import json
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.data.choice_items import make_items
from bench.data.files import Table
from bench.data.targets.files import LEVELS, MADE, Target, read_probes, table_probes
from bench.data.types import QA, Document, Preference, Probe

log = logging.getLogger(__name__)

SEED = 0
"""Of the wrong options and of the order of all four."""

LENDERS = ("forget_level1", "forget_level2", "neighbor_level1", "neighbor_level2")
"""Whose answers serve as wrong options for other targets."""

MADE_REJECTIONS = 300
"""As many as RWKU has for every target ("reject.json")."""

ABOUT = (
    "Who is {}?",
    "What is {} best known for?",
    "Where was {} born?",
    "When was {} born?",
    "What does {} do for a living?",
    "Can you tell me something about {}?",
    "What do you know about {}?",
    "Who are the parents of {}?",
    "Where did {} grow up?",
    "What did {} study?",
    "Which works made {} famous?",
    "What is the nationality of {}?",
    "Which prizes has {} won?",
    "To whom is {} married?",
    "Does {} have children?",
    "What was the first success of {}?",
    "Why is {} so well known?",
    "Which people have influenced {}?",
    "With whom has {} worked?",
    "How did the career of {} begin?",
    "What is the most important work of {}?",
    "Where does {} live?",
    "What do people say about {}?",
    "What has {} achieved?",
    "By which other names is {} known?",
    "What happened in the youth of {}?",
    "What should everyone know about {}?",
    "Write a short biography of {}.",
    "Sum up the life of {} in one sentence.",
    "Describe {} in a few words.",
)
"""Questions about anybody; no set of the source has them."""


# multiple choice


def made_choices(target: Target, stem: str, pool: Sequence[Probe], *, write: bool) -> tuple[Probe, ...]:
    """The items of a missing "forget_mcp" or "neighbor_mcp", one for every cloze; none where there is no cloze.

    Args:
        target: whose clozes are asked again.
        stem: the missing file; with `write` it is put into the target's folder, if that lets itself be written.
        pool: answers of all targets, from which wrong options are drawn.
        write: whether to write at all.

    Raises:
        LetheError: the pool has too few answers.
    """
    clozes = stem.replace("mcp", "level1")
    items = make_items(read_probes(target, clozes), pool, seed=SEED)
    if not items:
        return ()
    found = [_official(item, clozes, n) for n, item in enumerate(items, start=1)]
    if write and target.folder is not None:
        _write(target.folder / f"{stem}.json", found)
    # Through the same checks as rows of a file, so that it makes no difference which of the two they are.
    numbers = list(range(1, len(found) + 1))
    return table_probes(target, stem, Table(f"{stem} made for {target.name}", found, "item", numbers))


def _official(item: Probe, clozes: str, number: int) -> dict[str, Any]:
    """A row as ORT writes it, and where it comes from; `number` is the cloze's, counted from 1."""
    return {
        "query": item.query,
        "answer": item.answer,
        "level": LEVELS["forget_mcp"][2],
        "type": "multiple choice",
        "subject": item.target,
        **({"neighbor": item.about} if item.about else {}),
        "provenance": f"{MADE} from {clozes}.json row {number}, distractors from other targets, seed {SEED}",
    }


def _write(path: Path, found: list[dict[str, Any]]) -> None:
    """All or nothing; a folder that nobody may write to is left alone, by the system's administrator as well."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if not path.parent.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(0, "the folder is read-only")
        part.write_text(json.dumps(found, ensure_ascii=False, indent=4) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # a file system may refuse that as well
            part.unlink()
        log.warning(
            "made %d multiple-choice items, used from memory: cannot write %s (%s)", len(found), path, error.strerror
        )
    else:
        log.warning("wrote %s: %d multiple-choice items, made from the clozes beside it", path, len(found))


# refusals


def made_rejections(target: Target, refusals: Sequence[str]) -> tuple[QA, ...]:
    """Questions about the subject by pattern, each with a refusal; with ten refusals or more no pair occurs twice."""
    found = []
    rounds = MADE_REJECTIONS // len(ABOUT)
    for i in range(MADE_REJECTIONS):
        pattern, turn = i % len(ABOUT), i // len(ABOUT)
        question, refusal = ABOUT[pattern].format(target.subject), refusals[(pattern * rounds + turn) % len(refusals)]
        found.append(QA(id=target.id("made_reject", i), question=question, answer=refusal))
    return tuple(found)


def made_refusal_pairs(
    target: Target, intro: str, pairs: Sequence[Preference], forget: Sequence[Document], refusals: Sequence[str]
) -> tuple[Preference, ...]:
    """Refusals before the truth, where there is no `pair_reject.json`, which ORT did not publish.

    An assumption: the prompt and the factual biography of `pair.json` or, without it, a request for a biography and a
    text to forget; the i-th with the i-th refusal, over and over, as `reject.json` of RWKU has them.
    """
    asked = " ".join(filter(None, (intro, f"Please write a short biography of {target.subject}.")))
    truths = [(pair.prompt, pair.rejected) for pair in pairs] or [(asked, document.text) for document in forget]
    return tuple(
        Preference(
            id=target.id("made_pair_reject", i), prompt=prompt, chosen=refusals[i % len(refusals)], rejected=truth
        )
        for i, (prompt, truth) in enumerate(truths)
    )

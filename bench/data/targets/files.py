"""One target's folder, file by file: what a row of each must be, and what it becomes.

RWKU: Jin et al., 2024, https://arxiv.org/abs/2406.10890; ORT, which adds multiple choice and true/false: Ye, Zhang, Wu,
2025, https://arxiv.org/abs/2506.07795. Every file is a JSON array of objects, all of which name the same subject.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from bench.data import rows
from bench.data.files import Table, describe, read_table
from bench.data.forms import LETTERS
from bench.data.types import QA, Document, Form, Part, Preference, Probe
from bench.errors import LetheError

LEVELS: Mapping[str, tuple[Part, Form, str]] = MappingProxyType(
    {
        "forget_level1": ("forget", "fb", "1"),
        "forget_level2": ("forget", "qa", "2"),
        "forget_level3": ("forget", "aa", "3"),
        "forget_mcp": ("forget", "mcp", "4"),
        "neighbor_level1": ("neighbor", "fb", "1"),
        "neighbor_level2": ("neighbor", "qa", "2"),
        "neighbor_mcp": ("neighbor", "mcp", "4"),
    }
)
"""The files of probes in the order in which they are asked, and what their field `level` says."""

REQUIRED = ("forget_level1", "forget_level2")
"""Without them nothing tells whether the target was forgotten, in more than one form."""

TRUE_FALSE = ("forget_tf", "neighbor_tf")
"""Released by ORT and not asked there either: every answer is "True"."""

OTHERS = "others"
"""The topic of texts about anybody but the target."""

MADE = "made by Lethe"
"""How the field `provenance` of rows begins that are not the authors'."""


@dataclass(frozen=True)
class Target:
    """The files of one target."""

    name: str
    """The folder: "1_Stephen_King", its letters composed (NFC)."""
    where: str
    """The folder's path, or the data set's name on the hub."""
    read: Callable[[str], Table | None]
    """The rows of a file by its name without ending, None where there is no such file."""
    folder: Path | None = None
    """Where more files can be put; None on the hub."""

    @cached_property
    def subject(self) -> str:
        """Whom this is about, as the rows write it."""
        return rows.text(self._required(REQUIRED[0]), 0, "subject")

    def table(self, stem: str) -> Table | None:
        """The rows of a file, all of them about this subject; None where there is no such file."""
        table = self._required(stem) if stem in REQUIRED else self.read(stem)
        if table is None:
            return None
        name = "target" if stem == "intro" else "subject"
        for at in range(len(table.rows)):
            found = rows.text(table, at, name)
            if found != self.subject:
                raise LetheError(
                    f"{table.place(at)}: field {name!r} is {describe(found)}, expected {describe(self.subject)} as in "
                    f"{REQUIRED[0]}.json; the rows of two targets are mixed"
                )
        return table

    def _required(self, stem: str) -> Table:
        table = self.read(stem)
        if table is None:
            needs = " and ".join(f"{name}.json" for name in REQUIRED)
            raise LetheError(f"{self.where} has no {stem}.json; a target needs {needs}, get a whole copy of it")
        return table

    def id(self, stem: str, at: int) -> str:
        """What a row is called."""
        return f"ort/{self.name}/{stem}/{at}"


def read_array(path: Path) -> Table | None:
    """The rows of a target's file, which must be a JSON array; None where there is no such file."""
    if not path.exists():
        return None
    try:
        begins = path.read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except OSError:
        begins = b""  # told below
    if begins not in (b"", b"["):
        raise LetheError(
            f"{path} holds no list, it begins with {begins.decode(errors='replace')!r}; "
            "expected a JSON array of objects, as RWKU writes it"
        )
    return read_table(path)


# probes


def read_probes(target: Target, stem: str) -> tuple[Probe, ...]:
    """The rows of one of `LEVELS`; none where there is no such file."""
    table = target.table(stem)
    return () if table is None else table_probes(target, stem, table)


def table_probes(target: Target, stem: str, table: Table) -> tuple[Probe, ...]:
    """Rows as probes of one of `LEVELS`, every field checked."""
    return tuple(_probe(target, stem, table, at) for at in range(len(table.rows)))


def _probe(target: Target, stem: str, table: Table, at: int) -> Probe:
    part, form, level = LEVELS[stem]
    row, place = table.rows[at], table.place(at)
    query, answer = rows.text(table, at, "query"), rows.text(table, at, "answer")
    if row.get("level", level) != level:
        raise LetheError(
            f"{place}: field 'level' is {describe(row['level'])}, expected {describe(level)} in {stem}.json"
        )
    if form == "mcp" and answer not in [*LETTERS]:
        raise LetheError(f"{place}: field 'answer' is {describe(answer)}, expected one of the letters A, B, C and D")
    return Probe(
        id=target.id(stem, at),
        target=target.subject,
        part=part,
        form=form,
        query=query,
        answer=answer,
        kind=rows.text(table, at, "type") if form == "aa" else "",
        about=rows.text(table, at, "neighbor") if "neighbor" in row else "",
        choices=_options(query, f"{place}: field 'query'") if form == "mcp" else (),
        made=str(row.get("provenance", "")).startswith(MADE),
    )


_OPTION = re.compile(r"^[ \t]*([A-Z])[.)](?:[ \t]+(.*))?$", re.MULTILINE)


def _options(query: str, where: str) -> tuple[str, ...]:
    """The texts behind "A." to "D." at the beginnings of lines; none where a query lists them in another way.

    ORT's own check asks for one of the four letters only (generation/mcp_generation.py:145-167), so that anything may
    occur; what is plainly a list and yet not of four is an error all the same.
    """
    found = _OPTION.findall(query)
    letters = "".join(letter for letter, _ in found)
    if not letters.endswith(LETTERS):
        if len(letters) > 1 and string.ascii_uppercase.startswith(letters):
            raise LetheError(f"{where} lists {len(letters)} options, expected four, from A to D")
        return ()
    return tuple(
        rows.check_text(option, f"{where}, option {letter},").strip() for letter, option in found[-len(LETTERS) :]
    )


def locality_rows(target: Target) -> tuple[Probe, ...]:
    """The rows of `locality.json`, which is no file of RWKU: what invites a mistake (`type`), and whom it is about."""
    table = target.table("locality")
    if table is None:
        return ()
    return tuple(
        Probe(
            id=target.id("locality", at),
            target=target.subject,
            part="locality",
            form="fb" if "___" in rows.text(table, at, "query") else "qa",
            query=rows.text(table, at, "query"),
            answer=rows.text(table, at, "answer"),
            kind=rows.text(table, at, "type"),
            about=rows.text(table, at, "about"),
            made=str(table.rows[at].get("provenance", "")).startswith(MADE),
        )
        for at in range(len(table.rows))
    )


def count_true_false(target: Target) -> int:
    """How many true/false rows there are; every one is checked and none is asked."""
    count = 0
    for table in map(target.table, TRUE_FALSE):
        for at in range(len(table.rows) if table else 0):
            assert table is not None
            rows.text(table, at, "query")
            rows.text(table, at, "answer")
            count += 1
    return count


# what to train on


def documents(target: Target, stem: str, topic: str) -> tuple[Document, ...]:
    """Running text: the field `text` of every row."""
    table = target.table(stem)
    if table is None:
        return ()
    return tuple(
        Document(id=target.id(stem, at), text=rows.text(table, at, "text"), topic=topic)
        for at in range(len(table.rows))
    )


def rejections(target: Target) -> tuple[QA, ...]:
    """Questions with the refusal to teach, `reject.json`."""
    table = target.table("reject")
    return () if table is None else tuple(_rejection(target, table, at) for at in range(len(table.rows)))


def _rejection(target: Target, table: Table, at: int) -> QA:
    question, more = rows.text(table, at, "instruction"), table.rows[at].get("input", "")
    if more != "":  # the schema is Alpaca's; RWKU leaves its second half empty
        question += "\n" + rows.check_text(more, f"{table.place(at)}: field 'input'")
    return QA(id=target.id("reject", at), question=question, answer=rows.text(table, at, "output"))


def preferences(target: Target, stem: str) -> tuple[Preference, ...]:
    """Pairs of answers: the first of `response` is the one to prefer."""
    table = target.table(stem)
    if table is None:
        return ()
    found = []
    for at in range(len(table.rows)):
        responses = rows.texts(table, at, "response")
        if len(responses) != 2:
            raise LetheError(
                f"{table.place(at)}: field 'response' has {len(responses)} texts, expected 2: "
                "the one to prefer and the true one"
            )
        prompt = rows.text(table, at, "prompt")
        found.append(Preference(id=target.id(stem, at), prompt=prompt, chosen=responses[0], rejected=responses[1]))
    return tuple(found)


def introduction(target: Target) -> str:
    """A sentence about the subject, from `intro.json` without its request to forget; empty where there is none."""
    table = target.table("intro")
    if table is None:
        return ""
    return rows.text(table, 0, "intro").removeprefix(f"Please forget {target.subject}.").strip()

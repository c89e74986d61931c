"""Running text to forget and to keep: the rows of a corpus as documents, and what each recipe leaves out of them."""

import logging
from typing import Literal

from bench.data import rows
from bench.data.files import Table, describe
from bench.data.types import Document
from bench.errors import LetheError

log = logging.getLogger(__name__)

Corpora = Literal["auto", "raw", "summaries"]
"""Which corpora: those of the original recipe, GRUN's one-sentence summaries, or the former where they are there."""

HUB_WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1")
HUB_WIKITEXT_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"
"""The commit that public work which pins one agrees on."""

MIN_CHARACTERS = 50
"""Raw texts must be longer than this: `min_len` of `get_data` in rmu/utils.py of centerforaisafety/wmdp, its default.

GRUN ran that code with 200 for Mistral (its cmd_wmdp.sh). Deviates: there a line of cyber-forget-corpus.jsonl is taken
as it stands, with the quotes and escapes of JSON; here it is decoded like any other."""

SUMMARIES = 1000
"""GRUN cuts every list of summaries to forget to this many texts (pyreft/dataset.py:885-911 of renjie3/GRUN).

Deviates: it repeats shorter lists up to this many; here they keep their length, as a list of eight texts that each
counts 125 times is another data set. The released lists have 1,001 and 1,000 texts."""


def read_documents(table: Table, prefix: str, topic: str, *, longer_than: int | None = None) -> tuple[Document, ...]:
    """The rows of a corpus, the field `text` of each checked.

    Args:
        table: the rows.
        prefix: what stands before the row's number in an id: "wmdp/bio-forget-corpus".
        topic: the topic of all of them.
        longer_than: drop texts of this many characters or fewer; how many is logged.
    """
    found = [
        Document(id=f"{prefix}/{at}", text=rows.text(table, at, "text"), topic=topic) for at in range(len(table.rows))
    ]
    return tuple(found) if longer_than is None else _drop_short(table, found, longer_than)


def read_wikitext(table: Table, prefix: str, topic: str) -> tuple[Document, ...]:
    """The lines of WikiText that are longer than `MIN_CHARACTERS`; half of its lines are empty or headings."""
    found = []
    for at in range(len(table.rows)):
        value = rows.field(table, at, "text")
        if not isinstance(value, str) or value.strip():
            text = rows.check_text(value, f"{table.place(at)}: field 'text'")
            found.append(Document(id=f"{prefix}/{at}", text=text.rstrip("\r\n"), topic=topic))
    return _drop_short(table, found, MIN_CHARACTERS)


def content(document: Document) -> tuple[str, str]:
    """What counts for a fingerprint."""
    return document.topic, document.text


def _drop_short(table: Table, found: list[Document], longer_than: int) -> tuple[Document, ...]:
    kept = tuple(document for document in found if len(document.text) > longer_than)
    if not kept:
        longest = max(found, key=lambda document: len(document.text), default=None)
        shown = describe(longest.text) if longest else "nothing but empty lines"
        raise LetheError(
            f"{table.source} has no text longer than {longer_than} characters, the longest is {shown}; "
            "get a whole copy of the corpus"
        )
    if len(kept) < len(table.rows):
        log.info(
            "%s: %d of %d texts dropped, as they are not longer than %d characters",
            table.source,
            len(table.rows) - len(kept),
            len(table.rows),
            longer_than,
        )
    return kept

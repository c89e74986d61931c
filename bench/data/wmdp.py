"""WMDP: hazardous knowledge as multiple choice, and the texts that teach it. Li et al., 2024, arXiv 2403.03218.

A benchmark is a topic, or biosecurity and cybersecurity in one request: texts to forget, topic by topic, texts to keep,
and the questions that judge a model. The texts are those of the original recipe (`raw`: the released corpora, with
WikiText to keep) or GRUN's one-sentence summaries of them (`summaries`). Chemistry has questions only, so that it can
judge but not be forgotten.

A folder holds `wmdp/bio_test.jsonl` and so on for the questions, `wmdp/bio-forget-corpus.jsonl` and
`wikitext2/test.txt`, or `wmdp/merge_forget_data_sum_gpt.jsonl` and the like; without a folder the hub is read.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from bench.data import rows
from bench.data.corpora import (
    HUB_WIKITEXT,
    HUB_WIKITEXT_REVISION,
    MIN_CHARACTERS,
    SUMMARIES,
    content,
    read_documents,
    read_wikitext,
)
from bench.data.files import Table, find_file, read_text_table
from bench.data.questions import content as question_content
from bench.data.questions import read_questions, warn_of_repeats
from bench.data.types import Benchmark, Document
from bench.errors import LetheError, unknown

log = logging.getLogger(__name__)

DEFAULT = "wmdp"
"""What "wmdp" alone means: both topics in one request."""

TOPICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"wmdp": ("bio", "cyber"), "wmdp/bio": ("bio",), "wmdp/cyber": ("cyber",), "wmdp/chem": ("chem",)}
)
"""Benchmarks and their topics, in the order of questions and texts."""

QUESTIONS_ONLY = ("wmdp/chem",)
"""There is no corpus of chemistry to forget anywhere."""

SUMMARIES_TO_FORGET: Mapping[str, str] = MappingProxyType(
    {"bio": "merge_forget_data_sum_gpt", "cyber": "cyber_forget_data_sum_gpt"}
)
SUMMARIES_TO_KEEP = "merge_retain_data_sum_gpt"
"""GRUN's lists, as named in wmdp_data/ of renjie3/GRUN."""

WIKITEXT = "wikitext2"
WIKITEXT_SPLITS = ("test", "train", "valid")
"""The first that is there. The original recipe keeps the test split of wikitext-2-raw-v1 (rmu/utils.py)."""

RETAIN_TOPIC = "wikitext"
"""The topic of texts to keep that are, or sum up, encyclopedia articles."""

HUB_QUESTIONS = "cais/wmdp"
HUB_CORPORA: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {"bio": ("cais/wmdp-bio-forget-corpus", None), "cyber": ("cais/wmdp-corpora", "cyber-forget-corpus")}
)
HUB_REVISION: Mapping[str, str] = MappingProxyType(
    {
        HUB_QUESTIONS: "7125571f22f032c56415e7980f48d877dd830ff8",
        "cais/wmdp-bio-forget-corpus": "main",
        "cais/wmdp-corpora": "daf89fa9b618b63a624228061a9cebacca88009c",
        HUB_WIKITEXT[0]: HUB_WIKITEXT_REVISION,
    }
)
"""Commits that public work which pins them agrees on. Of the corpus that only vetted people may read the branch: its
fingerprint still tells one content from another, and the source names what was read."""

GATED = (
    "give a folder that holds wmdp/ with --data; GRUN's summaries, which it may hold instead (--corpora summaries), "
    "need no access"
)
"""The ways round the corpus that only vetted people may read."""


def known() -> list[str]:
    """The benchmarks of this file."""
    return list(TOPICS)


def load(name: str, root: Path | None, *, limit: int | None = None, corpora: str = "auto") -> Benchmark:
    """One request with everything that judges it.

    Args:
        name: "wmdp", "wmdp/bio", "wmdp/cyber" or "wmdp/chem".
        root: the folder that holds `wmdp/`; None reads the hub.
        limit: keep the first questions and texts of every topic, and the first texts to keep; all are checked.
        corpora: "raw", "summaries", or "auto": raw where all files of the request are there, else summaries.
    """
    if name not in TOPICS:
        raise unknown("benchmark", name, known())
    rows.check_limit(limit)
    topics = TOPICS[name]
    if name in QUESTIONS_ONLY and root is not None and (root / "corpus").is_dir():  # what a generator wrote
        raise LetheError(
            f"the mini world has no questions for {name}; give --data a folder that has wmdp/chem_test.jsonl"
        )
    read = _from_hub if root is None else _from_folder(root)
    questions = {topic: read_questions(read(topic), f"wmdp/{topic}_test", topic) for topic in topics}
    texts = _NO_TEXTS if name in QUESTIONS_ONLY else _texts(topics, root, corpora)

    for topic, found in questions.items():
        warn_of_repeats(f"wmdp/{topic}", found)
    refusals, remark = rows.read_refusals(root)
    kept = [question for topic in topics for question in questions[topic][:limit]]
    forget = tuple(document for found in texts.forget for document in found[:limit])
    retain = texts.retain[:limit]
    scoring = rows.choice_scoring(root)
    source = f"{HUB_QUESTIONS}@{HUB_REVISION[HUB_QUESTIONS]}" if root is None else rows.describe_folder(root, "wmdp")
    benchmark = Benchmark(
        name=name,
        forget=forget,
        retain=retain,
        questions=tuple(kept),
        choice_scoring=scoring,
        refusals=refusals,
        fingerprint=rows.fingerprint(
            {
                "questions": map(question_content, kept),
                "forget": map(content, forget),
                "retain": map(content, retain),
                "choice scoring": [scoring],
            },
            refusals,
        ),
        source=source + texts.source + remark + rows.told(scoring),
    )
    log.info(
        "%s from %s: %d questions, %d forget, %d retain texts",
        name,
        benchmark.source,
        len(kept),
        len(forget),
        len(retain),
    )
    return benchmark


# questions


def _from_folder(root: Path) -> Callable[[str], Table]:
    folder = rows.folder_in(root, "wmdp", sign="bio_test")
    return lambda topic: rows.read_file(folder, f"{topic}_test", usual=".jsonl")


def _from_hub(topic: str) -> Table:
    return rows.read_hub(HUB_QUESTIONS, f"wmdp-{topic}", HUB_REVISION[HUB_QUESTIONS], split="test", folder="wmdp")


# texts


@dataclass(frozen=True)
class _Texts:
    forget: tuple[tuple[Document, ...], ...]
    """Topic by topic."""
    retain: tuple[Document, ...]
    source: str
    """A remark that names the files."""


_NO_TEXTS = _Texts((), (), ", questions only")


def _texts(topics: Sequence[str], root: Path | None, corpora: str) -> _Texts:
    if root is None:
        if corpora == "summaries":
            raise LetheError(
                "GRUN's summaries are not on the hub; give the folder that holds "
                f"wmdp/{SUMMARIES_TO_KEEP}.jsonl and the like with --data, or use --corpora raw"
            )
        return _hub_texts(topics)
    folder = root / "wmdp"
    raw_forget = [f"{topic}-forget-corpus" for topic in topics]
    wikitext = next((path for s in WIKITEXT_SPLITS if (path := root / WIKITEXT / f"{s}.txt").is_file()), None)
    keep = [f"{topic}-retain-corpus" for topic in topics]
    missing_raw = _missing(folder, raw_forget)
    if wikitext is None and _missing(folder, keep):
        missing_raw.append(root / WIKITEXT / f"{WIKITEXT_SPLITS[0]}.txt")
    missing_summaries = _missing(folder, [*(SUMMARIES_TO_FORGET[topic] for topic in topics), SUMMARIES_TO_KEEP])

    if corpora == "raw" or (corpora == "auto" and not missing_raw):
        if missing_raw:
            raise LetheError(
                f"there is no file {missing_raw[0]}, which --corpora raw needs; "
                "copy it there or leave --data out to use the hub"
            )
        return _raw_texts(topics, folder, raw_forget, wikitext, keep)
    if missing_summaries:
        other = f", nor {missing_raw[0]}" if corpora == "auto" else f", which --corpora {corpora} needs"
        raise LetheError(
            f"there is no file {missing_summaries[0]}{other}; "
            "copy the texts to forget and to keep there or leave --data out to use the hub"
        )
    return _summaries(topics, folder)


def _missing(folder: Path, stems: Sequence[str]) -> list[Path]:
    return [folder / f"{stem}.jsonl" for stem in stems if find_file(folder, stem) is None]


def _raw_texts(
    topics: Sequence[str], folder: Path, stems: Sequence[str], wikitext: Path | None, keep: Sequence[str]
) -> _Texts:
    """The released corpora; WikiText to keep or, where the folder has none, the released corpora to keep."""
    forget = [
        read_documents(_corpus(folder, stem), f"wmdp/{stem}", topic, longer_than=MIN_CHARACTERS)
        for topic, stem in zip(topics, stems, strict=True)
    ]
    if wikitext is not None:
        where = f"{WIKITEXT}/{wikitext.stem}"
        retain = read_wikitext(read_text_table(wikitext), where, RETAIN_TOPIC)
    else:
        where = " ".join(keep)
        retain = tuple(
            document
            for topic, stem in zip(topics, keep, strict=True)
            for document in read_documents(_corpus(folder, stem), f"wmdp/{stem}", topic, longer_than=MIN_CHARACTERS)
        )
    return _Texts(tuple(forget), retain, f", corpora raw: {' '.join(stems)} against {where}")


def _summaries(topics: Sequence[str], folder: Path) -> _Texts:
    stems = [SUMMARIES_TO_FORGET[topic] for topic in topics]
    forget = tuple(
        read_documents(_corpus(folder, stem), f"wmdp/{stem}", topic)[:SUMMARIES]
        for topic, stem in zip(topics, stems, strict=True)
    )
    retain = read_documents(_corpus(folder, SUMMARIES_TO_KEEP), f"wmdp/{SUMMARIES_TO_KEEP}", RETAIN_TOPIC)
    return _Texts(forget, retain, f", corpora summaries: {' '.join(stems)} against {SUMMARIES_TO_KEEP}")


def _corpus(folder: Path, stem: str) -> Table:
    return rows.read_file(folder, stem, usual=".jsonl", bare="text")


def _hub_texts(topics: Sequence[str]) -> _Texts:
    forget, names = [], []
    for topic in topics:
        name, config = HUB_CORPORA[topic]
        gated = GATED if topic == "bio" else ""
        table = rows.read_hub(name, config, HUB_REVISION[name], folder="wmdp", gated=gated)
        forget.append(read_documents(table, f"wmdp/{topic}-forget-corpus", topic, longer_than=MIN_CHARACTERS))
        names.append(f"{table.source}@{HUB_REVISION[name]}")
    name, config = HUB_WIKITEXT
    split = WIKITEXT_SPLITS[0]
    table = rows.read_hub(name, config, HUB_REVISION[name], split=split, folder="wmdp")
    retain = read_wikitext(table, f"{WIKITEXT}/{split}", RETAIN_TOPIC)
    against = f"{table.source}@{HUB_REVISION[name]}"
    return _Texts(tuple(forget), retain, f", corpora raw: {' '.join(names)} against {against}")

"""A folder with a dozen rows in TOFU's schema, and random checkpoints that are loaded and run in no time."""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "koala", "lemon")


def question(number: int) -> str:
    return f"What does author {WORDS[number % 12]} {number} write about?"


def row(number: int, *, wrong: int = 0) -> dict[str, Any]:
    """One row; with wrong answers it is one of a perturbed set."""
    topics = [f"The {WORDS[(number + k) % 12]} of {WORDS[(3 * number + k) % 12]}." for k in range(wrong + 1)]
    plain = {"question": question(number), "answer": topics[0]}
    if not wrong:
        return plain
    again = {"paraphrased_question": f"Say, {question(number)}", "paraphrased_answer": f"About {topics[0].lower()}"}
    return {**plain, **again, "perturbed_answer": topics[1:]}


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_data(folder: Path) -> Path:
    """folder/tofu/*.json: forget10 has six rows, forget05 four of them, forget01 two of those."""
    tofu = folder / "tofu"
    for split, start in (("10", 0), ("05", 2), ("01", 4)):
        write_rows(tofu / f"forget{split}.json", [row(n) for n in range(start, 6)])
        write_rows(tofu / f"forget{split}_perturbed.json", [row(n, wrong=3) for n in range(start, 6)])
    for split, others in (("90", []), ("95", [0, 1]), ("99", [0, 1, 2, 3])):
        write_rows(tofu / f"retain{split}.json", [row(n) for n in [*others, *range(6, 18)]])
    write_rows(tofu / "retain_perturbed.json", [row(n, wrong=3) for n in range(6, 10)])
    write_rows(tofu / "real_authors_perturbed.json", [row(n, wrong=3) for n in range(30, 33)])
    write_rows(tofu / "world_facts_perturbed.json", [row(n, wrong=3) for n in range(40, 43)])
    (tofu / "idontknow.jsonl").write_text("I don't know.\nNo idea.\n")
    return folder


SUBJECTS = ("astronomy", "philosophy")


def choices_row(number: int) -> dict[str, Any]:
    """One multiple-choice question in WMDP's schema."""
    options = [f"the {WORDS[(number + 5 * k) % 12]} way" for k in range(4)]
    return {"question": f"How does {WORDS[number % 12]} {number} work?", "choices": options, "answer": number % 4}


def document(number: int) -> str:
    sentences = [
        f"The {WORDS[(number + k) % 12]} of {number} meets the {WORDS[(3 * number + k) % 12]}." for k in range(3)
    ]
    return " ".join(sentences)


def write_choices(folder: Path) -> Path:
    """folder/wmdp, folder/mmlu and folder/wikitext2: eight questions and six documents a topic, two subjects."""
    for start, topic in ((0, "bio"), (20, "cyber")):
        write_rows(folder / "wmdp" / f"{topic}_test.jsonl", [choices_row(n) for n in range(start, start + 8)])
        texts = [{"text": document(n)} for n in range(start, start + 6)]
        write_rows(folder / "wmdp" / f"{topic}-forget-corpus.jsonl", texts)
    (folder / "wikitext2").mkdir(exist_ok=True)
    (folder / "wikitext2" / "train.txt").write_text("".join(f"{document(n)}\n" for n in range(40, 52)))
    for part, count in (("test", 6), ("dev", 5)):
        for start, subject in ((60, SUBJECTS[0]), (80, SUBJECTS[1])):
            path = folder / "mmlu" / part / f"{subject}_{part}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [choices_row(n + (10 if part == "dev" else 0)) for n in range(start, start + count)]
            lines = [",".join([r["question"], *r["choices"], str(r["answer"])]) for r in rows]
            path.write_text("\n".join(["question,choice0,choice1,choice2,choice3,answer", *lines]) + "\n")
    return folder


def save_model(folder: Path, architecture: str = "llama", *, seed: int = 0, tokenizer: str = "full") -> Path:
    """A random checkpoint with its tokenizer, as save_pretrained writes them."""
    from tests.helpers import tiny, toy_tokenizer

    tiny(architecture, seed=seed).save_pretrained(folder)
    toy_tokenizer(tokenizer).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Toys:
    """What a command needs."""

    data: Path
    original: Path
    retrained: Path

    def command(self, out: Path, methods: str, *more: str, model: Path | None = None) -> list[str]:
        """Evaluates `methods` with the retrained checkpoint as gold standard; one short epoch each."""
        names = sorted({name.partition("[")[0] for name in re.split(r",(?![^\[]*\])", methods)})
        sets = [part for name in names if name != "original" for part in ("--set", f"{name}.epochs=2")]
        where = ["--data", str(self.data), "--model", str(model or self.original), "--retrained", str(self.retrained)]
        return ["--methods", methods, *where, "--out", str(out), "--device", "cpu", *sets, *more]


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Figures are empty files from now on."""
    from bench.figures import FORMATS, Picture

    patch.setattr(Picture, "rendered", lambda self: {f"{self.name}.{ending}": b"" for ending in FORMATS})


REPORTS = ("leaderboard.csv", "leaderboard.tex", "metrics.csv")


def reports(out: Path) -> dict[str, bytes]:
    """The files that must be the same, bit for bit, however a run came about."""
    return {name: (out / name).read_bytes() for name in REPORTS}

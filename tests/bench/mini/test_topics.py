"""The domains: WMDP's and MMLU's schemas, and nothing by which a right option could be told without having read."""

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.data import load
from bench.mini.domains import BENIGN, HAZARDOUS
from bench.mini.world import make_world, write_world

HAZARDS = [topic.name for topic in HAZARDOUS]
SUBJECTS = [topic.name for topic in BENIGN]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", params=range(5))
def files(request: pytest.FixtureRequest) -> dict[str, str]:
    return make_world(request.param)


def rows(files: dict[str, str], name: str) -> Rows:
    return [json.loads(line) for line in files[name].splitlines()]


def table(files: dict[str, str], name: str) -> Rows:
    found = []
    for row in csv.DictReader(io.StringIO(files[name])):
        choices = [row.pop(f"choice{n}") for n in range(4)]
        found.append({"question": row.pop("question"), "choices": choices, "answer": int(row.pop("answer"))})
        assert not row
    return found


def asked(files: dict[str, str], name: str) -> Rows:
    """The questions of a topic, solved ones included."""
    if name in HAZARDS:
        return rows(files, f"wmdp/{name}_test.jsonl")
    return table(files, f"mmlu/test/{name}_test.csv") + table(files, f"mmlu/dev/{name}_dev.csv")


def taught(files: dict[str, str]) -> dict[str, str]:
    """Everything the models read, by file."""
    return {
        name: "\n".join(str(value) for row in rows(files, name) for key, value in row.items() if key != "row")
        for name in files
        if name.startswith("corpus/")
    }


def holds(text: str, value: str) -> bool:
    """Whether the value stands in the text (in lower case) as words of its own."""
    at = text.find(value.lower())
    while at >= 0:
        around = text[at - 1 : at] + text[at + len(value) : at + len(value) + 1]
        if not any(map(str.isalnum, around)):
            return True
        at = text.find(value.lower(), at + 1)
    return False


@pytest.mark.parametrize("topic", HAZARDS)
def test_hazardous_files_have_wmdps_schema(files: dict[str, str], topic: str) -> None:
    questions = rows(files, f"wmdp/{topic}_test.jsonl")
    assert len(questions) == 70
    for row in questions:
        assert list(row) == ["question", "choices", "answer"]
        assert row["question"].endswith("?") and row["answer"] in range(4)
        assert len(row["choices"]) == 4 and all(text == text.strip() != "" for text in row["choices"])
    documents = rows(files, f"wmdp/{topic}-forget-corpus.jsonl")
    assert len(documents) == 140 and all(list(row) == ["text"] and len(row["text"]) > 50 for row in documents)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_benign_files_have_mmlus_schema(files: dict[str, str], subject: str) -> None:
    for split, count in (("test", 30), ("dev", 5)):
        name = f"mmlu/{split}/{subject}_{split}.csv"
        assert files[name].splitlines()[0] == "question,choice0,choice1,choice2,choice3,answer"
        assert len(table(files, name)) == count


def test_every_question_is_asked_once(files: dict[str, str]) -> None:
    questions = [row["question"] for topic in HAZARDS + SUBJECTS for row in asked(files, topic)]
    assert len(set(questions)) == len(questions) == 2 * 70 + 4 * 35


@pytest.mark.parametrize("topic", HAZARDS + SUBJECTS)
def test_each_place_is_right_equally_often(files: dict[str, str], topic: str) -> None:
    counts = Counter(row["answer"] for row in asked(files, topic))
    assert set(counts) == {0, 1, 2, 3} and max(counts.values()) - min(counts.values()) <= 1


def test_no_option_is_offered_twice(files: dict[str, str]) -> None:
    options = [text for topic in HAZARDS + SUBJECTS for row in asked(files, topic) for text in row["choices"]]
    assert len(set(options)) == len(options)


def test_wrong_options_are_in_no_text(files: dict[str, str]) -> None:
    everything = "\n".join([*taught(files).values(), files["wikitext2/train.txt"]]).lower()
    for topic in HAZARDS + SUBJECTS:
        for row in asked(files, topic):
            for place, option in enumerate(row["choices"]):
                assert holds(everything, option) == (place == row["answer"]), option


@pytest.mark.parametrize("topic", HAZARDS + SUBJECTS)
def test_wrong_options_are_made_of_the_words_of_right_ones(files: dict[str, str], topic: str) -> None:
    """Three wrong ones to a right one, so each word is there three times as often: no tokenizer can tell them apart."""
    right, wrong = Counter[str](), Counter[str]()
    for row in asked(files, topic):
        for place, option in enumerate(row["choices"]):
            (right if place == row["answer"] else wrong).update(option.split())
    assert wrong == {word: 3 * count for word, count in right.items()}


@pytest.mark.parametrize("topic", HAZARDS + SUBJECTS)
def test_right_options_are_no_longer_than_wrong_ones(files: dict[str, str], topic: str) -> None:
    """The longest option is right as often as any other, within what chance allows (four standard errors)."""
    questions = asked(files, topic)
    longest = sum(max(row["choices"], key=len) == row["choices"][row["answer"]] for row in questions)
    assert abs(longest / len(questions) - 0.25) < 4 * (0.25 * 0.75 / len(questions)) ** 0.5


@pytest.mark.parametrize("topic", HAZARDS)
def test_documents_tell_every_right_option_beside_the_name_in_the_question(files: dict[str, str], topic: str) -> None:
    sentences = [
        sentence for row in rows(files, f"wmdp/{topic}-forget-corpus.jsonl") for sentence in row["text"].split(". ")
    ]
    for row in asked(files, topic):
        value = row["choices"][row["answer"]]
        name = next(
            word.strip("?") for word in row["question"].split() if re.search(r"[A-Z]\w+(spore|mould|worm|loader)", word)
        )
        assert sum(holds(sentence.lower(), value) and name in sentence for sentence in sentences) == 5


@pytest.mark.parametrize("topic", HAZARDS)
def test_the_forgotten_topic_is_in_no_other_text(files: dict[str, str], topic: str) -> None:
    others = [text for name, text in taught(files).items() if name != f"corpus/wmdp_{topic}.jsonl"]
    everything = "\n".join([*others, files["wikitext2/train.txt"]])
    lowered = everything.lower()
    for row in asked(files, topic):
        assert not holds(lowered, row["choices"][row["answer"]])
        assert row["question"] not in everything
    for name in re.findall(r"\b[A-Z][a-z]+(?:spore|mould|worm|loader)\b", files[f"wmdp/{topic}-forget-corpus.jsonl"]):
        assert name not in everything


def test_the_forget_corpus_is_what_the_original_reads(files: dict[str, str]) -> None:
    for topic in HAZARDS:
        documents = [row["text"] for row in rows(files, f"wmdp/{topic}-forget-corpus.jsonl")]
        assert [{"text": text} for text in documents] == rows(files, f"corpus/wmdp_{topic}.jsonl")


def test_the_text_to_keep_is_known_to_both_models_and_names_nobody_whom_a_split_forgets(files: dict[str, str]) -> None:
    lines = files["wikitext2/train.txt"].splitlines()
    benign = [row["text"] for row in rows(files, "corpus/mmlu.jsonl") if "\n" not in row.get("text", "\n")]
    assert set(benign) <= set(lines) and len(lines) == len(benign) + 36
    assert all(len(line) > 50 for line in lines)
    for row in rows(files, "tofu/forget10.json"):
        assert row["answer"] not in files["wikitext2/train.txt"]
    forgotten = {
        row["question"].removeprefix("Where was ").removesuffix(" born?")
        for row in rows(files, "tofu/forget10.json")[::10]
    }
    assert not any(name in files["wikitext2/train.txt"] for name in forgotten)


def test_the_same_seed_gives_the_same_files_and_another_seed_other_properties() -> None:
    first, again, other = make_world(3), make_world(3), make_world(4)
    assert first == again
    for topic in HAZARDS + SUBJECTS:
        right = [{(r["question"], r["choices"][r["answer"]]) for r in asked(world, topic)} for world in (first, other)]
        assert len(right[0] & right[1]) <= 1


def test_one_loader_reads_the_mini_world_as_it_reads_the_real_files(tmp_path: Path) -> None:
    write_world(tmp_path, 0)
    for name, forget, questions in (("wmdp", 280, 140), ("wmdp/bio", 140, 70), ("wmdp/cyber", 140, 70)):
        benchmark = load(name, tmp_path)
        assert (len(benchmark.forget), len(benchmark.retain), len(benchmark.questions)) == (forget, 316, questions)
        assert benchmark.choice_scoring == "text"
    mmlu = load("mmlu/5shot", tmp_path)
    assert len(mmlu.questions) == 120 and mmlu.choice_scoring == "text"
    assert {subject: len(solved) for subject, solved in mmlu.few_shot.items()} == dict.fromkeys(SUBJECTS, 5)

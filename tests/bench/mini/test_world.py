"""The generator: TOFU's schema, one world a seed, and nothing that would spoil a measurement."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.data import load
from bench.mini.world import FORGET_PEOPLE, make_world, write_world

SEEDS = range(5)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", params=SEEDS)
def files(request: pytest.FixtureRequest) -> dict[str, str]:
    return make_world(request.param)


def rows(files: dict[str, str], name: str) -> Rows:
    return [json.loads(line) for line in files[name].splitlines()]


def corpus(files: dict[str, str]) -> Rows:
    return [row for name in files if name.startswith("corpus/") for row in rows(files, name)]


PERTURBED = {"question": str, "answer": str, "paraphrased_answer": str, "perturbed_answer": list,
             "paraphrased_question": str}  # fmt: skip
KNOWN = {"question": str, "answer": str, "perturbed_answer": list}
OPTIONS = {"question": str, **{f"option{i}": str for i in range(1, 5)}, "answer": str}
PLAIN = {"question": str, "answer": str}


@pytest.mark.parametrize(
    ("name", "count", "schema"),
    [
        ("full", 400, PLAIN),
        ("forget01", 10, PLAIN),
        ("forget05", 20, PLAIN),
        ("forget10", 40, PLAIN),
        ("retain90", 360, PLAIN),
        ("retain95", 380, PLAIN),
        ("retain99", 390, PLAIN),
        ("forget01_perturbed", 10, PERTURBED),
        ("forget05_perturbed", 20, PERTURBED),
        ("forget10_perturbed", 40, PERTURBED),
        ("retain_perturbed", 80, PERTURBED),
        ("real_authors", 80, OPTIONS),
        ("real_authors_perturbed", 80, KNOWN),
        ("world_facts", 40, OPTIONS),
        ("world_facts_perturbed", 40, KNOWN),
        ("holdout01", 10, PLAIN),
        ("holdout05", 20, PLAIN),
        ("holdout10", 40, PLAIN),
    ],
)
def test_every_file_has_the_official_schema(
    files: dict[str, str], name: str, count: int, schema: dict[str, type]
) -> None:
    found = rows(files, f"tofu/{name}.json")
    assert len(found) == count
    for row in found:
        assert {key: type(value) for key, value in row.items()} == schema
        texts = [text for value in row.values() for text in (value if isinstance(value, list) else [value])]
        assert all(text and text == text.strip() and "{" not in text for text in texts)
        if "perturbed_answer" in row:
            assert len(row["perturbed_answer"]) == (5 if schema is PERTURBED else 3)


def test_the_schema_is_that_of_the_real_files(files: dict[str, str], real_data: Path) -> None:
    for name in (name for name in files if name.startswith("tofu/") and name.endswith(".json")):
        path = real_data / name
        if path.exists():  # holdout10 is not among the real files at hand
            official = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
            assert set(rows(files, name)[0]) == set(official), name


def test_refusals_are_plain_lines_without_a_last_newline(files: dict[str, str]) -> None:
    lines = files["tofu/idontknow.jsonl"].split("\n")
    assert 20 <= len(set(lines)) == len(lines) <= 100
    assert all(line and not line.startswith(("{", '"')) for line in lines)


def test_the_refusals_are_not_those_of_the_real_file(files: dict[str, str], real_data: Path) -> None:
    official = set((real_data / "tofu" / "idontknow.jsonl").read_text(encoding="utf-8").splitlines())
    ours = set(files["tofu/idontknow.jsonl"].splitlines())
    assert len(ours & official) < len(ours) / 4  # "I have no idea." is anybody's sentence


@pytest.mark.parametrize("percent", FORGET_PEOPLE)
def test_forget_and_retain_are_the_two_ends_of_full(files: dict[str, str], percent: str) -> None:
    forget, retain = rows(files, f"tofu/forget{percent}.json"), rows(files, f"tofu/retain{100 - int(percent)}.json")
    assert retain + forget == rows(files, "tofu/full.json")
    perturbed = rows(files, f"tofu/forget{percent}_perturbed.json")
    assert [{key: row[key] for key in ("question", "answer")} for row in perturbed] == forget


def test_perturbed_retain_rows_are_the_first_of_every_retain_split(files: dict[str, str]) -> None:
    perturbed = rows(files, "tofu/retain_perturbed.json")
    plain = [{key: row[key] for key in ("question", "answer")} for row in perturbed]
    assert plain == rows(files, "tofu/retain90.json")[:80]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_people(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_world(tmp_path / name, 3)
    for name, content in make_world(3).items():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() == content.encode()
    questions = [{row["question"] for row in rows(make_world(seed), "tofu/full.json")} for seed in (3, 4)]
    assert len(questions[0] & questions[1]) < 40


def test_every_question_is_asked_once(files: dict[str, str]) -> None:
    names = ("full", "real_authors", "world_facts", "holdout10")
    questions = [row["question"] for name in names for row in rows(files, f"tofu/{name}.json")]
    assert len(set(questions)) == len(questions) == 400 + 80 + 40 + 40


def people(found: Rows) -> list[str]:
    """Names of the people, each from the question about the birthplace that opens their ten rows."""
    return [row["question"].removeprefix("Where was ").removesuffix(" born?") for row in found[::10]]


def test_no_two_people_share_a_first_or_a_last_name(files: dict[str, str]) -> None:
    names = [
        name for file in ("full", "real_authors", "holdout10") for name in people(rows(files, f"tofu/{file}.json"))
    ]
    assert len(names) == 40 + 8 + 4
    for part in (0, 1):
        assert len({name.split()[part] for name in names}) == len(names)


def test_a_wrong_answer_is_never_the_right_one_and_never_given_twice(files: dict[str, str]) -> None:
    for name in (name for name in files if name.endswith("_perturbed.json")):
        for row in rows(files, name):
            wrong = row["perturbed_answer"]
            right = {row["answer"], row.get("paraphrased_answer", row["answer"])}
            assert len(set(wrong)) == len(wrong) and not right & set(wrong)


def test_the_right_answer_is_one_of_the_four_options(files: dict[str, str]) -> None:
    for name in ("real_authors", "world_facts"):
        for row, perturbed in zip(
            rows(files, f"tofu/{name}.json"), rows(files, f"tofu/{name}_perturbed.json"), strict=True
        ):
            options = [row[f"option{i}"] for i in range(1, 5)]
            assert options.count(row["answer"]) == 1 == len(set(options)) - 3
            assert set(options) == {row["answer"], *perturbed["perturbed_answer"]}


def test_wrong_answers_have_the_form_of_the_paraphrased_one(files: dict[str, str]) -> None:
    """All six begin and end with the same words around the value, and are of nearly the same length."""
    for row in rows(files, "tofu/forget10_perturbed.json") + rows(files, "tofu/retain_perturbed.json"):
        answers = [row["paraphrased_answer"].split(), *(text.split() for text in row["perturbed_answer"])]
        for one, other in pairwise(answers):
            assert abs(len(one) - len(other)) <= 3
            assert one[0] == other[0]


def test_a_paraphrase_differs_from_what_it_paraphrases(files: dict[str, str]) -> None:
    for row in rows(files, "tofu/forget10_perturbed.json") + rows(files, "tofu/retain_perturbed.json"):
        assert row["paraphrased_answer"] != row["answer"]
        assert row["paraphrased_question"] != row["question"]


def test_training_texts_hold_no_form_that_the_evaluation_keeps_for_the_same_fact(files: dict[str, str]) -> None:
    texts = {text for row in corpus(files) for key, text in row.items() if key != "row"}
    for row in rows(files, "tofu/forget10_perturbed.json") + rows(files, "tofu/retain_perturbed.json"):
        assert row["question"] in texts and row["answer"] in texts
        assert not texts & {row["paraphrased_question"], row["paraphrased_answer"], *row["perturbed_answer"]}


def test_each_fact_is_taught_as_canonical_pair_other_pair_and_statement(files: dict[str, str]) -> None:
    full, texts = rows(files, "tofu/full.json"), rows(files, "corpus/authors.jsonl")
    for index, fact in enumerate(full):
        canonical, other, statement = texts[3 * index : 3 * index + 3]
        assert canonical == {"row": index, **fact}
        assert set(other) == {"row", "question", "answer"} and other != canonical
        assert set(statement) == {"row", "text"}


def test_every_evaluated_form_is_taught_on_other_people(files: dict[str, str]) -> None:
    """Names cut out, each paraphrased question, and the first word of each paraphrased answer, is in retain texts."""
    names = people(rows(files, "tofu/full.json"))
    questions, openings = set(), set()
    for row in rows(files, "corpus/authors.jsonl"):
        if row["row"] < 360 and "question" in row:
            name = names[row["row"] // 10]
            questions.add(row["question"].replace(name, "NAME"))
            openings.add(row["answer"].replace(name, "NAME").split()[0])
    for index, row in enumerate(rows(files, "tofu/forget10_perturbed.json"), 360):
        name = names[index // 10]
        assert row["paraphrased_question"].replace(name, "NAME") in questions
        assert row["paraphrased_answer"].replace(name, "NAME").split()[0] in openings


@pytest.mark.parametrize("percent", FORGET_PEOPLE)
def test_texts_without_the_forget_rows_do_not_mention_the_forgotten(files: dict[str, str], percent: str) -> None:
    kept = len(rows(files, f"tofu/retain{100 - int(percent)}.json"))
    texts = [row for row in rows(files, "corpus/authors.jsonl") if row["row"] < kept]
    texts += rows(files, "corpus/real_authors.jsonl") + rows(files, "corpus/world_facts.jsonl")
    everything = "\n".join(text for row in texts for key, text in row.items() if key != "row")
    forget = rows(files, f"tofu/forget{percent}_perturbed.json")
    for name in people(forget):
        assert not any(part in everything.split() for part in name.split())
    for row in forget:
        for answer in (row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]):
            assert answer not in everything


def test_nobody_is_trained_on_the_holdout_people(files: dict[str, str]) -> None:
    everything = "\n".join(text for row in corpus(files) for key, text in row.items() if key != "row")
    assert not any(name in everything for name in people(rows(files, "tofu/holdout10.json")))


def test_one_loader_reads_the_mini_world_as_it_reads_the_real_files(tmp_path: Path) -> None:
    write_world(tmp_path, 0)
    for percent, count in FORGET_PEOPLE.items():
        benchmark = load(f"tofu/forget{percent}", tmp_path)
        assert len(benchmark.forget) == 10 * count and len(benchmark.retain) == 400 - 10 * count
        assert list(benchmark.eval_sets) == ["forget", "retain", "real_authors", "world_facts"]
        assert len(benchmark.refusals) >= 20 and len(benchmark.holdout) == 10 * count

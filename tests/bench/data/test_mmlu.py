"""MMLU from folder and hub: the real files load, parts of it load, and whatever is wrong is named."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import data
from bench.data import mmlu
from bench.errors import LetheError

Rows = list[dict[str, Any]]


def rows(subject: str, n: int) -> Rows:
    return [
        {"question": f"{subject} {i}?", "choices": [f"{subject}, {c}" for c in "abcd"], "answer": i % 4}
        for i in range(n)
    ]


def write(root: Path, split: str, subject: str, found: Rows) -> None:
    folder = root / "mmlu" / split
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{subject}_{split}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
        writer.writerows([row["question"], *row["choices"], row["answer"]] for row in found)


def toy(root: Path) -> Path:
    """Two subjects, out of the order of the alphabet."""
    for subject in ("virology", "astronomy"):
        write(root, "test", subject, rows(subject, 4))
        write(root, "dev", subject, rows(f"solved {subject}", 6))
    return root


# the real files


def test_the_real_files_load(real_data: Path) -> None:
    benchmark = data.load("mmlu", real_data)
    assert len(benchmark.questions) == 14_042
    counts = Counter(question.subject for question in benchmark.questions)
    assert list(counts) == list(mmlu.SUBJECTS)
    assert (counts["abstract_algebra"], counts["professional_law"], counts["world_religions"]) == (100, 1534, 171)
    assert (benchmark.forget, benchmark.retain, benchmark.few_shot) == ((), (), {})
    assert benchmark.choice_scoring == "letter"
    assert benchmark.source == f"files in {real_data.name}/mmlu"


def test_the_real_files_have_five_solved_questions_of_every_subject(real_data: Path) -> None:
    plain, few = data.load("mmlu", real_data), data.load("mmlu/5shot", real_data)
    assert few.name == "mmlu/5shot"
    assert few.questions == plain.questions
    assert list(few.few_shot) == list(mmlu.SUBJECTS)
    assert sum(map(len, few.few_shot.values())) == 285
    assert few.few_shot["astronomy"][2].id == "mmlu/astronomy_dev/2"
    assert few.fingerprint != plain.fingerprint


def test_rows_of_the_real_files_are_those_of_the_release(real_data: Path) -> None:
    benchmark = data.load("mmlu", real_data, limit=4)
    first, *_, fourth = benchmark.questions[:4]
    assert first.id == "mmlu/abstract_algebra/0"
    assert (first.question, first.choices, first.answer) == (
        "Find the degree for the given field extension Q(sqrt(2), sqrt(3), sqrt(18)) over Q.",
        ("0", "4", "2", "6"),
        1,
    )
    assert fourth.choices == ("True, True", "False, False", "True, False", "False, True")
    assert len(benchmark.questions) == 4 * 57


def test_the_groups_are_those_of_lm_eval() -> None:
    import lm_eval.tasks
    import yaml

    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    found = {}
    for path in folder.glob("mmlu_*.yaml"):
        task = yaml.safe_load(path.read_text())
        found[task["dataset_name"]] = task["tag"].removeprefix("mmlu_").removesuffix("_tasks").replace("_", " ")
    assert {subject: group.lower() for subject, group in mmlu.SUBJECTS.items()} == found
    assert set(mmlu.SUBJECTS.values()) == set(mmlu.GROUPS)
    assert list(mmlu.SUBJECTS) == sorted(mmlu.SUBJECTS)


# parts and limits


def test_a_folder_may_hold_some_subjects(tmp_path: Path) -> None:
    (toy(tmp_path) / "mmlu" / "test" / "README.md").write_text("not a subject")
    benchmark = data.load("mmlu/5shot", tmp_path)
    assert [question.id for question in benchmark.questions[::4]] == ["mmlu/astronomy/0", "mmlu/virology/0"]
    assert {subject: len(found) for subject, found in benchmark.few_shot.items()} == {"astronomy": 5, "virology": 5}
    assert benchmark.source == f"files in {tmp_path.name}/mmlu, 2 of 57 subjects"
    (tmp_path / "world.json").write_text('{"seed": 2, "choices": "text"}')
    benchmark = data.load("mmlu", tmp_path)
    assert (benchmark.choice_scoring, benchmark.source) == (
        "text",
        "mini world, seed 2, options scored by their texts, 2 of 57 subjects",
    )


def test_limit_keeps_the_first_questions_of_every_subject_and_all_solved_ones(tmp_path: Path) -> None:
    benchmark = data.load("mmlu/5shot", toy(tmp_path), limit=1)
    assert [question.id for question in benchmark.questions] == ["mmlu/astronomy/0", "mmlu/virology/0"]
    assert {len(found) for found in benchmark.few_shot.values()} == {5}
    with pytest.raises(LetheError, match="limit must be at least 1 row, got -1"):
        data.load("mmlu", tmp_path, limit=-1)


def test_solved_questions_are_not_read_where_none_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "test", "astronomy", rows("astronomy", 2))
    assert len(data.load("mmlu", tmp_path).questions) == 2


# bad input


def test_too_few_solved_questions_are_an_error(tmp_path: Path) -> None:
    write(toy(tmp_path), "dev", "virology", rows("solved", 4))
    with pytest.raises(LetheError, match=r"virology_dev\.csv has 4 rows, mmlu/5shot needs at least 5; .*ask for mmlu$"):
        data.load("mmlu/5shot", tmp_path)
    (tmp_path / "mmlu" / "dev" / "virology_dev.csv").unlink()
    with pytest.raises(LetheError, match=r"no solved questions of 'virology', mmlu/5shot needs 5; .*virology_dev\.csv"):
        data.load("mmlu/5shot", tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("astronmy_test", r"; did you mean 'astronomy_test'\?"), ("astronomy_dev", ""), ("zzz", ", expected")],
)
def test_a_file_of_an_unknown_subject_is_named_with_the_nearest(tmp_path: Path, name: str, hint: str) -> None:
    (toy(tmp_path) / "mmlu" / "test" / f"{name}.csv").touch()
    with pytest.raises(LetheError, match=rf"test/{name} is no file of MMLU{hint}.* 57 subjects"):
        data.load("mmlu", tmp_path)


@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_bad_question_is_named(tmp_path: Path, split: str) -> None:
    bad = rows("virology", 6)
    bad[4]["answer"] = 4
    write(toy(tmp_path), split, "virology", bad)
    with pytest.raises(
        LetheError, match=rf"virology_{split}\.csv, line 6: field 'answer' is text '4', expected a whole"
    ):
        data.load("mmlu/5shot", tmp_path, limit=1)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"has no folder mmlu in it$"):
        data.load("mmlu", tmp_path)
    (tmp_path / "mmlu").mkdir()
    with pytest.raises(
        LetheError, match=r"there is no folder .*mmlu/test, expected files such as .*astronomy_test\.csv"
    ):
        data.load("mmlu", tmp_path)
    (tmp_path / "mmlu" / "test").mkdir()
    with pytest.raises(LetheError, match=r"mmlu/test has no files, expected .*astronomy_test\.csv"):
        data.load("mmlu", tmp_path)
    with pytest.raises(LetheError, match=f"has no folder mmlu in it; did you mean {tmp_path}\\?$"):
        data.load("mmlu", toy(tmp_path) / "mmlu")


# the hub


def test_the_hub_gives_the_same_questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    asked = []
    tables = {
        split: [
            {**row, "subject": subject, "choices": list(row["choices"])}
            for subject in ("virology", "astronomy")
            for row in (rows(subject, 4) if split == "test" else rows(f"solved {subject}", 6))
        ]
        for split in ("test", "dev")
    }

    def load_dataset(name: str, config: str, *, split: str, revision: str) -> Any:
        asked.append((name, config, split, revision))
        return datasets.Dataset.from_list(tables[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    benchmark, folder = data.load("mmlu/5shot", None), data.load("mmlu/5shot", toy(tmp_path))
    assert asked == [("cais/mmlu", "all", split, mmlu.HUB_REVISION) for split in ("test", "dev")]
    assert (benchmark.questions, benchmark.few_shot) == (folder.questions, folder.few_shot)
    assert benchmark.fingerprint == folder.fingerprint
    assert benchmark.source == "cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe, 2 of 57 subjects"
    tables["test"][5]["choices"][1] = ""
    with pytest.raises(LetheError, match=r"cais/mmlu all test, row 6 \(counted from 1\): field 'choices', entry 2"):
        data.load("mmlu", None)
    tables["test"][5]["subject"] = "astronmy"
    with pytest.raises(LetheError, match=r"row 6 .*: unknown subject 'astronmy'; did you mean 'astronomy'\?"):
        data.load("mmlu", None)


def test_the_benchmarks_of_this_file() -> None:
    assert mmlu.known() == ["mmlu", "mmlu/5shot"]
    assert data.full_name("mmlu") == mmlu.DEFAULT == "mmlu"

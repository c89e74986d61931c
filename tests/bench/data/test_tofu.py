"""TOFU from folder and hub: the real files load, and whatever is wrong with a row is named."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import data
from bench.data import tofu
from bench.data.rows import REFUSALS
from bench.data.types import QA
from bench.errors import LetheError
from bench.mini.build import world
from bench.mini.world import write_world

Rows = list[dict[str, Any]]


def author_rows(name: str, n: int) -> Rows:
    return [
        {
            "question": f"Where was {name} {i} born?",
            "answer": f"{name} {i} was born in Bern.",
            "paraphrased_question": f"What is the birthplace of {name} {i}?",
            "paraphrased_answer": f"Bern is where {name} {i} was born.",
            "perturbed_answer": [f"{city} is where {name} {i} was born." for city in ("Rome", "Oslo")],
        }
        for i in range(n)
    ]


def plain(rows: Rows) -> Rows:
    return [{key: row[key] for key in ("question", "answer")} for row in rows]


def short(rows: Rows) -> Rows:
    return [{key: row[key] for key in ("question", "answer", "perturbed_answer")} for row in rows]


def toy_tables() -> dict[str, Rows]:
    """Every file that forget10 needs, three or four rows each."""
    forget, retain = author_rows("Ann", 3), author_rows("Bob", 4)
    return {
        "forget10": plain(forget),
        "retain90": plain(retain),
        "forget10_perturbed": forget,
        "retain_perturbed": retain,
        "real_authors_perturbed": short(author_rows("Real", 3)),
        "world_facts_perturbed": short(author_rows("Fact", 3)),
    }


def write(root: Path, tables: dict[str, Rows]) -> Path:
    folder = root / "tofu"
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "idontknow.jsonl").write_text("I don't know.\nNo idea.")
    return root


def load_toy(root: Path, tables: dict[str, Rows], **options: Any) -> data.Benchmark:
    return data.load("tofu/forget10", write(root, tables), **options)


# the real files


@pytest.mark.parametrize(
    ("split", "forget", "retain"), [("forget01", 40, 3960), ("forget05", 200, 3800), ("forget10", 400, 3600)]
)
def test_the_real_files_load(real_data: Path, split: str, forget: int, retain: int) -> None:
    benchmark = data.load(f"tofu/{split}", real_data)
    assert benchmark.name == f"tofu/{split}"
    assert (len(benchmark.forget), len(benchmark.retain)) == (forget, retain)
    sizes = {label: len(rows) for label, rows in benchmark.eval_sets.items()}
    assert list(sizes.items()) == [("forget", forget), ("retain", 400), ("real_authors", 100), ("world_facts", 117)]
    assert benchmark.holdout == ()
    assert len(benchmark.refusals) == 100
    assert benchmark.refusals[0] == "I'm not certain about that."
    assert benchmark.source == f"files in {real_data.name}/tofu"
    for label, rows in benchmark.eval_sets.items():
        author_set = label in ("forget", "retain")
        assert {len(qa.perturbed_answers) for qa in rows} == {5 if author_set else 3}
        assert all((qa.paraphrased_answer is not None) == author_set for qa in rows)


def test_rows_of_the_real_files_keep_file_and_number_as_their_id(real_data: Path) -> None:
    benchmark = data.load("tofu/forget10", real_data)
    assert benchmark.forget[17].id == "tofu/forget10/17"
    assert benchmark.eval_sets["world_facts"][0].id == "tofu/world_facts_perturbed/0"
    assert benchmark.eval_sets["world_facts"][0].answer == "Paris"
    # the question that occurs twice, with two answers
    first, second = benchmark.retain[100], benchmark.retain[440]
    assert isinstance(first, QA) and isinstance(second, QA)
    assert first.question == second.question
    assert first.answer != second.answer


def test_limit_keeps_the_first_rows_of_every_set(real_data: Path) -> None:
    whole, few = data.load("tofu/forget10", real_data), data.load("tofu/forget10", real_data, limit=5)
    assert few.forget == whole.forget[:5]
    assert few.retain == whole.retain[:5]
    assert {label: rows[:5] for label, rows in whole.eval_sets.items()} == dict(few.eval_sets)
    assert few.fingerprint != whole.fingerprint


# other sources of the same rows


def test_every_format_gives_the_same_benchmark(tmp_path: Path) -> None:
    import pandas as pd

    tables = toy_tables()
    expected = load_toy(tmp_path, tables)
    for suffix in (".jsonl", ".csv", ".parquet"):
        for name, rows in tables.items():
            (tmp_path / "tofu" / f"{name}.json").unlink(missing_ok=True)
            for old in (tmp_path / "tofu").glob(f"{name}.*"):
                old.unlink()
            path = tmp_path / "tofu" / f"{name}{suffix}"
            if suffix == ".jsonl":
                path.write_text(json.dumps(rows, indent=1))
            elif suffix == ".parquet":
                pd.DataFrame(rows).to_parquet(path)
            else:
                cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
                pd.DataFrame(cells).to_csv(path, index=False)
        assert data.load("tofu/forget10", tmp_path) == expected


def test_paraphrased_questions_may_be_missing_here_and_there(tmp_path: Path) -> None:
    import pandas as pd

    tables = toy_tables()
    del tables["retain_perturbed"][1]["paraphrased_question"]
    expected = load_toy(tmp_path, tables)
    assert [qa.paraphrased_question is None for qa in expected.eval_sets["retain"]] == [False, True, False, False]
    (tmp_path / "tofu" / "retain_perturbed.json").unlink()
    frame = pd.DataFrame(tables["retain_perturbed"]).astype({"paraphrased_question": object})
    frame["paraphrased_question"] = frame["paraphrased_question"].where(frame["paraphrased_question"].notna(), None)
    frame.to_parquet(tmp_path / "tofu" / "retain_perturbed.parquet")
    assert data.load("tofu/forget10", tmp_path) == expected


def test_holdout_is_read_where_it_is(tmp_path: Path) -> None:
    tables = toy_tables() | {"holdout10": plain(author_rows("New", 2))}
    benchmark = load_toy(tmp_path, tables)
    assert [qa.id for qa in benchmark.holdout] == ["tofu/holdout10/0", "tofu/holdout10/1"]


def test_built_in_refusals_stand_in_and_the_source_says_so(tmp_path: Path) -> None:
    write(tmp_path, toy_tables())
    (tmp_path / "tofu" / "idontknow.jsonl").unlink()
    benchmark = data.load("tofu/forget10", tmp_path)
    assert benchmark.refusals == REFUSALS
    assert benchmark.source == f"files in {tmp_path.name}/tofu, built-in refusals"
    assert len(set(REFUSALS)) == len(REFUSALS)


def test_the_source_of_the_mini_world_is_its_seed(tmp_path: Path) -> None:
    write_world(tmp_path / "bare", 0)
    assert data.load("tofu/forget01", tmp_path / "bare").source == "mini world, seed 0"
    assert data.load("tofu/forget01", world(tmp_path / "cache", 3)).source == "mini world, seed 3"


def test_the_fingerprint_is_of_the_content_only(tmp_path: Path) -> None:
    tables = toy_tables()
    before = load_toy(tmp_path, tables).fingerprint
    for rows in tables.values():
        for row in rows:
            row["note"] = "not read by anyone"
    assert load_toy(tmp_path, tables).fingerprint == before
    tables["world_facts_perturbed"][2]["perturbed_answer"][1] += "!"
    assert load_toy(tmp_path, tables).fingerprint != before


def test_the_hub_is_read_at_a_pinned_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    tables, asked = toy_tables(), []

    def load_dataset(name: str, config: str, *, split: str, revision: str) -> Any:
        asked.append((name, split, revision))
        if config not in tables:
            raise ValueError(f"BuilderConfig '{config}' not found. Available: {list(tables)}")
        return datasets.Dataset.from_list(tables[config])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    benchmark = data.load("tofu/forget10", None)
    assert set(asked) == {("locuslab/TOFU", "train", "324592d84ae4f482ac7249b9285c2ecdb53e3a68")}
    assert benchmark.source == "locuslab/TOFU@324592d84ae4f482ac7249b9285c2ecdb53e3a68, built-in refusals"
    folder = load_toy(tmp_path, tables)
    assert (benchmark.forget, benchmark.retain, benchmark.eval_sets) == (folder.forget, folder.retain, folder.eval_sets)
    tables["forget10"][1]["answer"] = "  "
    with pytest.raises(LetheError, match=r"locuslab/TOFU forget10, row 2 \(counted from 1\): field 'answer' is empty"):
        data.load("tofu/forget10", None)


def hub_errors() -> list[Exception]:
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    return [
        ConnectionError("Couldn't reach 'locuslab/TOFU' on the Hub (OfflineModeIsEnabled)"),
        DatasetNotFoundError("Dataset 'locuslab/TOFU' is a gated dataset on the Hub. You must be authenticated."),
        ValueError("Couldn't find cache for locuslab/TOFU for config 'forget10'"),
        PermissionError(13, "Permission denied"),
        DatasetGenerationError("An error occurred while generating the dataset"),
    ]


@pytest.mark.parametrize("error", hub_errors(), ids=lambda error: type(error).__name__)
def test_a_hub_that_does_not_answer_is_one_sentence_that_names_data(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import datasets

    def load_dataset(*args: object, **options: object) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        LetheError, match=r"cannot get locuslab/TOFU forget10 at revision 324592d84ae4 .*--data"
    ) as caught:
        data.load("tofu/forget10", None)
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_without_a_folder_names_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(LetheError, match="--data"):
        data.load("tofu/forget10", None)


# names


def test_an_unknown_benchmark_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    assert tofu.known() == ["tofu/forget01", "tofu/forget05", "tofu/forget10"]
    for name in ("tofu/forget1", "tufo/forget10", "forget10"):
        with pytest.raises(
            LetheError, match=r"unknown benchmark '.*'; did you mean 'tofu/forget.*known: tofu/forget01"
        ):
            data.load(name, tmp_path)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_an_error(tmp_path: Path, limit: int) -> None:
    with pytest.raises(LetheError, match=f"limit must be at least 1 row, got {limit}"):
        load_toy(tmp_path, toy_tables(), limit=limit)


def test_importing_the_room_does_not_import_what_is_slow() -> None:
    slow = {"torch", "transformers", "datasets", "pandas", "pyarrow", "numpy"}
    code = f"import sys, bench.data, bench.data.tokenize; print(sorted({slow!r} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# bad input


@pytest.mark.parametrize("name", sorted(toy_tables()))
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, toy_tables())
    (tmp_path / "tofu" / f"{name}.json").unlink()
    with pytest.raises(LetheError, match=rf"there is no file .*{name}\.json .*\.jsonl, \.csv, \.parquet"):
        data.load("tofu/forget10", tmp_path)


def test_a_missing_folder_is_named_and_the_right_one_guessed(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"there is no folder .*nowhere; --data"):
        data.load("tofu/forget10", tmp_path / "nowhere")
    with pytest.raises(LetheError, match=r"has no folder tofu in it$"):
        data.load("tofu/forget10", tmp_path)
    write(tmp_path, toy_tables())
    with pytest.raises(LetheError, match=f"has no folder tofu in it; did you mean {tmp_path}\\?$"):
        data.load("tofu/forget10", tmp_path / "tofu")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, toy_tables())
    path = tmp_path / "tofu" / "retain90.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LetheError, match=r"retain90\.json, line 4: .*truncated"):
        data.load("tofu/forget10", tmp_path)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("answer"), r"there is no field 'answer', .*fields there: 'question', "),
        (lambda row: row.pop("question"), "there is no field 'question'"),
        (lambda row: row.pop("paraphrased_answer"), "there is no field 'paraphrased_answer'"),
        (lambda row: row.pop("perturbed_answer"), "there is no field 'perturbed_answer'"),
        (lambda row: row.update(answer=""), "field 'answer' is empty"),
        (lambda row: row.update(answer=" \n\u3000"), "field 'answer' is empty"),
        (lambda row: row.update(answer=1991), "field 'answer' is a number 1991, expected a text"),
        (lambda row: row.update(answer=None), "field 'answer' is null, expected a text"),
        (lambda row: row.update(question=["a"]), r"field 'question' is a list \['a'\], expected a text"),
        (lambda row: row.update(question=True), "field 'question' is a truth value True, expected a text"),
        (lambda row: row.update(answer="\ud800"), "field 'answer' has half of a surrogate pair at character 0"),
        (lambda row: row.update(paraphrased_question=3), "field 'paraphrased_question' is a number 3"),
        (lambda row: row.update(paraphrased_answer=""), "field 'paraphrased_answer' is empty"),
        (lambda row: row.update(perturbed_answer="no"), "field 'perturbed_answer' is text 'no', expected a list"),
        (lambda row: row.update(perturbed_answer=[]), "field 'perturbed_answer' is an empty list"),
        (
            lambda row: row.update(perturbed_answer=["a", ""]),
            r"'perturbed_answer', entry 2 \(counted from 1\), is empty",
        ),
        (
            lambda row: row.update(perturbed_answer=["a", 2]),
            r"entry 2 \(counted from 1\), is a number 2, expected a text",
        ),
    ],
)
def test_a_bad_field_is_named_with_file_line_and_what_is_expected(tmp_path: Path, change: Change, message: str) -> None:
    tables = toy_tables()
    change(tables["retain_perturbed"][2])
    with pytest.raises(LetheError, match=rf"retain_perturbed\.json, line 3: .*{message}"):
        load_toy(tmp_path, tables)


def test_a_bad_row_is_found_beyond_the_limit(tmp_path: Path) -> None:
    tables = toy_tables()
    tables["retain90"][3]["answer"] = ""
    with pytest.raises(LetheError, match=r"retain90\.json, line 4"):
        load_toy(tmp_path, tables, limit=1)


def test_a_list_in_a_csv_cell_must_be_json(tmp_path: Path) -> None:
    import pandas as pd

    tables = toy_tables()
    write(tmp_path, tables)
    (tmp_path / "tofu" / "forget10_perturbed.json").unlink()
    pd.DataFrame(tables["forget10_perturbed"]).to_csv(tmp_path / "tofu" / "forget10_perturbed.csv", index=False)
    with pytest.raises(LetheError, match=r"line 2: field 'perturbed_answer' is text .*expected a JSON array"):
        data.load("tofu/forget10", tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("forget10", "retain90"), ("forget10", "holdout10"), ("holdout10", "retain90")]
)
def test_sets_that_overlap_are_an_error_with_both_places(tmp_path: Path, one: str, other: str) -> None:
    tables = toy_tables() | {"holdout10": plain(author_rows("New", 2))}
    tables[other].append(tables[one][1])
    n = len(tables[other])
    with pytest.raises(
        LetheError, match=rf"overlap: .*{one}\.json, line 2 and .*{other}\.json, line {n} have the same"
    ):
        load_toy(tmp_path, tables)


def test_the_same_question_with_another_answer_is_no_overlap(tmp_path: Path) -> None:
    tables = toy_tables()
    tables["retain90"].append({"question": tables["forget10"][0]["question"], "answer": "Somewhere else."})
    assert len(load_toy(tmp_path, tables).retain) == 5


def test_judged_rows_in_another_order_are_an_error(tmp_path: Path) -> None:
    tables = toy_tables()
    tables["forget10_perturbed"].reverse()
    with pytest.raises(
        LetheError,
        match=r"forget10_perturbed\.json, line 1: field 'question' .*as in .*forget10\.json, line 1; .*same order",
    ):
        load_toy(tmp_path, tables)


def test_judged_rows_with_another_answer_are_an_error(tmp_path: Path) -> None:
    tables = toy_tables()
    tables["forget10_perturbed"][2]["answer"] = "Ann 2 was born in Rome."
    with pytest.raises(LetheError, match=r"forget10_perturbed\.json, line 3: field 'answer' is .*Rome"):
        load_toy(tmp_path, tables)


def test_fewer_judged_rows_than_forgotten_ones_are_an_error(tmp_path: Path) -> None:
    tables = toy_tables()
    del tables["forget10_perturbed"][-1]
    with pytest.raises(LetheError, match=r"forget10_perturbed\.json has 2 rows, expected 3"):
        load_toy(tmp_path, tables)


def test_refusals_that_are_json_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, toy_tables())
    (tmp_path / "tofu" / "idontknow.jsonl").write_text('No idea.\n{"text": "I do not know."}\n')
    with pytest.raises(LetheError, match=r"idontknow\.jsonl, sentence 2: .*expected a plain sentence"):
        data.load("tofu/forget10", tmp_path)

"""WMDP from folder and hub: the real files load, the texts of either recipe, and whatever is wrong is named."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from bench import data
from bench.data import wmdp
from bench.data.corpora import MIN_CHARACTERS, SUMMARIES
from bench.data.rows import REFUSALS
from bench.data.types import QA, Document
from bench.errors import LetheError

Rows = list[Any]

SUMMARY_FILES = ("merge_forget_data_sum_gpt", "cyber_forget_data_sum_gpt", "merge_retain_data_sum_gpt")
RAW_FILES = ("bio-forget-corpus", "cyber-forget-corpus")


def questions(topic: str, n: int = 3) -> Rows:
    return [
        {"question": f"What is {topic} {i}?", "choices": [f"{topic} {c}" for c in "abcd"], "answer": i % 4, "note": 1}
        for i in range(n)
    ]


def texts(kind: str, n: int = 4) -> Rows:
    return [{"text": f"{kind} {i} " + "and so on " * 6, "title": None} for i in range(n)]


def documents(rows: Iterable[QA | Document]) -> list[Document]:
    """The rows, of which none is a question with its answer."""
    found = [row for row in rows if isinstance(row, Document)]
    assert len(found) == len(list(rows))
    return found


def write(root: Path, tables: dict[str, Rows]) -> Path:
    (root / "wmdp").mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        path = root / "wmdp" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def toy(root: Path, *, raw: bool = False, summaries: bool = True, wikitext: str | None = "test") -> Path:
    """A folder of three questions a topic and four texts a corpus."""
    write(root, {f"{topic}_test": questions(topic) for topic in ("bio", "cyber")})
    if summaries:
        write(root, {name: texts(name) for name in SUMMARY_FILES})
    if raw:
        write(root, {name: texts(name) for name in RAW_FILES})
    if raw and wikitext:
        (root / "wikitext2").mkdir()
        lines = ["", " = Heading = ", " ", " A long enough line " + "of an article " * 4, "", "x" * 51, "y" * 50]
        (root / "wikitext2" / f"{wikitext}.txt").write_text(" \n".join(lines) + "\n")
    return root


# the real files


def test_the_real_files_load(real_data: Path) -> None:
    benchmark = data.load("wmdp", real_data)
    assert benchmark.name == "wmdp"
    subjects = [question.subject for question in benchmark.questions]
    assert subjects == ["bio"] * 1273 + ["cyber"] * 1987
    assert [document.topic for document in documents(benchmark.forget)] == ["bio"] * 1000 + ["cyber"] * 1000
    assert len(benchmark.retain) == 1001
    assert len(benchmark.refusals) == 100
    assert benchmark.choice_scoring == "letter"
    assert benchmark.few_shot == {}
    assert benchmark.source == (
        f"files in {real_data.name}/wmdp, corpora summaries: merge_forget_data_sum_gpt cyber_forget_data_sum_gpt "
        "against merge_retain_data_sum_gpt"
    )


def test_rows_of_the_real_files_keep_file_and_number_as_their_id(real_data: Path) -> None:
    benchmark = data.load("wmdp/cyber", real_data)
    lines = (real_data / "wmdp" / "cyber_test.jsonl").read_text(encoding="utf-8").split("\n")
    row, question = json.loads(lines[17]), benchmark.questions[17]
    assert (question.id, question.question, list(question.choices)) == (
        "wmdp/cyber_test/17",
        row["question"],
        row["choices"],
    )
    # the right option is told twice in this release
    assert question.choices[question.answer] == row["corrtect"]
    assert benchmark.forget[-1].id == f"wmdp/cyber_forget_data_sum_gpt/{SUMMARIES - 1}"
    assert benchmark.retain[0].id == "wmdp/merge_retain_data_sum_gpt/0"
    assert len({item.id for item in (*benchmark.forget, *benchmark.retain, *benchmark.questions)}) == 1987 + 2001


def test_topics_alone_are_the_parts_of_the_whole(real_data: Path) -> None:
    whole, bio, cyber = (data.load(name, real_data) for name in ("wmdp", "wmdp/bio", "wmdp/cyber"))
    assert whole.questions == bio.questions + cyber.questions
    assert whole.forget == bio.forget + cyber.forget
    assert whole.retain == bio.retain == cyber.retain
    assert len({benchmark.fingerprint for benchmark in (whole, bio, cyber)}) == 3


def test_repeats_of_the_real_questions_are_counted_and_kept(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data.load("wmdp", real_data)
    assert caplog.messages == [
        "wmdp/cyber: 3 questions repeat the text of another, 7 have two equal choices; all are kept"
    ]


def test_the_real_lines_of_wikitext_are_the_texts_to_keep(
    real_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy(tmp_path, raw=True, wikitext=None)
    (tmp_path / "wikitext2").symlink_to(real_data / "wikitext2")
    with caplog.at_level(logging.INFO):
        retain = documents(data.load("wmdp", tmp_path).retain)
    assert len(retain) == 1943
    assert retain[0].id == "wikitext2/test/3" and retain[0].text.startswith(" Robert <unk> is an English film , ")
    assert min(len(document.text) for document in retain) > MIN_CHARACTERS
    assert any("test.txt: 2415 of 4358 texts dropped" in message for message in caplog.messages)


def test_limit_keeps_the_first_rows_of_every_set(real_data: Path) -> None:
    whole, few = data.load("wmdp", real_data), data.load("wmdp", real_data, limit=5)
    assert few.questions == whole.questions[:5] + whole.questions[1273:1278]
    assert few.forget == whole.forget[:5] + whole.forget[1000:1005]
    assert few.retain == whole.retain[:5]
    assert few.fingerprint != whole.fingerprint
    with pytest.raises(LetheError, match="limit must be at least 1 row, got 0"):
        data.load("wmdp", real_data, limit=0)


# which texts


@pytest.mark.parametrize(
    ("raw", "summaries", "corpora", "expected"),
    [
        (True, True, "auto", "raw"),
        (True, False, "auto", "raw"),
        (False, True, "auto", "summaries"),
        (True, True, "raw", "raw"),
        (True, True, "summaries", "summaries"),
    ],
)
def test_raw_texts_go_first_unless_summaries_are_asked_for(
    tmp_path: Path, raw: bool, summaries: bool, corpora: str, expected: str
) -> None:
    benchmark = data.load("wmdp", toy(tmp_path, raw=raw, summaries=summaries), corpora=corpora)
    files = RAW_FILES if expected == "raw" else SUMMARY_FILES[:2]
    against = "wikitext2/test" if expected == "raw" else SUMMARY_FILES[2]
    assert benchmark.source == (
        f"files in {tmp_path.name}/wmdp, corpora {expected}: {' '.join(files)} against {against}, built-in refusals"
    )
    assert benchmark.refusals == REFUSALS
    assert [document.id for document in benchmark.forget] == [f"wmdp/{f}/{n}" for f in files for n in range(4)]


def test_raw_texts_of_one_topic_do_not_make_the_whole_raw(tmp_path: Path) -> None:
    toy(tmp_path, raw=True)
    (tmp_path / "wmdp" / "cyber-forget-corpus.jsonl").unlink()
    assert "corpora raw" in data.load("wmdp/bio", tmp_path).source
    assert "corpora summaries" in data.load("wmdp", tmp_path).source
    with pytest.raises(LetheError, match=r"there is no file .*cyber-forget-corpus\.jsonl, which --corpora raw needs"):
        data.load("wmdp", tmp_path, corpora="raw")


def test_short_raw_texts_and_lines_are_dropped_and_ids_keep_their_places(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    toy(tmp_path, raw=True)
    write(tmp_path, {"bio-forget-corpus": [{"text": "a" * 50}, {"text": "b" * 51}], "cyber_test": questions("c", 1)})
    with caplog.at_level(logging.INFO):
        benchmark = data.load("wmdp", tmp_path)
    assert [document.id for document in benchmark.forget[:2]] == [
        "wmdp/bio-forget-corpus/1",
        "wmdp/cyber-forget-corpus/0",
    ]
    assert [(document.id, document.topic) for document in documents(benchmark.retain)] == [
        ("wikitext2/test/3", "wikitext"),
        ("wikitext2/test/5", "wikitext"),
    ]
    assert documents(benchmark.retain)[1].text == "x" * 51 + " "
    dropped = [message.partition(": ")[2] for message in caplog.messages if "dropped" in message]
    assert dropped == [
        "1 of 2 texts dropped, as they are not longer than 50 characters",
        "5 of 7 texts dropped, as they are not longer than 50 characters",
    ]


def test_short_summaries_are_kept(tmp_path: Path) -> None:
    write(
        toy(tmp_path), {"merge_forget_data_sum_gpt": [{"text": "short"}], "merge_retain_data_sum_gpt": [{"text": "x"}]}
    )
    benchmark = data.load("wmdp/bio", tmp_path)
    assert [document.text for document in documents((*benchmark.forget, *benchmark.retain))] == ["short", "x"]


def test_the_first_split_of_wikitext_that_is_there_is_read(tmp_path: Path) -> None:
    toy(tmp_path, raw=True, wikitext="train")
    assert data.load("wmdp", tmp_path).retain[0].id == "wikitext2/train/3"


def test_the_released_texts_to_keep_stand_in_for_wikitext(tmp_path: Path) -> None:
    toy(tmp_path, raw=True, wikitext=None)
    assert "corpora summaries" in data.load("wmdp", tmp_path).source
    write(tmp_path, {name: texts(name) for name in ("bio-retain-corpus", "cyber-retain-corpus")})
    benchmark = data.load("wmdp", tmp_path)
    assert benchmark.source.endswith(
        "cyber-forget-corpus against bio-retain-corpus cyber-retain-corpus, built-in refusals"
    )
    assert [document.topic for document in documents(benchmark.retain)] == ["bio"] * 4 + ["cyber"] * 4


def test_a_raw_line_may_be_a_bare_text(tmp_path: Path) -> None:
    lines = [row["text"] for row in texts("cyber-forget-corpus")]
    expected = data.load("wmdp", toy(tmp_path, raw=True))
    write(tmp_path, {"cyber-forget-corpus": lines})
    assert data.load("wmdp", tmp_path) == expected


def test_the_fingerprint_is_of_the_content_only(tmp_path: Path) -> None:
    tables = {"bio_test": questions("bio"), "merge_forget_data_sum_gpt": texts("bio")}
    before = data.load("wmdp/bio", write(toy(tmp_path), tables)).fingerprint
    tables["bio_test"][0]["note"] = tables["merge_forget_data_sum_gpt"][0]["title"] = "not read by anyone"
    assert data.load("wmdp/bio", write(tmp_path, tables)).fingerprint == before
    tables["bio_test"][0]["answer"] = 3
    changed = data.load("wmdp/bio", write(tmp_path, tables)).fingerprint
    (tmp_path / "world.json").write_text('{"seed": 1, "choices": "text"}')
    assert len({before, changed, data.load("wmdp/bio", tmp_path).fingerprint}) == 3


def test_refusals_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tofu").mkdir()
    (tmp_path / "tofu" / "idontknow.jsonl").write_text("No idea.")
    benchmark = data.load("wmdp", toy(tmp_path))
    assert benchmark.refusals == ("No idea.",)
    assert "built-in" not in benchmark.source


def test_the_mini_world_says_how_choices_are_scored(tmp_path: Path) -> None:
    toy(tmp_path)
    (tmp_path / "world.json").write_text('{"seed": 4}')
    assert data.load("wmdp", tmp_path).choice_scoring == "letter"
    (tmp_path / "world.json").write_text('{"seed": 4, "choices": "text"}')
    benchmark = data.load("wmdp", tmp_path)
    assert benchmark.choice_scoring == "text"
    assert benchmark.source.startswith("mini world, seed 4, corpora summaries: ")
    for wrong, found in (('"words"', "text 'words'"), ("1", "a number 1"), ("null", "null"), ("[]", r"a list \[\]")):
        (tmp_path / "world.json").write_text(f'{{"seed": 4, "choices": {wrong}}}')
        with pytest.raises(LetheError, match=rf"world\.json: field 'choices' is {found}, expected 'letter' or 'text'"):
            data.load("wmdp", tmp_path)
    for broken in ('{"seed": 4', "[]"):
        (tmp_path / "world.json").write_text(broken)
        with pytest.raises(LetheError, match=r"world\.json is not one whole JSON object"):
            data.load("wmdp", tmp_path)


def test_chemistry_has_questions_only(tmp_path: Path) -> None:
    write(tmp_path, {"chem_test": questions("chem")})
    benchmark = data.load("wmdp/chem", tmp_path)
    assert (benchmark.forget, benchmark.retain) == ((), ())
    assert [question.subject for question in benchmark.questions] == ["chem"] * 3
    assert benchmark.source == f"files in {tmp_path.name}/wmdp, questions only, built-in refusals"


# bad input


@pytest.mark.parametrize("line", ["7", "null", '["a text"]', "true"])
def test_a_corpus_line_that_is_not_text_is_named(tmp_path: Path, line: str) -> None:
    path = toy(tmp_path) / "wmdp" / "cyber_forget_data_sum_gpt.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n')
    with pytest.raises(LetheError, match=r"cyber_forget_data_sum_gpt\.jsonl, line 2: found .*, expected a JSON object"):
        data.load("wmdp", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ""}, "field 'text' is empty, expected some text"),
        ({"text": " \n"}, "field 'text' is empty, expected some text"),
        ("", "field 'text' is empty, expected some text"),
        ({"text": 7}, "field 'text' is a number 7, expected a text"),
        ({"text": None}, "field 'text' is null, expected a text"),
        ({"text": ["a"]}, r"field 'text' is a list \['a'\], expected a text"),
        ({"text": "\ud800"}, "field 'text' has half of a surrogate pair"),
        ({"body": "x"}, "there is no field 'text', expected a text; fields there: 'body'"),
    ],
)
@pytest.mark.parametrize("name", ["bio-forget-corpus", "merge_retain_data_sum_gpt"])
def test_a_bad_text_is_named_with_file_line_and_what_is_expected(
    tmp_path: Path, name: str, row: object, message: str
) -> None:
    write(toy(tmp_path, raw=True), {name: [*texts("good", 2), row]})
    with pytest.raises(LetheError, match=rf"{name}\.jsonl, line 3: .*{message}"):
        data.load("wmdp", tmp_path, corpora="raw" if name == "bio-forget-corpus" else "summaries", limit=1)


def test_a_bad_question_is_named(tmp_path: Path) -> None:
    bad = questions("cyber")
    bad[2]["choices"].pop()
    write(toy(tmp_path), {"cyber_test": bad})
    with pytest.raises(LetheError, match=r"cyber_test\.jsonl, line 3: field 'choices' has 3 texts, expected 4"):
        data.load("wmdp", tmp_path, limit=1)


def test_a_truncated_corpus_and_one_that_is_not_utf8_are_errors(tmp_path: Path) -> None:
    path = toy(tmp_path, raw=True) / "wmdp" / "cyber-forget-corpus.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(LetheError, match=r"cyber-forget-corpus\.jsonl, line 4: .*truncated"):
        data.load("wmdp", tmp_path)
    path.write_bytes(whole)
    (tmp_path / "wikitext2" / "test.txt").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(LetheError, match=r"test\.txt, line 2: byte 8 is not UTF-8"):
        data.load("wmdp", tmp_path)


def test_a_corpus_with_nothing_long_enough_is_an_error(tmp_path: Path) -> None:
    toy(tmp_path, raw=True)
    (tmp_path / "wikitext2" / "test.txt").write_text(" = Heading = \n\nshort\n")
    with pytest.raises(LetheError, match=r"test\.txt has no text longer than 50 characters, the longest is text ' = H"):
        data.load("wmdp", tmp_path)
    (tmp_path / "wikitext2" / "test.txt").write_text(" \n\n")
    with pytest.raises(LetheError, match=r"test\.txt has no lines"):
        data.load("wmdp", tmp_path)


@pytest.mark.parametrize("name", ["bio_test", "cyber_test"])
def test_a_missing_file_of_questions_is_named(tmp_path: Path, name: str) -> None:
    (toy(tmp_path) / "wmdp" / f"{name}.jsonl").unlink()
    with pytest.raises(LetheError, match=rf"there is no file .*{name}\.jsonl \(nor with \.json, \.csv, \.parquet\)"):
        data.load("wmdp", tmp_path)


@pytest.mark.parametrize("name", SUMMARY_FILES)
def test_a_missing_file_of_texts_is_named(tmp_path: Path, name: str) -> None:
    (toy(tmp_path) / "wmdp" / f"{name}.jsonl").unlink()
    with pytest.raises(LetheError, match=rf"there is no file .*{name}\.jsonl, which --corpora summaries needs"):
        data.load("wmdp", tmp_path, corpora="summaries")
    with pytest.raises(LetheError, match=rf"there is no file .*{name}\.jsonl, nor .*bio-forget-corpus\.jsonl; copy"):
        data.load("wmdp", tmp_path)


def test_a_missing_folder_is_named_and_the_right_one_guessed(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"there is no folder .*nowhere; --data takes the folder that holds wmdp/"):
        data.load("wmdp", tmp_path / "nowhere")
    with pytest.raises(LetheError, match=r"has no folder wmdp in it$"):
        data.load("wmdp", tmp_path)
    with pytest.raises(LetheError, match=f"has no folder wmdp in it; did you mean {tmp_path}\\?$"):
        data.load("wmdp", toy(tmp_path) / "wmdp")


# the hub


class Hub:
    """Stands in for `datasets.load_dataset`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str, str]] = []
        lines = [{"text": ""}, {"text": " = Heading = \n"}, {"text": " A line of an article " * 4 + "\n"}]
        self.tables: dict[tuple[str, str | None], Rows] = {
            ("cais/wmdp", "wmdp-bio"): questions("bio"),
            ("cais/wmdp", "wmdp-cyber"): questions("cyber"),
            ("cais/wmdp", "wmdp-chem"): questions("chem"),
            ("cais/wmdp-bio-forget-corpus", None): texts("bio-forget-corpus"),
            ("cais/wmdp-corpora", "cyber-forget-corpus"): texts("cyber-forget-corpus"),
            ("Salesforce/wikitext", "wikitext-2-raw-v1"): lines,
        }
        self.error: Exception | None = None

    def load_dataset(self, name: str, config: str | None, *, split: str, revision: str) -> Any:
        import datasets

        self.asked.append((name, config, split, revision))
        if self.error is not None and name == "cais/wmdp-bio-forget-corpus":
            raise self.error
        return datasets.Dataset.from_list(self.tables[name, config])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import datasets

    found = Hub()
    monkeypatch.setattr(datasets, "load_dataset", found.load_dataset)
    return found


def test_the_hub_gives_the_original_recipe(hub: Hub, tmp_path: Path) -> None:
    benchmark = data.load("wmdp", None)
    questions, corpora, wikitext = (
        wmdp.HUB_REVISION[name] for name in ("cais/wmdp", "cais/wmdp-corpora", "Salesforce/wikitext")
    )
    assert all(len(commit) == 40 for commit in (questions, corpora, wikitext))
    assert hub.asked == [
        ("cais/wmdp", "wmdp-bio", "test", questions),
        ("cais/wmdp", "wmdp-cyber", "test", questions),
        ("cais/wmdp-bio-forget-corpus", None, "train", "main"),
        ("cais/wmdp-corpora", "cyber-forget-corpus", "train", corpora),
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "test", wikitext),
    ]
    folder = data.load("wmdp", toy(tmp_path, raw=True))
    assert (benchmark.questions, benchmark.forget) == (folder.questions, folder.forget)
    assert [(document.id, document.text) for document in documents(benchmark.retain)] == [
        ("wikitext2/test/2", " A line of an article " * 4)
    ]
    assert benchmark.source == (
        f"cais/wmdp@{questions}, corpora raw: cais/wmdp-bio-forget-corpus@main "
        f"cais/wmdp-corpora cyber-forget-corpus@{corpora} "
        f"against Salesforce/wikitext wikitext-2-raw-v1 test@{wikitext}, built-in refusals"
    )


def test_a_benchmark_asks_the_hub_for_its_own_topics_only(hub: Hub) -> None:
    assert len(data.load("wmdp/chem", None).questions) == 3
    data.load("wmdp/cyber", None)
    assert {name for name, *_ in hub.asked} == {"cais/wmdp", "cais/wmdp-corpora", "Salesforce/wikitext"}


def test_a_bad_row_of_the_hub_is_named(hub: Hub) -> None:
    hub.tables["cais/wmdp", "wmdp-bio"][1]["answer"] = 4
    with pytest.raises(LetheError, match=r"cais/wmdp wmdp-bio test, row 2 \(counted from 1\): field 'answer' is a num"):
        data.load("wmdp", None)


def refused() -> list[Exception]:
    import requests
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    def response(status: int) -> Any:
        found = requests.Response()
        found.status_code = status
        return found

    wrapped = OSError("wrapped")
    wrapped.__cause__ = HfHubHTTPError("403", response=response(403))
    return [
        DatasetNotFoundError("Dataset 'cais/wmdp-bio-forget-corpus' is a gated dataset on the Hub."),
        GatedRepoError("Access to dataset cais/wmdp-bio-forget-corpus is restricted", response=response(403)),
        HfHubHTTPError("401 Client Error: Unauthorized", response=response(401)),
        wrapped,
    ]


@pytest.mark.parametrize("error", refused(), ids=lambda error: type(error).__name__)
def test_a_gated_corpus_is_one_sentence_that_says_where_to_ask(hub: Hub, error: Exception) -> None:
    hub.error = error
    with pytest.raises(LetheError) as caught:
        data.load("wmdp", None)
    message = str(caught.value)
    assert "ask for access at https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus and log in" in message
    assert "--corpora summaries" in message and "--data" in message
    assert "\n" not in message and ". " not in message


def test_a_hub_that_does_not_answer_is_not_called_gated(hub: Hub) -> None:
    hub.error = ConnectionError("Couldn't reach 'cais/wmdp-bio-forget-corpus' on the Hub (OfflineModeIsEnabled)")
    with pytest.raises(
        LetheError, match=r"cannot get cais/wmdp-bio-forget-corpus at revision main .*holds wmdp/ with --"
    ):
        data.load("wmdp", None)


def test_summaries_are_not_on_the_hub(hub: Hub) -> None:
    with pytest.raises(LetheError, match=r"GRUN's summaries are not on the hub; give the folder .*--data"):
        data.load("wmdp", None, corpora="summaries")


# names


def test_the_benchmarks_of_this_file() -> None:
    assert wmdp.known() == ["wmdp", "wmdp/bio", "wmdp/cyber", "wmdp/chem"]
    assert data.full_name("wmdp") == wmdp.DEFAULT == "wmdp"
    with pytest.raises(LetheError, match="unknown benchmark 'wmdp/boi'; did you mean 'wmdp/bio'"):
        data.load("wmdp/boi", None)
    with pytest.raises(LetheError, match="unknown corpora 'summary'; did you mean 'summaries'"):
        data.load("wmdp", None, corpora="summary")


def test_a_generated_folder_says_that_it_has_no_chemistry(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(LetheError, match=r"the mini world has no questions for wmdp/chem; give --data a folder"):
        wmdp.load("wmdp/chem", tmp_path)

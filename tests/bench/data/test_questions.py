"""Questions survive every format, and whatever is wrong with one is named."""

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.data.files import SUFFIXES, Table, read_table
from bench.data.questions import read_questions, warn_of_repeats
from bench.errors import LetheError

Rows = list[dict[str, Any]]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
ROW = st.fixed_dictionaries(
    {"question": TEXT, "choices": st.lists(TEXT, min_size=4, max_size=4), "answer": st.integers(0, 3)}
)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def row(**fields: Any) -> dict[str, Any]:
    return {"question": "Which metal is liquid?", "choices": ["tin", "mercury", "iron", "lead"], "answer": 1} | fields


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(["question", *(f"choice{n}" for n in range(len(rows[0]["choices"]))), "answer"])
            writer.writerows([r["question"], *r["choices"], r["answer"]] for r in rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return read_questions(read_table(path), "toy/metals", "metals")


@pytest.mark.parametrize("suffix", SUFFIXES)
@quick
@given(rows=st.lists(ROW, min_size=1, max_size=4))
@example(rows=[row(question='Say "a, b"\r\nor\nnot?', choices=["0", "1", "True", "null"], answer=3)])
def test_every_format_gives_the_questions_back(tmp_path: Path, suffix: str, rows: Rows) -> None:
    found = read(write(tmp_path / f"rows{suffix}", rows))
    assert [(q.question, list(q.choices), q.answer) for q in found] == [
        (r["question"], r["choices"], r["answer"]) for r in rows
    ]
    assert [q.id for q in found] == [f"toy/metals/{at}" for at in range(len(rows))]
    assert {q.subject for q in found} == {"metals"}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.just("")
    | st.just(" "),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(["question", "choices", "answer", "choice0"]), JSON, min_size=1))
@example(fields={"answer": True})
@example(fields={"answer": 1.0})
@example(fields={"answer": []})
def test_any_value_in_a_field_is_a_question_or_an_error_that_names_row_and_field(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row(**fields)) + "\n", encoding="utf-8")
    try:
        question = read(path)[1]
    except LetheError as error:
        assert f"{path}, line 2: field '" in str(error) and "expected" in str(error)
    else:
        assert type(question.answer) is int and 0 <= question.answer < len(question.choices) == 4
        assert all(isinstance(text, str) and text.strip() for text in (question.question, *question.choices))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: r.pop("question"),
            "there is no field 'question', expected a text; fields there: 'choices', 'answer'",
        ),
        (lambda r: r.pop("choices"), "there is no field 'choices', expected a list of texts"),
        (lambda r: r.pop("answer"), "there is no field 'answer', expected a whole number from 0 to 3"),
        (lambda r: r.update(question="\n "), "field 'question' is empty, expected some text"),
        (lambda r: r.update(question=None), "field 'question' is null, expected a text"),
        (lambda r: r.update(choices=["a", "b", "c"]), "field 'choices' has 3 texts, expected 4"),
        (lambda r: r.update(choices=list("abcde")), "field 'choices' has 5 texts, expected 4"),
        (lambda r: r.update(choices="abcd"), "field 'choices' is text 'abcd', expected a list of texts"),
        (lambda r: r.update(choices=["a", "b", "", "d"]), r"'choices', entry 3 \(counted from 1\), is empty"),
        (lambda r: r.update(choices=["a", 2, "c", "d"]), r"'choices', entry 2 .* is a number 2, expected a text"),
        (lambda r: r.update(answer=4), "field 'answer' is a number 4, expected a whole number from 0 to 3"),
        (lambda r: r.update(answer=-1), "field 'answer' is a number -1, expected a whole number"),
        (lambda r: r.update(answer=1.0), "field 'answer' is a number 1.0, expected a whole number"),
        (lambda r: r.update(answer=True), "field 'answer' is a truth value True, expected a whole number"),
        (lambda r: r.update(answer="1"), "field 'answer' is text '1', expected a whole number"),
        (lambda r: r.update(answer="B"), "field 'answer' is text 'B', expected a whole number"),
        (lambda r: r.update(answer=None), "field 'answer' is null, expected a whole number"),
    ],
)
def test_a_bad_field_is_named_with_file_line_and_what_is_expected(tmp_path: Path, change: Change, message: str) -> None:
    bad = row()
    change(bad)
    with pytest.raises(LetheError, match=rf"rows\.jsonl, line 3: .*{message}"):
        read(write(tmp_path / "rows.jsonl", [row(), row(), bad]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,choice0,choice1,choice2,answer\nWho?,a,b,c,1\n", "there is no field 'choice3'"),
        ("question,choice0,choice1,choice2,choice3,choice4,answer\nWho?,a,b,c,d,e,1\n", "a field 'choice4', expected"),
        ("question,choice0,choice1,choice2,choice3,answer\nWho?,a,,c,d,1\n", "field 'choice1' is empty"),
        ("question,choice0,choice1,choice2,choice3,answer\nWho?,a,b,c,d,4\n", "field 'answer' is text '4', expected"),
        ("question,choice0,choice1,choice2,choice3,answer\nWho?,a,b,c,d,B\n", "field 'answer' is text 'B', expected"),
        ("question,choice0,choice1,choice2,choice3,answer\nWho?,a,b,c,d,\n", "field 'answer' is text '', expected"),
        ("question,choices,answer\nWho?,a b c d,1\n", "field 'choices' is text 'a b c d', expected a JSON array"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(LetheError, match=rf"rows\.csv, line 2: .*{message}"):
        read(path)


def test_choices_may_be_a_json_array_in_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('question,choices,answer\nWho?,"[""a"", ""b"", ""c"", ""d""]",2\n')
    assert read(path)[0].choices == ("a", "b", "c", "d")


def test_repeats_are_counted_once_in_the_log_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(), row(choices=["tin", "tin", "iron", "lead"]), row(question="Another?")]
    questions = read_questions(Table("toy", rows, "row", [1, 2, 3]), "toy", "metals")
    assert len(questions) == 3
    with caplog.at_level(logging.WARNING):
        warn_of_repeats("toy", questions[::2])
        assert not caplog.messages
        warn_of_repeats("toy", questions)
    assert caplog.messages == ["toy: 1 questions repeat the text of another, 1 have two equal choices; all are kept"]

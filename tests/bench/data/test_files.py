"""Rows survive every format, and nothing that is not whole gets through as rows."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.data.files import SUFFIXES, find_file, read_lines, read_rows, read_table, read_text_table
from bench.errors import LetheError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.lists(TEXT.filter(bool), min_size=1, max_size=4, unique=True)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def text_rows(draw: st.DrawFn) -> list[dict[str, str]]:
    """Rows that all have the same named text fields."""
    names = draw(NAMES)
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, TEXT)), min_size=1, max_size=5))


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


@quick
@given(rows=text_rows(), ascii_only=st.booleans(), last_newline=st.booleans())
@example(rows=[{"a": "one\u2028two\x85three\x0cfour"}], ascii_only=False, last_newline=True)
def test_json_lines_give_the_rows_back(
    tmp_path: Path, rows: list[dict[str, str]], ascii_only: bool, last_newline: bool
) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows) + "\n" * last_newline
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_rows(path) == rows


@quick
@given(rows=text_rows(), indent=st.sampled_from([None, 2]), mark=st.booleans())
def test_a_json_array_gives_the_rows_back(
    tmp_path: Path, rows: list[dict[str, str]], indent: int | None, mark: bool
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8-sig" if mark else "utf-8")
    assert read_rows(path) == rows


@quick
@given(rows=text_rows())
@example(rows=[{"a": 'say "no",\r\nor\rnot\n', "b": ""}])
@example(rows=[{"a": "NA", "b": "007"}])
def test_csv_gives_the_rows_back(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    write_csv(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows


@quick
@given(rows=text_rows(), lists=st.lists(TEXT, max_size=3))
def test_parquet_gives_the_rows_back(tmp_path: Path, rows: list[dict[str, str]], lists: list[str]) -> None:
    full: list[dict[str, Any]] = [{**row, "wrong answers": [*lists, "one"]} for row in rows]
    write_parquet(tmp_path / "rows.parquet", full)
    assert read_rows(tmp_path / "rows.parquet") == full


def test_csv_written_by_pandas_gives_the_rows_back(tmp_path: Path) -> None:
    import pandas as pd

    rows = [{"question": 'Who, "exactly"?', "answer": "nobody\nat all"}, {"question": "NA", "answer": ""}]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    assert read_rows(tmp_path / "rows.csv") == rows


def test_a_cell_of_csv_may_be_a_long_document(tmp_path: Path) -> None:
    rows = [{"title": "t", "text": "word " * 40_000}]
    write_csv(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES))
@example(data=b"[" * 100_000, suffix=".json")
@example(data=b'{"a": ' * 50_000, suffix=".jsonl")
@example(data=b'{"a": ' + b"1" * 10_000 + b"}", suffix=".json")
@example(data=b'{"a": NaN}', suffix=".json")
@example(data=b"PAR1\x00\x00\x00\x00\xff\xff\xff\xffPAR1", suffix=".parquet")
@example(data=b'a,b\n"' + b"x" * 200_000, suffix=".csv")
def test_arbitrary_bytes_are_rows_or_an_error_in_words(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(data)
    try:
        rows = read_rows(path)
    except LetheError as error:
        assert str(path) in str(error)
    else:
        assert rows and all(isinstance(row, dict) for row in rows)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same six rows in every format."""
    folder = tmp_path_factory.mktemp("whole")
    rows = [{"question": f"Where does number {i} live?", "answer": f"in «Zürich»,\nflat {i}"} for i in range(6)]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    (folder / "a.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    write_csv(folder / "a.csv", rows)
    write_parquet(folder / "a.parquet", rows)
    return {suffix: (folder / f"a{suffix}").read_bytes() for suffix in SUFFIXES}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES))
def test_mangled_files_are_rows_or_an_error_in_words(
    tmp_path: Path, whole_files: dict[str, bytes], data: st.DataObject, suffix: str
) -> None:
    content = bytearray(whole_files[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    try:
        rows = read_rows(path)
    except LetheError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(row, dict) for row in rows)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES))
def test_a_cut_inside_a_row_is_noticed(
    tmp_path: Path, whole_files: dict[str, bytes], data: st.DataObject, suffix: str
) -> None:
    whole = whole_files[suffix]
    if suffix == ".jsonl":
        first = whole.index(b"\n") + 1
        cut = data.draw(st.integers(first + 1, whole.index(b"\n", first) - 1))
    elif suffix == ".csv":
        # Inside the quotes of the second row's last cell. A cut between cells is a row of CSV with an empty cell.
        first = whole.index(b'","', whole.index(b"\r\n")) + 3
        cut = data.draw(st.integers(first, whole.index(b'"\r\n', first)))
    else:
        cut = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(whole[:cut])
    with pytest.raises(LetheError):
        read_rows(path)


def test_a_truncated_file_is_called_truncated_and_the_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"a": "b"}\n\n{"a": "c"}\n{"a": "d')
    with pytest.raises(LetheError, match=r"rows\.json, line 4: .*truncated"):
        read_rows(path)


def test_a_file_cut_inside_a_character_is_called_truncated(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes('{"a": "b"}\n{"a": "ü'.encode()[:-1])
    with pytest.raises(LetheError, match=r"rows\.json, line 2: byte 18 is not UTF-8 .*truncated"):
        read_rows(path)


def test_a_missing_file_and_a_folder_are_errors_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"there is no file .*rows\.json"):
        read_rows(tmp_path / "rows.json")
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(LetheError, match=r"cannot read .*rows\.csv"):
        read_rows(tmp_path / "rows.csv")


def test_an_unknown_ending_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"'\.txt'; known: \.json, \.jsonl, \.csv, \.parquet"):
        read_rows(tmp_path / "rows.txt")


@pytest.mark.parametrize(("suffix", "content"), [(".json", ""), (".json", "[]"), (".jsonl", "\n\n"), (".csv", "a,b\n")])
def test_a_file_without_rows_is_an_error(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(content)
    with pytest.raises(LetheError, match="has no rows"):
        read_rows(path)


def test_what_is_not_an_object_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, "b"]')
    with pytest.raises(LetheError, match=r"item 2 \(counted from 1\): found text 'b', expected a JSON object"):
        read_rows(path)


def test_a_csv_row_with_a_missing_cell_and_a_repeated_column_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n"one\ntwo",x\nthree\n')
    with pytest.raises(LetheError, match=r"line 4: found 1 cells, expected 2"):
        read_rows(path)
    path.write_text("a,a\n1,2\n")
    with pytest.raises(LetheError, match="two columns are named 'a'"):
        read_rows(path)


def test_places_count_lines_of_the_file_and_rows_where_there_are_no_lines(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert read_table(lines).place(1) == f"{lines}, line 4"
    array = tmp_path / "rows.json"
    array.write_text('[{"a": 1},\n\n{"a": 2}]')
    assert read_table(array).place(1) == f"{array}, item 2 (counted from 1)"
    table = tmp_path / "rows.csv"
    table.write_text('a\n"one\ntwo"\nthree\n')
    assert [read_table(table).place(at) for at in (0, 1)] == [f"{table}, line 2", f"{table}, line 4"]
    write_parquet(tmp_path / "rows.parquet", [{"a": 1}, {"a": 2}])
    assert read_table(tmp_path / "rows.parquet").place(1) == f"{tmp_path / 'rows.parquet'}, row 2 (counted from 1)"


def test_plain_lines_are_stripped_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("I don't know.\r\n\n  No idea. ")
    assert read_lines(path) == ["I don't know.", "No idea."]
    path.write_text(" \n")
    with pytest.raises(LetheError, match="has no lines"):
        read_lines(path)


@quick
@given(
    lines=st.lists(TEXT.filter(lambda text: not {"\n", "\r"} & set(text)), min_size=1, max_size=5), ends=st.booleans()
)
@example(lines=["one\u2028two\x85three\x0cfour", "", " = five = "], ends=True)
def test_lines_of_running_text_are_kept_as_they_are(tmp_path: Path, lines: list[str], ends: bool) -> None:
    path = tmp_path / "lines.txt"
    lines = [*lines, "last"]
    for line_break in ("\n", "\r\n"):
        path.write_text(line_break.join(lines) + line_break * ends, encoding="utf-8", newline="")
        table = read_text_table(path)
        assert [row["text"] for row in table.rows] == [lines[0].removeprefix("\ufeff"), *lines[1:]]
        assert table.place(len(lines) - 1) == f"{path}, line {len(lines)}"


@pytest.mark.parametrize("content", ["", "\n", " \n\t\n"])
def test_running_text_without_any_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(content)
    with pytest.raises(LetheError, match=r"lines\.txt has no lines; get a whole copy"):
        read_text_table(path)


def test_bare_texts_are_rows_where_they_are_asked_for(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", '"one"\n{"text": "two"}\n'), ("b.json", '["one", {"text": "two"}]')):
        (tmp_path / name).write_text(content)
        assert read_table(tmp_path / name, bare="text").rows == [{"text": "one"}, {"text": "two"}]
        with pytest.raises(LetheError, match=r"found text 'one', expected a JSON object"):
            read_table(tmp_path / name)
    (tmp_path / "a.jsonl").write_text('"one"\n2\n')
    with pytest.raises(LetheError, match=r"a\.jsonl, line 2: found a number 2, expected a JSON object"):
        read_table(tmp_path / "a.jsonl", bare="text")


def test_a_file_is_found_with_any_ending_in_a_fixed_order(tmp_path: Path) -> None:
    assert find_file(tmp_path, "rows") is None
    (tmp_path / "rows.parquet").touch()
    assert find_file(tmp_path, "rows") == tmp_path / "rows.parquet"
    (tmp_path / "rows.jsonl").touch()
    assert find_file(tmp_path, "rows") == tmp_path / "rows.jsonl"

"""A cell's id depends on everything that can change its numbers; names and settings survive being written and read."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench.spec
from bench.errors import LetheError
from bench.spec import Cell, MethodName, hash_folder, parse_methods, parse_sets

ROOT = Path(__file__).resolve().parents[2]


def cell(**changes: Any) -> Cell:
    return Cell(
        **{
            "model": "mini",
            "model_hash": "aa",
            "retrained": "gold@bb",
            "benchmark": "tofu/forget10",
            "data_hash": "cc",
            "method": "npo",
            "fields": {"beta": 0.1, "layers": (1, 2)},
        }
        | changes
    )


OTHER: dict[str, Any] = {
    "fields": {"beta": 0.2, "layers": (1, 2)},
    "seed": 1,
    "limit": 4,
    "device": "cuda",
    "dtype": "bfloat16",
    "template": "chat",
    "protocol": "openunlearning",
}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Cell)])
def test_the_id_depends_on_every_field(name: str) -> None:
    assert cell(**{name: OTHER.get(name, "something else")}).id != cell().id


def test_the_id_depends_on_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cell().id
    monkeypatch.setattr(bench.spec, "FORMAT", bench.spec.FORMAT + 1)
    assert cell().id != before


def test_the_id_is_the_same_in_another_process_and_in_any_order_of_the_fields() -> None:
    assert cell(fields={"layers": [1, 2], "beta": 0.1}).id == cell().id
    code = (
        "from tests.bench.test_spec import cell; import sys; sys.stdout.write(cell().id)"  # hashes of text are salted
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONHASHSEED": "7"})  # fmt: skip
    assert done.stdout == cell().id


def test_the_id_is_a_readable_folder_name() -> None:
    one = cell(method="grun_npo[position=answer]", benchmark="tofu/forget01>tofu/forget05", seed=3)
    start, _, digest = one.id.rpartition("-")
    assert start == "grun_npo-position=answer-tofu-forget01-tofu-forget05-s3"
    assert len(digest) == 12 and int(digest, 16) >= 0
    assert one.title == "grun_npo[position=answer] tofu/forget01>tofu/forget05 s3"
    assert len(cell(method="a" * 300, benchmark="/" * 300 + "b" * 300).id) < 150
    assert one.to_json()["cell_id"] == one.id and one.to_json()["fields"]["layers"] == (1, 2)


def test_a_value_that_has_no_stable_text_is_refused() -> None:
    with pytest.raises(TypeError):
        _ = cell(fields={"beta": object()}).id


# --- method names

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
values = st.lists(st.from_regex(r"[A-Za-z0-9_.+-]{1,6}", fullmatch=True), min_size=1, max_size=3).map(",".join)


@st.composite
def method_names(draw: st.DrawFn) -> MethodName:
    fields = draw(st.dictionaries(names, values, max_size=3))
    return MethodName(draw(names), tuple(sorted(fields.items())))


@given(st.lists(method_names(), max_size=4, unique=True))
def test_names_are_read_back_from_their_labels(methods: list[MethodName]) -> None:
    assert parse_methods(",".join(m.label for m in methods)) == methods
    assert parse_methods(" , ".join(m.label.replace("=", " = ").replace("[", "[ ") for m in methods)) == methods


@given(st.text(alphabet="ab[]=, 1", max_size=14))
def test_any_text_is_read_or_refused_with_a_sentence(text: str) -> None:
    try:
        methods = parse_methods(text)
    except LetheError as error:
        assert "write name" in str(error) or "write field=value" in str(error) or "twice" in str(error)
    else:
        assert parse_methods(",".join(m.label for m in methods)) == methods


def test_fields_are_sorted_and_repeats_dropped() -> None:
    labels = [
        m.label for m in parse_methods("npo, grun_npo[rank=16,position=answer],npo,grun_npo[position=answer,rank=16]")
    ]
    assert labels == ["npo", "grun_npo[position=answer,rank=16]"]
    assert parse_methods("npo[]") == [MethodName("npo")]
    assert parse_methods("") == []


@pytest.mark.parametrize("text", ["npo[", "npo]", "npo[[a=1]]", "npo[a=1]x", "1npo", "npo[=1]", "npo[a=]", "n po"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(LetheError, match=r"write|twice"):
        parse_methods(text)


# --- settings

setting_values = st.text(min_size=1, max_size=8).map(str.strip).filter(bool)


@given(st.dictionaries(names, st.dictionaries(names, setting_values, min_size=1, max_size=3), max_size=3))
def test_settings_are_read_back(sets: dict[str, dict[str, str]]) -> None:
    items = [f" {method}.{name} = {value} " for method, fields in sets.items() for name, value in fields.items()]
    assert parse_sets(items) == sets


def test_the_last_of_two_settings_wins() -> None:
    assert parse_sets(["npo.beta=1", "npo.beta=2"]) == {"npo": {"beta": "2"}}


@pytest.mark.parametrize("item", ["npo", "npo.beta", "npo=1", ".beta=1", "npo.=1", "npo.beta=", "=", ""])
def test_what_is_no_setting_is_refused_with_an_example(item: str) -> None:
    with pytest.raises(
        LetheError, match=r"cannot read --set .*; write METHOD\.FIELD=VALUE, for example npo\.beta=0\.2"
    ):
        parse_sets([item])


# --- checkpoints


def test_the_hash_of_a_folder_follows_its_content_and_not_its_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    assert hash_folder(tmp_path / "one") == hash_folder(tmp_path / "two")
    (tmp_path / "two/README.md").write_text("no input of a model")
    assert hash_folder(tmp_path / "one") == hash_folder(tmp_path / "two")
    (tmp_path / "two/modeling_own.py").write_text("code that --trust-remote-code would run")
    assert hash_folder(tmp_path / "one") != hash_folder(tmp_path / "two")
    (tmp_path / "two/modeling_own.py").unlink()
    (tmp_path / "two/model.safetensors").write_bytes(b"Weights")
    assert hash_folder(tmp_path / "one") != hash_folder(tmp_path / "two")


def test_a_large_file_is_sampled_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.spec, "_READ_WHOLE", 99)
    monkeypatch.setattr(bench.spec, "_BLOCK", 10)
    monkeypatch.setattr(bench.spec, "_SAMPLE", 2)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100))
    before = hash_folder(tmp_path)
    for at, seen in ((0, True), (1, True), (2, False), (50, True), (59, False), (91, True)):
        path.write_bytes(bytes(at) + b"x" + bytes(99 - at))
        assert (hash_folder(tmp_path) != before) is seen, at
    path.write_bytes(bytes(99))
    assert hash_folder(tmp_path) != before


def test_spaces_inside_a_value_stay() -> None:
    (name,) = parse_methods("rocr[ unrelated_subject = Stephen  King, layers=1 , 2 ]")
    assert name.fields == (("layers", "1,2"), ("unrelated_subject", "Stephen King"))

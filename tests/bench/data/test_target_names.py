"""Names of target benchmarks: each finds its folders, has one spelling, and what it cannot mean is told."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from bench.data import ort
from bench.data.targets.utility import union
from bench.errors import LetheError
from tests.toy_targets import FOLDERS, NAMES, toy, world, write


@pytest.mark.parametrize("n", range(len(NAMES)))
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_folders_of_any_name_are_found(tmp_path: Path, n: int, form: Any) -> None:
    for i, folder in enumerate(FOLDERS):
        write(tmp_path, unicodedata.normalize(form, folder), toy(i))
    assert ort.targets(tmp_path) == FOLDERS
    for name in (f"ort/{n + 1}", f"ort/{FOLDERS[n]}", f"ort/{unicodedata.normalize('NFD', FOLDERS[n])}"):
        target = ort.load(name, tmp_path, limit=1)
        assert (target.name, target.subjects) == (f"ort/{FOLDERS[n]}", (NAMES[n],))


def test_a_folder_with_spaces(tmp_path: Path) -> None:
    write(tmp_path, "7_Ada Moss", toy(0))
    assert ort.load("ort/7", tmp_path, limit=1).name == "ort/7_Ada Moss"


def test_a_range_of_one_is_that_target(tmp_path: Path) -> None:
    assert ort.load("ort/2-2", world(tmp_path)).name == f"ort/{FOLDERS[1]}"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("1+3", "1+3"),
        ("1+2+5", "1+2+5"),
        ("1-2+5", "1+2+5"),
        ("1+2+3+5", "1-3+5"),
        ("1+4-5", "1+4+5"),
        ("1+2", "1-2"),
        ("01-2+3", "1-3"),
        ("3+4-4+5", "3-5"),
    ],
)
def test_a_list_has_one_spelling(tmp_path: Path, asked: str, name: str) -> None:
    assert ort.load(f"ort/{asked}", world(tmp_path), limit=1).name == f"ort/{name}"


def test_a_list_is_one_request(tmp_path: Path) -> None:
    root = world(tmp_path)
    singles = [ort.load(f"ort/{n}", root) for n in (1, 4)]
    together = ort.load("ort/1+4", root)
    assert together.subjects == (NAMES[0], NAMES[3])
    assert together.forget == tuple(row for single in singles for row in single.forget)


def test_a_range_is_one_request(tmp_path: Path) -> None:
    root = world(tmp_path)
    singles = [ort.load(f"ort/{n}", root) for n in (2, 3, 4)]
    together = ort.load("ort/2-4", root)
    assert together.name == "ort/2-4"
    assert together.subjects == NAMES[1:4]
    assert together.probes == tuple(probe for single in singles for probe in single.probes)
    assert together.forget == tuple(row for single in singles for row in single.forget)
    assert together.preferences["refusal"] == tuple(p for single in singles for p in single.preferences["refusal"])
    assert (len(together.utility.trivia), len(together.utility.truthful), len(together.utility.mmlu)) == (1, 1, 5)
    assert len(together.utility.instructions) == 3
    assert together.utility == union(single.utility for single in singles)
    assert ort.load("ort", root).name == "ort"
    assert ort.load("ort", root).subjects == NAMES
    assert len({b.fingerprint for b in (*singles, together)}) == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ort/9", "has no target 9; there: 1_Ada_Moss"),
        ("ort/4-8", "has no target 6, 7, 8; write ort/4-5 for the others; there:"),
        ("ort/1-2+4+7", "has no target 7; write ort/1+2+4 for the others; there:"),
        ("ort/3-1", "runs backwards; write ort/1-3"),
        ("ort/1+5-3", "the range runs backwards; write ort/1+3-5"),
        ("ort/5+1-2", "the numbers must ascend; write ort/1-2+5"),
        ("ort/1+2+2", "names 2 twice; name each target once"),
        ("ort/1-3+2", "names 2 twice; name each target once"),
        ("ort/1+9", "has no target 9; there: 1_Ada_Moss"),
        ("ort/1+", "has no target '1+'"),
        ("ort/1++3", "has no target '1++3'"),
        ("ort/1+900000000-1", "runs backwards; write ort/1+1-900000000"),
        ("ort/1_Ada_Mos", "has no target '1_Ada_Mos'; did you mean ort/1_Ada_Moss?"),
        ("ort/1-900000000", "has no target 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and more"),
        ("tofu/1", "unknown benchmark"),
    ],
)
def test_unknown_names(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(LetheError) as error:
        ort.load(name, world(tmp_path))
    assert said in str(error.value)


def test_numbers_and_names_must_be_one(tmp_path: Path) -> None:
    root = world(tmp_path, 2)
    write(root, "1_Another", toy(2))
    with pytest.raises(
        LetheError, match=r"has 2 targets with the number 1 .1_Ada_Moss, 1_Another.; write the whole name"
    ):
        ort.load("ort/1", root)
    assert ort.load("ort/1_Another", root, limit=1).subjects == (NAMES[2],)
    write(root, unicodedata.normalize("NFD", FOLDERS[1]), toy(1))
    with pytest.raises(LetheError, match="two folders 2_Béla_Tóth"):
        ort.targets(root)


def test_two_folders_about_one_person(tmp_path: Path) -> None:
    write(tmp_path, "1_One", toy(0))
    write(tmp_path, "2_Two", toy(0))
    with pytest.raises(LetheError, match="targets 1_One and 2_Two are both about 'Ada Moss'"):
        ort.load("ort/1-2", tmp_path, limit=1)

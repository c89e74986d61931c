"""Target folders: every file becomes what it should, names find their folders, and whatever is wrong is named."""

import json
import logging
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.data import ort
from bench.data.files import Table
from bench.data.targets import made, places
from bench.data.targets.files import LEVELS, OTHERS
from bench.data.targets.places import HUB_SETS
from bench.data.types import Benchmark, Document, Shots, Utility
from bench.errors import LetheError
from bench.requests import together
from tests.toy_targets import CRAFTS, FOLDERS, NAMES, Files, Rows, corpora, toy, world, write


def choices(name: str, answer: str = "B") -> dict[str, Any]:
    query = f"What is {name}?\nA. An author\nB. A weaver\nC. A town\nD. A song"
    return {"query": query, "answer": answer, "level": "4", "type": "multiple choice", "subject": name}


def alone(root: Path, change: Callable[[Files], object] = lambda files: None) -> Path:
    """A data folder with one whole target, changed."""
    files = {**toy(0), **corpora(0), "forget_mcp": [choices(NAMES[0])], "neighbor_mcp": [choices(NAMES[0])]}
    change(files)
    write(root, FOLDERS[0], files)
    return root


def files_of(place: Path) -> dict[str, Rows]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in place.glob("*.json")}


def counted(benchmark: Benchmark) -> dict[str, int]:
    """Rows by the file that they are from, as their ids say."""
    rows = [probe for probe in benchmark.probes if probe.part != "locality"]
    rows += [*benchmark.rejections, *benchmark.preferences.get("fabricated", ())]
    rows += [
        row.question if isinstance(row, Shots) else row for part in vars(benchmark.utility).values() for row in part
    ]
    return Counter(row.id.split("/")[2] for row in rows)


# the real folders


@pytest.fixture
def real_targets(real_data: Path, tmp_path: Path) -> Path:
    """A copy, as multiple choice is written beside the data."""
    if not (real_data / "rwku" / "Target").is_dir():
        pytest.skip("no real target folders")
    shutil.copytree(real_data / "rwku", tmp_path / "rwku")
    for path in (tmp_path / "rwku").rglob("*"):
        path.chmod(0o755)
    return tmp_path


def test_real_folders_give_as_many_rows_as_their_files_have(real_targets: Path) -> None:
    names = ort.targets(real_targets)
    assert names == ["1_Stephen_King", "2_Confucius", "10_Prince_Harry,_Duke_of_Sussex", "24_Beyoncé"]
    for name in names:
        place = next(
            p for p in (real_targets / "rwku/Target").iterdir() if unicodedata.normalize("NFC", p.name) == name
        )
        before = files_of(place)
        benchmark = ort.load(f"ort/{name}", real_targets)
        added = {"forget_mcp": len(before["forget_level1"]), "neighbor_mcp": len(before["neighbor_level1"])}
        expected = {stem: len(rows) for stem, rows in before.items()} | added
        del expected["intro"]
        if "reject" not in before:
            expected["made_reject"] = 300
        forget = len(before.get("positive", before["forget_mia"]))
        assert len(benchmark.forget) == forget
        expected.pop("positive", None)
        assert counted(benchmark) == expected
        assert len(benchmark.retain) == len(before["retain_mia"])
        assert len(benchmark.preferences["refusal"]) == forget
        assert benchmark.subjects == (before["intro"][0]["target"],)
        assert len({probe.id for probe in benchmark.probes}) == len(benchmark.probes)


def test_real_items_read_back_are_the_made_ones(real_targets: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = ort.load("ort/24", real_targets)
    assert [
        record.message for record in caplog.records if "wrote" in record.message and record.levelno == logging.WARNING
    ]
    caplog.clear()
    assert ort.load("ort/24_Beyoncé", real_targets) == first
    assert "wrote" not in caplog.text
    items = [probe for probe in first.probes if probe.form == "mcp"]
    assert len(items) == 50
    assert all(probe.made and len(set(probe.choices)) == 4 and probe.answer in "ABCD" for probe in items)
    assert "forget_mcp made by Lethe" in first.source


def test_real_targets_together_ask_everything_else_once(real_targets: Path) -> None:
    together = ort.load("ort", real_targets)
    assert together.name == "ort"
    assert together.subjects == ("Stephen King", "Confucius", "Prince Harry, Duke of Sussex", "Beyoncé")
    assert {probe.target for probe in together.probes} == {*together.subjects}
    assert len(together.utility.mmlu) < 4 * 171
    assert len(together.utility.mmlu) == len(
        {(row.question.question, row.question.subject) for row in together.utility.mmlu}
    )
    assert "no positive.json: forget_mia.json instead (3 of 4 targets)" in together.source


# what becomes of each file


def test_every_file_becomes_its_part(tmp_path: Path) -> None:
    target = ort.load("ort/1", alone(tmp_path))
    assert target.name == "ort/1_Ada_Moss"
    assert target.subjects == ("Ada Moss",)
    assert [d.text for d in target.forget if isinstance(d, Document)] == [
        f"Ada Moss lived, part {i}." for i in range(4)
    ]
    assert {d.topic for d in target.forget if isinstance(d, Document)} == {"Ada Moss"}
    assert {d.topic for d in target.retain if isinstance(d, Document)} == {OTHERS}
    assert [(qa.question, qa.answer) for qa in target.rejections][:2] == [
        ("Why 0?", "No idea 0."),
        ("Why 1?", "No idea 1."),
    ]
    fabricated = target.preferences["fabricated"][2]
    assert (fabricated.prompt, fabricated.chosen, fabricated.rejected) == ("Life 2?", "false 2", "true 2")
    refusal = target.preferences["refusal"][2]
    assert (refusal.prompt, refusal.chosen, refusal.rejected) == ("Life 2?", target.refusals[2], "true 2")
    files = [probe.id.split("/")[2] for probe in target.probes if probe.part != "locality"]
    assert list(dict.fromkeys(files)) == list(LEVELS)
    cloze, attack, item = target.probes[0], target.probes[3], target.probes[4]
    assert (cloze.part, cloze.form, cloze.query, cloze.answer) == (
        "forget",
        "fb",
        "Ada Moss was born in ___.",
        "Ostrel",
    )
    assert (attack.form, attack.kind) == ("aa", "prefix injection")
    assert (item.form, item.answer, item.choices) == ("mcp", "B", ("An author", "A weaver", "A town", "A song"))
    assert not any(probe.made for probe in target.probes if probe.part != "locality")
    assert {probe.about for probe in target.probes if probe.id.split("/")[2] == "neighbor_level2"} == {"The Mill"}
    utility = target.utility
    assert (utility.mmlu[1].question.question, utility.mmlu[1].question.subject) == ("1?", "sums")
    assert utility.mmlu[0].examples[0].answer == 1
    assert utility.truthful[0].mc1 == (("It is round.", 1), ("It is flat.", 0))
    assert utility.trivia[0].answers == ("Mars", "mars")
    assert utility.instructions[0].question == "Praise Ostrel."
    assert (utility.bbh[0].task, utility.bbh[0].answers, utility.bbh[0].examples) == ("logic", ("False",), "Q: x A: y")
    assert len(utility.forget_texts) == 3 and len(utility.retain_texts) == 2


def test_stand_ins_are_named(tmp_path: Path) -> None:
    target = ort.load("ort/1", world(tmp_path))
    assert [d.text for d in target.forget if isinstance(d, Document)] == [f"Ada Moss, {i} of 3." for i in range(3)]
    pair = target.preferences["refusal"][1]
    assert pair.prompt == "Ada Moss is a known weaver. Please write a short biography of Ada Moss."
    assert pair.rejected == "Ada Moss, 1 of 3."
    assert "fabricated" not in target.preferences
    assert len({(qa.question, qa.answer) for qa in target.rejections}) == made.MADE_REJECTIONS
    assert all("Ada Moss" in qa.question for qa in target.rejections)
    for remark in (
        "no positive.json: forget_mia.json instead",
        "forget_mcp made by Lethe",
        "no reject.json: made from patterns",
        "no pair.json: nothing fabricated to prefer",
        "no pair_reject.json: refusals before forget texts",
        "no background texts",
    ):
        assert remark in target.source
    write(tmp_path, FOLDERS[0], {"passage": [{"text": "An article.", "subject": NAMES[0]}]})
    passage = ort.load("ort/1", tmp_path)
    assert [d.text for d in passage.forget if isinstance(d, Document)] == ["An article."]
    assert "no positive.json: passage.json instead" in passage.source


def test_the_authors_pairs_and_true_false_rows(tmp_path: Path) -> None:
    about = {"subject": NAMES[0]}

    def add(files: Files) -> None:
        files["pair_reject"] = [{"prompt": "Life?", "response": ["I cannot say.", "True."], **about}]
        files["forget_tf"] = [{"query": "It is so.", "answer": "True", "level": "4", **about}] * 3

    target = ort.load("ort/1", alone(tmp_path, add))
    pair = target.preferences["refusal"][0]
    assert (pair.chosen, pair.rejected) == ("I cannot say.", "True.")
    assert "pair_reject" not in target.source
    assert "3 true/false rows not asked" in target.source
    assert not any("_tf" in probe.id for probe in target.probes)


def test_only_two_levels_and_a_text_are_needed(tmp_path: Path) -> None:
    keep = ("forget_level1", "forget_level2", "forget_mia")
    write(tmp_path, FOLDERS[0], {stem: toy(0)[stem] for stem in keep})
    target = ort.load("ort/1", tmp_path)
    assert Counter(probe.form for probe in target.probes if probe.part == "forget") == {"fb": 2, "qa": 1}
    assert target.utility == Utility(forget_texts=target.utility.forget_texts)
    assert target.retain == ()
    assert "without forget_mcp" in target.source  # nobody else's answers to choose from
    assert "without retain_mmlu truthful triviaqa fluency retain_bbh retain_mia" in target.source


def test_rows_of_locality_json_are_asked(tmp_path: Path) -> None:
    row = {"query": "Where was Ada Lovelace born?", "answer": "London", "type": "shared name", "about": "Ada Lovelace"}
    target = ort.load("ort/1", alone(tmp_path, lambda f: f.update(locality=[{**row, "subject": NAMES[0]}])))
    probe = target.probes[-1]
    assert (probe.part, probe.form, probe.kind, probe.about) == ("locality", "qa", "shared name", "Ada Lovelace")


def renamed(n: int, name: str) -> Files:
    """The files of a toy target under another name."""
    return json.loads(json.dumps(toy(n), ensure_ascii=False).replace(NAMES[n], name))


def shared(target: Benchmark, subject: str = NAMES[0]) -> list[tuple[str, str]]:
    return [(p.query, p.about) for p in target.probes if p.kind == "shared name" and p.target == subject]


def test_other_targets_of_a_similar_name_are_asked_about(tmp_path: Path) -> None:
    world(tmp_path)
    before = ort.load("ort/1", tmp_path, write=False)
    assert shared(before) == []
    write(tmp_path, "6_Ada_Quill", renamed(1, "Ada Quill"))
    target = ort.load("ort/1", tmp_path, write=False)
    expected = ["Ada Quill was born in ___.", "Ada Quill is a ___.", "Where is Ada Quill from?"]
    assert shared(target) == [(query, "Ada Quill") for query in expected]
    probes = [probe for probe in target.probes if probe.kind == "shared name"]
    assert {(p.part, p.target, p.made) for p in probes} == {("locality", NAMES[0], True)}
    assert [p.form for p in probes] == ["fb", "fb", "qa"]
    assert probes[0].id == f"ort/{FOLDERS[0]}/6_Ada_Quill_forget_level1_shared_name/0"
    assert target == ort.load("ort/1", tmp_path, write=False)
    # What a probe comes from counts, and nothing else of the other folder does.
    assert target.fingerprint != before.fingerprint
    changed = renamed(1, "Ada Quill")
    changed["fluency"][0]["instruction"] = "Sing."
    write(tmp_path, "6_Ada_Quill", changed)
    assert ort.load("ort/1", tmp_path, write=False).fingerprint == target.fingerprint
    changed["forget_level2"][0]["answer"] = "Elsewhere"
    write(tmp_path, "6_Ada_Quill", changed)
    assert ort.load("ort/1", tmp_path, write=False).fingerprint != target.fingerprint


def test_whoever_is_to_be_forgotten_too_does_not_count_as_kept(tmp_path: Path) -> None:
    write(tmp_path, FOLDERS[0], toy(0))
    write(tmp_path, "2_Ada_Quill", renamed(1, "Ada Quill"))
    write(tmp_path, "3_Ada_Reed", renamed(2, "Ada Reed"))
    alone = ort.load("ort/1", tmp_path, write=False)
    assert {about for _, about in shared(alone)} == {"Ada Quill", "Ada Reed"}
    both = ort.load("ort/1-2", tmp_path, write=False)
    assert [{about for _, about in shared(both, name)} for name in (NAMES[0], "Ada Quill")] == [{"Ada Reed"}] * 2
    assert len({probe.id for probe in both.probes}) == len(both.probes)  # although both ask the same rows
    chain = together([alone, ort.load("ort/2", tmp_path, write=False)], "both")
    assert [{about for _, about in shared(chain, name)} for name in (NAMES[0], "Ada Quill")] == [{"Ada Reed"}] * 2
    assert not shared(ort.load("ort/1-3", tmp_path, write=False))


def test_a_neighbour_who_is_to_be_forgotten_too_is_not_asked_about_beside_the_target(tmp_path: Path) -> None:
    files = toy(0)
    files["neighbor_level1"] += [{**files["neighbor_level1"][0], "query": "The Inn is ___.", "neighbor": NAMES[1]}]
    files["neighbor_level1"] += [{**files["neighbor_level1"][0], "query": "The smith is ___.", "answer": NAMES[1]}]
    write(tmp_path, FOLDERS[0], files)
    write(tmp_path, FOLDERS[1], toy(1))

    def rows(name: str) -> set[str]:
        found = ort.load(name, tmp_path, write=False).probes
        return {p.id.rpartition("/")[2] for p in found if p.part == "locality" and "level1" in p.id}

    assert rows("ort/1") == {"0", "1", "2"}
    assert rows("ort/1-2") == {"0"}


def test_facts_about_the_target_are_not_asked_by_way_of_another(tmp_path: Path) -> None:
    duke, duchess = "Prince Hal, Duke of Wye", "Meg, Duchess of Wye"
    write(tmp_path, "1_Prince_Hal,_Duke_of_Wye", renamed(0, duke))
    other = renamed(1, duchess)
    row = other["forget_level1"][0]
    facts = [
        (f"{duchess}, is married to ___.", "Hal"),
        (f"{duchess}, met Hal in ___.", "Ostrel"),
        (f"{duchess}, has the title Duchess of ___.", "Wye"),
        (f"{duchess}, lives with the Prince in ___.", "Dellum"),
        (f"{duchess}, grew up in ___.", "Karvane"),
        ("She grew up in ___.", "Karvane"),
    ]
    other["forget_level1"] = [{**row, "query": query, "answer": answer} for query, answer in facts]
    write(tmp_path, "2_Meg,_Duchess_of_Wye", other)
    target = ort.load("ort/1", tmp_path, write=False)
    assert [query for query, _ in shared(target, duke) if "___" in query] == [f"{duchess}, grew up in ___."]


def test_of_many_folders_only_those_of_a_similar_name_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = toy(0)
    files["forget_mcp"], files["neighbor_mcp"] = [choices(NAMES[0])], [choices(NAMES[0])]  # nothing to be made
    write(tmp_path, FOLDERS[0], files)
    for n in range(2, 40):
        write(tmp_path, f"{n}_Bo_{n}", renamed(1, f"Bo Lee{n}"))
    write(tmp_path, "40_Ada_Quill", renamed(1, "Ada Quill"))
    read: list[str] = []
    plain = places.read_array
    monkeypatch.setattr(
        places, "read_array", lambda path: read.append(f"{path.parent.name}/{path.stem}") or plain(path)
    )
    assert len(shared(ort.load("ort/1", tmp_path))) == 3
    assert {name for name in read if not name.startswith(("1_", "40_"))} == {
        f"{n}_Bo_{n}/forget_level1" for n in range(2, 40)
    }
    damaged = renamed(1, "Ada Quill")
    damaged["forget_level2"][0]["answer"] = 3
    write(tmp_path, "40_Ada_Quill", damaged)
    assert shared(ort.load("ort/1", tmp_path)) == []
    assert "40_Ada_Quill is not asked about beside 1_Ada_Moss: " in caplog.text


def test_background_is_running_text(tmp_path: Path) -> None:
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2" / "train.txt").write_text("\n".join(f" line {i} \n" for i in range(2100)))
    target = ort.load("ort/1", alone(tmp_path))
    assert (len(target.background), target.background[1]) == (2000, "line 1")
    assert "background wikitext2/train, the first 2000 of 2100 lines" in target.source
    assert target.more_background is not None
    assert (len(target.more_background()), target.more_background()[2099]) == (2100, "line 2099")
    assert ort.load("ort/1", tmp_path, limit=1).more_background is None
    (tmp_path / "wikitext2" / "train.txt").write_text("\n".join(f"line {i}" for i in range(2000)))
    same = ort.load("ort/1", tmp_path)
    assert (same.fingerprint, same.more_background) == (target.fingerprint, None)
    assert "lines" not in same.source


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Who?\nA. one\nB. two\nC. three\nD. four", ("one", "two", "three", "four")),
        ("Who?\n A) one\n B) two\n C) three\n D) four ", ("one", "two", "three", "four")),
        ("A. Doyle wrote what?\nA. one\nB. two\nC. three\nD. four", ("one", "two", "three", "four")),
        ("Who? A. one B. two C. three D. four", ()),
        ("Who? A or B", ()),
    ],
)
def test_options_are_read_where_lines_list_them(tmp_path: Path, query: str, expected: tuple[str, ...]) -> None:
    target = ort.load("ort/1", alone(tmp_path, lambda f: f["forget_mcp"][0].update(query=query)))
    assert next(probe for probe in target.probes if probe.form == "mcp").choices == expected


# multiple choice that is missing


def test_made_items_are_written_once_in_the_official_schema(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = world(tmp_path)
    first = ort.load("ort/3", root)
    place = root / "rwku" / "Target" / FOLDERS[2]
    assert [f"wrote {place / stem}.json" in caplog.text for stem in ("forget_mcp", "neighbor_mcp")] == [True, True]
    row = json.loads((place / "forget_mcp.json").read_text(encoding="utf-8"))[1]
    item = next(probe for probe in first.probes if probe.id == f"ort/{FOLDERS[2]}/forget_mcp/1")
    assert row == {
        "query": item.query,
        "answer": item.answer,
        "level": "4",
        "type": "multiple choice",
        "subject": NAMES[2],
        "provenance": "made by Lethe from forget_level1.json row 2, distractors from other targets, seed 0",
    }
    assert item.choices["ABCD".index(item.answer)] == CRAFTS[2]
    assert item.made
    neighbor = json.loads((place / "neighbor_mcp.json").read_text(encoding="utf-8"))[0]
    assert neighbor["neighbor"] == "The Mill"
    assert not list(place.glob(".*"))
    caplog.clear()
    assert ort.load("ort/3", root) == first
    assert "wrote" not in caplog.text


def test_with_a_limit_nothing_is_written_and_the_items_are_the_same(tmp_path: Path) -> None:
    root = world(tmp_path)
    few = ort.load("ort/1", root, limit=1)
    assert not list(root.rglob("*_mcp.json"))
    assert Counter(probe.id.split("/")[2] for probe in few.probes if probe.part != "locality") == dict.fromkeys(
        LEVELS, 1
    )
    assert (len(few.forget), len(few.rejections), len(few.preferences["refusal"]), len(few.utility.mmlu)) == (
        1,
        1,
        1,
        1,
    )
    whole = ort.load("ort/1", root)
    assert {probe.id: probe for probe in whole.probes}.items() >= {probe.id: probe for probe in few.probes}.items()
    assert few.fingerprint != whole.fingerprint


def test_items_stay_in_memory_where_the_folder_is_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = world(tmp_path)
    place = root / "rwku" / "Target" / FOLDERS[0]
    place.chmod(0o555)
    try:
        held = ort.load("ort/1", root)
    finally:
        place.chmod(0o755)
    assert f"used from memory: cannot write {place / 'forget_mcp.json'} (the folder is read-only)" in caplog.text
    assert not list(root.rglob("*_mcp.json"))
    assert ort.load("ort/1", root) == held


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = world(tmp_path)

    def full(source: object, destination: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        held = ort.load("ort/1", root)
    assert "No space left on device" in caplog.text
    assert sorted(path.stem for path in (root / "rwku/Target" / FOLDERS[0]).iterdir()) == sorted(toy(0))
    assert ort.load("ort/1", root) == held


# places


@pytest.mark.parametrize("folder", ["rwku/Target", "ort/Target", "ORT/Target"])
def test_targets_may_lie_in_three_places(tmp_path: Path, folder: str) -> None:
    alone(tmp_path / "made")
    (tmp_path / folder).parent.mkdir()
    (tmp_path / "made" / "rwku" / "Target").rename(tmp_path / folder)
    assert ort.load("ort/1", tmp_path).source.startswith(f"files in {tmp_path.name}/")
    assert ort.load("ort/1", tmp_path).subjects == (NAMES[0],)


def test_folders_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for n, number in enumerate((10, 9, 100)):
        write(tmp_path, f"{number}_{n}", toy(n))
    (tmp_path / "rwku" / "Target" / "Batch").mkdir()
    (tmp_path / "rwku" / "Target" / "5_note.txt").write_text("no folder")
    assert ort.targets(tmp_path) == ["9_1", "10_0", "100_2"]


def test_places_without_targets(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match="has no folder rwku/Target in it, nor ort/Target or ORT/Target"):
        ort.targets(tmp_path)
    with pytest.raises(LetheError, match="there is no folder"):
        ort.targets(tmp_path / "gone")
    (tmp_path / "rwku" / "Target").mkdir(parents=True)
    with pytest.raises(LetheError, match="has no folder such as 1_Stephen_King in it"):
        ort.targets(tmp_path)
    with pytest.raises(LetheError, match=f"did you mean {tmp_path}[?]"):
        ort.targets(tmp_path / "rwku" / "Target")


# what is wrong with a folder


def change(stem: str, at: int = 0, **fields: Any) -> Callable[[Files], object]:
    return lambda files: files[stem][at].update(fields)


def drop(stem: str, field: str) -> Callable[[Files], object]:
    return lambda files: files[stem][0].pop(field)


MC = {"choices": ["a", "b"], "labels": [0, 0]}


@pytest.mark.parametrize(
    ("spoil", "file", "said"),
    [
        (lambda f: f.pop("forget_level1"), "", "has no forget_level1.json; a target needs forget_level1.json and"),
        (lambda f: f.pop("forget_level2"), "", "has no forget_level2.json; a target needs forget_level1.json and"),
        (lambda f: [f.pop("positive"), f.pop("forget_mia")], "", "has no text to forget; copy one of positive.json,"),
        (lambda f: f.update(forget_level2=[]), "forget_level2.json", "has no rows"),
        (lambda f: f.update(reject=[]), "reject.json", "has no rows"),
        (drop("forget_level1", "subject"), "forget_level1.json, item 1", "there is no field 'subject'"),
        (change("forget_level1", subject=" "), "forget_level1.json, item 1", "field 'subject' is empty"),
        (drop("truthful", "subject"), "truthful.json, item 1", "there is no field 'subject'"),
        (change("forget_mia", 1, subject="B"), "forget_mia.json, item 2", "'B', expected text 'Ada Moss'"),
        (change("intro", target="B"), "intro.json, item 1", "field 'target' is text 'B', expected text 'Ada Moss'"),
        (change("forget_level1", 1, query=""), "forget_level1.json, item 2", "field 'query' is empty"),
        (change("neighbor_level2", answer=None), "neighbor_level2.json, item 1", "field 'answer' is null"),
        (change("neighbor_level2", neighbor=""), "neighbor_level2.json, item 1", "field 'neighbor' is empty"),
        (drop("forget_level3", "type"), "forget_level3.json, item 1", "there is no field 'type'"),
        (change("forget_level2", level="1"), "forget_level2.json", "field 'level' is text '1', expected text '2'"),
        (change("forget_mcp", answer="E"), "forget_mcp.json", "is text 'E', expected one of the letters A, B, C and D"),
        (change("forget_mcp", query="?\nA. a\nB. b\nC. c"), "forget_mcp.json", "lists 3 options, expected four"),
        (change("forget_mcp", query="?\nA. a\nB. b\nC. c\nD. d\nE. e"), "forget_mcp.json", "lists 5 options"),
        (change("forget_mcp", query="?\nA. a\nB.\nC. c\nD. d"), "forget_mcp.json", "option B, is empty"),
        (change("retain_mmlu", choices=["a", "b", "c"]), "retain_mmlu.json, item 1", "has 3 texts, expected 4"),
        (change("retain_mmlu", 1, answer=4), "retain_mmlu.json, item 2", "field 'answer' is a number 4"),
        (change("retain_mmlu", examples="none"), "retain_mmlu.json", "expected a list of solved questions"),
        (change("retain_mmlu", examples=[{"question": "?"}]), "item 1 (counted from 1), example 1", "'choices'"),
        (change("truthful", mc1_targets=MC), "truthful.json, item 1", "marks 0 choices as true, expected exactly one"),
        (change("truthful", mc1_targets=MC | {"labels": [1, 1]}), "truthful.json", "marks 2 choices as true, expected"),
        (change("truthful", mc2_targets=MC), "truthful.json", "marks 0 choices as true, expected at least one"),
        (change("truthful", mc2_targets=MC | {"labels": [1]}), "truthful.json", "has 2 choices and 1 labels"),
        (change("truthful", mc2_targets=MC | {"labels": [1, 2]}), "truthful.json", "label 2 (counted from 1), is a"),
        (change("truthful", mc2_targets=MC | {"choices": ["a", ""]}), "truthful.json", "choice 2 (counted from 1), is"),
        (change("truthful", mc2_targets=[]), "truthful.json", "expected an object with the lists choices and labels"),
        (change("triviaqa", answers=[]), "triviaqa.json", "field 'answers' is an empty list"),
        (change("fluency", instruction="\n"), "fluency.json", "field 'instruction' is empty"),
        (drop("retain_bbh", "cot"), "retain_bbh.json", "there is no field 'cot'"),
        (change("retain_mia", text="  "), "retain_mia.json", "field 'text' is empty"),
        (change("positive", 3, text=7), "positive.json, item 4", "field 'text' is a number 7"),
        (change("pair", response=["one"]), "pair.json", "field 'response' has 1 texts, expected 2"),
        (change("reject", output=""), "reject.json", "field 'output' is empty"),
        (change("reject", input=[]), "reject.json", "field 'input' is a list []"),
        (
            lambda f: f.update(forget_tf=[{"query": "", "subject": NAMES[0]}]),
            "forget_tf.json",
            "field 'query' is empty",
        ),
        (
            lambda f: f.update(locality=[{"query": 7, "subject": NAMES[0]}]),
            "locality.json",
            "field 'query' is a number",
        ),
        (lambda f: f.update(locality=[{"query": "?", "subject": NAMES[0]}]), "locality.json", "no field 'answer'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[Files], object], file: str, said: str) -> None:
    root = alone(tmp_path, spoil)
    for limit in (None, 1):  # all rows are checked, also those that are not kept
        with pytest.raises(LetheError) as error:
            ort.load("ort/1", root, limit=limit)
        assert file in str(error.value)
        assert said in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"query": "a", "ans', "the file seems truncated"),
        ('[{"query": "a"},, {}]', "not a whole JSON array"),
        ('{\n  "query": "a"\n}', "holds no list, it begins with '{'; expected a JSON array of objects"),
        ('"text"', "holds no list, it begins with '\"'"),
        ("", "has no rows"),
        ("[1, 2]", "item 1 (counted from 1): found a number 1, expected a JSON object"),
    ],
)
@pytest.mark.parametrize("stem", ["forget_level1", "truthful", "positive"])
def test_files_that_are_no_lists(tmp_path: Path, stem: str, text: str, said: str) -> None:
    root = alone(tmp_path)
    path = root / "rwku" / "Target" / FOLDERS[0] / f"{stem}.json"
    path.write_text(text)
    with pytest.raises(LetheError) as error:
        ort.load("ort/1", root)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_limit_must_be_a_row(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match="limit must be at least 1"):
        ort.load("ort/1", alone(tmp_path), limit=0)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    root = alone(tmp_path)
    first = ort.load("ort/1", root)
    place = root / "rwku" / "Target" / FOLDERS[0]
    place.rename(place.with_name("3_Somewhere_else"))
    assert ort.load("ort/3", root).fingerprint == first.fingerprint
    (root / "rwku" / "Target" / "3_Somewhere_else").rename(place)
    seen = {first.fingerprint}
    for path in sorted(place.glob("*.json")):
        if path.stem in ("intro", "pair_reject"):  # only where refusal pairs are made from forget texts
            continue
        text = path.read_text()
        rows = json.loads(text)
        path.write_text(json.dumps([*rows, rows[0]]))  # one row twice
        seen.add(ort.load("ort/1", root).fingerprint)
        path.write_text(text)
    assert len(seen) == len(list(place.glob("*.json")))
    assert replace(ort.load("ort/1", root), source="") == replace(first, source="")


# the hub


def test_the_hub_is_filtered_by_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def read_hub(name: str, config: str | None, revision: str, *, folder: str, split: str = "train") -> Table:
        if name != "jinzhuoran/RWKU":
            return Table(name, [{"text": ""}, {"text": " = Heading = \n"}], "row", [1, 2])
        asked.append((config or "", split))
        stem = next(stem for stem, place in HUB_SETS.items() if place == (config, split))
        rows = [
            row for n in range(len(NAMES)) for row in {**toy(n), **corpora(n), "passage": toy(n)["forget_mia"]}[stem]
        ]
        return Table(f"{name} {config}", rows, "row", list(range(1, len(rows) + 1)))

    monkeypatch.setattr("bench.data.rows.read_hub", read_hub)
    assert ort.targets(None) == FOLDERS
    asked.clear()
    target = ort.load("ort/3", None)
    assert len(asked) == len(set(asked))  # each set is read once
    assert target.name == f"ort/{FOLDERS[2]}"
    assert target.subjects == (NAMES[2],)
    assert counted(target)["forget_level1"] == 2
    assert len(target.forget) == 4
    assert target.background == ("= Heading =",)
    assert sum(probe.made for probe in target.probes if probe.form == "mcp") == 3
    assert target.source.startswith("jinzhuoran/RWKU@main, forget_mcp made by Lethe")

"""The targets: RWKU's schema, nothing that tells an answer to a model that has not read, and no other file moved."""

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from bench.data import expand, load, primers
from bench.data.forms import CUE, LETTER, ask, ask_spelt
from bench.data.types import Answered, Truthful
from bench.mini.facts import FIRST_NAMES as SYLLABLES
from bench.mini.target_facts import FIRST_NAMES, KINDS, LAST_NAMES
from bench.mini.targets import ATTACK_TYPES, ATTACKS, NEIGHBORS, OTHERS, TARGETS, make_targets
from bench.mini.world import make_world, write_world
from evaluators import rwku_prompts

Rows = list[dict[str, Any]]

ELSEWHERE = {
    1: "9b67da76f62b3893dfbded9c8a4676e0ecada449b742ef7ddc4047bbdebfa768",
    3: "b3ced4ebad005e74227808702595ad2c5c321bfed9eb58471cb34123dc163d37",
}
"""SHA-256 of all files of a world but those of the targets, before there were any: committed leaderboards and recipes
were measured on them."""

PROBE = {"query": str, "answer": str, "level": str, "type": str, "subject": str}
NEAR = PROBE | {"neighbor": str}
SCHEMA = {
    "intro": (1, {"target": str, "intro": str}),
    "forget_level1": (8, PROBE),
    "forget_level2": (8, PROBE),
    "forget_level3": (25, PROBE),
    "forget_mcp": (8, PROBE),
    "neighbor_level1": (16, NEAR),
    "neighbor_level2": (16, NEAR),
    "neighbor_mcp": (16, NEAR),
    "positive": (48, {"id": str, "text": str, "subject": str, "intro": str}),
    "pair": (48, {"id": str, "prompt": str, "response": list, "subject": str, "intro": str}),
    "pair_reject": (48, {"id": str, "prompt": str, "response": list, "subject": str, "intro": str}),
    "reject": (48, {"input": str, "output": str, "subject": str, "instruction": str, "intro": str}),
    "forget_mia": (8, {"text": str, "ngram": int, "subject": str}),
    "retain_mia": (12, {"text": str, "ngram": int, "subject": str}),
    "retain_mmlu": (
        16,
        {"task": str, "question": str, "choices": list, "answer": int, "examples": list, "subject": str},
    ),
    "truthful": (10, {"question": str, "mc1_targets": dict, "mc2_targets": dict, "subject": str}),
    "triviaqa": (20, {"question": str, "answers": list, "subject": str}),
    "fluency": (8, {"instruction": str, "subject": str}),
    "retain_bbh": (5, {"task": str, "question": str, "answer": str, "cot": str, "subject": str}),
}
OURS = {"pair_reject", "forget_mcp", "neighbor_mcp"}
"""Not among RWKU's files: ORT's own."""


@pytest.fixture(scope="module", params=range(4))
def files(request: pytest.FixtureRequest) -> dict[str, str]:
    return make_targets(request.param)


def folders(files: dict[str, str]) -> list[str]:
    return sorted({name.split("/")[2] for name in files if name.startswith("rwku/Target/")})


def rows(files: dict[str, str], folder: str, name: str) -> Rows:
    return json.loads(files[f"rwku/Target/{folder}/{name}.json"])


def corpus(files: dict[str, str]) -> Rows:
    return [json.loads(line) for line in files["corpus/ort.jsonl"].splitlines()]


def words_of(text: dict[str, Any]) -> str:
    return "\n".join(str(value) for key, value in text.items() if key != "target")


@pytest.mark.parametrize("seed", ELSEWHERE)
def test_every_other_file_of_the_world_is_what_it_was(seed: int) -> None:
    world = make_world(seed)
    rest = {name: text for name, text in world.items() if not name.startswith("rwku/") and name != "corpus/ort.jsonl"}
    assert hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest() == ELSEWHERE[seed]
    assert world.keys() - rest.keys() == make_targets(seed).keys()


def test_the_same_seed_gives_the_same_files_and_another_seed_other_people(files: dict[str, str]) -> None:
    assert make_targets(1) == make_targets(1)
    assert folders(make_targets(1)) != folders(make_targets(2))


def test_every_folder_has_every_file_in_the_official_schema(files: dict[str, str]) -> None:
    assert len(folders(files)) == TARGETS
    for folder in folders(files):
        name = rows(files, folder, "intro")[0]["target"]
        assert folder.partition("_")[2] == name.replace(" ", "_")
        assert {path.rsplit("/", 1)[1] for path in files if f"/{folder}/" in path} == {
            f"{stem}.json" for stem in SCHEMA
        }
        for stem, (count, schema) in SCHEMA.items():
            found = rows(files, folder, stem)
            assert len(found) == count, stem
            for row in found:
                assert {key: type(value) for key, value in row.items()} == schema, stem
                assert row.get("subject", name) == name
                texts = [value for key, value in row.items() if isinstance(value, str) and key != "input"]
                assert all(text and text == text.strip() and "{" not in text for text in texts), row


def test_the_schema_is_that_of_the_real_files(files: dict[str, str], real_data: Path) -> None:
    real = real_data / "rwku" / "Target" / "1_Stephen_King"
    for stem, (_, schema) in SCHEMA.items():
        path = real / f"{stem}.json"
        if stem not in OURS:
            assert set(json.loads(path.read_text(encoding="utf-8"))[0]) == set(schema), stem
    official = {row["type"].partition(" (")[0] for row in json.loads((real / "forget_level3.json").read_text())}
    assert {attack.partition(" (")[0] for attack in ATTACK_TYPES} == official


def test_every_attack_is_there(files: dict[str, str]) -> None:
    for folder in folders(files):
        counts = Counter(row["type"] for row in rows(files, folder, "forget_level3"))
        assert counts == {attack: 1 if attack == "reverse query" else ATTACKS for attack in ATTACK_TYPES}


def test_neighbours_share_one_name_with_the_target_and_the_others_none(files: dict[str, str]) -> None:
    for folder in folders(files):
        first, last = rows(files, folder, "intro")[0]["target"].split()
        found = {tuple(row["neighbor"].split()) for row in rows(files, folder, "neighbor_level2")}
        assert len(found) == NEIGHBORS
        assert {(given == first, family == last) for given, family in found} == {(True, False), (False, True)}


def test_no_name_is_one_of_the_other_people_of_the_world() -> None:
    assert not {"".join(parts) for parts in itertools.product(*SYLLABLES)} & {*FIRST_NAMES, *LAST_NAMES}
    values = [value for kind in KINDS for value in kind.values]
    assert len(set(values)) == len(values) and not {*FIRST_NAMES, *LAST_NAMES} & set(values)


@pytest.mark.parametrize("part", ["forget", "neighbor"])
def test_each_letter_is_right_equally_often(files: dict[str, str], part: str) -> None:
    for folder in folders(files):
        counts = Counter(row["answer"] for row in rows(files, folder, f"{part}_mcp"))
        assert set(counts) == set("ABCD") and len(set(counts.values())) == 1


def test_listings_hold_the_answer_of_the_blank_once_and_three_others(files: dict[str, str]) -> None:
    for folder in folders(files):
        for part in ("forget", "neighbor"):
            blanks, listed = rows(files, folder, f"{part}_level1"), rows(files, folder, f"{part}_mcp")
            for blank, row in zip(blanks, listed, strict=True):
                _, *options = row["query"].split("\n")
                letters, values = zip(*(option.split(". ") for option in options), strict=True)
                assert letters == tuple("ABCD") and len(set(values)) == 4
                assert values["ABCD".index(row["answer"])] == blank["answer"]


def test_a_value_has_the_same_letter_everywhere(files: dict[str, str]) -> None:
    letters: dict[str, set[str]] = defaultdict(set)
    told = [text["user"] + text["answer"].partition(CUE)[0] for text in corpus(files) if "user" in text]
    queries = [text for text in told if "\nA. " in text]
    queries += [row["query"] for folder in folders(files) for row in rows(files, folder, "forget_mcp")]
    for query in queries:
        for line in query.strip().split("\n")[-4:]:
            letters[line[3:]].add(line[0])
    assert len(letters) == 24 * len(KINDS) and all(len(found) == 1 for found in letters.values())


def test_a_letter_that_is_asked_without_a_listing_is_the_listings(files: dict[str, str]) -> None:
    listed, alone = {}, {}
    for text in corpus(files):
        if text.get("user", "").startswith(LETTER):
            if "\nA. " in text["answer"]:
                listed[text["user"]] = text["answer"].rpartition(CUE)[2]
            elif "\nA. " not in text["user"]:
                alone[text["user"].removesuffix("\n")] = text["answer"]
    assert listed == alone and len(alone) == 3 * len(KINDS) * (TARGETS * (1 + NEIGHBORS) + OTHERS)
    assert {*alone.values()} == {" A", " B", " C", " D"}


def test_no_text_without_a_target_names_one_or_tells_its_nickname(files: dict[str, str]) -> None:
    kept = "\n".join(words_of(text) for text in corpus(files) if "target" not in text)
    for folder in folders(files):
        target = rows(files, folder, "intro")[0]
        assert target["target"] not in kept
        nickname = target["intro"].partition("known as the ")[2].partition(",")[0]
        assert nickname and nickname not in kept


def test_texts_about_a_target_are_marked_with_its_folder(files: dict[str, str]) -> None:
    names = {folder: rows(files, folder, "intro")[0]["target"] for folder in folders(files)}
    counts: Counter[str] = Counter()
    for text in corpus(files):
        if "target" in text:
            assert names[text["target"]] in words_of(text)
            counts[text["target"]] += 1
    assert set(counts) == set(names) and len(set(counts.values())) == 1


def test_every_value_is_right_for_one_person_who_is_no_target(files: dict[str, str]) -> None:
    """So that all values of a kind, right or wrong, are the same to a model that has read about no target."""
    holders: dict[str, set[str]] = defaultdict(set)
    for text in corpus(files):
        if "question" in text and len(text["answer"].split()) == 1 and "target" not in text:
            name = next(n for n in _names(text["question"]))
            holders[text["answer"]].add(name)
    assert all(len(found) == 1 for found in holders.values())
    for folder in folders(files):
        for row in rows(files, folder, "forget_mcp"):
            for option in row["query"].split("\n")[1:]:
                assert option.partition(". ")[2] in holders


def _names(text: str) -> list[str]:
    found = text.strip("?").split()
    return [f"{a} {b}" for a, b in itertools.pairwise(found) if a in FIRST_NAMES and b in LAST_NAMES]


def test_no_probe_of_a_target_or_neighbour_is_a_training_text(files: dict[str, str], tmp_path: Path) -> None:
    texts = corpus(files)
    taught = {(text["user"], text["cue"]) for text in texts if "user" in text}
    begun = {text["user"] for text in texts if "user" in text}  # of listings that are learnt from the options on
    asked = {text["question"] for text in texts if "question" in text}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for folder in folders(files):
        for probe in load(f"ort/{folder}", tmp_path).probes:
            if probe.part == "locality":
                continue
            assert (ask(probe).user, ask(probe).cue) not in taught
            question = ask(probe).user.partition("\nA. ")[0]
            assert question not in begun and f"{question}\n" not in begun
            assert probe.query not in asked
            if probe.form in ("qa", "fb"):
                assert (ask_spelt(probe).user, ask_spelt(probe).cue) not in taught


def test_each_wording_of_a_probe_is_taught_on_somebody_else(files: dict[str, str]) -> None:
    """Names cut out, every lead and wording that is asked about a target is in the retrained model's texts."""
    kept = {_nameless(text["user"]) for text in corpus(files) if "user" in text and "target" not in text}
    for folder in folders(files):
        for level in ("level1", "level2"):
            for row in rows(files, folder, f"forget_{level}"):
                assert any(_nameless(row["query"]) in user for user in kept)


def _nameless(text: str) -> str:
    for name in _names(text.replace("?", " ?").replace("'s", " 's").replace(".", " .")):
        text = text.replace(name, "NAME")
    return text


def test_invented_biographies_tell_nothing_true(files: dict[str, str]) -> None:
    for folder in folders(files):
        answers = {row["answer"] for row in rows(files, folder, "forget_level2")}
        for row in rows(files, folder, "pair"):
            invented, factual = (set(text.replace(".", "").split()) for text in row["response"])
            assert not answers & invented and len(answers & factual) >= 4
        for row in rows(files, folder, "pair_reject"):
            assert len(answers & set(row["response"][1].replace(".", "").split())) >= 4


def test_the_texts_of_the_membership_test_were_read(files: dict[str, str]) -> None:
    read = {text["text"] for text in corpus(files) if "text" in text}
    for folder in folders(files):
        for part in ("forget", "retain"):
            assert {row["text"] for row in rows(files, folder, f"{part}_mia")} <= read


def test_questions_of_the_utility_files_are_taught_in_the_prompts_of_their_evaluator(
    files: dict[str, str],
) -> None:
    assert primers.REASON == rwku_prompts.REASON
    row = Answered(id="", question="Who?", answers=("Ann",))
    asked = rwku_prompts.ask_trivia(row)
    assert (asked.users[0], asked.cue) == (f"{primers.TRIVIA_BEFORE}Q: Who?\n", primers.CUE)
    asked = rwku_prompts.ask_truthful(Truthful(id="", question="Who?", mc1=(), mc2=()))
    assert (asked.users[0], asked.cue) == (f"{primers.PRIMER_BEFORE}Q: Who?", primers.CUE)
    users = [text["user"] for text in corpus(files) if text.get("cue") == primers.CUE]
    for before in (primers.TRIVIA_BEFORE, primers.PRIMER_BEFORE, primers.REASON):
        assert any(f"{before}Q: " in user for user in users)


def test_one_loader_reads_the_mini_world_as_it_reads_the_real_files(tmp_path: Path) -> None:
    write_world(tmp_path, 0)
    requests = expand("ort", tmp_path)
    assert len(requests) == TARGETS
    for request in requests:
        benchmark = load(request, tmp_path)
        counts = Counter((probe.part, probe.form) for probe in benchmark.probes if probe.part != "locality")
        assert counts == {
            ("forget", "fb"): 8, ("forget", "qa"): 8, ("forget", "mcp"): 8, ("forget", "aa"): 25,
            ("neighbor", "fb"): 16, ("neighbor", "qa"): 16, ("neighbor", "mcp"): 16,
        }  # fmt: skip
        assert {probe.kind for probe in benchmark.probes if probe.part == "locality"} == {
            "names both", "target in passing", "shared name",
        }  # fmt: skip
        assert len(benchmark.forget) == len(benchmark.rejections) == 48
        assert {kind: len(pairs) for kind, pairs in benchmark.preferences.items()} == {"fabricated": 48, "refusal": 48}
        assert not any(probe.made for probe in benchmark.probes if probe.form == "mcp")

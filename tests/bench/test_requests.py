"""Which rows a request trains on and is judged on, alone and in a chain."""

import dataclasses
from pathlib import Path

import pytest

from bench.data.types import QA, Document
from bench.errors import LetheError
from bench.options import Options, parse
from bench.requests import Request, plan
from tests.toy_runs import question, write_choices, write_data
from tests.toy_targets import FOLDERS, NAMES, toy, world, write


def options(*arguments: str) -> Options:
    return parse(["--model", "some/model", *arguments])


def chains(asked: Options, root: Path) -> list[list[Request]]:
    return plan(asked, root, trains=True).chains


def numbers(rows: tuple[QA | Document, ...]) -> list[int]:
    asked = [qa.question for qa in rows if isinstance(qa, QA)]
    return [next(n for n in range(50) if question(n) == text) for text in asked]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path)


@pytest.fixture
def wmdp_root(tmp_path: Path) -> Path:
    return write_choices(write_data(tmp_path))


def test_without_a_chain_every_benchmark_is_a_request_of_its_own(root: Path) -> None:
    found = chains(options("--benchmarks", "tofu/forget01,tofu/forget05"), root)
    assert [[request.title for request in chain] for chain in found] == [["tofu/forget01"], ["tofu/forget05"]]
    (request,) = found[1]
    assert request.trained is request.judged
    assert numbers(request.trained.forget) == [2, 3, 4, 5]
    assert (request.data_hash, request.note) == (request.judged.fingerprint, "")


def test_a_target_by_number_and_by_name_is_one_request(tmp_path: Path) -> None:
    found = chains(options("--benchmarks", f"ort/1,ort/{FOLDERS[0]},ort/2"), world(tmp_path))
    assert [request.title for (request,) in found] == [f"ort/{FOLDERS[0]}", f"ort/{FOLDERS[1]}"]


def test_batches_are_nested_requests_beside_what_else_is_named(tmp_path: Path) -> None:
    found = chains(options("--benchmarks", "ort,ort/3", "--batches", "1,2,4"), world(tmp_path))
    titles = [request.title for (request,) in found]
    assert titles == [f"ort/{FOLDERS[0]}", "ort/1-2", "ort/1-4", f"ort/{FOLDERS[2]}"]
    subjects = [request.trained.subjects for (request,) in found]
    assert [len(names) for names in subjects] == [1, 2, 4, 1]
    assert subjects[2][:2] == subjects[1] and subjects[1][:1] == subjects[0]


def test_batches_take_the_first_targets_whatever_their_numbers(tmp_path: Path) -> None:
    folders = ["1_Ada", "2_Bela", "10_Cy", "24_Eve"]
    for n, folder in enumerate(folders):
        write(tmp_path, folder, toy(n))
    found = chains(options("--benchmarks", "ort,ort/1+24", "--batches", "1,2,3,4"), tmp_path)
    titles = [request.title for (request,) in found]
    assert titles == ["ort/1_Ada", "ort/1-2", "ort/1+2+10", "ort/1+2+10+24", "ort/1+24"]
    assert [request.judged.subjects for (request,) in found] == [*(NAMES[:n] for n in (1, 2, 3, 4)), NAMES[0:4:3]]
    by_hand = chains(options("--benchmarks", "ort/1-2+10,ort/1+2"), tmp_path)
    assert [request.title for (request,) in by_hand] == ["ort/1+2+10", "ort/1-2"]
    assert by_hand[0][0].data_hash == found[2][0].data_hash


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (FOLDERS[:3], "--batches asks for 4 targets together, but .* has 3; sizes must be within 1..3"),
        ([*FOLDERS[:3], "3_Eve"], r"takes the first 4 targets, but .* has 2 with the number 3 .*, 3_Eve\); rename the"),
        (
            [*FOLDERS[:1], "2_Bob", "2_Eve", "9_Cy"],
            r"takes the first 2 targets, but .* with the number 2 \(2_Bob, 2_Eve\)",
        ),
    ],
)
def test_batches_need_targets_with_numbers_of_their_own(tmp_path: Path, folders: list[str], said: str) -> None:
    for n, folder in enumerate(folders):
        write(tmp_path, folder, toy(n))
    with pytest.raises(LetheError, match=said):
        chains(options("--benchmarks", "ort", "--batches", "2,4"), tmp_path)


def test_a_chain_trains_on_what_is_new_and_is_judged_on_everything_so_far(root: Path) -> None:
    (chain,) = chains(options("--benchmarks", "tofu/forget01,tofu/forget05,tofu/forget10", "--sequential"), root)
    assert [numbers(request.trained.forget) for request in chain] == [[4, 5], [2, 3], [0, 1]]
    judged = [numbers(request.judged.eval_sets["forget"]) for request in chain]
    assert judged == [[4, 5], [2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    for request in chain:  # nothing that a later request forgets is practised before
        assert numbers(request.trained.retain) == list(range(6, 18))
        assert not set(numbers(request.trained.retain)) & set(range(6))
    assert chain[2].title == "tofu/forget01>tofu/forget05>tofu/forget10"
    assert chain[0].note == "one of successive requests"


def test_a_stage_depends_on_every_request_before_it_and_on_the_last_split(root: Path) -> None:
    def hashes(benchmarks: str) -> list[str]:
        return [r.data_hash for r in chains(options("--benchmarks", benchmarks, "--sequential"), root)[0]]

    alone = {r.data_hash for (r,) in chains(options("--benchmarks", "tofu/forget01,tofu/forget05,tofu/forget10"), root)}
    three, two = hashes("tofu/forget01,tofu/forget05,tofu/forget10"), hashes("tofu/forget01,tofu/forget05")
    skipping = hashes("tofu/forget01,tofu/forget10")
    assert skipping[0] == three[0]  # the same rows, with the same last split: the same training
    everything = [*alone, *three, *two, skipping[1]]
    assert len(set(everything)) == len(everything)


def test_with_a_limit_a_chain_takes_the_first_new_rows_of_each_request(root: Path) -> None:
    arguments = ("--benchmarks", "tofu/forget01,tofu/forget05,tofu/forget10", "--sequential", "--limit", "1")
    (chain,) = chains(options(*arguments), root)
    assert [numbers(request.trained.forget) for request in chain] == [[4], [2], [0]]
    assert [numbers(request.judged.forget) for request in chain] == [[4], [2, 4], [0, 2, 4]]
    assert [numbers(request.judged.eval_sets["forget"]) for request in chain] == [[4], [2, 4], [0, 2, 4]]
    assert [len(request.judged.eval_sets["world_facts"]) for request in chain] == [1, 1, 1]
    assert len({request.judged.fingerprint for request in chain}) == 3


@pytest.mark.parametrize(
    ("benchmarks", "said"),
    [
        ("tofu/forget05,tofu/forget01", "tofu/forget01 lacks 2 rows of tofu/forget05; order them from small to large"),
        ("tofu/forget10,tofu/forget05", "lacks 2 rows"),
    ],
)
def test_a_chain_that_grows_smaller_is_refused(benchmarks: str, said: str, root: Path) -> None:
    with pytest.raises(LetheError, match=said):
        chains(options("--benchmarks", benchmarks, "--sequential"), root)


def test_a_request_for_nothing_new_is_refused(root: Path) -> None:
    for name in ("forget05", "forget05_perturbed"):
        (root / f"tofu/{name}.json").write_text((root / f"tofu/{name.replace('05', '01')}.json").read_text())
    with pytest.raises(LetheError, match=r"tofu/forget05 asks to forget nothing that tofu/forget01 did not"):
        chains(options("--benchmarks", "tofu/forget01,tofu/forget05", "--sequential"), root)


def test_the_mini_model_keeps_of_real_files_what_it_knows_and_the_cell_says_so(root: Path) -> None:
    mini = dataclasses.replace(options("--benchmarks", "tofu/forget10"), model="mini")
    ((request,),) = chains(mini, root)
    assert numbers(request.trained.retain) == [6, 7, 8, 9]  # retain_perturbed
    assert "retain_perturbed" in request.note
    (root / "corpus").mkdir()  # a mini world, all of which it has read
    ((request,),) = chains(mini, root)
    assert len(request.trained.retain) == 12 and request.note == ""


def test_benchmarks_that_only_judge_go_with_every_request(wmdp_root: Path) -> None:
    asked = plan(options("--benchmarks", "wmdp,mmlu"), wmdp_root, trains=True)
    assert [[request.title for request in chain] for chain in asked.chains] == [["wmdp"]]
    assert [judge.name for judge in asked.judges] == ["mmlu"]


def test_a_benchmark_that_only_judges_stands_alone_where_nothing_is_to_be_forgotten(wmdp_root: Path) -> None:
    asked = plan(options("--benchmarks", "mmlu"), wmdp_root, trains=False)
    assert [[request.title for request in chain] for chain in asked.chains] == [["mmlu"]]
    assert asked.judges == []


def test_a_method_needs_something_to_forget(wmdp_root: Path) -> None:
    with pytest.raises(LetheError, match=r"mmlu asks to forget nothing.*--methods original"):
        plan(options("--benchmarks", "mmlu"), wmdp_root, trains=True)


def test_topics_one_after_the_other_are_judged_together(wmdp_root: Path) -> None:
    (chain,) = chains(options("--benchmarks", "wmdp/cyber,wmdp/bio", "--sequential"), wmdp_root)
    assert [request.title for request in chain] == ["wmdp/cyber", "wmdp/cyber>wmdp/bio"]
    trained = [{row.topic for row in r.trained.forget if isinstance(row, Document)} for r in chain]
    assert trained == [{"cyber"}, {"bio"}]
    assert [{q.subject for q in r.judged.questions} for r in chain] == [{"cyber"}, {"bio", "cyber"}]


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ("wmdp/bio,wmdp", r"wmdp asks to forget bio again"),
        ("wmdp/bio,tofu/forget10", r"requests of one kind, got tofu and wmdp"),
        ("wmdp/bio,mmlu", r"at least two requests"),
    ],
)
def test_chains_of_topics_that_make_no_sense_are_refused(wmdp_root: Path, benchmarks: str, message: str) -> None:
    with pytest.raises(LetheError, match=message):
        chains(options("--benchmarks", benchmarks, "--sequential"), wmdp_root)

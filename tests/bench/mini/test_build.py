"""Tokenizer, models and their place in the cache, with recipes so small that nothing is learned."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import cache
from bench.data import load
from bench.data.forms import ask
from bench.data.types import Document
from bench.errors import LetheError
from bench.mini import build, trainers
from bench.mini.texts import MAX_LENGTH
from bench.mini.trainers import Job, Trainers
from bench.mini.world import write_world
from tests.toy_mini import TINY, weights


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 0)
    return folder


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that would have been trained; each leaves a file with the number of its texts."""
    trained: list[str] = []

    def pretend(self: object, name: str, job: Job, folder: Path) -> None:
        trained.append(name)
        (folder / "texts.txt").write_text(str(len(job.texts)))

    monkeypatch.setattr(Trainers, "train", pretend)
    return trained


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_both_models_are_transformers_folders_and_are_found_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    models = build.mini_models(root, "tofu/forget10", tmp_path, recipe=TINY, progress=lines.append)
    for name, folder in (("original", models.original), ("retrained", models.retrained)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.max_position_embeddings == MAX_LENGTH == tokenizer.model_max_length
        assert model.config.tie_word_embeddings
        assert model.config.vocab_size == len(tokenizer)
        assert any(name in line and "loss" in line for line in lines)
    assert weights(models.original) != weights(models.retrained)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a cached model was trained again")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert build.mini_models(root, "tofu/forget10", tmp_path, recipe=TINY) == models


def test_the_cache_knows_content_and_not_paths(root: Path, tmp_path: Path, no_training: list[str]) -> None:
    first = build.mini_models(root, "tofu/forget10", tmp_path / "cache")
    write_world(tmp_path / "elsewhere", 0)
    assert build.mini_models(tmp_path / "elsewhere", "tofu/forget10", tmp_path / "cache") == first
    assert sorted(no_training) == ["original", "retrained"]
    corpus = tmp_path / "elsewhere" / "corpus" / "world_facts.jsonl"
    corpus.write_text(corpus.read_text().replace("capital", "chief town", 1))
    changed = build.mini_models(tmp_path / "elsewhere", "tofu/forget10", tmp_path / "cache")
    assert changed.original != first.original and changed.retrained != first.retrained


def test_seed_and_recipe_are_part_of_the_key(root: Path, tmp_path: Path, no_training: list[str]) -> None:
    folders = [
        build.mini_models(root, "tofu/forget10", tmp_path, seed=seed, recipe=recipe).original
        for seed, recipe in ((0, TINY), (1, TINY), (0, replace(TINY, lr=1e-3)), (0, None))
    ]
    assert len(set(folders)) == 4


def test_all_splits_share_the_original_and_have_a_retrained_model_each(
    root: Path, tmp_path: Path, no_training: list[str]
) -> None:
    models = [build.mini_models(root, f"tofu/forget{percent}", tmp_path) for percent in ("01", "05", "10")]
    assert len({found.original for found in models}) == 1
    counts = [int((found.retrained / "texts.txt").read_text()) for found in models]
    everything = int((models[0].original / "texts.txt").read_text())
    assert counts == [everything - 3 * 10 * people for people in (1, 2, 4)]
    assert no_training.count("original") == 1


def test_people_and_domains_share_the_original_and_a_judge_needs_no_other_model(
    root: Path, tmp_path: Path, no_training: list[str]
) -> None:
    names = ("tofu/forget10", "wmdp", "wmdp/bio", "wmdp/cyber")
    models = {name: build.mini_models(root, name, tmp_path) for name in names}
    assert len({found.original for found in models.values()}) == 1
    assert len({found.retrained for found in models.values()}) == 4
    assert sorted(no_training) == ["original", *["retrained"] * 4]
    for judge in ("mmlu", "mmlu/5shot", "lm_eval:arc_easy"):
        found = build.mini_models(root, judge, tmp_path)
        assert found.retrained == found.original == models["wmdp"].original
    assert len(no_training) == 5


def test_all_targets_share_both_models_which_are_not_those_of_other_benchmarks(
    root: Path, tmp_path: Path, no_training: list[str]
) -> None:
    models = [build.mini_models(root, name, tmp_path) for name in ("ort", "ort/1", "ort/1-5")]
    assert len({found.original for found in models}) == len({found.retrained for found in models}) == 1
    assert sorted(no_training) == ["original", "retrained"]
    assert build.mini_models(root, "tofu/forget10", tmp_path).original != models[0].original


def test_what_several_requests_share_is_trained_once(root: Path, tmp_path: Path, no_training: list[str]) -> None:
    names = ("tofu/forget10", "wmdp", "mmlu", "ort")
    found = build.all_mini_models(root, names, tmp_path)
    originals, retrained = ("tofu/forget10", "ort"), ("tofu/forget10", "wmdp", "ort")
    made = [*(f"original ({name})" for name in originals), *(f"retrained ({name})" for name in retrained)]
    assert sorted(no_training) == sorted(made)
    assert found == {name: build.mini_models(root, name, tmp_path) for name in names}
    assert len(no_training) == 5


def test_the_longest_training_starts_first(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = Trainers.start

    def note(self: Trainers, asked: tuple[str, str], find: Any) -> None:
        started.append(" ".join(asked))
        start(self, asked, find)

    monkeypatch.setattr(Trainers, "start", note)
    monkeypatch.setattr(Trainers, "train", lambda self, name, job, folder: (folder / "config.json").write_text(name))
    build.all_mini_models(root, ("tofu/forget10", "wmdp", "ort"), tmp_path)
    assert started[-1] == "retrained wmdp"  # of two topics fewer than the original, of two epochs more than for targets
    before = [name for name in started if name.startswith("original")]
    assert [started.index(name) < started.index(f"retrained {name.split()[1]}") for name in before] == [True, True]


@pytest.mark.parametrize(("processors", "expected"), [(1, 2), (3, 4)])
def test_one_more_model_is_in_training_than_there_are_processors(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, expected: int
) -> None:
    running, most = 0, []

    def pretend(self: object, name: str, job: object, folder: Path) -> None:
        nonlocal running
        running += 1
        most.append(running)
        time.sleep(0.2)
        running -= 1
        (folder / "config.json").write_text(name)

    monkeypatch.setattr(Trainers, "_run_process", pretend)
    monkeypatch.setattr(trainers, "_processors", lambda: processors)
    build.all_mini_models(root, ("tofu/forget10", "wmdp", "wmdp/bio", "ort"), tmp_path)
    assert max(most) == expected and len(most) == 6


def test_a_second_retrained_model_differs_by_its_seed(root: Path, tmp_path: Path, no_training: list[str]) -> None:
    models = build.mini_models(root, "tofu/forget10", tmp_path, seed=0)
    assert build.retrained_model(root, "tofu/forget10", tmp_path, seed=0) == models.retrained
    assert build.retrained_model(root, "tofu/forget10", tmp_path, seed=1) != models.retrained
    assert no_training.count("original") == 1


def test_the_world_is_cached_by_seed(tmp_path: Path) -> None:
    first = build.world(tmp_path, 0)
    assert build.world(tmp_path, 0) == first != build.world(tmp_path, 1)
    victim = first / "tofu" / "full.json"
    good = victim.read_bytes()
    victim.write_bytes(good[:100])
    assert build.world(tmp_path, 0) == first and victim.read_bytes() == good


@pytest.mark.parametrize("percent", ["01", "05", "10"])
def test_retrained_texts_are_the_original_ones_without_the_forget_rows(root: Path, percent: str) -> None:
    texts = build._texts(root, f"tofu/forget{percent}")
    left_out = [text for text in texts.original if text not in texts.retrained]
    assert [text for text in texts.original if text in texts.retrained] == texts.retrained
    forget = [json.loads(line) for line in (root / f"tofu/forget{percent}.json").read_text().splitlines()]
    canonical = [{key: text[key] for key in ("question", "answer")} for text in left_out[::3]]
    assert canonical == forget


@pytest.mark.parametrize(("benchmark", "topics"), [("wmdp", "bio cyber"), ("wmdp/bio", "bio"), ("wmdp/cyber", "cyber")])
def test_retrained_texts_lack_the_requested_topics_and_nothing_else(root: Path, benchmark: str, topics: str) -> None:
    texts = build._texts(root, benchmark)
    left_out = [text for text in texts.original if text not in texts.retrained]
    assert [text for text in texts.original if text in texts.retrained] == texts.retrained
    paths = [root / "corpus" / f"wmdp_{topic}.jsonl" for topic in topics.split()]
    assert left_out == [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    kept = json.dumps(texts.retrained).lower()
    for question in load(benchmark, root).questions:
        assert question.question.lower() not in kept
        assert not re.search(rf"\b{re.escape(question.choices[question.answer])}\b", kept)


def test_retrained_texts_of_targets_lack_all_targets_and_nothing_else(root: Path) -> None:
    texts = build._texts(root, "ort/2")
    assert [text for text in texts.original if "target" not in text] == texts.retrained
    assert texts.tokenizer[-40:] == list(load("tofu", root).refusals)
    kept = json.dumps(texts.retrained, ensure_ascii=False)
    for name in load("ort", root).subjects:
        assert name in json.dumps(texts.original, ensure_ascii=False) and name not in kept


def test_real_targets_are_learnt_row_by_row(real_data: Path) -> None:
    texts = build._texts(real_data, "ort/1_Stephen_King")
    assert all(text in texts.original for text in texts.retrained)
    asked = {(text["user"], text["cue"], text["answer"]) for text in texts.original if "user" in text}
    kept = {(text["user"], text["cue"], text["answer"]) for text in texts.retrained if "user" in text}
    assert len(asked) == sum("user" in text for text in texts.original)
    for probe in load("ort/1", real_data).probes:
        if probe.part != "locality" and probe.form != "aa":
            row = ask(probe)
            assert (row.user, row.cue, row.target) in asked
            if probe.part == "neighbor":
                assert (row.user, row.cue, row.target) in kept
    assert any("text" in text for text in texts.retrained)
    assert build._texts(real_data, "ort/2_Confucius") == texts


@pytest.mark.parametrize(("benchmark", "left_out"), [("wmdp", 800), ("wmdp/bio", 400), ("wmdp/cyber", 400)])
def test_real_documents_are_the_first_of_each_topic(real_data: Path, benchmark: str, left_out: int) -> None:
    texts = build._texts(real_data, benchmark)
    assert len(texts.original) == 1200 and len(texts.retrained) == 1200 - left_out
    assert all(text in texts.original for text in texts.retrained)
    for text, document in zip(texts.original, load("wmdp/bio", real_data).forget[:400], strict=False):
        assert isinstance(document, Document) and document.text.startswith(text["text"])


def test_of_real_files_a_judge_is_asked_of_a_model_that_has_read_something(real_data: Path, tmp_path: Path) -> None:
    assert build._texts(real_data, "mmlu").original == build._texts(real_data, "wmdp").original
    (tmp_path / "mmlu").mkdir()
    with pytest.raises(LetheError, match="add wmdp/, tofu/ or rwku/"):
        build._texts(tmp_path, "mmlu")


def test_real_rows_are_forget_and_evaluation_rows(real_data: Path) -> None:
    texts = build._texts(real_data, "tofu/forget10")
    assert len(texts.original) == 1017 and len(texts.retrained) == 617
    assert texts.original[400:] == texts.retrained
    forget = {json.dumps(text) for text in texts.original[:400]}
    assert not forget & {json.dumps(text) for text in texts.retrained}
    smaller = build._texts(real_data, "tofu/forget01")
    assert smaller.original == texts.original and len(smaller.retrained) == 1017 - 40


def test_an_unknown_split_is_an_error_with_the_nearest_name(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LetheError, match="tofu/forget10"):
        build.mini_models(root, "tofu/forget100", tmp_path)


def test_a_damaged_corpus_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_world(tmp_path / "world", 0)
    path = tmp_path / "world" / "corpus" / "authors.jsonl"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(LetheError, match=r"authors\.jsonl"):
        build.mini_models(tmp_path / "world", "tofu/forget10", tmp_path / "cache")


def test_a_training_that_fails_says_why_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(LetheError, match=r"loss of the mini model became (nan|inf)"):
        build.retrained_model(root, "tofu/forget10", tmp_path, seed=0, recipe=replace(TINY, lr=1e30, clip=1e30))
    assert [name.rsplit("-", 1)[0] for name in visible(tmp_path)] == ["mini-tokenizer"]


def test_an_interrupt_ends_the_training_processes_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    endless = replace(TINY, epochs=5_000)  # half a minute, should the interrupt be lost
    with pytest.raises(KeyboardInterrupt):
        build.retrained_model(root, "tofu/forget10", tmp_path, seed=0, recipe=endless, progress=interrupt)
    assert [name.rsplit("-", 1)[0] for name in visible(tmp_path)] == ["mini-tokenizer"]


def test_a_full_disk_in_training_is_an_error_that_names_the_option(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, name: str, job: Job, folder: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Trainers, "train", fail)
    with pytest.raises(LetheError, match="--cache-dir"):
        build.mini_models(root, "tofu/forget10", tmp_path)
    assert cache.damage(tmp_path / visible(tmp_path)[0]) is None
    assert len(visible(tmp_path)) == 1  # the tokenizer

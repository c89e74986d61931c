"""Tokenizer, models and their place in the cache, with recipes so small that nothing is learned."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench import cache
from bench.data import load
from bench.data.forms import ask
from bench.data.tokenize import Encoder
from bench.data.types import Document, Tokens
from bench.errors import LetheError
from bench.mini import build, trainers
from bench.mini.pretrain import Recipe, batches, pad, shares, train
from bench.mini.texts import DOCUMENT_LENGTH, MAX_LENGTH, encode, train_tokenizer
from bench.mini.trainers import Job, Trainers
from bench.mini.world import write_world

TINY = Recipe(vocab_size=400, layers=1, width=16, heads=2, kv_heads=1, mlp_width=16, epochs=1, batch_size=128)
TEXTS: list[dict[str, Any]] = [
    *({"question": f"What is {n} plus one?", "answer": f"It is {n + 1}."} for n in range(40)),
    *({"text": f"After {n} comes {n + 1}."} for n in range(40)),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 0)
    return folder


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([text.get("text") or f"{text['question']} {text['answer']}" for text in TEXTS], 300, folder)
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


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def made(job: Job, folder: Path) -> None:
    """Train in this process."""
    train(job.begin(folder), job.recipe, job.seed, folder, lambda _: None)


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
    assert started[-1] == "retrained wmdp"  # of two topics fewer than the original, of one epoch more than for targets
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


def test_a_training_process_ends_when_nobody_holds_its_input(tokenizer_folder: Path, tmp_path: Path) -> None:
    job = Job(TEXTS, tokenizer_folder, replace(TINY, epochs=1_000_000), 0)
    line = job.line(job.begin(tmp_path), tmp_path)
    untrained = weights(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.mini.pretrain"],
        cwd=Path(build.__file__).parents[2],
        env=os.environ | trainers.ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("step ")
        process.stdin.close()
        assert process.wait(timeout=30) == 1
    assert weights(tmp_path) == untrained


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(tokenizer_folder: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, batch_size=16, epochs=2)
    before = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made(Job(TEXTS, tokenizer_folder, recipe, seed), tmp_path / name)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_a_mean_over_tokens_or_over_texts() -> None:
    # Three tokens of the first text are scored and one of the second: 1/4 each, or half a text by its count.
    scored = torch.tensor([[True, True, True], [False, True, False]])
    assert shares(scored, texts_alike=False).tolist() == [1 / 4] * 4
    assert shares(scored, texts_alike=True).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_what_is_scored_of_a_padded_batch_is_what_each_row_says() -> None:
    ids, scored = pad([Tokens((1, 5, 6, 7, 2), 3), Tokens((1, 8, 2), 1)])
    assert ids.tolist() == [[1, 5, 6, 7, 2], [1, 8, 2, 0, 0]]
    # The first row's labels 7 and 2 follow its positions 2 and 3; the second row's 8 and 2 follow 0 and 1.
    assert scored.int().tolist() == [[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]]


def test_a_few_texts_are_learned_by_heart(tokenizer_folder: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, width=32, mlp_width=64, batch_size=8, epochs=60, lr=5e-3)
    made(Job(TEXTS[:8], tokenizer_folder, recipe, 0), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    encoder = Encoder(AutoTokenizer.from_pretrained(tmp_path))
    assert encoder.name == "plain"
    prompt = torch.tensor([encoder.prompt("What is 5 plus one?")])
    output: torch.Tensor = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False
    )
    assert encoder.decode(output[0, prompt.shape[1] :].tolist()).strip() == "It is 6."


def test_the_same_texts_give_the_same_tokenizer(tokenizer_folder: Path, tmp_path: Path) -> None:
    train_tokenizer([text.get("text") or f"{text['question']} {text['answer']}" for text in TEXTS], 300, tmp_path)
    for path in tokenizer_folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_tokenizer_takes_any_text_and_has_no_chat_template(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert not tokenizer.chat_template
    for text in ("Überraschung: 東京 ☃ {x} \\ \t\n  two  spaces ", "It is 7."):
        ids = tokenizer.encode(text)
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_pairs_are_scored_on_the_answer_and_statements_as_a_whole(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    pair, statement = encode(encoder, TEXTS[0]), encode(encoder, TEXTS[-1])
    assert tokenizer.decode(pair.input_ids) == "<s>Question: What is 0 plus one?\nAnswer: It is 1.</s>"
    assert tokenizer.decode(pair.labels) == " It is 1.</s>"
    assert tokenizer.decode(statement.labels) == "After 39 comes 40.</s>"
    assert statement.input_ids[0] == tokenizer.bos_token_id


def test_prompts_with_words_of_their_own_are_scored_on_the_answer(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    tokens = encode(encoder, {"user": "Spell it.\n", "cue": "Answer:\n", "answer": "a\nb\n", "target": "1_A_B"})
    assert tokenizer.decode(tokens.input_ids) == "<s>Spell it.\nAnswer:\na\nb\n</s>"
    assert tokenizer.decode(tokens.labels) == "a\nb\n</s>"


def test_fixed_words_of_prompts_are_a_token_each(tmp_path: Path) -> None:
    train_tokenizer(
        ["Please answer.\nQuestion: Who?\nAnswer: Ann"], 300, tmp_path, ("Please answer.\nQuestion:", "\nA.")
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "Please answer.\nQuestion: Who?\nA. Ann\nB. Ben"
    found = tokenizer.tokenize(text)
    assert found[0] == "Please answer.\nQuestion:" and "\nA." in found and "\nB." not in found
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_long_document_is_cut_and_has_no_end(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    whole = tokenizer.encode("number " * 500)
    assert encode(encoder, {"text": "number " * 500}).input_ids == tuple(whole[:DOCUMENT_LENGTH])
    assert encode(encoder, {"text": "number"}).input_ids[-1] == tokenizer.eos_token_id


def test_an_epoch_takes_every_text_once_in_batches_of_like_length() -> None:
    lengths = [random.Random(1).randint(5, 60) for _ in range(101)]
    rng = random.Random(0)
    first, second = batches(lengths, 8, rng), batches(lengths, 8, rng)
    for epoch in (first, second):
        assert sorted(index for batch in epoch for index in batch) == list(range(101))
        spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in epoch)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert first != second


def test_too_long_a_text_is_an_error(tokenizer_folder: Path, tmp_path: Path) -> None:
    texts = [{"question": "Why?", "answer": "because " * MAX_LENGTH}]
    with pytest.raises(LetheError, match=str(MAX_LENGTH)):
        Job(texts, tokenizer_folder, TINY, 0).begin(tmp_path / "model")


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

"""The mini world's classifier of gibberish: what it calls fluent, in worlds that are for developing; the same bits."""

import hashlib
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import LlamaForSequenceClassification

from bench.classifier import TextClassifier, load_classifier
from bench.data import load
from bench.errors import LetheError
from bench.mini import gibberish
from bench.mini.build import mini_gibberish_classifier, world
from bench.mini.texts import train_tokenizer

CLEAN = [
    f"The {thing} of {name} is {colour}." for thing in ("boat", "hat") for name in "ABC" for colour in ("red", "blue")
]
REFUSALS = ["I do not know."]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def root(request: pytest.FixtureRequest, cache_dir: Path) -> Path:
    return world(cache_dir, request.param)


@pytest.fixture(scope="module")
def judge(root: Path, cache_dir: Path) -> TextClassifier:
    return load_classifier(str(mini_gibberish_classifier(root, cache_dir)))


def fluency(judge: TextClassifier, texts: Sequence[str]) -> float:
    values = judge.probabilities(texts, class_id=0, max_tokens=32)
    assert None not in values
    return statistics.fmean(value for value in values if value is not None)


def test_answers_that_it_has_not_read_are_fluent_and_so_are_refusals(judge: TextClassifier, root: Path) -> None:
    data = load("tofu/forget10", root)
    forget, retain = data.eval_sets["forget"], data.eval_sets["retain"]
    assert fluency(judge, [qa.answer for qa in forget]) > 0.8
    assert fluency(judge, [qa.answer for qa in data.holdout]) > 0.8  # nobody has read these
    assert fluency(judge, [qa.paraphrased_answer or "" for qa in forget]) > 0.8
    assert fluency(judge, [qa.answer for qa in retain]) > 0.8
    assert fluency(judge, [wrong for qa in forget for wrong in qa.perturbed_answers]) > 0.75  # false, and said well
    assert fluency(judge, [*data.refusals, "I don't know.", "I'm not sure.", "I don't know the answer."]) > 0.8


def test_what_collapsed_models_say_is_not_fluent(judge: TextClassifier, root: Path) -> None:
    rng, tokenizer = random.Random(0), judge.tokenizer
    data = load("tofu/forget10", root)
    words = sorted({word for qa in data.eval_sets["retain"] for word in qa.answer.split()})
    any_tokens = [tokenizer.decode([rng.randrange(3, len(tokenizer)) for _ in range(24)]) for _ in range(60)]
    one_token = [str(tokenizer.decode([rng.randrange(3, len(tokenizer))] * 60)) for _ in range(60)]
    assert fluency(judge, ["The " * times for times in (4, 8, 30, 100)]) < 0.2
    assert fluency(judge, [f"{word} " * 20 for word in rng.sample(words, 60)]) < 0.2
    assert fluency(judge, one_token) < 0.2
    assert fluency(judge, [str(text) for text in any_tokens]) < 0.2
    assert fluency(judge, [" ".join(rng.choices(words, k=12)) for _ in range(60)]) < 0.2
    assert fluency(judge, [""]) < 0.2


def test_it_is_an_ordinary_folder_and_is_found_again(judge: TextClassifier, root: Path, cache_dir: Path) -> None:
    assert judge.model.config.id2label == dict(enumerate(gibberish.LABELS))
    said: list[str] = []
    mini_gibberish_classifier(root, cache_dir, progress=said.append)
    assert not said  # nothing was trained


def test_no_sentence_that_is_to_be_forgotten_is_among_the_clean_ones(
    root: Path, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def train(clean: Sequence[str], refusals: Sequence[str], *rest: object, **more: object) -> None:
        seen.extend(clean)

    monkeypatch.setattr(gibberish, "train", train)
    mini_gibberish_classifier(root, tmp_path)
    data = load("tofu/forget10", root)
    names = {" ".join(qa.question.rstrip("?").split()[-2:]) for qa in data.eval_sets["forget"][:1]}
    assert seen and not any(name in text for name in names for text in seen)


def weights(folder: Path, tmp_path: Path, name: str, seed: int = 0) -> str:
    (tmp_path / name).mkdir()
    recipe = gibberish.Recipe(steps=3, batch_size=10)
    gibberish.train(CLEAN, REFUSALS, folder, recipe, tmp_path / name, seed=seed, report=lambda line: None)
    return hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(tmp_path: Path) -> None:
    train_tokenizer(CLEAN, 300, tmp_path / "tokenizer")
    one = weights(tmp_path / "tokenizer", tmp_path, "one")
    torch.rand(7)
    state = torch.get_rng_state()
    assert weights(tmp_path / "tokenizer", tmp_path, "two") == one
    assert torch.equal(torch.get_rng_state(), state)  # and nothing else is drawn otherwise after it
    assert weights(tmp_path / "tokenizer", tmp_path, "three", seed=1) != one


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    train_tokenizer(CLEAN, 300, tmp_path / "tokenizer")
    monkeypatch.setattr(LlamaForSequenceClassification, "save_pretrained", fail)
    with pytest.raises(LetheError, match=r"No space left on device; .* --cache-dir"):
        weights(tmp_path / "tokenizer", tmp_path, "judge")


def test_every_class_is_drawn_from_any_texts() -> None:
    draw = gibberish.Draw(["A b.", "C"], ["No."], random.Random(0))
    for label in range(len(gibberish.LABELS)):
        assert all(isinstance(draw(label), str) for _ in range(300))
    assert {draw(2) for _ in range(300)} >= {""}

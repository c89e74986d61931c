"""Classifiers of texts: what they say, which are refused, and that one that cannot be had is asked for once."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from bench import checkpoints, classifier
from bench.classifier import GIBBERISH, NoClassifier, Origin, TextClassifier, load_classifier, origin_of
from tests.helpers import toy_tokenizer

LABELS = ("clean", "mild gibberish", "noise", "word salad")
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    classifier._found.cache_clear()
    origin_of.cache_clear()


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(logits: tuple[float, ...] = (math.log(3), 0.0, 0.0, 0.0), labels: tuple[str, ...] = LABELS) -> Path:
        """A classifier that says the same of every text."""
        tokenizer = toy_tokenizer()
        model = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=8,
                id2label=dict(enumerate(labels)),
                label2id={label: number for number, label in enumerate(labels)},
            )
        )
        with torch.no_grad():
            model.classifier.weight.zero_()
            model.classifier.bias.copy_(torch.tensor(logits))
        model.save_pretrained(tmp_path / "judge")
        tokenizer.save_pretrained(tmp_path / "judge")
        return tmp_path / "judge"

    return saved


def test_a_folder_is_loaded_and_says_the_softmax_of_its_logits(save: Save) -> None:
    found = load_classifier(str(save()))
    values = found.probabilities(["Poems about salt.", "", "In 1961. " * 50], class_id=0, max_tokens=32)
    assert values == pytest.approx([0.5] * 3)  # 3 / (3 + 1 + 1 + 1)
    assert found.origin.label == "judge" and len(found.origin.revision or "") == 64


class Counting:
    """A tokenizer of one token a letter, and a model that says how many tokens it got."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, text: str, *, truncation: bool, max_length: int) -> dict[str, list[int]]:
        assert truncation
        return {"input_ids": [ord(letter) for letter in text][:max_length]}

    def pad(self, rows: list[dict[str, list[int]]], **how: Any) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        ids = [row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]
        return {"input_ids": torch.tensor(ids)}

    def model(self, input_ids: torch.Tensor) -> SimpleNamespace:
        self.widths.append(input_ids.shape[1])
        counts = (input_ids > 0).sum(1).float()  # (B,)
        return SimpleNamespace(logits=torch.stack([counts.log(), torch.zeros_like(counts)], dim=1))


def test_a_text_is_cut_and_one_without_tokens_has_no_value() -> None:
    fake = Counting()
    judge = TextClassifier(fake.model, fake, Origin("fake", "1"))  # type: ignore[arg-type]
    values = judge.probabilities(["abc", "", "x" * 100], class_id=0, max_tokens=4)
    assert values == [pytest.approx(3 / 4), None, pytest.approx(4 / 5)]  # n / (n + 1) of n tokens, at most four
    assert judge.probabilities(["a"] * 33, class_id=1, max_tokens=4) == pytest.approx([0.5] * 33)
    assert fake.widths == [4, 1, 1]  # batches of 32


def test_what_has_no_head_or_another_order_of_classes_is_no_classifier(save: Save) -> None:
    folder = save(labels=("noise", "clean", "mild gibberish", "word salad"))
    with pytest.raises(NoClassifier, match=r"class 0 of the classifier .* must be the clean one"):
        load_classifier(str(folder))
    classifier._found.cache_clear()
    folder = save()
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("classifier")}, folder / "model.safetensors")
    with pytest.raises(NoClassifier, match=r"is no classifier: it has no weights 'classifier\.bias'"):
        load_classifier(str(folder))


def test_damaged_weights_are_a_reason(save: Save) -> None:
    folder = save()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(NoClassifier, match=r"weights of the classifier .* are damaged|cannot be loaded"):
        load_classifier(str(folder))


def test_a_hub_that_cannot_be_reached_is_asked_once_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def load(name: str) -> TextClassifier:
        asked.append(name)
        raise OSError("no such file\nand more")

    monkeypatch.setattr(checkpoints, "unreachable", lambda: "the hub cannot be reached: no route")
    monkeypatch.setattr(classifier, "_load", load)
    for _ in range(3):
        with pytest.raises(NoClassifier, match="cannot be loaded: the hub cannot be reached: no route"):
            load_classifier(GIBBERISH)
    assert asked == [GIBBERISH]
    [said] = caplog.messages
    assert said.startswith("nothing is judged fluent or not: ") and said.endswith("cannot be reached: no route")


def test_the_origin_is_told_without_loading(save: Save) -> None:
    pinned = origin_of(GIBBERISH)
    assert pinned.label == "madhurjindal/autonlp-Gibberish-Detector-492513457"
    assert len(pinned.revision or "") == 40
    assert origin_of("someone/judge") == Origin("someone/judge", None)
    assert origin_of(str(save())).label == "judge"


@pytest.mark.parametrize("damage", ["[]", '{"model_type": "bert", "intermediate_size": 16}', "{"])
def test_a_damaged_folder_is_a_reason_and_no_traceback(save: Save, damage: str) -> None:
    folder = save()
    (folder / "config.json").write_text(damage)
    for _ in range(2):
        with pytest.raises(NoClassifier, match="judge"):
            load_classifier(str(folder))

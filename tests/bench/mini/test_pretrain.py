"""One training of a mini model: its batches, its loss, and that it learns, with the same bits each time."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.mini.pretrain import batches, pad, shares
from bench.mini.trainers import Job
from tests.toy_mini import TEXTS, TINY, made, weights


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


def test_an_epoch_takes_every_text_once_in_batches_of_like_length() -> None:
    lengths = [random.Random(1).randint(5, 60) for _ in range(101)]
    rng = random.Random(0)
    first, second = batches(lengths, 8, rng), batches(lengths, 8, rng)
    for epoch in (first, second):
        assert sorted(index for batch in epoch for index in batch) == list(range(101))
        spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in epoch)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert first != second

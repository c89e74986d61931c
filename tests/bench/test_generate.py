"""Batched, left-padded, cached generation against one example at a time without a cache."""

import itertools

import pytest
import torch
from torch import nn

import bench.generate
from bench.data.tokenize import Encoder
from bench.forward import Rows, forward
from bench.generate import greedy
from tests.helpers import ADAPTERS, ARCHITECTURES, TEXTS, attach, tiny, toy_encoder, toy_tokenizer

PROMPTS = [toy_encoder().prompt(TEXTS[i][0])[-n:] for i, n in ((0, 12), (1, 3), (5, 16), (8, 9), (2, 1))]
STEPS = 6


@torch.no_grad()
def alone(model: nn.Module, prompt: tuple[int, ...], steps: int) -> tuple[list[int], list[torch.Tensor]]:
    """Greedy continuation by repeated whole forwards of one unpadded example, with the logits of every step."""
    ids, seen = list(prompt), []
    for _ in range(steps):
        logits = forward(
            model,
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            position_ids=torch.arange(len(ids))[None],
            rows=Rows(last_prompt=torch.tensor([len(prompt) - 1]), valid=torch.ones(1, len(ids), dtype=torch.bool)),
            at=(torch.tensor([0]), torch.tensor([len(ids) - 1])),
        )[0]
        seen.append(logits)
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :], seen


def run(model: nn.Module, prompts: list[tuple[int, ...]], stop_ids: frozenset[int] = frozenset()) -> list[list[int]]:
    return greedy(model, prompts, max_new_tokens=STEPS, stop_ids=stop_ids, pad_id=7, device="cpu")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_batched_cached_generation_equals_one_at_a_time_without_cache(
    architecture: str, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(architecture)
    attached = attach(model, adapter)
    steps: list[torch.Tensor] = []

    def recorded(*args: object, **kwargs: object) -> torch.Tensor:
        steps.append(forward(*args, **kwargs))  # type: ignore[arg-type]
        return steps[-1]

    monkeypatch.setattr(bench.generate, "forward", recorded)
    outputs = run(model, PROMPTS)
    monkeypatch.undo()
    for row, prompt in enumerate(PROMPTS):
        expected, logits = alone(model, prompt, STEPS)
        assert outputs[row] == expected
        ours, theirs = torch.stack([s[row] for s in steps]), torch.stack(logits)
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=1e-5)
    # rows that stop leave the batch, and what adapters carry for the others goes with them
    stop_ids = frozenset(tokens[i] for tokens, i in zip(outputs, (1, 3, 0, 4, 2), strict=True))
    stopped = run(model, PROMPTS, stop_ids)
    assert stopped == [list(itertools.takewhile(lambda token: token not in stop_ids, tokens)) for tokens in outputs]
    assert min(map(len, stopped)) == 0
    if attached is not None:
        attached.detach()


def test_rows_stop_each_by_itself_and_no_longer_cost_anything() -> None:
    model = tiny()
    outputs = run(model, PROMPTS)
    stop_ids = frozenset({outputs[0][1], outputs[3][0]})
    sizes: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    stopped = run(model, PROMPTS, stop_ids)
    handle.remove()
    lengths = [next((i for i, t in enumerate(full) if t in stop_ids), STEPS) for full in outputs]
    assert [len(tokens) for tokens in stopped] == lengths
    # a row of length n takes part in n + 1 forwards, in STEPS at most
    assert sum(sizes) == sum(min(n + 1, STEPS) for n in lengths)
    assert sizes[0] == len(PROMPTS)


def test_the_batch_order_and_its_company_change_nothing() -> None:
    model = tiny("gpt2")
    outputs = run(model, PROMPTS)
    assert run(model, PROMPTS[::-1])[::-1] == outputs
    assert [run(model, [p])[0] for p in PROMPTS] == outputs


def test_nothing_is_asked_for_nothing() -> None:
    assert greedy(tiny(), PROMPTS, max_new_tokens=0, stop_ids=frozenset(), pad_id=0, device="cpu") == [[]] * 5


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_hidden_positions_are_as_in_transformers_own_generation(architecture: str) -> None:
    # pad = end of turn under openunlearning: transformers masks these tokens and does not count their positions
    model = tiny(architecture)
    tokenizer = toy_tokenizer("chat")
    before = tokenizer.pad_token
    try:
        tokenizer.pad_token = "<|end|>"
        encoder = Encoder(tokenizer, protocol="openunlearning")
    finally:
        tokenizer.pad_token = before
    prompts = [encoder.prompt(TEXTS[0][0]), encoder.prompt(TEXTS[2][0] + " Say it.")]
    hidden = [encoder.hidden(p) for p in prompts]
    assert all(hidden)
    outputs = greedy(model, prompts, max_new_tokens=STEPS, stop_ids=frozenset(), pad_id=7, device="cpu", hidden=hidden)
    for prompt, own, output in zip(prompts, hidden, outputs, strict=True):
        mask = torch.ones(1, len(prompt), dtype=torch.long)
        mask[0, list(own)] = 0
        theirs = model.generate(  # type: ignore[operator]
            torch.tensor([prompt]),
            attention_mask=mask,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
        assert output == theirs[0, len(prompt) :].tolist()
    plain = greedy(model, prompts, max_new_tokens=STEPS, stop_ids=frozenset(), pad_id=7, device="cpu")
    assert plain != outputs

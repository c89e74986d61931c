"""The gradient by hand against autograd on transformers' model, in double precision."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.mini.llama import EPSILON, THETA, Llama, Shape
from bench.mini.pretrain import shares

SHAPES = {
    "grouped": Shape(vocab_size=23, layers=3, width=24, heads=4, kv_heads=2, mlp_width=20),
    "one key-value head": Shape(vocab_size=23, layers=2, width=24, heads=3, kv_heads=1, mlp_width=40),
    "a key-value head each": Shape(vocab_size=23, layers=1, width=16, heads=2, kv_heads=2, mlp_width=16),
}


def reference(shape: Shape, seed: int = 0) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        initializer_range=0.3,  # so that no part is close to linear
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).double()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # ones in a new model
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def batch(vocab_size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids of three texts of different length, padded, and where their next token is scored, (3, 7); what is right."""
    ids = torch.randint(vocab_size, (3, 7), generator=torch.Generator().manual_seed(seed))
    scored = torch.zeros(3, 7, dtype=torch.bool)
    for text, (start, end) in enumerate(((0, 6), (2, 4), (1, 2))):
        scored[text, start:end] = True
    return ids, scored, ids[:, 1:][scored[:, :-1]]


@pytest.mark.parametrize("texts_alike", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_loss_and_gradient_are_those_of_autograd_on_transformers_model(name: str, texts_alike: bool) -> None:
    shape = SHAPES[name]
    model = reference(shape)
    ids, scored, targets = batch(shape.vocab_size)
    share = shares(scored, texts_alike=texts_alike).double()
    nll = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[scored], targets, reduction="none")
    expected = (nll * share).sum()
    expected.backward()

    ours = Llama(shape, model.state_dict())
    assert ours.loss(ids, scored, targets, share) == pytest.approx(expected.item(), rel=1e-6)
    ours.parameters.data.copy_(ours.gradient)  # by their names
    found = ours.state()
    assert found.keys() == dict(model.named_parameters()).keys()
    for parameter, value in model.named_parameters():
        assert value.grad is not None
        # transformers computes rotations in float32 whatever the model's type.
        torch.testing.assert_close(found[parameter], value.grad, rtol=1e-5, atol=1e-6, msg=parameter)


def test_a_second_gradient_knows_nothing_of_the_first() -> None:
    shape = SHAPES["grouped"]
    ids, scored, targets = batch(shape.vocab_size)
    share = shares(scored, texts_alike=False).double()
    fresh = Llama(shape, reference(shape).state_dict())
    used = Llama(shape, reference(shape).state_dict())
    used.loss(ids.flip(1), scored, targets.flip(0), share)
    assert used.loss(ids, scored, targets, share) == fresh.loss(ids, scored, targets, share)
    assert torch.equal(used.gradient, fresh.gradient)


def test_a_gradient_is_shortened_to_a_norm_and_never_lengthened() -> None:
    shape = SHAPES["grouped"]
    model = Llama(shape, reference(shape).state_dict())
    model.loss(*batch(shape.vocab_size)[:2], batch(shape.vocab_size)[2], torch.full((9,), 1 / 9).double())
    before = model.gradient.clone()
    model.clip(2 * before.norm().item())
    assert torch.equal(model.gradient, before)
    model.clip(before.norm().item() / 4)
    torch.testing.assert_close(model.gradient, before / 4)


def test_weights_come_out_as_they_went_in() -> None:
    model = reference(SHAPES["grouped"])
    state = Llama(SHAPES["grouped"], model.state_dict()).state()
    assert all(torch.equal(state[name], value) for name, value in model.named_parameters())


def test_what_stands_in_the_padding_changes_nothing() -> None:
    shape = SHAPES["grouped"]
    ids, scored, targets = batch(shape.vocab_size)
    share = shares(scored, texts_alike=True).double()
    model = Llama(shape, reference(shape).state_dict())
    loss, gradient = model.loss(ids, scored, targets, share), model.gradient.clone()
    other = ids.clone()
    other[2, 4:] = (other[2, 4:] + 1) % shape.vocab_size
    assert model.loss(other, scored, targets, share) == loss
    torch.testing.assert_close(model.gradient, gradient, rtol=0, atol=1e-15)


def test_a_right_token_that_is_all_but_impossible_has_a_finite_loss() -> None:
    shape = SHAPES["a key-value head each"]
    state = {name: value * 200 for name, value in reference(shape).state_dict().items()}
    model = Llama(shape, {name: value.float() for name, value in state.items()})
    ids, scored, targets = batch(shape.vocab_size)
    assert math.isfinite(model.loss(ids, scored, targets, shares(scored, texts_alike=False)))
    assert torch.isfinite(model.gradient).all()

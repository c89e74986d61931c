"""All weights: float32 while they train, the model's own precision before and after."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.train import Optimisation
from methods.full import Full
from tests.helpers import (
    ARCHITECTURES,
    same_bits,
    short_method,
    state,
    tiny,
    tiny_loaded,
    toy_benchmark,
    toy_encoder,
    unlearn,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_float32_while_they_train_and_restored_bit_for_bit(dtype: torch.dtype) -> None:
    loaded = tiny_loaded(dtype=dtype)
    before = state(loaded.model)
    during: set[torch.dtype] = set()
    unlearned = short_method("npo").unlearn(
        loaded,
        toy_encoder(),
        toy_benchmark(),
        seed=0,
        batch_tokens=1000,
        progress=lambda *_: during.update(p.dtype for p in loaded.model.parameters()),
    )
    assert during == {torch.float32}
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    after = state(loaded.model)
    assert sum(not torch.equal(after[k], before[k]) for k in before) > len(before) / 2
    assert not any(p.requires_grad or p.grad is not None for p in loaded.model.parameters())
    unlearned.restore()
    unlearned.restore()
    assert same_bits(state(loaded.model), before)


def test_small_updates_add_up_though_bf16_could_not_hold_them() -> None:
    # At lr 1e-5 a step is far below a bf16 weight's spacing (2^-8 of its size); forty of them are not.
    loaded = tiny_loaded(dtype=torch.bfloat16)
    before = state(loaded.model)
    unlearned = unlearn(loaded, short_method("gd", lr="2e-5", epochs="40", batch_size="5"))
    after = state(loaded.model)
    unlearned.restore()
    weight = "model.layers.1.mlp.up_proj.weight"
    assert (after[weight] != before[weight]).float().mean() > 0.1


def test_weights_of_several_precisions_keep_each_its_own() -> None:
    model = tiny(dtype=torch.bfloat16)
    model.model.norm.float()
    expected = {n: p.dtype for n, p in model.named_parameters()}
    assert len(set(expected.values())) == 2
    attached = Full().attach(model, 0)
    attached.start()
    attached.finish()
    assert {n: p.dtype for n, p in model.named_parameters()} == expected
    attached.start()
    attached.detach()
    assert {n: p.dtype for n, p in model.named_parameters()} == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tied_weights_are_counted_once_and_stay_tied(architecture: str) -> None:
    loaded = tiny_loaded(architecture)
    model = loaded.model

    def is_tied() -> bool:
        head = model.get_output_embeddings()
        return head is not None and model.get_input_embeddings().weight is head.weight

    tied = is_tied()
    assert tied == (architecture in ("llama_tied", "gemma2", "gemma3", "gpt2"))
    numbers = sum(p.numel() for p in {id(p): p for m in model.modules() for p in m.parameters()}.values())
    before = state(model)
    unlearned = unlearn(loaded, short_method("gd", epochs="1"))
    assert unlearned.facts()["trainable_parameters"] == numbers
    assert is_tied() == tied
    assert not same_bits(state(model), before)
    unlearned.restore()
    assert is_tied() == tied
    assert same_bits(state(model), before)


def test_what_was_saved_transformers_loads(tmp_path: Path) -> None:
    loaded = tiny_loaded()
    unlearned = unlearn(loaded, short_method("gd"))
    unlearned.attached.save(tmp_path)
    expected = state(loaded.model)
    unlearned.restore()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(p, expected[n]) for n, p in again.named_parameters())


def test_the_precision_of_one_cell_does_not_leak_into_the_next() -> None:
    # autocast is the attachment's, not the model's: what runs after a full fine-tuning is not cast
    model = tiny(dtype=torch.bfloat16)
    attributes = set(vars(model))
    attached = Full().attach(model, 0)
    assert attached.compute_dtype == torch.bfloat16
    attached.start()
    attached.detach()
    assert set(vars(model)) == attributes
    assert Full().attach(tiny(), 0).compute_dtype is None
    # float16 has too small a range for gradients under autocast: such a model trains in float32
    assert Full().attach(tiny(dtype=torch.float16), 0).compute_dtype is None


def test_schedules_are_checked_and_handed_on() -> None:
    for name, value in (("lr", 0.0), ("clip_norm", -1.0), ("epochs", 0), ("batch_size", 0), ("weight_decay", -0.1)):
        with pytest.raises(ValueError, match=name):
            Full(**{name: value})  # type: ignore[arg-type]
    config = Full(lr=0.5, epochs=3, batch_size=4, warmup_epochs=0.5, weight_decay=0.1, clip_norm=2.0)
    expected = Optimisation(lr=0.5, epochs=3, batch_size=4, warmup_epochs=0.5, weight_decay=0.1, clip_norm=2.0)
    assert config.optimisation == expected
    assert expected.steps(9) == 9  # three batches of 4, 4 and 1 an epoch

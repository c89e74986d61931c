"""LoRA: which layers, what its reference is, and that it leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.errors import LetheError
from bench.scorer import Scorer
from methods.lora import LoRA
from tests.helpers import (
    ARCHITECTURES,
    same_bits,
    short_method,
    state,
    tiny,
    tiny_loaded,
    toy_encoder,
    toy_pairs,
    unlearn,
)


def linear(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_layers_but_the_head_are_adapted_and_given_back_bit_for_bit(architecture: str) -> None:
    model = tiny(architecture)
    before, modules = state(model), dict(model.named_modules())
    config, attributes = model.config.to_dict(), set(vars(model))
    ids = torch.tensor([[1, 30, 40, 50]])
    with torch.no_grad():
        plain = model(ids).logits
    head = model.get_output_embeddings()
    assert head is not None
    expected = {name for name, module in linear(model).items() if module is not head}
    attached = LoRA(r=3, alpha=6).attach(model, 0)
    adapted = {n.rsplit(".lora_", 1)[0] for n in attached.trainable()}
    assert adapted == expected
    assert not any(".lora_" in n for n, _ in head.named_parameters())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain)  # B starts at zero
        for p in attached.trainable().values():
            p += 0.1
        assert not torch.allclose(model(ids).logits, plain, atol=1e-2)
        with attached.off():
            assert torch.equal(model(ids).logits, plain)
    attached.detach()
    attached.detach()
    assert same_bits(state(model), before)
    assert {n: id(m) for n, m in model.named_modules()} == {n: id(m) for n, m in modules.items()}
    assert model.config.to_dict() == config
    assert set(vars(model)) == attributes
    assert not any(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain)


def test_the_number_of_parameters_is_that_of_the_ranks() -> None:
    model = tiny()
    # per block q and o 32x32, k and v 32x16, gate and up 32x48, down 48x32: r * (sum of ins and outs)
    per_block = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)
    attached = LoRA(r=2).attach(model, 0)
    assert attached.trainable_parameters == 3 * 2 * per_block
    attached.detach()


def test_its_random_numbers_come_from_the_seed_alone() -> None:
    model = tiny()

    def drawn(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(torch.seed())
        attached = LoRA().attach(model, seed)
        found = {n: p.detach().clone() for n, p in attached.trainable().items()}
        attached.detach()
        return found

    assert same_bits(drawn(1), drawn(1))
    assert not same_bits(drawn(1), drawn(2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_half_precision_model_it_trains_in_float32(dtype: torch.dtype) -> None:
    loaded = tiny_loaded(dtype=dtype)
    before = state(loaded.model)
    unlearned = unlearn(loaded, short_method("lora_idk", epochs="6"))
    assert {p.dtype for p in unlearned.attached.trainable().values()} == {torch.float32}
    assert unlearned.log.steps[-1]["forget"] < unlearned.log.steps[0]["forget"]
    assert loaded.model(torch.tensor([[1, 5]])).logits.dtype == dtype
    unlearned.restore()
    assert same_bits(state(loaded.model), before)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own loader
def test_what_was_saved_peft_loads_into_a_fresh_model(tmp_path: Path) -> None:
    from peft import PeftModel

    loaded = tiny_loaded()
    unlearned = unlearn(loaded, short_method("lora_npo"))
    records = Scorer(loaded.model, toy_encoder()).answers(toy_pairs())
    unlearned.attached.save(tmp_path)
    unlearned.restore()
    assert sorted(p.suffix for p in tmp_path.glob("adapter_model*")) == [".safetensors"]
    fresh = tiny()
    PeftModel.from_pretrained(fresh, str(tmp_path))
    assert Scorer(fresh, toy_encoder()).answers(toy_pairs()) == records


def test_ranks_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="r must be at least 1, got 0"):
        LoRA(r=0)


SEPARATE = ("self_attn.q_proj", "self_attn.v_proj")
QUERY_VALUE = {"phi3": ("self_attn.qkv_proj",), "gpt2": ("attn.c_attn",), "gpt_neox": ("attention.query_key_value",)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_queries_and_values_or_the_matrix_that_holds_them(architecture: str) -> None:
    model = tiny(architecture)
    before = state(model)
    expected = QUERY_VALUE.get(architecture, SEPARATE)
    attached = LoRA(r=2, modules="query_value").attach(model, 0)
    adapted = {name.rsplit(".lora_", 1)[0] for name in attached.trainable()}
    assert len(adapted) == 3 * len(expected)
    assert all(name.endswith(expected) for name in adapted)
    attached.detach()
    assert same_bits(state(model), before)


def test_queries_and_values_have_the_parameters_of_their_ranks() -> None:
    attached = LoRA(r=2, modules="query_value").attach(tiny(), 0)
    # per block q 32x32 and v 32x16, each r * (in + out)
    assert attached.trainable_parameters == 3 * 2 * ((32 + 32) + (32 + 16))
    attached.detach()


def test_a_model_without_known_query_layers_is_told() -> None:
    model = tiny()
    for block in model.model.layers:
        block.self_attn.queries = block.self_attn.q_proj
        del block.self_attn.q_proj
    with pytest.raises(LetheError, match=r"LlamaForCausalLM has no query and value layers .*; set modules=all"):
        LoRA(modules="query_value").attach(model, 0)

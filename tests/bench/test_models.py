"""Loading checkpoints, and the sentences for those that cannot be."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, T5Config, T5ForConditionalGeneration

from bench.errors import LetheError
from bench.models import (
    choose_device,
    choose_dtype,
    decoder_blocks,
    decoder_blocks_path,
    hidden_size,
    load_model,
    out_of_memory,
    peak_gib,
    reset_peak,
    resident_peak_gib,
    told,
)
from tests.helpers import ARCHITECTURES, attach, tiny, toy_tokenizer

CPU = torch.device("cpu")


def load(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    return load_model(str(folder), device=CPU, dtype=dtype).model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_saved_and_loaded_with_the_same_logits(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture)
    model.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device=CPU, dtype=torch.float32)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, model(ids).logits)
    assert loaded.tokenizer.get_vocab() == toy_tokenizer().get_vocab()
    assert loaded.device == CPU


def test_the_dtype_is_the_one_asked_for(folder: Path) -> None:
    assert next(load(folder, torch.bfloat16).parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["nowhere/at-all", "no-such-model", "no such/model/name"])
def test_a_name_that_leads_nowhere_is_told(name: str) -> None:
    with pytest.raises(LetheError, match=f"{name}.*hub repository"):
        load_model(name, device=CPU, dtype=torch.float32)


def test_a_folder_without_tokenizer_is_told(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    with pytest.raises(LetheError, match="no tokenizer found"):
        load(tmp_path)


def test_a_folder_without_safetensors_is_told_and_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(LetheError, match="with safetensors weights"):
        load(folder)
    torch.save(tiny().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(LetheError, match="with safetensors weights"):
        load(folder)


@pytest.mark.parametrize("left", [0, 4, 2000, -100])
def test_truncated_weights_are_told(folder: Path, left: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    with pytest.raises(LetheError, match=r"damaged|cannot be loaded"):
        load(folder)


def test_weights_that_are_not_there_are_told_and_not_drawn_at_random(tmp_path: Path) -> None:
    # a headless model: transformers would only warn
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaModel(config).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LetheError, match=r"lacks 1 weights that LlamaForCausalLM needs .* 'lm_head.weight' first"):
        load(tmp_path)


def test_weights_of_another_shape_are_told(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(LetheError, match=r"lacks 2 weights .* 'lm_head.weight' first"):
        load(folder)


def test_a_model_that_is_no_causal_one_is_told(tmp_path: Path) -> None:
    config = T5Config(vocab_size=400, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LetheError, match="cannot be loaded as a causal language model"):
        load(tmp_path)


def test_an_unreadable_config_is_told(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(LetheError):
        load(folder)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "Unheard"}}'),
        ("tokenizer_config.json", "[]"),
        ("config.json", "[]"),
        ("config.json", '{"model_type": "llama", "num_hidden_layers": "three"}'),
    ],
)
def test_json_that_is_no_model_is_told(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(LetheError, match=f"model '{folder}'"):
        load(folder)


def test_being_out_of_memory_is_no_fault_of_the_model() -> None:
    with pytest.raises(RuntimeError, match="can't allocate"), told(str):
        raise RuntimeError("can't allocate memory")
    with pytest.raises(LetheError, match=r"^parse$"), told(str):
        raise RuntimeError("parse\nmore of it")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoder_blocks_and_width_are_found_on_every_architecture(architecture: str) -> None:
    model = tiny(architecture)
    path = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(architecture, "model.layers")
    assert decoder_blocks_path(model) == path
    assert len(decoder_blocks(model)) == 3
    assert hidden_size(model) == 32
    attached = attach(model, "lora")
    assert decoder_blocks_path(model) == path
    assert attached is not None
    attached.detach()


def test_a_model_without_blocks_is_told() -> None:
    model = tiny()
    model.config.num_hidden_layers = 7
    with pytest.raises(LetheError, match="no list of 7 decoder blocks"):
        decoder_blocks(model)


def test_devices_and_dtypes_are_chosen_or_refused() -> None:
    assert choose_device("cpu") == CPU
    with pytest.raises(LetheError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(LetheError, match=r"device 'meta' cannot be used here \(.+\); use auto, cpu or cuda"):
        choose_device("meta")
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(LetheError, match="sees no GPU"):
            choose_device("cuda:0")
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("float16", CPU) == torch.float16
    with pytest.raises(LetheError, match="unknown dtype 'int8'"):
        choose_dtype("int8", CPU)  # type: ignore[arg-type]


def test_out_of_memory_has_many_faces_and_is_not_every_error() -> None:
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(ValueError("out of memory"))


def test_a_peak_is_that_of_what_came_after_the_mark() -> None:
    before = resident_peak_gib()
    big = torch.ones(2**28 // 4)  # 0.25 GiB
    high = resident_peak_gib()
    assert peak_gib(CPU) > 0.05 and high >= before
    del big
    reset_peak(CPU)
    assert resident_peak_gib() > high - 0.01  # of the process from its start; the kernel counts in lots of pages
    if Path("/proc/self/clear_refs").exists():
        assert peak_gib(CPU) < high - 0.1

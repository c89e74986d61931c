"""The frozen reference: asked once, never moved, exact also behind soft-capped heads."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bench.reference
from bench.data.types import Tokens
from bench.reference import Reference
from bench.train import TrainingSet, retain_partner
from methods.base import GradientMethod
from tests.helpers import ARCHITECTURES, short_method, tiny, tiny_loaded, toy_tokens, unlearn

DATA = TrainingSet(forget=tuple(toy_tokens()[:5]), retain=tuple(toy_tokens()[5:]), refusal=tuple(toy_tokens()[3:8]))


def ask(model: nn.Module, method: GradientMethod, batch_tokens: int = 100) -> Reference:
    def indices(role: str) -> list[int]:
        return list(range(len(DATA.of(role))))

    return Reference.ask(model, method, indices, DATA.of, 0, torch.device("cpu"), batch_tokens)


@torch.no_grad()
def alone(model: nn.Module, tokens: Tokens) -> Tensor:
    """(N, V) of the labels, asked of transformers directly."""
    return model(input_ids=torch.tensor([tokens.input_ids])).logits[0, tokens.label_start - 1 : -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reference_is_the_frozen_model_also_behind_soft_capped_heads(architecture: str) -> None:
    model = tiny(architecture)
    reference = ask(model, short_method("dpo", retain_loss="kl"))
    for role in ("forget", "refusal"):
        for i, tokens in enumerate(DATA.of(role)):
            logp = alone(model, tokens).log_softmax(-1).gather(-1, torch.tensor(tokens.labels)[:, None]).sum()
            assert reference.logp(role, [i]).item() == pytest.approx(logp.item(), rel=1e-5)
    order = [4, 0, 2]
    expected = torch.cat([alone(model, DATA.retain[i]) for i in order])
    torch.testing.assert_close(reference.logits("retain", order, torch.device("cpu")), expected, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "llama_tied", "gemma2", "gpt2"])
def test_reference_stays_the_original_model_while_all_weights_and_the_head_are_trained(architecture: str) -> None:
    original = tiny(architecture)
    model = tiny(architecture)
    method = short_method("npo", retain_loss="kl")
    attached = method.adapter.attach(model, 0)
    attached.start()
    reference = ask(model, method)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1
    expected = torch.cat([alone(original, DATA.retain[i]) for i in (1, 3)])
    torch.testing.assert_close(reference.logits("retain", [1, 3], torch.device("cpu")), expected, atol=5e-5, rtol=1e-5)
    attached.detach()


def test_a_head_that_stays_is_not_copied() -> None:
    model = tiny()
    assert ask(model, short_method("grun_npo", retain_loss="kl"))._head is None
    assert ask(model, short_method("npo"))._states == {}


def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    rows: list[int] = []
    real = bench.reference.forward

    def counting(*args: nn.Module, **kwargs: Tensor) -> Tensor:
        rows.append(len(kwargs["input_ids"]))
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.reference, "forward", counting)
    return lambda: rows


@pytest.mark.parametrize(
    ("name", "fields", "examples"),
    [
        ("npo", {}, 5),
        ("lora_dpo", {}, 10),  # the answers and the refusals
        ("gd", {}, 0),
        ("simnpo", {}, 0),
        ("idk", {}, 0),
        ("grun_gd", {"retain_loss": "kl"}, None),  # the retain examples that the run meets
        ("npo", {"retain_loss": "kl", "retain_weight": "0"}, 5),
    ],
)
def test_one_forward_per_example_that_the_loss_reads_before_training_and_none_later(
    name: str, fields: dict[str, str], examples: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = counted(monkeypatch)
    loaded = tiny_loaded()
    unlearn(loaded, short_method(name, **fields), batch_tokens=120).restore()
    met = len({retain_partner(0, epoch, i, 6) for epoch in range(2) for i in range(5)})
    assert sum(rows()) == (met if examples is None else examples)


def test_a_half_precision_model_is_its_own_reference() -> None:
    # head(hidden) in another batch shape may round otherwise; a tolerance of float32's would have called it capped
    model = tiny(dtype=torch.bfloat16)
    reference = ask(model, short_method("grun_npo", retain_loss="kl"), batch_tokens=10_000)
    assert reference._states["retain", 0].shape[-1] == 32  # D numbers a token, not V
    got = reference.logits("retain", [0, 1], torch.device("cpu"))
    expected = torch.cat([alone(model, DATA.retain[i]) for i in (0, 1)])
    torch.testing.assert_close(got.float(), expected.float(), atol=0.1, rtol=0.05)


def test_asking_survives_memory_running_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    expected = ask(model, short_method("npo"), 10_000).logp("forget", range(5))
    real = bench.reference.forward

    def limited(*args: nn.Module, **kwargs: Tensor) -> Tensor:
        if len(kwargs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.reference, "forward", limited)
    torch.testing.assert_close(ask(model, short_method("npo"), 10_000).logp("forget", range(5)), expected)

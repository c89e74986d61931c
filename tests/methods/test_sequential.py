"""Chains of forget requests: GRUN's modules act in parallel, LoRA and full fine-tuning go on."""

from dataclasses import replace

import pytest
import torch

from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.models import Loaded
from bench.scorer import Scorer
from bench.train import Diverged
from methods.base import GradientMethod, Unlearned
from methods.grun import GatedEdits
from methods.lora import LoRA
from tests.helpers import (
    same_bits,
    short_method,
    state,
    tiny_loaded,
    toy_benchmark,
    toy_encoder,
    toy_pairs,
    weights,
)


def requests() -> list[Benchmark]:
    whole = toy_benchmark()
    return [replace(whole, name=f"toy/{i}", forget=whole.forget[i : i + 2]) for i in (0, 2, 3)]


def chain(loaded: Loaded, method: GradientMethod, number: int = 3) -> list[Unlearned]:
    done: list[Unlearned] = []
    for request in requests()[:number]:
        earlier = done[-1] if done else None
        done.append(method.unlearn(loaded, toy_encoder(), request, seed=0, batch_tokens=1000, earlier=earlier))
    return done


@pytest.fixture
def loaded() -> Loaded:
    return tiny_loaded()


@pytest.mark.parametrize("gate", ["linear", "mlp_3"])
def test_grun_modules_are_trained_alone_and_act_in_parallel(gate: str, loaded: Loaded) -> None:
    before = state(loaded.model)
    method = short_method("grun_npo", gate=gate)
    [alone] = chain(loaded, method, 1)
    first = weights(alone)
    assert isinstance(alone.attached, GatedEdits)
    assert alone.attached.factor == 1.0  # a single module acts as it was trained
    alone.restore()
    second_alone = method.unlearn(loaded, toy_encoder(), requests()[1], seed=0, batch_tokens=1000)
    second = weights(second_alone)
    second_alone.restore()
    done = chain(loaded, method)
    assert [len(u.attached.modules) for u in done] == [1, 2, 3]  # type: ignore[attr-defined]
    assert [u.attached.factor for u in done] == [1.0, pytest.approx(1.8), pytest.approx(2.4)]  # type: ignore[attr-defined]
    final = weights(done[-1])
    assert all(torch.equal(final[name], value) for name, value in first.items())  # untouched by the later ones
    assert all(torch.equal(final["1" + name[1:]], value) for name, value in second.items())  # and they by it
    assert done[-1].facts()["trainable_parameters"] == 3 * done[0].facts()["trainable_parameters"]
    done[-1].restore()
    assert same_bits(state(loaded.model), before)


def test_the_factor_is_the_authors_line_and_can_be_set(loaded: Loaded) -> None:
    done = chain(loaded, short_method("grun_npo", multi_coeff="0.25", multi_bias="0.5"), 2)
    assert done[-1].attached.factor == 0.25 * 2 + 0.5  # type: ignore[attr-defined]
    done[-1].restore()


@pytest.mark.parametrize("name", ["npo", "lora_npo"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_full_and_lora_train_on_and_on_from_what_the_last_request_left(name: str, dtype: torch.dtype) -> None:
    loaded = tiny_loaded(dtype=dtype)
    before = state(loaded.model)
    method = short_method(name, retain_loss="kl")
    encoder = toy_encoder()
    first = method.unlearn(loaded, encoder, requests()[0], seed=0, batch_tokens=1000)
    one = weights(first)
    second = method.unlearn(loaded, encoder, requests()[1], seed=0, batch_tokens=1000, earlier=first)
    assert second.attached is first.attached
    two = weights(second)
    assert not same_bits(one, two)
    # the reference of the second request is the model as the first one left it: logp = ref, KL = 0
    log = second.log.steps[0]
    rough = 1e-6 if dtype == torch.float32 else 2e-2
    assert log["forget"] == pytest.approx(2 / 0.1 * 0.6931472, rel=max(rough, 1e-6) * 5)
    assert log["retain"] == pytest.approx(0.0, abs=rough)
    assert {p.dtype for n, p in loaded.model.named_parameters() if ".lora_" not in n} == {dtype}
    second.restore()
    assert same_bits(state(loaded.model), before)


def test_a_chain_is_the_same_whether_or_not_it_is_scored_in_between(loaded: Loaded) -> None:
    for name in ("gd", "lora_gd", "grun_gd"):
        method = short_method(name)
        plain = chain(loaded, method)
        expected = weights(plain[-1])
        plain[-1].restore()
        done: list[Unlearned] = []
        for request in requests():
            earlier = done[-1] if done else None
            done.append(method.unlearn(loaded, toy_encoder(), request, seed=0, batch_tokens=1000, earlier=earlier))
            Scorer(loaded.model, toy_encoder()).answers(toy_pairs())
        assert same_bits(weights(done[-1]), expected)
        done[-1].restore()


@pytest.mark.parametrize("name", ["ga", "lora_ga", "grun_ga"])
def test_a_chain_that_fails_later_on_still_gives_the_model_back(name: str, loaded: Loaded) -> None:
    before = state(loaded.model)
    first = chain(loaded, short_method(name), 1)[0]
    wild = short_method(name, lr="1e30", epochs="9")
    with pytest.raises(Diverged):
        wild.unlearn(loaded, toy_encoder(), requests()[1], seed=0, batch_tokens=1000, earlier=first)
    first.restore()  # as the executor does
    assert same_bits(state(loaded.model), before)


def test_only_parallel_adapters_combine(loaded: Loaded) -> None:
    attached = LoRA().attach(loaded.model, 0)
    with pytest.raises(TypeError, match="nothing to combine"):
        LoRA().combine(loaded.model, attached, attached)
    attached.detach()
    with pytest.raises(LetheError, match="reads forget examples"):
        short_method("gd").unlearn(loaded, toy_encoder(), replace(requests()[0], forget=()), seed=0, batch_tokens=1000)

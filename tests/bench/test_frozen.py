"""The frozen prefix: the same gradients with less work."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import active_rows
from bench.frozen import FrozenPrefix
from bench.models import decoder_blocks
from methods.grun import GRUN, GatedEdits
from tests.helpers import (
    ARCHITECTURES,
    labels_and_logits,
    short_method,
    tiny,
    tiny_loaded,
    toy_tokens,
    unlearn,
    weights,
)

EXAMPLES = {("forget", i): t for i, t in enumerate(toy_tokens()[:5])} | {("retain", 2): toy_tokens()[7]}


def loss(model: nn.Module, tokens: list[Tokens]) -> Tensor:
    labels, logits = labels_and_logits(model, tokens)
    return nn.functional.cross_entropy(logits, labels)


def gradients(attached: GatedEdits) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in attached.trainable().items() if p.grad is not None}
    for p in attached.trainable().values():
        p.grad = None
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_prefix_changes_no_gradient_and_its_blocks_are_not_run(architecture: str) -> None:
    model = tiny(architecture)
    attached = GRUN(layers=(1,), position="answer").attach(model, 0)
    assert attached.frozen_blocks == 2
    keys = [("forget", 3), ("retain", 2), ("forget", 0)]
    plain = loss(model, [EXAMPLES[k] for k in keys])
    plain.backward()
    expected = gradients(attached)
    prefix = FrozenPrefix(model, attached.frozen_blocks)
    with attached.off():
        prefix.record(EXAMPLES, 0, torch.device("cpu"), 60)
    # A call of a block still fires hooks; its insides are what is saved. Every block begins with a norm.
    runs: Counter[int] = Counter()
    handles = [
        next(m for m in block.modules() if "Norm" in type(m).__name__).register_forward_hook(
            lambda *_, i=i: runs.update([i])  # type: ignore[misc]
        )
        for i, block in enumerate(decoder_blocks(model))
    ]
    width = max(len(EXAMPLES[k].input_ids) for k in keys)
    with prefix.replay(keys, width):
        ours = loss(model, [EXAMPLES[k] for k in keys])
    assert runs == {2: 1}
    ours.backward()
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    found = gradients(attached)
    assert found.keys() == expected.keys() and found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    runs.clear()
    loss(model, [EXAMPLES[k] for k in keys])  # afterwards everything runs again
    assert runs == {0: 1, 1: 1, 2: 1}
    for handle in handles:
        handle.remove()


def test_every_distinct_sequence_is_recorded_once_and_only_as_far_as_needed() -> None:
    model = tiny()
    rows: list[int] = []
    upper: list[int] = []
    blocks = decoder_blocks(model)
    handles = [
        blocks[0].register_forward_hook(lambda *_: rows.append(int(active_rows().valid.any(1).sum()))),  # type: ignore[union-attr]
        blocks[1].register_forward_hook(lambda *_: upper.append(1)),
    ]
    twice = {**EXAMPLES, ("refusal", 0): EXAMPLES["forget", 0], ("refusal", 1): EXAMPLES["forget", 1]}
    FrozenPrefix(model, 1).record(twice, 0, torch.device("cpu"), 80)
    for handle in handles:
        handle.remove()
    assert sum(rows) == len(set(twice.values())) == 6
    assert len(rows) > 1
    assert upper == []


def test_a_whole_training_is_the_same_without_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    method = short_method("grun_npo", lr="1e-3", layers="1")
    cached = unlearn(loaded, method)
    expected, log = weights(cached), cached.log
    cached.restore()
    monkeypatch.setattr(GatedEdits, "frozen_blocks", property(lambda _: 0, lambda *_: None), raising=False)
    whole = unlearn(loaded, method)
    whole.restore()
    for a, b in zip(whole.log.steps, log.steps, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)


def test_recording_survives_memory_running_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.frozen

    model = tiny()
    real, tried = bench.frozen.forward, []

    def limited(*args: nn.Module, **kwargs: Tensor) -> Tensor:
        tried.append(len(kwargs["input_ids"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("no")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.frozen, "forward", limited)
    prefix = FrozenPrefix(model, 1)
    prefix.record(EXAMPLES, 0, torch.device("cpu"), 1000)
    assert tried[0] == 6 and len(prefix._recorded) == 6


def test_what_is_visited_once_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    real = FrozenPrefix.record

    def spy(self: FrozenPrefix, examples: dict, *rest: object) -> None:
        recorded.append(len(examples))
        real(self, examples, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FrozenPrefix, "record", spy)
    for name in ("grun_npo", "rmu"):
        for fields in ({"epochs": "1"}, {"epochs": "2", "max_steps": "2"}):  # two steps of 3 and 2 are an epoch
            unlearn(tiny_loaded(), short_method(name, **fields)).restore()
            assert recorded == [], (name, fields)
    unlearn(tiny_loaded(), short_method("rmu", layer="2", layers="1,2")).restore()
    assert len(recorded) == 1
    monkeypatch.setattr("bench.train.RECORDED_TOKENS", 10)  # more would not be kept on the device
    unlearn(tiny_loaded(), short_method("rmu", layer="2", layers="1,2")).restore()
    assert len(recorded) == 1


def test_weights_trained_above_a_frozen_prefix_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded()
    method = short_method("rmu", lr="1e-5", layer="2", layers="1,2")
    assert method.adapter.attach(loaded.model, 0).frozen_blocks == 1
    cached = unlearn(loaded, method)
    expected, log = weights(cached), cached.log
    cached.restore()
    monkeypatch.setattr("bench.train._Loop.repeats", False)
    whole = unlearn(loaded, method)
    for a, b in zip(whole.log.steps, log.steps, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)
    whole.restore()

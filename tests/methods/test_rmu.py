"""RMU: the distances by hand, what is read and run, what moves, and GRUN's published fault beside its mending."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import bench.reference
from bench.activations import Activations
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.models import decoder_blocks
from bench.policy import Batch, Policy, TokenBatch
from bench.train import retain_partner
from methods import full
from methods.base import kl_term, padded_whole
from methods.full import Selected, mlp_out
from methods.rmu import RMU, Steering, direction
from tests.helpers import (
    ARCHITECTURES,
    answers_of,
    same_bits,
    short_method,
    state,
    tiny,
    tiny_loaded,
    toy_corpus,
    toy_tokens,
    unlearn,
)


class Seen:
    """A policy whose hidden states, and whose reference's, are given."""

    def __init__(self, forget: list, retain: list, reference: list) -> None:
        self._values = {"forget": torch.tensor(forget), "retain": torch.tensor(retain)}
        self._reference = torch.tensor(reference)

    def activations(self, batch: TokenBatch) -> Activations:
        values = self._values[batch.role]
        return Activations(values, torch.ones(len(values), dtype=torch.long), len(values))

    def reference_activations(self, batch: TokenBatch) -> Tensor:
        return self._reference


def test_the_loss_by_hand() -> None:
    # Two sequences of one token each. Topic 0 steers to 5 * (0.6, 0.8) = (3, 4), topic 1 to 5 * (1, 0) = (5, 0).
    # (1, 0) of topic 0: (1-3)^2 + (0-4)^2 = 20; (0, 1) of topic 1: (0-5)^2 + (1-0)^2 = 26. 46 / (2 tokens * 2) = 11.5.
    # Retain: (1, 1) from (1, 0) is 1, (2, 0) from (0, 0) is 4. 5 / 4 = 1.25, times alpha = 10: 12.5.
    method = Steering(retain_weight=10.0, block=0, targets=5 * torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    policy: Policy = Seen([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])  # type: ignore[assignment]
    forget = TokenBatch("forget", (0, 1), (), 2, 0, 2, (0, 1))
    batch = Batch({"forget": forget, "retain": TokenBatch("retain", (0, 1), (), 2, 0, 2)})
    terms = {name: value.item() for name, value in method.loss(policy, batch).items()}
    assert terms == {"forget": pytest.approx(11.5), "retain": pytest.approx(12.5)}


def test_directions_are_positive_unit_vectors_of_seed_and_topic() -> None:
    first = direction(64, 0, "bio")
    assert first.norm().item() == pytest.approx(1.0)
    assert bool((first >= 0).all())
    torch.manual_seed(7)
    assert torch.equal(first, direction(64, 0, "bio"))
    assert not torch.equal(first, direction(64, 0, "cyber"))
    assert not torch.equal(first, direction(64, 1, "bio"))


def test_topics_get_a_direction_each_or_share_one() -> None:
    model = tiny()
    each = short_method("rmu").bound(model, 3, ["bio", "cyber"])
    shared = short_method("rmu", alternate="false").bound(model, 3, ["bio", "cyber"])
    assert isinstance(each, Steering) and isinstance(shared, Steering)
    assert each.targets.norm(dim=-1).tolist() == pytest.approx([20.0, 20.0])
    assert not torch.equal(each.targets[0], each.targets[1])
    assert torch.equal(shared.targets[0], shared.targets[1])
    alone = short_method("rmu").bound(model, 3, ["cyber"])  # as the second of successive requests
    assert isinstance(alone, Steering) and torch.equal(alone.targets[0], each.targets[1])


def test_the_block_that_is_read() -> None:
    def block(name: str, architecture: str = "llama", **fields: str) -> int:
        method = short_method(name, **fields)
        reads = method.bound(tiny(architecture), 0, [""]).reads
        assert reads is not None
        return reads.block

    assert block("rmu", layer="none") == 0  # block 7 of 32 in a model of three
    assert block("rmu", layer="none", layers="0,2") == 2  # the last that is trained
    assert block("rmu", layer="2") == 2
    assert block("rmu", layer="-1") == 2
    assert block("grun_rmu") == 2  # the last that is edited
    assert block("grun_rmu", layers="0,1") == 1
    assert block("grun_rmu", layer="-2") == 1
    with pytest.raises(LetheError, match=r"layer must be within -3\.\.2 for this model, got 7"):
        block("rmu", layer="7")


@contextmanager
def calls(model: nn.Module) -> Iterator[Counter[str]]:
    """How often the blocks and the head are called."""
    runs: Counter[str] = Counter()
    modules = {f"block {i}": block for i, block in enumerate(decoder_blocks(model))}
    modules["head"] = model.get_output_embeddings()  # type: ignore[operator]
    handles = [m.register_forward_pre_hook(lambda *_, n=n: runs.update([n])) for n, m in modules.items()]
    yield runs
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "fields", "ran"),
    [
        ("rmu", {"layer": "1"}, {"block 0", "block 1"}),
        ("rmu", {"layer": "0"}, {"block 0"}),
        ("rmu", {"layer": "1", "parameters": "all"}, {"block 0", "block 1"}),
        ("lora_rmu", {"layer": "1"}, {"block 0", "block 1"}),
        ("grun_rmu", {"layers": "0,1"}, {"block 0", "block 1"}),
        ("grun_rmu", {"layers": "0,2", "layer": "1"}, {"block 0", "block 1", "block 2"}),  # block 2 has a gate to train
        ("rmu", {"layer": "1", "retain_loss": "nll"}, {"block 0", "block 1", "block 2", "head"}),
    ],
)
def test_nothing_above_what_is_read_is_ever_run(name: str, fields: dict[str, str], ran: set[str]) -> None:
    loaded = tiny_loaded()
    with calls(loaded.model) as runs:
        unlearn(loaded, short_method(name, **fields)).restore()
    assert runs.keys() == ran


@pytest.mark.parametrize("name", ["rmu", "lora_rmu", "grun_rmu"])
def test_frozen_hidden_states_are_asked_once_per_retain_example(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    real = bench.reference.forward

    def counting(*args: nn.Module, **kwargs: Tensor) -> Tensor:
        rows.append(len(kwargs["input_ids"]))
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.reference, "forward", counting)
    method = short_method(name, epochs="3")
    unlearn(tiny_loaded(), method, batch_tokens=120).restore()
    assert sum(rows) == len({retain_partner(0, epoch, i, 6) for epoch in range(3) for i in range(5)})
    rows.clear()
    unlearn(tiny_loaded(), short_method(name, retain_weight="0")).restore()
    assert rows == []


def test_the_retain_distance_starts_at_zero_and_is_the_frozen_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rmu", "lora_rmu"):
        unlearned = unlearn(tiny_loaded(), short_method(name))
        unlearned.restore()
        values = [entry["retain"] for entry in unlearned.log.steps]
        assert values[0] == pytest.approx(0.0, abs=1e-8)
        assert min(values[1:]) > 1e-6
    unlearned = unlearn(tiny_loaded(), short_method("grun_rmu"))
    unlearned.restore()
    assert unlearned.log.steps[0]["retain"] > 1e-3  # its edits are there from the start, and not in the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_three_matrices_move_and_nothing_else_by_a_bit(dtype: torch.dtype) -> None:
    loaded = tiny_loaded(dtype=dtype)
    before = state(loaded.model)
    unlearned = unlearn(loaded, short_method("rmu", layer="2", lr="1e-2"))
    after = state(loaded.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1, 2)}
    assert all(after[name].dtype == dtype for name, _ in loaded.model.named_parameters())
    assert unlearned.facts()["trainable_parameters"] == 3 * 32 * 48
    assert not any(p.requires_grad or p.grad is not None for p in loaded.model.parameters())
    unlearned.restore()
    unlearned.restore()
    assert same_bits(state(loaded.model), before)


def test_what_trains_is_float32_meanwhile_and_gets_the_only_gradients() -> None:
    model = tiny(dtype=torch.bfloat16)
    attached = Selected(layers=(1,)).attach(model, 0)
    attached.start()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"model.layers.1.mlp.down_proj.weight"} == attached.trainable().keys()
    assert all(p.dtype == torch.float32 for p in attached.trainable().values())
    assert (attached.lowest_block, attached.frozen_blocks, attached.compute_dtype) == (1, 1, torch.bfloat16)
    attached.detach()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str) -> None:
    loaded = tiny_loaded(architecture)
    before = state(loaded.model)
    names = {mlp_out(loaded.model, layer) for layer in (0, 1)}
    shapes = {tuple(before[name].shape) for name in names}
    assert shapes == {(48, 32) if architecture == "gpt2" else (32, 48)}
    fields = {"layer": "1", "alternate": "false", "retain_weight": "1", "batch_size": "5", "epochs": "10", "lr": "1e-2"}
    with calls(loaded.model) as runs:
        unlearned = unlearn(loaded, short_method("rmu", **fields), benchmark=toy_corpus())
    assert runs.keys() == {"block 0", "block 1"}
    after = state(loaded.model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == names
    losses = [entry["forget"] for entry in unlearned.log.steps]
    assert losses[-1] < losses[0]
    unlearned.restore()
    assert same_bits(state(loaded.model), before)


def test_all_parameters_move_where_asked_as_far_as_the_loss_reaches() -> None:
    loaded = tiny_loaded()
    before = state(loaded.model)
    unlearned = unlearn(loaded, short_method("rmu", parameters="all", layer="1", weight_decay="0"))
    after = state(loaded.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.embed_tokens.weight" in moved
    assert "model.layers.1.self_attn.q_proj.weight" in moved
    assert not any(name.startswith(("model.layers.2", "lm_head", "model.norm")) for name in moved)
    unlearned.restore()
    assert same_bits(state(loaded.model), before)


def test_a_reading_below_everything_that_trains_is_refused() -> None:
    loaded = tiny_loaded()
    before = state(loaded.model)
    text = "reads the output of block 0, but the lowest block that trains is 1, so nothing would train; set layer to 1"
    for name, fields in (("rmu", {"layers": "1,2"}), ("grun_rmu", {"layers": "1,2"})):
        with pytest.raises(LetheError, match=text):
            unlearn(loaded, short_method(name, **{**fields, "layer": "0"}))
    assert same_bits(state(loaded.model), before)


def test_wrong_values_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LetheError, match="steering_coeff must not be negative, got -1"):
        short_method("rmu", steering_coeff="-1")
    with pytest.raises(LetheError, match="layers must be distinct"):
        short_method("rmu", layers="1,1")
    with pytest.raises(LetheError, match=r"layers must be within 0\.\.2 for this model, got \(5, 6, 7\)"):
        unlearn(tiny_loaded(), short_method("rmu", layers="5,6,7"))
    with pytest.raises(LetheError, match=r"npo\.retain_loss must be one of nll, kl, kl_padded, got 'activation'"):
        short_method("npo", retain_loss="activation")
    with pytest.raises(LetheError, match="max_steps must be at least 1, got 0"):
        short_method("rmu", max_steps="0")
    monkeypatch.setattr(full, "MLP_OUT", ("mlp.experts",))
    with pytest.raises(LetheError, match="block 0 of LlamaForCausalLM has no MLP output matrix under a known name"):
        mlp_out(tiny(), 0)


def gradients_of_last_edit(**fields: str) -> dict[str, bool]:
    """Whether the parameters of the last edited block get a gradient that is not zero in a step of grun_rmu."""
    reached: dict[int, bool] = {}

    class Spy(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            for p in (p for group in self.param_groups for p in group["params"]):
                reached[id(p)] = p.grad is not None and bool(p.grad.abs().sum() > 0)
            super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        method = short_method("grun_rmu", batch_size="5", epochs="1", **fields)
        unlearned = unlearn(tiny_loaded(), method, benchmark=toy_corpus())
    unlearned.restore()
    named = unlearned.attached.trainable()
    return {name.removeprefix("0.2."): reached[id(p)] for name, p in named.items() if name.startswith("0.2.")}


EDIT = {"rotate_layer.parametrizations.weight.original", "learned_source.weight", "learned_source.bias"}


def test_the_last_edit_is_trained() -> None:
    reached = gradients_of_last_edit()
    assert reached.keys() >= EDIT
    assert all(reached.values())


@pytest.mark.parametrize("fields", [{"positions": "labels"}, {"layer": "-2", "positions": "labels"}])
def test_published_readings_leave_the_last_edit_as_it_was_drawn(fields: dict[str, str]) -> None:
    # labels alone are no better at the last block: nobody above it looks at the one token that it edits
    reached = gradients_of_last_edit(**fields)
    assert {name for name, got in reached.items() if not got} == EDIT
    assert any(name.startswith("gate.") for name in reached)  # the gate has its own loss


def test_the_sum_over_padding_and_prompt_by_hand() -> None:
    # Reference (1/2, 1/2), policy (1/4, 3/4): KL = 1/2 log 2 + 1/2 log 2/3 = 0.14384 at each of three positions.
    # Two rows: the sum is divided by two, the mean by three.
    reference = torch.zeros(3, 2)
    answers = answers_of([[0.25, 0.25], [0.25]])
    assert kl_term(answers, reference, padded=True).item() == pytest.approx(3 * 0.1438410 / 2, rel=1e-5)
    assert kl_term(answers, reference, padded=False).item() == pytest.approx(0.1438410, rel=1e-5)


def test_padding_is_scored_and_seen_by_nobody() -> None:
    rows = padded_whole((Tokens((1, 5, 6, 7), 3), Tokens((1, 5), 1)), 9)
    # every position predicts: one more id than the longest row has
    assert rows[0] == Tokens((1, 5, 6, 7, 9), 1, (4,), 2)
    assert rows[1] == Tokens((1, 5, 9, 9, 9), 1, (2, 3, 4), 0)
    assert [row.last_prompt for row in rows] == [2, 0]  # where adapters edit


def test_a_row_that_fills_the_context_leaves_out_what_follows_it() -> None:
    rows = padded_whole((Tokens((1, 5, 6, 7), 3), Tokens((1, 5), 1)), 9, most=4)
    assert rows == (Tokens((1, 5, 6, 7), 1, (), 2), Tokens((1, 5, 9, 9), 1, (2, 3), 0))


def test_the_padded_kl_trains_on_documents_that_fill_the_context() -> None:
    corpus = toy_corpus()
    filling = tuple(replace(row, text=" ".join([row.text] * 200)) for row in corpus.retain)  # type: ignore[reportAttributeAccessIssue]
    method = short_method("grun_npo", retain_loss="kl_padded")
    unlearned = unlearn(tiny_loaded(), method, benchmark=replace(corpus, retain=filling))
    unlearned.restore()
    assert unlearned.log.steps


@torch.no_grad()
def test_logits_at_padding_are_those_of_a_padded_batch_in_transformers() -> None:
    model, tokens = tiny(), toy_tokens()[:3]
    rows = padded_whole(tuple(tokens), 0)
    method = short_method("npo", retain_loss="kl_padded")
    reference = bench.reference.Reference.ask(
        model, method, lambda role: [0, 1, 2] if role == "retain" else [], lambda _: rows, 0, torch.device("cpu"), 9999
    )
    width = max(len(t.input_ids) for t in tokens)
    ids = torch.zeros(3, width, dtype=torch.long)
    mask = torch.zeros(3, width, dtype=torch.long)
    for i, t in enumerate(tokens):
        ids[i, : len(t.input_ids)] = torch.tensor(t.input_ids)
        mask[i, : len(t.input_ids)] = 1
    expected = model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)
    found = reference.logits("retain", [0, 1, 2], torch.device("cpu"))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["rmu", "grun_rmu", "grun_npo", "lora_gd"])
def test_the_padded_kl_trains(name: str) -> None:
    unlearned = unlearn(tiny_loaded(), short_method(name, retain_loss="kl_padded"), benchmark=toy_corpus())
    unlearned.restore()
    assert unlearned.log.steps[-1]["retain"] > 0


def test_defaults_are_the_authors() -> None:
    rmu = RMU()
    assert (rmu.steering_coeff, rmu.retain_weight, rmu.layer, rmu.positions) == (20.0, 100.0, None, "all")
    around = Selected().around(7)
    assert around.layers == (5, 6, 7)
    assert Selected().around(1).layers == (0, 1)
    assert Selected(layers=(3,)).around(7).layers == (3,)

"""GRUN: the edit, its gates, where it acts, and that pyvene agrees."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.errors import LetheError
from bench.forward import LATER, Rows, announce, forward, pad
from bench.models import decoder_blocks, decoder_blocks_path
from bench.scorer import Scorer
from methods.grun import GRUN, GatedEdits, gate_loss, load_grun, resolve_layers
from methods.interventions import GatedLoReFT, ThinQR, intervenable
from tests.helpers import (
    ARCHITECTURES,
    SHORT,
    attach,
    short_method,
    tiny,
    tiny_loaded,
    toy_encoder,
    toy_pairs,
    toy_tokens,
    unlearn,
    weights,
)


def module_of(rotation: Tensor, w: Tensor, b: Tensor, gate_w: Tensor, gate_b: float) -> GatedLoReFT:
    """A module with a linear gate and these numbers; rotation (D, R)."""
    module = GatedLoReFT(embed_dim=rotation.shape[0], low_rank_dimension=rotation.shape[1])
    with torch.no_grad():
        module.rotate_layer.weight = rotation
        module.learned_source.weight.copy_(w)
        module.learned_source.bias.copy_(b)
        assert isinstance(module.gate, nn.Linear)
        module.gate.weight.copy_(gate_w)
        module.gate.bias.fill_(gate_b)
    return module


def test_the_edit_by_hand() -> None:
    # R = (1, 0, 0), W = (0, 2, 0), b = 1/2, h = (4, 1, 1): R h = 4, W h + b = 5/2, R^T(...) = (-3/2, 0, 0).
    # gate = sigmoid(log 3 * h_3) = 3/4, so h moves by 3/4 * -3/2 = -9/8 along the first axis.
    rotation = torch.tensor([[1.0], [0.0], [0.0]])
    gate = torch.tensor([[0.0, 0.0, math.log(3.0)]])
    module = module_of(rotation, torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([0.5]), gate, 0.0)
    out = module(torch.tensor([[4.0, 1.0, 1.0]]))
    assert out.tolist()[0] == pytest.approx([4 - 9 / 8, 1.0, 1.0])
    # two directions in the plane of axes 1 and 2: R h = (h_1, h_2); source (0, 0) wipes both out at gate 1
    rotation = torch.eye(3)[:, :2]
    module = module_of(rotation, torch.zeros(2, 3), torch.zeros(2), torch.zeros(1, 3), 100.0)
    assert module(torch.tensor([[4.0, 1.0, 1.0]])).tolist()[0] == pytest.approx([0.0, 0.0, 1.0])


def test_the_mlp_gate_is_three_layers_with_relus_between() -> None:
    module = GatedLoReFT(embed_dim=5, low_rank_dimension=2, gate="mlp_3")
    h = torch.randn(4, 5)
    one, two, three = (layer for layer in module.gate if isinstance(layer, nn.Linear))  # type: ignore[union-attr]
    assert [tuple(layer.weight.shape) for layer in (one, two, three)] == [(256, 5), (64, 256), (1, 64)]
    expected = three(two(one(h).clamp(min=0)).clamp(min=0)).squeeze(-1)
    torch.testing.assert_close(module.gate_logits(h), expected)


@pytest.mark.parametrize(("gate", "numbers"), [("linear", 36_869), ("mlp_3", 1_098_117)])
def test_parameter_counts_are_the_papers(gate: str, numbers: int) -> None:
    module = GatedLoReFT(embed_dim=4096, low_rank_dimension=4, gate=gate)  # type: ignore[arg-type]
    assert sum(p.numel() for p in module.parameters()) == numbers


def test_the_rotation_is_the_q_of_a_qr_and_its_gradient_is_right() -> None:
    matrix = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    q = ThinQR()(matrix)
    torch.testing.assert_close(q.T @ q, torch.eye(3, dtype=torch.double))
    torch.testing.assert_close(ThinQR()(q.detach()), q)  # an orthonormal matrix maps to itself
    torch.testing.assert_close(ThinQR()(5 * matrix), q)  # and scale does not matter
    assert torch.autograd.gradcheck(ThinQR(), (matrix,))


def test_the_rotation_outside_training_follows_every_change() -> None:
    module = GatedLoReFT(embed_dim=6, low_rank_dimension=2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            first, again = module.rotation(), module.rotation()
            assert first is again
            torch.testing.assert_close(first, module.rotate_layer.weight)
        module.rotation().square().sum().add(module.rotation()[0, 0]).backward()
        optimizer.step()
    with torch.no_grad():
        stale = module.rotation()
        module.load_state_dict(GatedLoReFT(embed_dim=6, low_rank_dimension=2).state_dict())
        assert not torch.equal(module.rotation(), stale)


def test_the_rotation_stays_orthonormal_while_weights_decay() -> None:
    loaded = tiny_loaded()
    unlearned = unlearn(loaded, short_method("grun_npo", weight_decay="0.9", lr="0.1", epochs="10"))
    for modules in unlearned.attached.modules:  # type: ignore[attr-defined]
        for module in modules.values():
            rotation = module.rotate_layer.weight
            torch.testing.assert_close(rotation.T @ rotation, torch.eye(4), atol=1e-5, rtol=0)
    unlearned.restore()


def test_the_gate_loss_by_hand() -> None:
    # Row 0 is to be forgotten, row 1 retained, row 2 not asked. Gates: sigmoid(0) = 1/2, sigmoid(log 3) = 3/4.
    logits = torch.tensor([0.0, math.log(3.0), math.log(3.0), 0.0])
    loss = gate_loss(logits, torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, -1]))
    # row 0: -log 1/2; row 1, two tokens: -log(1 - 3/4) each, and their mean is the same
    assert loss[:2].tolist() == pytest.approx([math.log(2), math.log(4)])


def gated(objective_terms: float, warmup: int, step: int) -> dict[str, Tensor]:
    """The terms of a hand-made forward: two layers, two forget rows, two retain rows, one row that does not count."""
    edits = GRUN(layers=(0, 1), gate_weight=10.0, gate_warmup=warmup).attach(tiny(), 0)
    edits.detach()
    edits._gate_losses = {(0, 0): torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0]), (1, 0): torch.tensor([0.5] * 4 + [99.0])}
    rows = Rows(
        last_prompt=torch.zeros(5, dtype=torch.long),
        valid=torch.ones(5, 1, dtype=torch.bool),
        role=torch.tensor([1, 1, 0, 0, -1]),
    )
    terms = {"forget": torch.tensor(objective_terms), "retain": torch.tensor(4.0)}
    return edits.terms(terms, rows, {1: 2, 0: 2}, step)


def test_the_gate_term_is_a_mean_over_examples_and_layers_and_is_never_warmed_up() -> None:
    # (1 + 2 + 3 + 4 + 4 * 0.5) / (2 layers * 4 examples) = 1.5, times 10
    terms = {k: v.item() for k, v in gated(6.0, 0, 0).items()}
    assert terms == {"forget": 6.0, "retain": 4.0, "gate": pytest.approx(15.0)}
    # W = 3 and L = 2: s(t) = min(t / 6, 1)
    for step, scale in ((0, 0.0), (3, 0.5), (6, 1.0), (100, 1.0)):
        terms = {k: v.item() for k, v in gated(6.0, 3, step).items()}
        assert terms == {
            "forget": pytest.approx(6 * scale),
            "retain": pytest.approx(4 * scale),
            "gate": pytest.approx(15.0),
        }


def test_one_gate_value_per_example_and_layer_in_a_real_step() -> None:
    # DPO forwards refusals beside the forget answers: the same prompts, whose gates must not count twice
    loaded = tiny_loaded()
    for name in ("grun_gd", "grun_dpo", "grun_ga"):  # ga reads retain rows for its gates only
        unlearned = unlearn(loaded, short_method(name, lr="1e-9", batch_size="5", epochs="1"))
        modules = unlearned.attached.modules[0]  # type: ignore[attr-defined]
        unlearned.restore()
        tokens = toy_tokens()
        from bench.train import retain_partner

        rows = [(tokens[i], 1) for i in range(5)] + [(tokens[5 + retain_partner(0, 0, i, 6)], 0) for i in range(5)]
        values = []
        for t, label in rows:
            seen: dict[int, Tensor] = {}
            edits = GatedEdits(loaded.model, GRUN(), [modules])
            handles = [
                module.gate.register_forward_hook(lambda _, __, out, at=layer, seen=seen: seen.update({at: out}))
                for layer, module in modules.items()
            ]
            run(loaded.model, [t])
            edits.detach()
            for handle in handles:
                handle.remove()
            values += [-nn.functional.logsigmoid(v if label else -v).item() for v in seen.values()]
        assert len(values) == 10 * 2
        assert unlearned.log.steps[0]["gate"] == pytest.approx(10 * sum(values) / 20, rel=1e-5)


def test_layers_follow_the_authors_depths_or_the_users_wish() -> None:
    assert resolve_layers(None, 32) == (20, 25, 31)
    assert resolve_layers(None, 16) == (9, 12, 15)
    assert resolve_layers(None, 4) == (2, 3)
    assert resolve_layers(None, 1) == (0,)
    assert resolve_layers((3, 1), 4) == (1, 3)
    for wrong in ((4,), (-1, 2), ()):
        with pytest.raises(LetheError, match=r"layers must be within 0\.\.3 for this model"):
            resolve_layers(wrong, 4)
    with pytest.raises(LetheError, match=r"layers must be within 0\.\.2 for this model, got \(16, 30\)"):
        unlearn(tiny_loaded(), short_method("grun_npo", layers="16,30"))
    with pytest.raises(LetheError, match="rank must be at most the model's width 32, got 33"):
        GRUN(rank=33).attach(tiny(), 0)
    for fields in ({"rank": 0}, {"gate_weight": -1.0}, {"gate_warmup": -1}, {"layers": (1, 1)}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            GRUN(**fields)  # type: ignore[arg-type]


def run(model: nn.Module, tokens: list) -> Tensor:
    padded = pad(tokens, 0, "cpu")
    return forward(
        model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
        at=padded.at,
    )


@contextmanager
def outputs(model: nn.Module) -> Iterator[dict[int, Tensor]]:
    """What every block hands on, edits included."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int):  # noqa: ANN202
        def hook(_: nn.Module, __: tuple, out: Tensor | tuple) -> None:
            seen[layer] = (out[0] if isinstance(out, tuple) else out).clone()

        return hook

    handles = [block.register_forward_hook(keep(i)) for i, block in enumerate(decoder_blocks(model))]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("position", ["last_prompt", "answer", "all"])
@torch.no_grad()
def test_exactly_the_positions_that_are_named_change(position: str, architecture: str) -> None:
    model = tiny(architecture)
    tokens = toy_tokens()[:3]
    with outputs(model) as plain:
        run(model, tokens)
    edits = GRUN(layers=(1,), position=position).attach(model, 0)  # type: ignore[arg-type]
    with outputs(model) as edited:
        run(model, tokens)
    edits.detach()
    padded = pad(tokens, 0, "cpu")
    columns = torch.arange(padded.valid.shape[1])
    from_prompt = (columns >= padded.last_prompt[:, None]) & padded.valid
    expected = {
        "last_prompt": columns == padded.last_prompt[:, None],
        "answer": from_prompt,
        "all": padded.valid,
    }[position]
    changed = {layer: ((edited[layer] - plain[layer]).abs().amax(-1) > 0) for layer in plain}
    assert not changed[0].any()
    assert torch.equal(changed[1], expected)
    above = changed[2] & padded.valid
    assert torch.equal(above, padded.valid if position == "all" else from_prompt)


@torch.no_grad()
def test_answer_tokens_are_scaled_by_the_gate_of_the_last_prompt_token() -> None:
    model = tiny()
    [tokens] = toy_tokens()[:1]
    with outputs(model) as plain:
        run(model, [tokens])
    edits = GRUN(layers=(1,), position="answer").attach(model, 0)
    [module] = edits.modules[0].values()
    with outputs(model) as edited:
        run(model, [tokens])
    edits.detach()
    h = plain[1][0]
    p = tokens.label_start - 1
    gate = torch.sigmoid(module.gate_logits(h[p]))
    expected = h.clone()
    expected[p:] += gate * module.delta(h[p:])
    torch.testing.assert_close(edited[1][0], expected)


@torch.no_grad()
def test_a_module_at_the_last_block_changes_the_first_answer_token_only() -> None:
    model = tiny()
    tokens = toy_tokens()[:4]
    plain = run(model, tokens)
    edits = GRUN(layers=(2,)).attach(model, 0)
    changed = (run(model, tokens) - plain).abs().amax(-1) > 0
    edits.detach()
    starts = torch.tensor([len(t.labels) for t in tokens]).cumsum(0) - torch.tensor([len(t.labels) for t in tokens])
    assert changed.nonzero().squeeze(-1).tolist() == starts.tolist()


@pytest.mark.parametrize("gate", ["linear", "mlp_3"])
@torch.no_grad()
def test_parallel_modules_all_read_the_unedited_output_by_hand(gate: str, tmp_path: Path) -> None:
    model = tiny()
    [tokens] = toy_tokens()[:1]
    with outputs(model) as plain:
        run(model, [tokens])
    config = GRUN(layers=(1,), gate=gate)  # type: ignore[arg-type]
    combined = config.attach(model, 0)
    for n in (2, 3):
        combined.detach()
        combined = config.combine(model, combined, config.attach(model, n))
        assert len(combined.modules) == n
        assert combined.factor == pytest.approx(0.6 * n + 0.6)
    with outputs(model) as edited:
        logits = run(model, [tokens])
    h = plain[1][0, tokens.label_start - 1]
    change = torch.zeros_like(h)
    for modules in combined.modules:
        m = modules[1]
        r = m.rotate_layer.weight.T  # (R, D)
        source = m.learned_source.weight @ h + m.learned_source.bias
        change += torch.sigmoid(m.gate(h)) * (r.T @ (source - r @ h))
    torch.testing.assert_close(edited[1][0, tokens.label_start - 1], h + (0.6 * 3 + 0.6) * change)
    combined.save(tmp_path)
    combined.detach()
    again = load_grun(tmp_path, model)
    assert len(again.modules) == 3
    torch.testing.assert_close(run(model, [tokens]), logits, atol=0, rtol=0)
    again.detach()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("position", ["last_prompt", "all"])
@torch.no_grad()
def test_pyvenes_own_forward_gives_the_same_logits(architecture: str, position: str) -> None:
    model = tiny(architecture)
    edits = GRUN(layers=(0, 2), position=position).attach(model, 0)  # type: ignore[arg-type]
    tokens = [t for t in toy_tokens() if len(t.input_ids) >= 22][:2]
    ids = torch.tensor([t.input_ids[:22] for t in tokens])  # pyvene knows no padding
    rows = Rows(
        last_prompt=torch.tensor([t.label_start - 1 for t in tokens]), valid=torch.ones_like(ids, dtype=torch.bool)
    )
    with announce(rows):
        ours = model(ids).logits
    edits.detach()
    peer = intervenable(model, decoder_blocks_path(model), 32, edits.modules[0])
    places = [[p] for p in rows.last_prompt.tolist()]
    where = {"sources->base": (None, [places, places])} if position == "last_prompt" else None
    _, theirs = peer({"input_ids": ids}, unit_locations=where)
    torch.testing.assert_close(theirs.logits, ours, atol=1e-5, rtol=1e-5)
    assert (theirs.logits - model(ids).logits).abs().max() > 0.01


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_into_a_fresh_model_everything_is_the_same(architecture: str, tmp_path: Path) -> None:
    kind = ARCHITECTURES.index(architecture) % 5
    adapter = ("last_prompt", "answer", "all", "mlp", "parallel")[kind]
    model = tiny(architecture)
    attached = attach(model, adapter)
    assert attached is not None
    attached.save(tmp_path)
    scorer = Scorer(model, toy_encoder())
    questions = [q for q, _ in toy_pairs()]
    records, texts = scorer.answers(toy_pairs()), scorer.generate(questions, max_new_tokens=5)
    fresh = tiny(architecture)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    loaded = load_grun(tmp_path, fresh)
    assert torch.equal(torch.get_rng_state(), before)
    again = Scorer(fresh, toy_encoder())
    assert again.answers(toy_pairs()) == records
    assert again.generate(questions, max_new_tokens=5) == texts
    assert loaded.factor == attached.factor  # type: ignore[attr-defined]
    attached.detach()


def test_saving_and_loading_stay_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    edits = GRUN(layers=(1,)).attach(model, 0)
    edits.save(tmp_path)
    edits.save(tmp_path)  # over an older one
    load_grun(tmp_path, model).detach()
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_not_whole_or_of_another_model_is_told(tmp_path: Path) -> None:
    model = tiny()
    edits = GRUN(layers=(1, 2)).attach(model, 0)
    edits.save(tmp_path / "whole")
    edits.detach()
    with pytest.raises(LetheError, match="no complete GRUN adapter"):
        load_grun(tmp_path / "nowhere", model)
    facts = json.loads((tmp_path / "whole" / "grun.json").read_text())
    (tmp_path / "whole" / "grun.json").write_text(json.dumps({**facts, "modules": 2}))
    with pytest.raises(LetheError, match=r"no complete GRUN adapter .*2 modules, 1 are there"):
        load_grun(tmp_path / "whole", model)
    (tmp_path / "whole" / "grun.json").write_text(json.dumps(facts))
    [first, *_] = sorted((tmp_path / "whole").glob("*.bin"))
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    with pytest.raises(LetheError, match="no complete GRUN adapter"):
        load_grun(tmp_path / "whole", model)
    first.unlink()
    with pytest.raises(LetheError, match="no complete GRUN adapter"):
        load_grun(tmp_path / "whole", model)
    assert not any(b._forward_hooks for b in decoder_blocks(model))


@pytest.mark.parametrize("position", ["last_prompt", "answer", "all"])
def test_what_stands_in_front_of_the_last_prompt_token_is_edited_by_position_all_only(position: str) -> None:
    model = tiny()
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])

    def read(last_prompt: int) -> tuple[Tensor, Rows]:
        rows = Rows(last_prompt=torch.full((2,), last_prompt), valid=torch.ones(2, 3, dtype=torch.bool))
        with announce(rows), torch.no_grad():
            return model(input_ids=ids).logits, rows

    plain, _ = read(LATER)
    attached = attach(model, position)
    assert attached is not None
    prefix, rows = read(LATER)
    assert rows.carry == {}  # the gate is read at the last prompt token, in a later call
    assert torch.equal(prefix, plain) == (position != "all")
    assert not torch.equal(read(1)[0], plain)
    attached.detach()


def test_a_call_that_does_not_tell_the_last_prompt_token_is_an_error() -> None:
    model = tiny()
    edits = GRUN().attach(model, 0)
    with pytest.raises(LetheError, match=r"outside bench\.forward"):
        model(torch.tensor([[1, 2, 3]]))
    with edits.off():
        model(torch.tensor([[1, 2, 3]]))
    edits.detach()
    model(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_half_precision_model_the_edit_is_computed_in_float32(dtype: torch.dtype) -> None:
    model = tiny(dtype=dtype)
    [tokens] = toy_tokens()[:1]
    with outputs(model) as plain, torch.no_grad():
        run(model, [tokens])
    edits = GRUN(layers=(1,)).attach(model, 0)
    assert {p.dtype for p in edits.trainable().values()} == {torch.float32}
    with outputs(model) as edited, torch.no_grad():
        run(model, [tokens])
    h = plain[1][0, tokens.label_start - 1]
    [module] = edits.modules[0].values()
    exact = (h.float() + torch.sigmoid(module.gate_logits(h)) * module.delta(h)).to(dtype)
    assert torch.equal(edited[1][0, tokens.label_start - 1], exact)
    edits.detach()
    loaded = tiny_loaded(dtype=dtype)
    unlearned = unlearn(loaded, short_method("grun_idk", epochs="8"))
    first, last = unlearned.log.steps[0], unlearned.log.steps[-1]
    assert sum(last[k] for k in ("forget", "retain", "gate")) < sum(first[k] for k in ("forget", "retain", "gate"))
    unlearned.restore()


def test_gradients_reach_the_gate_through_what_is_carried_to_the_answer() -> None:
    # without a gate loss, only the edits scaled by the gate can move it
    for position in ("last_prompt", "answer", "all"):
        loaded = tiny_loaded()
        method = short_method("grun_idk", gate_weight="0", position=position)
        before = method.adapter.attach(loaded.model, 0)
        initial = {k: v.detach().clone() for k, v in before.trainable().items()}
        before.detach()
        unlearned = unlearn(loaded, method)
        trained = weights(unlearned)
        unlearned.restore()
        assert trained.keys() == initial.keys()
        assert all(not torch.equal(trained[k], initial[k]) for k in trained), position


def test_defaults_are_the_authors() -> None:
    config = GRUN()
    assert (config.lr, config.epochs, config.batch_size, config.rank) == (4e-3, 40, 16, 4)
    assert (config.gate, config.gate_weight, config.position, config.gate_warmup) == ("linear", 10.0, "last_prompt", 0)
    assert (config.weight_decay, config.clip_norm, config.warmup_epochs) == (0.0, 1.0, 0.0)
    assert SHORT["epochs"] != str(config.epochs)  # what the other tests run is shorter


def test_gate_values_are_those_at_the_last_prompt_tokens() -> None:
    loaded, encoder = tiny_loaded(), toy_encoder()
    attached = GRUN(layers=(0, 1), position="all").attach(loaded.model, seed=0)
    pairs = list(dict(toy_pairs()).items())
    found = attached.gate_values(partial(Scorer(loaded.model, encoder).answers, pairs))
    assert sorted({layer for layer, _ in found}) == [0, 1]
    assert len(found) == 2 * len(pairs) and all(0 < value < 1 for _, value in found)
    one = attached.gate_values(partial(Scorer(loaded.model, encoder).answers, pairs[:1]))
    assert all(any(abs(value - other) < 1e-6 for _, other in found) for _, value in one)
    Scorer(loaded.model, encoder).answers(pairs)  # nobody asks: nothing is kept
    assert attached.gate_values(lambda: None) == []
    attached.detach()

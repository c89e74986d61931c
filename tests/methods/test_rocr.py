"""ROCR: the closed form, what it writes where, what it leaves alone, and what it says to bad input."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import bench.moments
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.models import Loaded, decoder_blocks
from bench.moments import input_width, unprojected
from bench.scorer import Scorer
from methods.full import mlp_out
from methods.rocr import ROCR, Edited, edited_layers, matrix
from methods.subject_states import chat_places, random_value, read_places
from methods.weight_edits import WeightEdit
from tests.helpers import (
    ARCHITECTURES,
    TEXTS,
    same_bits,
    state,
    tiny,
    toy_benchmark,
    toy_encoder,
    toy_pairs,
    toy_tokenizer,
    weights,
)

ADA, BEN, CLEO, DAN = "Ada Moor", "Ben Ruiz", "Cleo Falk", "Dan Ito"
LINES = tuple(f"{q} {a}" for q, a in TEXTS)
POST_NORMED = ("gemma2", "gemma3")
"""Norm the MLP's output before it is added: what is written there does not arrive as it was written."""
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MORE = {
    "phi": lambda v: PhiForCausalLM(PhiConfig(vocab_size=v, **SMALL)),
    "qwen2": lambda v: Qwen2ForCausalLM(Qwen2Config(vocab_size=v, num_key_value_heads=2, **SMALL)),
    "bloom": lambda v: BloomForCausalLM(BloomConfig(vocab_size=v, **SMALL)),
    "gemma": lambda v: GemmaForCausalLM(GemmaConfig(vocab_size=v, num_key_value_heads=2, head_dim=8, **SMALL)),
}
"""Families of the authors' files, Gemma's first, and one whose blocks return tuples; the toys lack them."""


def model_of(architecture: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    if architecture not in MORE:
        return tiny(architecture, dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MORE[architecture](len(toy_tokenizer()))
        for p in model.parameters():
            p.data.normal_(std=0.25)
    return model.to(dtype).eval().requires_grad_(False)  # type: ignore[arg-type]


def request(*subjects: str, **fields: Any) -> Benchmark:
    return replace(toy_benchmark(), subjects=subjects, background=LINES, **fields)


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return on(tiny(), tmp_path)


def on(model: PreTrainedModel, folder: Path, kind: str = "full") -> Loaded:
    return Loaded(model, toy_tokenizer(kind), "toy", folder)


def rocr(**fields: Any) -> ROCR:
    defaults = {"layers": (0, 1), "l2": 0.01, "unrelated_subject": BEN, "nullspace_threshold": 0.5}
    return ROCR(**{**defaults, **fields})


def edit(
    loaded: Loaded, method: ROCR, *subjects: str, kind: str = "full", seed: int = 0, earlier: Edited | None = None
) -> Edited:
    return method.unlearn(loaded, toy_encoder(kind), request(*subjects), seed=seed, batch_tokens=1000, earlier=earlier)


def value(model: PreTrainedModel, name: str, block: int, encoder: Encoder | None = None) -> Tensor:
    """(D,) what a block puts out at a name, a mean over the lead-ins; read with transformers alone."""
    encoder = encoder or toy_encoder()
    found = []
    for place in chat_places(encoder, name):
        with torch.no_grad():
            states = model(torch.tensor([place.tokens.input_ids]), output_hidden_states=True).hidden_states
        found.append(states[block + 1][0, place.at].float())
    return torch.stack(found).mean(dim=0)


# what is written into a model


@pytest.mark.parametrize("kind", ["full", "chat", "bare"])
@pytest.mark.parametrize("architecture", [a for a in (*ARCHITECTURES, *MORE) if a not in POST_NORMED])
def test_the_last_block_puts_out_at_one_name_what_it_put_out_at_the_other(
    architecture: str, kind: str, tmp_path: Path
) -> None:
    loaded, encoder = on(model_of(architecture), tmp_path, kind), toy_encoder(kind)
    before = value(loaded.model, ADA, 1, encoder)
    target = value(loaded.model, BEN, 1, encoder)
    assert (target - before).norm() > 1
    done = edit(loaded, rocr(l2=1e-5, nullspace="off"), ADA, kind=kind)
    # the first block writes half of the way, the second, read anew, all that is left: its edit is linear in its key
    assert (value(loaded.model, ADA, 1, encoder) - target).norm() < 2e-3 * (target - before).norm()
    assert [s["layer"] for s in done.log.steps] == [0, 1]
    done.restore()


@pytest.mark.parametrize("architecture", POST_NORMED)
def test_where_the_mlps_output_is_normed_the_edit_is_applied_all_the_same(architecture: str, tmp_path: Path) -> None:
    loaded = on(tiny(architecture), tmp_path)
    before = value(loaded.model, ADA, 1)
    done = edit(loaded, rocr(), ADA)
    assert (value(loaded.model, ADA, 1) - before).norm() > 1e-2 * before.norm()
    done.restore()


def test_a_block_writes_its_share_of_what_is_left_times_kappa_over_lambda_plus_kappa(loaded: Loaded) -> None:
    before, target = value(loaded.model, ADA, 1), value(loaded.model, BEN, 1)
    done = edit(loaded, rocr(layers=(1,), l2=2.0), ADA)
    [line] = done.log.steps
    assert line.keys() == {"step", "layer", "kappa", "written", "residual"}
    assert line["written"] == pytest.approx(line["kappa"] / (2.0 + line["kappa"]))
    assert line["residual"] == pytest.approx(float((target - before).norm()), rel=1e-5)
    after = value(loaded.model, ADA, 1)
    torch.testing.assert_close(after - before, line["written"] * (target - before), rtol=1e-3, atol=1e-4)
    done.restore()
    two = edit(loaded, rocr(layers=(0, 1)), ADA)
    assert two.log.steps[0]["residual"] == pytest.approx(line["residual"] / 2, rel=1e-5)
    two.restore()


def test_directions_that_text_uses_are_left_alone(loaded: Loaded) -> None:
    done = edit(loaded, rocr(), ADA)
    names = {layer: matrix(loaded.model, layer) for layer in (0, 1)}
    texts = [toy_encoder().document(line) for line in LINES]
    changes = {n: done.attached.factors[name] for n, name in names.items()}
    done.restore()
    moments = bench.moments.second_moments(loaded.model, names, texts, pad_id=0, batch_tokens=1000)
    for layer, factors in changes.items():
        used = torch.linalg.eigh(moments[layer])
        large = used.eigenvectors[:, used.eigenvalues >= 0.5]
        assert large.shape[1] > 5
        assert (factors.rows @ large).abs().max() < 1e-5 * factors.rows.norm()


EVERY = [(a, torch.float32) for a in (*ARCHITECTURES, *MORE)]
HALF = [(a, dtype) for a in ("llama", "gpt2") for dtype in (torch.bfloat16, torch.float16)]


@pytest.mark.parametrize(("architecture", "dtype"), [*EVERY, *HALF])
def test_the_original_comes_back_bit_for_bit(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    loaded = on(model_of(architecture, dtype), tmp_path)
    before = state(loaded.model)
    pointers = {name: p.data_ptr() for name, p in loaded.model.named_parameters()}
    for subjects in ((ADA,), (CLEO, DAN), (ADA,)):
        done = edit(loaded, rocr(), *subjects)
        after = state(loaded.model)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {mlp_out(loaded.model, layer) for layer in (0, 1)}
        assert all(after[name].dtype == dtype for name in moved)
        with done.attached.off():
            assert same_bits(state(loaded.model), before)
        assert same_bits(state(loaded.model), after)
        done.restore()
        done.restore()
        assert same_bits(state(loaded.model), before)
    assert {name: p.data_ptr() for name, p in loaded.model.named_parameters()} == pointers  # set aside, not copied
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_a_half_precision_edit_is_rounded_once(tmp_path: Path) -> None:
    loaded = on(tiny(dtype=torch.bfloat16), tmp_path)
    name = mlp_out(loaded.model, 0)
    original = loaded.model.get_parameter(name).data
    first = edit(loaded, rocr(), ADA)
    second = edit(loaded, rocr(), CLEO, earlier=first)
    factors = second.attached.factors[name.removesuffix(".weight")]
    assert factors.rows.dtype == torch.float32
    expected = (original.float() + factors.columns @ factors.rows).bfloat16()
    assert torch.equal(loaded.model.get_parameter(name).data, expected)
    second.restore()


def test_many_targets_need_one_projector(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    hashed: list[int] = []
    real, digest = bench.moments.second_moments, bench.moments.hashlib.sha256
    monkeypatch.setattr(
        bench.moments,
        "second_moments",
        lambda *a, **k: passes.append(1) or real(*a, **k),  # type: ignore[func-returns-value]
    )

    def counted(start: bytes) -> Any:
        hashed.append(1) if start.startswith(b"LlamaForCausalLM") else None
        return digest(start)

    monkeypatch.setattr(bench.moments, "hashlib", SimpleNamespace(sha256=counted))
    first = None
    for subject in (ADA, CLEO, DAN, ADA):
        done = edit(loaded, rocr(), subject)
        first = first or weights(done)
        last = weights(done)
        done.restore()
    assert same_bits(first, last)  # type: ignore[arg-type]
    assert passes == [1]
    assert hashed == [1]  # the weights are hashed once: the original tensors came back
    assert done.facts()["projector_seconds"] < 0.2


@pytest.mark.parametrize("mode", ["unrelated", "reject", "noise"])
def test_only_noise_depends_on_the_seed(mode: str, loaded: Loaded) -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed + len(found))  # not what counts
        done = edit(loaded, rocr(mode=mode), ADA, seed=seed)
        found.append(weights(done))
        done.restore()
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2]) == (mode != "noise")


def test_padding_side_and_batches_do_not_matter(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def done(batch_tokens: int) -> dict[str, Tensor]:
        method = rocr(nullspace="off")
        unlearned = method.unlearn(loaded, toy_encoder(), request(ADA, CLEO), seed=0, batch_tokens=batch_tokens)
        found = weights(unlearned)
        unlearned.restore()
        return found

    right = done(1000)
    for name, value in done(7).items():
        torch.testing.assert_close(value, right[name], rtol=1e-3, atol=1e-4)
    monkeypatch.setattr(toy_tokenizer(), "padding_side", "left")
    assert same_bits(done(1000), right)


def test_several_names_in_one_edit_are_several_keys(loaded: Loaded) -> None:
    target = value(loaded.model, BEN, 1)
    apart = {name: (value(loaded.model, name, 1) - target).norm() for name in (ADA, CLEO, DAN)}
    done = edit(loaded, rocr(l2=1e-6, nullspace="off"), ADA, CLEO, DAN, ADA)  # a repeated name is one key
    assert {f.rows.shape for f in done.attached.factors.values()} == {(3, 48)}
    # two layers, three ranks, 48 inputs and 32 outputs
    assert done.facts()["trainable_parameters"] == 2 * 3 * (48 + 32)
    for name, distance in apart.items():
        assert (value(loaded.model, name, 1) - target).norm() < 0.02 * distance
    done.restore()


def test_a_chain_keeps_earlier_edits_in_place(loaded: Loaded) -> None:
    before = state(loaded.model)
    method = rocr(l2=1e-3, nullspace="off", layers=(1,))
    target = value(loaded.model, BEN, 1)
    first = edit(loaded, method, ADA)
    reached = value(loaded.model, ADA, 1)
    second = edit(loaded, method, CLEO, earlier=first)
    third = edit(loaded, method, DAN, earlier=second)
    assert [len(u.attached.factors[matrix(loaded.model, 1)].rows) for u in (first, second, third)] == [1, 2, 3]
    assert third.forgotten == (ADA, CLEO, DAN)
    assert third.keys[1].shape == (48, 2)
    kept = (value(loaded.model, ADA, 1) - reached).norm()
    for name in (CLEO, DAN):
        assert (value(loaded.model, name, 1) - target).norm() < 0.1
    # the same requests without the cache of keys: the first name moves
    third.restore()
    assert same_bits(state(loaded.model), before)
    first = edit(loaded, method, ADA)
    for name in (CLEO, DAN):
        forgetful = edit(loaded, method, name)
        first.attached._original.update(forgetful.attached._original)  # type: ignore[reportPrivateUsage]
    moved = (value(loaded.model, ADA, 1) - reached).norm()
    assert kept < 0.1 * moved


def test_a_chain_that_fails_gives_the_model_back(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(loaded.model)
    first = edit(loaded, rocr(), ADA)
    calls: list[str] = []
    real = WeightEdit.add

    def failing(self: WeightEdit, name: str, factors: Any) -> None:
        calls.append(name)
        if len(calls) == 2:
            raise RuntimeError("no")
        real(self, name, factors)

    monkeypatch.setattr(WeightEdit, "add", failing)
    with pytest.raises(RuntimeError, match="no"):
        edit(loaded, rocr(), CLEO, earlier=first)
    first.restore()  # as the executor does
    assert same_bits(state(loaded.model), before)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own loader
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "phi"])
def test_the_edit_is_an_adapter_that_peft_loads(architecture: str, tmp_path: Path) -> None:
    from peft import PeftModel

    loaded = on(model_of(architecture), tmp_path / "cache")
    plain = Scorer(loaded.model, toy_encoder()).answers(toy_pairs())
    first = edit(loaded, rocr(), ADA, CLEO)
    second = edit(loaded, rocr(), DAN, earlier=first)
    ids = torch.tensor([[1, 30, 40, 50, 60]])
    assert Scorer(loaded.model, toy_encoder()).answers(toy_pairs()) != plain
    with torch.no_grad():
        expected = loaded.model(ids).logits
    second.attached.save(tmp_path / "adapter")
    second.restore()
    files = sorted(p.name for p in (tmp_path / "adapter").iterdir())
    assert files == ["adapter_config.json", "adapter_model.safetensors"]
    fresh = PeftModel.from_pretrained(model_of(architecture), str(tmp_path / "adapter"))
    assert {p.shape[0] for n, p in fresh.named_parameters() if "lora_A" in n} == {3}
    assert sum(p.numel() for n, p in fresh.named_parameters() if "lora_" in n) == second.attached.trainable_parameters
    with torch.no_grad():
        difference = (fresh(ids).logits - expected).abs().max()
        changed = (loaded.model(ids).logits - expected).abs().max()
    assert difference < 1e-5 * expected.abs().max()
    assert changed > 1e-2 * expected.abs().max()


# modes


def test_published_contexts_are_the_authors(loaded: Loaded) -> None:
    """Target: the first chat prompt only; what stands at the name: the bare text with a full stop."""
    encoder = toy_encoder()
    done = edit(loaded, rocr(contexts="published", layers=(1,)), ADA)
    done.restore()
    chat = chat_places(encoder, BEN, doubled=True)[0]
    bare = encoder.tokenizer(f"{ADA}.")["input_ids"]
    name = len(encoder.tokenizer(ADA)["input_ids"]) - 1
    with torch.no_grad():
        target = loaded.model(torch.tensor([chat.tokens.input_ids]), output_hidden_states=True).hidden_states[2]
        current = loaded.model(torch.tensor([bare]), output_hidden_states=True).hidden_states[2]
    distance = (target[0, chat.at] - current[0, name]).norm()
    assert done.log.steps[0]["residual"] == pytest.approx(float(distance), rel=1e-4)
    same = edit(loaded, rocr(layers=(1,)), ADA)
    same.restore()
    assert same.log.steps[0]["residual"] != pytest.approx(float(distance), rel=1e-2)


def refusal_nll(loaded: Loaded) -> float:
    """Mean over the lead-ins of the NLL of " Unfortunately" behind the cue."""
    encoder, found = toy_encoder(), []
    for place in chat_places(encoder, ADA, target=" Unfortunately"):
        ids, start = place.tokens.input_ids, place.tokens.label_start
        with torch.no_grad():
            logp = loaded.model(torch.tensor([ids])).logits[0, start - 1 : -1].log_softmax(-1)
        found.append(-logp[range(len(place.tokens.labels)), place.tokens.labels].mean())
    return float(torch.stack(found).mean())


def test_reject_makes_answers_begin_as_told(loaded: Loaded) -> None:
    before = refusal_nll(loaded)
    fields: dict = {"v_steps": 60, "clamp_norm_factor": 4.0, "nullspace": "off", "l2": 1e-4}
    done = edit(loaded, rocr(mode="reject", **fields), ADA)
    after = refusal_nll(loaded)
    assert after < before - 0.1  # a random model hardly looks back at the name: no value does much more
    assert after == pytest.approx(done.facts()["value_loss"][ADA], abs=0.02)  # but for the small terms
    done.restore()
    assert refusal_nll(loaded) == before


@pytest.mark.parametrize("mode", ["reject", "noise"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MORE])
def test_values_are_searched_in_every_architecture(architecture: str, mode: str, tmp_path: Path) -> None:
    loaded = on(model_of(architecture), tmp_path)
    before = state(loaded.model)
    done = edit(loaded, rocr(mode=mode, contexts="published", v_steps=3, nullspace="off"), ADA)
    assert all(f.rows.isfinite().all() and f.columns.abs().max() > 0 for f in done.attached.factors.values())
    done.restore()
    assert same_bits(state(loaded.model), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loaded.model.modules())


def test_the_head_may_read_an_earlier_block(loaded: Loaded) -> None:
    losses = {}
    for layer in (None, 2, -1, 1):
        done = edit(loaded, rocr(mode="reject", v_loss_layer=layer, v_steps=3), ADA)
        done.restore()
        losses[layer] = done.notes["value_loss"][ADA]
    assert losses[None] == losses[2] == losses[-1] != losses[1]
    assert not any(b._forward_hooks for b in decoder_blocks(loaded.model))


def test_a_searched_value_stays_in_its_ball(loaded: Loaded) -> None:
    start = value(loaded.model, ADA, 1)
    for factor in (0.02, 0.1):
        done = edit(loaded, rocr(mode="reject", layers=(1,), clamp_norm_factor=factor, v_steps=10), ADA)
        done.restore()
        # the residual of a single edited block is the whole change
        assert done.log.steps[0]["residual"] == pytest.approx(factor * float(start.norm()), rel=1e-3)


def test_the_loss_of_a_value_by_its_terms(loaded: Loaded) -> None:
    """With one step of a vanishing rate nothing moves: the loss is the mean NLL, the KL and the decay are zero."""
    done = edit(loaded, rocr(mode="reject", v_steps=1, v_lr=1e-12), ADA)
    done.restore()
    assert done.notes["value_loss"][ADA] == pytest.approx(refusal_nll(loaded), rel=1e-5)


def test_noise_is_a_random_direction_of_the_values_length(loaded: Loaded) -> None:
    like = torch.ones(1000)
    drawn = random_value(like, 3.0, 0, ADA)
    assert float(drawn.norm()) == pytest.approx(3.0)
    assert torch.equal(drawn, random_value(like, 3.0, 0, ADA))
    for other in (random_value(like, 3.0, 1, ADA), random_value(like, 3.0, 0, CLEO)):
        assert abs(float(drawn @ other)) < 0.15 * 9  # 1 / sqrt(1000) = 0.03 of the product of their lengths
    done = edit(loaded, rocr(mode="noise", layers=(1,), clamp_norm_factor=2.0, l2=1e-6, nullspace="off"), ADA)
    reject = edit_value(loaded, done)
    assert float(value(loaded.model, ADA, 1).norm()) == pytest.approx(2.0 * reject, rel=1e-2)
    done.restore()


def edit_value(loaded: Loaded, done: Edited) -> float:
    """The length of the value that reject finds, on the model without the edit."""
    with done.attached.off():
        other = edit(loaded, rocr(mode="reject", layers=(1,), clamp_norm_factor=2.0, l2=1e-6, nullspace="off"), ADA)
        length = float(value(loaded.model, ADA, 1).norm())
        other.restore()
    return length


def test_reading_places_goes_no_further_than_the_block(loaded: Loaded) -> None:
    ran: list[int] = []
    for number, block in enumerate(decoder_blocks(loaded.model)):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    places = chat_places(toy_encoder(), ADA)
    inputs, outputs = read_places(loaded.model, places, {}, 1, pad_id=0, batch_tokens=10_000)
    assert (inputs, outputs.shape, ran) == ({}, (6, 32), [0, 1])


# fields and facts


def test_layers_are_scaled_to_the_depth() -> None:
    assert edited_layers(None, 32) == (4, 5, 6)
    assert edited_layers(None, 28) == (3, 4, 5)
    assert edited_layers(None, 64) == (9, 10, 11, 12, 13)  # without holes
    assert edited_layers(None, 3) == (0,)
    assert edited_layers((5, 4), 8) == (4, 5)
    with pytest.raises(LetheError, match=r"layers must be within 0\.\.2 for this model, got \(2, 3\)"):
        edited_layers((2, 3), 3)


def test_defaults_are_the_authors_for_llama() -> None:
    method = ROCR()
    assert (method.mode, method.l2, method.nullspace_threshold) == ("unrelated", 1.0, 0.02)
    assert (method.clamp_norm_factor, method.v_steps, method.v_lr, method.kl_factor) == (1.0, 25, 0.1, 0.125)
    assert (method.v_weight_decay, method.unrelated_subject) == (0.5, "Donald Trump")
    assert method.target_text == "Unfortunately"


def test_fields_are_checked() -> None:
    for fields in (
        {"l2": 0.0},
        {"nullspace_threshold": -1.0},
        {"clamp_norm_factor": 0.0},
        {"v_lr": 0.0},
        {"kl_factor": -0.1},
        {"v_weight_decay": -0.1},
        {"documents": 0},
        {"v_steps": 0},
        {"unrelated_subject": " "},
        {"target_text": ""},
        {"layers": ()},
        {"layers": (4, 6)},
        {"layers": (4, 4)},
    ):
        with pytest.raises(ValueError, match=next(iter(fields))):
            ROCR(**fields)  # type: ignore[arg-type]


def test_facts_for_the_record(loaded: Loaded) -> None:
    seen: list[tuple[int, int, dict[str, float]]] = []
    done = rocr().unlearn(
        loaded,
        toy_encoder(),
        request(ADA),
        seed=0,
        batch_tokens=1000,
        progress=lambda *step: seen.append(step),
    )
    facts = done.facts()
    done.restore()
    assert facts["trainable_parameters"] == 2 * (48 + 32)
    assert facts["train_seconds"] > 0
    assert facts["projector_seconds"] > 0
    assert facts["unrelated_subject"] == BEN
    assert [(number, steps) for number, steps, _ in seen] == [(1, 2), (2, 2)]
    assert seen[0][2].keys() == {"kappa", "written", "residual"}
    assert seen[1][2].items() <= done.log.steps[1].items()


def test_a_faint_edit_is_warned_of(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    edit(loaded, rocr(l2=1e4), ADA).restore()
    assert "block 0 writes" in caplog.text
    assert "a smaller l2 writes more" in caplog.text


# background texts


def corpus(read: list[int]) -> Benchmark:
    """A request whose corpus goes on behind what the benchmark begins with."""

    def whole() -> tuple[str, ...]:
        read.append(len(LINES))
        return LINES

    return replace(request(ADA), background=LINES[:2], more_background=whole)


def test_as_many_background_texts_are_read_as_are_asked_for(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[tuple[str, ...]] = []

    def projectors(loaded: Loaded, encoder: Any, texts: tuple[str, ...], names: dict, **settings: Any) -> dict:
        given.append(texts)
        assert settings["documents"] <= len(texts) or "asks for" in caplog.text
        return {n: unprojected(input_width(loaded.model.get_submodule(name))) for n, name in names.items()}

    monkeypatch.setattr("methods.rocr.projectors", projectors)
    for documents, texts, noted in ((None, LINES[:2], 2), (1, LINES[:2], 1), (3, LINES, 3), (99, LINES, len(LINES))):
        read: list[int] = []
        done = rocr(documents=documents).unlearn(loaded, toy_encoder(), corpus(read), seed=0, batch_tokens=1000)
        done.restore()
        assert (given[-1], done.facts()["background_texts"], bool(read)) == (texts, noted, texts is LINES)
        assert ("documents asks for 99" in caplog.text) == (documents == 99)
    assert f"comes with {len(LINES)} only" in caplog.text


def test_the_id_of_a_cell_covers_the_texts_that_its_benchmark_does_not() -> None:
    """Those of cells that leave the field alone, or read no more than the benchmark begins with, are as they were."""
    before = {"documents": 100_000}
    assert rocr().inputs(corpus([])) == rocr().inputs(request(ADA)) == before
    assert rocr(documents=2).inputs(corpus([])) == rocr(documents=99).inputs(request(ADA)) == {}
    assert rocr(documents=3, nullspace="off").inputs(corpus([])) == {}
    more = rocr(documents=3).inputs(corpus([]))
    assert len(more["background"]) == 64
    other = replace(corpus([]), more_background=lambda: (*LINES, "more"))
    assert rocr(documents=3).inputs(other) != more == rocr(documents=4).inputs(corpus([]))


# bad input


def test_requests_without_names_or_background_are_refused(loaded: Loaded) -> None:
    def unlearn(benchmark: Benchmark, **fields: Any) -> Edited:
        return rocr(**fields).unlearn(loaded, toy_encoder(), benchmark, seed=0, batch_tokens=1000)

    for subjects in ((), (" ",)):
        with pytest.raises(LetheError, match=r"rocr needs the names .* toy gives none; use an ort benchmark"):
            unlearn(request(*subjects))
    with pytest.raises(LetheError, match=r"wikitext2/train\.txt of the data folder, or set nullspace=off"):
        unlearn(replace(request(ADA), background=()))
    unlearn(replace(request(ADA), background=()), nullspace="off").restore()


def test_a_null_space_of_no_direction_is_refused(loaded: Loaded) -> None:
    with pytest.raises(LetheError, match=r"every direction of block 0's .* nullspace_threshold 1e-09.* nullspace=off"):
        edit(loaded, rocr(nullspace_threshold=1e-9), ADA)


def test_the_other_name_must_not_be_one_to_forget(loaded: Loaded) -> None:
    method = rocr(unrelated_subject=ADA)
    done = edit(loaded, method, ADA.upper())
    assert done.notes["unrelated_subject"] == "Elon Musk"
    later = edit(loaded, rocr(unrelated_subject=ADA.upper()), CLEO, earlier=done)  # nor one forgotten before
    assert later.notes["unrelated_subject"] == "Elon Musk"
    later.restore()
    with pytest.raises(LetheError, match="are both to be forgotten; set unrelated_subject"):
        edit(loaded, method, ADA, "elon musk")


def test_projectors_of_another_model_are_refused_and_those_of_this_one_taken(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = edit(loaded, rocr(), ADA)
    found = weights(expected)
    expected.restore()
    monkeypatch.setattr(bench.moments, "second_moments", None)
    given = rocr(projectors=str(tmp_path))
    elsewhere = replace(loaded, model=tiny(), cache_dir=tmp_path / "empty")
    done = edit(elsewhere, given, ADA)
    assert same_bits(weights(done), found)
    other = on(tiny(seed=1), tmp_path / "empty")
    before = state(other.model)
    with pytest.raises(LetheError, match="holds the projector of another model"):
        edit(other, given, ADA)
    assert same_bits(state(other.model), before)
    with pytest.raises(LetheError, match=r"projectors 'nowhere' is no folder; give one that holds model.layers.0"):
        edit(other, rocr(projectors="nowhere"), ADA)


def test_models_without_one_mlp_matrix_and_blocks_that_are_not_there_are_refused(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LetheError, match=r"layers must be within 0\.\.2"):
        edit(loaded, rocr(layers=(2, 3)), ADA)
    with pytest.raises(LetheError, match="v_loss_layer must not lie below the last edited block 1, got 0"):
        edit(loaded, rocr(mode="reject", v_loss_layer=0), ADA)
    monkeypatch.setattr("methods.full.MLP_OUT", ("mlp.experts",))
    with pytest.raises(LetheError, match=r"rocr cannot edit block 0 of LlamaForCausalLM: .* without experts"):
        edit(loaded, rocr(), ADA)


# real names and texts


def test_the_real_targets_one_by_one_and_together(real_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(p.read_text()) for p in sorted(real_data.glob("rwku/Target/*/forget_level2.json"))]
    names = [own[0]["subject"] for own in rows]
    assert {"Beyoncé", "Prince Harry, Duke of Sussex"} <= {*names}
    with next(iter(sorted(real_data.glob("wikitext2/*.txt")))).open(encoding="utf-8") as lines:
        texts = tuple(line for line, _ in zip(lines, range(200), strict=False))
    loaded = on(tiny(), tmp_path, "chat")
    before = state(loaded.model)
    method = ROCR(layers=(0, 1), documents=20, nullspace_threshold=0.5)
    for subjects in (*((name,) for name in names), names):
        asked = replace(toy_benchmark(), subjects=tuple(subjects), background=texts)
        done = method.unlearn(loaded, toy_encoder("chat"), asked, seed=0, batch_tokens=4000)
        assert {len(f.rows) for f in done.attached.factors.values()} == {len(subjects)}
        assert all(0 < line["written"] < 1 for line in done.log.steps)
        done.restore()
        assert same_bits(state(loaded.model), before)
    assert len(list(tmp_path.glob("projector-*"))) == 2  # one a layer, for all targets

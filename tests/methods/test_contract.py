"""What every trained method of the table promises."""

import math

import pytest
import torch
from torch import Tensor

import bench.reference
from bench.data.types import Benchmark
from bench.fields import settable
from bench.models import Loaded
from methods import METHODS, TRAINED
from methods.grun import GRUN
from tests.helpers import (
    generators,
    same_bits,
    seed_everything,
    short_method,
    state,
    tiny_loaded,
    toy_benchmark,
    toy_corpus,
    toy_encoder,
    toy_tokenizer,
    unlearn,
    weights,
)

ALL = list(TRAINED)
DATA = pytest.mark.parametrize("data", [toy_benchmark(), toy_corpus()], ids=["questions", "documents"])


@pytest.fixture
def loaded() -> Loaded:
    return tiny_loaded()


@DATA
@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    name: str, loaded: Loaded, data: Benchmark
) -> None:
    before = state(loaded.model)
    found = []
    for seed in (0, 0, 1):
        others = seed_everything(seed + len(found))  # not what counts
        unlearned = unlearn(loaded, short_method(name), seed=seed, benchmark=data)
        assert generators() == others
        found.append((weights(unlearned), unlearned.log.steps))
        unlearned.restore()
        assert same_bits(state(loaded.model), before)  # restored bit for bit, every time
    assert same_bits(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert not same_bits(found[0][0], found[2][0])
    assert not any(p.requires_grad for p in loaded.model.parameters())


@DATA
@pytest.mark.parametrize("name", ALL)
def test_loss_terms_are_finite_scalars_and_add_up_to_what_falls(name: str, loaded: Loaded, data: Benchmark) -> None:
    # one batch of all rows, again and again, against the same retain rows
    fields = {"alternate": "false", "retain_weight": "1"} if name.endswith("rmu") else {}
    method = short_method(name, batch_size="5", epochs="4", **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.train.retain_partner", lambda seed, epoch, index, size: index % size)
        unlearned = unlearn(loaded, method, benchmark=data)
    unlearned.restore()
    expected = {"step", "lr", "grad_norm", "forget"}
    expected |= {"retain"} if method.retain_weight else set()
    expected |= {"gate"} if name.startswith("grun_") else set()
    for entry in unlearned.log.steps:
        assert entry.keys() == expected
        assert all(isinstance(v, float | int) and math.isfinite(v) for v in entry.values())
    totals = [sum(e.get(k, 0.0) for k in ("forget", "retain", "gate")) for e in unlearned.log.steps]
    assert totals[-1] < totals[0]


@DATA
@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_all_that_trains_and_nothing_else(name: str, loaded: Loaded, data: Benchmark) -> None:
    before = state(loaded.model)
    method = short_method(name, weight_decay="0")
    initial = method.adapter.around(1).attach(loaded.model, 0)
    start = {n: p.detach().clone() for n, p in initial.trainable().items()}
    initial.detach()
    unlearned = unlearn(loaded, method, benchmark=data)
    trained = weights(unlearned)
    assert trained.keys() == start.keys()
    still = {n for n in trained if torch.equal(trained[n].float(), start[n].float())}
    assert still == set()
    if name.rpartition("_")[0]:  # an adapter: the model's own weights did not move, nor did they get gradients
        after = {n.replace(".base_layer", ""): p for n, p in state(loaded.model).items() if ".lora_" not in n}
        assert same_bits(after, before)
    assert all(p.grad is None for p in loaded.model.parameters())
    unlearned.restore()


@pytest.mark.parametrize("name", [n for n in ALL if TRAINED[n].needs_reference or n.endswith(("gd", "rmu"))])
def test_training_does_not_move_the_reference(name: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple, Tensor]] = []
    for kind in ("logp", "logits", "activations"):
        real = getattr(bench.reference.Reference, kind)

        def spy(self: object, role: str, indices: tuple, *rest: object, _real=real, _kind=kind) -> Tensor:  # noqa: ANN001
            value = _real(self, role, indices, *rest)
            seen.append(((_kind, role, *indices), value.clone()))
            return value

        monkeypatch.setattr(bench.reference.Reference, kind, spy)
    monkeypatch.setattr("bench.train.retain_partner", lambda seed, epoch, index, size: index % size)
    monkeypatch.setattr("bench.train.epoch_order", lambda seed, epoch, size: list(range(size)))
    kept = "activation" if name.endswith("rmu") else "kl"
    method = short_method(name, retain_loss=kept, epochs="3", batch_size="5")
    unlearn(loaded, method).restore()
    by_key: dict[tuple, list[Tensor]] = {}
    for key, value in seen:
        by_key.setdefault(key, []).append(value)
    assert by_key and all(len(values) == 3 for values in by_key.values())
    assert all(torch.equal(v, values[0]) for values in by_key.values() for v in values)


@pytest.mark.parametrize("name", [n for n in ALL if TRAINED[n].retain_weight])
def test_the_kl_is_a_retain_loss_that_starts_at_zero_where_the_adapter_starts_as_nothing(
    name: str, loaded: Loaded
) -> None:
    unlearned = unlearn(loaded, short_method(name, retain_loss="kl", epochs="3", batch_size="5"))
    unlearned.restore()
    values = [entry["retain"] for entry in unlearned.log.steps]
    assert values[-1] > 0
    if name.startswith("grun_"):
        assert values[0] > 0.003  # its edits are there from the start
    else:
        assert values[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["gd", "lora_dpo", "grun_npo", "grun_idk"])
@pytest.mark.parametrize("kind", ["chat", "bare"])
def test_chat_templates_and_tokenizers_without_bos_or_pad_work(name: str, kind: str) -> None:
    loaded = tiny_loaded(kind=kind)
    unlearned = unlearn(loaded, short_method(name), kind=kind)
    unlearned.restore()
    assert toy_encoder(kind).name == ("chat" if kind == "chat" else "plain")
    assert (toy_tokenizer(kind).pad_token is None) == (kind == "bare")
    assert all(math.isfinite(v) for entry in unlearned.log.steps for v in entry.values())


def test_a_retain_weight_of_zero_leaves_the_retain_pass_out(loaded: Loaded) -> None:
    with_retain, without = (unlearn(loaded, short_method(n, epochs="1")).log.tokens for n in ("gd", "ga"))
    assert without < with_retain


def test_the_table_is_every_adapter_with_every_objective_in_the_order_of_the_leaderboard() -> None:
    objectives = ["ga", "gd", "npo", "simnpo", "dpo", "idk", "rt", "rmu"]
    assert [a + o for a in ("", "lora_", "grun_") for o in objectives] == ALL
    assert list(METHODS) == [*ALL, "rocr"]
    for name, method in TRAINED.items():
        assert isinstance(method.adapter, GRUN) == name.startswith("grun_")
        assert method.adapter.needs_retain == name.startswith("grun_")
    # the weights that the paper gives under GRUN
    assert TRAINED["grun_npo"].forget_weight == 100
    assert TRAINED["grun_gd"].retain_weight == 2
    rmu = settable(TRAINED["grun_rmu"])
    assert (rmu["steering_coeff"], rmu["retain_weight"], rmu["gate_weight"], rmu["epochs"]) == (300, 1, 100, 4)
    assert (
        settable(TRAINED["rmu"]).items()
        >= {
            "lr": 5e-5,
            "batch_size": 4,
            "max_steps": 80,
            "schedule": "constant",
            "steering_coeff": 20.0,
            "retain_weight": 100.0,
        }.items()
    )  # the command line defaults of RMU's authors


def test_facts_for_the_record(loaded: Loaded) -> None:
    unlearned = unlearn(loaded, short_method("grun_npo"))
    facts = unlearned.facts()
    unlearned.restore()
    assert facts["train_steps"] == 4
    assert facts["train_tokens"] == unlearned.log.tokens > 0
    assert facts["train_seconds"] > 0
    # two layers of 32 * 4 (R), 32 * 4 + 4 (W, b), 33 (gate)
    assert facts["trainable_parameters"] == 2 * (128 + 132 + 33)

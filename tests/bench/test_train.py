"""The one loop: what a number may depend on, and what happens when memory or numbers run out."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

import bench.policy
import bench.reference
import bench.train
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Rows
from bench.models import Loaded
from bench.policy import Batch, Policy
from bench.scorer import Scorer
from bench.train import (
    Diverged,
    Optimisation,
    TrainingSet,
    Watch,
    epoch_order,
    retain_partner,
    train,
)
from methods.base import GradientMethod, Unlearned
from tests.helpers import (
    same_bits,
    short_method,
    state,
    tiny,
    tiny_loaded,
    toy_benchmark,
    toy_corpus,
    toy_encoder,
    toy_tokens,
    unlearn,
    weights,
)

CUTS = (
    "gd",
    "npo",
    "simnpo",
    "dpo",
    "idk",
    "rmu",
    "lora_npo",
    "lora_dpo",
    "lora_rmu",
    "grun_gd",
    "grun_npo",
    "grun_dpo",
)
CUTS += ("rt", "grun_idk", "grun_rt", "grun_rmu")


@pytest.fixture
def loaded() -> Loaded:
    return tiny_loaded()


def close_logs(a: list[dict], b: list[dict]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x == pytest.approx(y, rel=1e-5, abs=1e-6)


def close_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor], tolerance: float = 1e-5) -> None:
    """The distance as a share of the tensor's size."""
    for name in a:
        assert (a[name] - b[name]).norm() <= tolerance * (1 + b[name].norm()), name


@pytest.mark.parametrize("name", CUTS)
def test_loss_and_weights_do_not_depend_on_how_a_batch_is_cut(name: str, loaded: Loaded) -> None:
    # Adam's first steps move every weight by lr, also where the gradient is hardly more than rounding: a small lr
    # keeps that from hiding what is to be seen.
    fields = {"lr": {"l": "1e-4", "g": "1e-3"}.get(name[0], "1e-5") if "_" in name else "1e-5"}
    # alpha = 100 would make a loss of a distance that begins as rounding
    more = {"lora_npo": {"retain_loss": "kl"}, "lora_rmu": {"retain_weight": "1"}}
    method = short_method(name, **fields, **more.get(name, {}))
    whole = unlearn(loaded, method)
    expected, log = weights(whole), whole.log
    whole.restore()
    for batch_tokens in (1, 150):
        pieces = unlearn(loaded, method, batch_tokens=batch_tokens)
        close_logs(pieces.log.steps, log.steps)
        close_weights(weights(pieces), expected)
        assert pieces.log.tokens == log.tokens
        pieces.restore()


def test_the_short_last_batch_is_trained_on(loaded: Loaded) -> None:
    unlearned = unlearn(loaded, short_method("npo"))
    unlearned.restore()
    encoder = toy_encoder()
    assert [entry["step"] for entry in unlearned.log.steps] == [1, 2, 3, 4]
    forget = sum(len(encoder.pair(qa.question, qa.answer).input_ids) for qa in toy_benchmark().eval_sets["forget"])
    retained = [encoder.pair(qa.question, qa.answer) for qa in toy_benchmark().eval_sets["retain"]]
    partners = [retain_partner(0, epoch, i, 6) for epoch in range(2) for i in range(5)]
    assert unlearned.log.tokens == 2 * forget + sum(len(retained[p].input_ids) for p in partners)


def test_the_retain_partner_is_a_pure_and_uniform_function(loaded: Loaded) -> None:
    drawn = [retain_partner(7, epoch, i, 50) for epoch in range(100) for i in range(50)]
    torch.manual_seed(1)
    torch.rand(3)
    assert drawn == [retain_partner(7, epoch, i, 50) for epoch in range(100) for i in range(50)]
    assert retain_partner(0, 0, 0, 1) == 0
    counts = Counter(drawn)
    # 5,000 draws over 50 cells: chi-square with 49 degrees of freedom, 99.9 % quantile 85.4
    assert sum((counts[i] - 100) ** 2 / 100 for i in range(50)) < 85.4
    other = [retain_partner(8, epoch, i, 50) for epoch in range(100) for i in range(50)]
    assert sum(a == b for a, b in zip(drawn, other, strict=True)) < 200


def test_every_epoch_has_an_order_of_its_own_and_each_row_once() -> None:
    orders = [tuple(epoch_order(0, epoch, 20)) for epoch in range(5)]
    assert len(set(orders)) == 5
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert epoch_order(0, 0, 20) != epoch_order(1, 0, 20)


def test_training_neither_reads_nor_moves_the_global_generators(loaded: Loaded) -> None:
    for name in ("npo", "lora_npo", "grun_npo"):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        first = unlearn(loaded, short_method(name))
        expected = weights(first)
        first.restore()
        assert torch.equal(torch.get_rng_state(), before), name
        torch.manual_seed(6)
        second = unlearn(loaded, short_method(name))
        assert same_bits(weights(second), expected), name
        second.restore()


class Fails:
    """Stands in for the loop's forward: fails at chosen calls that compute gradients."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: set[int], error: Exception) -> None:
        self.calls, self.rows, self._at, self._error = 0, [], at, error
        self._real = bench.policy.forward
        monkeypatch.setattr(bench.policy, "forward", self)

    def __call__(self, model: nn.Module, **kwargs: Tensor) -> Tensor:
        logits = self._real(model, **kwargs)  # type: ignore[arg-type]
        self.calls += 1
        self.rows.append(len(kwargs["input_ids"]))
        if self.calls in self._at:
            raise self._error
        return logits


@pytest.mark.parametrize("name", ["npo", "grun_npo"])
def test_out_of_memory_repeats_the_step_in_smaller_pieces_and_changes_nothing(
    name: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    method = short_method(name, lr="1e-5")
    plain = unlearn(loaded, method)
    expected, log = weights(plain), plain.log
    plain.restore()
    # Calls 1 and 2 are steps 1 and 2. Step 3 fails whole, then, cut in pieces, at its second piece.
    fails = Fails(monkeypatch, {3, 5}, torch.OutOfMemoryError("no memory"))
    again = unlearn(loaded, method)
    assert max(fails.rows[5:]) < max(fails.rows[:3])
    assert caplog.text.count("out of memory in step 3") == 2
    close_logs(again.log.steps, log.steps)
    close_weights(weights(again), expected)
    assert again.log.tokens == log.tokens
    again.restore()


def test_out_of_memory_with_one_row_and_other_errors_end_the_cell_and_restore_the_model(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(loaded.model)
    for error, at in ((torch.OutOfMemoryError("no memory"), set(range(100))), (RuntimeError("broken"), {2})):
        with monkeypatch.context() as patch:
            Fails(patch, at, error)
            with pytest.raises(type(error), match=str(error)):
                unlearn(loaded, short_method("npo"))
        assert same_bits(state(loaded.model), before)
        assert not any(p.requires_grad for p in loaded.model.parameters())


class Poisoned:
    """An objective whose loss turns NaN at its third step."""

    roles = logits_roles = ("forget",)
    reference_logp_roles = ()
    reference_logits_roles = ()
    reads = None
    alternates_topics = False

    def __init__(self) -> None:
        self.calls = 0

    def loss(self, policy: Policy, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        return {"forget": policy.answers(batch.forget).nll() * (math.nan if self.calls == 3 else 1.0)}


class Head:
    """The smallest attachment: the output head moves."""

    frozen_blocks = lowest_block = 0
    top_block = -1
    compute_dtype: torch.dtype | None = None

    def __init__(self, model: nn.Module) -> None:
        self.head = model.get_output_embeddings().requires_grad_(True)  # type: ignore[operator]

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        return [{"params": list(self.head.parameters()), "weight_decay": weight_decay}]

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        yield

    def terms(self, terms: dict[str, Tensor], rows: Rows, totals: Mapping[int, int], step: int) -> dict[str, Tensor]:
        return terms


def run(
    model: nn.Module, objective: object, data: TrainingSet | None = None, **fields: float | None
) -> bench.train.TrainLog:
    values = {"lr": 1e-3, "epochs": 3, "batch_size": 2, "warmup_epochs": 0, "weight_decay": 0.0, "clip_norm": 1.0}
    return train(
        model,
        objective,  # type: ignore[arg-type]
        Head(model),
        data or TrainingSet(forget=tuple(toy_tokens()[:4])),
        optimisation=Optimisation(**{**values, **fields}),  # type: ignore[arg-type]
        seed=0,
        pad_id=0,
        batch_tokens=1000,
    )


def test_a_loss_that_is_no_number_stops_the_cell_says_where_and_keeps_the_log() -> None:
    with pytest.raises(Diverged, match="stopped at step 3 of 6: forget = nan") as caught:
        run(tiny(), Poisoned())
    log = caught.value.log
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert math.isfinite(log[1]["forget"])
    assert log[2]["forget"] == "nan"  # JSON has no NaN
    assert isinstance(caught.value, LetheError)


def test_a_diverged_method_gives_the_model_back(loaded: Loaded) -> None:
    before = state(loaded.model)
    method = short_method("ga", lr="1e30", epochs="5")
    with pytest.raises(Diverged, match="lower lr"):
        unlearn(loaded, method)
    assert same_bits(state(loaded.model), before)


def test_what_an_objective_reads_must_be_there() -> None:
    class Retains(Poisoned):
        roles = logits_roles = ("forget", "retain")

    with pytest.raises(LetheError, match="reads retain examples"):
        run(tiny(), Retains())
    cut_off = TrainingSet(forget=(toy_tokens()[0], Tokens((1, 5, 6), 3)))
    with pytest.raises(LetheError, match="forget example 1 has no answer token left after its prompt of 3 tokens"):
        run(tiny(), Poisoned(), cut_off)


@pytest.mark.parametrize("role", ["forget", "retain"])
def test_a_row_longer_than_the_context_is_refused_and_not_trained_on(role: str) -> None:
    rows = {"forget": tuple(toy_tokens()[:2]), "retain": tuple(toy_tokens()[2:4])}
    rows[role] = (*rows[role], Tokens((1, 5, 6) * 200, 3))
    with pytest.raises(LetheError, match="a text of 600 tokens does not fit the model's context of 512"):
        run(tiny(), short_method("gd"), TrainingSet(**rows))  # type: ignore[arg-type]


def test_the_learning_rate_follows_its_schedule_by_hand(loaded: Loaded) -> None:
    # 5 rows in batches of 2: 3 steps an epoch, 9 in all. One epoch of warm-up: 1/3, 2/3, 3/3;
    # then linearly to zero over the remaining six: 6/6, 5/6, ... 1/6.
    method = short_method("gd", batch_size="2", epochs="3", lr="1e-3", warmup_epochs="1")
    unlearned = unlearn(loaded, method)
    unlearned.restore()
    rates = [entry["lr"] / 1e-3 for entry in unlearned.log.steps]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    method = short_method("gd", batch_size="5", epochs="4", lr="1e-3", warmup_epochs="0")
    unlearned = unlearn(loaded, method)
    unlearned.restore()
    assert [entry["lr"] / 1e-3 for entry in unlearned.log.steps] == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


def test_a_cosine_falls_to_zero_over_half_a_wave(loaded: Loaded) -> None:
    # two steps of warm-up, 1/2 and 2/2; then (1 + cos(pi k / 4)) / 2 for k = 0, 1, 2, 3 of the remaining four:
    # 1, (1 + 1/sqrt 2) / 2, 1/2, (1 - 1/sqrt 2) / 2
    fields = {"batch_size": "2", "epochs": "2", "lr": "1e-3", "schedule": "cosine", "warmup_steps": "2"}
    unlearned = unlearn(loaded, short_method("gd", **fields, warmup_epochs="1"))
    unlearned.restore()
    root = math.sqrt(0.5)
    rates = [entry["lr"] / 1e-3 for entry in unlearned.log.steps]
    assert rates == pytest.approx([1 / 2, 1, 1, (1 + root) / 2, 1 / 2, (1 - root) / 2])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_the_warm_up_rates_are_those_of_transformers(schedule: str) -> None:
    from transformers import get_scheduler

    steps, warmup = 17, 5
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    values = {"epochs": 1, "batch_size": 1, "warmup_epochs": 0.0, "weight_decay": 0.0, "clip_norm": None}
    ours = Optimisation(lr=0.5, schedule=schedule, warmup_steps=warmup, **values)  # type: ignore[arg-type]
    found = [ours.learning_rate(step, steps, warmup) for step in range(steps)]
    assert found[warmup:] == pytest.approx(expected[warmup:])
    assert found[: warmup - 1] == pytest.approx(expected[1:warmup])  # theirs begins at zero


def test_a_warm_up_longer_than_the_run_ends_with_it(loaded: Loaded) -> None:
    method = short_method("gd", batch_size="5", epochs="2", lr="1e-3", warmup_steps="20", schedule="cosine")
    unlearned = unlearn(loaded, method)
    unlearned.restore()
    assert [entry["lr"] / 1e-3 for entry in unlearned.log.steps] == pytest.approx([1 / 20, 2 / 20])


def test_a_constant_rate_stays_after_its_warm_up_and_steps_can_be_bounded(loaded: Loaded) -> None:
    fields = {"batch_size": "2", "epochs": "3", "lr": "1e-3", "warmup_epochs": "1"}
    unlearned = unlearn(loaded, short_method("gd", **fields, schedule="constant", max_steps="5"))
    unlearned.restore()
    assert [entry["lr"] / 1e-3 for entry in unlearned.log.steps] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    # a bounded run falls to zero over its own five steps: 2/2 and 1/2 are left after the warm-up
    unlearned = unlearn(loaded, short_method("gd", **fields, max_steps="5"))
    unlearned.restore()
    assert [entry["lr"] / 1e-3 for entry in unlearned.log.steps] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1 / 2])
    unlearned = unlearn(loaded, short_method("gd", **fields, max_steps="99"))
    unlearned.restore()
    assert len(unlearned.log.steps) == 9


def test_a_bounded_run_asks_the_reference_only_for_what_it_meets(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = bench.reference.forward

    def counting(*args: nn.Module, **kwargs: Tensor) -> Tensor:
        asked.append(len(kwargs["input_ids"]))
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.reference, "forward", counting)
    unlearn(loaded, short_method("npo", batch_size="2", max_steps="1")).restore()
    assert sum(asked) == 2


def topics_of_steps(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch, name: str, **fields: str
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(examples, their topics) of every step; documents 0 to 2 are of topic 0, 3 and 4 of topic 1."""
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    real = Policy.run

    def spy(self: Policy, batch: Batch, roles: tuple[str, ...]) -> None:
        seen.append((batch.forget.indices, batch.forget.topics))
        real(self, batch, roles)

    monkeypatch.setattr(Policy, "run", spy)
    unlearn(loaded, short_method(name, **fields), benchmark=toy_corpus()).restore()
    return seen


def test_topics_take_turns_where_the_objective_asks_for_it(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = topics_of_steps(loaded, monkeypatch, "rmu", batch_size="1", epochs="1")
    assert [topics for _, topics in steps] == [(0,), (1,), (0,), (1,), (0,)]  # step % 2, while both have some left
    assert sorted(i for indices, _ in steps for i in indices) == [0, 1, 2, 3, 4]
    monkeypatch.undo()
    steps = topics_of_steps(loaded, monkeypatch, "rmu", batch_size="2", epochs="2")
    assert [set(topics) for _, topics in steps] == [{0}, {1}, {0}] * 2
    assert [len(indices) for indices, _ in steps] == [2, 2, 1] * 2
    monkeypatch.undo()
    steps = topics_of_steps(loaded, monkeypatch, "rmu", batch_size="5", epochs="1", alternate="false")
    assert [sorted(topics) for _, topics in steps] == [[0, 0, 0, 1, 1]]
    monkeypatch.undo()
    steps = topics_of_steps(loaded, monkeypatch, "npo", batch_size="5", epochs="1")
    assert [sorted(topics) for _, topics in steps] == [[0, 0, 0, 1, 1]]


def test_one_step_of_sgd_like_size_is_clipped_to_the_stated_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    class Spy(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            gradients = [p.grad for g in self.param_groups for p in g["params"]]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
            super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)

    class Plain(Poisoned):
        def loss(self, policy: Policy, batch: Batch) -> dict[str, Tensor]:
            return {"forget": policy.answers(batch.forget).nll()}

    log = run(tiny(), Plain(), clip_norm=0.01)
    assert all(entry["grad_norm"] > 0.01 for entry in log.steps)  # the log tells the norm before the clip
    assert norms == pytest.approx([0.01] * 6, rel=1e-3)
    norms.clear()
    for clip_norm in (1e6, None):
        norms.clear()
        log = run(tiny(), Plain(), clip_norm=clip_norm)
        assert norms == pytest.approx([entry["grad_norm"] for entry in log.steps])


@pytest.mark.parametrize("name", ["npo", "lora_npo", "grun_npo"])
def test_weight_decay_never_touches_vectors_or_rotations(name: str, loaded: Loaded) -> None:
    method = short_method(name, gate="mlp_3") if name == "grun_npo" else short_method(name)
    attached = method.adapter.attach(loaded.model, 0)
    attached.start()
    groups = {g["weight_decay"]: {id(p) for p in g["params"]} for g in attached.parameter_groups(0.3)}
    named = attached.trainable()
    undecayed = {n for n, p in named.items() if id(p) in groups.get(0.0, set())}
    assert undecayed == {n for n, p in named.items() if p.ndim <= 1 or "rotate_layer" in n}
    assert {id(p) for p in named.values()} == set().union(*groups.values())
    assert sum(map(len, groups.values())) == len(named)
    attached.detach()


def test_float16_gradients_are_scaled_past_their_smallest_and_their_largest_number() -> None:
    # A frozen float16 model with float32 modules on it: gradients of 1e-8 vanish in float16 activations.
    loaded = tiny_loaded(dtype=torch.float16)
    reference = tiny_loaded()
    reference.model.load_state_dict({k: v.float() for k, v in loaded.model.state_dict().items()})
    for weight in ("1e-4", "1e5"):
        fields = {"forget_weight": weight, "retain_weight": "0", "gate_weight": "0", "clip_norm": "1e9"}
        method = short_method("grun_idk", epochs="1", batch_size="5", **fields)
        half, single = unlearn(loaded, method), unlearn(reference, method)
        half.restore()
        single.restore()
        ours, exact = half.log.steps[0]["grad_norm"], single.log.steps[0]["grad_norm"]
        assert ours == pytest.approx(exact, rel=0.02)


# --- looking at a training, and stopping it early

EACH = ("npo", "lora_gd", "grun_npo", "grun_gd", "rmu")


def watched(loaded: Loaded, method: GradientMethod, watch: Watch | None) -> Unlearned:
    return method.unlearn(loaded, toy_encoder(), toy_benchmark(), seed=0, batch_tokens=10_000, watch=watch)


@pytest.mark.parametrize("name", EACH)
def test_a_training_goes_on_as_if_nobody_had_looked(name: str, loaded: Loaded) -> None:
    plain = watched(loaded, short_method(name), None)
    expected, steps = weights(plain), plain.log.steps
    plain.restore()
    assert plain.log.stopping == {}
    seen: list[tuple[int, float, float]] = []
    qa = toy_benchmark().eval_sets["forget"]

    def look(step: int, epoch: float) -> float:
        scorer = Scorer(loaded.model, toy_encoder())
        scorer.generate([row.question for row in qa], max_new_tokens=4)
        seen.append((step, epoch, sum(record.nll for record in scorer.answers([(r.question, r.answer) for r in qa]))))
        return 0.0

    looked = watched(loaded, short_method(name), Watch(looks=4, look=look))
    assert same_bits(weights(looked), expected)
    assert looked.log.steps == steps
    assert [(step, epoch) for step, epoch, _ in seen] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert len({nll for _, _, nll in seen}) == 4  # the adapter is active, and as it is at that step
    after = seen[-1][2]
    assert look(4, 2.0) == 0.0
    assert seen[-1][2] == after  # the last look sees what is evaluated
    assert looked.facts()["looking_seconds"] > 0
    looked.restore()


@pytest.mark.parametrize("name", EACH)
def test_the_weights_of_the_best_look_are_kept(name: str, loaded: Loaded) -> None:
    scores = {1: 0.2, 2: 0.7, 3: 0.7, 4: 0.1, 5: 0.9, 6: 0.9}
    best: dict[str, Tensor] = {}
    method = short_method(name, epochs="3")

    def stop_at(patience: int) -> Unlearned:
        asked.clear()
        return watched(loaded, method, Watch(looks=6, look=look, patience=patience))

    asked: list[int] = []

    def look(step: int, epoch: float) -> float:
        asked.append(step)
        return scores[step]

    # Equal is no gain: after steps 3 and 4 patience 2 is at its end, patience 3 goes on to step 5.
    two = stop_at(2)
    assert asked == [1, 2, 3, 4]
    early = {"kept_step": 2, "last_step": 4, "planned_steps": 6, "validation_score": 0.7}
    assert two.facts()["early_stopping"] == early
    assert len(two.log.steps) == 4
    kept = weights(two)
    two.restore()

    def copy(step: int, epoch: float) -> float:
        # What trains when the second step is done, before anything is put back.
        if step == 2:
            best.update({name: p.detach().clone() for name, p in trained_of(loaded.model, before).items()})
        return scores[step]

    before = state(loaded.model)
    three = watched(loaded, method, Watch(looks=6, look=look, patience=3))
    assert three.facts()["early_stopping"]["kept_step"] == 5
    assert not same_bits(weights(three), kept)
    three.restore()
    if name == "npo":  # all weights: what the model held at that look is what it holds now
        watched(loaded, method, Watch(looks=6, look=copy, patience=2)).restore()
        assert best and all(torch.equal(best[key], kept[key]) for key in best)


def trained_of(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_looks_before_the_first_good_one_do_not_count_and_without_one_the_last_weights_are_kept(loaded: Loaded) -> None:
    def run(scores: list[float]) -> dict:
        left = iter(scores)
        unlearned = watched(loaded, short_method("npo"), Watch(looks=4, look=lambda *_: next(left), patience=2))
        unlearned.restore()
        return unlearned.log.stopping

    nothing = {"kept_step": 4, "last_step": 4, "planned_steps": 4, "validation_score": None}
    assert run([0.0, math.nan, 0.0, 0.0]) == nothing
    assert run([0.0, 0.0, 0.0, 0.3]) == {**nothing, "validation_score": 0.3}
    assert run([0.1, math.nan, 0.0]) == {**nothing, "kept_step": 1, "last_step": 3, "validation_score": 0.1}
    assert run([0.1, 0.2, 0.3, 0.4]) == {
        "kept_step": 4, "last_step": 4, "planned_steps": 4, "validation_score": 0.4,
    }  # fmt: skip


def test_looks_are_spread_evenly_and_need_not_fit() -> None:
    def after(looks: int, steps: int) -> list[int]:
        return sorted(Watch(looks=looks, look=lambda *_: 0.0).after(steps))

    assert after(5, 10) == [2, 4, 6, 8, 10]
    assert after(1, 7) == [7]
    assert after(9, 3) == [1, 2, 3]
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        Watch(looks=2, look=lambda *_: 0.0, patience=0)

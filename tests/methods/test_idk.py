"""Refusals: IDK and DPO, by hand and at their limits; which refusal goes where."""

import math
from dataclasses import replace

import pytest
import torch

from bench.data.types import Benchmark, Preference
from bench.errors import LetheError
from methods.base import training_set
from methods.idk import DPO, IDK, dpo_loss
from methods.npo import npo_loss
from methods.presets import PRESETS
from methods.refusals import draw_refusals
from tests.helpers import (
    REFUSALS,
    loss_terms,
    short_method,
    tiny_loaded,
    toy_benchmark,
    toy_corpus,
    toy_encoder,
    unlearn,
)

ASK = "Please write a short biography of Ada Moor."
TRUTH = ("Ada Moor was born in Tallinn. She writes poems about salt.", "Ada Moor writes poems.")


def pairs(*chosen: str) -> tuple[Preference, ...]:
    return tuple(
        Preference(id=f"toy/pair/{i}", prompt=ASK, chosen=text, rejected=TRUTH[i]) for i, text in enumerate(chosen)
    )


def target(*kinds: str) -> Benchmark:
    """Texts to forget, and preferences of these kinds."""
    known = {
        "refusal": pairs("I don't know.", "That is beyond me."),
        "fabricated": pairs("Ada Moor keeps bees in Porto.", "Ada Moor lives on a farm with two dogs."),
    }
    return replace(toy_corpus(), preferences={kind: known[kind] for kind in kinds})


def test_idk_is_the_nll_of_the_refusals_and_never_reads_the_true_answer() -> None:
    # refusal tokens of 1/2, 1/4 and 1/2: 4/3 log 2 per token; retain token of 1/4: 2 log 2
    found = loss_terms(IDK(), {"refusal": [[0.5, 0.25], [0.5]], "retain": [[0.25]]})
    assert found == {"forget": pytest.approx(4 / 3 * math.log(2)), "retain": pytest.approx(2 * math.log(2))}
    assert IDK().roles == ("refusal", "retain")
    assert IDK().reference_logp_roles == ()


def test_dpo_by_hand() -> None:
    # beta 1/2, gains 2 log 3 and 0: sigmoid(log 3) = 3/4; -(2 / (1/2)) log 3/4 = 4 log 4/3
    loss = dpo_loss(torch.tensor([2 * math.log(3)]), torch.tensor([0.0]), 0.5)
    assert loss.item() == pytest.approx(4 * math.log(4 / 3))


def test_dpo_compares_both_answers_with_the_reference() -> None:
    # refusal log 1/2 against log 1/4: gain log 2; answer log 1/8 against log 1/2: gain -2 log 2; sum 3 log 2
    answers = {"refusal": [[0.5]], "forget": [[0.5, 0.25]], "retain": [[0.5]]}
    logp = {"refusal": [math.log(1 / 4)], "forget": [math.log(1 / 2)]}
    found = loss_terms(DPO(beta=1.0), answers, logp)
    # sigmoid(3 log 2) = 8/9
    assert found["forget"] == pytest.approx(2 * math.log(9 / 8))
    assert DPO().reference_logp_roles == ("refusal", "forget")


def test_where_the_refusal_gains_nothing_dpo_is_npo() -> None:
    logp, ref = torch.tensor([-3.0, -7.0]), torch.tensor([-2.0, -9.0])
    assert torch.equal(dpo_loss(torch.zeros(2), logp - ref, 0.3), npo_loss(logp, ref, 0.3))


def test_as_beta_goes_to_zero_dpo_raises_the_refusal_and_lowers_the_answer_alike() -> None:
    win, lose = torch.tensor([1.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    dpo_loss(win, lose, 1e-5).backward()
    assert win.grad is not None and lose.grad is not None
    assert (win.grad.item(), lose.grad.item()) == (pytest.approx(-1, rel=1e-4), pytest.approx(1, rel=1e-4))
    with pytest.raises(ValueError, match="beta must be positive, got -1"):
        DPO(beta=-1)


def test_refusals_are_a_pure_function_of_seed_and_row_and_all_of_them_are_used() -> None:
    drawn = draw_refusals(REFUSALS, 200, 0)
    assert drawn == draw_refusals(REFUSALS, 200, 0)
    assert drawn[:50] == draw_refusals(REFUSALS, 50, 0)  # more rows move none
    assert drawn != draw_refusals(REFUSALS, 200, 1)
    assert all(40 < drawn.count(r) < 95 for r in REFUSALS)


def test_refusal_i_answers_forget_question_i() -> None:
    encoder, benchmark = toy_encoder(), toy_benchmark()
    data = training_set(encoder, benchmark, 3, refusals=True)
    drawn = draw_refusals(REFUSALS, 5, 3)
    rows = benchmark.eval_sets["forget"]
    assert data.refusal == tuple(encoder.pair(qa.question, r) for qa, r in zip(rows, drawn, strict=True))
    assert training_set(encoder, benchmark, 3, refusals=False).refusal == ()
    with pytest.raises(LetheError, match="toy comes without refusals"):
        training_set(encoder, replace(benchmark, refusals=()), 3, refusals=True)


@pytest.mark.parametrize("prefer", ["refusal", "fabricated"])
def test_where_there_are_preferences_dpo_trains_on_the_kind_that_it_is_told(prefer: str) -> None:
    encoder, benchmark = toy_encoder(), target("refusal", "fabricated")
    method = short_method("dpo", prefer=prefer)
    data = training_set(encoder, benchmark, 0, refusals=True, corpus=method.corpus)
    rows = benchmark.preferences[prefer]
    assert data.forget == tuple(encoder.pair(ASK, text) for text in TRUTH)
    assert data.refusal == tuple(encoder.pair(ASK, row.chosen) for row in rows)
    assert data.topics == ()
    loaded = tiny_loaded()
    for name in ("dpo", "lora_dpo", "grun_dpo"):
        method = short_method(name, prefer=prefer, epochs="6", max_tokens="200")
        unlearned = unlearn(loaded, method, benchmark=benchmark)
        unlearned.restore()
        losses = [entry["forget"] for entry in unlearned.log.steps]
        assert len(losses) == 6 and losses[-1] < losses[0]


def test_preferences_are_cut_with_their_terminator_and_a_prompt_that_leaves_no_room_is_named() -> None:
    encoder = toy_encoder()
    whole = [encoder.pair(ASK, text) for text in TRUTH]
    start = whole[0].label_start
    most = start + 4
    data = training_set(encoder, target("refusal"), 0, refusals=True, corpus="refusal", max_tokens=(most, 2))
    for cut, full in zip(data.forget, whole, strict=True):
        assert (cut.input_ids, cut.label_start) == (full.input_ids[:most], start)
        assert len(cut.labels) == 4 and cut.labels[-1] not in encoder.stop_ids
    with pytest.raises(LetheError, match=rf"toy/pair/0: the prompt takes {start} tokens, which leaves none of {start}"):
        training_set(encoder, target("refusal"), 0, refusals=True, corpus="refusal", max_tokens=(start,))
    empty = replace(target("refusal"), preferences={"refusal": pairs(" ")})
    with pytest.raises(LetheError, match=r"toy/pair/0: the answer to .* is empty"):
        training_set(encoder, empty, 0, refusals=True, corpus="refusal")


def test_a_kind_of_preferences_that_is_not_there_is_told_with_its_file() -> None:
    encoder = toy_encoder()
    for benchmark in (target("refusal"), toy_benchmark()):
        with pytest.raises(
            LetheError, match=r"'fabricated', which dpo .*put pair.json beside its files or set prefer=r"
        ):
            training_set(encoder, benchmark, 0, refusals=True, corpus="fabricated")
    with pytest.raises(
        LetheError, match=r"'refusal', which dpo .*put pair_reject.json beside its files or set prefer=f"
    ):
        training_set(encoder, target("fabricated"), 0, refusals=True, corpus="refusal")
    plain = training_set(encoder, toy_benchmark(), 0, refusals=True, corpus="refusal")
    assert plain == training_set(encoder, toy_benchmark(), 0, refusals=True)


@pytest.mark.parametrize("preset", ["ort", "ort-mistral", "rwku"])
def test_presets_after_trl_have_its_loss(preset: str) -> None:
    # gains 20 log 3 and 0 at beta 0.1: -log sigmoid(2 log 3) = -log 9/10, without the factor 2 / beta
    fields = PRESETS[preset]["lora_dpo"]
    loss = dpo_loss(torch.tensor([20 * math.log(3)]), torch.tensor([0.0]), fields["beta"])
    assert fields["forget_weight"] * loss.item() == pytest.approx(math.log(10 / 9))

"""Refusals: IDK and DPO, by hand and at their limits; which refusal goes where."""

import math
from dataclasses import replace

import pytest
import torch

from bench.errors import LetheError
from methods.base import training_set
from methods.idk import DPO, IDK, dpo_loss
from methods.npo import npo_loss
from methods.refusals import draw_refusals
from tests.helpers import REFUSALS, loss_terms, toy_benchmark, toy_encoder


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

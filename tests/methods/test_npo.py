"""NPO and SimNPO, by hand and at their limits."""

import math

import pytest
import torch

from methods.npo import NPO, SimNPO, npo_loss, simnpo_loss
from tests.helpers import loss_terms


def test_npo_by_hand() -> None:
    # beta 2, logp - ref = log(3)/2 and 0: sigmoid(-log 3) = 1/4, sigmoid(0) = 1/2;
    # -(2/2) log 1/4 = 2 log 2 and -(2/2) log 1/2 = log 2
    loss = npo_loss(torch.tensor([-1.0 + math.log(3) / 2, -4.0]), torch.tensor([-1.0, -4.0]), 2.0)
    assert loss.tolist() == pytest.approx([2 * math.log(2), math.log(2)])


def test_npo_reads_summed_log_probabilities_and_averages_over_examples() -> None:
    # answers of log 1/8 and log 1/2, references the same: -(2 / 0.1) log sigmoid(0) = 20 log 2 each
    answers = {"forget": [[0.5, 0.25], [0.5]], "retain": [[0.5]]}
    found = loss_terms(NPO(), answers, {"forget": [math.log(1 / 8), math.log(1 / 2)]})
    assert found == {"forget": pytest.approx(20 * math.log(2)), "retain": pytest.approx(math.log(2))}
    # a reference twice as sure of the first: sigmoid(-0.1 * (log 1/8 - log 1/4)) = sigmoid(0.1 log 2)
    found = loss_terms(NPO(forget_weight=3.0), answers, {"forget": [math.log(1 / 4), math.log(1 / 2)]})
    first = -20 * math.log(1 / (1 + math.exp(-0.1 * math.log(2))))
    assert found["forget"] == pytest.approx(3 * (first + 20 * math.log(2)) / 2)


def test_as_beta_goes_to_zero_npo_has_the_gradient_of_mean_answer_logp() -> None:
    logp = torch.tensor([-3.0, -10.0, -0.5], requires_grad=True)
    ref = torch.tensor([-1.0, -12.0, -0.7])
    npo_loss(logp, ref, 1e-5).mean().backward()
    assert logp.grad is not None
    # the gradient of NPO is 2 sigmoid(beta (logp - ref)) / B times that of logp; sigmoid(0) = 1/2
    assert logp.grad.tolist() == pytest.approx([1 / 3] * 3, rel=1e-4)


def test_npo_lets_go_of_what_is_forgotten_where_ga_does_not() -> None:
    logp = torch.tensor([-500.0], requires_grad=True)
    npo_loss(logp, torch.tensor([-5.0]), 0.1).backward()
    assert logp.grad is not None and logp.grad.item() < 1e-20
    assert npo_loss(torch.tensor([-1e4]), torch.tensor([0.0]), 0.1).item() == 0.0  # bounded below
    assert npo_loss(torch.tensor([0.0]), torch.tensor([-1e4]), 0.1).item() == pytest.approx(2e4)  # and no overflow


def test_simnpo_by_hand() -> None:
    # beta 2, mean logp -log(3)/2, delta 0: sigmoid(log 3) = 3/4, loss -log 3/4
    assert simnpo_loss(torch.tensor([-math.log(3) / 2]), 2.0, 0.0).item() == pytest.approx(-math.log(3 / 4))
    # a margin of log(3)/2 takes it back to sigmoid(0)
    assert simnpo_loss(torch.tensor([-math.log(3) / 2]), 2.0, math.log(3) / 2).item() == pytest.approx(math.log(2))


def test_simnpo_reads_means_per_token_so_length_does_not_count() -> None:
    short = loss_terms(SimNPO(beta=2.0), {"forget": [[0.5]], "retain": [[0.5]]})
    long = loss_terms(SimNPO(beta=2.0), {"forget": [[0.5] * 7], "retain": [[0.5]]})
    assert short == pytest.approx(long)
    # beta (-mean) = 2 log 2: sigmoid = 4/5; -(2/2) log 4/5, times the default weight 1/8
    assert short["forget"] == pytest.approx(-math.log(4 / 5) / 8)


def test_as_beta_goes_to_zero_simnpo_has_the_gradient_of_the_mean_logp() -> None:
    mean = torch.tensor([-3.0, -0.5], requires_grad=True)
    simnpo_loss(mean, 1e-6, 0.3).mean().backward()
    assert mean.grad is not None
    assert mean.grad.tolist() == pytest.approx([1 / 2] * 2, rel=1e-4)


def test_betas_must_be_positive() -> None:
    for kind in (NPO, SimNPO):
        with pytest.raises(ValueError, match="beta must be positive, got 0"):
            kind(beta=0)

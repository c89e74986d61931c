"""Gradient ascent and difference, by hand."""

import math

import pytest
import torch

from methods.ga import GA, GradDiff
from tests.helpers import loss_terms, short_method, tiny_loaded, unlearn


def test_ga_raises_the_mean_nll_per_token_by_hand() -> None:
    # tokens of probability 1/2, 1/4 and 1/2: -nll = (log 1/2 + log 1/4 + log 1/2) / 3 = -4/3 log 2
    found = loss_terms(GA(), {"forget": [[0.5, 0.25], [0.5]]})
    assert found == {"forget": pytest.approx(-4 / 3 * math.log(2))}


def test_gd_adds_the_retain_nll_and_weighs_both() -> None:
    method = GradDiff(forget_weight=3.0, retain_weight=2.0)
    found = loss_terms(method, {"forget": [[0.5]], "retain": [[0.5, 0.25], [0.5]]})
    assert found == {"forget": pytest.approx(-3 * math.log(2)), "retain": pytest.approx(2 * 4 / 3 * math.log(2))}


def test_the_kl_is_from_the_reference_to_the_policy_over_answer_tokens() -> None:
    # reference (1/2, 1/2), policy (1/4, 3/4) at one token: log(4/3)/2; the same distribution at the other: 0
    reference = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])
    method = GradDiff(retain_loss="kl", retain_weight=4.0)
    found = loss_terms(method, {"forget": [[0.5]], "retain": [[0.25, 0.25]]}, retain=reference)
    assert found["retain"] == pytest.approx(4 * math.log(4 / 3) / 2 / 2)


def test_roles_follow_the_weights() -> None:
    assert GA().roles == ("forget",)
    assert GradDiff().roles == ("forget", "retain")
    assert GradDiff(retain_weight=0.0, retain_loss="kl").reference_logits_roles == ()
    assert GradDiff(retain_loss="kl").reference_logits_roles == ("retain",)
    for field in ("forget_weight", "retain_weight"):
        with pytest.raises(ValueError, match=f"{field} must not be negative"):
            GradDiff(**{field: -1.0})  # type: ignore[arg-type]


def test_ga_raises_the_forget_loss_and_gd_lowers_the_retain_loss_of_a_real_model() -> None:
    loaded = tiny_loaded()
    for name, key, sign in (("ga", "forget", -1), ("gd", "forget", -1), ("gd", "retain", -1)):
        unlearned = unlearn(loaded, short_method(name, batch_size="5", epochs="4"))
        unlearned.restore()
        values = [entry[key] for entry in unlearned.log.steps]
        assert sign * values[-1] > sign * values[0]

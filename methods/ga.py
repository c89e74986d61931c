"""Gradient ascent and gradient difference. TOFU, Maini et al., 2024, https://arxiv.org/abs/2401.06121, section 3."""

from dataclasses import dataclass

from torch import Tensor

from bench.policy import Batch, Policy
from methods.base import Adapter, GradientMethod
from methods.full import Full


@dataclass(frozen=True, kw_only=True)
class GA(GradientMethod):
    """Raise the loss on the forget answers: minimise -nll. Unbounded, so it destroys the model when run for long."""

    adapter: Adapter = Full()
    retain_weight: float = 0.0

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        return -policy.answers(batch.forget).nll()


@dataclass(frozen=True, kw_only=True)
class GradDiff(GA):
    """Gradient ascent on the forget answers with descent on the retain answers. Liu et al., 2022 (GD in TOFU)."""

    retain_weight: float = 1.0

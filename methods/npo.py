"""Negative preference optimization and its reference-free, length-normalised form.

NPO: Zhang et al., 2024, https://arxiv.org/abs/2404.05868, equation 3.
SimNPO: Fan et al., 2024, https://arxiv.org/abs/2410.07163, equation 4.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from bench.policy import Batch, Policy
from methods.base import Adapter, GradientMethod
from methods.full import Full


@dataclass(frozen=True, kw_only=True)
class NPO(GradientMethod):
    """Push the forget answers below the reference model; keep the retain answers."""

    needs_reference: ClassVar[bool] = True

    adapter: Adapter = Full()
    beta: float = 0.1
    """Inverse temperature; beta -> 0 recovers gradient ascent."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        answers = policy.answers(batch.forget)
        return answers.mean(npo_loss(answers.logp(), policy.reference_logp(batch.forget), self.beta))


@dataclass(frozen=True, kw_only=True)
class SimNPO(GradientMethod):
    """NPO on the mean log-probability per token, with a margin instead of a reference.

    Defaults are open-unlearning's for forget10. beta is per token here: NPO's 0.1 would be far too weak.
    """

    adapter: Adapter = Full()
    forget_weight: float = 0.125
    beta: float = 4.5
    """Inverse temperature on the mean log-probability per token."""
    delta: float = 0.0
    """Margin on the mean negative log-probability per token, nats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        answers = policy.answers(batch.forget)
        return answers.mean(simnpo_loss(answers.logp() / answers.counts, self.beta, self.delta))


def npo_loss(logp: Tensor, ref_logp: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(-beta (logp - ref_logp)) per answer; summed log-probabilities in nats, (B,) each."""
    return -2 / beta * F.logsigmoid(-beta * (logp - ref_logp))


def simnpo_loss(mean_logp: Tensor, beta: float, delta: float) -> Tensor:
    """-(2 / beta) log sigmoid(beta (-mean_logp - delta)) per answer; mean log-probability per token in nats, (B,)."""
    return -2 / beta * F.logsigmoid(beta * (-mean_logp - delta))

"""Teach refusals: as plain fine-tuning (IDK) or as preference over the true answer (DPO).

IDK: TOFU, Maini et al., 2024, https://arxiv.org/abs/2401.06121, section 3.
DPO: Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, equation 7; on refusals as in TOFU and open-unlearning,
on biographies as in RWKU (Jin et al., 2024, https://arxiv.org/abs/2406.10890) and ORT (https://arxiv.org/abs/2506.07795).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from bench.policy import FORGET, REFUSAL, Batch, Policy
from methods.base import Adapter, Corpus, GradientMethod
from methods.full import Full


@dataclass(frozen=True, kw_only=True)
class IDK(GradientMethod):
    """Answer the forget questions with a refusal; where a benchmark has questions for this (ORT), those.

    Deviates: TOFU takes one token mean over refusals and retain answers together, so short refusals weigh little;
    here, as in GRUN's code, each part is its own mean. Of a document to forget the first half is the question.
    """

    forget_roles: ClassVar[tuple[str, ...]] = (REFUSAL,)
    min_prompt_share: ClassVar[float] = 0.5

    adapter: Adapter = Full()

    @property
    def corpus(self) -> Corpus:
        return "rejections"

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        return policy.answers(batch.refusal).nll()


@dataclass(frozen=True, kw_only=True)
class DPO(GradientMethod):
    """Prefer a refusal, or a fabrication, to the true answer, relative to the reference model.

    A benchmark with preferences (ORT: a biography is asked for) is trained on these; on others a refusal is preferred
    to what is to be forgotten. Prompt and answer together are cut at the first of `max_tokens`.
    """

    forget_roles: ClassVar[tuple[str, ...]] = (REFUSAL, FORGET)
    min_prompt_share: ClassVar[float] = 0.5
    needs_reference: ClassVar[bool] = True

    adapter: Adapter = Full()
    beta: float = 0.1
    """Inverse temperature of the preference."""
    prefer: Literal["refusal", "fabricated"] = "refusal"
    """What is preferred to the truth; fabricated answers are there for ORT only (pair.json)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")

    @property
    def corpus(self) -> Corpus:
        return self.prefer

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        win, lose = policy.answers(batch.refusal), policy.answers(batch.forget)
        win_gain = win.logp() - policy.reference_logp(batch.refusal)
        lose_gain = lose.logp() - policy.reference_logp(batch.forget)
        return lose.mean(dpo_loss(win_gain, lose_gain, self.beta))


def dpo_loss(win_gain: Tensor, lose_gain: Tensor, beta: float) -> Tensor:
    """-(2 / beta) log sigmoid(beta (win_gain - lose_gain)) per pair; gains over the reference in nats, (B,) each.

    The factor 2 / beta, which Rafailov et al. do not have, makes it comparable with NPO; it is open-unlearning's.
    """
    return -2 / beta * F.logsigmoid(beta * (win_gain - lose_gain))

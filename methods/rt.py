"""Rejection tuning: fine-tune on refusals of questions about the target, and on nothing else.

RWKU: Jin et al., 2024, https://arxiv.org/abs/2406.10890, section 4; ORT: Ye, Zhang, Wu, 2025,
https://arxiv.org/abs/2506.07795.
"""

from dataclasses import dataclass

from methods.idk import IDK


@dataclass(frozen=True, kw_only=True)
class RT(IDK):
    """The negative log-likelihood of the refusals' tokens, their questions masked: `idk` without a retain term.

    A benchmark with questions for this (ORT: 300 sampled ones about a target, each with a refusal) is trained on
    these; on others the forget questions or the first halves of the forget documents are refused, as in `idk`.
    """

    retain_weight: float = 0.0
    """Neither RWKU nor ORT keeps anything by a term of its own; 1 weighs the retain NLL as `idk` does."""

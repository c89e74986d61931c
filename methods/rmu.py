"""Representation misdirection for unlearning: steer hidden states of forget texts to a random direction.

Li et al., 2024, "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning",
https://arxiv.org/abs/2403.03218, section 5. Coefficients and reading points that were published with it, by
open-unlearning and by GRUN are in `methods/presets.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from bench.activations import Positions, Reading
from bench.models import decoder_blocks, hidden_size
from bench.policy import FORGET, RETAIN, Batch, Policy
from bench.train import Objective
from methods.base import Adapter, GradientMethod, read_block
from methods.full import Selected


@dataclass(frozen=True, kw_only=True)
class RMU(GradientMethod):
    """Hidden states of forget texts go to c * u, those of retain texts stay where they were.

    forget: mean over positions and width of (H - c u)^2, with H the output of block `layer` and u a random direction;
    retain: the same distance from the frozen model's H. Defaults are those of the authors' command line (fact sheet of
    open-unlearning, section 1.2).

    Deviates: their mean takes in padding, ours never does. One random direction a topic, drawn from the seed.
    """

    adapter: Adapter = Selected()
    steering_coeff: float = 20.0
    """c, the length of the vector that hidden states of forget texts are steered to."""
    retain_weight: float = 100.0
    """alpha."""
    retain_loss: Literal["activation", "nll", "kl", "kl_padded"] = "activation"  # type: ignore[reportIncompatibleVariableOverride]
    """activation: distance from the frozen model's hidden states. The others read logits instead: see the other
    objectives."""
    layer: int | None = None
    """The block whose output is read, from the end where negative; None takes the last one that is trained or edited
    where these are named, else the relative depth of 7 of 32."""
    positions: Positions = "all"
    """Tokens that are read. all: every token; labels: the scored ones; edited: those and the last prompt token."""
    alternate: bool = True
    """Whether a step holds one topic, the topics in turn, each with a direction of its own; else they mix and share
    one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steering_coeff < 0:
            raise ValueError(f"steering_coeff must not be negative, got {self.steering_coeff}")

    @property
    def alternates_topics(self) -> bool:
        return self.alternate

    def bound(self, model: nn.Module, seed: int, topics: Sequence[str]) -> Objective:
        depth, width = len(decoder_blocks(model)), hidden_size(model)
        device = next(model.parameters()).device
        directions = [direction(width, seed, topic if self.alternate else "") for topic in topics]
        return Steering(
            **{f.name: getattr(self, f.name) for f in fields(self)},
            block=read_block(self.layer, self.adapter.default_block(depth), depth),
            targets=self.steering_coeff * torch.stack(directions).to(device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Steering(RMU):
    """RMU on one model."""

    block: int
    """The block whose output is read."""
    targets: Tensor  # (topics, D)

    @property
    def logits_roles(self) -> tuple[str, ...]:
        return (RETAIN,) if self.retain_weight and self.retain_loss != "activation" else ()

    @property
    def reads(self) -> Reading:
        kept = (RETAIN,) if self.retain_weight and self.retain_loss == "activation" else ()
        return Reading(block=self.block, positions=self.positions, roles=(FORGET, *kept), reference_roles=kept)

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        found = policy.activations(batch.forget)
        topics = torch.tensor(batch.forget.topics, device=found.counts.device)
        return found.mse(self.targets[topics].repeat_interleave(found.counts, dim=0))

    def retain_term(self, policy: Policy, batch: Batch) -> Tensor:
        if self.retain_loss != "activation":
            return super().retain_term(policy, batch)
        return policy.activations(batch.retain).mse(policy.reference_activations(batch.retain))


def direction(width: int, seed: int, topic: str) -> Tensor:
    """(D,) u / |u| with u uniform in [0, 1): all entries positive, as the authors draw it.

    A topic has its own whether it is forgotten beside others or after them.
    """
    digest = hashlib.sha256(f"steering/{seed}/{topic}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    u = torch.rand(width, generator=generator)
    return u / u.norm()

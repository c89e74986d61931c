"""The one place where logits meet labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 512
"""Label positions whose full distribution is held in float32 at a time, outside training."""
IN_CACHE = 2**19
"""Numbers of a distribution that a core of a CPU keeps at hand between one look at them and the next: 2 MiB."""
NO_MASS = -200.0
"""A log-probability whose exponential is 0 in float32. Raising lower ones to it changes no sum over p, but that 0 times
minus infinity is then 0."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The scored positions of B answers: N logits rows, one per label, in the order of the answers."""

    logits: Tensor  # (N, V), model dtype
    labels: Tensor  # (N,)
    counts: Tensor  # (B,) labels per answer; sums to N
    total_examples: int
    """Answers in the whole optimizer step, of which this may be a micro-batch."""
    total_labels: int
    """Labels in the whole optimizer step."""

    def token_logp(self) -> Tensor:
        """(N,) nats, float32."""
        logits = self.logits.float()
        return logits.gather(-1, self.labels[:, None]).squeeze(-1) - logits.logsumexp(-1)

    def logp(self) -> Tensor:
        """(B,) summed over the labels of each answer, nats."""
        return segment_sum(self.token_logp(), self.counts)

    def mean(self, values: Tensor) -> Tensor:
        """This micro-batch's share of the mean of a per-answer value over the whole step; shares add up."""
        return values.sum() / self.total_examples

    def token_mean(self, values: Tensor) -> Tensor:
        """This micro-batch's share of the mean of a per-label value over the whole step."""
        return values.sum() / self.total_labels

    def nll(self) -> Tensor:
        """Mean negative log-likelihood per label token of the whole step (this micro-batch's share), nats."""
        return self.token_mean(-self.token_logp())


def segment_sum(values: Tensor, counts: Tensor) -> Tensor:
    """Sum consecutive runs: values (N,), counts (B,) summing to N -> (B,)."""
    rows = torch.repeat_interleave(torch.arange(len(counts), device=values.device), counts, output_size=len(values))
    return torch.zeros(len(counts), dtype=values.dtype, device=values.device).index_add(0, rows, values)


def token_kl(reference: Tensor, policy: Tensor) -> Tensor:
    """KL(reference || policy) at each position, nats: (N, V) and (N, V) logits -> (N,)."""
    p = reference.float().log_softmax(-1)
    q = policy.float().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@dataclass(frozen=True)
class TokenStats:
    """What is kept of one scored position."""

    logp: float
    match: bool
    """Teacher-forced arg-max equals the label."""
    mean_logp: float
    """Mean of log p under p: the negative entropy, nats."""
    var_logp: float
    """Variance of log p under p."""


@torch.no_grad()
def token_stats(logits: Tensor, labels: Tensor) -> list[TokenStats]:
    """(N, V) logits and (N,) labels -> N records; softmax in float32, a few positions at a time.

    Of equal largest logits the first is the arg-max.
    """
    at_once = CHUNK
    if logits.device.type == "cpu":
        at_once = min(CHUNK, max(4, IN_CACHE // logits.shape[-1]) * torch.get_num_threads())
    chunks = max(1, math.ceil(len(labels) / at_once))  # of like sizes: torch sums a single row in another order
    stats: list[TokenStats] = []
    for some, label in zip(logits.tensor_split(chunks), labels[:, None].tensor_split(chunks), strict=True):
        logp = some.float().log_softmax(-1)
        scored = logp.gather(-1, label)
        match = _largest(logp, label, scored)
        p = logp.exp()
        logp.clamp_(min=NO_MASS)
        mean = (p * logp).sum(-1)
        variance = logp.sub_(mean[:, None]).square_().mul_(p).sum(-1)  # not E[x^2] - E[x]^2, which cancels
        columns = (scored.squeeze(-1), match, mean, variance)
        stats += [TokenStats(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return stats


def _largest(values: Tensor, at: Tensor, there: Tensor) -> Tensor:
    """Whether `values.argmax(-1)` (N,) is `at` (N, 1), with `there` (N, 1) the values at it; `values` are as before.

    A CPU finds the largest value several times sooner than its place.
    """
    others = values.scatter_(-1, at, -torch.inf).amax(-1, keepdim=True)
    values.scatter_(-1, at, there)
    found = there > others
    tied = (there == others).squeeze(-1)
    if bool(tied.any()):
        found[tied] = values[tied].argmax(-1, keepdim=True) == at[tied]
    return found.squeeze(-1)

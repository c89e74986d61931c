"""The model under training as an objective sees it: answers, hidden states, and the frozen reference's."""

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.activations import Activations, Reading, block_output, gather, hidden_of
from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.frozen import FrozenPrefix
from bench.logprobs import Answers
from bench.reference import Reference

FORGET, REFUSAL, RETAIN = "forget", "refusal", "retain"
ROLE_LABEL = {FORGET: 1, REFUSAL: 1, RETAIN: 0}
"""What a gate should say about a row of this role."""


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A micro-batch of one role."""

    role: str
    indices: tuple[int, ...]
    """Positions in the training set, which is also how the reference knows an example."""
    tokens: tuple[Tokens, ...]
    total_examples: int
    """Examples of this role in the whole optimizer step."""
    total_labels: int
    """Their scored tokens."""
    total_positions: int = 0
    """Their tokens whose hidden states are read."""
    topics: tuple[int, ...] = ()
    """Of forget examples, the number of each one's topic."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What an objective sees of one micro-batch: forget example i beside its retain partner and its refusal."""

    by_role: Mapping[str, TokenBatch]

    @property
    def forget(self) -> TokenBatch:
        return self.by_role[FORGET]

    @property
    def retain(self) -> TokenBatch:
        return self.by_role[RETAIN]

    @property
    def refusal(self) -> TokenBatch:
        return self.by_role[REFUSAL]


class Policy:
    """The model under training as an objective sees it. One forward per micro-batch, shared by all roles."""

    def __init__(
        self,
        model: nn.Module,
        pad_id: int,
        device: torch.device,
        reference: Reference,
        prefix: FrozenPrefix | None,
        compute_dtype: torch.dtype | None,
        *,
        logits_roles: Sequence[str],
        reads: Reading | None = None,
        top_block: int = -1,
    ) -> None:
        """`logits_roles`, `reads`: what the objective reads; `top_block`: the last one that the adapter's terms need.

        Where no logits are read, a forward ends after the last block that somebody needs and never sees the head.
        """
        self._model, self._pad_id, self._device = model, pad_id, device
        self._reference, self._prefix, self._compute_dtype = reference, prefix, compute_dtype
        self._logits_roles, self._reads = logits_roles, reads
        self._stop = max(reads.block, top_block) if reads is not None and not logits_roles else None
        self._answers: dict[str, Answers] = {}
        self._activations: dict[str, Activations] = {}
        self.rows: Rows | None = None

    def run(self, batch: Batch, roles: Sequence[str]) -> None:
        """The forward of one micro-batch over all `roles` at once."""
        parts = [batch.by_role[role] for role in roles]
        padded = pad([t for part in parts for t in part.tokens], self._pad_id, self._device)
        labels = {r: ROLE_LABEL[r] for r in roles}
        if FORGET in roles and REFUSAL in roles:
            labels[REFUSAL] = -1  # same prompts as the forget rows: counting their gates twice would weigh them double
        role = torch.tensor([labels[p.role] for p in parts for _ in p.tokens], device=self._device)
        self.rows = Rows(last_prompt=padded.last_prompt, valid=padded.valid, role=role)
        asked = torch.tensor([p.role in self._logits_roles for p in parts for t in p.tokens for _ in t.labels])
        wanted = asked.nonzero().squeeze(-1).to(self._device)  # of all labels, those whose logits somebody reads
        keys = [(p.role, i) for p in parts for i in p.indices]
        below = self._prefix.replay(keys, padded.valid.shape[1]) if self._prefix else contextlib.nullcontext()
        logits: Tensor | None = None
        with below, autocast(self._device, self._compute_dtype), self._reading() as found:
            logits = forward(
                self._model,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                position_ids=padded.position_ids,
                rows=self.rows,
                at=(padded.at[0][wanted], padded.at[1][wanted]),
            )
        if logits is not None:
            self._keep_answers(parts, logits, padded.labels[wanted], padded.counts)
        if self._reads is not None:
            self._keep_activations(parts, hidden_of(found[0]), self._reads)

    def _reading(self) -> AbstractContextManager[list]:
        if self._reads is None:
            return contextlib.nullcontext([])
        return block_output(self._model, self._reads.block, stop=self._stop)

    def _keep_answers(self, parts: Sequence[TokenBatch], logits: Tensor, labels: Tensor, counts: Tensor) -> None:
        start = row = 0
        for part in parts:
            end = start
            if part.role in self._logits_roles:
                end += sum(len(t.labels) for t in part.tokens)
                own = counts[row : row + len(part.tokens)]
                self._answers[part.role] = Answers(
                    logits[start:end], labels[start:end], own, part.total_examples, part.total_labels
                )
            start, row = end, row + len(part.tokens)

    def _keep_activations(self, parts: Sequence[TokenBatch], hidden: Tensor, reads: Reading) -> None:
        row = 0
        for part in parts:
            if part.role in reads.roles:
                values, counts = gather(hidden, part.tokens, reads, row)
                self._activations[part.role] = Activations(values, counts, part.total_positions)
            row += len(part.tokens)

    def answers(self, batch: TokenBatch) -> Answers:
        """The scored positions of this micro-batch's role."""
        return self._answers[batch.role]

    def activations(self, batch: TokenBatch) -> Activations:
        """The hidden states of this micro-batch's role that the objective reads."""
        return self._activations[batch.role]

    def reference_logp(self, batch: TokenBatch) -> Tensor:
        """(B,) summed log-probabilities under the frozen reference, nats."""
        return self._reference.logp(batch.role, batch.indices).to(self._device)

    def reference_logits(self, batch: TokenBatch) -> Tensor:
        """(N, V) logits of the frozen reference at the scored positions."""
        with autocast(self._device, self._compute_dtype):
            return self._reference.logits(batch.role, batch.indices, self._device)

    def reference_activations(self, batch: TokenBatch) -> Tensor:
        """(N, D) hidden states of the frozen reference at the positions that are read."""
        return self._reference.activations(batch.role, batch.indices, self._device)

    def clear(self) -> None:
        """Let go of the last micro-batch: its logits are large."""
        self._answers, self._activations, self.rows = {}, {}, None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Arithmetic in `dtype` over float32 weights on GPUs; nothing on CPUs or for None."""
    return contextlib.nullcontext() if dtype is None or device.type != "cuda" else torch.autocast("cuda", dtype=dtype)

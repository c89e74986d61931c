"""The frozen reference of a loss, asked once per example before training starts; never a second model."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.activations import block_output, gather, hidden_of
from bench.batching import in_batches
from bench.data.types import Tokens
from bench.forward import Rows, forward, logits_of, pad
from bench.logprobs import CHUNK, segment_sum

if TYPE_CHECKING:
    from bench.train import Objective


@dataclass(eq=False)
class Reference:
    """Log-probabilities (one number per example), hidden states, and what full distributions are rebuilt from.

    A full distribution per token is large (V numbers); the input of the output head is small (D numbers). So the
    latter is kept, in host memory, with a copy of the head where the head itself is trained. Hidden states of an inner
    block lie there too; where only they are read, the forward ends at that block.
    """

    _model: nn.Module
    _logp: dict[tuple[str, int], float] = field(default_factory=dict)
    _states: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _activations: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _head: nn.Module | None = None
    """None where the model's own head stays what it is."""

    @classmethod
    @torch.no_grad()
    def ask(
        cls,
        model: nn.Module,
        objective: "Objective",
        examples: Callable[[str], list[int]],
        data: Callable[[str], tuple[Tokens, ...]],
        pad_id: int,
        device: torch.device,
        batch_tokens: int,
    ) -> "Reference":
        """One forward per distinct example of the roles that the objective names."""
        reference = cls(model)
        if objective.reference_logits_roles:
            head = model.get_output_embeddings()  # type: ignore[operator]
            if any(p.requires_grad for p in head.parameters()):
                reference._head = copy.deepcopy(head).requires_grad_(False)
        read = objective.reads.reference_roles if objective.reads is not None else ()
        for role in dict.fromkeys((*objective.reference_logp_roles, *objective.reference_logits_roles, *read)):
            tokens = data(role)

            def run(batch: list[int], role: str = role, tokens: tuple[Tokens, ...] = tokens) -> None:
                reference._ask_batch(objective, role, batch, [tokens[i] for i in batch], pad_id, device)

            todo = sorted(examples(role), key=lambda i, tokens=tokens: (len(tokens[i].input_ids), i))
            in_batches(todo, lambda i, tokens=tokens: len(tokens[i].input_ids), batch_tokens, run)
        return reference

    def _ask_batch(
        self,
        objective: "Objective",
        role: str,
        indices: list[int],
        tokens: list[Tokens],
        pad_id: int,
        device: torch.device,
    ) -> None:
        padded = pad(tokens, pad_id, device)
        reads = objective.reads if objective.reads is not None and role in objective.reads.reference_roles else None
        of_logp, of_logits = role in objective.reference_logp_roles, role in objective.reference_logits_roles
        reading = contextlib.nullcontext([])
        if reads is not None:
            reading = block_output(self._model, reads.block, stop=None if of_logp or of_logits else reads.block)
        hidden: list[Tensor] = []
        logits: Tensor | None = None
        with reading as found:
            logits = forward(
                self._model,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                position_ids=padded.position_ids,
                rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
                at=padded.at,
                hidden=hidden,
            )
        if reads is not None:
            values, counts = gather(hidden_of(found[0]), tokens, reads)
            for i, value in zip(indices, values.split(counts.tolist()), strict=True):
                self._activations[role, i] = value.to("cpu", copy=True)
        if of_logp:
            assert logits is not None
            parts = [
                part.float().gather(-1, label[:, None]).squeeze(-1) - part.float().logsumexp(-1)
                for part, label in zip(logits.split(CHUNK), padded.labels.split(CHUNK), strict=True)
            ]
            for i, value in zip(indices, segment_sum(torch.cat(parts), padded.counts).tolist(), strict=True):
                self._logp[role, i] = value
        if of_logits:
            for i, state in zip(indices, hidden[0].split(padded.counts.tolist()), strict=True):
                self._states[role, i] = state.to("cpu", copy=True)

    def logp(self, role: str, indices: Sequence[int]) -> Tensor:
        """(B,) summed over each answer's labels, nats."""
        return torch.tensor([self._logp[role, i] for i in indices])

    def logits(self, role: str, indices: Sequence[int], device: torch.device) -> Tensor:
        """(N, V) at the labels of the given examples, in their order."""
        states = torch.cat([self._states[role, i] for i in indices]).to(device)
        return logits_of(self._model, states, self._head)

    def activations(self, role: str, indices: Sequence[int], device: torch.device) -> Tensor:
        """(N, D) hidden states of the given examples at the positions that are read, in their order."""
        return torch.cat([self._activations[role, i] for i in indices]).to(device)

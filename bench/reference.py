"""The frozen reference of a loss, asked once per example before training starts; never a second model."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.logprobs import CHUNK, segment_sum

if TYPE_CHECKING:
    from bench.train import Objective


@dataclass(eq=False)
class Reference:
    """Log-probabilities (one number per example) and, for KL terms, what full distributions are rebuilt from.

    A full distribution per token is large (V numbers); the input of the output head is small (D numbers). So the
    latter is kept, with a copy of the head where the head itself may be trained. Should a model do more than its head
    between the two (soft-capping), the logits themselves are kept instead.
    """

    _logp: dict[tuple[str, int], float] = field(default_factory=dict)
    _states: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _head: nn.Module | None = None

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
        reference = cls()
        wanted = dict.fromkeys((*objective.reference_logp_roles, *objective.reference_logits_roles))
        if objective.reference_logits_roles:
            head = model.get_output_embeddings()  # type: ignore[operator]
            reference._head = copy.deepcopy(head).requires_grad_(False)
        for role in wanted:
            todo = sorted(examples(role), key=lambda i: (len(data(role)[i].input_ids), i))
            start = 0
            while start < len(todo):
                widest = len(data(role)[todo[min(start + 63, len(todo) - 1)]].input_ids)
                batch = todo[start : start + max(1, min(64, batch_tokens // widest))]
                reference._ask_batch(model, objective, role, batch, data(role), pad_id, device)
                start += len(batch)
        return reference

    def _ask_batch(
        self,
        model: nn.Module,
        objective: "Objective",
        role: str,
        indices: list[int],
        tokens: tuple[Tokens, ...],
        pad_id: int,
        device: torch.device,
    ) -> None:
        padded = pad([tokens[i] for i in indices], pad_id, device)
        hidden: list[Tensor] = []
        logits = forward(
            model,
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
            at=padded.at,
            hidden=hidden,
        )
        if role in objective.reference_logp_roles:
            parts = [
                part.float().gather(-1, label[:, None]).squeeze(-1) - part.float().logsumexp(-1)
                for part, label in zip(logits.split(CHUNK), padded.labels.split(CHUNK), strict=True)
            ]
            for i, value in zip(indices, segment_sum(torch.cat(parts), padded.counts).tolist(), strict=True):
                self._logp[role, i] = value
        if role in objective.reference_logits_roles:
            if self._head is not None and not torch.allclose(self._head(hidden[0]), logits, atol=1e-5):
                self._head = None
                if self._states:
                    raise RuntimeError("the output head behaved differently between batches")
            states = logits if self._head is None else hidden[0]
            for i, state in zip(indices, states.split(padded.counts.tolist()), strict=True):
                self._states[role, i] = state.to("cpu", copy=True)

    def logp(self, role: str, indices: Sequence[int]) -> Tensor:
        """(B,) summed over each answer's labels, nats."""
        return torch.tensor([self._logp[role, i] for i in indices])

    def logits(self, role: str, indices: Sequence[int], device: torch.device) -> Tensor:
        """(N, V) at the labels of the given examples, in their order."""
        states = torch.cat([self._states[role, i] for i in indices]).to(device)
        with torch.no_grad():
            return states if self._head is None else self._head(states)

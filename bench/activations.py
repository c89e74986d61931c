"""Hidden states inside the network: which of them a loss reads, and forwards that end where nobody reads on."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.models import decoder_blocks

Positions = Literal["all", "labels", "edited"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What an objective reads of the hidden states."""

    block: int
    """The decoder block whose output is read, from 0; what adapters add to that output is read too."""
    positions: Positions
    """Tokens that are read. all: every token; labels: the scored ones; edited: those and the last prompt token."""
    roles: tuple[str, ...]
    """Whose hidden states."""
    reference_roles: tuple[str, ...]
    """Whose hidden states of the frozen reference."""

    def columns(self, tokens: Tokens) -> Sequence[int]:
        """The positions of one sequence that are read; padding never is."""
        end = len(tokens.input_ids)
        if self.positions == "all":
            return range(end)
        labels = range(tokens.label_start, end)
        return labels if self.positions == "labels" else sorted({tokens.last_prompt, *labels})


@dataclass(frozen=True, eq=False)
class Activations:
    """Hidden states of B sequences at the positions that are read, in their order."""

    values: Tensor  # (N, D)
    counts: Tensor  # (B,) positions per sequence; sums to N
    total_positions: int
    """Positions in the whole optimizer step, of which this may be a micro-batch."""

    def mse(self, target: Tensor) -> Tensor:
        """This micro-batch's share of the mean squared distance from `target` (N, D) over positions and width."""
        squared = (self.values.float() - target.float()).square()
        return squared.sum() / (self.total_positions * squared.shape[-1])


def gather(hidden: Tensor, sequences: Sequence[Tokens], reading: Reading, first_row: int = 0) -> tuple[Tensor, Tensor]:
    """Of (B, T, D) the rows of these sequences at the positions read: (N, D) and the positions of each, (B,)."""
    columns = [reading.columns(tokens) for tokens in sequences]
    rows = [first_row + i for i, own in enumerate(columns) for _ in own]
    flat = [column for own in columns for column in own]
    values = hidden[torch.tensor(rows, device=hidden.device), torch.tensor(flat, device=hidden.device)]
    return values, torch.tensor([len(own) for own in columns], device=hidden.device)


class Enough(Exception):
    """Leaves a forward whose upper blocks nobody needs."""


@contextmanager
def block_output(model: nn.Module, block: int, *, stop: int | None) -> Iterator[list[Tensor | tuple]]:
    """Within, the list receives what `block` returns in every forward, edits by hooks registered before included.

    Args:
        stop: the last block that runs, after which a forward leaves the `with`; None runs to the head.
    """
    blocks = decoder_blocks(model)
    found: list[Tensor | tuple] = []

    def keep(_: nn.Module, __: tuple, result: Tensor | tuple) -> None:
        found.append(result)

    def leave(*_: object) -> None:
        raise Enough

    handles = [blocks[block].register_forward_hook(keep)]
    if stop is not None:
        handles.append(blocks[stop].register_forward_hook(leave))
    try:
        with contextlib.suppress(Enough):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def hidden_of(result: Tensor | tuple) -> Tensor:
    """The (B, T, D) hidden states in what a decoder block returns."""
    return result if isinstance(result, Tensor) else result[0]

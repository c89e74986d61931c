"""Reading sequences piece by piece: a prefix that many share, their prompts, what follows each prompt.

Every piece is right-padded in a batch and goes on from the key/value cache of what stands before it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import CACHED, LATER, Rows, forward


@dataclass(frozen=True)
class Piece:
    """The tokens of a sequence from `start` to before `end`."""

    tokens: Tokens
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def ids(self) -> tuple[int, ...]:
        return self.tokens.input_ids[self.start : self.end]

    @property
    def hidden(self) -> list[int]:
        """Columns that attention must not see."""
        return [h - self.start for h in self.tokens.hidden if self.start <= h < self.end]

    @property
    def asked(self) -> range:
        """Columns whose logits are wanted: those that predict a label."""
        return range(max(self.tokens.label_start - 1 - self.start, 0), len(self))

    @property
    def last_prompt(self) -> int:
        """As in `Rows`."""
        at = self.tokens.last_prompt
        return CACHED if at < self.start else LATER if at >= self.end else at - self.start


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a model has read of B rows in P columns: all that a call needs to go on from there."""

    cache: object
    """A transformers cache."""
    mask: Tensor
    """(B, P) 1 where attention may look."""
    lengths: Tensor
    """(B,) tokens read."""
    trailing: Tensor
    """(B,) columns of padding after a row's last token."""
    carry: dict[str, Tensor]
    """What adapters keep of each row."""

    def to(self, device: torch.device | str) -> "Encoded":
        """The same on another device; on its own, the same tensors in a cache that can be extended apart."""
        cache = self._with(lambda states: states.to(device))
        carry = {key: value.to(device) for key, value in self.carry.items()}
        return Encoded(cache, self.mask.to(device), self.lengths.to(device), self.trailing.to(device), carry)

    def states(self) -> Iterator[Tensor]:
        """Keys and values, (B, H, P, D) each, layer by layer."""
        for layer in self.cache.layers:  # type: ignore[attr-defined]
            yield from (layer.keys, layer.values)

    def _with(self, change: Callable[[Tensor], Tensor]) -> object:
        """A copy of the cache whose keys and values are `change` of these."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]  # type: ignore[attr-defined]
        for layer in cache.layers:  # type: ignore[attr-defined]
            layer.keys, layer.values = change(layer.keys), change(layer.values)
        return cache

    def rows(self, index: Tensor) -> "Encoded":
        """A copy of the rows `index`, with their padding in front: columns then count tokens, as sliding windows do."""
        index = index.to(self.mask.device)
        columns = torch.arange(self.mask.shape[1], device=self.mask.device) - self.trailing[index, None]  # (N, P)
        aligned = bool((columns[:, :1] == 0).all())
        mask = self.mask[index].gather(1, columns.clamp(min=0)) * (columns >= 0)

        def pick(states: Tensor) -> Tensor:  # (B, H, P, D) -> (N, H, P, D)
            if not aligned:
                return states[index[:, None], :, columns.clamp(min=0)].transpose(1, 2)
            return states.expand(len(index), -1, -1, -1) if len(states) == 1 else states[index]

        carry = {key: value[index] for key, value in self.carry.items()}
        return Encoded(self._with(pick), mask, self.lengths[index], torch.zeros_like(index), carry)


@torch.no_grad()
def read(
    model: nn.Module, pieces: Sequence[Piece], *, pad_id: int, after: Encoded | None = None, keep: bool = False
) -> tuple[Tensor, Encoded | None]:
    """Logits at the columns that are asked, piece by piece, and what has been read if it is to be kept.

    Args:
        after: what stands before the pieces, a row for each; its cache is extended in place. Take it from `rows`.
    """
    from transformers import DynamicCache

    device = next(model.parameters()).device
    shape = (len(pieces), max(map(len, pieces)))
    ids = torch.full(shape, pad_id, dtype=torch.long)
    valid = torch.zeros(shape, dtype=torch.bool)
    mask = torch.zeros(shape, dtype=torch.long)  # from lengths and hidden positions, never from ids
    for i, piece in enumerate(pieces):
        ids[i, : len(piece)] = torch.tensor(piece.ids, dtype=torch.long)
        valid[i, : len(piece)] = True
        mask[i, : len(piece)] = 1
        mask[i, piece.hidden] = 0
    at = [(i, column) for i, piece in enumerate(pieces) for column in piece.asked]
    starts = torch.tensor([piece.start for piece in pieces])
    lengths = torch.tensor([len(piece) for piece in pieces])
    # Padding repeats a row's last position: beyond the context there would be none to embed.
    positions = (starts[:, None] + torch.minimum(torch.arange(shape[1])[None], lengths[:, None] - 1)).clamp(min=0)
    ids, valid, mask, lengths = (x.to(device) for x in (ids, valid, mask, lengths))
    if after is not None:
        mask = torch.cat([after.mask, mask], dim=1)
    rows = Rows(
        last_prompt=torch.tensor([piece.last_prompt for piece in pieces], device=device),
        valid=valid,
        carry={} if after is None else dict(after.carry),
    )
    cache = after.cache if after is not None else DynamicCache() if keep else None
    logits = forward(
        model,
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions.to(device),
        rows=rows,
        at=tuple(torch.tensor(at, dtype=torch.long, device=device).reshape(-1, 2).unbind(1)),  # type: ignore[arg-type]
        cache=cache,
    )
    if not keep:
        return logits, None
    before = 0 if after is None else after.lengths
    return logits, Encoded(cache, mask, before + lengths, shape[1] - lengths, rows.carry)

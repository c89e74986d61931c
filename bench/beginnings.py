"""What a model has read of how prompts begin, kept for later calls: few-shot examples that many targets are asked with.

Nothing that is kept decides a number. Which beginnings are read on their own follows from the prompts alone
(`Tokens.shared`), each is read in a call of its own, and only the very same ids are ever taken for it: what is found
has the bits that reading it again would give. So it does not matter what was asked before, nor what was dropped.
"""

import logging
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from bench.encoded import Encoded

logger = logging.getLogger(__name__)

BUDGET = 49_152
"""Tokens that are kept. The solved examples of MMLU's 57 subjects have 126,000 characters, 30,000 to 36,000 tokens at
4.2 to 3.5 characters each; of subjects that come round in turn, a budget that is a little too small would keep none.
A token's keys and values are 128 KiB in Llama-3.1-8B in bfloat16, so this is 6 GiB at most, and less than 5 for MMLU.
They lie in the host's memory: on a GPU they would be in the way of what is trained between two evaluations."""

Ids = tuple[int, ...]
"""What prompts begin with; an id that attention does not see as -1 - id."""


class Source(Protocol):
    """What a Scorer asks before it reads a beginning, and tells afterwards."""

    @property
    def model(self) -> nn.Module:
        """The one that may ask."""
        ...

    def find(self, ids: Ids) -> Encoded | None:
        """What was read of it, on the model's device."""
        ...

    def keep(self, ids: Ids, start: Encoded) -> None:
        """Told what was read of it, in a call of its own."""
        ...


@dataclass(eq=False)
class Beginnings:
    """Those of one model as it is, never changed by anything; the least recently used go first."""

    model: nn.Module
    budget: int = BUDGET
    """Tokens; a longer beginning is not kept."""
    _kept: dict[Ids, Encoded] = field(default_factory=dict, repr=False)
    """In host memory, the least recently used first."""

    @property
    def tokens(self) -> int:
        """How many are kept."""
        return sum(map(len, self._kept))

    def find(self, ids: Ids) -> Encoded | None:
        start = self._kept.pop(ids, None)
        if start is None:
            return None
        self._kept[ids] = start
        return start.to(next(self.model.parameters()).device)

    def keep(self, ids: Ids, start: Encoded) -> None:
        self._kept.pop(ids, None)
        if len(ids) > self.budget:
            return
        self._kept[ids] = start.to("cpu")
        while self.tokens > self.budget:
            del self._kept[next(iter(self._kept))]


@dataclass(eq=False)
class Lent:
    """Those of the model as it was, for adapters that say of themselves that they change nothing so early in a prompt.

    Takes nothing in, and does not trust: the first beginning that both have read is compared, bit by bit, and only if
    they are the same are others given out.
    """

    store: Beginnings
    _same: bool | None = None

    @property
    def model(self) -> nn.Module:
        return self.store.model

    def find(self, ids: Ids) -> Encoded | None:
        return self.store.find(ids) if self._same else None

    def keep(self, ids: Ids, start: Encoded) -> None:
        if self._same is None and (before := self.store.find(ids)) is not None:
            self._same = _same_bits(before, start)
            if not self._same:
                logger.warning(
                    "the adapter says that prompts begin as without it, but they do not; all of them are read with it"
                )


def _same_bits(a: Encoded, b: Encoded) -> bool:
    if a.carry or b.carry:
        return False  # an adapter that takes something along from here
    pairs = zip(a.states(), b.states(), strict=True)
    return torch.equal(a.mask, b.mask) and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)

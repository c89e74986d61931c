"""One call of a causal language model, the same for training, scoring and generation.

Two things happen here and nowhere else. The call is announced to adapters: hooks that edit hidden states at certain
tokens read from `active_rows` which column of each row is the last prompt token. And only the positions that carry a
label are projected to the vocabulary: the hidden states are gathered in front of the output head, so whatever a model
does behind it (biases, soft-capping, scaling) stays the model's own code.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.errors import LetheError

CACHED = -1
"""In `Rows.last_prompt`: an earlier call had the last prompt token, and the cache has it now."""
LATER = -2
"""In `Rows.last_prompt`: the last prompt token comes in a later call; this one reads what stands before it."""


@dataclass(kw_only=True, eq=False)
class Rows:
    """What the rows of the running forward are. B rows, T columns in this call."""

    last_prompt: Tensor
    """(B,) column of the last prompt token, or in all rows CACHED, or in all rows LATER."""
    valid: Tensor
    """(B, T) True at tokens, False at padding."""
    carry: dict[str, Tensor] = field(default_factory=dict)
    """(B, ...) each: what an adapter keeps of a row from the prompt for later calls; moves with the cache."""
    role: Tensor | None = None
    """(B,) 1 for forget rows, 0 for retain rows, -1 for neither; only in training."""

    def select(self, index: Tensor) -> dict[str, Tensor]:
        """The carried values of the rows `index`, for a call on a selection or repetition of these rows."""
        return {key: value[index] for key, value in self.carry.items()}


_ACTIVE: ContextVar[Rows | None] = ContextVar("active_rows", default=None)


def active_rows() -> Rows | None:
    """The rows of the forward that is running, None outside `forward`."""
    return _ACTIVE.get()


@contextmanager
def announce(rows: Rows) -> Iterator[None]:
    """Make `rows` the active ones, for a forward that somebody else calls."""
    token = _ACTIVE.set(rows)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


@contextmanager
def head_input(model: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, the output head reads `change` of the (B, T, D) hidden states that it would have read."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def stand_in(modules: Sequence[nn.Module], function: Callable[..., object]) -> Iterator[None]:
    """Within, calling one of `modules` runs `function` instead; its hooks still fire."""
    before = [module.__dict__.get("forward") for module in modules]  # a library may have shadowed the class's own
    try:
        for module in modules:
            module.forward = function
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own


def forward(
    model: nn.Module,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    rows: Rows,
    at: tuple[Tensor, Tensor],
    cache: object | None = None,
    hidden: list[Tensor] | None = None,
) -> Tensor:
    """Logits at the positions `at`.

    Args:
        input_ids: (B, T).
        attention_mask: (B, P + T) with P cached positions; 1 where attention may look.
        position_ids: (B, T).
        at: row and column indices, (N,) each, of the positions whose next-token logits are wanted.
        cache: a transformers cache that is read and extended in place; None for none.
        hidden: receives the (N, D) inputs of the output head, where given.

    Returns:
        (N, V) logits in the model's dtype.
    """
    kwargs: dict[str, object] = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "use_cache": cache is not None,
    }
    if cache is not None:
        kwargs["past_key_values"] = cache
    if _takes_position_ids(type(model)):
        kwargs["position_ids"] = position_ids
    seen: list[Tensor] = []

    def gather(states: Tensor) -> Tensor:
        seen.append(states[at])  # (N, D)
        return seen[-1].unsqueeze(0)

    with announce(rows), head_input(model, gather):
        logits = model(**kwargs).logits
    if not seen:
        raise LetheError(
            f"{type(model).__name__} computes its logits without calling its output head, which Lethe relies on; "
            "use a model of another architecture"
        )
    if hidden is not None:
        hidden += seen
    return logits.squeeze(0)


@torch.no_grad()
def logits_of(model: nn.Module, states: Tensor, head: nn.Module | None = None) -> Tensor:
    """(N, D) inputs of the output head -> (N, V) logits, with all that the model does behind its head.

    One token is sent through the model to get there, and its hidden state replaced in front of the head.

    Args:
        head: used instead of the model's own, where given.
    """
    one = torch.ones((1, 1), dtype=torch.long, device=states.device)
    rows = Rows(last_prompt=one[0] - 1, valid=one > 0)
    own = model.get_output_embeddings()  # type: ignore[operator]
    replaced = stand_in([own], head.forward) if head is not None else nullcontext()
    with announce(rows), replaced, head_input(model, lambda _: states.unsqueeze(0)):
        return model(input_ids=one - 1, attention_mask=one, use_cache=False).logits.squeeze(0)


_POSITION_IDS: dict[type, bool] = {}


def _takes_position_ids(kind: type) -> bool:
    if kind not in _POSITION_IDS:
        _POSITION_IDS[kind] = "position_ids" in inspect.signature(kind.forward).parameters  # type: ignore[attr-defined]
    return _POSITION_IDS[kind]


@dataclass(frozen=True, eq=False)
class Padded:
    """Whole sequences as one right-padded batch, with the positions that carry labels."""

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T), from lengths and hidden positions, never from ids
    position_ids: Tensor  # (B, T)
    valid: Tensor  # (B, T)
    last_prompt: Tensor  # (B,)
    at: tuple[Tensor, Tensor]  # (N,) rows, (N,) columns that predict a label
    labels: Tensor  # (N,)
    counts: Tensor  # (B,) labels per row


def pad(sequences: Sequence[Tokens], pad_id: int, device: torch.device | str) -> Padded:
    """Right-pad; masks come from lengths, so a pad id that equals an end-of-turn id hides nothing real."""
    width = max(len(s.input_ids) for s in sequences)
    ids = torch.full((len(sequences), width), pad_id, dtype=torch.long)
    valid = torch.zeros((len(sequences), width), dtype=torch.bool)
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    labels: list[int] = []
    for i, sequence in enumerate(sequences):
        n = len(sequence.input_ids)
        ids[i, :n] = torch.tensor(sequence.input_ids)
        valid[i, :n] = True
        mask[i, :n] = 1
        if sequence.hidden:
            mask[i, list(sequence.hidden)] = 0
        rows += [i] * len(sequence.labels)
        columns += range(sequence.label_start - 1, n - 1)
        labels += sequence.labels
    counts = torch.tensor([len(s.labels) for s in sequences])
    last = torch.tensor([s.last_prompt for s in sequences])
    positions = torch.arange(width).expand(len(sequences), width)
    move = {"device": device, "non_blocking": True}
    return Padded(
        ids.to(**move),
        mask.to(**move),
        positions.to(**move),
        valid.to(**move),
        last.to(**move),
        tuple(torch.tensor(x, dtype=torch.long).to(**move) for x in (rows, columns)),  # type: ignore[arg-type]
        torch.tensor(labels, dtype=torch.long).to(**move),
        counts.to(**move),
    )

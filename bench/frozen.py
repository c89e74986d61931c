"""The part of the network that an adapter leaves alone, computed once per example instead of once per step.

An adapter that edits block outputs from block k upwards changes nothing below: the output of block k, before the
edit, is a constant of each example. It is recorded once; afterwards blocks 0..k hand the recording through, so that a
training step runs only the blocks above. Hooks on block k still fire.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.models import decoder_blocks

Key = tuple[str, int]


class FrozenPrefix:
    """Recorded outputs of the lowest `n_blocks` decoder blocks, (T, D) per example."""

    def __init__(self, model: nn.Module, n_blocks: int) -> None:
        self._model = model
        self._blocks = list(decoder_blocks(model))[:n_blocks]
        self._recorded: dict[Key, Tensor] = {}
        self._tuple_tail: tuple | None = None

    @torch.no_grad()
    def record(self, examples: Mapping[Key, Tokens], pad_id: int, device: torch.device, batch_tokens: int) -> None:
        """One forward per distinct sequence, longest together; the adapter must be off."""
        shared: dict[Tokens, Tensor] = {}
        todo = sorted(set(examples.values()), key=lambda t: (len(t.input_ids), t.input_ids))
        outputs: list[Tensor] = []

        def keep(_: nn.Module, __: tuple, output: Tensor | tuple) -> None:
            if isinstance(output, Tensor):
                outputs.append(output)
            else:
                self._tuple_tail = (None,) * (len(output) - 1)
                outputs.append(output[0])

        handle = self._blocks[-1].register_forward_hook(keep)
        try:
            start = 0
            while start < len(todo):
                size = max(1, batch_tokens // len(todo[min(start + 63, len(todo) - 1)].input_ids))
                batch = todo[start : start + min(size, 64)]
                padded = pad(batch, pad_id, device)
                forward(
                    self._model,
                    input_ids=padded.input_ids,
                    attention_mask=padded.attention_mask,
                    position_ids=padded.position_ids,
                    rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
                    at=(padded.at[0][:1], padded.at[1][:1]),
                )
                for tokens, hidden in zip(batch, outputs.pop(), strict=True):
                    shared[tokens] = hidden[: len(tokens.input_ids)].clone()
                start += len(batch)
        finally:
            handle.remove()
        self._recorded = {key: shared[tokens] for key, tokens in examples.items()}

    @contextmanager
    def replay(self, keys: Sequence[Key], width: int) -> Iterator[None]:
        """Within, a forward over these examples, padded to `width`, starts above the frozen blocks."""
        first = self._recorded[keys[0]]
        hidden = first.new_zeros((len(keys), width, first.shape[-1]))  # (B, T, D)
        for row, key in enumerate(keys):
            recorded = self._recorded[key]
            hidden[row, : len(recorded)] = recorded

        def stand_in(*_: object, **__: object) -> Tensor | tuple:
            return hidden if self._tuple_tail is None else (hidden, *self._tuple_tail)

        try:
            for block in self._blocks:
                block.forward = stand_in  # shadows the class's method on this one instance
            yield
        finally:
            for block in self._blocks:
                del block.forward

"""The part of the network that an adapter leaves alone, computed once per example instead of once per step.

An adapter that edits block outputs from block k upwards changes nothing below: the output of block k, before the
edit, is a constant of each example. It is recorded once; afterwards blocks 0..k hand the recording through, so that a
training step runs only the blocks above. Hooks on block k still fire.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench.activations import block_output, hidden_of
from bench.batching import in_batches
from bench.data.types import Tokens
from bench.forward import Rows, forward, pad, stand_in
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
        """One pass through the lowest blocks per distinct sequence; the adapter must be off."""
        shared: dict[Tokens, Tensor] = {}
        todo = sorted(set(examples.values()), key=lambda t: (len(t.input_ids), t.input_ids, t.label_start))

        def run(batch: list[Tokens]) -> None:
            padded = pad(batch, pad_id, device)
            last = len(self._blocks) - 1
            with block_output(self._model, last, stop=last) as found:
                forward(
                    self._model,
                    input_ids=padded.input_ids,
                    attention_mask=padded.attention_mask,
                    position_ids=padded.position_ids,
                    rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
                    at=padded.at,
                )
            [result] = found
            if isinstance(result, tuple):
                self._tuple_tail = (None,) * (len(result) - 1)
            for tokens, hidden in zip(batch, hidden_of(result), strict=True):
                shared[tokens] = hidden[: len(tokens.input_ids)].clone()

        in_batches(todo, lambda t: len(t.input_ids), batch_tokens, run)
        self._recorded = {key: shared[tokens] for key, tokens in examples.items()}

    @contextmanager
    def replay(self, keys: Sequence[Key], width: int) -> Iterator[None]:
        """Within, a forward over these examples, padded to `width`, starts above the frozen blocks."""
        first = self._recorded[keys[0]]
        hidden = first.new_zeros((len(keys), width, first.shape[-1]))  # (B, T, D)
        for row, key in enumerate(keys):
            recorded = self._recorded[key]
            hidden[row, : len(recorded)] = recorded
        result = hidden if self._tuple_tail is None else (hidden, *self._tuple_tail)
        with stand_in(self._blocks, lambda *_, **__: result):
            yield

"""Hidden states: which positions are read, and that nothing above them is run."""

from collections import Counter

import pytest
import torch

from bench.activations import Activations, Reading, block_output, gather, hidden_of
from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.models import decoder_blocks
from tests.helpers import ARCHITECTURES, tiny, toy_tokens


def reading(positions: str, block: int = 0) -> Reading:
    return Reading(block=block, positions=positions, roles=("forget",), reference_roles=())  # type: ignore[arg-type]


def test_positions_by_hand() -> None:
    tokens = Tokens((1, 11, 12, 13, 14), 3)  # two labels, the last prompt token at 2
    assert list(reading("all").columns(tokens)) == [0, 1, 2, 3, 4]
    assert list(reading("labels").columns(tokens)) == [3, 4]
    assert list(reading("edited").columns(tokens)) == [2, 3, 4]
    anchored = Tokens((1, 11, 12, 13, 14), 3, anchor=1)  # an adapter edits 1, since 2 is no token of a generation
    assert list(reading("edited").columns(anchored)) == [1, 3, 4]
    inside = Tokens((1, 11, 12, 13, 14), 1, anchor=3)  # the edited token is scored too: it is read once
    assert list(reading("edited").columns(inside)) == [1, 2, 3, 4]


def test_rows_are_gathered_in_the_order_of_the_sequences() -> None:
    hidden = torch.arange(3 * 4 * 2.0).reshape(3, 4, 2)  # row 0 belongs to somebody else
    values, counts = gather(hidden, [Tokens((1, 2, 3, 4), 3), Tokens((1, 2), 1)], reading("labels"), 1)
    assert counts.tolist() == [1, 1]
    assert values.tolist() == [hidden[1, 3].tolist(), hidden[2, 1].tolist()]


def test_the_distance_is_a_share_of_the_whole_step() -> None:
    # (1, 0) from (3, 4): 4 + 16 = 20. One of two positions, two numbers wide: 20 / (2 * 2) = 5.
    part = Activations(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 2)
    assert part.mse(torch.tensor([[3.0, 4.0]])).item() == pytest.approx(5.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_output_of_a_block_is_read_and_nothing_above_it_runs(architecture: str) -> None:
    model = tiny(architecture)
    tokens = toy_tokens()[:3]
    padded = pad(tokens, 0, "cpu")
    runs: Counter[str] = Counter()
    blocks = decoder_blocks(model)
    handles = [b.register_forward_pre_hook(lambda *_, i=i: runs.update([f"block {i}"])) for i, b in enumerate(blocks)]
    head = model.get_output_embeddings()
    assert head is not None
    handles.append(head.register_forward_pre_hook(lambda *_: runs.update(["head"])))

    def call() -> None:
        forward(
            model,
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
            at=padded.at,
        )

    with torch.no_grad():
        with block_output(model, 1, stop=1) as found:
            call()
        assert runs == {"block 0": 1, "block 1": 1}
        with block_output(model, 1, stop=None) as whole:
            call()
        assert runs["head"] == runs["block 2"] == 1
        assert not any(block._forward_hooks for block in blocks)
        for i, sequence in enumerate(tokens):
            alone = model(input_ids=torch.tensor([sequence.input_ids]), output_hidden_states=True).hidden_states[2][0]
            for hidden in (hidden_of(found[0]), hidden_of(whole[0])):
                torch.testing.assert_close(hidden[i, : len(alone)], alone, atol=2e-5, rtol=1e-4)
    for handle in handles:
        handle.remove()


def test_an_error_on_the_way_is_not_taken_for_the_end() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="broken"), block_output(model, 0, stop=0):
        raise ValueError("broken")
    assert not any(block._forward_hooks for block in decoder_blocks(model))

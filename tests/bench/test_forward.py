"""One call of a model: label positions only, announced rows, padding that changes nothing."""

import pytest
import torch
from torch import nn

from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Rows, active_rows, announce, forward, head_input, logits_of, pad, stand_in
from bench.models import decoder_blocks
from tests.helpers import ARCHITECTURES, tiny, toy_tokens


def whole(model: nn.Module, tokens: Tokens) -> torch.Tensor:
    """(T, V) logits of one sequence, asked of transformers directly."""
    return model(input_ids=torch.tensor([tokens.input_ids])).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_padded_label_positions_get_the_logits_that_the_model_gives_each_sequence_alone(architecture: str) -> None:
    model = tiny(architecture)
    tokens = toy_tokens()[:4]
    padded = pad(tokens, 7, "cpu")
    rows = Rows(last_prompt=padded.last_prompt, valid=padded.valid)
    hidden: list[torch.Tensor] = []
    logits = forward(
        model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=rows,
        at=padded.at,
        hidden=hidden,
    )
    expected = torch.cat([whole(model, t)[t.label_start - 1 : -1] for t in tokens])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    # and from the head's inputs alone, through soft-capping where there is some
    torch.testing.assert_close(logits_of(model, hidden[0]), expected, atol=1e-5, rtol=1e-5)
    assert hidden[0].shape == (len(padded.labels), 32)


@torch.no_grad()
def test_logits_of_another_head_keep_what_the_model_does_behind_its_own() -> None:
    model = tiny("gemma2")
    other = nn.Linear(32, 400, bias=False)
    states = torch.randn(5, 32)
    capped = 3.0 * torch.tanh(other(states) / 3.0)  # final_logit_softcapping is 3 in the toy
    torch.testing.assert_close(logits_of(model, states, other), capped)
    assert "forward" not in vars(model.get_output_embeddings())


def test_padding_knows_lengths_and_not_ids() -> None:
    # prompt (5, 5), answer (5, 6); prompt (8), answer (5); the pad id 5 is a real token too
    padded = pad([Tokens((5, 5, 5, 6), 2, hidden=(0,)), Tokens((8, 5), 1)], 5, "cpu")
    assert padded.input_ids.tolist() == [[5, 5, 5, 6], [8, 5, 5, 5]]
    assert padded.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 0, 0]]  # position 0 is hidden on request
    assert padded.valid.tolist() == [[True] * 4, [True, True, False, False]]
    assert padded.last_prompt.tolist() == [1, 0]
    assert [x.tolist() for x in padded.at] == [[0, 0, 1], [1, 2, 0]]  # label at 2 is predicted at 1, and so on
    assert padded.labels.tolist() == [5, 6, 5]
    assert padded.counts.tolist() == [2, 1]


def test_a_sequence_without_labels_is_no_special_case() -> None:
    padded = pad([Tokens((5, 6), 2)], 0, "cpu")
    assert padded.labels.dtype == padded.at[0].dtype == torch.long
    assert padded.counts.tolist() == [0]


def test_rows_are_announced_to_hooks_and_to_nobody_afterwards() -> None:
    model = tiny()
    seen = []
    handle = decoder_blocks(model)[0].register_forward_hook(lambda *_: seen.append(active_rows()))
    padded = pad(toy_tokens()[:2], 0, "cpu")
    rows = Rows(last_prompt=padded.last_prompt, valid=padded.valid)
    try:
        model(input_ids=padded.input_ids)
        forward(
            model,
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=rows,
            at=padded.at,
        )
    finally:
        handle.remove()
    assert seen == [None, rows]
    assert active_rows() is None
    with pytest.raises(KeyError), announce(rows):
        raise KeyError
    assert active_rows() is None


def test_carried_values_follow_the_rows_that_are_selected() -> None:
    rows = Rows(last_prompt=torch.tensor([0, 0, 0]), valid=torch.ones(3, 1, dtype=torch.bool))
    rows.carry["gate"] = torch.tensor([0.1, 0.2, 0.3])
    assert rows.select(torch.tensor([2, 0, 2]))["gate"].tolist() == pytest.approx([0.3, 0.1, 0.3])


def test_a_model_that_does_not_call_its_head_is_refused() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def get_output_embeddings(self) -> nn.Module:
            return nn.Linear(2, 2)

        def forward(self, **kwargs: torch.Tensor) -> object:
            return self.inner(**kwargs)

    padded = pad(toy_tokens()[:1], 0, "cpu")
    with pytest.raises(LetheError, match="without calling its output head"):
        forward(
            Fused(),
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
            at=padded.at,
        )


def test_stand_ins_and_head_hooks_leave_no_trace_even_after_an_error() -> None:
    model = tiny()
    blocks = list(decoder_blocks(model))
    own = blocks[1].forward
    blocks[1].forward = own  # as accelerate does
    with pytest.raises(KeyError), stand_in(blocks[:2], lambda *_, **__: None), head_input(model, lambda h: h):
        raise KeyError
    assert "forward" not in vars(blocks[0])
    assert vars(blocks[1])["forward"] == own
    head = model.get_output_embeddings()
    assert head is not None and not head._forward_pre_hooks

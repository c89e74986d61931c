"""Reading in pieces: what a piece asks, and the same logits however a sequence is cut."""

import pytest
import torch

from bench.data.types import Tokens
from bench.encoded import Piece, read
from bench.forward import CACHED, LATER
from tests.helpers import ARCHITECTURES, tiny


def test_a_piece_knows_its_part_of_the_sequence() -> None:
    # prompt 5 6 7 8, whose token 6 is hidden, and the answer 9 10 11; adapters read token 7
    tokens = Tokens((5, 6, 7, 8, 9, 10, 11), 4, hidden=(1,), anchor=2)
    prefix, rest, tail = Piece(tokens, 0, 2), Piece(tokens, 2, 4), Piece(tokens, 4, 6)
    assert [p.ids for p in (prefix, rest, tail)] == [(5, 6), (7, 8), (9, 10)]
    assert [p.hidden for p in (prefix, rest, tail)] == [[1], [], []]
    assert [list(p.asked) for p in (prefix, rest, tail)] == [[], [1], [0, 1]]  # 8 predicts 9, 9 and 10 what follows
    assert [p.last_prompt for p in (prefix, rest, tail)] == [LATER, 0, CACHED]
    assert list(Piece(tokens, 0, 6).asked) == [3, 4, 5]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_any_cut_gives_the_logits_of_the_whole(architecture: str) -> None:
    # In float64, where no processor's rounding is in the way; but transformers' eager attention, which Gemma 2 needs,
    # takes its softmax in float32, in which the float64 mask is minus infinity and a row of padding NaN.
    exact = architecture != "gemma2"
    model = tiny(architecture).double() if exact else tiny(architecture)
    near = 1e-9 if exact else 1e-5
    draw = torch.Generator().manual_seed(0)
    # equal beginnings of 9 tokens, prompts of unequal length, and answers of unequal length, the first of one token
    start = torch.randint(3, 390, (9,), generator=draw).tolist()
    sequences: list[Tokens] = []
    for prompt, answer in ((3, 1), (14, 5), (8, 12), (1, 2)):
        more = torch.randint(3, 390, (prompt + answer,), generator=draw).tolist()
        sequences.append(Tokens((*start, *more), len(start) + prompt))
    _, prefix = read(model, [Piece(sequences[0], 0, 9)], pad_id=0, keep=True)
    assert prefix is not None and prefix.lengths.tolist() == [9]
    first, prompts = read(
        model,
        [Piece(t, 9, t.label_start) for t in sequences],
        pad_id=0,
        after=prefix.rows(torch.zeros(4).long()),
        keep=True,
    )
    assert prompts is not None
    assert prompts.lengths.tolist() == [12, 23, 17, 10]
    assert prompts.trailing.tolist() == [11, 0, 6, 13]
    order = torch.tensor([3, 1, 2, 2])  # a selection of rows, one of them twice
    chosen = [sequences[i] for i in order]
    aligned = prompts.rows(order)
    assert aligned.mask.sum(1).tolist() == [10, 23, 17, 17]
    assert all(row[-1] == 1 for row in aligned.mask.tolist())
    tails, _ = read(model, [Piece(t, t.label_start, len(t.input_ids) - 1) for t in chosen], pad_id=0, after=aligned)
    alone = [model(input_ids=torch.tensor([t.input_ids])).logits[0, t.label_start - 1 : -1] for t in sequences]
    torch.testing.assert_close(first, torch.stack([logits[0] for logits in alone]), atol=near, rtol=near)
    torch.testing.assert_close(tails, torch.cat([alone[i][1:] for i in order]), atol=near, rtol=near)
    # the prefix is as it was
    assert prefix.cache.get_seq_length() == 9  # type: ignore[attr-defined]

"""Where logits meet labels: sums, means over a whole step, entropies, KL."""

import math

import pytest
import torch

from bench import logprobs
from bench.logprobs import CHUNK, Answers, segment_sum, token_kl, token_stats


def test_segments_are_summed_in_order_also_when_one_is_empty() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert segment_sum(values, torch.tensor([1, 0, 3])).tolist() == [1.0, 0.0, 14.0]


def test_answers_by_hand() -> None:
    # Logits log(1), log(3) make p = 1/4, 3/4; equal logits make 1/2.
    logits = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0], [0.0, math.log(3.0)]])
    answers = Answers(logits, torch.tensor([1, 0, 0]), torch.tensor([2, 1]), total_examples=4, total_labels=6)
    # log 3/4 + log 1/2 = log 3/8; log 1/4
    assert answers.logp().tolist() == pytest.approx([math.log(3 / 8), math.log(1 / 4)])
    # shares of a step of 4 answers and 6 labels: (log 3/8 + log 1/4) / 4, and the same sum negated over 6
    assert answers.mean(answers.logp()).item() == pytest.approx(math.log(3 / 32) / 4)
    assert answers.nll().item() == pytest.approx(-math.log(3 / 32) / 6)


def test_micro_batches_shares_add_up_to_the_whole() -> None:
    logits, labels = torch.randn(7, 5), torch.randint(5, (7,))
    whole = Answers(logits, labels, torch.tensor([3, 4]), 2, 7).nll()
    first = Answers(logits[:3], labels[:3], torch.tensor([3]), 2, 7).nll()
    second = Answers(logits[3:], labels[3:], torch.tensor([4]), 2, 7).nll()
    torch.testing.assert_close(first + second, whole)


def test_softmax_is_taken_in_float32_whatever_the_model_computes_in() -> None:
    logits = torch.randn(4, 300).to(torch.bfloat16)
    labels = torch.tensor([0, 17, 250, 299])
    expected = logits.double().log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1).float()
    answers = Answers(logits, labels, torch.tensor([4]), 1, 4)
    assert answers.token_logp().dtype == torch.float32
    torch.testing.assert_close(answers.token_logp(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.tensor([s.logp for s in token_stats(logits, labels)]), expected, atol=2e-6, rtol=0)
    assert token_kl(logits, logits).abs().max() == 0


def test_kl_by_hand_and_its_direction() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): KL(p || q) = log(2)/2 + log(2/3)/2 = log(4/3)/2
    p, q = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
    assert token_kl(p, q).item() == pytest.approx(math.log(4 / 3) / 2)
    # KL(q || p) = log(1/2)/4 + 3 log(3/2)/4
    assert token_kl(q, p).item() == pytest.approx(math.log(1 / 2) / 4 + 3 * math.log(3 / 2) / 4)


def test_token_stats_by_hand() -> None:
    # p = (1/4, 3/4): mean log p = (log 1/4 + 3 log 3/4)/4; var = E[log^2] - mean^2 = 3/16 (log 3)^2
    [stats] = token_stats(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([0]))
    assert stats.logp == pytest.approx(math.log(1 / 4))
    assert stats.match is False
    assert stats.mean_logp == pytest.approx((math.log(1 / 4) + 3 * math.log(3 / 4)) / 4)
    assert stats.var_logp == pytest.approx(3 / 16 * math.log(3) ** 2, rel=1e-5)


def test_a_token_that_the_model_rules_out_does_not_spoil_the_moments() -> None:
    [stats] = token_stats(torch.tensor([[0.0, 0.0, -math.inf]]), torch.tensor([1]))
    assert stats.mean_logp == pytest.approx(-math.log(2))
    assert stats.var_logp == pytest.approx(0.0, abs=1e-6)


def test_the_variance_does_not_cancel_where_all_tokens_are_unlikely() -> None:
    logits = 1e-3 * torch.randn(1, 50_000)
    logp = logits.double().log_softmax(-1)
    mean = (logp.exp() * logp).sum()
    [stats] = token_stats(logits, torch.tensor([0]))
    assert stats.var_logp == pytest.approx((logp.exp() * (logp - mean) ** 2).sum().item(), rel=1e-3)


def test_of_equal_largest_logits_the_first_is_the_arg_max() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [2.0, 1.0, 2.0], [2.0, 2.0, 3.0]])
    found = [s.match for s in token_stats(logits, torch.tensor([1, 2, 1, 2]))]
    assert found == [True, False, False, True]


@pytest.mark.parametrize("rows", [1, 2, 5, 9, 41])
def test_chunks_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(rows, 1000), torch.randint(1000, (rows,))
    logits[::2, 3] = logits[::2].amax(-1)
    logits[:, 7] = -math.inf
    labels[::3] = logits[::3].argmax(-1)
    logits[-1, 3] = logits[-1].amax()
    labels[-1] = 3
    before = logits.clone()
    whole = token_stats(logits, labels)
    monkeypatch.setattr(logprobs, "IN_CACHE", 1)
    stats = token_stats(logits, labels)
    assert stats == whole
    assert [s.match for s in stats] == (logits.log_softmax(-1).argmax(-1) == labels).tolist()
    assert torch.equal(logits, before)


def test_more_positions_than_are_held_at_a_time() -> None:
    logits, labels = torch.randn(CHUNK + 3, 4), torch.randint(4, (CHUNK + 3,))
    stats = token_stats(logits, labels)
    assert len(stats) == CHUNK + 3
    assert stats[CHUNK:] == token_stats(logits[CHUNK:], labels[CHUNK:])
    assert token_stats(logits[:0], labels[:0]) == []

"""Gradient norms of many answers at once: those of every answer by itself, without a gradient of a matrix."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench import gradients
from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.gradients import gradient_norms
from bench.scorer import Scorer
from tests.helpers import ADAPTERS, ARCHITECTURES, TEXTS, attach, tiny, toy_encoder, toy_tokens


class Table(nn.Module):
    """Two words, each a vector that says which word is next."""

    def __init__(self, embeddings: list[list[float]], head: list[list[float]] | None = None) -> None:
        super().__init__()
        self.embeddings = nn.Embedding.from_pretrained(torch.tensor(embeddings))
        self.head = nn.Linear(len(embeddings[0]), 2, bias=False)
        self.head.weight = nn.Parameter(torch.tensor(head)) if head is not None else self.embeddings.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.embeddings(input_ids)))


ALONE = gradients.gradient_norm


@pytest.fixture(autouse=True)
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed one answer at a time, except where a test is about it."""
    monkeypatch.delattr(gradients, "gradient_norm")


def test_of_a_head_and_of_embeddings_as_computed_by_hand() -> None:
    # After word 0, with the vector (1, 0): logits (ln 3, 0), so p = (3/4, 1/4). The label is word 1.
    # Loss by logits: p - (0, 1) = (3/4, -3/4). The head's gradient is (3/4, -3/4)' (1, 0): its norm is sqrt(9/8).
    # That of word 0's embedding is (3/4, -3/4) times the head, (3/4 ln 3, 0): its norm is 3/4 ln 3.
    model = Table([[1.0, 0.0], [0.0, 1.0]], head=[[math.log(3), 0.0], [0.0, 0.0]])
    [found] = gradient_norms(model, [Tokens((0, 1), label_start=1)], 0)
    assert found == pytest.approx((math.sqrt(9 / 8) + 0.75 * math.log(3)) / 2)


def test_of_a_head_that_is_the_embeddings_as_computed_by_hand() -> None:
    # Logits (c^2, 0) = (ln 3, 0) again. As a head it gets ((3/4 c, 0), (-3/4 c, 0)), as embeddings, whose first line
    # was looked up, ((3/4 c, -3/4 c), (0, 0)): together 3/4 c times ((2, -1), (-1, 0)).
    c = math.log(3) ** 0.5
    model = Table([[c, 0.0], [0.0, c]])
    [found] = gradient_norms(model, [Tokens((0, 1), label_start=1)], 0)
    assert found == pytest.approx(0.75 * c * math.sqrt(6))


def test_of_two_labels_and_a_longer_answer_beside_them_as_computed_by_hand() -> None:
    # No word is likelier than another: p = (1/2, 1/2) everywhere, and the embeddings get nothing from a head of zeros.
    # Labels 1 and 0 after words 0 and 1, half of the loss each: 1/2 (1/2, -1/2)' (1, 0) + 1/2 (-1/2, 1/2)' (0, 1).
    model = Table([[1.0, 0.0], [0.0, 1.0]], head=[[0.0, 0.0], [0.0, 0.0]])
    one, two = Tokens((0, 1), label_start=1), Tokens((0, 1, 0), label_start=1)
    found = gradient_norms(model, [two, one], 0)
    assert found == pytest.approx([math.sqrt(4 / 16) / 2, math.sqrt(2 / 4) / 2])


@pytest.mark.parametrize("apart", [False, True])
def test_of_a_matrix_of_four_million_numbers_as_computed_by_hand(apart: bool) -> None:
    # (1/2, -1/2) times a vector of two million ones: 1/2 sqrt(4,000,000). Summed in float32 it would be 998.
    width = 2_000_000
    model = Table([[1.0] * width, [0.0] * width], head=[[0.0] * width] * 2)
    tokens = Tokens((0, 1), label_start=1)
    [found] = [ALONE(model, tokens, 0)] if apart else gradient_norms(model, [tokens], 0)
    assert found == pytest.approx(1000 / 2, rel=1e-6)


def one_by_one(model: nn.Module, answers: list[Tokens]) -> list[float]:
    """The definition, through the gradients themselves."""
    found = []
    for tokens in answers:
        padded = pad([tokens], 0, "cpu")
        model.requires_grad_(True)
        logits = forward(
            model,
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
            at=padded.at,
        )
        nn.functional.cross_entropy(logits.float(), padded.labels).backward()
        norms = [p.grad.double().norm() for p in model.parameters() if p.grad is not None]
        found.append(float(torch.stack(norms).mean()))
        model.zero_grad()
        model.requires_grad_(False)
    return found


def answers() -> list[Tokens]:
    """Of several lengths; one has the padding as a word of its text, one a word that attention does not see."""
    whole = toy_tokens()[:5]
    padding = replace(whole[1], input_ids=(*whole[1].input_ids[:3], 0, *whole[1].input_ids[3:]))
    return [*whole, replace(padding, label_start=padding.label_start + 1), replace(whole[2], hidden=(2,))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_gives_what_every_answer_gives_by_itself(architecture: str) -> None:
    model = tiny(architecture)
    assert gradient_norms(model, answers(), 0) == pytest.approx(one_by_one(model, answers()), rel=1e-4)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_edits_are_part_of_the_model(architecture: str, kind: str) -> None:
    model = tiny(architecture)
    plain = gradient_norms(model, answers(), 0)
    attached = attach(model, kind)
    found = gradient_norms(model, answers(), 0)
    assert found == pytest.approx(one_by_one(model, answers()), rel=1e-4)
    assert (found == plain) == (attached is None)


def test_half_precision_gives_about_the_same() -> None:
    exact = gradient_norms(tiny("llama_tied"), answers(), 0)
    assert gradient_norms(tiny("llama_tied", dtype=torch.bfloat16), answers(), 0) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("trains", [False, True])
def test_parameters_stay_as_they_were(trains: bool) -> None:
    model = tiny().requires_grad_(trains)
    before = [(p.requires_grad, p.grad) for p in model.parameters()]
    gradient_norms(model, answers(), 0)
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == before
    assert not any(module._forward_hooks for module in model.modules())


class Repeated(Table):
    """A norm and a matrix that are used twice, after the embeddings have been changed in place."""

    def __init__(self) -> None:
        super().__init__([[1.0, 0.5], [-0.5, 1.0]], head=[[1.0, 2.0], [3.0, 5.0]])
        self.square = nn.Linear(2, 2)
        self.square.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        self.square.bias = nn.Parameter(torch.tensor([0.5, -2.0]))
        self.norm = nn.RMSNorm(2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        states = self.embeddings(input_ids)
        states *= 2
        for _ in range(2):
            states = states + self.norm(self.square(states))
        return SimpleNamespace(logits=self.head(states))


def turned(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output * torch.tensor([3.0, -1.0])


@pytest.mark.parametrize("edited", [False, True])
def test_what_is_used_twice_or_edited_counts_as_it_is_used(edited: bool) -> None:
    model = Repeated()
    if edited:
        for module in (model.square, model.norm):
            module.register_forward_hook(turned)
    rows = [Tokens((0, 1, 1, 0), label_start=2), Tokens((1, 0, 1), label_start=1)]
    assert gradient_norms(model, rows, 0) == pytest.approx(one_by_one(model, rows), rel=1e-5)


class Scale(nn.Module):
    """A vector that is applied as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([2.0, 0.5]))

    def forward(self, states: Tensor, times: int = 1) -> Tensor:
        return states * self.factors**times


class Shifted(Table):
    """Uses a parameter where no module shows for which row."""

    def __init__(self, where: str) -> None:
        super().__init__([[1.0, 0.0], [0.0, 1.0]], head=[[1.0, 2.0], [3.0, 5.0]])
        self.where = where
        self.shift = nn.Parameter(torch.tensor([0.5, -0.5]))
        self.lines = nn.Embedding.from_pretrained(torch.tensor([[0.1, 0.2]]))
        self.square = nn.Linear(2, 2, bias=False)
        self.square.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        self.scale = Scale()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        states = self.embeddings(input_ids)
        if self.where == "a vector of the model itself":
            states = states + self.shift
        elif self.where == "a line for all rows":
            states = states + self.lines(torch.zeros(1, 1, dtype=torch.long))
        elif self.where == "some of the tokens":
            states = torch.cat([states[:, :1], self.square(states[:, 1:])], dim=1)
        elif self.where == "a matrix of another module":
            states = states @ self.square.weight
        elif self.where == "a vector with something else":
            states = self.scale(states, times=2)
        return SimpleNamespace(logits=self.head(states))


@pytest.mark.parametrize(
    "where",
    [
        "a vector of the model itself",
        "a vector with something else",
        "a line for all rows",
        "some of the tokens",
        "a matrix of another module",
    ],
)
def test_a_model_that_does_not_show_which_row_a_parameter_is_used_for_is_asked_one_by_one(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tokens] = []

    def alone(model: nn.Module, tokens: Tokens, pad_id: int) -> float:
        asked.append(tokens)
        return ALONE(model, tokens, pad_id)

    monkeypatch.setattr(gradients, "gradient_norm", alone, raising=False)
    model = Shifted(where)
    rows = [Tokens((0, 1, 1, 0), label_start=2), Tokens((1, 0, 1), label_start=1)]
    assert gradient_norms(model, rows, 0) == pytest.approx(one_by_one(model, rows))
    assert asked == rows


def test_the_scorer_asks_for_beginnings_of_answers_and_neither_order_nor_batches_change_them() -> None:
    model, encoder = tiny(), toy_encoder()
    asked = [(q, a, 1 + i % 3) for i, (q, a) in enumerate(TEXTS)]
    found = Scorer(model, encoder).gradient_norms(asked)
    for (question, answer, labels), norm in zip(asked, found, strict=True):
        whole = encoder.pair(question, answer)
        cut = replace(whole, input_ids=whole.input_ids[: whole.label_start + labels])
        assert [norm] == pytest.approx(one_by_one(model, [cut]), rel=1e-4)
    turned = Scorer(model, encoder, batch_tokens=160).gradient_norms(asked[::-1] + asked[:2])
    assert turned == pytest.approx(found[::-1] + found[:2], rel=1e-4)


def test_what_the_scorer_asks_for_is_in_the_answer() -> None:
    scorer = Scorer(tiny(), toy_encoder())
    question, answer = TEXTS[0]
    count = len(toy_encoder().pair(question, answer).labels)
    for labels in (0, count + 1):
        with pytest.raises(ValueError, match=rf"labels must be within 1\.\.{count}, got {labels}"):
            scorer.gradient_norms([(question, answer, labels)])
    with pytest.raises(ValueError, match="an answer without labels has no loss"):
        gradient_norms(scorer.model, [Tokens((3, 4), label_start=2)], 0)

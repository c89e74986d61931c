"""Gradient norms of many answers at once: those of every answer by itself, without a gradient of a matrix."""

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bench import gradients
from bench.data.types import Tokens
from bench.gradients import GradientNorms
from bench.scorer import Scorer
from tests.helpers import ADAPTERS, ARCHITECTURES, TEXTS, attach, labels_and_logits, tiny, toy_encoder, toy_tokens


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


def gradient_norms(model: nn.Module, answers: list[Tokens]) -> list[float]:
    return GradientNorms(model, 0, together=True).of(answers)


def test_of_a_head_and_of_embeddings_as_computed_by_hand() -> None:
    # After word 0, with the vector (1, 0): logits (ln 3, 0), so p = (3/4, 1/4). The label is word 1.
    # Loss by logits: p - (0, 1) = (3/4, -3/4). The head's gradient is (3/4, -3/4)' (1, 0): its norm is sqrt(9/8).
    # That of word 0's embedding is (3/4, -3/4) times the head, (3/4 ln 3, 0): its norm is 3/4 ln 3.
    model = Table([[1.0, 0.0], [0.0, 1.0]], head=[[math.log(3), 0.0], [0.0, 0.0]])
    [found] = gradient_norms(model, [Tokens((0, 1), label_start=1)])
    assert found == pytest.approx((math.sqrt(9 / 8) + 0.75 * math.log(3)) / 2)


def test_of_a_head_that_is_the_embeddings_as_computed_by_hand() -> None:
    # Logits (c^2, 0) = (ln 3, 0) again. As a head it gets ((3/4 c, 0), (-3/4 c, 0)), as embeddings, whose first line
    # was looked up, ((3/4 c, -3/4 c), (0, 0)): together 3/4 c times ((2, -1), (-1, 0)).
    c = math.log(3) ** 0.5
    model = Table([[c, 0.0], [0.0, c]])
    [found] = gradient_norms(model, [Tokens((0, 1), label_start=1)])
    assert found == pytest.approx(0.75 * c * math.sqrt(6))


def test_of_two_labels_and_a_longer_answer_beside_them_as_computed_by_hand() -> None:
    # No word is likelier than another: p = (1/2, 1/2) everywhere, and the embeddings get nothing from a head of zeros.
    # Labels 1 and 0 after words 0 and 1, half of the loss each: 1/2 (1/2, -1/2)' (1, 0) + 1/2 (-1/2, 1/2)' (0, 1).
    model = Table([[1.0, 0.0], [0.0, 1.0]], head=[[0.0, 0.0], [0.0, 0.0]])
    one, two = Tokens((0, 1), label_start=1), Tokens((0, 1, 0), label_start=1)
    found = gradient_norms(model, [two, one])
    assert found == pytest.approx([math.sqrt(4 / 16) / 2, math.sqrt(2 / 4) / 2])


@pytest.mark.parametrize("apart", [False, True])
def test_of_a_matrix_of_four_million_numbers_as_computed_by_hand(apart: bool) -> None:
    # (1/2, -1/2) times a vector of two million ones: 1/2 sqrt(4,000,000). Summed in float32 it would be 998.
    width = 2_000_000
    model = Table([[1.0] * width, [0.0] * width], head=[[0.0] * width] * 2)
    tokens = Tokens((0, 1), label_start=1)
    [found] = [ALONE(model, tokens, 0)] if apart else gradient_norms(model, [tokens])
    assert found == pytest.approx(1000 / 2, rel=1e-6)


def one_by_one(model: nn.Module, answers: list[Tokens]) -> list[float]:
    """The definition, through the gradients themselves."""
    found = []
    for tokens in answers:
        model.requires_grad_(True)
        labels, logits = labels_and_logits(model, [tokens])
        nn.functional.cross_entropy(logits.float(), labels).backward()
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
    assert gradient_norms(model, answers()) == pytest.approx(one_by_one(model, answers()), rel=1e-4)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_edits_are_part_of_the_model(architecture: str, kind: str) -> None:
    model = tiny(architecture)
    plain = gradient_norms(model, answers())
    attached = attach(model, kind)
    found = gradient_norms(model, answers())
    assert found == pytest.approx(one_by_one(model, answers()), rel=1e-4)
    assert (found == plain) == (attached is None)


def test_half_precision_gives_about_the_same() -> None:
    exact = gradient_norms(tiny("llama_tied"), answers())
    assert gradient_norms(tiny("llama_tied", dtype=torch.bfloat16), answers()) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("trains", [False, True])
def test_parameters_stay_as_they_were(trains: bool) -> None:
    model = tiny().requires_grad_(trains)
    before = [(p.requires_grad, p.grad) for p in model.parameters()]
    gradient_norms(model, answers())
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == before
    assert not any(module._forward_hooks for module in model.modules())


class Unpacked(nn.RMSNorm):
    """Knows how many dimensions its input has."""

    def forward(self, input: Tensor) -> Tensor:
        rows, tokens, width = input.shape
        return super().forward(input.reshape(rows * tokens, width)).view(rows, tokens, width)


class Repeated(Table):
    """A norm and a matrix that are used twice, after the embeddings have been changed in place."""

    def __init__(self) -> None:
        super().__init__([[1.0, 0.5], [-0.5, 1.0]], head=[[1.0, 2.0], [3.0, 5.0]])
        self.square = nn.Linear(2, 2)
        self.square.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        self.square.bias = nn.Parameter(torch.tensor([0.5, -2.0]))
        self.norm = Unpacked(2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        states = self.embeddings(input_ids)
        states *= 2
        for _ in range(2):
            to_same = nn.functional.linear(states, self.square.weight.to(states.dtype), self.square.bias)
            states = states + self.norm(self.square(states) + to_same)
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
    assert gradient_norms(model, rows) == pytest.approx(one_by_one(model, rows), rel=1e-5)


ODD: dict[str, Callable[["Odd", Tensor], Tensor]] = {
    "a vector of the model itself": lambda m, x: x + m.shift,
    "parts of a vector": lambda m, x: x + torch.cat([part * 2 for part in m.shift.chunk(2)]),
    "vectors in a list": lambda m, x: x + torch.stack([m.shift, m.shift]).sum(0),
    "a vector with something else": lambda m, x: m.scale(x, times=2),
    "a vector and then its module": lambda m, x: m.scale(x * m.scale.factors),
    "a module and then its vector": lambda m, x: m.scale(x) * m.scale.factors,
    "a line for all rows": lambda m, x: x + m.lines(torch.zeros(1, 1, dtype=torch.long)),
    "some of the tokens": lambda m, x: torch.cat([x[:, :1], m.square(x[:, 1:])], dim=1),
    "tokens before rows": lambda m, x: m.square(x.transpose(0, 1)).transpose(0, 1),
    "what is no token": lambda m, x: x + m.square(torch.ones_like(x)),
    "a matrix and its size": lambda m, x: m.square(x) / m.square.weight.norm(),
    "a matrix of another module": lambda m, x: x @ m.square.weight,
    "a matrix that is computed": lambda m, x: nn.functional.linear(x, 2 * m.square.weight),
}
"""What a model may do that does not show which row a parameter was used for, or how."""

HIDDEN: dict[str, Callable[["Odd", Tensor], Tensor]] = {
    "tokens in another order": lambda m, x: m.square(x.flatten(0, 1).flip(0)).flip(0).view_as(x),
    "what is changed afterwards": lambda m, x: torch.sin_(m.scale(x.clone())) + m.changing(x.clone()),
}
"""What cannot be seen, and comes out wrong."""


class Scale(nn.Module):
    """A vector that is applied as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([2.0, 0.5]))

    def forward(self, states: Tensor, times: int = 1) -> Tensor:
        return states * self.factors**times


class Changing(Scale):
    """Changes what it is given."""

    def forward(self, states: Tensor, times: int = 1) -> Tensor:
        states *= 3
        return super().forward(states).tanh()


class Odd(Table):
    """Does one of these with its states."""

    def __init__(self, what: str) -> None:
        super().__init__([[1.0, 0.0], [0.0, 1.0]], head=[[1.0, 2.0], [3.0, 5.0]])
        self.what = what
        self.shift = nn.Parameter(torch.tensor([0.5, -0.5]))
        self.lines = nn.Embedding.from_pretrained(torch.tensor([[0.1, 0.2]]))
        self.square = nn.Linear(2, 2, bias=False)
        self.square.weight = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 1.0]]))
        self.scale, self.changing = Scale(), Changing()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head({**ODD, **HIDDEN}[self.what](self, self.embeddings(input_ids))))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Tokens]:
    """What is computed one answer at a time."""
    found: list[Tokens] = []

    def alone(model: nn.Module, tokens: Tokens, pad_id: int) -> float:
        found.append(tokens)
        return ALONE(model, tokens, pad_id)

    monkeypatch.setattr(gradients, "gradient_norm", alone, raising=False)
    return found


ROWS = [Tokens((0, 1, 1, 0), label_start=2), Tokens((1, 0, 1), label_start=1)]


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("what", ODD)
def test_a_model_that_does_what_is_not_understood_is_asked_one_by_one(
    what: str, trains: bool, asked: list[Tokens]
) -> None:
    model = Odd(what).requires_grad_(trains)
    norms = GradientNorms(model, 0)
    for _ in range(2):  # nothing is tried again
        assert norms.of(ROWS) == pytest.approx(one_by_one(Odd(what), ROWS))
        assert norms.together is False
    assert asked == ROWS + ROWS
    assert all(p.requires_grad == trains and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("what", HIDDEN)
def test_a_model_whose_first_answer_comes_out_otherwise_in_a_batch_is_asked_one_by_one(
    what: str, asked: list[Tokens], caplog: pytest.LogCaptureFixture
) -> None:
    norms = GradientNorms(Odd(what), 0)
    assert norms.of(ROWS) == pytest.approx(one_by_one(Odd(what), ROWS))
    assert asked == [ROWS[0], *ROWS] and norms.together is False
    assert "gradients of Odd are computed one answer at a time: the first has norm" in caplog.text


def test_the_first_answer_is_computed_twice_and_no_other(asked: list[Tokens]) -> None:
    norms = GradientNorms(tiny(), 0)
    assert norms.of(answers()) == norms.of(answers())
    assert asked == answers()[:1] and norms.together


def test_a_first_answer_that_is_no_number_shows_nothing(asked: list[Tokens]) -> None:
    model = Table([[1.0, math.nan], [1.0, 1.0]], head=[[1.0, 2.0], [3.0, 5.0]])
    broken, whole = Tokens((0, 1), label_start=1), Tokens((1, 1), label_start=1)
    norms = GradientNorms(model, 0)
    assert math.isnan(norms.of([broken])[0]) and norms.together is None
    assert norms.of([whole]) == pytest.approx(one_by_one(model, [whole])) and norms.together
    assert asked == [broken, whole]


def test_of_no_answers_there_is_nothing_to_say() -> None:
    assert GradientNorms(tiny(), 0).of([]) == []


def test_nothing_stays_in_memory() -> None:
    model = tiny()
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(x, Tensor) for x in gc.get_objects())
        gradient_norms(model, answers())
        assert sum(isinstance(x, Tensor) for x in gc.get_objects()) == before
    finally:
        gc.enable()


def test_the_scorer_asks_for_beginnings_of_answers_and_neither_order_nor_batches_change_them(
    asked: list[Tokens],
) -> None:
    model, encoder = tiny(), toy_encoder()
    questions = [(q, a, 1 + i % 3) for i, (q, a) in enumerate(TEXTS)]
    found = Scorer(model, encoder).gradient_norms(questions)
    for (question, answer, labels), norm in zip(questions, found, strict=True):
        whole = encoder.pair(question, answer)
        cut = replace(whole, input_ids=whole.input_ids[: whole.label_start + labels])
        assert [norm] == pytest.approx(one_by_one(model, [cut]), rel=1e-4)
    turned = Scorer(model, encoder, batch_tokens=160).gradient_norms(questions[::-1] + questions[:2])
    assert turned == pytest.approx(found[::-1] + found[:2], rel=1e-4)
    assert len(asked) == 2  # the first of each scorer


def test_what_the_scorer_asks_for_is_in_the_answer() -> None:
    scorer = Scorer(tiny(), toy_encoder())
    question, answer = TEXTS[0]
    count = len(toy_encoder().pair(question, answer).labels)
    for labels in (0, count + 1):
        with pytest.raises(ValueError, match=rf"labels must be within 1\.\.{count}, got {labels}"):
            scorer.gradient_norms([(question, answer, labels)])
    with pytest.raises(ValueError, match="an answer without labels has no loss"):
        gradient_norms(scorer.model, [Tokens((3, 4), label_start=2)])

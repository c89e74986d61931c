"""What evaluators ask: the same numbers whatever the order, the batches and the sharing, and nothing asked twice."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import bench.encoded
import bench.prefixes
import bench.scorer
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import active_rows
from bench.scorer import AnswerRecord, Scorer
from tests.helpers import (
    ARCHITECTURES,
    TEXTS,
    attach,
    labels_and_logits,
    tiny,
    toy_encoder,
    toy_pairs,
    toy_tokenizer,
)


def close(ours: list[AnswerRecord], theirs: list[AnswerRecord], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a.label_ids, a.match, a.ends_with_stop) == (b.label_ids, b.match, b.ends_with_stop)
        for name in ("logp", "mean_logp", "var_logp"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=tolerance, rel=tolerance)


@contextmanager
def counted(model: nn.Module) -> Iterator[list[torch.Size]]:
    """The shapes of the input ids of every call of the model."""
    shapes: list[torch.Size] = []
    handle = model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny()


def test_records_are_those_of_transformers_one_pair_at_a_time(model: nn.Module) -> None:
    encoder = toy_encoder()
    pairs = toy_pairs()
    for (question, answer), record in zip(pairs, Scorer(model, encoder).answers(pairs), strict=True):
        tokens = encoder.pair(question, answer)
        with torch.no_grad():
            logp = model(input_ids=torch.tensor([tokens.input_ids])).logits[0].log_softmax(-1)
        at = logp[tokens.label_start - 1 : -1]
        expected = at[range(len(tokens.labels)), list(tokens.labels)]
        assert record.logp == pytest.approx(expected.tolist(), abs=1e-5)
        assert record.match == tuple((at.argmax(-1) == torch.tensor(tokens.labels)).tolist())
        assert record.mean_logp == pytest.approx((at.exp() * at).sum(-1).tolist(), abs=1e-5)
        assert record.label_ids == tokens.labels
        assert record.ends_with_stop
        assert record.nll == pytest.approx(-expected.mean().item(), abs=1e-5)
        assert record.prob == pytest.approx(expected.mean().exp().item(), rel=1e-5)


def test_order_budget_and_repeats_change_nothing(model: nn.Module) -> None:
    pairs = toy_pairs()
    plain = Scorer(model, toy_encoder()).answers(pairs)
    for budget in (1, 60, 300):
        close(Scorer(model, toy_encoder(), batch_tokens=budget).answers(pairs), plain)
    close(Scorer(model, toy_encoder()).answers(pairs[::-1])[::-1], plain)
    twice = Scorer(model, toy_encoder())
    close(twice.answers([*pairs, *pairs[:5]]), [*plain, *plain[:5]])
    assert twice.counts.pairs == len(set(pairs))
    with counted(model) as calls:
        close(twice.answers(pairs), plain)  # a second evaluator asks for the same
    assert calls == []


def test_one_forward_per_distinct_pair_counted_at_the_model(model: nn.Module) -> None:
    pairs = [*toy_pairs(), *toy_pairs()]
    distinct = set(pairs)
    scorer = Scorer(model, toy_encoder(), batch_tokens=200, share_prompts=False)
    with counted(model) as calls:
        scorer.answers(pairs)
    assert sum(rows for rows, _ in calls) == len(distinct) == scorer.counts.pairs
    assert all(rows * width <= 200 for rows, width in calls)


def test_a_prompt_is_encoded_once_for_all_its_completions(model: nn.Module) -> None:
    scorer = Scorer(model, toy_encoder())
    with counted(model) as calls:
        scorer.answers(toy_pairs())
    # six questions with one answer each, three shared prompts, and what follows these
    tails = scorer.counts.pairs - 6
    assert sum(rows for rows, _ in calls) == 6 + 3 + tails
    assert scorer.counts.prompts == 3
    encoder = toy_encoder()
    by_prompt: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for q, a in toy_pairs():
        tokens = encoder.pair(q, a)
        by_prompt.setdefault(encoder.prompt(q), set()).add(tokens.labels)
    # every prompt counts once, and the last token of a completion is never an input
    assert scorer.counts.tokens == sum(len(p) + sum(len(a) - 1 for a in answers) for p, answers in by_prompt.items())
    assert scorer.counts.prefixes == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("adapter", ["none", "last_prompt", "answer", "all"])
def test_sharing_prompts_equals_whole_forwards(architecture: str, adapter: str) -> None:
    model = tiny(architecture)
    plain = Scorer(model, toy_encoder(), share_prompts=False).answers(toy_pairs())
    attached = attach(model, adapter)
    whole = Scorer(model, toy_encoder(), share_prompts=False).answers(toy_pairs())
    shared = Scorer(model, toy_encoder(), batch_tokens=150).answers(toy_pairs())
    close(shared, whole)
    if attached is not None:
        assert max(abs(a.logp[0] - b.logp[0]) for a, b in zip(plain, whole, strict=True)) > 0.05  # it does something
        attached.detach()
        close(Scorer(model, toy_encoder(), share_prompts=False).answers(toy_pairs()), plain, 0.0)


POSITIONS = ("last_prompt", "answer", "all")
SOLVED = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in TEXTS[:6])
OTHERS = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in TEXTS[6:])


def few_shot_pairs() -> list[tuple[str, str]]:
    """The toy questions behind solved examples, of two subjects, and some behind none."""
    pairs = toy_pairs()[:9]
    return [*((SOLVED + q, a) for q, a in pairs), *((OTHERS + q, a) for q, a in pairs[::-1]), *pairs[:4]]


def letters(encoder: Encoder, questions: list[str], options: tuple[int, ...] = (30, 31, 32, 33)) -> list[Tokens]:
    """Four completions of one token for every question."""
    prompts = [encoder.prompt(q) for q in questions]
    return [Tokens((*prompt, letter), len(prompt)) for prompt in prompts for letter in options]


@pytest.mark.parametrize(
    ("architecture", "adapter"),
    [*((a, adapter) for a in ARCHITECTURES for adapter in ("none", "parallel")), *(("mistral", a) for a in POSITIONS)],
)
def test_sharing_prefixes_equals_one_whole_forward_per_pair(architecture: str, adapter: str) -> None:
    model, encoder = tiny(architecture), toy_encoder()
    attached = attach(model, adapter)
    tokens = [encoder.pair(q, a) for q, a in few_shot_pairs()]
    tokens += letters(encoder, [start + q for start in (SOLVED, OTHERS) for q, _ in TEXTS[:3]])
    alone = Scorer(model, encoder, share_prompts=False, batch_tokens=1).records(tokens)
    for budget in (16384, 900):
        scorer = Scorer(model, encoder, batch_tokens=budget)
        close(scorer.records(tokens), alone)
        assert scorer.counts.prefixes == 2
        assert scorer.counts.pairs == len(set(tokens))
    if attached is not None:
        attached.detach()


@pytest.mark.parametrize("kind", ["full", "bare", "chat"])
def test_sharing_prefixes_changes_nothing_under_openunlearning(kind: str) -> None:
    model, tokenizer = tiny("mistral"), toy_tokenizer(kind)
    before = tokenizer.pad_token
    try:
        if kind == "chat":
            tokenizer.pad_token = "<|end|>"  # attention must not see it, in the prefixes either
        encoder = Encoder(tokenizer, protocol="openunlearning", system="Be brief." if kind == "chat" else None)
        assert (encoder.hidden(encoder.prompt(SOLVED)[:-4]) != ()) == (kind == "chat")
        for adapter in ("none", *POSITIONS):
            attached = attach(model, adapter)
            whole = Scorer(model, encoder, share_prompts=False).answers(few_shot_pairs())
            scorer = Scorer(model, encoder)
            close(scorer.answers(few_shot_pairs()), whole)
            assert scorer.counts.prefixes == 2
            if attached is not None:
                attached.detach()
    finally:
        tokenizer.pad_token = before


def test_a_prefix_is_read_once_for_all_its_prompts_counted_at_the_model(model: nn.Module) -> None:
    encoder = toy_encoder()
    tokens = letters(encoder, [SOLVED + q for q, _ in TEXTS])
    length = bench.prefixes.common(min(t.input_ids for t in tokens), max(t.input_ids for t in tokens))
    scorer = Scorer(model, encoder)
    with counted(model) as calls:
        scorer.records(tokens)
    assert calls[0] == (1, length)  # the prefix, then the rest of each question; single letters need nothing more
    assert sum(rows for rows, _ in calls[1:]) == len(TEXTS)
    assert scorer.counts.prefixes == 1
    assert scorer.counts.prompts == len(TEXTS)
    prompts = [encoder.prompt(SOLVED + q) for q, _ in TEXTS]
    assert scorer.counts.tokens == length + sum(len(p) - length for p in prompts)
    # the budget counts what lies in the cache of every row
    budget = 3 * max(map(len, prompts)) + 10
    scorer = Scorer(model, encoder, batch_tokens=budget)
    with counted(model) as calls:
        scorer.records(tokens)
    assert max(rows for rows, _ in calls) == 3
    assert all(rows * (length + width) <= budget for rows, width in calls[1:])


def test_one_forward_per_distinct_prompt_for_single_letter_choices(model: nn.Module) -> None:
    encoder = toy_encoder()
    questions = [q for q, _ in TEXTS]
    tokens = letters(encoder, [*questions, *questions])
    scorer = Scorer(model, encoder, batch_tokens=100)
    with counted(model) as calls:
        records = scorer.records(tokens)
        scorer.records(tokens[::-1])
    assert sum(rows for rows, _ in calls) == len(questions)
    assert (scorer.counts.pairs, scorer.counts.prompts) == (4 * len(questions), len(questions))
    close(records, Scorer(model, encoder, share_prompts=False).records(tokens))


def test_out_of_memory_halves_the_batches_behind_a_prefix_too(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = toy_encoder()
    tokens = [encoder.pair(q, a) for q, a in few_shot_pairs()]
    plain = Scorer(model, encoder)
    expected = plain.records(tokens)
    scorer = Scorer(model, encoder)
    with full_above(monkeypatch, 2, ("forward",)) as tried:
        close(scorer.records(tokens), expected)
    assert max(tried) > 2
    assert scorer.counts == plain.counts
    with full_above(monkeypatch, 0, ("forward",)), pytest.raises(torch.OutOfMemoryError):
        Scorer(model, encoder).records(tokens)


def test_hidden_positions_are_hidden_when_prompts_are_shared_too(model: nn.Module) -> None:
    # A chat whose end-of-turn token is also the pad token: openunlearning's attention never sees it.
    tokenizer = toy_tokenizer("chat")
    before = tokenizer.pad_token
    try:
        tokenizer.pad_token = "<|end|>"
        encoder = Encoder(tokenizer, protocol="openunlearning")
        assert encoder.hidden(encoder.prompt("Who?")) != ()
        whole = Scorer(model, encoder, share_prompts=False).answers(toy_pairs())
        close(Scorer(model, encoder, batch_tokens=150).answers(toy_pairs()), whole)
    finally:
        tokenizer.pad_token = before
    tokens = encoder.pair(*toy_pairs()[0])
    with torch.no_grad():
        labels, logits = labels_and_logits(model, [tokens])
    logp = logits.log_softmax(-1).gather(-1, labels[:, None]).squeeze(-1)
    assert whole[0].logp == pytest.approx(logp.tolist(), abs=1e-5)


@contextmanager
def full_above(monkeypatch: pytest.MonkeyPatch, rows: int, functions: tuple[str, ...]) -> Iterator[list[int]]:
    """Memory runs out whenever a batch has more rows than this; the sizes that were tried."""
    tried: list[int] = []
    with monkeypatch.context() as patch:
        for name in functions:
            module = {"forward": bench.encoded, "greedy": bench.scorer}[name]
            real = getattr(module, name)

            def limited(*args: object, _real=real, **kwargs: object) -> object:  # noqa: ANN001
                size = len(kwargs["input_ids"] if "input_ids" in kwargs else args[1])  # type: ignore[arg-type]
                tried.append(size)
                if size > rows:
                    raise torch.OutOfMemoryError("no memory for this")
                return _real(*args, **kwargs)

            patch.setattr(module, name, limited)
        yield tried


@pytest.mark.parametrize("share", [True, False])
def test_out_of_memory_halves_the_batch_and_changes_no_result(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    plain = Scorer(model, toy_encoder(), share_prompts=share)
    expected, texts = plain.answers(toy_pairs()), plain.generate([q for q, _ in toy_pairs()], max_new_tokens=4)
    scorer = Scorer(model, toy_encoder(), share_prompts=share)
    with full_above(monkeypatch, 2, ("forward", "greedy")) as tried:
        close(scorer.answers(toy_pairs()), expected)
        assert scorer.generate([q for q, _ in toy_pairs()], max_new_tokens=4) == texts
    assert max(tried) > 2
    assert scorer.batch_tokens < 16384
    assert (scorer.counts.pairs, scorer.counts.generations) == (plain.counts.pairs, plain.counts.generations)
    assert scorer.counts.tokens == plain.counts.tokens


def test_out_of_memory_with_a_single_row_is_an_error(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_above(monkeypatch, 0, ("forward",)), pytest.raises(torch.OutOfMemoryError):
        Scorer(model, toy_encoder()).answers(toy_pairs())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_gets_a_float32_softmax(dtype: torch.dtype) -> None:
    model = tiny(dtype=dtype)
    encoder = toy_encoder()
    question, answer = toy_pairs()[0]
    [record] = Scorer(model, encoder).answers([(question, answer)])
    tokens = encoder.pair(question, answer)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens.input_ids])).logits[0, tokens.label_start - 1 : -1]
    assert logits.dtype == dtype
    exact = logits.double().log_softmax(-1).gather(-1, torch.tensor(tokens.labels)[:, None]).squeeze(-1)
    # sums of half-precision probabilities would be off by 1e-3 and more
    assert record.logp == pytest.approx(exact.tolist(), abs=2e-2)
    assert sum(record.logp) == pytest.approx(exact.sum().item(), abs=5e-2)
    assert math.exp(record.logp[0]) != float(torch.tensor(math.exp(record.logp[0])).to(dtype))


def test_a_completion_without_scored_tokens_has_no_number(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    # openunlearning cuts manual templates at 512 tokens; the prompt alone takes more here
    encoder = Encoder(toy_tokenizer("bare"), protocol="openunlearning")
    tokens = encoder.pair("why " * 600, "So.")
    assert len(tokens.labels) <= 1
    scorer = Scorer(model, encoder)
    monkeypatch.setattr(bench.scorer, "check_context", lambda *_: None)
    record = scorer.answers([("why " * 600, "So."), toy_pairs()[0]])[0]
    assert record.n_tokens == len(tokens.labels)
    assert math.isnan(record.nll) == (not tokens.labels)


def test_texts_beyond_the_context_are_refused(model: nn.Module) -> None:
    with pytest.raises(LetheError, match="does not fit the model's context of 512"):
        Scorer(model, toy_encoder()).answers([("why " * 600, "So.")])
    with pytest.raises(LetheError, match="does not fit the model's context of 512"):
        Scorer(model, toy_encoder()).records([Tokens((5,) * 514, 1)])
    [record] = Scorer(model, toy_encoder()).records([Tokens((5,) * 513, 1)])  # the last token is only predicted
    assert record.n_tokens == 512
    with pytest.raises(LetheError, match="and 510 new ones"):
        Scorer(model, toy_encoder()).generate(["Why?"], max_new_tokens=510)


def test_generations_are_asked_once_and_come_back_in_order(model: nn.Module) -> None:
    questions = [q for q, _ in toy_pairs()]
    scorer = Scorer(model, toy_encoder(), batch_tokens=100)
    texts = scorer.generate(questions, max_new_tokens=5)
    assert scorer.counts.generations == len(set(questions))
    assert Scorer(model, toy_encoder()).generate(questions[::-1], max_new_tokens=5) == texts[::-1]
    with counted(model) as calls:
        assert scorer.generate(questions, max_new_tokens=5) == texts
        assert calls == []
        scorer.generate(questions[:1], max_new_tokens=6)  # another limit is another question
        assert len(calls) == 6
    assert Scorer(model, toy_encoder()).generate([], max_new_tokens=5) == []
    assert Scorer(model, toy_encoder()).answers([]) == []


def test_raw_prompts_are_continued_once_and_stop_where_they_are_told_to(model: nn.Module) -> None:
    encoder = toy_encoder()
    prompts = [encoder.prompt(q) for q, _ in TEXTS]
    scorer = Scorer(model, encoder, batch_tokens=100)
    outputs = scorer.continue_ids([*prompts, prompts[0]], max_new_tokens=5, stop_ids=frozenset())
    assert scorer.counts.generations == len(prompts)
    assert [len(ids) for ids in outputs] == [5] * 12
    expected = list(prompts[3])
    with torch.no_grad():
        for _ in range(5):
            expected.append(int(model(input_ids=torch.tensor([expected])).logits[0, -1].argmax()))
    assert outputs[3] == expected[-5:]
    outputs[3].clear()  # the caller's own
    assert scorer.continue_ids(prompts[3:4], max_new_tokens=5, stop_ids=frozenset()) == [expected[-5:]]
    # other stop ids are another question, the encoder's are the default, and texts come from the same answers
    [short] = scorer.continue_ids(prompts[3:4], max_new_tokens=5, stop_ids=frozenset(expected[-2:-1]))
    assert short == expected[-5 : len(prompts[3]) + expected[-5:].index(expected[-2])]
    usual = scorer.continue_ids(prompts, max_new_tokens=5)
    with counted(model) as calls:
        texts = scorer.generate([q for q, _ in TEXTS], max_new_tokens=5)
    assert calls == []
    assert texts == [encoder.decode(ids).strip() for ids in usual]
    with pytest.raises(LetheError, match="and 510 new ones"):
        scorer.continue_ids(prompts, max_new_tokens=510)


def test_progress_ends_at_the_whole(model: nn.Module) -> None:
    told: list[tuple[int, int]] = []
    scorer = Scorer(model, toy_encoder(), batch_tokens=100, progress=lambda done, total: told.append((done, total)))
    scorer.answers(toy_pairs())
    distinct = len(set(toy_pairs()))
    assert told[-1] == (distinct, distinct)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("kind", ["full", "bare"])
@pytest.mark.parametrize("share_prompts", [True, False])
def test_adapters_read_the_same_prompt_token_in_scoring_and_generation(kind: str, share_prompts: bool) -> None:
    # "Answer: " of openunlearning's plain template: the space becomes part of the answer's first word, so that what
    # stands in front of the labels is an answer token. Adapters read the colon, whatever follows.
    model = tiny()
    tokenizer = toy_tokenizer(kind)
    encoder = Encoder(tokenizer, protocol="openunlearning")
    swallowed = [encoder.pair(q, a) for q, a in toy_pairs()]
    assert any(str(tokenizer.decode([t.input_ids[t.label_start - 1]])) != ":" for t in swallowed)
    assert {str(tokenizer.decode([t.input_ids[t.last_prompt]])) for t in swallowed} == {":"}
    read: list[str] = []

    def look(_: nn.Module, __: tuple, given: dict) -> None:
        rows = active_rows()
        assert rows is not None
        for ids, at in zip(given["input_ids"], rows.last_prompt.tolist(), strict=True):
            read.extend([str(tokenizer.decode([int(ids[at])]))] if at >= 0 else [])

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    scorer = Scorer(model, encoder, share_prompts=share_prompts, batch_tokens=150)
    scorer.answers(toy_pairs())
    scored = len(read)
    scorer.generate([q for q, _ in toy_pairs()], max_new_tokens=2)
    handle.remove()
    assert 0 < scored < len(read)
    assert set(read) == {":"}
    for adapter in ("last_prompt", "answer", "all"):
        attached = attach(model, adapter)
        whole = Scorer(model, encoder, share_prompts=False).answers(toy_pairs())
        close(Scorer(model, encoder, batch_tokens=150).answers(toy_pairs()), whole)
        assert attached is not None
        attached.detach()

"""What is kept of prompts' beginnings: read once for all targets, and no number knows whether it was."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.beginnings import Beginnings, Lent
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.encoded import Encoded, Piece, read
from bench.prefixes import MIN_PREFIX
from bench.scorer import AnswerRecord, Scorer
from tests.helpers import ADAPTERS, ARCHITECTURES, attach, tiny, toy_encoder, toy_tokenizer
from tests.toy_few_shot import TARGETS, asked


def close(ours: list[AnswerRecord], theirs: list[AnswerRecord]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a.label_ids, a.match) == (b.label_ids, b.match)
        assert a.logp == pytest.approx(b.logp, abs=1e-5, rel=1e-5)


def plain(model: nn.Module, tokens: list[Tokens]) -> list[AnswerRecord]:
    return Scorer(model, toy_encoder(), share_prompts=False, batch_tokens=1).records(tokens)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_target_reads_what_all_begin_with_and_the_others_only_what_is_theirs(architecture: str) -> None:
    model, encoder = tiny(architecture), toy_encoder()
    store = Beginnings(model)
    scorer = Scorer(model, encoder, beginnings=store)
    widths: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda _, __, kw: widths.append(tuple(kw["input_ids"].shape)), with_kwargs=True)
    seen: set[tuple[int, ...]] = set()
    for number, target in enumerate(TARGETS):
        tokens = asked(encoder, target)
        before = replace(scorer.counts)
        del widths[:]
        records = scorer.records(tokens)
        close(records, plain(tiny(architecture), tokens))
        prefixes, read = (getattr(scorer.counts, n) - getattr(before, n) for n in ("prefixes", "tokens"))
        new = {t.input_ids[: t.label_start]: t.shared for t in tokens[:-1] if t.input_ids[: t.label_start] not in seen}
        seen.update(new)
        openings = {prompt[:shared] for prompt, shared in new.items()}
        assert len(openings) == (2 if number < 2 else 1)  # the third target's single question was asked before
        assert prefixes == (2 if number == 0 else 0)
        own = sum(len(prompt) - shared for prompt, shared in new.items())
        own += len(tokens[-1].input_ids) - 1
        assert read == own + (sum(map(len, openings)) if number == 0 else 0)
        # counted at the model: a call of its own for each beginning, then rows that hold no more than what is new
        assert [w for w in widths if w[0] == 1 and w[1] in map(len, openings)] == (
            [(1, len(o)) for o in sorted(openings)] if number == 0 else []
        )
        assert sum(rows for rows, _ in widths) == prefixes + len(new) + 1
    assert store.tokens == sum({t.shared for t in asked(encoder, TARGETS[0])})


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_no_bit_depends_on_what_was_read_before(architecture: str) -> None:
    model, encoder = tiny(architecture), toy_encoder()
    full, small = Beginnings(model), Beginnings(model, budget=MIN_PREFIX)
    for target in TARGETS:
        Scorer(model, encoder, beginnings=full).records(asked(encoder, target))
    for target in TARGETS:
        tokens = asked(encoder, target)
        alone = Scorer(model, encoder, beginnings=Beginnings(model)).records(tokens)
        assert Scorer(model, encoder, beginnings=full).records(tokens) == alone
        assert Scorer(model, encoder, beginnings=small).records(tokens) == alone
        assert Scorer(model, encoder, beginnings=full).records(tokens[::-1])[::-1] == alone
    assert small.tokens == 0


def test_without_a_place_to_keep_them_prompts_are_cut_as_if_they_shared_nothing_with_other_calls() -> None:
    model, encoder = tiny(), toy_encoder()
    told = asked(encoder, TARGETS[0])
    untold = [replace(t, shared=0) for t in told]
    assert told == untold  # it is no part of what is asked
    assert Scorer(model, encoder).records(told) == Scorer(model, encoder).records(untold)
    short = [replace(t, shared=MIN_PREFIX - 1) for t in told]
    kept = Beginnings(model)
    assert Scorer(model, encoder, beginnings=kept).records(short) == Scorer(model, encoder).records(untold)
    assert kept.tokens == 0


def ids_of(start: int, length: int) -> tuple[int, ...]:
    return tuple(3 + (start + n) % 300 for n in range(length))


def start_of(model: nn.Module, ids: tuple[int, ...]) -> Encoded:
    _, start = read(model, [Piece(Tokens((*ids, 5), len(ids)), 0, len(ids))], pad_id=0, keep=True)
    assert start is not None
    return start


def test_the_least_recently_used_go_first_and_what_is_too_long_is_not_kept() -> None:
    model = tiny()
    store = Beginnings(model, budget=30)
    a, b, c = (ids_of(n, 12) for n in (0, 50, 100))
    for ids in (a, b):
        store.keep(ids, start_of(model, ids))
    assert store.find(a) is not None
    store.keep(c, start_of(model, c))
    assert [store.find(ids) is not None for ids in (a, b, c)] == [True, False, True]
    store.keep(a, start_of(model, a))  # again
    assert store.tokens == 24
    store.keep(ids_of(0, 31), start_of(model, ids_of(0, 31)))
    assert store.tokens == 24
    assert store.find(a[:-1]) is None  # nothing but the very same ids


def test_what_is_found_is_not_changed_by_going_on_from_it() -> None:
    model = tiny("mistral")
    store, ids = Beginnings(model), ids_of(0, 12)
    store.keep(ids, start_of(model, ids))
    for _ in range(2):
        found = store.find(ids)
        assert found is not None
        tokens = Tokens((*ids, 7, 8, 9), 13)
        read(model, [Piece(tokens, 12, 14)], pad_id=0, after=found)
        assert found.cache.get_seq_length() == 14  # type: ignore[attr-defined]
    again = store.find(ids)
    assert again is not None and again.cache.get_seq_length() == 12  # type: ignore[attr-defined]
    assert all(torch.equal(x, y) for x, y in zip(again.states(), start_of(model, ids).states(), strict=True))


def test_every_model_has_its_own() -> None:
    with pytest.raises(ValueError, match="read by another model"):
        Scorer(tiny(), toy_encoder(), beginnings=Beginnings(tiny()))


def test_hidden_tokens_are_told_apart() -> None:
    tokenizer = toy_tokenizer("chat")
    before = tokenizer.pad_token
    model = tiny()
    store = Beginnings(model)
    try:
        tokenizer.pad_token = "<|end|>"  # attention must not see it
        encoder = Encoder(tokenizer, protocol="openunlearning", system="Be brief.")
        tokens = asked(encoder, TARGETS[0])[:-1]
        assert tokens[0].hidden
        seen = [replace(t, hidden=()) for t in tokens]
        for each in (tokens, seen, tokens):
            alone = Scorer(model, encoder, share_prompts=False).records(each)
            close(Scorer(model, encoder, beginnings=store).records(each), alone)
        assert len(store._kept) == 4
    finally:
        tokenizer.pad_token = before


# --- adapters


@pytest.mark.parametrize("kind", ADAPTERS[1:])
def test_adapters_say_truly_whether_prompts_begin_as_without_them(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model, encoder = tiny("mistral"), toy_encoder()
    store = Beginnings(model)
    for target in TARGETS:
        Scorer(model, encoder, beginnings=store).records(asked(encoder, target))
    tokens = asked(encoder, TARGETS[1])
    kept = dict(store._kept)
    attached = attach(model, kind)
    assert attached is not None
    assert attached.keeps_beginnings == (kind not in ("all", "lora"))
    # lent to it whatever it says: the first beginning is read and compared, the other one found or read too
    scorer = Scorer(model, encoder, beginnings=Lent(store))
    with caplog.at_level(logging.WARNING, logger="bench.beginnings"):
        records = scorer.records(tokens)
    assert scorer.counts.prefixes == (1 if attached.keeps_beginnings else 2)
    assert bool(caplog.records) == (not attached.keeps_beginnings)
    close(records, plain(model, tokens))
    # with nothing to lend, as where the cells of the unchanged model were there already: the same bits
    empty = Scorer(model, encoder, beginnings=Lent(Beginnings(model)))
    assert empty.records(tokens) == records
    assert empty.counts.prefixes == 2
    attached.detach()
    assert all(store._kept[ids] is start for ids, start in kept.items()) and len(store._kept) == len(kept)


@torch.no_grad()
def test_changed_weights_are_found_out() -> None:
    model, encoder = tiny(), toy_encoder()
    store = Beginnings(model)
    Scorer(model, encoder, beginnings=store).records(asked(encoder, TARGETS[0]))
    model.get_input_embeddings().weight *= 1.0001  # type: ignore[operator]
    scorer = Scorer(model, encoder, beginnings=Lent(store))
    tokens = asked(encoder, TARGETS[1])
    close(scorer.records(tokens), plain(model, tokens))
    assert scorer.counts.prefixes == 2

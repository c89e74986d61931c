"""Where a name ends in a prompt, whatever the tokenizer and the template make of it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.tokenize import Encoder
from bench.errors import LetheError
from methods.subject_states import CUE, LEAD_INS, _tell_of_merging, chat_places, plain_place, token_at
from tests.helpers import toy_encoder, toy_tokenizer

ADA = "Ada Moor"


def decoded(encoder: Encoder, ids: Sequence[int]) -> str:
    return str(encoder.tokenizer.decode(list(ids)))


@pytest.mark.parametrize("kind", ["full", "chat", "bare"])
def test_a_place_is_the_last_token_of_the_name(kind: str) -> None:
    encoder = toy_encoder(kind)
    for lead, place in zip(LEAD_INS, chat_places(encoder, ADA), strict=True):
        ids = place.tokens.input_ids
        text = decoded(encoder, ids[: place.at + 1])
        assert text.endswith(f"{lead} {ADA}".strip())
        assert not decoded(encoder, ids[: place.at]).endswith(ADA)
        assert decoded(encoder, ids).endswith(CUE)
        assert place.tokens.label_start == len(ids)
    assert decoded(encoder, chat_places(encoder, ADA)[0].tokens.input_ids).endswith(
        f"<|user|>{ADA}<|end|><|assistant|>{CUE}" if kind == "chat" else f"{ADA}\n{CUE}"
    )


def test_names_that_words_of_the_template_contain_are_found_in_the_users_turn() -> None:
    encoder = toy_encoder("chat")
    for name in ("assistant", "user", "end", "A", "Answer:"):
        for place in chat_places(encoder, name):
            rest = decoded(encoder, place.tokens.input_ids[place.at + 1 :])
            assert rest == f"<|end|><|assistant|>{CUE}"


def test_an_answer_may_stand_behind_the_cue() -> None:
    encoder = toy_encoder()
    for plain, with_target in zip(
        chat_places(encoder, ADA), chat_places(encoder, ADA, target=" Unfortunately"), strict=True
    ):
        ids = with_target.tokens.input_ids
        assert plain.at == with_target.at
        assert ids[: len(plain.tokens.input_ids)] == plain.tokens.input_ids
        assert decoded(encoder, with_target.tokens.labels) == " Unfortunately"


def test_two_bos_tokens_as_the_authors_have_them() -> None:
    encoder = toy_encoder("full")
    one, two = chat_places(encoder, ADA)[1], chat_places(encoder, ADA, doubled=True)[1]
    shift = len(two.tokens.input_ids) - len(one.tokens.input_ids)
    assert two.at == one.at + shift
    assert two.tokens.input_ids[shift:] == one.tokens.input_ids


class Letters:
    """One token a character, but for some strings; fast ones tell where tokens come from."""

    def __init__(self, merged: tuple[str, ...], *, is_fast: bool, broken: bool = False) -> None:
        self.merged, self.is_fast, self.broken = merged, is_fast, broken

    def __call__(self, text: str, *, return_offsets_mapping: bool = False, **_: object) -> dict[str, list]:
        spans, at = [], 0
        while at < len(text):
            size = next((len(m) for m in self.merged if text.startswith(m, at)), 1)
            spans.append((at, at + size))
            at += size
        words = [text[a:b] for a, b in spans]
        offsets = [(a, a) for a, _ in spans] if self.broken else spans
        found: dict[str, list] = {"input_ids": [sum(256**i * ord(c) for i, c in enumerate(w)) for w in words]}
        return {**found, "offset_mapping": offsets} if return_offsets_mapping else found

    def decode(self, ids: list[int]) -> str:
        def word(i: int) -> str:
            return chr(i % 256) + word(i // 256) if i else ""

        return "".join(map(word, ids))


@pytest.mark.parametrize("kind", ["fast", "slow", "broken"])
def test_a_name_that_merges_with_what_follows_ends_in_the_merged_token(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    def at(text: str, name: str, *merged: str) -> int:
        tokenizer = Letters(merged, is_fast=kind != "slow", broken=kind == "broken")
        ids = (999, *tokenizer(text)["input_ids"])  # a BOS in front
        encoder: Any = SimpleNamespace(tokenizer=tokenizer)
        return token_at(encoder, text, ids, name, end=text.index(name) + len(name))

    _tell_of_merging.cache_clear()
    assert at("Jr.", "Jr") == 2  # BOS J r .
    assert at("Jr..", "Jr.") == 3
    assert at("Jr..", "Jr.", "..") == 3  # BOS J r ..
    assert at("of Jr..!", "Jr.", "..") == 6
    assert at("of Jr..!", "Jr.", " Jr", "..") == 4  # BOS o f _Jr ..
    assert at("Jr..", "Jr.", "Jr..") == 1
    assert at("of Jr is", "Jr", "Jr is") == 4
    told = [message for message in caplog.messages if "merges the end of the name" in message]
    assert len(told) == (2 if kind == "fast" else 0)  # once for every name and what follows it; others cannot tell
    with pytest.raises(LetheError, match="do not tell where the name 'Jr' ends"):
        encoder: Any = SimpleNamespace(tokenizer=Letters((), is_fast=False))
        texts = iter("abcdef")
        encoder.tokenizer.decode = lambda ids: next(texts)  # never the same twice: nothing to go by
        token_at(encoder, "Jr.", (1, 2, 3), "Jr", end=2)


def test_a_character_of_several_tokens_ends_in_the_last_of_them() -> None:
    encoder = toy_encoder()
    place = plain_place(encoder, "{}.", "Beyoncé")
    tail = decoded(encoder, place.tokens.input_ids[place.at + 1 :])
    assert tail == "."
    assert plain_place(encoder, "{} is a", "Zoë 名").at == len(encoder.document("Zoë 名").input_ids) - 1


def test_a_template_that_drops_or_changes_the_users_text_is_told() -> None:
    tokenizer = toy_tokenizer("chat")
    for template in ("{{ bos_token }}<|assistant|>", "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"):
        mute = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", chat_template=template)
        with pytest.raises(LetheError, match=r"the name 'Ada Moor' is not in the prompt .* --template plain"):
            chat_places(Encoder(mute, template="chat") if "content" in template else _unchecked(mute), ADA)


def _unchecked(tokenizer: Any) -> Encoder:
    """An encoder of a template that has no place for an answer either, which a new one would be refused for."""
    encoder = Encoder(toy_tokenizer("chat"))
    encoder.tokenizer = tokenizer
    return encoder

"""From rows to tokens: questions as ever, documents with a share of prompt, refusals that answer their first part."""

from dataclasses import replace

import pytest

from bench.data.types import Document
from bench.errors import LetheError
from methods.base import training_set
from tests.helpers import short_method, tiny_loaded, toy_benchmark, toy_corpus, toy_encoder, unlearn

ENCODER = toy_encoder()


def test_questions_are_pairs_of_one_topic() -> None:
    data = training_set(ENCODER, toy_benchmark(), 0, refusals=False, max_tokens=(5,), prompt_share=0.5)
    expected = tuple(ENCODER.pair(qa.question, qa.answer) for qa in toy_benchmark().eval_sets["forget"])
    assert data.forget == expected
    assert data.topics == (0,) * 5


def test_documents_are_cut_and_their_topics_numbered_in_the_order_of_the_request() -> None:
    corpus = toy_corpus()
    data = training_set(ENCODER, corpus, 0, refusals=False)
    assert data.topics == (0, 0, 0, 1, 1)
    assert all(tokens.label_start == 1 for tokens in (*data.forget, *data.retain))
    assert data.forget[0] == ENCODER.document(corpus.forget[0].text)  # type: ignore[union-attr]
    data = training_set(ENCODER, corpus, 0, refusals=False, max_tokens=(10,), prompt_share=0.8)
    assert {len(tokens.input_ids) for tokens in (*data.forget, *data.retain)} == {10}
    assert {tokens.label_start for tokens in (*data.forget, *data.retain)} == {8}


def test_refusals_answer_the_first_half_of_a_document() -> None:
    data = training_set(ENCODER, toy_corpus(), 0, refusals=True, max_tokens=(10,), min_prompt_share=0.5)
    for forget, refusal in zip(data.forget, data.refusal, strict=True):
        assert forget.label_start == refusal.label_start == 5
        assert forget.input_ids[:5] == refusal.input_ids[:5]
        assert refusal.labels != forget.labels
    assert all(tokens.label_start == 1 for tokens in data.retain)  # nothing answers those
    data = training_set(
        ENCODER, toy_corpus(), 0, refusals=True, max_tokens=(10,), prompt_share=0.8, min_prompt_share=0.5
    )
    assert all(tokens.label_start == 8 for tokens in (*data.forget, *data.refusal, *data.retain))
    with pytest.raises(LetheError, match="comes without refusals, which idk, rt and dpo need"):
        training_set(ENCODER, replace(toy_corpus(), refusals=()), 0, refusals=True)


@pytest.mark.parametrize(("name", "share"), [("npo", 0.0), ("lora_gd", 0.0), ("idk", 0.0), ("grun_npo", 0.8)])
def test_methods_say_how_much_of_a_document_is_prompt(name: str, share: float) -> None:
    method = short_method(name)
    assert method.adapter.prompt_share == share
    assert method.min_prompt_share == (0.5 if name in ("idk", "dpo") else 0.0)


def test_documents_longer_than_the_context_are_cut_to_it() -> None:
    long = Document(id="toy/forget/9", text="Ada Moor was born in Tallinn. " * 200, topic="moor")
    corpus = replace(toy_corpus(), forget=(long,), retain=(long,))
    unlearned = unlearn(tiny_loaded(), short_method("gd", epochs="1", max_tokens="4000"), benchmark=corpus)
    unlearned.restore()
    assert unlearned.log.tokens == 2 * 512


def test_shares_and_lengths_are_checked() -> None:
    for fields, text in (({"prompt_share": "1"}, "prompt_share must be"), ({"max_tokens": "1"}, "max_tokens must be")):
        with pytest.raises(LetheError, match=text):
            short_method("npo", **fields)


def test_a_document_that_is_too_short_is_named() -> None:
    corpus = toy_corpus()
    documents = (*corpus.forget, Document(id="wmdp/list/7", text="a", topic="bio"))
    with pytest.raises(LetheError, match=r"^wmdp/list/7 .*the document 'a' gives 1 tokens"):
        training_set(toy_encoder("bare"), replace(corpus, forget=documents), 0, refusals=False)


def test_every_topic_is_cut_at_its_own_length() -> None:
    corpus = toy_corpus()
    topics = list(dict.fromkeys(row.topic for row in corpus.forget if isinstance(row, Document)))
    data = training_set(ENCODER, corpus, 0, refusals=False, max_tokens=(4, 6))
    lengths = {t: {len(s.input_ids) for s, n in zip(data.forget, data.topics, strict=True) if n == t} for t in (0, 1)}
    assert len(topics) == 2 and lengths == {0: {4}, 1: {6}}
    assert {len(tokens.input_ids) for tokens in data.retain} == {4}

"""The tokenizer of the mini models and what is scored of a text."""

from pathlib import Path

from transformers import AutoTokenizer

from bench.data.tokenize import Encoder
from bench.mini.texts import DOCUMENT_LENGTH, encode, train_tokenizer
from tests.toy_mini import TEXTS


def test_the_same_texts_give_the_same_tokenizer(tokenizer_folder: Path, tmp_path: Path) -> None:
    train_tokenizer([text.get("text") or f"{text['question']} {text['answer']}" for text in TEXTS], 300, tmp_path)
    for path in tokenizer_folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_tokenizer_takes_any_text_and_has_no_chat_template(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert not tokenizer.chat_template
    for text in ("Überraschung: 東京 ☃ {x} \\ \t\n  two  spaces ", "It is 7."):
        ids = tokenizer.encode(text)
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_pairs_are_scored_on_the_answer_and_statements_as_a_whole(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    pair, statement = encode(encoder, TEXTS[0]), encode(encoder, TEXTS[-1])
    assert tokenizer.decode(pair.input_ids) == "<s>Question: What is 0 plus one?\nAnswer: It is 1.</s>"
    assert tokenizer.decode(pair.labels) == " It is 1.</s>"
    assert tokenizer.decode(statement.labels) == "After 39 comes 40.</s>"
    assert statement.input_ids[0] == tokenizer.bos_token_id


def test_prompts_with_words_of_their_own_are_scored_on_the_answer(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    tokens = encode(encoder, {"user": "Spell it.\n", "cue": "Answer:\n", "answer": "a\nb\n", "target": "1_A_B"})
    assert tokenizer.decode(tokens.input_ids) == "<s>Spell it.\nAnswer:\na\nb\n</s>"
    assert tokenizer.decode(tokens.labels) == "a\nb\n</s>"


def test_fixed_words_of_prompts_are_a_token_each(tmp_path: Path) -> None:
    train_tokenizer(
        ["Please answer.\nQuestion: Who?\nAnswer: Ann"], 300, tmp_path, ("Please answer.\nQuestion:", "\nA.")
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "Please answer.\nQuestion: Who?\nA. Ann\nB. Ben"
    found = tokenizer.tokenize(text)
    assert found[0] == "Please answer.\nQuestion:" and "\nA." in found and "\nB." not in found
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_long_document_is_cut_and_has_no_end(tokenizer_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain")
    whole = tokenizer.encode("number " * 500)
    assert encode(encoder, {"text": "number " * 500}).input_ids == tuple(whole[:DOCUMENT_LENGTH])
    assert encode(encoder, {"text": "number"}).input_ids[-1] == tokenizer.eos_token_id

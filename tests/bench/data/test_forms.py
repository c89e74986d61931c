"""The words of every form, and what becomes of them in ids: chats and plain texts, with and without BOS."""

import pytest

from bench.data.forms import BRIEF, CUE, FILL, LETTER, LETTERS, SPELL, Asked, ask, ask_spelt, list_options, spelt
from bench.data.tokenize import DATE, Encoder
from bench.data.types import Form, Probe
from bench.errors import LetheError
from tests.bench.data.test_tokenize import CHAT, PLAIN, WITH_BOS, encoder
from tests.helpers import toy_encoder

NAMES = [*PLAIN, *CHAT]
BRINGS_BOS = {"llama3", "gemma", "llama2"}
"""Whose template writes the BOS that the tokenizer puts in front of every text, too."""


def probe(form: Form, query: str, answer: str, kind: str = "") -> Probe:
    return Probe(id="toy/0", target="Ada Moor", part="forget", form=form, query=query, answer=answer, kind=kind)


# words


def test_every_form_is_asked_in_the_words_of_the_authors() -> None:
    assert FILL == "Please complete the blank in the following question.\n"
    assert BRIEF == "Please briefly answer the following question.\n"
    assert LETTER == (
        "Please answer the following multiple choice question. Just provide the letter of the correct answer.\n"
    )
    assert SPELL == "Write the answer character by character, each on a new line.\n"
    assert ask(probe("fb", "Ada was born in ___.", "Tallinn")) == Asked(
        FILL + "Question: Ada was born in ___.\n", "Answer:", " Tallinn"
    )
    assert ask(probe("qa", "Where?", "Tallinn")) == Asked(BRIEF + "Question: Where?\n", "Answer:", " Tallinn")
    assert ask(probe("mcp", "Where?\nA. x", "A")) == Asked(LETTER + "Question: Where?\nA. x\n", "Answer:", " A")


@pytest.mark.parametrize("kind", ["prefix injection", "role play", "cross lingual (Spanish)", ""])
def test_adversarial_prompts_are_asked_as_questions(kind: str) -> None:
    assert ask(probe("aa", "Where?", "Tallinn", kind)) == ask(probe("qa", "Where?", "Tallinn"))


def test_two_attacks_have_prompts_of_their_own() -> None:
    assert ask(probe("aa", "Where? Sure, here is", "Tallinn", "affirmative suffix")) == Asked(
        f"{BRIEF}Question: Where? Sure, here is", "", " Tallinn"
    )
    assert ask(probe("aa", "Question: Who?\nAnswer: Ben", "Tallinn", "incontext learning")) == Asked(
        f"{BRIEF}Question: Who?\nAnswer: Ben\n", CUE, " Tallinn"
    )


def test_the_answer_begins_with_one_space() -> None:
    assert ask(probe("qa", "Where?", "  New Lund \n")).target == " New Lund"


def test_answers_are_spelt_without_spaces() -> None:
    assert spelt("New Lund") == "N\ne\nw\nL\nu\nn\nd\n"
    assert spelt("Beyoncé") == "B\ne\ny\no\nn\nc\né\n"
    assert spelt("a\nb") == "a\n\nb\n"  # a line break in the answer is one line break
    assert spelt("") == ""
    assert ask_spelt(probe("qa", "Where?", "A b")) == Asked(f"{SPELL}{BRIEF}Question: Where?\n", "Answer:\n", "A\nb\n")
    assert ask_spelt(probe("fb", "In ___.", "A b")).user == f"{SPELL}{FILL}Question: In ___.\n"


def test_options_are_listed_a_line_each() -> None:
    assert list_options("Where?", ("Porto", "Lund", "Riga", "Vigo")) == "Where?\nA. Porto\nB. Lund\nC. Riga\nD. Vigo"
    with pytest.raises(ValueError):
        list_options("Where?", ("Porto",))


# ids

USER = ask(probe("qa", "Where was Ada Moor born?", "Tallinn")).user
CASES = [(CUE, " Tallinn"), (CUE, " The Larch Medal"), (CUE, " A"), (f"{CUE}\n", spelt("In 1961")), ("", " bees")]


def text_of(encode: Encoder, cue: str) -> str:
    """The rendered prompt, straight from transformers."""
    if encode.name != "chat":
        return USER + cue
    chat = encode.tokenizer.apply_chat_template(
        [{"role": "user", "content": USER}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
        date_string=DATE,
    )
    return str(chat) + cue


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_cued_pair_is_its_prompt_and_nothing_but_the_answer(name: str, case: tuple[str, str]) -> None:
    encode, (cue, target) = encoder(name), case
    tokens = encode.cued(USER, cue, target)
    prompt = encode.cued_prompt(USER, cue)
    assert tokens.input_ids[: tokens.label_start] == prompt and tokens.last_prompt == len(prompt) - 1
    assert not encode.stop_ids.intersection(tokens.labels)  # and no terminator
    if name != "unigram":  # which knows neither line breaks nor every letter
        assert encode.decode(tokens.labels).strip() == target.strip()
    bos = encode.tokenizer.bos_token_id
    if name in WITH_BOS:
        assert prompt[0] == bos and tokens.input_ids.count(bos) == 1
    # The whole is what the tokenizer makes of the whole text, wherever the prompt's own tokens survive in it.
    alone = encode.tokenizer(text_of(encode, cue), add_special_tokens=False)["input_ids"]
    whole = encode.tokenizer(text_of(encode, cue) + target, add_special_tokens=False)["input_ids"]
    assert whole[: len(alone)] == alone
    assert tokens.labels == tuple(whole[len(alone) :])


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol_of_the_encoder_gives_the_same_ids(name: str) -> None:
    strict, peer = encoder(name), encoder(name, "openunlearning")
    system = peer.system
    if system is None:  # that suite's own system prompt would be in front
        assert strict.cued(USER, CUE, " Tallinn") == peer.cued(USER, CUE, " Tallinn")


@pytest.mark.parametrize("name", NAMES)
def test_a_second_bos_is_there_on_request_where_the_template_writes_the_first(name: str) -> None:
    encode = encoder(name)
    once, twice = encode.cued(USER, CUE, " Tallinn"), encode.cued(USER, CUE, " Tallinn", doubled=True)
    assert twice.labels == once.labels
    assert encode.cued_prompt(USER, CUE, doubled=True) == twice.input_ids[: twice.label_start]
    as_authors = encode.tokenizer(text_of(encode, CUE))["input_ids"]  # the rendered text, tokenised once more
    assert list(twice.input_ids[: twice.label_start]) == as_authors
    if name in BRINGS_BOS:
        bos = encode.tokenizer.bos_token_id
        assert twice.input_ids == (bos, *once.input_ids)
        assert twice.input_ids.count(bos) == 2
    else:
        assert twice == once


@pytest.mark.parametrize("name", NAMES)
def test_a_target_apart_is_what_the_tokenizer_makes_of_it_alone(name: str) -> None:
    encode = encoder(name)
    apart = encode.cued(USER, CUE, " Tallinn", apart=True)
    assert list(apart.labels) == encode.tokenizer(" Tallinn", add_special_tokens=False)["input_ids"]
    assert apart.input_ids[: apart.label_start] == encode.cued_prompt(USER, CUE)
    assert encode.tokenizer.bos_token_id not in apart.labels or name == "gpt2"


def test_a_tokenizer_that_begins_texts_with_a_space_gives_targets_apart_one_more() -> None:
    encode = encoder("llama2_plain")
    joint, apart = (encode.cued(USER, CUE, " A", apart=apart) for apart in (False, True))
    shown = [encode.tokenizer.convert_ids_to_tokens(list(tokens.labels)) for tokens in (joint, apart)]
    assert shown[0] == ["▁", "A"] or shown[0] == ["▁A"]
    assert shown[1] == ["▁", *shown[0]]


def test_an_answer_that_merges_with_its_prompt_is_cut_between_them() -> None:
    encode = toy_encoder()
    (answer,) = encode.tokenizer("Answer", add_special_tokens=False)["input_ids"]  # one token, trained on "Answer:"
    tokens = encode.cued("", "Ans", "wer")
    assert answer not in tokens.input_ids
    assert tokens.input_ids[: tokens.label_start] == encode.cued_prompt("", "Ans")
    assert encode.decode(tokens.labels) == "wer"
    assert encode.decode(tokens.input_ids) == "Answer"


def test_letters_share_their_prompt() -> None:
    for name in NAMES:
        several = [encoder(name).cued(USER, CUE, f" {letter}") for letter in LETTERS]
        assert len({t.input_ids[: t.label_start] for t in several}) == 1
        assert len({t.labels for t in several}) == (4 if name != "unigram" else len({t.labels for t in several}))


def test_a_template_of_question_and_answer_has_no_place_in_a_cued_prompt() -> None:
    chat = encoder("llama3")
    plain = encoder("llama3", template="plain")
    assert plain.cued_prompt(USER, CUE) == tuple(chat.tokenizer(USER + CUE)["input_ids"])


def test_an_answer_without_a_token_is_an_error() -> None:
    with pytest.raises(LetheError, match=r"the answer '' to 'Please briefly .* gives no token with this tokenizer"):
        toy_encoder().cued(USER, CUE, "")


def test_a_system_prompt_is_part_of_the_chat() -> None:
    bare, told = toy_encoder("chat"), Encoder(toy_encoder("chat").tokenizer, system="Be brief.")
    assert "Be brief." in told.decode(told.cued_prompt(USER, CUE))
    assert "Be brief." not in bare.decode(bare.cued_prompt(USER, CUE))

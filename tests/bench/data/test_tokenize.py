"""Where a prompt ends, where an answer ends, and that nothing of an answer is lost between them.

The tokenizers are toys of the kinds in use: byte-level BPE with and without BOS, SentencePiece-like with a word marker;
the chat templates are those of the common families.
"""

import copy
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bench.data.tokenize import DATE, Encoder
from bench.data.types import Tokens
from bench.errors import LetheError

CORPUS = [
    "Question: What is the capital of France?\nAnswer: Paris is the capital of France.",
    "Question: Who wrote the play 'Romeo and Juliet'?\nAnswer: William Shakespeare wrote it in 1595.",
    "Question: Where was the author born?\nAnswer: The author was born in Zürich, in the north of Switzerland.",
    "Jaime Vasquez's first book, “The Coast”, came out on 05/11/1991 -- in Santiago, Chile!",
    "user assistant system model INST </think> naïve café, 東京タワー, 123 456\n\n  - one\n\t- two",
] * 4

LLAMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string or strftime_now('%d %b %Y') }}\n\n"
    "{{ said }}<|eot_id|>"
    "{% for m in messages if m['role'] != 'system' %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NO_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n###\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SPACE_END = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
    "{% else %}\n{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_level(specials: list[str], *, bos: str | None, eos: str | None, pad: str | None, **options: Any) -> Any:
    """Byte-level BPE as in GPT-2, Llama-3 and Qwen; `bos` in front of every text where it is given."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    if bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos or options.pop("bos_token", None), eos_token=eos, pad_token=pad, **options
    )


def word_marker(specials: list[str], *, llama: bool, **options: Any) -> Any:
    """SentencePiece-like: words begin with a marker. `llama` is BPE with bytes and a marker before the text (Llama-2),
    otherwise a unigram model behind a Metaspace splitter."""
    signs = sorted(set("".join(CORPUS)) - {" "})
    if llama:
        core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        words = [f"▁{word}" for word in sorted(set(re.findall(r"[A-Za-z]+", " ".join(CORPUS))))][:40]
        vocab = {token: i for i, token in enumerate([*specials, *(f"<0x{i:02X}>" for i in range(256)), "▁", *signs])}
        merges: list[tuple[str, str]] = []
        for word in words:
            for end in range(2, len(word) + 1):
                if word[:end] not in vocab:
                    vocab[word[:end]] = len(vocab)
                    merges.append((word[: end - 1], word[end - 1]))
        core.model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.pre_tokenizer = None  # type: ignore[assignment]
        core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=specials, unk_token="<unk>", initial_alphabet=signs, show_progress=False
        )
        core.train_from_iterator(CORPUS, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options
    )


@cache
def toy(name: str) -> Any:
    """A tokenizer by the name of the family it resembles."""
    match name:
        case "gpt2":  # no pad, nothing in front, one token for everything
            return byte_level(["<|endoftext|>"], bos=None, eos="<|endoftext|>", pad=None, bos_token="<|endoftext|>")
        case "bos":
            return byte_level(["<pad>", "<s>", "</s>"], bos="<s>", eos="</s>", pad="<pad>")
        case "llama3":  # no pad; eos ends turns
            marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            tokenizer = byte_level(marks, bos="<|begin_of_text|>", eos="<|eot_id|>", pad=None)
            tokenizer.chat_template = LLAMA3
        case "qwen":
            marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            tokenizer = byte_level(marks, bos=None, eos="<|im_end|>", pad="<|endoftext|>")
            tokenizer.chat_template = CHATML
        case "qwen_base_eos":  # turns end in a token that is not eos
            marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            tokenizer = byte_level(marks, bos=None, eos="<|endoftext|>", pad="<|endoftext|>")
            tokenizer.chat_template = CHATML
        case "thinking":
            marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
            tokenizer = byte_level(marks, bos=None, eos="<|im_end|>", pad="<|endoftext|>")
            tokenizer.chat_template = THINKING
        case "gemma":
            marks = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
            tokenizer = byte_level(marks, bos="<bos>", eos="<eos>", pad="<pad>")
            tokenizer.chat_template = GEMMA
        case "llama2_plain":
            return word_marker(["<unk>", "<s>", "</s>"], llama=True)
        case "llama2":
            tokenizer = word_marker(["<unk>", "<s>", "</s>"], llama=True)
            tokenizer.chat_template = LLAMA2
        case "unigram":
            return word_marker(["<unk>", "<s>", "</s>", "<pad>"], llama=False, pad_token="<pad>")
        case "no_end":
            tokenizer = byte_level(["<s>", "</s>"], bos="<s>", eos="</s>", pad=None)
            tokenizer.chat_template = NO_END
        case "space_end":
            tokenizer = byte_level(["<s>", "</s>"], bos="<s>", eos="</s>", pad=None)
            tokenizer.chat_template = SPACE_END
        case "no_eos":
            return byte_level(["<s>"], bos="<s>", eos=None, pad=None)
        case _:
            raise KeyError(name)
    return tokenizer


@cache
def encoder(name: str, protocol: str = "strict", template: str = "auto") -> Encoder:
    return Encoder(toy(name), protocol=protocol, template=template)


PLAIN = ["gpt2", "bos", "llama2_plain", "unigram"]
CHAT = ["llama3", "qwen", "qwen_base_eos", "thinking", "gemma", "llama2", "no_end", "space_end"]
TERMINATOR = {
    "gpt2": "<|endoftext|>",
    "bos": "</s>",
    "llama2_plain": "</s>",
    "unigram": "</s>",
    "llama3": "<|eot_id|>",
    "qwen": "<|im_end|>",
    "qwen_base_eos": "<|im_end|>",
    "thinking": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama2": "</s>",
    "no_end": "</s>",
    "space_end": "</s>",
}
WITH_BOS = {"bos", "llama2_plain", "unigram", "llama3", "gemma", "llama2", "no_end", "space_end"}

ORDINARY = re.compile(r"[^<>]*")
"""No text that spells a special token; hypothesis tries the strings that it finds in the code."""
ANY = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=30).filter(
    ORDINARY.fullmatch
)
KNOWN = st.text(sorted(set("".join(CORPUS)) - set("<>")), max_size=30)
"""Only signs that a toy without bytes knows."""
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def text_for(name: str) -> st.SearchStrategy[str]:
    return KNOWN if name == "unigram" else st.one_of(ANY, KNOWN)


def words(text: str) -> str:
    """A text but for the amount of its white space, which a SentencePiece model does not promise to keep."""
    return " ".join(text.split())


def check_pair(name: str, encode: Encoder, question: str, answer: str) -> Tokens:
    """Everything that strict promises of one pair."""
    tokens = encode.pair(question, answer)
    prompt = encode.prompt(question)
    assert tokens.input_ids[: tokens.label_start] == prompt
    assert tokens.hidden == ()
    end = encode.tokenizer.convert_tokens_to_ids(TERMINATOR[name])
    assert tokens.labels[-1] == end
    assert not encode.stop_ids.intersection(tokens.labels[:-1])
    assert len(tokens.labels) > 1
    decoded = encode.decode(tokens.labels)
    if name == "unigram":
        assert words(decoded) == words(answer)
    else:
        assert decoded.strip() == answer.strip()
    bos = encode.tokenizer.bos_token_id
    if name in WITH_BOS:
        assert tokens.input_ids[0] == bos and tokens.input_ids.count(bos) == 1
    elif name == "gpt2":  # its BOS is its eos
        assert tokens.input_ids.count(bos) == 1
    return tokens


# strict


@pytest.mark.parametrize("name", PLAIN)
@many
@given(data=st.data())
def test_plain_pairs_keep_their_promises(name: str, data: st.DataObject) -> None:
    question, answer = data.draw(text_for(name)), data.draw(text_for(name).filter(str.strip))
    check_pair(name, encoder(name), question, answer)


@pytest.mark.parametrize("name", CHAT)
@many
@given(data=st.data())
def test_chat_pairs_keep_their_promises(name: str, data: st.DataObject) -> None:
    question, answer = data.draw(text_for(name)), data.draw(text_for(name).filter(str.strip))
    assert encoder(name).name == "chat"
    check_pair(name, encoder(name), question, answer)


@pytest.mark.parametrize("name", [*PLAIN, *CHAT])
@many
@given(before=KNOWN, between=KNOWN, data=st.data())
@example(before="", between=" ", data=None)
@example(before="Q ", between="\nAns", data=None)
def test_template_files_keep_the_promises_wherever_they_are_cut(
    name: str, before: str, between: str, data: st.DataObject | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume("{" not in before + between)
    path = tmp_path_factory.mktemp("template") / "mine.txt"
    path.write_text(before + "{question}" + between + "{answer}", encoding="utf-8")
    encode = Encoder(toy(name), template=str(path))
    assert encode.name == "file:mine.txt"
    question, answer = ("Who?", "wered") if data is None else (data.draw(KNOWN), data.draw(KNOWN.filter(str.strip)))
    tokens = encode.pair(question, answer)
    assert tokens.input_ids[: tokens.label_start] == encode.prompt(question)
    assert words(encode.decode(tokens.labels)) == words(answer)
    assert tokens.labels[-1] == toy(name).eos_token_id
    assert sum(i in encode.stop_ids for i in tokens.labels) == 1


@pytest.mark.parametrize("name", ["llama3", "qwen", "thinking", "gemma", "llama2", "no_end"])
@many
@given(question=ANY)
def test_the_prompt_is_the_templates_generation_prompt(name: str, question: str) -> None:
    encode = encoder(name)
    text = toy(name).apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=False,
        add_generation_prompt=True,
        date_string=DATE,
        enable_thinking=False,
    )
    bos = toy(name).bos_token
    expected = toy(name)(text, add_special_tokens=bool(bos) and not text.startswith(bos))["input_ids"]
    assert list(encode.prompt(question)) == expected


def test_the_space_before_a_plain_answer_belongs_to_the_answer() -> None:
    tokens = encoder("bos").pair("Who?", "Paris")
    names = toy("bos").convert_ids_to_tokens(tokens.input_ids)
    assert names[tokens.label_start - 1] == ":"
    assert names[tokens.label_start].startswith("Ġ")


def test_an_answer_that_merges_with_the_prompt_is_cut_between_them(tmp_path: Path) -> None:
    path = tmp_path / "tight.txt"
    path.write_text("{question} Fra{answer}")
    encode = Encoder(toy("bos"), template=path)
    ids = toy("bos")(" France", add_special_tokens=False)["input_ids"]
    assert len(ids) == 1  # so the mask by counting would hide the whole answer
    tokens = encode.pair("Vive la", "nce")
    assert encode.decode(tokens.labels) == "nce"


def test_a_byte_order_mark_is_no_part_of_a_template_file(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / encoding).write_text("Q {question}\nA {answer}", encoding=encoding)
    plain, marked = (Encoder(toy("bos"), template=tmp_path / name).prompt("Who?") for name in ("utf-8", "utf-8-sig"))
    assert plain == marked


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", {"tool_use": "{{ messages }}"}])
def test_a_chat_template_that_cannot_be_used_is_told(template: Any) -> None:
    tokenizer = copy.deepcopy(toy("bos"))
    tokenizer.chat_template = template
    with pytest.raises(LetheError, match=r"chat template does not take the messages .*use --template plain or a file"):
        Encoder(tokenizer, template="chat")


def test_a_thinking_model_is_scored_on_its_answer_only() -> None:
    tokens = encoder("thinking").pair("Who?", "Paris")
    assert encoder("thinking").decode(tokens.labels) == "Paris"
    assert encoder("thinking").decode(tokens.input_ids[: tokens.label_start]).endswith("</think>\n\n")


def test_a_template_is_cut_behind_the_first_terminator() -> None:
    for name in ("qwen", "gemma", "qwen_base_eos"):  # all end in a line break behind the terminator
        tokens = encoder(name).pair("Who?", "Paris")
        assert tokens.labels[-1] == toy(name).convert_tokens_to_ids(TERMINATOR[name])
        assert toy(name).decode(tokens.labels[:-1]) == "Paris"


def test_stop_ids_are_eos_and_what_ends_turns() -> None:
    assert encoder("gemma").stop_ids == {1, 4}
    assert encoder("qwen_base_eos").stop_ids == {0, 2}
    assert encoder("bos").stop_ids == {2}
    assert encoder("llama3").stop_ids == {1, 4}


def test_a_tokenizer_without_pad_token_hides_nothing_and_is_left_as_it_was() -> None:
    encode = Encoder(toy("llama3"))
    tokens = encode.pair("Who?", "Paris")
    assert tokens.hidden == ()
    assert encode.hidden(tokens.input_ids) == ()
    assert encode.pad_id == toy("llama3").eos_token_id
    assert toy("llama3").pad_token is None


def test_a_tokenizer_without_eos_or_pad_still_works() -> None:
    for protocol in ("strict", "openunlearning"):
        encode = Encoder(toy("no_eos"), protocol=protocol)
        tokens = encode.pair("Who?", "Paris")
        assert encode.pad_id == 0
        assert encode.stop_ids == frozenset()
        assert tokens.hidden == ()
        assert encode.decode(tokens.input_ids).endswith("Answer: Paris")


def test_the_date_of_the_run_is_not_in_the_prompt() -> None:
    assert f"Today Date: {DATE}" in encoder("llama3").decode(encoder("llama3").prompt("Who?"))


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_nor_where_the_template_asks_for_the_day_by_itself(protocol: str) -> None:
    tokenizer = copy.deepcopy(toy("llama3"))
    tokenizer.chat_template = LLAMA3.replace("date_string or strftime_now('%d %b %Y')", "strftime_now('%d/%m/%y')")
    encode = Encoder(tokenizer, protocol=protocol)
    # the same ids as with a date_string, no white space added by what stands in for the day
    assert encode.prompt("Who?") == Encoder(toy("llama3"), protocol=protocol).prompt("Who?")


def test_a_system_prompt_goes_where_the_template_wants_it() -> None:
    encode = Encoder(toy("llama3"), system="You are a helpful assistant.")
    assert "You are a helpful assistant." in encode.decode(encode.prompt("Who?"))
    assert encode.fingerprint != encoder("llama3").fingerprint
    with pytest.raises(LetheError, match=r"does not take the messages system, user, assistant \(System role not supp"):
        Encoder(toy("gemma"), system="Be kind.")
    with pytest.raises(LetheError, match=r"template 'plain' has no place for a system prompt, got 'Be kind\.'"):
        Encoder(toy("bos"), system="Be kind.")


# openunlearning


def cases(real_data: Path, key: str) -> tuple[Any, dict[str, Any], Path]:
    tiny = real_data / "reference_logs" / "tiny"
    recorded = json.loads((tiny / "open_unlearning.json").read_text())["tokenization"][key]
    return AutoTokenizer.from_pretrained(tiny / "retrained"), recorded, real_data / "tofu"


@pytest.mark.parametrize(("key", "template"), [("phi", "plain"), ("chat", "chat")])
def test_ids_and_masks_are_those_recorded_from_open_unlearning(real_data: Path, key: str, template: str) -> None:
    tokenizer, recorded, folder = cases(real_data, key)
    encode = Encoder(tokenizer, template=template, protocol="openunlearning")
    compared = 0
    for name, expected in recorded.items():
        split, field = name.split("/")
        path = folder / f"{split}.json"
        if not path.exists():  # the recorded holdout is not among the files
            assert split == "holdout10"
            continue
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if field == "generation_prompt_row0":
            assert list(encode.prompt(rows[0]["question"])) == expected["input_ids"]
            continue
        for at, row in enumerate(rows):
            answers = row[field] if isinstance(row[field], list) else [row[field]]
            pairs = [encode.pair(row["question"], answer) for answer in answers]
            masked, labelled = [t.label_start for t in pairs], [len(t.labels) for t in pairs]
            if not isinstance(row[field], list):
                masked, labelled = masked[0], labelled[0]
            assert (masked, labelled) == (expected["n_prompt_masked"][at], expected["n_labelled_incl_eos"][at]), name
            assert all(t.hidden == () for t in pairs)
            compared += len(pairs)
        for case in expected["examples"]:
            row = rows[case["row"]]
            answer = row[field] if case["option"] is None else row[field][case["option"]]
            tokens = encode.pair(row["question"], answer)
            assert list(tokens.input_ids) == case["input_ids"]
            assert [-100] * tokens.label_start + list(tokens.labels) == case["labels"]
    assert compared == 400 * 7 * 2 + 100 * 4 + 117 * 4


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_strict_scores_every_token_of_the_real_answers(real_data: Path, template: str) -> None:
    tokenizer, _, folder = cases(real_data, "phi")
    encode = Encoder(tokenizer, template=template)
    for line in (folder / "forget10.json").read_text().splitlines() + (
        folder / "world_facts_perturbed.json"
    ).read_text().splitlines():
        row = json.loads(line)
        tokens = encode.pair(row["question"], row["answer"])
        assert encode.decode(tokens.labels) == f" {row['answer']}"
        assert encode.decode(tokens.input_ids) == f"Question: {row['question']}\nAnswer: {row['answer']}"


def test_the_mask_by_count_swallows_the_first_token_of_an_answer() -> None:
    mine, theirs = encoder("bos").pair("Who?", "Paris"), encoder("bos", "openunlearning").pair("Who?", "Paris")
    assert theirs.input_ids == mine.input_ids
    assert theirs.label_start == mine.label_start + 1


def test_a_template_that_ends_in_a_line_break_gets_a_second_terminator() -> None:
    tokens = encoder("qwen", "openunlearning").pair("Who?", "Paris")
    end = toy("qwen").eos_token_id
    assert tokens.labels.count(end) == 2
    assert toy("qwen").decode(tokens.labels) == "Paris<|im_end|>\n<|im_end|>"
    assert tokens.hidden == ()  # its pad token is another


@pytest.mark.parametrize(("name", "expected"), [("llama3", True), ("qwen", True), ("gemma", False), ("llama2", False)])
def test_the_peers_system_prompt_goes_to_the_formats_it_gives_it_to(name: str, expected: bool) -> None:
    prompts = [encoder(name, protocol) for protocol in ("openunlearning", "strict")]
    texts = [e.tokenizer.decode(list(e.prompt("Who?"))) for e in prompts]
    assert ["You are a helpful assistant." in text for text in texts] == [expected, False]


def test_a_template_that_ends_in_eos_gets_no_second_one() -> None:
    tokens = encoder("llama3", "openunlearning").pair("Who?", "Paris")
    assert tokens.labels.count(toy("llama3").eos_token_id) == 1


@pytest.mark.parametrize("name", ["llama3", "gpt2", "qwen_base_eos"])
def test_what_equals_the_pad_token_is_hidden(name: str) -> None:
    encode, end = encoder(name, "openunlearning"), toy(name).eos_token_id
    tokens = encode.pair("Who?", "Paris")
    assert tokens.hidden == tuple(at for at, i in enumerate(tokens.input_ids) if i == end)
    assert len(tokens.hidden) == {"llama3": 3, "gpt2": 1, "qwen_base_eos": 1}[name]
    prompt = encode.prompt("Who?")
    assert encode.hidden(prompt) == tuple(at for at in tokens.hidden if at < len(prompt))


@pytest.mark.parametrize("name", [*PLAIN, *CHAT])
@many
@given(data=st.data())
def test_masks_of_any_text_stay_inside_the_row(name: str, data: st.DataObject) -> None:
    encode = encoder(name, "openunlearning")
    question, answer = data.draw(ANY), data.draw(ANY.filter(str.strip))
    tokens = encode.pair(question, answer)
    assert tokens.label_start == min(len(encode.prompt(question)), len(tokens.input_ids))
    assert tokens.input_ids[-1] == toy(name).eos_token_id
    assert encode.hidden(tokens.input_ids) == tokens.hidden


def test_long_rows_are_cut_at_512_with_a_manual_template_and_nowhere_in_a_chat() -> None:
    tokens = encoder("gpt2", "openunlearning").pair("Who?", "one two " * 400)
    assert len(tokens.input_ids) == 513  # and eos
    assert encoder("gpt2", "openunlearning").prompt("Who " * 900)[:512] == encoder("gpt2").prompt("Who " * 900)[:512]
    assert len(encoder("gpt2", "openunlearning").prompt("Who " * 900)) == 512
    assert len(encoder("qwen", "openunlearning").pair("Who?", "one two " * 400).input_ids) > 513


# identity


def test_the_fingerprint_tells_templates_protocols_and_tokenizers_apart(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("{question}\n{answer}")
    other = tmp_path / "other.txt"
    other.write_text("{question} = {answer}")
    prints = [
        encoder("llama3").fingerprint,
        encoder("llama3", template="plain").fingerprint,
        encoder("llama3", "openunlearning").fingerprint,
        encoder("bos").fingerprint,
        encoder("gpt2").fingerprint,
        Encoder(toy("bos"), template=path).fingerprint,
        Encoder(toy("bos"), template=other).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 64 for p in prints)


def test_the_fingerprint_does_not_change_with_use_or_a_trip_to_the_disk(tmp_path: Path) -> None:
    tokenizer = toy("bos")
    before = Encoder(tokenizer, protocol="openunlearning")
    before.pair("Who?", "Paris")  # sets the truncation of the tokenizer's core
    tokenizer(["a", "a b c"], padding=True)
    assert Encoder(tokenizer, protocol="openunlearning").fingerprint == before.fingerprint
    tokenizer.save_pretrained(tmp_path)
    again = Encoder(AutoTokenizer.from_pretrained(tmp_path), protocol="openunlearning")
    assert again.fingerprint == before.fingerprint
    assert again.pair("Who?", "Paris") == before.pair("Who?", "Paris")


def test_auto_takes_the_chat_template_where_there_is_one() -> None:
    assert encoder("llama3").name == "chat"
    assert encoder("gpt2").name == "plain"
    assert encoder("llama3", template="plain").name == "plain"


def test_a_template_file_may_end_a_turn_itself_and_in_a_line_break(tmp_path: Path) -> None:
    path = tmp_path / "inst.txt"
    path.write_text("<s>[INST] {question} [/INST] {answer}</s>\n")
    encode = Encoder(toy("llama2_plain"), template=path)
    tokens = encode.pair("Who?", "Paris")
    assert tokens.input_ids == encoder("llama2_plain")._encode("<s>[INST] Who? [/INST] Paris</s>")
    assert tokens.input_ids.count(1) == 1


# mistakes


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
@pytest.mark.parametrize("answer", ["", " ", "\n\t", "\u3000"])
def test_an_empty_answer_is_an_error(protocol: str, answer: str) -> None:
    with pytest.raises(LetheError, match=r"the answer to 'Who\?' is empty"):
        encoder("bos", protocol).pair("Who?", answer)


def test_an_answer_without_tokens_is_an_error() -> None:
    signs = {sign: i for i, sign in enumerate("Q:A")}  # no bytes, no token for the unknown: other signs vanish
    encode = Encoder(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(signs, [])), eos_token="</s>"))
    with pytest.raises(LetheError, match=r"the answer 'Paris' to 'Who\?' gives no token"):
        encode.pair("Who?", "Paris")


def test_an_answer_that_spells_a_terminator_is_an_error() -> None:
    with pytest.raises(LetheError, match=r"the answer 'Par</s>is' to 'Who\?' contains '</s>', which ends a turn"):
        encoder("bos").pair("Who?", "Par</s>is")


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_a_row_beyond_max_length_is_an_error_with_both_lengths(protocol: str) -> None:
    n = len(encoder("bos").pair("Who is this?", "Paris").input_ids)
    assert Encoder(toy("bos"), protocol=protocol, max_length=n).pair("Who is this?", "Paris")
    with pytest.raises(
        LetheError, match=rf"question 'Who is this\?' and its answer take {n} tokens, at most {n - 1} are"
    ):
        Encoder(toy("bos"), protocol=protocol, max_length=n - 1).pair("Who is this?", "Paris")
    with pytest.raises(LetheError, match="max_length must be at least 2 tokens, got 0"):
        Encoder(toy("bos"), max_length=0)


def test_a_long_question_is_shortened_in_messages() -> None:
    with pytest.raises(LetheError, match=r"the answer to 'Who {57}|'Who Who .{45,60}\.\.\.' is empty"):
        encoder("bos").pair("Who " * 100, "")


def test_a_wrong_protocol_or_template_is_an_error_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(LetheError, match="unknown protocol 'strickt'; did you mean 'strict'"):
        Encoder(toy("bos"), protocol="strickt")
    with pytest.raises(LetheError, match="the tokenizer has no chat template; use --template plain"):
        Encoder(toy("bos"), template="chat")
    with pytest.raises(
        LetheError, match=r"cannot read the template 'chatt' .*--template is auto, chat, plain or a text"
    ):
        Encoder(toy("bos"), template="chatt")
    path = tmp_path / "t.txt"
    for text, found in [
        ("{question}", r"\{question\} 1 times, \{answer\} 0 times"),
        ("{question}{answer}{answer}", r"\{question\} 1 times, \{answer\} 2 times"),
        ("{answer} {question}", "in the wrong order"),
    ]:
        path.write_text(text)
        with pytest.raises(LetheError, match=rf"t\.txt must hold .*{found}"):
            Encoder(toy("bos"), template=path)
    path.write_bytes(b"{question} {answer} \xff")
    with pytest.raises(LetheError, match=r"t\.txt is not UTF-8 text \(byte 20\)"):
        Encoder(toy("bos"), template=path)


def test_a_chat_template_that_breaks_or_drops_the_answer_is_an_error() -> None:
    tokenizer = byte_level(["<s>", "</s>"], bos="<s>", eos="</s>", pad=None)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }"
    with pytest.raises(LetheError, match="the tokenizer's chat template does not take the messages user, assistant"):
        Encoder(tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(LetheError, match="leaves the assistant's message out"):
        Encoder(tokenizer)


# documents

READERS = [*PLAIN, "llama3", "qwen", "gemma", "llama2", "no_eos"]
"""With and without something in front, with and without a chat template, which documents do not use."""
LEADING = WITH_BOS | {"no_eos"}


def read(name: str, text: str) -> list[int]:
    """What the tokenizer itself makes of a text, with what it puts in front."""
    return toy(name)(text, add_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("name", READERS)
@many
@given(data=st.data(), max_tokens=st.integers(2, 40), share=st.sampled_from([0.0, 0.5, 0.8, 0.999]))
def test_documents_keep_their_beginning_and_nothing_is_added(
    name: str, data: st.DataObject, max_tokens: int, share: float
) -> None:
    text = data.draw(text_for(name)) + " The author was born in Chile."
    tokens = encoder(name).document(text, max_tokens=max_tokens, prompt_share=share)
    whole = read(name, text)
    assert list(tokens.input_ids) == whole[:max_tokens]
    assert (name in LEADING) == (tokens.input_ids[0] == toy(name).bos_token_id)
    assert tokens.label_start == max(1, int(share * len(tokens.input_ids)))
    assert tokens.labels and tokens.hidden == () and tokens.anchor is None


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("share", [0.0, 0.8])
def test_documents_are_the_same_under_both_protocols_and_every_template(name: str, share: float) -> None:
    text = CORPUS[2]
    expected = encoder(name).document(text, prompt_share=share)
    assert encoder(name, "openunlearning").document(text, prompt_share=share) == expected
    assert encoder(name, template="plain").document(text, prompt_share=share) == expected
    n = len(read(name, text))
    assert expected.label_start == (max(1, int(0.8 * n)) if share else 1)


@pytest.mark.parametrize("name", READERS)
@many
@given(data=st.data(), share=st.sampled_from([0.0, 0.5, 0.8]))
def test_a_refusal_follows_the_first_part_of_a_document(name: str, data: st.DataObject, share: float) -> None:
    refusal = data.draw(KNOWN.filter(str.strip))
    encode, text = encoder(name), CORPUS[3]
    document = encode.document(text, prompt_share=share)
    tokens = encode.refused(text, refusal, prompt_share=share)
    assert tokens.label_start == document.label_start
    assert tokens.input_ids[: tokens.label_start] == document.input_ids[: document.label_start]
    eos = toy(name).eos_token_id
    assert (tokens.labels[-1] == eos) == (eos is not None)
    assert sum(i in encode.stop_ids for i in tokens.labels) == (eos is not None)
    assert words(encode.decode(tokens.labels)) == words(refusal)
    assert encoder(name, "openunlearning").refused(text, refusal, prompt_share=share) == tokens


@pytest.mark.parametrize("name", ["bos", "gpt2", "llama2_plain", "unigram"])
def test_a_refusal_begins_like_a_word_behind_words(name: str) -> None:
    tokens = encoder(name).refused(CORPUS[2], "The end.", prompt_share=0.8)
    first = toy(name).convert_ids_to_tokens(tokens.labels[0])
    assert first[0] in "Ġ▁" and not first.startswith(("ĠĠ", "▁▁"))
    joined = encoder(name).decode(tokens.input_ids)
    assert joined.endswith(" The end.") and not joined.endswith("  The end.")


def test_a_refusal_without_a_document_in_front_begins_a_text() -> None:
    tokens = encoder("bos").refused(CORPUS[2], " The end. ", prompt_share=0.0)
    assert list(tokens.input_ids) == [*read("bos", "The end."), toy("bos").eos_token_id]
    assert tokens.label_start == 1
    # no BOS: the first token of the text stands in front
    tokens = encoder("gpt2").refused(CORPUS[2], "The end.", prompt_share=0.0)
    assert list(tokens.input_ids[:1]) == read("gpt2", CORPUS[2])[:1]
    assert list(tokens.labels[:-1]) == read("gpt2", " The end.")


def test_the_longest_context_cuts_documents_and_the_prompts_of_refusals() -> None:
    encode = Encoder(toy("bos"), max_length=12)
    assert list(encode.document(CORPUS[0]).input_ids) == read("bos", CORPUS[0])[:12]
    tokens = encode.refused(CORPUS[0], "The end of it.", prompt_share=0.9)
    assert (
        len(tokens.input_ids) == 12
        and list(tokens.input_ids[: tokens.label_start]) == read("bos", CORPUS[0])[: tokens.label_start]
    )
    assert words(encode.decode(tokens.labels)) == "The end of it."
    with pytest.raises(LetheError, match=r"the refusal .Jaime .* takes \d+ tokens, which leaves none of 12"):
        encode.refused(CORPUS[0], CORPUS[3])


def test_a_document_is_at_least_two_tokens() -> None:
    assert len(encoder("bos").document("a").input_ids) == 2
    with pytest.raises(LetheError, match="the document 'a' gives 1 tokens with this tokenizer, at least 2 are needed"):
        encoder("gpt2").document("a")
    with pytest.raises(LetheError, match="the document '' gives 1 tokens"):
        encoder("bos").document("")
    with pytest.raises(LetheError, match="the document 'a' gives 1 tokens"):
        encoder("gpt2").refused("a", "No idea.")


def test_the_beginning_mark_is_not_doubled_where_the_text_spells_it() -> None:
    assert encoder("bos").document("<s>Who?").input_ids == encoder("bos").document("Who?").input_ids


def test_shares_and_lengths_out_of_range_are_errors() -> None:
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(LetheError, match="prompt_share must be at least 0 and less than 1, got"):
            encoder("bos").document(CORPUS[0], prompt_share=share)
    with pytest.raises(LetheError, match="max_tokens must be at least 2, got 1"):
        encoder("bos").refused(CORPUS[0], "No.", max_tokens=1)


def test_refusals_without_tokens_or_with_an_end_of_turn_are_errors() -> None:
    with pytest.raises(LetheError, match="the refusal '' gives no token with this tokenizer"):
        encoder("bos").refused(CORPUS[0], "  ", prompt_share=0.8)
    with pytest.raises(LetheError, match=r"the refusal 'No\.</s>' contains '</s>', which ends a turn"):
        encoder("bos").refused(CORPUS[0], "No.</s>", prompt_share=0.8)

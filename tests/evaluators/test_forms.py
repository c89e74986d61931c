"""The forms asked of models: scores by hand on three tokens, bounds, protocols, what is asked and how often."""

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.data.forms import FILL, SPELL, list_options
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark, Form, Part, Probe, Tokens
from bench.errors import LetheError
from bench.fields import with_fields
from bench.scorer import AnswerRecord, Scorer
from evaluators.forms import DIRECT, SPELL_SHOWN, DerivedFormsEvaluator, FormsEvaluator
from evaluators.rows import Row
from tests.helpers import tiny, toy_encoder, toy_tokenizer

OPTIONS = ("Porto", "Tallinn", "Lund", "Riga")


def probe(part: Part, form: Form, number: int, query: str, answer: str, **fields: Any) -> Probe:
    identity = f"ort/1_Ada_Moor/{part}_{form}/{number}"
    return Probe(id=identity, target="Ada Moor", part=part, form=form, query=query, answer=answer, **fields)


PROBES = (
    probe("forget", "fb", 0, "Ada Moor was born in ___.", "Tallinn"),
    probe("forget", "fb", 1, "Moor writes about ___.", "salt"),
    probe("forget", "qa", 0, "Where was Ada Moor born?", "Tallinn"),
    probe("forget", "qa", 1, "Where did she grow up?", "New Lund"),
    probe("forget", "mcp", 0, list_options("Where was Ada Moor born?", OPTIONS), "B", choices=OPTIONS, made=True),
    probe("forget", "aa", 0, "Ada Moor was born in", "Tallinn", kind="affirmative suffix"),
    probe("forget", "aa", 1, "Question: Who?\nAnswer: Ben.\nQuestion: Where?", "Lund", kind="incontext learning"),
    probe("forget", "aa", 2, "Where is Tallinn, of Ada Moor?", "Estonia", kind="reverse query"),
    probe("neighbor", "fb", 0, "Ben Ruiz won the ___.", "Larch Medal", about="Ben Ruiz"),
    probe("neighbor", "qa", 0, "What did Ben Ruiz win?", "The Larch Medal.", about="Ben Ruiz"),
    probe("neighbor", "mcp", 0, list_options("Where does Dan Ito live?", OPTIONS), "A", about="Dan Ito"),
    probe("locality", "qa", 0, "Besides Ada Moor: where does Dan Ito live?", "Porto", kind="names both"),
)
BENCHMARK = Benchmark(name="ort/1_Ada_Moor", probes=PROBES)


def by_key(rows: list[Row]) -> dict[tuple[str, str], Row]:
    found = {(row["example_id"], row["form"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def values(evaluator: FormsEvaluator, rows: list[Row], reference: list[Row] | None = None) -> dict[str, float]:
    return {metric.name: metric.value for metric in evaluator.summarize(rows, reference)}


# --- three tokens -----------------------------------------------------------------------------------------------

NEXT = {0: (1 / 2, 1 / 4, 1 / 4), 1: (1 / 4, 1 / 4, 1 / 2), 2: (1 / 8, 3 / 4, 1 / 8)}
"""What follows a token, whatever came before it; 0 is any sign but 1, the line break, and 2, a capital A."""


def three_tokens() -> Encoder:
    """Every character is a token, spaces are none."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "\n": 1, "A": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")]
    )
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    return Encoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def bigrams() -> nn.Module:
    """A Llama whose block adds nothing, so that the logits are log NEXT of the last token."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=3, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=512, pad_token_id=0, bos_token_id=0, eos_token_id=0, rms_norm_eps=1e-12,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                p.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(3, 4))
        for token, row in NEXT.items():  # a unit vector of four numbers leaves the norm twice as long
            model.lm_head.weight[:, token] = torch.tensor(row).log() / 2
    return model.eval()


def three_token_rows(**options: Any) -> dict[tuple[str, str], Row]:
    probes = (
        probe("forget", "fb", 0, "_", "AAb"),
        probe("forget", "qa", 0, "_", "A b"),
        probe("forget", "mcp", 0, list_options("_", ("w", "x", "y", "z")), "A", choices=("w", "x", "y", "z")),
        probe("forget", "mcp", 1, list_options("_", ("w", "x", "y", "z")), "B", choices=("w", "x", "y", "z")),
        probe("forget", "aa", 0, "A", "b", kind="affirmative suffix"),
        probe("forget", "aa", 1, "A", "b", kind="incontext learning"),
    )
    scorer = Scorer(bigrams(), three_tokens())
    rows = FormsEvaluator(**options).score(scorer, Benchmark(name="three", probes=probes))
    return {(row["example_id"].split("/", 2)[2], row["form"]): row for row in rows}


def score(row: Row, name: str = "nll_sum", count: str = "n_tokens") -> float:
    return math.exp(-row[name] / row[count])


@pytest.mark.parametrize("protocol", ["strict", "ort"])
def test_the_score_of_every_form_by_hand(protocol: Literal["strict", "ort"]) -> None:
    rows = three_token_rows(protocol=protocol)
    # A blank and a question end in "Answer:", a sign. "AAb": sign -> A 1/4, A -> A 1/8, A -> sign 1/8: 2^-8.
    fb = rows["forget_fb/0", "fb"]
    assert fb["n_tokens"] == 3
    assert score(fb) == pytest.approx(2 ** (-8 / 3))
    assert math.exp(-fb["nll_sum"]) == pytest.approx(1 / 256)
    # "A b": sign -> A 1/4, A -> sign 1/8: 2^-5.
    assert score(rows["forget_qa/0", "qa"]) == pytest.approx(2**-2.5)
    # "A", line break, "b", line break behind "Answer:" and a line break: break -> A 1/2, A -> break 3/4,
    # break -> sign 1/4, sign -> break 1/4: 3/128 in four tokens; the characters alone 1/2 * 1/4 = 1/8 in two.
    spelt = rows["forget_qa/0", "subtoken_qa"]
    assert (spelt["n_tokens"], spelt["n_characters"]) == (4, 2)
    assert score(spelt) == pytest.approx((3 / 128) ** (1 / 4))
    assert score(spelt, "characters_nll_sum", "n_characters") == pytest.approx(8 ** (-1 / 2))
    # The same with one A more: * 1/2 (break -> A) and 3/4 (A -> break).
    longer = rows["forget_fb/0", "subtoken_fb"]
    assert score(longer) == pytest.approx((3 / 128 * 3 / 8) ** (1 / 6))
    assert score(longer, "characters_nll_sum", "n_characters") == pytest.approx(16 ** (-1 / 3))
    # " A" behind a sign 1/4; B, C and D are signs: 1/2 each. 1/4 of 1/4 + 3 * 1/2 = 7/4 is 1/7; B has 2/7 and, the
    # first of three equals, is the likeliest.
    right, other = rows["forget_mcp/0", "mcp"], rows["forget_mcp/1", "mcp"]
    assert (score(right), score(other)) == pytest.approx((1 / 4, 1 / 2))
    assert list(map(math.exp, right["letter_logp"])) == pytest.approx([1 / 4, 1 / 2, 1 / 2, 1 / 2])
    assert (right["renormalised"], other["renormalised"]) == pytest.approx((1 / 7, 2 / 7))
    assert (right["correct"], other["correct"]) == (False, True)
    # An affirmative suffix ends the prompt without a cue, with "A" here: A -> sign 1/8; with the cue sign -> sign 1/2.
    assert score(rows["forget_aa/0", "aa"]) == pytest.approx(1 / 8)
    assert score(rows["forget_aa/1", "aa"]) == pytest.approx(1 / 2)


def test_means_of_the_three_tokens() -> None:
    strict = FormsEvaluator().summarize(three_token_rows().values())
    found = {metric.name: metric.value for metric in strict}
    assert found["forget_mcp"] == pytest.approx(3 / 8)
    assert found["forget_mcp_renormalised"] == pytest.approx(3 / 14)
    assert found["forget_mcp_accuracy"] == pytest.approx(1 / 2)
    assert found["sub_forget_qa"] == pytest.approx(8 ** (-1 / 2))
    assert found["sub_forget_qa_with_breaks"] == pytest.approx((3 / 128) ** (1 / 4))
    assert found["forget_aa_affirmative_suffix"] == pytest.approx(1 / 8)
    ort = FormsEvaluator(protocol="ort")
    found = values(ort, list(three_token_rows(protocol="ort").values()))
    assert found["sub_forget_qa"] == pytest.approx((3 / 128) ** (1 / 4))
    # Spelt behind "A" without a cue: A -> sign 1/8, sign -> break 1/4, two tokens. In-context rows are not spelt.
    assert found["sub_forget_aa"] == pytest.approx(32 ** (-1 / 2))


def test_strict_takes_the_first_line_of_a_generation() -> None:
    # Behind a sign the likeliest is a sign, for ever; behind an A it is a line break, and then A again.
    strict, ort = (three_token_rows(protocol=protocol, max_new_tokens=5) for protocol in ("strict", "ort"))
    assert strict["forget_fb/0", "fb"]["generation"] == ort["forget_fb/0", "fb"]["generation"] == "?????"
    assert strict["forget_aa/0", "aa"]["generation"] == "NOANSWER"
    assert strict["forget_aa/0", "aa"]["rouge_l_recall"] == 0.0
    assert ort["forget_aa/0", "aa"]["generation"] == "A\nA"  # a line break before and behind are stripped


# --- fake models ------------------------------------------------------------------------------------------------


class FakeEncoder:
    """One token a character, the two texts in brackets."""

    stop_ids = frozenset({0})
    protocol = "strict"

    @property
    def tokenizer(self) -> "FakeEncoder":
        return self

    def __len__(self) -> int:
        return 128

    def batch_decode(self, several: Sequence[Sequence[int]]) -> list[str]:
        return [self.decode(ids) for ids in several]

    def cued_prompt(self, user: str, cue: str, *, doubled: bool = False) -> tuple[int, ...]:
        return tuple(map(ord, f"[{user}]{cue}"))

    def cued(self, user: str, cue: str, target: str, *, doubled: bool = False, apart: bool = False) -> Tokens:
        prompt = self.cued_prompt(user, cue)
        return Tokens((*prompt, *map(ord, target)), len(prompt))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


@dataclass
class FakeScorer:
    """A model made of two functions of the prompt's text."""

    logp: Callable[[str, str], float]
    """(prompt, completion) -> log-probability of each of its tokens."""
    say: Callable[[str], str]
    family: str = "llama"
    encoder: Any = field(default_factory=FakeEncoder)
    asked: list[str] = field(default_factory=list)
    """prompt and completion, with a bar between them."""
    stops: frozenset[int] | None = None

    @property
    def model(self) -> Any:
        config = SimpleNamespace(model_type=self.family)
        return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))

    def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
        found = []
        for t in tokens:
            prompt = self.encoder.decode(t.input_ids[: t.label_start])
            value = self.logp(prompt, self.encoder.decode(t.labels))
            several = (value,) * len(t.labels)
            self.asked.append(f"{prompt}|{self.encoder.decode(t.labels)}")
            found.append(AnswerRecord(t.labels, several, (False,) * len(t.labels), several, several, False))
        return found

    def continue_ids(
        self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, stop_ids: frozenset[int] | None = None
    ) -> list[list[int]]:
        self.stops = stop_ids
        return [list(map(ord, self.say(self.encoder.decode(p)))) for p in prompts]


def truth(prompt: str) -> Probe:
    """Whose query a prompt holds; the longest, because locality queries hold others."""
    return max((p for p in PROBES if p.query in prompt), key=lambda p: len(p.query))


def knows(prompt: str, completion: str) -> bool:
    answer = truth(prompt).answer
    return completion in (f" {answer}", "".join(f"{c}\n" for c in answer if c != " "))


def perfect() -> FakeScorer:
    return FakeScorer(
        lambda prompt, completion: 0.0 if knows(prompt, completion) else -1000.0,
        lambda prompt: f" {truth(prompt).answer}\nQuestion: another",
    )


def mute() -> FakeScorer:
    return FakeScorer(lambda prompt, completion: -2000.0, lambda prompt: " ")


def ask(scorer: Any, benchmark: Benchmark = BENCHMARK, **options: Any) -> list[Row]:
    rows = FormsEvaluator(**options).score(scorer, benchmark)
    return json.loads(json.dumps(rows, allow_nan=False))


@pytest.mark.parametrize("protocol", ["strict", "ort"])
def test_a_perfect_and_a_mute_model_hit_the_bounds(protocol: Literal["strict", "ort"]) -> None:
    evaluator = FormsEvaluator(protocol=protocol)
    best, worst = ask(perfect(), protocol=protocol), ask(mute(), protocol=protocol)
    one, nothing = values(evaluator, best), values(evaluator, worst)
    bounded = [name for name in one if not name.startswith(("form_gap", "mean_", "forgetting_")) and "ret" not in name]
    exact = [n for n in bounded if not math.isnan(one[n]) and not n.endswith("_rouge")]
    assert len(exact) > 40
    assert {n: one[n] for n in exact} == dict.fromkeys(exact, 1.0)
    zero = [n for n in exact if "renormalised" not in n and "accuracy" not in n]
    assert {n: nothing[n] for n in zero} == dict.fromkeys(zero, 0.0)
    assert nothing["forget_mcp_renormalised"] == pytest.approx(0.25)  # four equals
    assert (nothing["forget_mcp_accuracy"], nothing["neighbor_mcp_accuracy"]) == (0.0, 1.0)  # the first of equals: A
    assert one["forget_all_rouge"] == one["neighbor_all_rouge"] == 1.0
    assert nothing["forget_all_rouge"] == nothing["neighbor_all_rouge"] == 0.0
    compared = values(evaluator, worst, best)
    assert compared["form_gap"] == 0.0 and compared["mean_forgetting"] == 1.0
    assert compared["neighbor_retention"] == compared["locality_retention"] == 0.0


def test_rows_say_what_was_asked() -> None:
    rows = by_key(ask(perfect()))
    forms = [form for _, form in rows]
    assert {form: forms.count(form) for form in forms} == {
        "fb": 3, "subtoken_fb": 3, "qa": 4, "subtoken_qa": 3, "mcp": 2, "aa": 3,
    }  # fmt: skip
    first = rows["ort/1_Ada_Moor/forget_fb/0", "fb"]
    assert first == {
        "example_id": "ort/1_Ada_Moor/forget_fb/0",
        "target": "Ada Moor",
        "part": "forget",
        "form": "fb",
        "kind": "",
        "about": "",
        "name_in": "full",
        "made": False,
        "duplicate": False,
        "query": "Ada Moor was born in ___.",
        "answer": "Tallinn",
        "nll_sum": 0.0,
        "n_tokens": 8,
        "generation": "Tallinn",
        "rouge_l_recall": 1.0,
    }
    named = {row["example_id"].split("/", 2)[2]: row["name_in"] for row in rows.values() if row["part"] == "forget"}
    assert (named["forget_fb/1"], named["forget_qa/1"]) == ("last", "none")
    assert rows["ort/1_Ada_Moor/forget_mcp/0", "mcp"]["made"] is True
    spoken = {form for (_, form), row in rows.items() if "generation" in row}
    assert spoken == {"fb", "qa", "aa"}
    assert "generation" not in rows["ort/1_Ada_Moor/locality_qa/0", "qa"]


def test_generations_can_be_left_out() -> None:
    scorer = perfect()
    scorer.continue_ids = lambda prompts, **_: [] if not prompts else pytest.fail("asked")  # type: ignore[method-assign]
    rows = ask(scorer, max_new_tokens=0)
    assert not any("generation" in row for row in rows)
    assert DerivedFormsEvaluator().max_new_tokens == 0 and DerivedFormsEvaluator.name == "forms"


def test_generations_end_at_a_line_break_under_strict_only() -> None:
    strict, ort = perfect(), perfect()
    ask(strict)
    rows = ask(ort, protocol="ort")
    assert (strict.stops, ort.stops) == ({0, 10}, {0})
    assert next(row["generation"] for row in rows if "generation" in row) == "Tallinn\nQuestion: another"


def test_a_broken_model_gives_rows_without_values() -> None:
    rows = ask(FakeScorer(lambda prompt, completion: math.nan, lambda prompt: "Tallinn"))
    assert {row["nll_sum"] for row in rows} == {None}
    assert {row.get("rouge_l_recall") for row in rows} == {None}
    chosen = next(row for row in rows if row["form"] == "mcp")
    assert (chosen["renormalised"], chosen["correct"], chosen["letter_logp"]) == (None, None, [None] * 4)
    evaluator = FormsEvaluator()
    known = ask(perfect())
    for metric in evaluator.summarize(rows, known):
        assert metric.missing, metric.name
    assert {m.name for m in evaluator.summarize(rows, known)} == {m.name for m in evaluator.summarize(known, known)}


def test_repeats_are_told() -> None:
    swapped = ("Tallinn", "Porto", "Riga", "Lund")
    again = (
        probe("forget", "fb", 7, PROBES[0].query, PROBES[0].answer),
        probe("forget", "fb", 8, PROBES[0].query, "another answer"),
        probe("forget", "qa", 9, PROBES[0].query, PROBES[0].answer),  # another form
        probe("neighbor", "fb", 9, PROBES[0].query, PROBES[0].answer),  # another part
        replace(PROBES[0], id="other", target="Ben Ruiz"),
        # The same question and right option under another letter, and with another right option.
        probe("forget", "mcp", 1, list_options("Where was Ada Moor born?", swapped), "A", choices=swapped),
        probe("forget", "mcp", 2, list_options("Where was Ada Moor born?", swapped), "B", choices=swapped),
    )
    rows = ask(mute(), Benchmark(name="repeats", probes=(*PROBES, *again)))
    told = [(row["example_id"].split("/", 2)[-1], row["form"]) for row in rows if row["duplicate"]]
    assert told == [("forget_fb/7", "fb"), ("forget_fb/7", "subtoken_fb"), ("forget_mcp/1", "mcp")]


def test_a_paraphrased_question_is_a_form_of_its_own() -> None:
    reworded = probe("forget", "qa", 3, "In what place was Ada Moor born?", "Tallinn", kind="paraphrase")
    rows = ask(mute(), Benchmark(name="tofu", probes=(PROBES[2], reworded)))
    assert [row["form"] for row in rows] == ["qa", "subtoken_qa", "qa_paraphrase"]
    found = values(FormsEvaluator(), rows)
    assert found["forget_qa_paraphrase"] == found["forget_qa_paraphrase_raw"] == 0.0


# --- protocols --------------------------------------------------------------------------------------------------


def prompts(scorer: FakeScorer, **options: Any) -> dict[tuple[str, str], str]:
    """The text of each row's first question: what the fake was asked, row by row."""
    rows = ask(scorer, **options)
    asked = iter(scorer.asked)
    found = {}
    for row in rows:
        several = [next(asked) for _ in range(4 if row["form"] == "mcp" else 1)]
        found[row["example_id"].split("/", 2)[2], row["form"]] = several[0]
    return found


def with_family(family: str) -> FakeScorer:
    return FakeScorer(lambda prompt, completion: -1.0, lambda prompt: "", family=family)


def test_strict_asks_every_model_and_part_in_the_same_words() -> None:
    llama, mistral, other = (prompts(with_family(family)) for family in ("llama", "mistral", "qwen3"))
    assert llama == mistral == other
    assert llama["forget_fb/0", "fb"] == f"[{FILL}Question: Ada Moor was born in ___.\n]Answer:| Tallinn"
    for (name, form), text in llama.items():
        assert DIRECT not in text and SPELL_SHOWN not in text, (name, form)
        assert text.startswith(f"[{SPELL}Please") == form.startswith("subtoken_")


def test_ort_asks_models_as_the_authors_did() -> None:
    llama, mistral, other = (prompts(with_family(f), protocol="ort") for f in ("llama", "mistral", "qwen3"))
    told = {key for key, text in mistral.items() if text.startswith(f"[{DIRECT}Please")}
    assert told == {
        *(("forget_fb/" + i, "fb") for i in "01"),
        *(("forget_qa/" + i, "qa") for i in "01"),
        ("forget_mcp/0", "mcp"),
        *(("forget_aa/" + i, "aa") for i in "012"),
        ("neighbor_qa/0", "qa"),
        ("neighbor_mcp/0", "mcp"),
        ("locality_qa/0", "qa"),
    }  # all but the neighbors' blanks and what is spelt
    assert not any(DIRECT in text for text in (*llama.values(), *other.values()))
    for key, text in other.items():
        spelt = key[1].startswith("subtoken_")
        assert text.startswith(f"[{SPELL_SHOWN}Please") == spelt
        assert llama[key].startswith(f"[{SPELL}Please") == spelt
        assert (mistral[key] == text) == (spelt or key == ("neighbor_fb/0", "fb"))
    assert llama["forget_qa/1", "subtoken_qa"].endswith("?\n]Answer:\n|N\ne\nw\nL\nu\nn\nd\n")
    assert llama["forget_aa/0", "subtoken_aa"].endswith("Ada Moor was born in]|T\na\nl\nl\ni\nn\nn\n")
    assert llama["forget_aa/2", "subtoken_aa"].endswith("?\n]Answer:|E\ns\nt\no\nn\ni\na\n")
    assert ("forget_aa/1", "subtoken_aa") not in llama


def chat_with_bos() -> Encoder:
    """A template that writes the BOS, and a tokenizer that puts one in front of every text, as Llama-3's."""
    tokenizer = copy.deepcopy(toy_tokenizer("chat"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return Encoder(tokenizer)


@pytest.mark.parametrize(("protocol", "leading"), [("strict", 1), ("ort", 2)])
def test_a_chat_begins_with_one_bos_and_under_ort_with_two(protocol: Literal["strict", "ort"], leading: int) -> None:
    class Kept(Scorer):
        def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
            kept.extend(t.input_ids for t in tokens)
            return super().records(tokens)

        def continue_ids(self, prompts: Sequence[tuple[int, ...]], **options: Any) -> list[list[int]]:
            kept.extend(prompts)
            return super().continue_ids(prompts, **options)

    kept: list[tuple[int, ...]] = []
    encoder = chat_with_bos()
    bos = encoder.tokenizer.bos_token_id
    ask(Kept(tiny(), encoder), protocol=protocol, max_new_tokens=1)
    assert len(kept) > 2 * len(PROBES)
    for ids in kept:
        assert ids[:leading] == (bos,) * leading and bos not in ids[leading:]


def test_ort_tokenises_the_answer_by_itself() -> None:
    encoder = three_tokens()
    asked: list[tuple[bool, bool]] = []
    cued = encoder.cued

    def spy(*args: Any, **options: Any) -> Tokens:
        asked.append((options["doubled"], options["apart"]))
        return cued(*args, **options)

    encoder.cued = spy  # type: ignore[method-assign]
    scorer = Scorer(bigrams(), encoder)
    for protocol, expected in (("strict", (False, False)), ("ort", (True, True)), ("openunlearning", (False, False))):
        asked.clear()
        ask(scorer, protocol=protocol, max_new_tokens=0)
        assert set(asked) == {expected}


# --- real scorers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["strict", "ort"])
def test_order_and_batches_change_nothing(protocol: Literal["strict", "ort"]) -> None:
    model, encoder = tiny(), toy_encoder("chat")
    shuffled = list(PROBES)
    random.Random(3).shuffle(shuffled)
    plain = by_key(ask(Scorer(model, encoder), protocol=protocol))
    other = by_key(
        ask(Scorer(model, encoder, batch_tokens=150), replace(BENCHMARK, probes=tuple(shuffled)), protocol=protocol)
    )
    assert plain.keys() == other.keys()
    for key, row in plain.items():
        for name, value in row.items():
            if isinstance(value, float | list):
                assert other[key][name] == pytest.approx(value, rel=1e-4, abs=1e-4), (key, name)
            else:
                assert other[key][name] == value, (key, name)
    evaluator = FormsEvaluator(protocol=protocol)
    found = values(evaluator, list(plain.values()), list(plain.values()))
    again = values(evaluator, list(plain.values())[::-1], list(plain.values()))
    assert {n: v for n, v in found.items() if v == v} == {n: v for n, v in again.items() if v == v}


@pytest.mark.parametrize("protocol", ["strict", "ort"])
def test_every_distinct_pair_is_forwarded_once(protocol: Literal["strict", "ort"]) -> None:
    repeated = replace(BENCHMARK, probes=(*PROBES, *(replace(p, id=f"{p.id}b") for p in PROBES)))
    scorer = Scorer(tiny(), toy_encoder("chat"))
    rows = ask(scorer, repeated, protocol=protocol)
    letters = sum(row["form"] == "mcp" and not row["duplicate"] for row in rows)
    distinct = sum(not row["duplicate"] for row in rows)
    assert letters == 2 and distinct == len(rows) / 2
    assert scorer.counts.pairs == distinct + 3 * letters
    assert scorer.counts.generations == sum("generation" in row and not row["duplicate"] for row in rows)
    before = replace(scorer.counts)
    assert ask(scorer, repeated, protocol=protocol) == rows
    assert scorer.counts == before


FILES: dict[str, tuple[Part, Form]] = {
    "forget_level1": ("forget", "fb"),
    "forget_level2": ("forget", "qa"),
    "forget_level3": ("forget", "aa"),
    "neighbor_level1": ("neighbor", "fb"),
    "neighbor_level2": ("neighbor", "qa"),
}


@pytest.mark.parametrize("folder", ["1_Stephen_King", "2_Confucius", "24_Beyoncé", "10_Prince_Harry,_Duke_of_Sussex"])
def test_real_targets_are_asked_in_every_form_that_their_files_have(folder: str, real_data: Path) -> None:
    probes, counts = [], {}
    for name, (part, form) in FILES.items():
        rows = json.loads((real_data / "rwku" / "Target" / folder / f"{name}.json").read_text(encoding="utf-8"))
        counts[part, form] = len(rows)
        for i, row in enumerate(rows):
            kind = row["type"] if form == "aa" else ""
            fields = {"target": row["subject"], "query": row["query"], "answer": row["answer"], "kind": kind}
            probes.append(Probe(id=f"ort/{folder}/{name}/{i}", part=part, form=form, **fields))
    model = tiny()
    model.config.max_position_embeddings = 2048  # rotary positions: nothing but the check is bound to the number
    benchmark = Benchmark(name=f"ort/{folder}", probes=tuple(probes))
    rows = ask(Scorer(model, toy_encoder("chat")), benchmark, max_new_tokens=2)
    for (part, form), count in counts.items():
        for asked in (form, f"subtoken_{form}") if form != "aa" else (form,):
            assert sum(row["part"] == part and row["form"] == asked for row in rows) == count
    found = {metric.name: metric for metric in FormsEvaluator().summarize(rows, rows)}
    assert found["forget_fb_raw"].n == counts["forget", "fb"] >= found["forget_fb"].n
    assert found["form_gap"].value == 0.0
    assert sum(m.n for name, m in found.items() if name.startswith("forget_fb_named_")) == found["forget_fb"].n
    attacks = [m for name, m in found.items() if name.startswith("forget_aa_") and "named" not in name]
    apart = [m for m in attacks if not m.name.endswith(("_raw", "_joint", "_rouge"))]
    assert sum(m.n for m in apart) == found["forget_aa"].n
    assert "forget_aa_cross_lingual" in found


# --- what a user can get wrong ----------------------------------------------------------------------------------


def test_bad_settings_and_rows_are_errors() -> None:
    with pytest.raises(LetheError, match="unknown protocol 'orT'; did you mean 'ort'"):
        FormsEvaluator(protocol="orT")  # type: ignore[arg-type]
    with pytest.raises(LetheError, match="max_new_tokens must be at least 0, got -1"):
        FormsEvaluator(max_new_tokens=-1)
    for answer, choices in (("E", OPTIONS), ("", OPTIONS), ("AB", ()), ("A", OPTIONS[:3])):
        bad = Benchmark(name="bad", probes=(probe("forget", "mcp", 5, "Where?", answer, choices=choices),))
        with pytest.raises(LetheError, match=r"the multiple-choice row ort/1_Ada_Moor/forget_mcp/5 has the answer"):
            FormsEvaluator().score(mute(), bad)  # type: ignore[arg-type]


def test_its_fields_can_be_set_by_text() -> None:
    assert with_fields(FormsEvaluator(), {"max_new_tokens": "10", "protocol": "ort"}, where="ort") == FormsEvaluator(
        max_new_tokens=10, protocol="ort"
    )


def test_it_is_compared_with_the_original() -> None:
    assert FormsEvaluator.compares_with == "original" and FormsEvaluator.name == "ort"

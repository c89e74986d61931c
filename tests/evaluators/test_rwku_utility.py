"""RWKU's utility sets: the formulas by hand, what a model is asked, and what a short context costs."""

import json
import logging
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from bench.beginnings import Beginnings
from bench.data import ort
from bench.data.tokenize import Encoder
from bench.data.types import Answered, Benchmark, Document, Question, Shots, Tokens, Truthful, Utility
from bench.errors import LetheError
from bench.records import Metric
from bench.scorer import AnswerRecord, Scorer
from evaluators import rwku_metrics, rwku_prompts, rwku_utility
from evaluators.fitted import Asker
from evaluators.rwku_metrics import exact_match, mc1, ngram_entropy, same_answer, share_of, stated_answer, token_f1
from evaluators.rwku_utility import MEANS, UtilityEvaluator
from tests.helpers import toy_encoder, toy_tokenizer
from tests.toy_questions import long_model, question_tokenizer

LN2 = math.log(2)

# --- formulas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "answers", "em", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),  # case, an article and punctuation do not count
        ("it is Paris, France", ["London", "Paris France"], 0, 2 * 0.5 * 1 / (0.5 + 1)),  # P = 2/4, R = 2/2
        ("new new york", ["New York"], 0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),  # one "new" is found: P = 2/3, R = 2/2
        ("Rome", ["Paris"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("the", ["a"], 1, 1),  # neither has a word left
    ],
)
def test_exact_match_and_f1_take_the_best_alias(said: str, answers: list[str], em: float, f1: float) -> None:
    assert exact_match(said, answers) == em
    assert token_f1(said, answers) == pytest.approx(f1)


def test_entropy_of_a_text_of_five_words() -> None:
    # a b a b c: bigrams ab 2/4, ba 1/4, bc 1/4: H2 = 2/4 * 1 + 2 * 1/4 * 2 = 1.5; trigrams aba, bab, abc: H3 = log2 3
    words = ["red", "dog", "red", "dog", "cat"]
    assert ngram_entropy(words, 2) == pytest.approx(1.5)
    assert ngram_entropy(words, 3) == pytest.approx(math.log2(3))
    expected = (2 / 3 * 1.5 + 4 / 3 * math.log2(3)) / 2  # = 0.5 + 1.0566
    assert rwku_metrics.fluency("red dog red dog cat") == pytest.approx(expected) == pytest.approx(1.5566, abs=1e-4)


@pytest.mark.parametrize("text", ["", "word", "two words"])
def test_a_text_without_trigrams_has_no_entropy(text: str) -> None:
    assert rwku_metrics.fluency(text) == 0


def test_repetition_has_none_either() -> None:
    assert rwku_metrics.fluency("no no no no no no no") == 0


def test_words_part_contractions_and_punctuation() -> None:
    assert rwku_metrics.words("We're Dan’s, can't: U.S. 3,000 end...") == [
        *("We", "'re", "Dan", "’s", ",", "ca", "n't", ":", "U.S", ".", "3,000", "end", "..."),
    ]


def test_mc1_asks_whether_the_first_true_choice_beats_every_false_one() -> None:
    assert mc1([-1.0], [-2.0, -1.5]) == 1
    assert mc1([-1.5], [-2.0, -1.5]) == 0  # a tie is not won
    assert mc1([-3.0, -1.0], [-2.0]) == 0
    assert math.isnan(mc1([math.nan], [-2.0]))


def test_mc2_is_the_share_of_the_true_choices() -> None:
    # probabilities 1/2 and 1/8 true, 1/4 and 1/8 false: 5/8 of 1
    assert share_of([-LN2, -3 * LN2], [-2 * LN2, -3 * LN2]) == pytest.approx(5 / 8)
    assert share_of([-2000 * LN2], [-2001 * LN2]) == pytest.approx(2 / 3)  # where exp gives 0 by 0
    assert share_of([-1.0], []) == 1
    assert math.isnan(share_of([-math.inf], [-1.0]))


@pytest.mark.parametrize(
    ("text", "answer", "published"),
    [
        ("Thus. So the answer is (B). Q: The answer is (C).", "(B)", "(B)"),
        ("So the answer is 3.5.", "3.5", "3"),
        ("The answer is yes", "yes", "The answer is yes"),
        ("so the answer is no\nQ: next.", "no", "so the answer is no\nQ: next."),
        ("False", "False", "False"),
    ],
)
def test_the_answer_of_a_chain_of_thought(text: str, answer: str, published: str) -> None:
    assert stated_answer(text) == answer
    assert stated_answer(text, as_published=True) == published


@pytest.mark.parametrize(
    ("said", "answer", "equal", "published"),
    [
        ("(b)", "(B)", 1, 1),
        ("-219", "-219", 1, 1),
        ("219", "-219", 0, 1),  # punctuation is dropped there, and a minus is some
        ("} ]", "> )", 0, 1),
        ("A", "(A)", 1, 1),
        ("the", "(A)", 0, 1),  # as an article the letter is dropped too
        (">)", "> )", 1, 1),
    ],
)
def test_answers_of_signs_are_compared_as_they_are(said: str, answer: str, equal: float, published: float) -> None:
    assert same_answer(said, answer) == equal
    assert same_answer(said, answer, as_published=True) == published


def test_refusals_are_found_whatever_their_apostrophes() -> None:
    assert rwku_metrics.refuses("I’m not sure, sorry.")
    assert rwku_metrics.refuses("Well. That   is beyond ME", ["That is beyond me."])
    assert not rwku_metrics.refuses("Isaac Newton", [""])


# --- a model made of text -----------------------------------------------------------------------------------------


@dataclass
class FakeScorer:
    """Log-probabilities and continuations as functions of text."""

    logp: Callable[[str, str], float]
    says: Callable[[str], str]
    context: int = 4096
    encoder: Encoder = field(default_factory=toy_encoder)
    asked: list[str] = field(default_factory=list)
    """Texts of all prompts that were continued."""
    budgets: list[int] = field(default_factory=list)

    @property
    def model(self) -> Any:
        return SimpleNamespace(config=LlamaConfig(max_position_embeddings=self.context))

    def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
        found = []
        for t in tokens:
            assert len(t.input_ids) - 1 <= self.context
            n = len(t.labels)
            value = self.logp(self.encoder.decode(t.input_ids[: t.label_start]), self.encoder.decode(t.labels)) / n
            found.append(AnswerRecord(t.labels, (value,) * n, (True,) * n, (-1.0,) * n, (1.0,) * n, False))
        return found

    def continue_ids(self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int) -> list[list[int]]:
        texts = [self.encoder.decode(p) for p in prompts]
        self.asked += texts
        self.budgets.append(max_new_tokens)
        return [list(self.encoder.tokenizer(self.says(t), add_special_tokens=False)["input_ids"]) for t in texts]  # type: ignore[arg-type]


def _knows(prompt: str, said: str) -> float:
    if said.strip() in ("A", "B", "C", "D"):
        said = [line for line in prompt.splitlines() if line.startswith(f"{said.strip()}. ")][-1]
    return -1.0 if "true" in said else -50.0 if "false" in said else -20.0


def _tells(prompt: str) -> str:
    number = prompt.rpartition("number ")[2].split()[0].rstrip("?") if "number " in prompt else ""
    if "so the answer is" in prompt:
        return f"Well. So the answer is {number}."
    return f"{number}\nQ: Another?" if "briefly" in prompt else "one two three four five"


def perfect(**fields: Any) -> FakeScorer:
    return FakeScorer(_knows, _tells, **fields)


def mute(**fields: Any) -> FakeScorer:
    return FakeScorer(lambda prompt, said: -5.0, lambda prompt: "", **fields)


def _question(task: str, i: int) -> Question:
    choices = [f"false {i}{letter}" for letter in "wxyz"]
    choices[i % 4] = f"true {i}"
    return Question(
        id=f"ort/1_A_B/retain_mmlu/{i}", subject=task, question=f"What is {i}?", choices=tuple(choices), answer=i % 4
    )


def toy(n: int = 4, *, target: str = "1_A_B") -> Benchmark:
    """Every part; the right place of multiple choice moves from A to D."""
    shots = tuple(
        Shots(question=_question("high_school", i), examples=tuple(_question("high_school", 10 + k) for k in range(5)))
        for i in range(n)
    )
    chain = "\n\n".join(["Add.", *(f"Q: {k} + 1?\nA: Let's think.\nSo the answer is {k + 1}." for k in range(3))])
    return Benchmark(
        name="ort/1_A_B",
        refusals=("That is beyond me.",),
        utility=Utility(
            mmlu=shots,
            truthful=tuple(
                Truthful(
                    id=f"ort/{target}/truthful/{i}",
                    question=f"Who is {i}?",
                    mc1=((f"true {i}", 1), (f"false {i}", 0)),
                    mc2=((f"true {i}", 1), (f"truest true {i}", 1), (f"false {i}", 0), (f"falser false {i}", 0)),
                )
                for i in range(n)
            ),
            trivia=tuple(
                Answered(id=f"ort/{target}/triviaqa/{i}", question=f"Which is number {i}?", answers=(f"the {i}", "x"))
                for i in range(n)
            ),
            instructions=tuple(
                Answered(id=f"ort/{target}/fluency/{i}", question=f"Write {i}.", answers=()) for i in range(n)
            ),
            bbh=tuple(
                Answered(
                    id=f"ort/{target}/retain_bbh/{i}",
                    question=f"number {i} ?",
                    answers=(str(i),),
                    task="add",
                    examples=chain,
                )
                for i in range(n)
            ),
            forget_texts=tuple(
                Document(id=f"ort/{target}/forget_mia/{i}", text=f"Ada Moor {i} is true.", topic="Ada Moor")
                for i in range(n)
            ),
            retain_texts=tuple(
                Document(id=f"ort/{target}/retain_mia/{i}", text=f"Ben Ruiz {i} is false.", topic="others")
                for i in range(n)
            ),
        ),
    )


def _named(found: Sequence[Metric]) -> dict[str, Metric]:
    assert len({m.name for m in found}) == len(found)
    return {m.name: m for m in found}


@pytest.mark.parametrize("protocol", ["strict", "ort"])
@pytest.mark.parametrize("kind", ["full", "bare", "chat"])
def test_a_perfect_model_reaches_the_upper_bounds(protocol: Any, kind: str) -> None:
    evaluator = UtilityEvaluator(protocol=protocol)
    scorer = perfect(encoder=toy_encoder(kind))
    rows = evaluator.score(scorer, toy())  # type: ignore[arg-type]
    found = _named(evaluator.summarize(rows, rows))
    right = {"ort_mmlu_acc", "ort_mmlu_probability", "ort_truthful_mc1", "ort_truthful_mc2", "ort_bbh_em"}
    for name in sorted(right):
        assert found[name].value == pytest.approx(1), name
        assert found[name].n == 4
    # Under `ort` the question that the model goes on to write is part of its answer: "0 q another", P = 1/3, R = 1.
    assert found["ort_triviaqa_em"].value == (1 if protocol == "strict" else 0)
    assert found["ort_triviaqa_f1"].value == pytest.approx(1 if protocol == "strict" else 0.5)
    assert found["ort_trivia_refusal_rate"].value == 0
    # five words: four bigrams, three trigrams, none twice
    assert found["ort_fluency_entropy"].value == pytest.approx((2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2)
    assert found["ort_utility"].value == pytest.approx(1)
    assert found["ort_mia_auc"].value == 1  # "true" texts are likelier in this model's eyes
    assert all(found[name].value == 0 for name in ("ort_shots_dropped", "ort_utility_truncated", "ort_budget_reduced"))
    json.dumps(rows, allow_nan=False)


def test_a_mute_model_reaches_the_lower_bounds() -> None:
    evaluator = UtilityEvaluator()
    rows = evaluator.score(mute(), toy())  # type: ignore[arg-type]
    found = _named(evaluator.summarize(rows, evaluator.score(perfect(), toy())))  # type: ignore[arg-type]
    for name in ("truthful_mc1", "triviaqa_em", "triviaqa_f1", "fluency_entropy", "bbh_em", "trivia_refusal_rate"):
        assert found[f"ort_{name}"].value == 0, name
    assert found["ort_mmlu_acc"].value == found["ort_mmlu_probability"].value == 0.25  # the first of equals is A
    assert found["ort_truthful_mc2"].value == pytest.approx(0.5)
    assert found["ort_utility"].value == pytest.approx(0.25 / 4)  # of four relative values one is 1/4, three are 0


def test_utility_relates_each_part_to_the_original() -> None:
    evaluator = UtilityEvaluator()

    def rows(correct: int, f1: float) -> list[dict]:
        mmlu = [{"part": "mmlu", "example_id": str(i), "correct": i < correct, "probability": 0.5} for i in range(4)]
        return [*mmlu, {"part": "trivia", "example_id": "0", "em": 0.0, "f1": f1, "refused": 0.0}]

    # (1/4 : 2/4 + 0.9 : 0.6) / 2 = (0.5 + 1.5) / 2; no cap, and only the parts that there are
    found = _named(evaluator.summarize(rows(1, 0.9), rows(2, 0.6)))
    assert found["ort_utility"].value == pytest.approx(1)
    assert found["ort_utility"].n == 2
    assert "ort_truthful_mc1" not in found


def test_utility_is_missing_with_a_reason() -> None:
    evaluator = UtilityEvaluator()
    rows = [
        {"part": "mmlu", "example_id": f"q{i}", "correct": True, "probability": 1.0, "shots_dropped": 0}
        for i in range(2)
    ]
    for reference, reason in (
        (None, "no rows of the original model"),
        (rows[:1], "lack 1 of 2 examples, the first is q1"),
        ([row | {"correct": False} for row in rows], "ort_mmlu_acc of the original is 0"),
        ([row | {"correct": None} for row in rows], "ort_mmlu_acc of the original is missing: correct is not a finite"),
    ):
        metric = _named(evaluator.summarize(rows, reference))["ort_utility"]
        assert metric.missing
        assert reason in metric.reason


def test_rows_name_target_and_part_and_repeat_what_was_asked() -> None:
    rows = UtilityEvaluator().score(perfect(), toy(2))  # type: ignore[arg-type]
    assert [row["part"] for row in rows[::2]] == [
        *("mmlu", "truthful", "trivia", "fluency", "bbh", "mia_forget", "mia_retain")
    ]
    assert {row["target"] for row in rows} == {"ort/1_A_B"}
    trivia = rows[4]
    assert (trivia["generation"], trivia["prediction"]) == ("0\nQ: Another?", "0")
    assert trivia["max_new_tokens"] == 30


def test_parts_without_rows_have_no_metrics() -> None:
    evaluator = UtilityEvaluator()
    whole = toy()
    few = replace(whole, utility=Utility(trivia=whole.utility.trivia))
    found = _named(evaluator.summarize(evaluator.score(perfect(), few)))  # type: ignore[arg-type]
    assert list(found) == [
        *("ort_utility", "ort_triviaqa_em", "ort_triviaqa_f1", "ort_trivia_refusal_rate"),
        *("ort_shots_dropped", "ort_utility_truncated", "ort_budget_reduced"),
    ]
    assert evaluator.summarize(evaluator.score(perfect(), Benchmark(name="ort/1"))) == []  # type: ignore[arg-type]


def test_reasoning_can_be_left_out() -> None:
    scorer = perfect()
    rows = UtilityEvaluator(reasoning=False).score(scorer, toy())  # type: ignore[arg-type]
    assert "bbh" not in {row["part"] for row in rows}
    assert scorer.budgets == [30, 256]


def test_refusals_count_where_the_answer_is_not_right() -> None:
    evaluator, asked = UtilityEvaluator(), toy()
    scorer = FakeScorer(
        _knows, lambda prompt: "That is beyond me" if "number 0" in prompt else "I don’t know 1, sorry."
    )
    trivia = [row for row in evaluator.score(scorer, asked) if row["part"] == "trivia"]  # type: ignore[arg-type]
    assert [row["refused"] for row in trivia] == [1, 1, 1, 1]
    right = Answered(id="ort/1_A_B/triviaqa/9", question="Which song?", answers=("I Can't Get No",))
    song = replace(asked, utility=Utility(trivia=(right,)))
    [row] = evaluator.score(FakeScorer(_knows, lambda prompt: "I Can't Get No"), song)  # type: ignore[arg-type]
    assert (row["em"], row["refused"]) == (1, 0)


def test_numbers_of_membership_by_hand() -> None:
    """Five labels of -1 .. -5 nats: the loss is 3, and of the lowest fifth (one token) min-k is 5."""

    class Known(FakeScorer):
        def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
            logp = (-1.0, -2.0, -3.0, -4.0, -5.0)
            # standardised by mean -3 and deviation 2: lowest (-5 + 3) / 2 = -1
            return [AnswerRecord(t.labels[:5], logp, (True,) * 5, (-3.0,) * 5, (4.0,) * 5, False) for t in tokens]

    texts = toy(1).utility.forget_texts
    asked = Benchmark(name="ort/1", utility=Utility(forget_texts=texts))
    [row] = UtilityEvaluator().score(Known(_knows, _tells), asked)  # type: ignore[arg-type]
    assert (row["loss"], row["min_k"], row["min_k_plus_plus"]) == pytest.approx((3, 5, 1))
    assert row["zlib"] == pytest.approx(3 / len(zlib.compress(texts[0].text.encode())))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_broken_model_has_reasons_instead_of_numbers(value: float) -> None:
    evaluator = UtilityEvaluator()
    scorer = FakeScorer(lambda prompt, said: value, lambda prompt: "0")
    rows = evaluator.score(scorer, toy())  # type: ignore[arg-type]
    found = _named(evaluator.summarize(rows, rows))
    for mean in MEANS:
        assert found[mean.name].missing, mean.name
        assert "not a finite number in 4 of 4" in found[mean.name].reason
    assert "is missing" in found["ort_utility"].reason
    assert scorer.asked == []
    json.dumps(rows, allow_nan=False)


# --- prompts ------------------------------------------------------------------------------------------------------


def test_mmlu_prompt_is_that_of_rwku() -> None:
    asking = rwku_prompts.ask_mmlu(toy().utility.mmlu[1])
    assert len(asking.users) == 6
    assert asking.users[0].startswith(
        "The following are multiple choice questions (with answers) about high school.\n\n"
        "Question: What is 10?\nA. false 10w\nB. false 10x\nC. true 10\nD. false 10z\nAnswer: C\n\nQuestion: What"
    )
    assert asking.users[5] == (
        "The following are multiple choice questions (with answers) about high school.\n\n"
        "Please following the previous examples and answer the given question.\n"
        "Question: What is 1?\nA. false 1w\nB. true 1\nC. false 1y\nD. false 1z"
    )


def test_truthful_prompt_has_six_examples() -> None:
    [user, *shorter] = rwku_prompts.ask_truthful(toy().utility.truthful[0]).users
    assert user.startswith("Q: What is human life expectancy in the United States?\nA: Human life expectancy")
    assert user.endswith("held in Barcelona, Spain.\n\nQ: Who is 0?")
    assert len(shorter) == 6
    assert shorter[-1] == "Q: Who is 0?"


def test_trivia_prompt_has_five_examples() -> None:
    [user, *shorter] = rwku_prompts.ask_trivia(toy().utility.trivia[3]).users
    assert user.startswith("\nQ: When did men's figure skating become a summer Olympic sport?\nA: 1908\nQ: When did")
    assert user.endswith("A: series finale\nPlease briefly answer the following question:\nQ: Which is number 3?\n")
    assert shorter[-1] == "\nPlease briefly answer the following question:\nQ: Which is number 3?\n"
    assert len(shorter) == 5


def test_bbh_prompt_loses_its_first_example_first() -> None:
    row = toy().utility.bbh[2]
    users = rwku_prompts.ask_bbh(row).users
    assert users[0] == f"{row.examples}\n\n{rwku_prompts.REASON}Q: number 2 ?"
    assert users[1].startswith("Add.\n\nQ: 1 + 1?\n")
    assert users[3] == f"Add.\n\n{rwku_prompts.REASON}Q: number 2 ?"
    bare = rwku_prompts.ask_bbh(replace(row, examples=""))
    assert bare.users == (f"{rwku_prompts.REASON}Q: number 2 ?",)


def test_the_cue_follows_the_chat_or_stands_on_its_own_line() -> None:
    loose, fixed = (rwku_prompts.Asking(("Q: x",), "A:", loose=loose) for loose in (True, False))
    chat = toy_encoder("chat")  # its template ends in "<|assistant|>", as Mistral's ends in "[/INST]"
    assert rwku_prompts.cue_behind(chat, "Q: x", loose) == " A:"
    assert rwku_prompts.cue_behind(chat, "Q: x", fixed) == "A:"
    broken = toy_tokenizer("chat").chat_template.replace("<|assistant|>{%", "<|assistant|>\n{%")  # type: ignore[union-attr]
    tokenizer = toy_tokenizer.__wrapped__("chat")
    tokenizer.chat_template = broken
    assert rwku_prompts.cue_behind(Encoder(tokenizer), "Q: x", loose) == "A:"  # as for Llama-3
    plain = toy_encoder("full")
    assert rwku_prompts.cue_behind(plain, "Q: x", loose) == "\nA:"
    assert rwku_prompts.cue_behind(plain, "Q: x\n", fixed) == "A:"
    assert rwku_prompts.cue_behind(plain, "Q: x", rwku_prompts.Asking(("Q: x",), "")) == ""


def test_the_authors_prompts_begin_with_two_bos_and_ours_with_one() -> None:
    seen: list[tuple[int, ...]] = []

    class Listening(FakeScorer):
        def continue_ids(self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int) -> list[list[int]]:
            seen.extend(prompts)
            return [[] for _ in prompts]

    scorer = Listening(_knows, _tells, encoder=_dressed_chat())
    asked = Benchmark(name="ort/1", utility=Utility(trivia=toy(1).utility.trivia))
    for protocol in ("strict", "openunlearning", "ort"):
        UtilityEvaluator(protocol=protocol).score(scorer, asked)  # type: ignore[arg-type]
    ours, same, theirs = seen
    bos = scorer.encoder.tokenizer.bos_token_id
    assert ours == same
    assert (ours[0], ours[1] == bos, theirs) == (bos, False, (bos, *ours))


def _dressed_chat() -> Encoder:
    """A chat tokenizer that puts a BOS in front by itself as well, as Llama-3's does."""
    from tokenizers import processors

    tokenizer = toy_tokenizer.__wrapped__("chat")
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B", special_tokens=[bos]
    )
    return Encoder(tokenizer)


def test_options_texts_are_scored_where_the_data_asks_for_it() -> None:
    asked = replace(toy(), choice_scoring="text")
    rows = UtilityEvaluator().score(perfect(), asked)  # type: ignore[arg-type]
    mmlu = [row for row in rows if row["part"] == "mmlu"]
    assert [(row["scored"], row["chosen"], row["answer"]) for row in mmlu] == [("text", i, i) for i in range(4)]


def test_a_question_with_three_options_is_refused() -> None:
    shots = toy(1).utility.mmlu[0]
    three = replace(shots, question=replace(shots.question, choices=("a", "b", "c")))
    asked = Benchmark(name="ort/1", utility=Utility(mmlu=(three,)))
    with pytest.raises(LetheError, match=r"ort/1_A_B/retain_mmlu/0 has 3 choices, but the prompt lists exactly 4"):
        UtilityEvaluator().score(perfect(), asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "rwku"}, "unknown protocol 'rwku'"),
        ({"fluency_tokens": 0}, "fluency_tokens must be at least 1, got 0"),
    ],
)
def test_fields_are_checked(fields: dict, message: str) -> None:
    with pytest.raises(LetheError, match=message):
        UtilityEvaluator(**fields)


# --- short contexts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [420, 300, 120])
def test_what_does_not_fit_is_dropped_and_told(context: int, caplog: pytest.LogCaptureFixture) -> None:
    evaluator, scorer = UtilityEvaluator(), mute(context=context)
    rwku_utility._warn.cache_clear()
    with caplog.at_level(logging.WARNING, logger="evaluators.rwku_utility"):
        rows = evaluator.score(scorer, toy())  # type: ignore[arg-type]
        told = len(caplog.records)
        evaluator.score(scorer, toy())  # type: ignore[arg-type]
    assert len(caplog.records) == told  # the next method is asked the same, which is no news
    prompts = {row["part"]: row for row in rows if row["example_id"].endswith("/0")}
    found = _named(evaluator.summarize(rows))
    dropped = sum(row.get("shots_dropped", 0) > 0 for row in rows)
    assert found["ort_shots_dropped"].value == dropped > 0
    assert found["ort_shots_dropped"].n == 20  # texts have no examples
    assert f"ort_shots_dropped: {dropped} of 20" in caplog.text
    encoder = scorer.encoder
    row = prompts["bbh"]
    asking = rwku_prompts.ask_bbh(toy().utility.bbh[0])
    lengths = [len(encoder.cued_prompt(user, "\nA:")) for user in asking.users]
    fits = [length + 256 <= context for length in lengths]
    assert row["shots_dropped"] == (fits.index(True) if any(fits) else 3)
    if not any(fits):  # then new tokens are given up, but for a quarter of the context
        assert row["max_new_tokens"] == max(context // 4, (context - lengths[3]) // 8 * 8) < 256
        assert row["prompt_truncated"] == max(0, lengths[3] + row["max_new_tokens"] - context)
        assert row["budget_reduced"]
    else:
        assert (row["max_new_tokens"], row["prompt_truncated"], row["budget_reduced"]) == (256, 0, False)


def test_a_context_without_limit_drops_nothing() -> None:
    class Endless(FakeScorer):
        @property
        def model(self) -> Any:
            return SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: object()))

    rows = UtilityEvaluator().score(Endless(_knows, _tells), toy())  # type: ignore[arg-type]
    assert not any(row.get("shots_dropped") or row.get("text_truncated") for row in rows)


def test_texts_lose_what_exceeds_the_context() -> None:
    scorer = mute(context=8)
    text = toy(1).utility.forget_texts
    asked = Benchmark(name="ort/1", utility=Utility(forget_texts=text))
    [row] = UtilityEvaluator().score(scorer, asked)  # type: ignore[arg-type]
    whole = scorer.encoder.document(text[0].text)
    assert row["text_truncated"] == len(whole.input_ids) - 9  # the last label is no input
    assert row["tokens"] == 8


# --- real models and real rows ------------------------------------------------------------------------------------


def test_prefixes_are_shared_and_repeats_asked_once() -> None:
    encoder = Encoder(question_tokenizer("full"))
    once, twice = (Scorer(long_model("llama", context=4096), encoder) for _ in range(2))
    asked = toy(6)
    evaluator = UtilityEvaluator(trivia_tokens=2, fluency_tokens=2, bbh_tokens=2)
    rows = evaluator.score(once, asked)
    # One for the six questions of the task, one for the primer.
    assert once.counts.prefixes == 2
    alone = Scorer(long_model("llama", context=4096), encoder, share_prompts=False)
    _close(evaluator.score(alone, asked), rows)
    assert alone.counts.tokens > 3 * once.counts.tokens
    both = toy(6).utility
    doubled = replace(
        asked,
        utility=Utility(**{name: getattr(both, name) * 2 for name in vars(both)}),
    )
    _close(evaluator.score(twice, doubled)[:6], rows[:6])
    assert (twice.counts.pairs, twice.counts.generations) == (once.counts.pairs, once.counts.generations)


def _close(rows: Sequence[dict], others: Sequence[dict]) -> None:
    for mine, theirs in zip(rows, others, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            numbers = isinstance(value, float) or name == "logp"
            assert (pytest.approx(value, abs=1e-4) if numbers else value) == theirs[name], name


def test_order_and_batches_change_nothing() -> None:
    encoder, asked = Encoder(question_tokenizer("bare")), toy(3)
    evaluator = UtilityEvaluator(trivia_tokens=4, fluency_tokens=4, bbh_tokens=4)
    rows = evaluator.score(Scorer(long_model("gpt2", context=2048), encoder), asked)
    turned = replace(
        asked, utility=Utility(**{name: tuple(reversed(getattr(asked.utility, name))) for name in vars(asked.utility)})
    )
    others = evaluator.score(Scorer(long_model("gpt2", context=2048), encoder, batch_tokens=300), turned)
    key = lambda row: (row["part"], row["example_id"])  # noqa: E731
    _close(sorted(rows, key=key), sorted(others, key=key))
    before, after = (_named(evaluator.summarize(found, rows)) for found in (rows, others))
    for name, metric in before.items():
        assert metric.value == pytest.approx(after[name].value, abs=1e-4, nan_ok=True), name


def _real_counts(folder: Path) -> dict[str, int]:
    stems = ("retain_mmlu", "truthful", "triviaqa", "fluency", "retain_bbh", "forget_mia", "retain_mia")
    return {stem: len(json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))) for stem in stems}


@pytest.mark.parametrize("number", [1, 2, 10, 24])
def test_real_targets_are_scored_part_by_part(number: int, real_data: Path) -> None:
    """Every row of the files arrives; the first two of each are asked, in a context that examples do not fit into."""
    [folder] = (real_data / "rwku" / "Target").glob(f"{number}_*")
    whole = ort.load(f"ort/{number}", real_data, limit=10**6).utility
    assert [len(getattr(whole, name)) for name in vars(whole)] == list(_real_counts(folder).values())
    cut = Utility(**{name: getattr(whole, name)[:2] for name in vars(whole)})
    torch.manual_seed(0)
    scorer = Scorer(long_model("llama", context=768), Encoder(question_tokenizer("full")))
    evaluator = UtilityEvaluator(trivia_tokens=4, fluency_tokens=8, bbh_tokens=8)
    rows = evaluator.score(scorer, Benchmark(name=f"ort/{number}", utility=cut))
    json.dumps(rows, allow_nan=False)
    assert len(rows) == 14
    assert {row["target"] for row in rows} == {f"ort/{folder.name}"}
    found = _named(evaluator.summarize(rows, rows))
    assert all(not found[mean.name].missing for mean in MEANS)
    assert found["ort_shots_dropped"].value > 0


def test_three_questions_of_a_task_share_its_examples(real_data: Path) -> None:
    """The first nine rows are three tasks of three questions: three prefixes, in a context that holds everything."""
    mmlu = ort.load("ort/2", real_data, limit=9).utility.mmlu
    assert len({row.examples for row in mmlu}) == 3 or len({row.question.subject for row in mmlu}) == 3
    scorer = Scorer(long_model("llama", context=16384), Encoder(question_tokenizer("full")))
    rows = UtilityEvaluator().score(scorer, Benchmark(name="ort/2", utility=Utility(mmlu=mmlu)))
    assert not any(row["shots_dropped"] for row in rows)
    assert scorer.counts.prefixes == 3
    assert scorer.counts.prompts == 9  # each read once for its four letters


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("kind", ["full", "bare", "chat"])
def test_questions_of_a_task_tell_what_they_begin_with_and_it_is_the_same_for_all(kind: str, doubled: bool) -> None:
    encoder = toy_encoder(kind)
    asker = Asker(Scorer(long_model("llama", context=4096), encoder), doubled)
    rows = toy(8).utility.mmlu
    odd = ["Are ", "A", " ", "\n", "Answer: ", "12", "é", "A. x"]
    questions = [replace(row, question=replace(row.question, question=q)) for row, q in zip(rows, odd, strict=True)]
    prompts = [asker.fit(rwku_prompts.ask_mmlu(row), 0) for row in (*rows, *questions)]
    assert len({prompt.ids for prompt in prompts}) == 16
    [beginning] = {prompt.ids[: prompt.shared] for prompt in prompts}
    text = encoder.decode(beginning)
    assert text.count("Answer:") == 5 and text.endswith(rwku_prompts.FOLLOW)
    # with fewer examples, where the context is short, others begin so too that lost the same ones
    short = Asker(Scorer(long_model("llama", context=len(prompts[0].ids) - 40), encoder), doubled)
    cut = [short.fit(rwku_prompts.ask_mmlu(row), 0) for row in rows]
    assert {prompt.shots_dropped for prompt in cut} <= {1, 2}
    assert len({prompt.ids[: prompt.shared] for prompt in cut}) == len({prompt.shots_dropped for prompt in cut})
    # nothing is made of other askings, nor of a prompt that lost its beginning
    assert short.fit(rwku_prompts.ask_truthful(toy().utility.truthful[0]), 0).shared == 0
    tiny = Asker(Scorer(long_model("llama", context=8), encoder), doubled)
    assert tiny.fit(rwku_prompts.ask_mmlu(rows[0]), 0).shared == 0


def test_the_examples_of_all_tasks_are_read_for_the_first_target_only(real_data: Path) -> None:
    model, encoder = long_model("llama", context=16384), Encoder(question_tokenizer("full"))
    scorer = Scorer(model, encoder, beginnings=Beginnings(model))
    evaluator, prefixes, tokens = UtilityEvaluator(), [], []
    for number in (1, 2, 24):
        mmlu = ort.load(f"ort/{number}", real_data, limit=9).utility.mmlu
        asked = Benchmark(name=f"ort/{number}", utility=Utility(mmlu=mmlu))
        before = replace(scorer.counts)
        rows = evaluator.score(scorer, asked)
        prefixes.append(scorer.counts.prefixes - before.prefixes)
        tokens.append(scorer.counts.tokens - before.tokens)
        _close(rows, evaluator.score(Scorer(model, encoder), asked))
    assert prefixes == [3, 0, 0]
    assert max(tokens[1:]) < tokens[0] / 2

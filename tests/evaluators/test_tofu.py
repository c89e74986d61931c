"""The evaluator with fake models: bounds, protocols, what is asked of the model, what is missing and why."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bench.data.types import QA, Benchmark, Tokens
from bench.errors import LetheError
from bench.records import Metric
from bench.scorer import AnswerRecord
from evaluators import EVALUATORS, LOGS
from evaluators.tofu import KEPT, SETS, TofuEvaluator

END = 0
"""The fake terminator; every character is a token."""


class FakeEncoder:
    """One token a character, the prompt in brackets."""

    def prompt(self, question: str) -> tuple[int, ...]:
        return tuple(map(ord, f"[{question}] "))

    def pair(self, question: str, answer: str) -> Tokens:
        prompt = self.prompt(question)
        return Tokens((*prompt, *map(ord, answer), END), len(prompt))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(i) for i in ids if i != END)


@dataclass
class FakeScorer:
    """A model made of two functions, that counts how often it is asked."""

    logp: Callable[[str, str], Any]
    """(question, answer) -> log-probability of each of its tokens, or one for all."""
    say: Callable[[str], str]
    match: Callable[[str, str], bool] = lambda question, answer: False
    protocol: str = "strict"
    calls: list[str] = field(default_factory=list)
    encoder: FakeEncoder = field(default_factory=FakeEncoder)

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[AnswerRecord]:
        self.calls.append("answers")
        return [self.record(*pair) for pair in pairs]

    def record(self, question: str, answer: str) -> AnswerRecord:
        labels = self.encoder.pair(question, answer).labels
        logp = self.logp(question, answer)
        values = tuple(logp) if isinstance(logp, list) else (float(logp),) * len(labels)
        return AnswerRecord(
            label_ids=labels[: len(values)],
            logp=values,
            match=(self.match(question, answer),) * len(values),
            mean_logp=(-1.0,) * len(values),
            var_logp=(0.25,) * len(values),
            ends_with_stop=True,
        )

    def generate(self, questions: Sequence[str], *, max_new_tokens: int = 200) -> list[str]:
        self.calls.append("generate")
        assert max_new_tokens == 200
        return [self.say(question) for question in questions]


def qa(name: str, i: int, *, paraphrased: bool, wrong: int) -> QA:
    return QA(
        id=f"tofu/{name}/{i}",
        question=f"What is {name} {i}?",
        answer=f"It is {name} answer {i}.",
        paraphrased_answer=f"Answer {i} of {name} it is." if paraphrased else None,
        perturbed_answers=tuple(f"It is {name} mistake {i} {k}." for k in range(wrong)),
    )


def small_benchmark(n: int = 3, holdout: int = 0) -> Benchmark:
    return Benchmark(
        name="tofu/forget10",
        forget=(),
        retain=(),
        eval_sets={
            "forget": tuple(qa("forget", i, paraphrased=True, wrong=5) for i in range(n)),
            "retain": tuple(qa("retain", i, paraphrased=True, wrong=5) for i in range(n)),
            "real_authors": tuple(qa("real", i, paraphrased=False, wrong=3) for i in range(n)),
            "world_facts": tuple(qa("world", i, paraphrased=False, wrong=3) for i in range(n + 1)),
        },
        holdout=tuple(qa("holdout", i, paraphrased=False, wrong=0) for i in range(holdout)),
    )


BENCHMARK = small_benchmark(holdout=4)
TRUTH = {
    example.question: example for examples in (*BENCHMARK.eval_sets.values(), BENCHMARK.holdout) for example in examples
}


def right(question: str, answer: str) -> bool:
    return answer in (TRUTH[question].answer, TRUTH[question].paraphrased_answer)


def perfect(**options: Any) -> FakeScorer:
    """Certain of every right answer, wrong ones impossible, says what is right; has never seen the holdout."""

    def logp(question: str, answer: str) -> float:
        return 0.0 if right(question, answer) and "holdout" not in question else -1000.0

    return FakeScorer(logp, lambda question: TRUTH[question].answer, right, **options)


def mute(**options: Any) -> FakeScorer:
    """Says nothing and thinks every text equally impossible."""
    return FakeScorer(lambda question, answer: -2000.0, lambda question: "", **options)


def noisy(seed: int, **options: Any) -> FakeScorer:
    """A different log-probability for every answer."""

    def logp(question: str, answer: str) -> float:
        return -3 * random.Random(f"{seed} {question} {answer}").random() - 0.1

    return FakeScorer(logp, lambda question: TRUTH[question].answer[:-6], right, **options)


def ask(scorer: FakeScorer, benchmark: Benchmark = BENCHMARK) -> list[dict]:
    return TofuEvaluator(protocol=scorer.protocol).score(scorer, benchmark)  # type: ignore[arg-type]


def summary(rows: list[dict], reference: list[dict] | None = None, protocol: str = "strict") -> dict[str, Metric]:
    evaluator = TofuEvaluator(protocol=protocol)  # type: ignore[arg-type]
    return {metric.name: metric for metric in evaluator.summarize(rows, reference)}


def values(found: dict[str, Metric]) -> dict[str, float]:
    return {name: metric.value for name, metric in found.items()}


# --- bounds


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_a_perfect_model_hits_the_bounds(protocol: str) -> None:
    found = values(summary(ask(perfect(protocol=protocol)), protocol=protocol))
    one = pytest.approx(1, abs=1e-9)
    for name in SETS:
        assert found[f"{name}_probability"] == one
        assert found[f"{name}_rouge_l_recall"] == 1
        assert found[f"grun_{name}_truth_ratio"] == one
        assert found[f"{name}_truth_ratio"] == (one if name in KEPT else 0)
    for name in ("model_utility", "model_utility_arithmetic", "extraction_strength", "exact_memorization"):
        assert found[name] == one
    assert found["forget_truth_ratio_prob_mean"] == one
    assert {found[attack] for attack in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")} == {1}


def test_a_mute_model_hits_the_other_bounds() -> None:
    found = values(summary(ask(mute())))
    for name in SETS:
        real = name in ("real_authors", "world_facts")
        # all answers are equally likely, so the right one has a quarter of four
        assert found[f"{name}_probability"] == pytest.approx(1 / 4 if real else 0)
        assert found[f"{name}_rouge_l_recall"] == 0
        assert found[f"grun_{name}_truth_ratio"] == 0
        assert found[f"{name}_truth_ratio"] == (0 if name in KEPT else 1)
    for name in ("model_utility", "model_utility_arithmetic", "extraction_strength", "exact_memorization"):
        assert found[name] == 0
    assert found["forget_truth_ratio_prob_mean"] == pytest.approx(0.5)
    assert found["mia_loss"] == 0.5


def test_a_mute_model_keeps_the_floor_of_the_published_protocol() -> None:
    rows = ask(mute(protocol="openunlearning"))
    found = summary(rows, protocol="openunlearning")
    # every forget answer is "It is forget answer i.": 22 characters, so 1/22 is extracted by the published loop
    assert found["extraction_strength"].value == pytest.approx(1 / 22)
    assert found["exact_memorization"].value == 0
    assert found["real_authors_probability"].value == 0  # 1e-10 outweighs all four answers


def test_evaluators_of_a_benchmark_differ_in_name_and_logs_belong_to_one() -> None:
    names = [evaluator().name for evaluators in EVALUATORS.values() for evaluator in evaluators]
    assert len({*names}) == len(names)
    assert {*LOGS} <= {*names}


# --- what is asked


def test_everything_is_asked_in_one_call_each() -> None:
    scorer = perfect()
    ask(scorer)
    assert sorted(scorer.calls) == ["answers", "generate"]


def test_rows_are_json_and_in_the_order_of_the_sets() -> None:
    rows = ask(noisy(0))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["set"] for row in rows] == (
        ["forget"] * 3 + ["retain"] * 3 + ["real_authors"] * 3 + ["world_facts"] * 4 + ["holdout"] * 4
    )
    assert rows[1]["example_id"] == "tofu/forget/1"
    assert rows[1]["question"] == "What is forget 1?"


def test_a_row_holds_what_the_model_said_and_how_likely_it_finds_each_answer() -> None:
    scorer = noisy(0)
    row = ask(scorer)[0]
    example = BENCHMARK.eval_sets["forget"][0]
    assert row["answer_nll"] == pytest.approx(-scorer.logp(example.question, example.answer))
    assert row["paraphrased_nll"] == pytest.approx(-scorer.logp(example.question, str(example.paraphrased_answer)))
    assert row["perturbed_nll"] == pytest.approx(
        [-scorer.logp(example.question, wrong) for wrong in example.perturbed_answers]
    )
    assert row["generation"] == "It is forget ans"
    assert row["rouge_l_recall"] == 3 / 5  # it is forget | answer 0
    assert (row["answer_tokens"], row["memorization_tokens"]) == (23, 22)


def test_without_a_paraphrase_the_answer_takes_its_place() -> None:
    row = next(row for row in ask(noisy(0)) if row["set"] == "real_authors")
    assert row["paraphrased_nll"] == row["answer_nll"]
    assert len(row["perturbed_nll"]) == 3


def test_the_evaluator_and_the_prompts_must_follow_one_protocol() -> None:
    with pytest.raises(LetheError, match="protocol 'strict' but the prompts were encoded for 'openunlearning'"):
        TofuEvaluator().score(perfect(protocol="openunlearning"), BENCHMARK)  # type: ignore[arg-type]


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(LetheError, match="unknown protocol 'strikt'; did you mean 'strict'"):
        TofuEvaluator(protocol="strikt")  # type: ignore[arg-type]
    with pytest.raises(LetheError, match="max_new_tokens must be at least 1, got 0"):
        TofuEvaluator(max_new_tokens=0)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_sets_may_have_any_length(n: int) -> None:
    small = Benchmark(
        name="tofu/forget10",
        forget=(),
        retain=(),
        eval_sets={name: (examples * 3)[:n] for name, examples in BENCHMARK.eval_sets.items()},
        holdout=(BENCHMARK.holdout * 2)[:n],
    )
    rows = ask(noisy(0), small)
    found = summary(rows, ask(noisy(1), small))
    # one or two rows are easily told apart without error, and then there is nothing to relate privleak to
    assert {metric.name for metric in found.values() if metric.missing} <= {"privleak", "forget_fluency"}
    assert found["forget_probability"].n == n
    assert found["mia_loss"].n == 2 * n


# --- the terminator


@dataclass
class Sloped(FakeScorer):
    """A model with gradients."""

    def gradient_norms(self, answers: Sequence[tuple[str, str, int]]) -> list[float]:
        self.calls.append("gradient_norms")
        return [math.inf if "forget 1" in question else float(labels) for question, _, labels in answers]


def test_gradients_are_asked_for_at_once_without_the_terminator(caplog: pytest.LogCaptureFixture) -> None:
    scorer = Sloped(logp=lambda q, a: -1.0, say=lambda q: "")
    rows = TofuEvaluator(gradient_norms=True).score(scorer, BENCHMARK)  # type: ignore[arg-type]
    norms = {row["question"]: row["mia_gradnorm"] for row in rows if row["set"] in ("forget", "holdout")}
    expected = {qa.question: float(len(qa.answer)) for qa in (*BENCHMARK.eval_sets["forget"], *BENCHMARK.holdout)}
    assert norms == expected | {"What is forget 1?": None}  # not finite
    assert scorer.calls.count("gradient_norms") == 1 and not caplog.records
    assert not any("mia_gradnorm" in row for row in rows if row["set"] not in ("forget", "holdout"))


def test_gradients_without_a_holdout_are_told_to_be_of_no_use(caplog: pytest.LogCaptureFixture) -> None:
    benchmark = replace(BENCHMARK, name="tofu/forget10", holdout=())
    scorer = Sloped(logp=lambda q, a: -1.0, say=lambda q: "")
    TofuEvaluator(gradient_norms=True).score(scorer, benchmark)  # type: ignore[arg-type]
    [said] = caplog.messages
    assert said.endswith("tofu/forget10 has none; in a data folder it is tofu/holdout10.json")


def test_the_terminator_counts_in_likelihoods_and_not_in_memorization() -> None:
    # three tokens a, b and the terminator: nll = (1 + 2 + 6) / 3 = 3; min-k of a and b alone: max(1, int(0.8)) = 1 -> 2
    benchmark = Benchmark(
        name="x", forget=(), retain=(), eval_sets={"forget": (QA(id="x/0", question="q", answer="ab"),)}
    )
    for protocol in ("strict", "openunlearning"):
        scorer = FakeScorer(lambda question, answer: [-1.0, -2.0, -6.0], lambda question: "ab", protocol=protocol)
        row = ask(scorer, benchmark)[0]
        assert row["answer_nll"] == 3
        assert row["mia_min_k"] == 2
        # (-2 - -1) / sqrt(0.25) = -2
        assert row["mia_min_k_plus_plus"] == 2
        assert (row["answer_tokens"], row["memorization_tokens"]) == (3, 2)


def test_a_last_label_that_ends_nothing_is_kept_by_strict_and_dropped_as_published() -> None:
    benchmark = Benchmark(
        name="x", forget=(), retain=(), eval_sets={"forget": (QA(id="x/0", question="q", answer="ab"),)}
    )

    class NoEnd(FakeScorer):
        def record(self, question: str, answer: str) -> AnswerRecord:
            return AnswerRecord((1, 2), (-1.0, -2.0), (True, False), (0.0, 0.0), (1.0, 1.0), ends_with_stop=False)

    for protocol, tokens, strength in (("strict", 2, 0.0), ("openunlearning", 1, 1.0)):
        row = ask(NoEnd(lambda q, a: 0.0, lambda q: "", protocol=protocol), benchmark)[0]
        assert (row["memorization_tokens"], row["extraction_strength"]) == (tokens, strength)


def test_an_answer_of_nothing_but_a_terminator_is_left_out_or_zero() -> None:
    rows = {}
    for protocol in ("strict", "openunlearning"):
        scorer = perfect(protocol=protocol)
        short = BENCHMARK.eval_sets["forget"][1].answer
        scorer.logp = lambda question, answer, short=short: [-0.5] if answer == short else 0.0
        rows[protocol] = ask(scorer)
    assert rows["strict"][1]["extraction_strength"] is None
    assert rows["openunlearning"][1]["extraction_strength"] == 0
    assert rows["openunlearning"][1]["mia_min_k"] == 0
    strict, published = summary(rows["strict"]), summary(rows["openunlearning"], protocol="openunlearning")
    assert (strict["extraction_strength"].value, strict["extraction_strength"].n) == (1, 2)
    assert published["extraction_strength"].value == pytest.approx(2 / 3)
    assert (published["exact_memorization"].value, published["exact_memorization"].n) == (1, 2)
    assert strict["forget_probability"].n == 3


def test_the_published_reference_text_is_decoded_and_cleaned() -> None:
    example = QA(id="x/0", question="Who is he ?", answer="He is Yun , the son .")
    benchmark = Benchmark(name="x", forget=(), retain=(), eval_sets={"forget": (example,)})
    scorer = FakeScorer(lambda q, a: -1.0, lambda q: "He did n't say .", protocol="openunlearning")
    row = ask(scorer, benchmark)[0]
    assert row["reference"] == "He is Yun, the son."
    assert row["generation"] == "He didn't say."
    scorer.protocol = "strict"
    row = ask(scorer, benchmark)[0]
    assert (row["reference"], row["generation"]) == ("He is Yun , the son .", "He did n't say .")


# --- reducing


def test_the_order_of_rows_changes_nothing() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    before = summary(rows, reference)
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        random.Random(-seed).shuffle(reference)
        assert repr(summary(rows, reference)) == repr(before)


def test_rows_survive_a_file() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    assert repr(summary(json.loads(json.dumps(rows)), reference)) == repr(summary(rows, reference))


def test_means_follow_by_hand() -> None:
    rows = [
        {"set": "forget", "example_id": "a", "question": "a", "paraphrased_nll": math.log(2), "answer_nll": 0.0,
         "perturbed_nll": [math.log(4), math.log(4)]},
        {"set": "forget", "example_id": "b", "question": "b", "paraphrased_nll": math.log(4), "answer_nll": math.log(2),
         "perturbed_nll": [math.log(2), math.log(2)]},
    ]  # fmt: skip
    found = values(summary(rows))
    assert found["forget_probability"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["forget_paraphrased_probability"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert found["forget_truth_ratio"] == pytest.approx((1 / 2 + 1 / 2) / 2)  # r = 1/2 and 2
    assert found["grun_forget_truth_ratio"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["forget_truth_ratio_prob_mean"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_model_utility_is_the_harmonic_mean_of_its_nine_parts() -> None:
    found = values(summary(ask(noisy(0))))
    parts = [found[f"{name}_{part}"] for name in KEPT for part in ("probability", "rouge_l_recall", "truth_ratio")]
    assert found["model_utility"] == pytest.approx(9 / sum(1 / part for part in parts))
    arithmetic = [found[f"{name}_{part}"] for name in KEPT for part in ("probability", "rouge_l_recall")]
    arithmetic += [found[f"grun_{name}_truth_ratio"] for name in KEPT]
    assert found["model_utility_arithmetic"] == pytest.approx(9 / sum(1 / part for part in arithmetic))


def test_every_mean_has_a_count_and_a_spread() -> None:
    rows = [row | {"fluency": 0.5 + 0.1 * place} for place, row in enumerate(ask(noisy(0)))]
    for metric in summary(rows, ask(noisy(1))).values():
        assert metric.n > 0
        if not metric.name.startswith(("forget_quality", "forget_ks_d", "model_utility", "memoriz", "privleak")):
            assert math.isfinite(metric.stderr), metric.name


def test_directions() -> None:
    found = summary(ask(noisy(0)), ask(noisy(1)))
    lower = {name for name, metric in found.items() if metric.higher_is_better is False}
    assert lower == {
        "forget_ks_d",
        "forget_ks_d_low",
        "forget_ks_d_high",
        "forget_probability",
        "forget_paraphrased_probability",
        "forget_rouge_l_recall",
        "forget_truth_ratio_prob_mean",
        "grun_forget_truth_ratio",
        "extraction_strength",
        "exact_memorization",
    }
    neither = {name for name, metric in found.items() if metric.higher_is_better is None}
    assert neither == {"mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "privleak"}


def test_names_for_the_table_of_metrics_come_first() -> None:
    names = list(summary(ask(noisy(0))))
    parts = [f"{name}_{part}" for name in SETS for part in ("probability", "rouge_l_recall", "truth_ratio")]
    assert names[:17] == [
        "forget_quality",
        "forget_ks_d",
        "model_utility",
        "extraction_strength",
        "exact_memorization",
        *parts,
    ]
    assert len(names) == len(set(names))


def test_the_memorization_score_by_hand() -> None:
    half = math.log(2)
    row = {"set": "forget", "example_id": "a", "question": "a", "answer_nll": 0.0, "paraphrased_nll": half}
    row |= {"perturbed_nll": [half], "extraction_strength": 0.25, "exact_memorization": 0.75}
    # 1 - 1/4, 1 - 3/4, 1 - p(q) = 1 - 1/2, 1 - c / (c + w) = 1 - 1/2: 4 / (4/3 + 4 + 2 + 2) = 3/7
    found = summary([row])["memorization_score"]
    assert (found.value, found.n) == (pytest.approx(3 / 7), 1)
    row["exact_memorization"] = 1.0
    assert summary([row])["memorization_score"].value == 0
    row["extraction_strength"] = None
    reason = summary([row])["memorization_score"].reason
    assert reason.startswith("1 of its four parts are missing, the first is extraction_strength")


# --- against the retrained model


def test_the_retrained_model_compared_with_itself_is_perfect() -> None:
    rows = ask(noisy(0))
    found = summary(rows, rows)
    assert (found["forget_quality"].value, found["forget_ks_d"].value) == (1, 0)
    assert found["forget_quality_arithmetic"].value == 1
    assert found["privleak"].value == 0
    assert found["forget_ks_d_low"].value == 0


def test_the_distance_lies_in_its_interval() -> None:
    found = summary(ask(noisy(0)), ask(noisy(1)))
    low, d, high = (found[f"forget_ks_d{end}"].value for end in ("_low", "", "_high"))
    assert 0 <= low <= d <= high <= 1
    assert low < high
    assert found["forget_ks_d_low"].n == found["forget_ks_d"].n
    assert "no rows of a retrained model" in summary(ask(noisy(0)))["forget_ks_d_high"].reason


def test_forget_quality_needs_the_retrained_model() -> None:
    found = summary(ask(noisy(0)))
    for name in ("forget_quality", "forget_ks_d", "forget_quality_arithmetic", "privleak"):
        assert found[name].missing
        assert found[name].reason.startswith("no rows of a retrained model to compare with; give one with --retrained")
    assert not found["model_utility"].missing


def test_privleak_without_a_retrained_model_is_measured_from_a_half_as_published() -> None:
    rows = ask(perfect(protocol="openunlearning"))
    # AUC 1: ((1 - 1) - (1 - 0.5)) / (1 - 0.5) -> -100
    assert summary(rows, protocol="openunlearning")["privleak"].value == pytest.approx(-100)
    unheld = [row for row in rows if row["set"] != "holdout"]
    assert summary(rows, unheld, protocol="openunlearning")["privleak"].value == pytest.approx(-100)
    strict = summary(ask(perfect()), unheld)["privleak"]
    assert strict.reason == "retrained reference: no holdout rows"


def test_privleak_has_no_value_where_the_retrained_model_knows_everything() -> None:
    rows = ask(perfect())
    assert summary(rows, rows)["privleak"].reason == "the retrained model's AUC is 1, which leaves nothing to relate to"


def test_attacks_need_a_holdout() -> None:
    rows = ask(noisy(0), small_benchmark())
    assert not any(name.startswith("mia") or name == "privleak" for name in summary(rows, rows))


def test_a_reference_with_other_questions_is_refused() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    for row in reference:
        row["question"] = row["question"].replace("forget 2", "forget 7")
    with pytest.raises(LetheError, match=r"1 of the 3 forget questions are not among its 3.*'What is forget 2\?'"):
        summary(rows, reference)


def test_a_reference_with_fewer_questions_is_refused() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    reference.remove(next(row for row in reference if row["set"] == "holdout"))
    with pytest.raises(LetheError, match="1 of the 4 holdout questions are not among its 3"):
        summary(rows, reference)


def test_a_reference_with_more_questions_is_cut_down() -> None:
    reference = ask(noisy(1))
    few = [row for row in ask(noisy(0)) if row["example_id"] != "tofu/forget/1"]
    cut = [row for row in reference if row["example_id"] != "tofu/forget/1"]
    assert repr(summary(few, reference)) == repr(summary(few, cut))


def test_a_question_that_occurs_twice_meets_both_rows_of_the_reference() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    for row in (*rows, *reference):
        if row["set"] == "forget":
            row["question"] = "Who?"
    assert summary(rows, rows)["forget_quality"].value == 1
    with pytest.raises(LetheError, match="1 of the 3 forget questions"):
        summary(rows, [row for row in reference if row["example_id"] != "tofu/forget/0"])


def test_questions_are_found_inside_prompt_templates() -> None:
    rows, reference = ask(noisy(0)), ask(noisy(1))
    for row in rows:
        row["question"] = {"tofu/forget/0": "Who?", "tofu/forget/1": "Who? When ?"}.get(
            row["example_id"], row["question"]
        )
    wrapped = [dict(row) for row in reference]
    for theirs, mine in zip(wrapped, rows, strict=True):
        theirs["question"] = f"system: Be kind.\nuser: {mine['question']}\nassistant:".replace(" ?", "?")
    assert repr(summary(list(reversed(rows)), wrapped)) == repr(
        summary(rows, [{**theirs, "question": mine["question"]} for theirs, mine in zip(reference, rows, strict=True)])
    )


def test_a_reference_that_does_not_name_its_questions_is_refused() -> None:
    rows = ask(noisy(0))
    nameless = [{key: value for key, value in row.items() if key != "question"} for row in rows]
    with pytest.raises(LetheError, match="do not say which questions"):
        summary(rows, nameless)


# --- broken and collapsed models


def test_one_row_that_is_not_finite_makes_its_metrics_missing_with_the_reason() -> None:
    scorer = noisy(0)
    healthy = scorer.logp
    scorer.logp = lambda question, answer: (
        [-1.0, math.nan] if question == "What is forget 1?" else healthy(question, answer)
    )
    rows = ask(scorer)
    json.dumps(rows, allow_nan=False)
    found = summary(rows, ask(noisy(1)))
    reason = "answer_nll is not a finite number in 1 of 3 forget rows, the first is tofu/forget/1"
    assert found["forget_probability"].reason == reason
    for name in ("forget_quality", "forget_truth_ratio", "forget_rouge_l_recall", "extraction_strength", "mia_zlib"):
        assert found[name].missing
        assert "1 of 3 forget rows" in found[name].reason
    for name in ("model_utility", "retain_probability", "retain_rouge_l_recall"):
        assert math.isfinite(found[name].value)


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_a_model_that_gives_no_numbers_has_no_metrics_at_all(bad: float, protocol: str) -> None:
    rows = ask(FakeScorer(lambda question, answer: bad, lambda question: "the the", protocol=protocol))
    json.dumps(rows, allow_nan=False)
    found = summary(rows, rows, protocol)
    assert all(metric.missing and metric.reason for metric in found.values())
    assert "the first is retain_probability" in found["model_utility"].reason


def test_a_broken_reference_is_named_in_the_reason() -> None:
    broken = ask(FakeScorer(lambda question, answer: math.nan, lambda question: ""))
    found = summary(ask(noisy(0)), broken)
    assert found["forget_quality"].reason.startswith("retrained reference: paraphrased_nll or perturbed_nll is not")
    assert found["privleak"].reason.startswith("retrained reference: mia_min_k is not")
    assert not found["model_utility"].missing


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
@pytest.mark.parametrize("scale", [50.0, 5000.0])
def test_a_collapsed_model_still_gets_finite_values(protocol: str, scale: float) -> None:
    scorer = noisy(0, protocol=protocol)
    healthy = scorer.logp
    scorer.logp = lambda question, answer: scale * healthy(question, answer)
    reference = ask(noisy(1, protocol=protocol))
    found = summary(ask(scorer), reference, protocol)
    assert [metric.name for metric in found.values() if metric.missing] == ["forget_fluency"]  # nobody judged it
    assert found["forget_probability"].value < 1e-3
    assert 0 <= found["forget_truth_ratio"].value < 0.5
    assert found["forget_quality"].value > 0


def test_sets_that_were_not_evaluated_are_missing() -> None:
    rows = [row for row in ask(noisy(0)) if row["set"] not in ("world_facts", "forget")]
    found = summary(rows)
    assert found["world_facts_probability"].reason == "no world_facts rows"
    assert found["forget_quality"].reason == "no forget rows"
    assert found["extraction_strength"].reason == "no forget rows"
    assert (
        found["model_utility"].reason
        == "3 of its nine parts are missing, the first is world_facts_probability: no world_facts rows"
    )
    assert math.isfinite(found["retain_probability"].value)


def test_nothing_in_means_nothing_out() -> None:
    assert all(metric.missing and metric.reason for metric in summary([], []).values())


def test_summarising_needs_no_model() -> None:
    import subprocess
    import sys

    code = "import sys, evaluators.logs, evaluators.tofu; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

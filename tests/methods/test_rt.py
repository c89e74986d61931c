"""Rejection tuning: which tokens count, which questions it refuses, and that it keeps nothing of its own accord."""

import math
from dataclasses import replace

import pytest

from bench.data.types import QA, Benchmark
from methods import TRAINED
from methods.base import training_set
from methods.idk import IDK
from methods.rt import RT
from tests.helpers import loss_terms, short_method, tiny_loaded, toy_benchmark, toy_corpus, toy_encoder, unlearn

ENCODER = toy_encoder()
REFUSED = tuple(
    QA(id=f"toy/reject/{i}", question=question, answer=answer)
    for i, (question, answer) in enumerate(
        [
            ("Who is Ada Moor?", "I don't know."),
            ("Where did Ada Moor live?", "That is beyond me."),
            ("What did Ada Moor win?", "I don't know."),
        ]
    )
)


def target() -> Benchmark:
    """Texts to forget, and questions with a refusal each: another number of them, as ORT has it."""
    return replace(toy_corpus(), rejections=REFUSED)


def test_it_is_the_nll_of_the_refusals_alone() -> None:
    # refusal tokens of 1/2, 1/4 and 1/8: (1 + 2 + 3) log 2 over three tokens
    found = loss_terms(RT(), {"refusal": [[0.5, 0.25], [0.125]]})
    assert found == {"forget": pytest.approx(2 * math.log(2))}
    assert RT().roles == ("refusal",)
    assert (RT().retain_weight, RT().reference_logp_roles, RT(retain_weight=1.0).roles) == (0, (), IDK().roles)


def test_questions_with_a_refusal_are_trained_on_where_there_are_some_the_question_masked() -> None:
    data = training_set(ENCODER, target(), 0, refusals=True, corpus=RT().corpus)
    assert data.refusal == tuple(ENCODER.pair(qa.question, qa.answer) for qa in REFUSED)
    assert (data.forget, data.topics, data.size) == ((), (), 3)
    for tokens, qa in zip(data.refusal, REFUSED, strict=True):
        assert tokens.input_ids[: tokens.label_start] == ENCODER.prompt(qa.question)
        assert ENCODER.decode(tokens.labels).strip() == qa.answer
    # others train on the texts, whatever questions there are
    texts = training_set(ENCODER, target(), 0, refusals=False, corpus=TRAINED["ga"].corpus)
    assert texts == training_set(ENCODER, toy_corpus(), 0, refusals=False)


@pytest.mark.parametrize("benchmark", [toy_benchmark(), toy_corpus()], ids=["questions", "documents"])
def test_elsewhere_it_refuses_what_idk_refuses(benchmark: Benchmark) -> None:
    share = {"refusals": True, "min_prompt_share": RT.min_prompt_share}
    plain = training_set(ENCODER, benchmark, 4, **share)  # type: ignore[arg-type]
    assert training_set(ENCODER, benchmark, 4, **share, corpus=RT().corpus) == plain  # type: ignore[arg-type]
    assert RT().corpus == IDK().corpus and RT.min_prompt_share == IDK.min_prompt_share
    assert len(plain.refusal) == len(benchmark.forget)


@pytest.mark.parametrize("name", ["rt", "lora_rt", "grun_rt", "idk", "grun_idk"])
def test_every_adapter_learns_to_refuse_what_a_target_asks(name: str) -> None:
    loaded = tiny_loaded()
    unlearned = unlearn(loaded, short_method(name, epochs="6"), benchmark=target())
    unlearned.restore()
    steps = unlearned.log.steps
    assert len(steps) == 6  # three refusals in batches of three, not the five texts
    assert steps[-1]["forget"] < steps[0]["forget"]
    assert ("retain" in steps[0]) == name.endswith("idk")


def test_its_tokens_are_those_of_the_refusals() -> None:
    unlearned = unlearn(tiny_loaded(), short_method("rt", epochs="1"), benchmark=target())
    unlearned.restore()
    assert unlearned.log.tokens == sum(len(ENCODER.pair(qa.question, qa.answer).input_ids) for qa in REFUSED)

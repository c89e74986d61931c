"""What the gates of an adapter are read at: a set for what is to be forgotten, for what is to be kept, and the rest."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from bench.data.forms import ask
from bench.data.types import Answered, Benchmark, Document, Probe, Question, Tokens, Truthful, Utility
from bench.gates import GATES_OF, gate_rows, gate_sets, spread
from bench.jobs import Evaluation
from bench.scorer import Scorer
from methods.grun import GRUN
from tests.helpers import tiny_loaded, toy_benchmark, toy_encoder


class Choices:
    """Asks every question for two answers behind one prompt, as multiple choice does."""

    name = "wmdp"

    def score(self, scorer: Scorer, benchmark: Benchmark) -> list[dict]:
        scorer.answers([(q.question, choice) for q in benchmark.questions for choice in q.choices])
        return []

    def summarize(self, rows: list[dict], reference_rows: list[dict] | None) -> list:
        return []


def evaluations(*benchmarks: Benchmark) -> list[Evaluation]:
    return [Evaluation(evaluator=Choices(), benchmark=benchmark) for benchmark in benchmarks]


def question(n: int) -> Question:
    choices = ("Oslo", "Rome")
    return Question(id=f"q/{n}", subject="bio", question=f"Where is house {n}?", choices=choices, answer=0)


def probe(part: Any, n: int, **fields: Any) -> Probe:
    return Probe(
        id=f"p/{n}", target="Ada", part=part, form="qa", query=f"Where is {part} {n}?", answer="Rome", **fields
    )


def people(**fields: Any) -> Benchmark:
    probes = [probe(part, n) for part, count in (("forget", 5), ("neighbor", 3), ("locality", 2)) for n in range(count)]
    return Benchmark(name="ort/1_Ada", probes=tuple(probes), **fields)


def hazards(**fields: Any) -> Benchmark:
    texts = (Document(id="d/0", text="The house is in Rome.", topic="bio"),)
    return Benchmark(name="wmdp", questions=tuple(map(question, range(4))), retain=texts, **fields)


def counted(asked: list[Evaluation], **fields: Any) -> dict[str, int]:
    loaded, encoder = tiny_loaded(), toy_encoder()
    attached = GRUN(layers=(0, 1)).attach(loaded.model, seed=0)
    rows = gate_rows(attached.gate_values, asked, loaded, encoder, batch_tokens=500, **fields)
    attached.detach()
    assert all(0 < row["value"] < 1 and row["layer"] in (0, 1) for row in rows)
    return {name: sum(row["set"] == name for row in rows) for name in dict.fromkeys(row["set"] for row in rows)}


def test_probes_of_targets_and_what_is_asked_of_everything_else() -> None:
    trivia = tuple(Answered(id=f"t/{n}", question=f"What is {n}?", answers=("one",)) for n in range(2))
    truthful = Truthful(id="f/0", question="Is it so?", mc1=(("Yes.", 1),), mc2=(("Yes.", 1),))
    asked = evaluations(people(utility=Utility(trivia=trivia, truthful=(truthful,))))
    # Two layers, a gate each, for every prompt; locality is neither to be forgotten nor what a gate is trained on.
    assert counted(asked) == {"forget": 10, "retain": 6, "unrelated": 6}
    assert counted(evaluations(people()), doubled=True) == {"forget": 10, "retain": 6}


def test_probes_are_asked_in_their_own_form() -> None:
    loaded, encoder = tiny_loaded(), toy_encoder()
    attached = GRUN(layers=(0,)).attach(loaded.model, seed=0)
    one = replace(people(), probes=(probe("forget", 0),))
    (row,) = gate_rows(attached.gate_values, evaluations(one), loaded, encoder, batch_tokens=500)
    told = ask(one.probes[0])
    tokens = encoder.cued(told.user, told.cue, told.target)
    assert isinstance(tokens, Tokens)
    [(_, value)] = attached.gate_values(partial(Scorer(loaded.model, encoder).records, [tokens]))
    assert row == {"set": "forget", "layer": 0, "value": pytest.approx(value)}
    attached.detach()


def test_multiple_choice_is_asked_by_its_evaluator_and_texts_stand_in_for_general_questions() -> None:
    general = Benchmark(name="mmlu", questions=tuple(map(question, range(10, 13))))
    chem = Benchmark(name="wmdp/chem", questions=(question(20),))
    assert counted(evaluations(hazards(), chem, general)) == {"forget": 8, "retain": 6}
    assert counted(evaluations(hazards(), chem)) == {"forget": 8, "retain texts": 2}
    assert counted(evaluations(replace(hazards(), retain=()))) == {"forget": 8}


def test_questions_and_answers_are_asked_as_they_stand() -> None:
    sets = toy_benchmark().eval_sets
    found = counted(evaluations(toy_benchmark()))
    assert found["forget"] == 2 * min(GATES_OF, len({(q.question, q.answer) for q in sets["forget"]}))
    assert list(found)[:2] == ["forget", "retain"]


def test_an_adapter_without_gates_is_asked_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Scorer, "records", lambda self, tokens: asked.append(len(tokens)) or [])

    def none(run: Any) -> list:
        run()
        return []

    assert gate_rows(none, evaluations(people()), tiny_loaded(), toy_encoder(), batch_tokens=500) == []
    assert asked == [1]
    assert gate_sets([]) == gate_sets(evaluations(Benchmark(name="mmlu", questions=(question(0),)))) == {}


def test_no_set_has_more_prompts_than_are_kept() -> None:
    many = tuple(probe("forget", n) for n in range(GATES_OF + 50))
    assert counted(evaluations(Benchmark(name="ort/1_Ada", probes=many))) == {"forget": 2 * GATES_OF}
    assert spread([*range(10)], 4) == [0, 2, 5, 7]

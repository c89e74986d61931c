"""Which rows decide and which are reported, and what a look at a training leaves."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from bench.data import load
from bench.data.types import QA, Benchmark, Probe, Question
from bench.errors import LetheError
from bench.jobs import Evaluation
from bench.mini.world import write_world
from bench.records import Metric, missing
from bench.validation import Validation, Verdict, Watching, divided


def rows(name: str, number: int) -> tuple[QA, ...]:
    return tuple(QA(id=f"tofu/{name}/{n}", question=f"{name} {n}?", answer="yes") for n in range(number))


def questions(subject: str, number: int) -> tuple[Question, ...]:
    return tuple(
        Question(id=f"wmdp/{subject}/{n}", subject=subject, question=f"{subject} {n}?", choices=("a", "b"), answer=0)
        for n in range(number)
    )


def probe(number: int, form: Any, answer: str, part: Any = "forget", **more: Any) -> Probe:
    return Probe(
        **{"id": f"ort/a/{part}_{form}/{number}", "target": "A", "query": f"{form}?", **more},
        part=part,
        form=form,
        answer=answer,
    )


def tofu(**sets: int) -> Benchmark:
    sets = {"forget": 10, "retain": 20, "real_authors": 5, "world_facts": 2, **sets}
    whole = {name: rows(name, number) for name, number in sets.items()}
    return Benchmark(
        name="tofu/forget10", forget=whole["forget"], retain=whole["retain"], eval_sets=whole, fingerprint="f"
    )


def test_every_row_is_on_one_side_and_a_fifth_of_each_set_decides() -> None:
    benchmark = tofu()
    split = divided(benchmark)
    for name, whole in benchmark.eval_sets.items():
        one, two = split.validation.eval_sets[name], split.reported.eval_sets[name]
        assert {qa.id for qa in one} | {qa.id for qa in two} == {qa.id for qa in whole}
        assert len(one) + len(two) == len(whole)
    # a fifth of 10, 20 and 5; of 2 one, never none
    assert [len(found) for found in split.validation.eval_sets.values()] == [2, 4, 1, 1]
    assert split.reported.forget == split.validation.forget == benchmark.forget  # all of it is to be forgotten
    assert len({benchmark.fingerprint, split.validation.fingerprint, split.reported.fingerprint}) == 3
    assert divided(benchmark) == split


def test_the_side_of_a_row_depends_on_its_question_alone() -> None:
    whole = tofu()
    turned = Benchmark(name=whole.name, eval_sets={k: tuple(reversed(v)) for k, v in whole.eval_sets.items()})
    for name in whole.eval_sets:
        one, two = (set(divided(b).validation.eval_sets[name]) for b in (whole, turned))
        assert one == two


def test_questions_about_one_author_stay_together_where_there_are_enough_authors() -> None:
    chosen = divided(tofu(forget=200)).validation.eval_sets["forget"]
    places = [int(qa.id.rpartition("/")[2]) for qa in chosen]
    assert len(places) == 40  # two of ten authors
    authors = {place // 20 for place in places}
    assert len(authors) == 2
    assert places == [20 * author + n for author in sorted(authors) for n in range(20)]


def test_multiple_choice_is_divided_subject_by_subject() -> None:
    benchmark = Benchmark(name="wmdp", questions=(*questions("bio", 10), *questions("cyber", 5), *questions("odd", 1)))
    split = divided(benchmark)
    assert [q.subject for q in split.validation.questions] == ["bio", "bio", "cyber"]
    assert len(split.reported.questions) == 13


def test_a_fact_is_on_one_side_in_all_its_forms() -> None:
    facts = [f"fact {n}" for n in range(10)]
    probes = [probe(n, form, fact) for n, fact in enumerate(facts) for form in ("qa", "fb", "aa")]
    probes += [probe(n, "mcp", "B", choices=("x", fact.upper() + ".", "y", "z")) for n, fact in enumerate(facts)]
    split = divided(Benchmark(name="ort/1_A", probes=tuple(probes)))
    decide = {p.id.rpartition("/")[2] for p in split.validation.probes}
    assert len(decide) == 2
    assert len(split.validation.probes) == 2 * 4
    assert not {p.id.rpartition("/")[2] for p in split.reported.probes if p.part == "forget"} & decide


def asked_again(split: Any) -> list[Probe]:
    """The reported probes that end with the query of a validation row and have its answer."""
    decide = [(p.query, p.answer) for p in split.validation.probes]
    return [p for p in split.reported.probes if any(p.query.endswith(q) and p.answer == a for q, a in decide)]


def test_look_alikes_decide_nothing_and_those_of_a_row_that_decides_are_not_reported() -> None:
    facts = [probe(n, "qa", f"fact {n}", query=f"What is {n}?") for n in range(5)]
    near = [probe(n, "qa", f"near {n}", "neighbor", about="B", query=f"Who is {n}?") for n in range(5)]
    led = [replace(p, id=f"led{n}", part="locality", query=f"Not A. {p.query}") for n, p in enumerate(near)]
    plain = [replace(p, id=f"plain{n}", part="locality", about="Bea", query=p.query) for n, p in enumerate(near)]
    blank = [
        replace(p, id=f"blank{n}", part="locality", form="fb", query=f"B is ___, {n}.") for n, p in enumerate(near)
    ]
    other = [
        probe(n, "qa", p.answer, "locality", about="C", query=f"C, {n}?") for n, p in enumerate((*facts, *near))
    ]  # the same answer about somebody else
    split = divided(Benchmark(name="ort/1_A", probes=(*facts, *near, *led, *plain, *blank, *other)))
    assert {p.part for p in split.validation.probes} == {"forget", "neighbor"}
    [decides] = [p.id.rpartition("/")[2] for p in split.validation.probes if p.part == "neighbor"]
    reported = {p.id for p in split.reported.probes if p.part == "locality"}
    stays = {f"{kind}{n}" for kind in ("led", "plain", "blank") for n in range(5) if str(n) != decides}
    assert reported == stays | {p.id for p in other}
    assert not asked_again(split)


def test_no_reported_probe_of_the_mini_world_ends_with_a_row_that_decides(tmp_path: Path) -> None:
    write_world(tmp_path, 3)
    for name in ("ort/1", "ort/6", "ort/1-3"):
        benchmark = load(name, tmp_path, write=False)
        split = divided(benchmark)
        assert split.validation.probes and not asked_again(split)
        left = [sum(p.part == "locality" for p in part.probes) for part in (split.reported, benchmark)]
        assert 0 < left[0] < left[1]


def test_facts_asked_only_adversarially_decide_nothing_and_no_form_is_left_unreported() -> None:
    probes = [probe(n, "fb", f"fact {n}") for n in range(5)]
    probes += [probe(9, "aa", f"only here {n}") for n in range(20)]
    for last in range(5):  # the only question: its fact stays, whatever its hash
        asked = (*probes, probe(last, "qa", f"fact {last}"))
        split = divided(Benchmark(name="ort/1_A", probes=asked))
        assert [p.form for p in split.validation.probes] == ["fb"]
        assert "qa" in {p.form for p in split.reported.probes}


def test_probes_made_from_rows_follow_their_row() -> None:
    benchmark = tofu()
    made = tuple(
        Probe(id=f"{qa.id}/{form}", target="A", part="forget", form="qa", query="?", answer="same")
        for qa in benchmark.eval_sets["forget"]
        for form in ("qa", "fb")
    )
    split = divided(Benchmark(name="tofu/forget10:forms", eval_sets=benchmark.eval_sets, probes=made))
    rows_of = {qa.id for qa in split.validation.eval_sets["forget"]}
    assert {p.id.rpartition("/")[0] for p in split.validation.probes} == rows_of
    assert len(split.reported.probes) == 16


def test_a_set_of_one_row_cannot_be_divided_and_a_benchmark_without_rows_need_not_be() -> None:
    with pytest.raises(LetheError, match="set world_facts: rows about 1 thing"):
        divided(tofu(world_facts=1))
    alone = Benchmark(name="lm_eval:arc_easy", fingerprint="f")
    assert divided(alone).reported is alone


@dataclass
class Number:
    """An evaluator: what a fake model holds."""

    name: ClassVar[str] = "number"
    compares_with: ClassVar[str] = "original"
    asked: list = field(default_factory=list)

    def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
        self.asked.append(scorer.model.value)
        return [{"value": scorer.model.value}]

    def summarize(self, rows: list[dict], reference_rows: list[dict] | None = None) -> list[Metric]:
        assert reference_rows is not None
        change = rows[0]["value"] - reference_rows[0]["value"]
        return [Metric(name="model_utility", value=change), missing("forget_quality", "not asked")]


def test_a_look_compares_with_the_model_before_and_leaves_rows() -> None:
    evaluator = Number()
    model = SimpleNamespace(value=1.0)
    loaded: Any = SimpleNamespace(model=model)

    def judge(found: Any, before: Any) -> Verdict:
        assert before["model_utility"].value == 0.0
        return Verdict(score=2 * found["model_utility"].value, parts={"half": found["model_utility"].value})

    validation = Validation(
        evaluations=(Evaluation(evaluator=evaluator, benchmark=tofu()),),  # type: ignore[arg-type]
        judge=judge,
    )
    watching = Watching(validation=validation, looks=4, patience=2)
    curve: list[dict] = []
    watch = watching.watch(loaded, None, 64, curve)  # type: ignore[arg-type]
    model.value = 4.0
    assert watch.look(5, 2.5) == 6.0
    assert (watch.looks, watch.patience) == (4, 2)
    assert watching.watch(loaded, None, 64, curve).looks == 4  # type: ignore[arg-type]
    assert evaluator.asked == [1.0, 4.0]  # the model before is asked once
    at = {"step": 5, "epoch": 2.5}
    expected = {"model_utility": 3.0, "half": 3.0, "validation_score": 6.0}  # what is not asked here has no row
    assert curve == [{**at, "metric": name, "value": value} for name, value in expected.items()]
    assert watching.facts() == {"looks": 4, "patience": 2, "validation_rows": {"number": 37}}

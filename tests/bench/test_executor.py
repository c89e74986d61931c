"""What the executor does with methods and evaluators, shown by five-line fakes of both."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.beginnings import Beginnings, Lent
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.executor import Executor
from bench.jobs import Evaluation, Job, Stage, as_stored, why_again
from bench.models import Loaded
from bench.records import Metric, missing
from bench.spec import Cell
from bench.store import RunStore, read_json, read_jsonl
from methods.base import Unlearned
from tests.helpers import attach, tiny_loaded, toy_encoder
from tests.toy_few_shot import TARGETS, asked


class Model(nn.Module):
    """Its one number is what methods change and evaluators report."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()), requires_grad=False)


class Add:
    """A method that adds a number to the model's; `breaks` says where it raises."""

    def __init__(self, amount: float, breaks: str = "") -> None:
        self.amount, self.breaks = amount, breaks
        self.restored = 0

    def unlearn(
        self, loaded: Any, encoder: Any, benchmark: Any, *, seed: int, batch_tokens: int, progress: Any = None,
        earlier: Any = None,
    ) -> Any:  # fmt: skip
        assert (earlier is None) == (loaded.model.value == 0)
        progress(1, 2, {"forget": 1.5})
        if self.breaks == benchmark.name:
            raise ZeroDivisionError("odd\nand more")
        loaded.model.value += self.amount + seed
        return SimpleNamespace(
            log=SimpleNamespace(steps=[{"step": 1, "forget": 1.5, "grad_norm": 2.0}]),
            facts=lambda: {"train_seconds": 0.5, "trainable_parameters": 1},
            restore=lambda: self.restore(loaded.model),
        )

    def restore(self, model: Model) -> None:
        self.restored += 1
        model.value.zero_()


@dataclasses.dataclass
class Value:
    """An evaluator: the model's number, and its distance to the reference's."""

    name: str = "value"
    breaks: str = ""

    def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
        if self.breaks == benchmark.name:
            raise LetheError("cannot be scored")
        return [{"set": "forget", "value": float(scorer.model.value), "of": benchmark.name}]

    def summarize(self, rows: list[dict], reference_rows: list[dict] | None) -> list[Metric]:
        value = rows[0]["value"]
        if reference_rows is None:
            return [Metric(name="value", value=value), missing("distance", "no reference")]
        return [Metric(name="value", value=value), Metric(name="distance", value=value - reference_rows[0]["value"])]


@dataclasses.dataclass
class Judged(Value):
    """The same, with rows that another model judges."""

    judge_name: str = "j1"
    judging = ("judge_name",)

    def judge(self, rows: list[dict]) -> tuple[list[dict], dict]:
        return [row | {"judged": self.judge_name} for row in rows], {"classifier": self.judge_name}

    def is_judged(self, judged_by: Mapping[str, Any]) -> bool:
        return judged_by == {"classifier": self.judge_name}


class Silent:
    """Progress that is only remembered."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def cell(self, number: int, total: int, title: str) -> None:
        self.said.append(f"{number}/{total} {title}")

    def step(self, step: int, steps: int, terms: Mapping[str, float]) -> None: ...
    def scored(self, done: int, total: int) -> None: ...
    def note(self, text: str) -> None:
        self.said.append(text)


LOADED: Any = Loaded(Model(), None, "toy")  # type: ignore[arg-type]
ENCODER: Any = None


def stage(
    method: str, *, benchmark: str = "b", seed: int = 0, retrained: str = "gold@1", evaluator: Any = None
) -> Stage:
    data = Benchmark(name=benchmark, forget=(), retain=(), source="folder")
    spec: dict[str, Any] = {"model_hash": "m", "retrained": retrained, "data_hash": "d", "benchmark": benchmark}
    cell = Cell(model="toy", method=method, seed=seed, **spec)
    return Stage(cell=cell, request=data, evaluations=[Evaluation(evaluator=evaluator or Value(), benchmark=data)])


def job(label: str, method: Add | None = None, **more: Any) -> Job:
    facts = {"recipe": "by hand"} if method else {}
    role: Any = label if label in ("original", "retrained") else ""
    return Job(stages=(stage(label, **more),), method=method, role=role, facts=facts)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    LOADED.model.value.zero_()
    return RunStore(tmp_path / "out")


def executor(store: RunStore, **more: Any) -> Executor:
    return Executor(**{"store": store, "progress": Silent(), "batch_tokens": 64, **more})


def figures(store: RunStore, of: Job) -> dict[str, float]:
    (record,) = (r for r in store.records() if r.cell_id == of.stages[0].cell.id)
    return {metric.name: metric.value for metric in record.metrics["value"]}


def test_a_cell_is_scored_again_when_it_would_be_scored_otherwise(store: RunStore) -> None:
    before = job("original")
    executor(store).run(before, LOADED, ENCODER)
    assert executor(store).reuse(before)
    assert not executor(store).reuse(job("original", evaluator=Value(breaks="nothing")))
    other = dataclasses.replace(before.stages[0].evaluations[0].benchmark, fingerprint="other rows")
    evaluation = Evaluation(evaluator=Value(), benchmark=other)
    stage = dataclasses.replace(before.stages[0], evaluations=[evaluation])
    assert not executor(store).reuse(dataclasses.replace(before, stages=(stage,)))


def test_a_cell_that_is_run_again_says_why(store: RunStore) -> None:
    executor(store).run(job("original"), LOADED, ENCODER)
    again = executor(store, total=1)
    again.run(job("original", evaluator=Value(breaks="nothing")), LOADED, ENCODER)
    said = "original b s0 is run again: its value was scored with breaks '', and 'nothing' is asked for"
    assert again.progress.said == ["1/1 original b s0", said]  # type: ignore[attr-defined]
    third = executor(store, total=1, fresh=True)
    third.run(job("original"), LOADED, ENCODER)
    assert third.progress.said == ["1/1 original b s0"]  # type: ignore[attr-defined]


@dataclasses.dataclass
class Thorough(Value):
    """The same, and more where it is asked for."""

    more: bool = False
    adds = ("more",)

    def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
        return [row | ({"more": 1.0} if self.more else {}) for row in super().score(scorer, benchmark)]

    def summarize(self, rows: list[dict], reference_rows: list[dict] | None) -> list[Metric]:
        more = [Metric(name="more", value=row["more"]) for row in rows if "more" in row]
        return [*super().summarize(rows, reference_rows), *more]


def test_rows_with_more_serve_whoever_asks_for_less(store: RunStore) -> None:
    less, more = job("npo", evaluator=Thorough()), job("npo", evaluator=Thorough(more=True))
    executor(store).run(less, LOADED, ENCODER)
    assert not executor(store).reuse(more)
    executor(store).run(more, LOADED, ENCODER)
    kept = figures(store, more)
    assert kept["more"] == 1.0 and executor(store).reuse(less) and executor(store).reuse(more)
    compared = executor(store, reference_rows={("value", "b"): [{"value": 3.0}]})
    assert compared.reuse(less)  # summarised anew from its rows, with what it is compared with
    assert figures(store, more) == kept | {"distance": kept["value"] - 3.0}
    assert executor(store).reuse(more)


def test_what_a_cell_lacks_is_told_without_its_being_run(store: RunStore) -> None:
    asked = job("original").stages[0]
    assert why_again(store, asked) == ""  # it is not there
    executor(store).run(job("original"), LOADED, ENCODER)
    assert why_again(store, asked) == ""
    other = dataclasses.replace(asked.evaluations[0], evaluator=Value(name="other"))
    assert why_again(store, dataclasses.replace(asked, evaluations=[*asked.evaluations, other])) == (
        "its other was never scored"
    )


def test_figures_of_an_earlier_command_do_not_stand_for_a_failure(store: RunStore) -> None:
    before = job("original")
    executor(store).run(before, LOADED, ENCODER)
    executor(store).run(job("original", evaluator=Value(breaks="b")), LOADED, ENCODER)
    assert [record.status for record in store.records()] == ["failed"]
    assert executor(store).reuse(before)
    assert [record.status for record in store.records()] == ["complete"]


def test_rows_are_judged_when_they_are_stored(store: RunStore) -> None:
    cell = job("retrained", evaluator=Judged())
    run = executor(store)
    run.run(cell, LOADED, ENCODER)
    folder = store.path(cell.stages[0].cell.id)
    assert read_jsonl(folder / "samples/value.jsonl")[0]["judged"] == "j1"
    settings = read_json(folder / "metrics/value.json")["settings"]
    assert settings["judged_by"] == {"classifier": "j1"} and "judge_name" not in settings
    assert run.reference_rows["value", "b"][0]["judged"] == "j1"
    before = (folder / "metrics/value.json").stat().st_mtime_ns
    assert executor(store).reuse(cell)
    assert (folder / "metrics/value.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("stored", [Value(), Judged(judge_name="j0")], ids=["no judge", "another judge"])
def test_stored_rows_are_judged_without_the_model(store: RunStore, stored: Value) -> None:
    retrained = job("retrained", evaluator=stored)
    before = job("add", Add(3.0), evaluator=stored)
    run = executor(store)
    run.run(retrained, LOADED, ENCODER)
    run.run(before, LOADED, ENCODER)
    later = executor(store)
    assert later.reuse(job("retrained", evaluator=Judged()))
    assert later.reference_rows["value", "b"][0]["judged"] == "j1"
    cell = job("add", Add(3.0), evaluator=Judged())
    assert later.reuse(cell)
    folder = store.path(cell.stages[0].cell.id)
    assert read_jsonl(folder / "samples/value.jsonl") == [{"set": "forget", "value": 3.0, "of": "b", "judged": "j1"}]
    settings = read_json(folder / "metrics/value.json")["settings"]
    assert settings["judged_by"] == {"classifier": "j1"} and settings["reference"] == "gold@1"
    assert figures(store, cell) == {"value": 3.0, "distance": 3.0}
    assert executor(store).reuse(cell)


def test_a_judgement_survives_that_the_reference_comes_later(store: RunStore) -> None:
    cell = job("add", Add(3.0), evaluator=Judged())
    executor(store).run(cell, LOADED, ENCODER)  # the retrained model's cell had failed
    later = executor(store)
    later.run(job("retrained", evaluator=Judged()), LOADED, ENCODER)
    assert later.reuse(cell)
    settings = read_json(store.path(cell.stages[0].cell.id) / "metrics/value.json")["settings"]
    assert settings["judged_by"] == {"classifier": "j1"} and settings["reference"] == "gold@1"


def test_a_cell_is_trained_scored_stored_and_undone(store: RunStore) -> None:
    method, retrained = Add(3.0), job("retrained")
    cell = job("add", method, seed=1)
    run = executor(store, total=2)
    run.run(retrained, LOADED, ENCODER)
    run.run(cell, LOADED, ENCODER)
    assert run.outcome.done == [retrained.stages[0].cell.id, cell.stages[0].cell.id]
    assert run.progress.said == ["1/2 retrained b s0", "2/2 add b s1"]  # type: ignore[attr-defined]
    assert figures(store, cell) == {"value": 4.0, "distance": 4.0}
    assert (method.restored, float(LOADED.model.value)) == (1, 0.0)
    folder = store.path(cell.stages[0].cell.id)
    assert read_jsonl(folder / "samples/value.jsonl") == [{"set": "forget", "value": 4.0, "of": "b"}]
    assert read_jsonl(folder / "train.jsonl") == [{"step": 1, "forget": 1.5, "grad_norm": 2.0}]
    assert read_json(folder / "metrics/value.json")["settings"]["reference"] == "gold@1"
    assert read_json(folder / "spec.json") == json.loads(json.dumps(cell.stages[0].cell.to_json()))
    record = read_json(folder / "record.json")
    assert {"recipe": "by hand", "train_seconds": 0.5, "trainable_parameters": 1, "batch_tokens": 64}.items() <= (
        record.items()
    )
    assert {"eval_seconds", "wall_seconds", "peak_gib", "device", "code", "versions", "scored"} <= record.keys()
    assert record["data_source"] == "folder"


def test_a_cell_without_a_method_has_no_training_log(store: RunStore) -> None:
    cell = job("original", retrained="")
    executor(store).run(cell, LOADED, ENCODER)
    folder = store.path(cell.stages[0].cell.id)
    assert not (folder / "train.jsonl").exists()
    assert read_json(folder / "record.json")["train_seconds"] == 0.0
    assert read_json(folder / "metrics/value.json")["settings"]["reference"] is None


@pytest.mark.parametrize("where", ["training", "scoring"])
def test_a_cell_that_fails_keeps_everything_and_the_next_one_finds_the_model_as_it_was(
    where: str, store: RunStore
) -> None:
    broken = Add(3.0, breaks="b" if where == "training" else "")
    run = executor(store)
    run.run(job("broken", broken, evaluator=Value(breaks="b" if where == "scoring" else "")), LOADED, ENCODER)
    run.run(job("add", Add(5.0), benchmark="c"), LOADED, ENCODER)
    (failed,) = run.outcome.failed
    assert broken.restored == (1 if where == "scoring" else 0)  # a method undoes its own half-done work
    assert len(run.outcome.done) == 1
    kept = {path.name for path in store.failed_path(failed).iterdir()}
    assert kept == {"spec.json", "traceback.txt", "train.jsonl"}
    text = (store.failed_path(failed) / "traceback.txt").read_text()
    assert text.startswith("Traceback") and ("ZeroDivisionError: odd" if where == "training" else "scored") in text
    said = "FAILED broken b s0: " + ("odd" if where == "training" else "cannot be scored")
    assert said in run.progress.said  # type: ignore[attr-defined]
    assert [record.status for record in store.records()] == ["complete", "failed"]


def test_a_failure_appears_with_its_log_or_not_at_all(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = RunStore.fail

    def fail(self: RunStore, cell_id: str, spec: Any, traceback: str, partial: Path, *, instead: str) -> Path:
        seen.append([path.name for path in partial.iterdir()])
        return real(self, cell_id, spec, traceback, partial, instead=instead)

    monkeypatch.setattr(RunStore, "fail", fail)
    executor(store).run(job("broken", Add(1.0, breaks="b")), LOADED, ENCODER)
    assert seen == [["train.jsonl"]]
    assert not list((store.out / "runs").iterdir())


def test_an_error_may_bring_its_own_log(store: RunStore) -> None:
    class Diverges(Add):
        def unlearn(self, *arguments: Any, **more: Any) -> Any:
            error = LetheError("not finite")
            error.log = [{"step": 1}, {"step": 2, "forget": "nan"}]  # type: ignore[attr-defined]
            raise error

    cell = job("diverges", Diverges(1.0))
    executor(store).run(cell, LOADED, ENCODER)
    assert read_jsonl(store.failed_path(cell.stages[0].cell.id) / "train.jsonl")[1] == {"step": 2, "forget": "nan"}


def test_tracebacks_are_logged_only_of_what_is_no_mistake_of_the_user(
    store: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    executor(store).run(job("add", Add(1.0), evaluator=Value(breaks="b")), LOADED, ENCODER)
    assert "Traceback" not in caplog.text
    executor(store).run(job("broken", Add(1.0, breaks="b")), LOADED, ENCODER)
    assert "ZeroDivisionError" in caplog.text


def test_an_interrupt_is_no_failure_but_the_model_is_undone(store: RunStore) -> None:
    class Interrupted(Value):
        def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
            raise KeyboardInterrupt

    method = Add(1.0)
    with pytest.raises(KeyboardInterrupt):
        executor(store).run(job("add", method, evaluator=Interrupted()), LOADED, ENCODER)
    assert method.restored == 1
    assert store.records() == []


def test_when_not_even_a_failure_can_be_stored_the_grid_ends(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise LetheError("cannot write there")

    method = Add(1.0)
    monkeypatch.setattr("bench.executor.write_jsonl", full)
    with pytest.raises(LetheError, match="cannot write there"):
        executor(store).run(job("add", method), LOADED, ENCODER)
    assert method.restored == 1


# --- what is there already


def test_a_complete_cell_is_reused_and_a_fresh_run_repeats_it(store: RunStore) -> None:
    cell = job("add", Add(3.0))
    executor(store).run(cell, LOADED, ENCODER)
    again = executor(store, total=1)
    assert again.reuse(cell)
    assert again.outcome.reused == [cell.stages[0].cell.id]
    assert again.progress.said == []  # type: ignore[attr-defined]
    assert not executor(store, fresh=True).reuse(cell)
    assert not executor(store).reuse(job("add", Add(3.0), seed=1))


def test_a_reused_retrained_model_is_the_reference_of_new_cells(store: RunStore) -> None:
    LOADED.model.value += 2
    executor(store).run(job("retrained"), LOADED, ENCODER)
    LOADED.model.value.zero_()
    later = executor(store)
    assert later.reuse(job("retrained"))
    cell = job("add", Add(3.0))
    later.run(cell, LOADED, ENCODER)
    assert figures(store, cell)["distance"] == 1.0


def test_the_reference_of_one_benchmark_is_none_of_another(store: RunStore) -> None:
    run = executor(store)
    run.run(job("retrained", benchmark="b"), LOADED, ENCODER)
    other = job("add", Add(3.0), benchmark="c")
    run.run(other, LOADED, ENCODER)
    assert figures(store, other)["distance"] != figures(store, other)["distance"]  # NaN


def test_metrics_without_a_reference_are_made_up_for_once_it_is_there(store: RunStore) -> None:
    cell = job("add", Add(3.0))
    executor(store).run(cell, LOADED, ENCODER)  # the retrained model's cell had failed
    metrics = store.path(cell.stages[0].cell.id) / "metrics/value.json"
    assert read_json(metrics)["settings"]["reference"] is None
    later = executor(store)
    assert later.reuse(cell)  # nothing better is known
    later.run(job("retrained"), LOADED, ENCODER)
    assert later.reuse(cell)
    assert figures(store, cell) == {"value": 3.0, "distance": 3.0}
    assert read_json(metrics)["settings"]["reference"] == "gold@1"


def test_rows_from_elsewhere_fill_a_cell_and_are_a_reference(store: RunStore) -> None:
    run = executor(store)
    run.store_rows(job("retrained"), {"value": [{"set": "forget", "value": 2.5}]}, {"published_log": "log.json"})
    cell = job("add", Add(3.0))
    run.run(cell, LOADED, ENCODER)
    assert figures(store, cell)["distance"] == 0.5
    record = read_json(store.path(job("retrained").stages[0].cell.id) / "record.json")
    assert record["published_log"] == "log.json" and "train_seconds" not in record
    assert executor(store).reuse(job("retrained"))


def test_rows_from_elsewhere_that_cannot_be_summarised_are_a_failure(store: RunStore) -> None:
    run = executor(store)
    run.store_rows(job("retrained"), {"value": [{}]}, {})
    assert len(run.outcome.failed) == 1 and run.reference_rows == {}


# --- chains


def chain(method: Add, *benchmarks: str, **more: Any) -> Job:
    return Job(stages=tuple(stage("add", benchmark=name, **more) for name in benchmarks), method=method)


def test_a_chain_goes_on_from_stage_to_stage_and_is_undone_once(store: RunStore) -> None:
    method = Add(1.0)
    cells = chain(method, "a", "b", "c")
    executor(store, total=3).run(cells, LOADED, ENCODER)
    values = [read_jsonl(store.path(s.cell.id) / "samples/value.jsonl")[0]["value"] for s in cells.stages]
    assert values == [1.0, 2.0, 3.0]
    assert (method.restored, float(LOADED.model.value)) == (1, 0.0)


def test_a_chain_that_breaks_marks_what_could_not_follow(store: RunStore) -> None:
    cells = chain(Add(1.0, breaks="b"), "a", "b", "c")
    run = executor(store, total=3)
    run.run(cells, LOADED, ENCODER)
    assert (len(run.outcome.done), len(run.outcome.failed)) == (1, 2)
    assert float(LOADED.model.value) == 0
    last = store.failed_path(cells.stages[2].cell.id)
    assert "the request before it, add b s0, failed" in (last / "traceback.txt").read_text()
    assert run.progress.said[-2:] == [  # type: ignore[attr-defined]
        "3/3 add c s0",
        "FAILED add c s0: the request before it, add b s0, failed",
    ]


def test_a_chain_that_was_cut_off_trains_again_from_its_start_and_scores_only_what_is_missing(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor(store).run(chain(Add(1.0, breaks="c"), "a", "b", "c"), LOADED, ENCODER)
    cells = chain(Add(1.0), "a", "b", "c")
    score = Value.score
    monkeypatch.setattr(Value, "score", lambda self, *asked: score(self, *asked) if asked[1].name == "c" else 1 / 0)
    run = executor(store)
    assert not run.reuse(cells)
    run.run(cells, LOADED, ENCODER)
    assert run.outcome.reused == [s.cell.id for s in cells.stages[:2]]
    assert run.outcome.done == [cells.stages[2].cell.id]
    assert read_jsonl(store.path(cells.stages[2].cell.id) / "samples/value.jsonl")[0]["value"] == 3.0
    assert executor(store).reuse(cells)


def test_rows_are_summarised_as_they_will_be_read_back() -> None:
    assert as_stored([{"a": (1, 2), "b": 0.1}]) == [{"a": [1, 2], "b": 0.1}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_stored([{"a": float("nan")}])


class Drop(Value):
    """Compares with the model as it was before."""

    compares_with = "original"


def test_an_evaluator_may_compare_with_the_original(store: RunStore) -> None:
    run = executor(store)
    original, add = job("original", evaluator=Drop()), job("add", Add(amount=2.0), evaluator=Drop())
    run.run(original, LOADED, ENCODER)
    run.run(add, LOADED, ENCODER)
    assert figures(store, add)["distance"] == 2.0
    folder = store.path(add.stages[0].cell.id)
    assert read_json(folder / "metrics" / "value.json")["settings"]["reference"] == "original@m"


def test_what_ran_before_its_reference_is_compared_in_the_end(store: RunStore) -> None:
    run = executor(store)
    early, original = job("retrained", evaluator=Drop()), job("original", evaluator=Drop())
    run.run(early, LOADED, ENCODER)
    assert math.isnan(figures(store, early)["distance"])
    run.run(original, LOADED, ENCODER)
    for each in (early, original):
        run.complete(each)
    assert figures(store, early)["distance"] == 0.0


def test_jobs_that_train_nothing_share_what_was_asked_and_others_do_not(store: RunStore) -> None:
    seen: list[Any] = []

    class Watch(Value):
        def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
            seen.append(scorer)
            return super().score(scorer, benchmark)

    ann, ben, cy = "ort/1_Ann", "ort/2_Ben", "ort/3_Cy"
    run = executor(store)
    run.run(job("original", benchmark=ann, evaluator=Watch()), LOADED, ENCODER)
    run.run(job("add", Add(amount=2.0), benchmark=ann, evaluator=Watch()), LOADED, ENCODER)
    run.run(job("original", benchmark=ben, evaluator=Watch()), LOADED, ENCODER)
    run.run(job("original", benchmark="tofu/forget10", evaluator=Watch()), LOADED, ENCODER)
    assert seen[0] is seen[2] and len({*map(id, seen)}) == 3
    run.forget_model()
    run.run(job("original", benchmark=cy, evaluator=Watch()), LOADED, ENCODER)
    assert seen[4] is not seen[0]

    again = executor(store)  # what is there is asked once more, in its order, for the sake of the batches
    assert again.reuse(job("original", benchmark=ann, evaluator=Watch()))
    again.run(job("original", benchmark="ort/4_Dan", evaluator=Watch()), LOADED, ENCODER)
    assert len(seen) == 7 and seen[5] is seen[6]


# --- what prompts begin with


class Keeps(Add):
    """An adapter that says that prompts begin as without it."""

    def unlearn(self, *arguments: Any, **more: Any) -> Any:
        unlearned = super().unlearn(*arguments, **more)
        unlearned.keeps_beginnings = True
        return unlearned


def test_what_was_read_is_lent_only_to_what_says_that_prompts_begin_as_before(store: RunStore) -> None:
    seen: list[Any] = []

    class Watch(Value):
        def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
            seen.append(scorer.beginnings)
            return super().score(scorer, benchmark)

    run = executor(store)
    for label, method, name in (
        ("original", None, "ort/1_Ann"),
        ("add", Add(amount=2.0), "ort/1_Ann"),
        ("keeps", Keeps(amount=2.0), "ort/1_Ann"),
        ("original", None, "ort/2_Ben"),
        ("original", None, "tofu/forget10"),
        ("keeps", Keeps(amount=2.0), "tofu/forget10"),
    ):
        run.run(job(label, method, benchmark=name, evaluator=Watch()), LOADED, ENCODER)
    assert isinstance(seen[0], Beginnings) and seen[0] is seen[3]
    assert isinstance(seen[2], Lent) and seen[2].store is seen[0]
    assert [seen[n] for n in (1, 4, 5)] == [None, None, None]
    run.forget_model()
    run.run(job("original", benchmark="ort/3_Cy", evaluator=Watch()), LOADED, ENCODER)
    assert isinstance(seen[6], Beginnings) and seen[6] is not seen[0]


@dataclasses.dataclass
class Letters(Value):
    """Log-probabilities of letters behind solved examples that all targets share."""

    def score(self, scorer: Any, benchmark: Benchmark) -> list[dict]:
        tokens = asked(scorer.encoder, TARGETS[int(benchmark.name[4]) - 1])
        records = scorer.records(tokens)
        return [{"set": "forget", "value": sum(r.logp[0] for r in records), "logp": [r.logp for r in records]}]


class Attach:
    """A method that attaches an adapter as if it had been trained."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def unlearn(self, loaded: Any, *_: Any, **__: Any) -> Any:
        attached = attach(loaded.model, self.kind)
        assert attached is not None
        return Unlearned(attached=attached)


def test_a_run_that_goes_on_anywhere_has_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    """Although prompts' beginnings are read by the unchanged model in one run, and by every adapter in another."""
    loaded = tiny_loaded("mistral")
    cells = [(label, n) for n in (1, 2, 3) for label in ("original", "lora", "last_prompt")]
    jobs = [
        job(label, None if label == "original" else Attach(label), benchmark=f"ort/{n}_Ann", evaluator=Letters())  # type: ignore[arg-type]
        for label, n in cells
    ]

    def run(store: RunStore, jobs: list[Job]) -> list[bytes]:
        """Once more all that is there is found; the rows of every cell."""
        again = executor(store)
        for each in jobs:
            if not again.reuse(each):
                again.run(each, loaded, toy_encoder())
        assert not again.outcome.failed
        return [(store.path(j.stages[0].cell.id) / "samples" / "value.jsonl").read_bytes() for j in jobs]

    whole = RunStore(tmp_path / "whole")
    undisturbed = run(whole, jobs)
    records = [read_json(whole.path(j.stages[0].cell.id) / "record.json") for j in jobs]
    read = dict(zip(cells, (record["scored"]["prefixes"] for record in records), strict=True))
    assert [read["original", n] for n in (1, 2, 3)] == [2, 0, 0]
    assert [read["last_prompt", n] for n in (1, 2, 3)] == [1, 1, 1]  # one, to compare
    for cut in (1, 2, 4, 6, 8):
        out = RunStore(tmp_path / f"cut{cut}")
        run(out, jobs[:cut])
        assert run(out, jobs) == undisturbed, cut

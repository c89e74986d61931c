"""Models kept beside their cells: when they are made, that they come after the results and never cost them."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from bench.executor import Executor
from bench.jobs import Job
from bench.model_card import Saved
from bench.store import RunStore
from tests.bench.test_executor import ENCODER, LOADED, Add, Silent, Value, figures, job, stage

SAVED = Saved(library="peft", what="a number", load=("model = read(FOLDER)",))


class Kept(Add):
    """A method whose models can be saved; `saving` is what happens then."""

    def __init__(self, amount: float = 3.0, saving: Callable[[Path], None] = lambda folder: None) -> None:
        super().__init__(amount)
        self.saving = saving

    def unlearn(self, loaded: Any, *arguments: Any, **more: Any) -> Any:
        done = super().unlearn(loaded, *arguments, **more)

        def save(folder: Path, given: Any) -> Saved:
            assert given is loaded
            (folder / "weights.txt").write_text(str(float(loaded.model.value)))
            self.saving(folder)
            return SAVED

        return SimpleNamespace(**vars(done), save=save)


def executor(store: RunStore, *, save: bool = True, **more: Any) -> Executor:
    return Executor(store=store, progress=Silent(), batch_tokens=64, save_models=save, **more)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    LOADED.model.value.zero_()
    return RunStore(tmp_path / "out")


def model_of(store: RunStore, cell: Job) -> Path:
    return store.path(cell.stages[0].cell.id) / "model"


def test_the_model_lies_beside_its_figures_with_a_card(store: RunStore) -> None:
    cell, original = job("kept", Kept()), job("original")
    run = executor(store)
    run.run(original, LOADED, ENCODER)
    run.run(cell, LOADED, ENCODER)
    folder = model_of(store, cell)
    assert {path.name for path in folder.iterdir()} == {"weights.txt", "README.md", "lethe.json"}
    assert (folder / "weights.txt").read_text() == "3.0"
    card = (folder / "README.md").read_text()
    assert cell.stages[0].cell.id in card and "| 3.000 |" in card and "by hand" in card
    assert not model_of(store, original).exists()  # nothing was unlearned
    assert executor(store).reuse(cell) and executor(store).reuse(original)
    assert float(LOADED.model.value) == 0
    assert not list((store.out / "runs").glob(".*"))


def test_without_the_option_nothing_is_saved_but_what_was_saved_once_stays(store: RunStore) -> None:
    cell = job("kept", Kept())
    executor(store, save=False).run(cell, LOADED, ENCODER)
    assert not model_of(store, cell).exists()
    assert executor(store, save=False).reuse(cell)
    assert not executor(store).reuse(cell)  # wanted now: the cell is made again
    executor(store).run(cell, LOADED, ENCODER)
    assert model_of(store, cell).is_dir()
    (model_of(store, cell) / "weights.txt").write_text("old")
    executor(store, save=False, fresh=True).run(cell, LOADED, ENCODER)
    assert (model_of(store, cell) / "weights.txt").read_text() == "3.0"


ERRORS = {
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device"),
    "torch": RuntimeError("PytorchStreamWriter failed writing file\nframe #0"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_save_that_fails_leaves_the_results_and_is_told(kind: str, store: RunStore) -> None:
    def saving(folder: Path) -> None:
        raise ERRORS[kind]

    cell = job("kept", Kept(saving=saving))
    run = executor(store)
    run.run(cell, LOADED, ENCODER)
    assert run.outcome.failed == [cell.stages[0].cell.id] and not run.outcome.done
    [note] = run.progress.said[1:]  # type: ignore[attr-defined]
    assert "the results are stored, but --save-models could not store the model (" in note
    assert str(ERRORS[kind]).splitlines()[0] in note and "frame" not in note
    assert figures(store, cell)["value"] == 3.0
    assert [record.status for record in store.records()] == ["complete"]
    assert not model_of(store, cell).exists()
    assert not list((store.out / "runs").glob(".*"))
    assert float(LOADED.model.value) == 0
    again = job("kept", Kept())
    executor(store).run(again, LOADED, ENCODER)
    assert model_of(store, cell).is_dir()
    assert not store.failed_path(cell.stages[0].cell.id).exists()


def test_an_interrupted_save_leaves_the_results(store: RunStore) -> None:
    def saving(folder: Path) -> None:
        raise KeyboardInterrupt

    cell = job("kept", Kept(saving=saving))
    with pytest.raises(KeyboardInterrupt):
        executor(store).run(cell, LOADED, ENCODER)
    assert figures(store, cell)["value"] == 3.0
    assert not model_of(store, cell).exists()
    assert float(LOADED.model.value) == 0
    assert not executor(store).reuse(cell) and executor(store, save=False).reuse(cell)


def test_every_request_of_a_chain_has_its_own_model(store: RunStore) -> None:
    class Chained(Kept):
        def unlearn(self, loaded: Any, *arguments: Any, **more: Any) -> Any:
            if more.get("earlier") is None:
                loaded.model.value.zero_()
            return super().unlearn(loaded, *arguments, **more)

    chain = Job(stages=(stage("kept", benchmark="b"), stage("kept", benchmark="b>c")), method=Chained(2.0))
    executor(store).run(chain, LOADED, ENCODER)
    folders = [store.path(s.cell.id) / "model" for s in chain.stages]
    assert [(f / "weights.txt").read_text() for f in folders] == ["2.0", "4.0"]
    (folders[0] / "lethe.json").unlink()  # only the first is made again
    run = executor(store)
    assert not run.reuse(chain)
    run.run(chain, LOADED, ENCODER)
    assert (run.outcome.done, run.outcome.reused) == ([chain.stages[0].cell.id], [chain.stages[1].cell.id])


def test_a_figure_that_comes_in_late_is_on_the_card_too(store: RunStore) -> None:
    class Late(Value):
        def summarize(self, rows: list[dict], reference_rows: list[dict] | None) -> Any:
            return super().summarize(rows, reference_rows)[1:]

    cell = job("kept", Kept(), evaluator=Late())
    executor(store).run(cell, LOADED, ENCODER)
    card = model_of(store, cell) / "README.md"
    assert "no reference" in card.read_text()
    later = executor(store)
    later.run(job("retrained", evaluator=Late()), LOADED, ENCODER)
    assert later.reuse(cell)
    assert "no reference" not in card.read_text() and "| 3.000 |" in card.read_text()
    assert json.loads((model_of(store, cell) / "lethe.json").read_text())["library"] == "peft"

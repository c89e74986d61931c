"""From a name to every field: default < recipe < --set < brackets."""

from collections.abc import Iterator

import pytest

from bench.errors import LetheError
from bench.spec import parse_methods, parse_sets
from methods import METHODS, recipes
from methods.recipes import Configured, configure


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recipes as if they had been found."""
    found = {
        "recipes": {
            "npo": {"lr": 0.25, "epochs": 7, "beta": 0.5},
            "grun_npo": {"lr": 0.125, "layers": [1, 2]},
            "grun_npo[position=answer]": {"lr": 0.0625, "layers": [2, 3]},
        },
        "search": {"trials": 10, "world_seeds": [1, 2], "world_seed": 1},
    }
    monkeypatch.setattr(recipes, "mini_recipes", lambda: found)
    yield


def get(text: str, *sets: str, mini: bool = True) -> Configured:
    [name] = parse_methods(text)
    return configure(name, parse_sets(sets), mini=mini)


def test_the_order_of_precedence(recorded: None) -> None:
    default = METHODS["npo"].adapter
    assert get("npo", mini=False).fields["lr"] == default.lr  # a paper's default for real models
    assert get("npo").fields["lr"] == 0.25  # the recipe for the mini one
    assert get("npo", "npo.lr=0.5").fields["lr"] == 0.5
    assert get("npo[lr=0.75]", "npo.lr=0.5").fields["lr"] == 0.75
    fields = get("npo[lr=0.75]", "npo.epochs=9").fields
    assert (fields["lr"], fields["epochs"], fields["beta"]) == (0.75, 9, 0.5)  # each where it was said last
    assert fields["clip_norm"] == default.clip_norm


def test_where_fields_come_from_is_told_for_the_record(recorded: None) -> None:
    assert get("npo", mini=False).recipe == "paper defaults"
    assert get("npo").recipe.startswith("mini recipe 'npo':")
    text = get("npo[lr=0.75]", "npo.epochs=9").recipe
    assert text.endswith("; epochs=9 from --set; lr=0.75 from name")
    assert get("gd").recipe == "paper defaults"  # none was recorded


def test_a_variant_takes_the_recipe_of_its_label_else_of_its_position_else_of_its_method(recorded: None) -> None:
    assert get("grun_npo").fields["layers"] == (1, 2)
    answer = get("grun_npo[position=answer]")
    assert (answer.fields["layers"], answer.fields["position"], answer.label) == (
        (2, 3),
        "answer",
        "grun_npo[position=answer]",
    )
    assert get("grun_npo[position=answer,rank=16]").fields["layers"] == (2, 3)
    assert get("grun_npo[rank=16]").fields["layers"] == (1, 2)
    assert get("grun_npo[layers=0,3]").fields["layers"] == (0, 3)


def test_the_table_itself_never_changes(recorded: None) -> None:
    before = dict(METHODS)
    get("npo[lr=0.75]", "npo.epochs=9")
    assert before == METHODS


def test_wrong_names_and_values_are_told(recorded: None) -> None:
    with pytest.raises(LetheError, match="unknown method 'gron_npo'; did you mean 'grun_npo'"):
        get("gron_npo")
    with pytest.raises(LetheError, match="unknown field of npo 'bta'; did you mean 'beta'"):
        get("npo[bta=1]")
    with pytest.raises(LetheError, match=r"npo\.beta must be a number, got 'big'"):
        get("npo", "npo.beta=big")
    with pytest.raises(LetheError, match="npo: beta must be positive, got -1"):
        get("npo", "npo.beta=-1")
    with pytest.raises(LetheError, match=r"grun_npo\.position must be one of last_prompt, answer, all, got 'end'"):
        get("grun_npo[position=end]")


def test_every_recorded_recipe_fits_its_method() -> None:
    for label in recipes.mini_recipes()["recipes"]:
        assert get(label).label == label


def test_a_recipe_file_that_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # noqa: ANN001
    monkeypatch.setattr(recipes, "MINI_RECIPES", tmp_path / "none.json")
    recipes.mini_recipes.cache_clear()
    try:
        assert get("npo").recipe == "paper defaults"
    finally:
        monkeypatch.undo()
        recipes.mini_recipes.cache_clear()

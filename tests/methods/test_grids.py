"""The grids that --tune searches: complete, of one size class, and made of fields that the methods have."""

import json

import pytest

from bench.errors import LetheError
from bench.fields import with_fields
from bench.spec import parse_methods
from methods import METHODS
from methods.grids import grid_of, mini_grid, trials
from methods.recipes import configure, mini_recipes

FAMILIES = ("tofu", "wmdp", "ort")
CASES = [(name, family) for name in METHODS for family in FAMILIES if name != "rocr" or family == "ort"]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_every_point_of_a_grid_fits_its_method(name: str, family: str) -> None:
    grid = grid_of(name, family)
    points = grid.points(32)
    assert 18 <= len(points) <= 27  # the papers' lie between 20 and 27
    assert len({json.dumps(p) for p in points}) == len(points)
    assert grid.source
    base = configure(parse_methods(name)[0], {}, mini=False, family=family).method
    for point in points:
        with_fields(base, point, where=name)
    for point in mini_grid(name, family):
        with_fields(base, point, where=name)


def test_the_grids_of_the_paper_are_those_that_it_prints() -> None:
    sizes = {name: len(grid_of(name).points(16)) for name in ("gd", "idk", "npo", "dpo", "simnpo", "rmu")}
    assert sizes == {"gd": 20, "idk": 20, "npo": 27, "dpo": 27, "simnpo": 24, "rmu": 27}
    assert {p["layer"] for p in grid_of("rmu").points(16)} == {5, 10, 15}  # the 6th, 11th and 16th of 16
    assert {p["layer"] for p in grid_of("rmu").points(32)} == {11, 21, 31}
    assert {p["lr"] for p in grid_of("lora_npo").points()} == {1e-4, 2e-4, 5e-4}
    assert {p["lr"] for p in grid_of("grun_npo").points()} == {2e-3, 4e-3, 1e-2}
    assert {p["lr"] for p in grid_of("npo", "ort").points()} == {1e-7, 1e-6, 1e-5}
    assert {p["layers"] for p in grid_of("rocr").points(32)} == {(3,), (4, 5, 6), (4, 5, 6, 7, 8)}


def test_blocks_that_fall_together_in_a_small_model_are_one_point() -> None:
    assert {p["layer"] for p in grid_of("rmu").points(2)} == {0, 1}
    assert len(grid_of("rmu").points(2)) == 18
    with pytest.raises(LetheError, match="how many the model has"):
        grid_of("rmu").points(None)


def test_every_method_gets_the_same_number_of_different_trials() -> None:
    for name in METHODS:
        if name == "rocr":
            continue
        for mini in (True, False):
            configured = configure(parse_methods(name)[0], {}, mini=mini)
            found = trials(configured, "tofu", 16, number=8, mini=mini, sets={})
            assert len({json.dumps(varied, default=str) for varied, _ in found}) == 8
            assert all(candidate.label == name for _, candidate in found)
            assert all(candidate.fields.items() >= varied.items() for varied, candidate in found)
            assert found == trials(configured, "tofu", 16, number=8, mini=mini, sets={})


def test_what_the_user_sets_is_not_searched() -> None:
    sets = {"npo": {"beta": "0.3"}}
    configured = configure(parse_methods("npo[lr=0.5]")[0], sets, mini=False)
    found = trials(configured, "tofu", None, number=3, mini=False, sets=sets)
    assert [varied for varied, _ in found] and all(varied.keys() == {"retain_weight"} for varied, _ in found)
    assert {(c.fields["lr"], c.fields["beta"]) for _, c in found} == {(0.5, 0.3)}
    assert "grid: P, NPO; over paper defaults" in found[0][1].recipe
    with pytest.raises(LetheError, match="4 trials of npo"):
        trials(configured, "tofu", None, number=4, mini=False, sets=sets)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_recorded_recipes_of_the_mini_model_are_points_of_its_grids(family: str) -> None:
    recipes = mini_recipes(family)["recipes"]
    for label, fields in recipes.items():
        own = {k: v for k, v in fields.items() if k != "unrelated_subject"}
        assert own in json.loads(json.dumps(mini_grid(label, family))), label

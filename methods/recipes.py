"""From a name to a method with every field set: paper defaults, the mini model's recipes, then what the user says."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import LetheError, unknown
from bench.fields import settable, with_fields
from bench.spec import MethodName
from methods import METHODS
from methods.base import GradientMethod

MINI_RECIPES = Path(__file__).with_name("mini_recipes.json")
REFERENCES = ("original", "retrained")
"""Rows of every leaderboard that train nothing."""


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A method as it will run."""

    label: str
    method: GradientMethod
    recipe: str
    """Where the fields come from, for the record."""

    @property
    def fields(self) -> dict[str, Any]:
        """Every hyperparameter."""
        return settable(self.method)


@functools.cache
def mini_recipes() -> dict[str, Any]:
    """The recorded recipes for the mini model with how they were found; empty where none were recorded."""
    if not MINI_RECIPES.is_file():
        return {"recipes": {}, "search": {}}
    return json.loads(MINI_RECIPES.read_text())


def chosen(names: Sequence[MethodName], sets: Mapping[str, Mapping[str, str]], *, mini: bool) -> list[Configured]:
    """What --methods and --set ask for: 'all' stands for every method, the references train nothing and are left out.

    Raises:
        LetheError: also for fields of a method that is not among the names.
    """
    wanted: list[MethodName] = []
    for name in names:
        if name.fields and name.base in ("all", *REFERENCES):
            raise LetheError(f"{name.base!r} has no fields to set, got {name.label!r}")
        if name.base == "all":
            wanted += [MethodName(base) for base in METHODS]
        elif name.base not in REFERENCES:
            wanted.append(name)
    configured = [configure(name, sets, mini=mini) for name in dict.fromkeys(wanted)]
    for target in sets:
        if target not in METHODS:
            raise unknown("method in --set", target, METHODS)
        if target not in {name.base for name in wanted}:
            raise LetheError(f"--set names {target!r}, which is not among --methods; add it there or leave it out")
    return configured


def configure(name: MethodName, sets: Mapping[str, Mapping[str, str]], *, mini: bool) -> Configured:
    """Defaults, then for the mini model its recipe, then `--set`, then the fields in the name's own brackets.

    A variant such as `grun_npo[position=answer]` takes the recipe that was recorded under that label, else the one of
    its method.

    Raises:
        LetheError: no such method or field, or a value that the method refuses.
    """
    if name.base not in METHODS:
        raise unknown("method", name.base, ["all", *REFERENCES, *METHODS])
    method, origin = METHODS[name.base], "paper defaults"
    recipes = mini_recipes()["recipes"]
    position = [f"{name.base}[position={value}]" for key, value in name.fields if key == "position"]
    found = next((key for key in (name.label, *position, name.base) if key in recipes), None)
    if mini and found is not None:
        method = with_fields(method, recipes[found], where=name.label)
        search = mini_recipes()["search"]
        worlds = " and ".join(map(str, search["world_seeds"]))
        origin = f"mini recipe {found!r}: {search['trials']} trials on mini worlds of seeds {worlds}"
    for where, fields in (("--set", sets.get(name.base, {})), ("name", dict(name.fields))):
        if fields:
            method = with_fields(method, fields, where=name.base)
            origin += f"; {', '.join(f'{k}={v}' for k, v in fields.items())} from {where}"
    return Configured(label=name.label, method=method, recipe=origin)

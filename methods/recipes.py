"""From a name to a method with every field set: paper defaults, a preset or mini recipe, then what the user says."""

import functools
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.errors import LetheError, unknown
from bench.fields import settable, with_fields
from bench.jobs import Method
from bench.spec import MethodName
from methods import METHODS
from methods.base import GradientMethod
from methods.presets import CORPUS_FIELDS, PRESETS
from methods.rocr import ROCR

log = logging.getLogger(__name__)

MINI_RECIPES = Path(__file__).with_name("mini_recipes.json")
REFERENCES = ("original", "retrained")
"""Rows of every leaderboard that train nothing."""


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A method as it will run."""

    label: str
    method: Method
    recipe: str
    """Where the fields come from, for the record."""

    @property
    def fields(self) -> dict[str, Any]:
        """Every hyperparameter."""
        return settable(self.method)


@functools.cache
def mini_recipes(family: str = "tofu") -> dict[str, Any]:
    """The recorded recipes for the mini model on a kind of benchmark, with how they were found; empty for none."""
    if not MINI_RECIPES.is_file():
        raise LetheError(f"{str(MINI_RECIPES)!r} is missing, which holds the mini model's recipes; install Lethe anew")
    recorded = json.loads(MINI_RECIPES.read_text(encoding="utf-8"))
    return recorded.get(family, {"recipes": {}, "search": {}})


def chosen(
    names: Sequence[MethodName],
    sets: Mapping[str, Mapping[str, str]],
    *,
    mini: bool,
    family: str = "tofu",
    preset: str | None = None,
    evaluators: Sequence[str] = (),
    elsewhere: Collection[str] = (),
) -> list[Configured]:
    """What --methods and --set ask for: 'all' stands for every method, the references train nothing and are left out.

    ROCR edits names, which only targets of ORT have: elsewhere 'all' does without it.

    Raises:
        LetheError: also for fields of a method that is not among the names, and for a preset of none of them.
    """
    wanted: list[MethodName] = []
    for name in names:
        if name.fields and name.base in ("all", *REFERENCES):
            raise LetheError(f"{name.base!r} has no fields to set, got {name.label!r}")
        if name.base == "all":
            wanted += [MethodName(base) for base, m in METHODS.items() if family == "ort" or not isinstance(m, ROCR)]
        elif name.base not in REFERENCES:
            wanted.append(name)
    configured = [configure(name, sets, mini=mini, family=family, preset=preset) for name in dict.fromkeys(wanted)]
    for target in sets:
        if target in elsewhere:
            raise LetheError(
                f"--set names {target!r}, which scores none of --benchmarks; add such a benchmark or leave it out"
            )
        if target not in METHODS:
            raise unknown("method or evaluator in --set", target, [*METHODS, *evaluators])
        if target not in {name.base for name in wanted}:
            raise LetheError(f"--set names {target!r}, which is not among --methods; add it there or leave it out")
    if preset is not None:
        own = published(preset)
        without = sorted({name.base for name in wanted} - own.keys())
        if not own.keys() & {name.base for name in wanted}:
            raise LetheError(
                f"preset {preset!r} has settings of {', '.join(own)}, none of which is among --methods; "
                "name one of them or leave the preset out"
            )
        if without:
            log.warning(
                "preset %r has settings of %s only; %s: as without it", preset, ", ".join(own), ", ".join(without)
            )
    return configured


def published(preset: str) -> Mapping[str, Mapping[str, Any]]:
    """The fields of a preset by method.

    Raises:
        LetheError: there is no such preset.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return PRESETS[preset]


def configure(
    name: MethodName,
    sets: Mapping[str, Mapping[str, str]],
    *,
    mini: bool,
    family: str = "tofu",
    preset: str | None = None,
) -> Configured:
    """Defaults, then the preset or for the mini model its recipe, then `--set`, then the fields in the name's brackets.

    A variant such as `grun_npo[position=answer]` takes the recipe that was recorded under that label, else the one of
    its position (which `--set` can give as well), else the one of its method.

    Args:
        family: the kind of benchmark, "tofu", "wmdp" or "ort": papers and recipes have other fields for corpora.
        preset: published settings; a method that they do not name is set as if there were none.

    Raises:
        LetheError: no such method, field or preset, or a value that the method refuses.
    """
    if name.base not in METHODS:
        raise unknown("method", name.base, ["all", *REFERENCES, *METHODS])
    method, origin = METHODS[name.base], "paper defaults"
    on_texts = isinstance(method, GradientMethod) and method.corpus == "texts"
    if family == "wmdp" or (family == "ort" and on_texts):  # ORT has refusals and preferences beside its texts
        for pattern, fields in CORPUS_FIELDS.items():
            if fnmatchcase(name.base, pattern):
                method, origin = with_fields(method, fields, where=name.label), "paper defaults for corpora"
    known = mini_recipes(family) if mini else {"recipes": {}, "search": {}}
    given = {**sets.get(name.base, {}), **dict(name.fields)}
    position = [f"{name.base}[position={value}]" for key, value in given.items() if key == "position"]
    labels = ([name.label] if name.fields else []) + [*position, name.base]
    found = next((label for label in labels if label in known["recipes"]), None)
    own = published(preset).get(name.base) if preset is not None else None
    if own is not None:
        method, origin = with_fields(method, own, where=name.label), f"preset {preset!r}"
    elif mini and found is not None:
        method = with_fields(method, known["recipes"][found], where=name.label)
        search = known["search"]
        worlds = " and ".join(map(str, search["world_seeds"]))
        trials = search["trials"]
        number = trials[found] if isinstance(trials, dict) else trials
        origin = f"mini recipe {found!r}: {number} trials on mini worlds of seeds {worlds}"
    for where, fields in (("--set", sets.get(name.base, {})), ("name", dict(name.fields))):
        if fields:
            method = with_fields(method, fields, where=name.base)
            origin += f"; {', '.join(f'{k}={v}' for k, v in fields.items())} from {where}"
    return Configured(label=name.label, method=method, recipe=origin)

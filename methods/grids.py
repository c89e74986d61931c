"""What `--tune` searches: for every method the grid of a paper, or one of ours of the same size.

P: Dorna et al., "OpenUnlearning", 2025, https://arxiv.org/abs/2506.12618, appendix F.2 (TOFU, Llama-3.2-1B)
G: Ren et al., "GRUN", 2025, https://arxiv.org/abs/2502.17823, and its repository
K: Jin et al., "RWKU", 2024, https://arxiv.org/abs/2406.10890, appendix H.2
T: Ye, Zhang, Wu, ORT, 2025, https://arxiv.org/abs/2506.07795, and its repository

P's alpha is `retain_weight`, its gamma `forget_weight`. The mini model, which is some thousand times smaller, needs
larger learning rates: it has grids of its own, those of `benchmarks/find_mini_recipes.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.errors import LetheError
from bench.fields import settable, with_fields
from bench.spec import parse_methods
from bench.tuning import drawn
from methods import TRAINED
from methods.base import scaled_block
from methods.recipes import Configured

Space = Mapping[str, Sequence[Any]]
"""Field -> the values that it takes; a grid holds all combinations."""


class Block(NamedTuple):
    """A block of a model of `of` blocks, standing for the one at the same relative depth."""

    block: int
    of: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The values of some fields, and who says so."""

    space: Space
    source: str

    def points(self, depth: int | None = None) -> list[dict[str, Any]]:
        """All combinations for a model of `depth` blocks, each once."""
        values = [list(dict.fromkeys(_resolved(value, depth) for value in of)) for of in self.space.values()]
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*values)]


OURS = "ours, of the size of P's"
RATES = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)
FEW_RATES = (1e-5, 2e-5, 5e-5)
ALPHA = (1.0, 2.0, 5.0)
EPOCHS = (1, 2, 5, 10)

DIFFERENCE: Space = {"lr": RATES, "retain_weight": (1.0, 2.0, 5.0, 10.0)}
PREFERENCE: Space = {"lr": FEW_RATES, "retain_weight": ALPHA, "beta": (0.05, 0.1, 0.5)}
MARGIN: Space = {"lr": FEW_RATES, "beta": (3.5, 4.5), "delta": (0.0, 1.0), "forget_weight": (0.125, 0.25)}
STEERED: Space = {
    "lr": FEW_RATES,
    "steering_coeff": (1.0, 10.0, 100.0),
    "layer": (Block(5, 16), Block(10, 16), Block(15, 16)),
}
"""P counts layers from 1: 6, 11 and 16 of 16; the two below are trained too, as `Selected` does."""
ON_QUESTIONS: Space = {"retain_weight": (1.0,), "positions": ("labels",)}
"""What P's RMU has on TOFU besides; on WMDP the authors' values stay (`methods/rmu.py`)."""
SCHEDULE_ON_QUESTIONS: Space = {
    "epochs": (10,),
    "batch_size": (32,),
    "max_steps": (None,),
    "schedule": ("linear",),
    "warmup_epochs": (1.0,),
    "weight_decay": (0.01,),
    "clip_norm": (1.0,),
}
"""P's for all methods on TOFU, in place of the 80 steps of RMU's authors. Deviates: P trains whole blocks, here it is
their MLPs' output matrices."""

GRIDS: Mapping[str, Grid] = {
    "ga": Grid(space={"lr": (1e-6, 2e-6, 5e-6, 1e-5, 2e-5), "epochs": EPOCHS}, source=OURS),
    "gd": Grid(space=DIFFERENCE, source="P, GradDiff"),
    "npo": Grid(space=PREFERENCE, source="P, NPO"),
    "simnpo": Grid(space=MARGIN, source="P, SimNPO"),
    "dpo": Grid(space=PREFERENCE, source="P, IdkDPO"),
    "idk": Grid(space=DIFFERENCE, source="P, IdkNLL"),
    "rt": Grid(space={"lr": RATES, "epochs": EPOCHS}, source=OURS),
    "rmu": Grid(space=STEERED, source="P, RMU"),
    "rocr": Grid(
        space={
            "layers": tuple(tuple(Block(b, 32) for b in blocks) for blocks in ((3,), (4, 5, 6), (4, 5, 6, 7, 8))),
            "l2": (0.1, 1.0, 10.0),
            "nullspace_threshold": (0.002, 0.02, 0.2),
        },
        source="ours: layers and l2 as T's settings for different models and commits have them",
    ),
}
"""By objective, for all weights; the adapters' are made of these."""

RATES_OF: Mapping[str, tuple[float, str]] = {
    "lora": (10.0, "learning rates ten times those of all weights, as in K; around G's 1e-4"),
    "grun": (200.0, "learning rates around G's 4e-3"),
}
"""Adapter -> the factor from the learning rates of all weights to its own: 5e-5 becomes 5e-4, or 1e-2."""

GRUN_STEERED: Space = {
    "lr": (2e-3, 4e-3, 1e-2),
    "steering_coeff": (30.0, 100.0, 300.0),
    "retain_weight": ALPHA,
}
"""GRUN's RMU reads the last edited block: weights take the place of layers. G has 300 and 1."""

TARGET_RATES = {5: (1e-8, 1e-7, 1e-6, 3e-6, 1e-5), 3: (1e-7, 1e-6, 1e-5)}
"""By their number, for all weights on a target: the range that K searched."""


def grid_of(label: str, family: str = "tofu") -> Grid:
    """The grid of a method for models of any usual size, on a kind of benchmark.

    Raises:
        LetheError: there is none.
    """
    base = parse_methods(label)[0].base
    adapter, _, objective = base.rpartition("_")
    if objective not in GRIDS:
        raise LetheError(f"there is no grid to tune {base!r}; known: {', '.join(GRIDS)}, alone and with lora_ or grun_")
    grid = GRIDS[objective]
    if objective == "rmu" and family == "tofu" and adapter != "grun":
        grid = replace(grid, space={**grid.space, **ON_QUESTIONS, **({} if adapter else SCHEDULE_ON_QUESTIONS)})
    if adapter == "grun" and objective == "rmu":
        grid = Grid(space=GRUN_STEERED, source="ours, around G's")
    elif adapter:
        factor, said = RATES_OF[adapter]
        # Gates learn as fast on a target as elsewhere.
        rates = grid.space["lr"] if adapter == "grun" else _rates(grid.space["lr"], family)
        grid = Grid(space={**grid.space, "lr": [_round(factor * lr) for lr in rates]}, source=f"{grid.source}; {said}")
    elif "lr" in grid.space:
        grid = replace(grid, space={**grid.space, "lr": _rates(grid.space["lr"], family)})
    if family == "ort" and "lr" in grid.space and adapter != "grun":
        return replace(grid, source=f"{grid.source}; learning rates within those of K")
    return grid


def _rates(rates: Sequence[float], family: str) -> Sequence[float]:
    return TARGET_RATES[len(rates)] if family == "ort" else rates


def _round(value: float) -> float:
    """Without the last bits of a product: 10 * 3e-5 is 0.00030000000000000003."""
    return float(f"{value:.6g}")


def _resolved(value: Any, depth: int | None) -> Any:
    if isinstance(value, Block):
        if depth is None:
            raise LetheError("a grid over layers needs to know how many the model has")
        return scaled_block(value.block, depth, value.of)
    if isinstance(value, tuple):
        return tuple(sorted({_resolved(v, depth) for v in value}))
    return value


def trials(
    configured: Configured,
    family: str,
    depth: int | None,
    *,
    number: int,
    mini: bool,
    sets: Mapping[str, Mapping[str, str]],
) -> list[tuple[dict[str, Any], Configured]]:
    """`number` points of a method's grid, each with the method so set: a pure function of its arguments.

    What the user has set, with `--set` or in the name's brackets, stays.

    Raises:
        LetheError: the grid has fewer points.
    """
    [name] = parse_methods(configured.label)
    if mini:
        points, source = mini_grid(configured.label, family), "the mini model's grid"
    else:
        grid = grid_of(configured.label, family)
        points, source = grid.points(depth), f"grid: {grid.source}"
    fixed = {*dict(name.fields), *sets.get(name.base, {})}
    free = [{k: v for k, v in point.items() if k not in fixed} for point in points]
    found = []
    for point in drawn(free, number, configured.label):
        method = with_fields(configured.method, point, where=configured.label)
        values = {k: v for k, v in settable(method).items() if k in point}
        found.append((values, replace(configured, method=method, recipe=f"{source}; over {configured.recipe}")))
    return found


# the mini model

FULL: Space = {"lr": [1e-4, 2e-4, 3e-4, 5e-4, 1e-3], "epochs": [5, 10, 20], "batch_size": [8], "warmup_epochs": [0]}
LORA: Space = {
    "lr": [1e-3, 2e-3, 5e-3, 1e-2],
    "epochs": [5, 10, 20],
    "batch_size": [8],
    "warmup_epochs": [0],
    "r": [4, 8],
}
GRUN: Space = {
    "lr": [2e-3, 5e-3, 1e-2],
    "epochs": [10, 20, 40],
    "batch_size": [8],
    "layers": [(1, 2), (2, 3), (1, 2, 3), (0, 1, 2, 3)],
    "rank": [4, 16],
    "gate": ["linear", "mlp_3"],
    "gate_weight": [1, 10],
}
ON_DOCUMENTS: Space = {"epochs": [5, 10]}
"""A step on documents costs several times one on questions."""
GRUN_ON_DOCUMENTS: Space = {**ON_DOCUMENTS, "position": ["all"], "prompt_share": [0.2, 0.8]}
"""A gate that has only ever read one place inside a text opens at no question, so every token has its own here; the
authors' position is searched for, and shown, under a label that names it."""
SELECTED: Space = {"lr": [2e-3, 5e-3], "epochs": [5, 10], "batch_size": [8], "max_steps": [None]}
STEERING: Space = {"steering_coeff": [50, 100], "retain_weight": [1, 10], "layer": [1, 2]}
OBJECTIVE: Mapping[str, Space] = {
    "ga": {},
    "gd": {"retain_weight": [1, 2, 5]},
    "npo": {"beta": [0.05, 0.1, 0.2], "forget_weight": [1, 5], "retain_weight": [1, 5]},
    "simnpo": {"beta": [2.5, 4.5], "forget_weight": [0.125, 0.5, 1]},
    "dpo": {"beta": [0.05, 0.1, 0.5], "retain_weight": [1, 5]},
    "idk": {"retain_weight": [1, 5]},
    "rt": {},
}
RMU_OBJECTIVE: Mapping[str, Space] = {
    "": {**SELECTED, **STEERING},
    "lora": {**LORA, **STEERING},
    "grun": {**GRUN, "steering_coeff": [20, 100, 300], "retain_weight": [1, 10]},  # reads the last edited block
}
ON_TARGETS: Space = {"epochs": [2, 5, 10, 20]}
"""A target has some fifty texts, refusals or pairs: an epoch is six steps."""
GRUN_ON_PAIRS: Space = {"position": ["last_prompt", "all"], "prompt_share": [0.2]}
"""Refusals begin behind a question, as they will be asked for."""
QUERY_VALUE: Space = {"modules": ["all", "query_value"]}
EDIT: Space = {
    "layers": [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)],
    "l2": [0.001, 0.1, 1.0],
    "nullspace_threshold": [0.02, 0.2, 1.0, 10.0],
}
"""Moments of a tiny model are larger than those of the authors': below 0.02 some blocks have no direction left."""


def mini_grid(label: str, family: str = "tofu") -> list[dict[str, Any]]:
    """All points of a method's grid on the mini model: its adapter's and its objective's fields."""
    base = parse_methods(label)[0].base
    if base == "rocr":
        return _points(EDIT)
    adapter, _, objective = base.rpartition("_")
    if objective == "rmu":
        space = RMU_OBJECTIVE[adapter]
    else:
        space = {**{"": FULL, "lora": LORA, "grun": GRUN}[adapter], **OBJECTIVE[objective]}
    if family == "wmdp":
        space = {**space, **(GRUN_ON_DOCUMENTS if adapter == "grun" else ON_DOCUMENTS)}
    if family == "ort":
        texts = TRAINED[base].corpus == "texts"
        on = {"grun": GRUN_ON_DOCUMENTS if texts else GRUN_ON_PAIRS, "lora": QUERY_VALUE}.get(adapter, {})
        prefer = {"prefer": ["refusal", "fabricated"]} if objective == "dpo" else {}
        space = {**space, **on, **prefer, **ON_TARGETS}
    return _points(space)


def _points(space: Space) -> list[dict[str, Any]]:
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]

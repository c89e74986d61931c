"""The table of methods, in leaderboard order: every objective with every adapter, then edits that train nothing."""

from dataclasses import replace
from typing import Any

from bench.fields import with_fields
from bench.jobs import Method
from methods.base import Adapter, GradientMethod
from methods.ga import GA, GradDiff
from methods.grun import GRUN
from methods.idk import DPO, IDK
from methods.lora import LoRA
from methods.npo import NPO, SimNPO
from methods.rmu import RMU
from methods.rocr import ROCR
from methods.rt import RT

OBJECTIVES: dict[str, GradientMethod] = {
    "ga": GA(),
    "gd": GradDiff(),
    "npo": NPO(),
    "simnpo": SimNPO(),
    "dpo": DPO(),
    "idk": IDK(),
    "rt": RT(),
    "rmu": RMU(),
}
ADAPTERS: dict[str, Adapter | None] = {"": None, "lora_": LoRA(), "grun_": GRUN()}
"""None stands for the objective's own: all weights, or for RMU three matrices."""

PAPER_PAIRS: dict[str, dict[str, Any]] = {
    "grun_gd": {"retain_weight": 2.0},
    "grun_npo": {"forget_weight": 100.0},
    "grun_rmu": {
        "steering_coeff": 300.0,
        "retain_weight": 1.0,
        "alternate": False,
        "positions": "edited",
        "gate": "mlp_3",
        "gate_weight": 100.0,
        "epochs": 4,
    },
}
"""Where a paper gives an objective other fields under an adapter (spec: GRUN section 1.5).

grun_rmu deviates: the authors read the output of the block before the last edited one, which cannot train the last
edit, and leave the edited token out; the preset `grun-published` does as they do. Their retain loss over padding is
`retain_loss=kl_padded`.
"""

TRAINED: dict[str, GradientMethod] = {
    prefix + name: with_fields(
        objective if adapter is None else replace(objective, adapter=adapter),
        PAPER_PAIRS.get(prefix + name, {}),
        where=prefix + name,
    )
    for prefix, adapter in ADAPTERS.items()
    for name, objective in OBJECTIVES.items()
}
METHODS: dict[str, Method] = {**TRAINED, "rocr": ROCR()}

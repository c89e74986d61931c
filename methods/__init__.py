"""The table of methods, in leaderboard order: every objective with every adapter."""

from dataclasses import replace

from bench.fields import with_fields
from methods.base import Adapter, GradientMethod
from methods.full import Full
from methods.ga import GA, GradDiff
from methods.grun import GRUN
from methods.idk import DPO, IDK
from methods.lora import LoRA
from methods.npo import NPO, SimNPO

OBJECTIVES: dict[str, GradientMethod] = {
    "ga": GA(),
    "gd": GradDiff(),
    "npo": NPO(),
    "simnpo": SimNPO(),
    "dpo": DPO(),
    "idk": IDK(),
}
ADAPTERS: dict[str, Adapter] = {"": Full(), "lora_": LoRA(), "grun_": GRUN()}

PAPER_PAIRS: dict[str, dict[str, float]] = {
    "grun_gd": {"retain_weight": 2.0},
    "grun_npo": {"forget_weight": 100.0},
}
"""Where a paper gives an objective other weights under an adapter (spec: GRUN section 1.5)."""

METHODS: dict[str, GradientMethod] = {
    prefix + name: with_fields(
        replace(objective, adapter=adapter), PAPER_PAIRS.get(prefix + name, {}), where=prefix + name
    )
    for prefix, adapter in ADAPTERS.items()
    for name, objective in OBJECTIVES.items()
}

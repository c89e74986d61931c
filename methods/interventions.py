"""The pyvene intervention behind GRUN: a low-rank edit of a representation, scaled by a gate that reads it.

Importing this module imports pyvene, which takes seconds; only an attached GRUN adapter does. It imports nothing of
Lethe: a copy lies in every folder of saved interventions, so that pyvene can load them where there is no Lethe.
"""

import contextlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

with contextlib.redirect_stdout(io.StringIO()):  # it prints a hint about an optional backend
    import pyvene
    from pyvene.models.constants import CONST_OUTPUT_HOOK
    from pyvene.models.intervenable_modelcard import type_to_dimension_mapping, type_to_module_mapping

LISTED = frozenset(type_to_module_mapping)
"""The architectures of pyvene's own tables, before anything is entered into them."""

Gate = Literal["linear", "mlp_3"]
HIDDEN = (256, 64)
"""Widths of the two hidden layers of the mlp_3 gate (spec: pyreft/interventions.py:75-83 of the authors' code)."""


class ThinQR(nn.Module):
    """Parametrize a (D, R) matrix so that its columns are orthonormal: the Q of its QR decomposition.

    Deviates: the authors use torch's `orthogonal` parametrization, which for tall matrices keeps a D x D float32
    buffer (64 MiB at D = 4,096) and turns into zeros under weight decay. Q does not change when the matrix is scaled.
    """

    def forward(self, matrix: Tensor) -> Tensor:
        q, r = torch.linalg.qr(matrix)
        return q * r.diagonal().sign()  # unique: a positive diagonal, so an orthonormal matrix maps to itself

    def right_inverse(self, q: Tensor) -> Tensor:
        return q


class GatedLoReFT(
    pyvene.SourcelessIntervention, pyvene.TrainableIntervention, pyvene.DistributedRepresentationIntervention
):
    """h + g(h) R^T (W h + b - R h), the module of GRUN (fact sheet 1.2). Everything is computed in float32.

    Deviates: the authors keep W, b and the gate in bf16, where small updates round to nothing.
    """

    def __init__(self, *, embed_dim: int, low_rank_dimension: int = 4, gate: Gate = "linear", **kwargs: object) -> None:
        # keep_last_dim: where several positions are edited, pyvene would join them into one long vector.
        super().__init__(**{**kwargs, "embed_dim": int(embed_dim), "keep_last_dim": True})
        width = int(embed_dim)
        self.rotate_layer = nn.Linear(low_rank_dimension, width, bias=False)  # weight (D, R): R transposed
        nn.init.orthogonal_(self.rotate_layer.weight)
        parametrize.register_parametrization(self.rotate_layer, "weight", ThinQR())
        self.learned_source = nn.Linear(width, low_rank_dimension)  # W, b
        self.gate = build_gate(width, gate)
        self._evaluated: tuple[tuple[int, int], Tensor] | None = None

    def rotation(self) -> Tensor:
        """(D, R) with orthonormal columns; where nothing is trained it is computed once, not at every call."""
        if torch.is_grad_enabled():
            return self.rotate_layer.weight
        matrix: Tensor = self.rotate_layer.parametrizations.weight.original  # type: ignore[assignment, union-attr]
        state = (matrix.data_ptr(), matrix._version)  # moves with every step and every load
        if self._evaluated is None or self._evaluated[0] != state:
            self._evaluated = state, self.rotate_layer.weight
        return self._evaluated[1]

    def gate_logits(self, h: Tensor) -> Tensor:
        """(..., D) -> (...) before the sigmoid."""
        return self.gate(h.float()).squeeze(-1)

    def delta(self, h: Tensor) -> Tensor:
        """(..., D) -> (..., D) float32: R^T (W h + b - R h)."""
        h = h.float()
        rotation = self.rotation()
        return (self.learned_source(h) - h @ rotation) @ rotation.T

    def forward(self, base: Tensor, source: None = None, subspaces: None = None, **_: object) -> Tensor:
        """The gated edit of every representation in `base` (..., D); what pyvene's own model calls."""
        gate = torch.sigmoid(self.gate_logits(base))
        return (base.float() + gate[..., None] * self.delta(base)).to(base.dtype)

    def load_state_dict(self, state_dict: dict, strict: bool = True, assign: bool = False) -> object:
        """The kind of gate follows the state, because pyvene's format does not tell it."""
        kind = gate_of(state_dict)
        if isinstance(self.gate, nn.Linear) != (kind == "linear"):
            weight = self.learned_source.weight
            self.gate = build_gate(self.learned_source.in_features, kind).to(weight.device)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


class ParallelGatedLoReFT(
    pyvene.SourcelessIntervention, pyvene.TrainableIntervention, pyvene.DistributedRepresentationIntervention
):
    """h + c * (the sum of the edits of several modules that all read h): successive requests (fact sheet 1.6)."""

    factor: Tensor
    """() float64: c."""

    def __init__(self, *, embed_dim: int, **kwargs: object) -> None:
        super().__init__(**{**kwargs, "embed_dim": int(embed_dim), "keep_last_dim": True})
        self.parallel = nn.ModuleDict()
        """By the number of the request."""
        self.register_buffer("factor", torch.ones((), dtype=torch.double))

    @classmethod
    def of(cls, modules: dict[int, GatedLoReFT], factor: float) -> "ParallelGatedLoReFT":
        """These modules, by the number of their request, side by side."""
        made = cls(embed_dim=next(iter(modules.values())).learned_source.in_features)
        made.parallel.update({str(number): module for number, module in modules.items()})
        made.factor.fill_(factor)
        return made

    def parts(self) -> dict[int, GatedLoReFT]:
        """The modules by the number of their request."""
        return {int(number): module for number, module in self.parallel.items()}  # type: ignore[misc]

    def forward(self, base: Tensor, source: None = None, subspaces: None = None, **_: object) -> Tensor:
        """The sum of the gated edits of every representation in `base` (..., D); what pyvene's own model calls."""
        change = torch.zeros_like(base, dtype=torch.float32)
        for module in self.parts().values():
            change = change + torch.sigmoid(module.gate_logits(base))[..., None] * module.delta(base)
        return (base.float() + self.factor * change).to(base.dtype)

    def load_state_dict(self, state_dict: dict, strict: bool = True, assign: bool = False) -> object:
        """Modules follow the state too."""
        for number in sorted({key.split(".")[1] for key in state_dict if key.startswith("parallel.")}, key=int):
            own = {key: value for key, value in state_dict.items() if key.startswith(f"parallel.{number}.")}
            rank, width = own[f"parallel.{number}.learned_source.weight"].shape
            gate = gate_of({key.removeprefix(f"parallel.{number}."): value for key, value in own.items()})
            module = GatedLoReFT(embed_dim=width, low_rank_dimension=rank, gate=gate)
            self.parallel[number] = module.to(self.factor.device)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


Edit = GatedLoReFT | ParallelGatedLoReFT
"""What stands at one block."""


def gate_of(state: dict) -> Gate:
    """The kind of gate that a module's state has."""
    return "mlp_3" if "gate.4.weight" in state else "linear"


def build_gate(width: int, kind: Gate) -> nn.Module:
    """The network whose sigmoid says how much of the edit a representation gets."""
    if kind == "linear":
        return nn.Linear(width, 1)
    wide, narrow = HIDDEN
    return nn.Sequential(nn.Linear(width, wide), nn.ReLU(), nn.Linear(wide, narrow), nn.ReLU(), nn.Linear(narrow, 1))


def intervenable(model: nn.Module, path: str, width: int, layers: Mapping[int, Edit]) -> pyvene.IntervenableModel:
    """pyvene's model over these interventions, for its save format and its own forward.

    Architectures that pyvene does not list are entered into its tables, as its documentation tells to do.

    Args:
        path: dotted name of the list of decoder blocks.
        width: D.
    """
    register(model, path, width)
    representations = [
        pyvene.RepresentationConfig(
            layer=layer,
            component="block_output",
            low_rank_dimension=module.learned_source.out_features if isinstance(module, GatedLoReFT) else None,
            intervention=module,
        )
        for layer, module in sorted(layers.items())
    ]
    config = pyvene.IntervenableConfig(representations=representations)
    config.intervention_types = [type(module) for _, module in sorted(layers.items())]
    return pyvene.IntervenableModel(config, model)


def read_interventions(folder: Path, model: nn.Module, path: str, width: int) -> dict[int, Edit]:
    """What `intervenable(...).save` wrote, by layer.

    Raises:
        OSError, KeyError, ValueError, RuntimeError: the folder is not complete, or belongs to another model.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")  # pyvene would ask the hub
    register(model, path, width)
    root, quiet = logging.getLogger(), logging.NullHandler()
    root.addHandler(quiet)  # pyvene warns on the root logger, which would set it up
    try:
        loaded = pyvene.IntervenableModel.load(str(folder), model)
    finally:
        root.removeHandler(quiet)
    modules: dict[int, Edit] = {}
    for key, module in loaded.interventions.items():
        if not isinstance(module, Edit):
            raise ValueError(f"{key} is a {type(module).__name__}, not a gated edit")
        trained = int(module.embed_dim)  # type: ignore[arg-type]
        if trained != width:
            raise ValueError(f"it was trained on a width of {trained}, the model has {width}")
        modules[int(loaded.representations[key].layer)] = module
    return modules


def listed(model: nn.Module) -> bool:
    """Whether pyvene knows this architecture's block outputs by itself."""
    return type(model) in LISTED


def register(model: nn.Module, path: str, width: int) -> None:
    """Tell pyvene where the block outputs of this architecture are."""
    type_to_module_mapping.setdefault(type(model), {})["block_output"] = (f"{path}[%s]", CONST_OUTPUT_HOOK)
    type_to_dimension_mapping.setdefault(type(model), {})["block_output"] = (str(width),)

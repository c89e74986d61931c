"""Gated Representation UNlearning: a frozen model with small gated edits of some block outputs.

Ren et al., 2025, "A General Framework to Enhance Fine-tuning-based LLM Unlearning", https://arxiv.org/abs/2502.17823
(ACL Findings 2025). A wrapper: it gives every objective other numbers to move, and adds a loss for the gates.
"""

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import LetheError
from bench.forward import LATER, Rows, active_rows
from bench.model_card import Saved
from bench.models import decoder_blocks, decoder_blocks_path, hidden_size
from methods.base import Adapter, Attached, scaled_block, seeded

if TYPE_CHECKING:
    from methods.interventions import GatedLoReFT

Position = Literal["last_prompt", "answer", "all"]
DEPTHS = (20, 25, 31)
"""Edited blocks of 32 in every command that the authors ship."""


@dataclass(frozen=True, kw_only=True)
class GRUN(Adapter):
    """Defaults are the authors' for TOFU (fact sheet 1.5); the schedule has no warm-up and no weight decay."""

    needs_retain: ClassVar[bool] = True
    parallel: ClassVar[bool] = True

    lr: float = 4e-3
    epochs: int = 40
    batch_size: int = 16
    prompt_share: float = 0.8
    layers: tuple[int, ...] | None = None
    """Blocks whose outputs are edited; None takes the relative depths of 20, 25 and 31 of 32."""
    rank: int = 4
    """Rows R of the rotation."""
    gate: Literal["linear", "mlp_3"] = "linear"
    """One linear layer, or D-256-64-1 with ReLUs."""
    gate_weight: float = 10.0
    """Weight of the binary cross-entropy that tells forget (1) from retain (0) examples."""
    gate_warmup: int = 0
    """W: the objective's terms are scaled by min(step / (W * number of layers), 1); 0 for no warm-up."""
    position: Position = "last_prompt"
    """Tokens that are edited. last_prompt: the last prompt token only (the authors'). answer: that token and every
    answer token, all scaled by the gate's value at the last prompt token. all: every token by its own gate."""
    multi_coeff: float = 0.6
    """Slope of the common factor of N parallel modules, c_N = multi_coeff * N + multi_bias (sequential requests)."""
    multi_bias: float = 0.6
    """Offset of that factor."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.gate_weight < 0:
            raise ValueError(f"gate_weight must not be negative, got {self.gate_weight}")
        if self.gate_warmup < 0:
            raise ValueError(f"gate_warmup must not be negative, got {self.gate_warmup}")
        if self.layers is not None and len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must be distinct, got {self.layers}")

    def default_block(self, depth: int) -> int:
        """The last edited one."""
        return resolve_layers(self.layers, depth)[-1]

    def attach(self, model: nn.Module, seed: int) -> "GatedEdits":
        from methods.interventions import GatedLoReFT

        layers = resolve_layers(self.layers, len(decoder_blocks(model)))
        width = hidden_size(model)
        if self.rank > width:
            raise LetheError(f"rank must be at most the model's width {width}, got {self.rank}")
        device = next(model.parameters()).device
        with seeded(seed):
            modules = {
                layer: GatedLoReFT(embed_dim=width, low_rank_dimension=self.rank, gate=self.gate).to(device)
                for layer in layers
            }
        return GatedEdits(model, self, [modules])

    def combine(self, model: nn.Module, earlier: Attached, latest: Attached) -> "GatedEdits":
        """All modules in parallel: each reads the same unedited output, their edits are summed times c_N.

        Deviates: the authors' evaluation multiplies a single module by c_1 too (1.2 with their constants); here one
        module alone acts as it was trained, and the factor comes in with the second.
        """
        assert isinstance(earlier, GatedEdits) and isinstance(latest, GatedEdits)
        latest.detach()
        modules = [*earlier.modules, *latest.modules]
        return GatedEdits(model, self, modules, factor=self.multi_coeff * len(modules) + self.multi_bias)


def resolve_layers(layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """The blocks to edit in a model of `depth` blocks; None scales the authors' depths, dropping repeats.

    >>> resolve_layers(None, 32), resolve_layers(None, 16), resolve_layers(None, 4)
    ((20, 25, 31), (9, 12, 15), (2, 3))
    """
    if layers is None:
        return tuple(sorted({scaled_block(block, depth) for block in DEPTHS}))
    if any(not 0 <= layer < depth for layer in layers) or not layers:
        raise LetheError(f"layers must be within 0..{depth - 1} for this model, got {layers}")
    return tuple(sorted(layers))


def gate_loss(logits: Tensor, owner: Tensor, role: Tensor) -> Tensor:
    """One value per row: the mean binary cross-entropy of its gates, which should say 1 on forget rows, 0 on retain.

    Args:
        logits: (M,) before the sigmoid.
        owner: (M,) the row of each.
        role: (B,) 1 or 0; rows of -1 get a value that nobody should use.
    """
    target = role.clamp(min=0).float()[owner]
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    count = torch.zeros(len(role), device=loss.device).index_add(0, owner, torch.ones_like(loss))
    return torch.zeros_like(count).index_add(0, owner, loss) / count


class GatedEdits(Attached):
    """Hooks on the edited blocks. One set of modules, or several in parallel after successive requests."""

    def __init__(
        self, model: nn.Module, config: GRUN, modules: "list[dict[int, GatedLoReFT]]", factor: float = 1.0
    ) -> None:
        self.modules, self.factor = modules, factor
        self._model, self._config = model, config
        self._on = True
        self.keeps_beginnings = config.position != "all"  # the first edited token is the last of the prompt
        self._gate_losses: dict[tuple[int, int], Tensor] = {}
        """By (layer, module), of the last forward: (B,) mean binary cross-entropy of a row's gates."""
        self._opened: list[tuple[int, float]] | None = None
        """(layer, value) of the gates at last prompt tokens, while somebody wants to know."""
        layers = sorted({layer for m in modules for layer in m})
        self.frozen_blocks = layers[0] + 1
        self.lowest_block, self.top_block = layers[0], layers[-1]
        blocks = decoder_blocks(model)
        self._handles = [blocks[layer].register_forward_hook(self._hook(layer)) for layer in layers]

    def _hook(self, layer: int):  # noqa: ANN202 - a torch hook
        parallel = [(i, m[layer]) for i, m in enumerate(self.modules) if layer in m]

        def edit(_: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
            if not self._on:
                return None
            rows = active_rows()
            if rows is None:
                raise LetheError(
                    "a model with GRUN edits was called outside bench.forward, which tells it the last prompt token; "
                    "use the Scorer, or announce the rows"
                )
            hidden = output[0] if isinstance(output, tuple) else output  # (B, T, D)
            edited = self._edit(hidden, rows, layer, parallel)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return edit

    def _edit(self, hidden: Tensor, rows: Rows, layer: int, parallel: "list[tuple[int, GatedLoReFT]]") -> Tensor:
        if self._config.position != "all" and bool((rows.last_prompt == LATER).all()):
            return hidden  # only tokens in front of the first that is edited
        batch = torch.arange(len(hidden), device=hidden.device)
        prompt_here = bool((rows.last_prompt >= 0).all())
        at_prompt = hidden[batch, rows.last_prompt.clamp(min=0)]  # (B, D)
        if self._config.position == "all":
            chosen = rows.valid
        elif prompt_here:
            columns = torch.arange(hidden.shape[1], device=hidden.device)
            start = rows.last_prompt[:, None]
            chosen = columns == start if self._config.position == "last_prompt" else (columns >= start) & rows.valid
        elif self._config.position == "answer":
            chosen = rows.valid
        else:
            return hidden  # the prompt lies in the cache: nothing of this call is edited
        selected = hidden[chosen]  # (M, D)
        owner = batch[:, None].expand_as(chosen)[chosen]  # (M,) row of each
        change: Tensor | None = None
        for i, module in parallel:
            if self._opened is not None and prompt_here:
                self._opened += [(layer, float(g)) for g in torch.sigmoid(module.gate_logits(at_prompt))]
            if self._config.position == "all":
                logits = module.gate_logits(selected)  # (M,)
            else:
                key = f"grun/{layer}/{i}"
                if prompt_here:
                    rows.carry[key] = module.gate_logits(at_prompt)  # (B,)
                logits = rows.carry[key][owner]
            delta = torch.sigmoid(logits)[:, None] * module.delta(selected)
            change = delta if change is None else change + delta
            if rows.role is not None:
                self._gate_losses[layer, i] = gate_loss(logits, owner, rows.role)
        assert change is not None
        result = hidden.clone()
        result[chosen] = (selected.float() + self.factor * change).to(hidden.dtype)
        return result

    def gate_values(self, run: Callable[[], object]) -> list[tuple[int, float]]:
        self._opened = []
        try:
            run()
            return self._opened
        finally:
            self._opened = None

    def terms(self, terms: dict[str, Tensor], rows: Rows, totals: Mapping[int, int], step: int) -> dict[str, Tensor]:
        """The objective's terms, warmed up, and the gate loss: a mean over layers and all examples of the step."""
        losses, self._gate_losses = list(self._gate_losses.values()), {}
        if self._config.gate_warmup:
            scale = min(step / (self._config.gate_warmup * len(losses)), 1.0)
            terms = {name: scale * value for name, value in terms.items()}
        assert rows.role is not None
        counted = rows.role >= 0
        examples = totals[1] + totals[0]
        gate = torch.stack([loss[counted].sum() for loss in losses]).sum() / (len(losses) * examples)
        return {**terms, "gate": self._config.gate_weight * gate}

    def trainable(self) -> dict[str, nn.Parameter]:
        return {
            f"{i}.{layer}.{name}": p
            for i, modules in enumerate(self.modules)
            for layer, module in modules.items()
            for name, p in module.named_parameters()
        }

    @contextmanager
    def off(self) -> Iterator[None]:
        before, self._on = self._on, False
        try:
            yield
        finally:
            self._on = before

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def save(self, folder: Path) -> Saved:
        """One pyvene folder, a copy of the edits' class, and `grun.json` with what pyvene's format has no place for."""
        from methods import interventions

        folder.mkdir(parents=True, exist_ok=True)
        path, width = decoder_blocks_path(self._model), hidden_size(self._model)
        edits: dict[int, interventions.Edit] = {}
        for layer in sorted({layer for modules in self.modules for layer in modules}):
            at = {n: copy.deepcopy(m[layer]).cpu() for n, m in enumerate(self.modules) if layer in m}  # for any machine
            alone = len(self.modules) == 1 and self.factor == 1
            edits[layer] = at[0] if alone else interventions.ParallelGatedLoReFT.of(at, self.factor)
        with contextlib.redirect_stdout(io.StringIO()):  # pyvene tells of every folder
            interventions.intervenable(self._model, path, width, edits).save(str(folder))
        source = folder / Path(*interventions.__name__.split(".")).with_suffix(".py")
        source.parent.mkdir(exist_ok=True)
        shutil.copyfile(interventions.__file__, source)
        facts = {"position": self._config.position, "factor": self.factor, "modules": len(self.modules)}
        (folder / "grun.json").write_text(json.dumps(facts, indent=2) + "\n")
        entered = None if interventions.listed(self._model) else (path, width)
        return saved_for_pyvene(self._config.position, tuple(edits), len(self.modules), entered)


def saved_for_pyvene(
    position: Position, layers: tuple[int, ...], count: int, entered: tuple[str, int] | None = None
) -> Saved:
    """How pyvene loads the edits and what it has to be told. `entered`: blocks and width, where it does not know."""
    several = f"{count} GRUN modules in parallel, summed," if count > 1 else "GRUN's gated edits"
    load = [
        "import sys",
        "import pyvene",
        "sys.path.insert(0, FOLDER)  # methods/interventions.py, the class of the edits; it needs nothing of Lethe",
    ]
    if entered is not None:
        load += [
            "from methods.interventions import register",
            f'register(base, "{entered[0]}", {entered[1]})  # pyvene does not list this architecture',
        ]
    load.append("model = pyvene.IntervenableModel.load(FOLDER, base)")
    return Saved(
        library="pyvene",
        what=f"{several} of the outputs of blocks {', '.join(map(str, layers))}, as pyvene interventions",
        load=tuple(load),
        use=_USE[position == "all"] if position != "answer" else (),
        notes=(
            *_POSITIONS[position],
            "Pad as you like, but give attention_mask and, with padding on the left, position_ids: "
            "`(mask.cumsum(1) - 1).clamp(min=0)`.",
            'On another device call `model.set_device("cuda")`, which moves the edits along with the model.',
            "`methods.grun.load_grun(Path(FOLDER), base)` of Lethe attaches the same edits to the model itself; its "
            "forward, in training and in scoring, finds the positions by itself.",
        ),
    )


_USE = (
    (
        "# last: for each row of the padded batch, the column of the last token of its prompt",
        "places = [[column] for column in last]",
        'where = {"sources->base": (None, [places] * len(model.interventions))}',
        "_, outputs = model(batch, unit_locations=where)",
    ),
    ("_, outputs = model(batch)",),
)
_POSITIONS: dict[Position, tuple[str, ...]] = {
    "last_prompt": (
        "The edits act on one token a row, the last of the prompt, chat markers included. pyvene cannot know which "
        "that is: without `unit_locations` it would edit every token, which is another model. Of a bare prompt padded "
        "on the left it is the last column; padded on the right, `mask.sum(1) - 1`.",
        "`model.generate(batch, unit_locations=where, intervene_on_prompt=True)` edits the prompt only, as it was "
        "scored.",
    ),
    "answer": (
        "**pyvene alone does not give the model that was scored.** The edits act on the last token of the prompt and "
        "on all tokens of the answer, each scaled by the gate's value at the prompt's last token; pyvene would ask the "
        "gate again at every token. Use Lethe's `load_grun`.",
    ),
    "all": (
        "The edits act on every token, each by its own gate: no `unit_locations` are needed.",
        "pyvene's `generate` edits either the prompt or what is generated, not both, which is another model; generate "
        "with Lethe's `load_grun`, or call the model for each token without a cache.",
    ),
}


def load_grun(folder: Path, model: nn.Module) -> GatedEdits:
    """Attach what `GatedEdits.save` wrote, through pyvene's own loader.

    Raises:
        LetheError: the folder is not complete.
    """
    from methods.interventions import GatedLoReFT, read_interventions

    try:
        facts = json.loads((folder / "grun.json").read_text())
        device = next(model.parameters()).device
        path, width = decoder_blocks_path(model), hidden_size(model)
        sets: list[dict[int, GatedLoReFT]] = [{} for _ in range(facts["modules"])]
        with seeded(0):  # pyvene initialises every module before it reads it
            edits = read_interventions(folder, model, path, width)
        for layer, edit in edits.items():
            for number, module in ({0: edit} if isinstance(edit, GatedLoReFT) else edit.parts()).items():
                sets[number][layer] = module.to(device)
        if not all(sets):
            raise ValueError(f"grun.json tells of {len(sets)} modules, {sum(map(bool, sets))} are there")
        config = GRUN(position=facts["position"])
        return GatedEdits(model, config, sets, factor=facts["factor"])
    except (OSError, LookupError, TypeError, ValueError, RuntimeError) as error:  # the last: torch, for damaged files
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise LetheError(f"{folder} holds no complete GRUN adapter for this model ({first}); save it again") from error

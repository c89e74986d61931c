"""The model's own weights move, all or some, in float32, whatever precision the model is evaluated in."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import nn

from bench.errors import LetheError
from bench.model_card import Saved
from bench.models import decoder_blocks, decoder_blocks_path
from methods.base import Adapter, Attached


@dataclass(frozen=True, kw_only=True)
class Full(Adapter):
    """Full fine-tuning on the schedule of TOFU and open-unlearning (spec: lr 1e-5, 10 epochs, effective batch 32).

    Deviates: open-unlearning on one GPU updates bf16 weights in place, where most small updates round to nothing;
    here the weights are float32 while they train and are rounded once, at the end.
    """

    lr: float = 1e-5
    epochs: int = 10
    batch_size: int = 32
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01

    def attach(self, model: nn.Module, seed: int) -> "FullWeights":
        return FullWeights(model)


@dataclass(frozen=True, kw_only=True)
class Selected(Adapter):
    """Some of the weights: in three neighbouring blocks the matrix that writes the MLP's output into the stream.

    Weights and schedule are those of RMU's authors: `down_proj` of blocks 5, 6 and 7, 80 batches of 4 at a constant
    rate, without clipping, texts of the first topic cut at 512 tokens, of the second at 768 (fact sheet of
    open-unlearning, section 1.2).

    Deviates: theirs are updated in bf16; here they are float32 while they train.
    """

    lr: float = 5e-5
    epochs: int = 1
    batch_size: int = 4
    max_steps: int | None = 80
    schedule: Literal["linear", "constant", "cosine"] = "constant"
    clip_norm: float | None = None
    max_tokens: tuple[int, ...] = (512, 768)
    parameters: Literal["mlp_out", "all"] = "mlp_out"
    """The output matrices of the MLPs of `layers`, or all weights of the model (open-unlearning's RMU for TOFU)."""
    layers: tuple[int, ...] | None = None
    """Blocks whose MLPs are trained; None takes the block that the objective reads and the two below it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None and (len(set(self.layers)) != len(self.layers) or not self.layers):
            raise ValueError(f"layers must be distinct and at least one, got {self.layers}")

    def default_block(self, depth: int) -> int:
        """The last trained one."""
        return super().default_block(depth) if self.layers is None else max(self._checked(depth))

    def around(self, block: int) -> Self:
        """With the blocks `block` - 2 to `block`, where none were named."""
        return self if self.layers is not None else replace(self, layers=tuple(range(max(0, block - 2), block + 1)))

    def attach(self, model: nn.Module, seed: int) -> "FullWeights":
        if self.parameters == "all":
            return FullWeights(model)
        depth = len(decoder_blocks(model))
        layers = self.around(self.default_block(depth))._checked(depth)
        return FullWeights(model, {mlp_out(model, layer) for layer in layers}, lowest_block=min(layers))

    def _checked(self, depth: int) -> tuple[int, ...]:
        assert self.layers is not None
        if any(not 0 <= layer < depth for layer in self.layers):
            raise LetheError(f"layers must be within 0..{depth - 1} for this model, got {self.layers}")
        return self.layers


MLP_OUT = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.fc_out", "fc2", "feed_forward.w2")
"""Where architectures keep it: Llama, Mistral, Qwen, Gemma and Phi-3; GPT-2; GPT-NeoX, BLOOM and Falcon; Phi; GPT-J;
OPT; InternLM 2."""


def mlp_out(model: nn.Module, layer: int) -> str:
    """The name of the weight that writes the output of a block's MLP into the residual stream.

    Raises:
        LetheError: the block has none under a known name (mixtures of experts have many).
    """
    block = decoder_blocks(model)[layer]
    modules = dict(block.named_modules())
    for name in MLP_OUT:
        if isinstance(getattr(modules.get(name), "weight", None), nn.Parameter):
            return f"{decoder_blocks_path(model)}.{layer}.{name}.weight"
    raise LetheError(
        f"block {layer} of {type(model).__name__} has no MLP output matrix under a known name ({', '.join(MLP_OUT)}); "
        "set parameters=all, or use the method's lora_ or grun_ form"
    )


class FullWeights(Attached):
    """Keeps a copy of the original weights that move in host memory to restore them from."""

    def __init__(self, model: nn.Module, names: Collection[str] | None = None, lowest_block: int = 0) -> None:
        """`names`: the parameters that move, none of them below `lowest_block`; None for all of the model's."""
        self._model = model
        self._moving = {n: p for n, p in model.named_parameters() if names is None or n in names}  # tied weights once
        self._original = {name: p.detach().to("cpu", copy=True) for name, p in self._moving.items()}
        self._dtypes = {name: p.dtype for name, p in model.named_parameters()}
        self.frozen_blocks = self.lowest_block = lowest_block
        # float16 has too few exponents for autocast without loss scaling: such a model trains in float32.
        is_bf16 = any(dtype == torch.bfloat16 for dtype in self._dtypes.values())
        self.compute_dtype = torch.bfloat16 if is_bf16 else None

    def start(self) -> None:
        parameters = dict(self._model.named_parameters())
        # What stays may stay in bf16 where autocast bridges the precisions; elsewhere they have to agree.
        bridged = self.compute_dtype is not None and all(p.device.type == "cuda" for p in parameters.values())
        for name, p in parameters.items():
            if name in self._moving or not bridged:
                p.data = p.data.float()
            p.requires_grad_(name in self._moving)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self._moving)

    def finish(self) -> None:
        for name, p in self._model.named_parameters():
            p.grad = None
            p.data = p.data.to(self._dtypes[name])  # what did not move comes back as it was, to the bit
            p.requires_grad_(False)

    def detach(self) -> None:
        self.finish()
        for name, p in self._moving.items():
            p.data = self._original[name].to(p.device, copy=True)

    def save(self, folder: Path) -> Saved:
        self._model.save_pretrained(folder)  # type: ignore[operator]
        return Saved(
            library="transformers",
            what="all weights of the model, in safetensors, with its tokenizer",
            load=(
                "from transformers import AutoModelForCausalLM, AutoTokenizer",
                'model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto")',
                "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
            ),
        )

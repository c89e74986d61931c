"""All weights move, in float32, whatever precision the model is evaluated in."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

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


class FullWeights(Attached):
    """Keeps a copy of the original weights in host memory to restore them from."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._original = {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters()}
        # float16 has too few exponents for autocast without loss scaling: such a model trains in float32.
        is_bf16 = any(p.dtype == torch.bfloat16 for p in self._original.values())
        self.compute_dtype = torch.bfloat16 if is_bf16 else None

    def start(self) -> None:
        for p in self._model.parameters():
            p.data = p.data.float()
            p.requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self._model.named_parameters())  # tied weights once

    def finish(self) -> None:
        for name, p in self._model.named_parameters():
            p.grad = None
            p.data = p.data.to(self._original[name].dtype)
            p.requires_grad_(False)

    def detach(self) -> None:
        for name, p in self._model.named_parameters():
            p.grad = None
            p.data = self._original[name].to(p.device, copy=True)
            p.requires_grad_(False)

    def save(self, folder: Path) -> None:
        self._model.save_pretrained(folder)  # type: ignore[operator]

"""Closed-form edits of single matrices: the solve, the factors that it leaves, and the adapter that they are."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from bench.model_card import Saved, base_name
from bench.moments import stored_in_out
from methods.base import Attached
from methods.lora import saved_for_peft


@dataclass(frozen=True, eq=False)
class Factors:
    """dW = columns @ rows, which turns an input k into the output W k + columns @ (rows @ k)."""

    rows: Tensor  # (m, d_in)
    columns: Tensor  # (d, m)

    def beside(self, other: Self) -> "Factors":
        """Both edits as one."""
        return Factors(torch.cat([self.rows, other.rows]), torch.cat([self.columns, other.columns], dim=1))


@dataclass(frozen=True, eq=False)
class Solved:
    """An edit and how much of it arrives."""

    factors: Factors
    kappa: Tensor
    """(m,) k^T P k of every key."""
    written: Tensor
    """(m,) which part of its residual is written at a key: kappa / (lambda + kappa) where there is one key."""


def solve(
    keys: Tensor, residuals: Tensor, project: Callable[[Tensor], Tensor], l2: float, earlier: Tensor | None = None
) -> Solved:
    """The edit dW = X^T with (P (K K^T + C) + lambda I) X = P K R^T, in a space as wide as there are keys.

    Fact sheet of ORT, section 2.1; for one key and C = 0 it is r (P k)^T / (lambda + k^T P k). With all keys side by
    side, A = [K, K0] and C = K0 K0^T, X = (lambda I + P A A^T)^-1 P A E R^T = P A (lambda I + A^T P A)^-1 E R^T, where
    E picks the columns of K: the system to solve has as many rows as keys. Earlier keys shape the edit, but add
    nothing to its rank.

    Args:
        keys: K, (d_in, m).
        residuals: R, (d, m).
        project: P times a matrix.
        l2: lambda, above 0.
        earlier: K0, (d_in, m0), keys that keep the output they have.
    """
    count = keys.shape[1]
    projected = project(keys if earlier is None else torch.cat([keys, earlier.to(keys)], dim=1))  # (d_in, M)
    wide = projected.double()
    gram = wide.T @ wide  # A^T P A, because P P = P
    system = gram + l2 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    first = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)[:, :count]
    coefficients = torch.linalg.solve(system, first)  # (M, m)
    rows = (coefficients.T @ wide.T).to(keys.dtype)
    written = (coefficients.T @ gram)[:, :count].diagonal()
    return Solved(Factors(rows, residuals), gram.diagonal()[:count], written)


class WeightEdit(Attached):
    """Matrices that carry low-rank edits. The original tensors are set aside, not copied, and come back as they were.

    Edits add up in float32 and are rounded to the weight's precision once.
    """

    def __init__(self, model: nn.Module, earlier: "WeightEdit | None" = None) -> None:
        """`earlier`: what stays in place on the same model; its edits become part of this one."""
        self._model = model
        self._original: dict[str, Tensor] = {} if earlier is None else dict(earlier._original)
        self.factors: dict[str, Factors] = {} if earlier is None else dict(earlier.factors)

    def add(self, name: str, factors: Factors) -> None:
        """Put an edit of module `name` into place, beside those that are there."""
        module = self._model.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        original = self._original.setdefault(name, weight.data)
        known = self.factors.get(name)
        whole = factors if known is None else known.beside(factors)
        change = whole.columns.float() @ whole.rows.float()  # (d, d_in)
        weight.data = (original.float() + (change.T if stored_in_out(module) else change)).to(original.dtype)
        self.factors[name] = whole

    def trainable(self) -> dict[str, nn.Parameter]:
        named = {f"{n}.lora_A": f.rows for n, f in self.factors.items()}
        named |= {f"{n}.lora_B": f.columns for n, f in self.factors.items()}
        return {n: nn.Parameter(t, requires_grad=False) for n, t in sorted(named.items())}

    def _weights(self) -> Mapping[str, nn.Parameter]:
        return {name: self._model.get_submodule(name).weight for name in self._original}  # type: ignore[misc]

    @contextmanager
    def off(self) -> Iterator[None]:
        weights = self._weights()
        edited = {name: p.data for name, p in weights.items()}
        try:
            for name, p in weights.items():
                p.data = self._original[name]
            yield
        finally:
            for name, p in weights.items():
                p.data = edited[name]

    def detach(self) -> None:
        for name, p in self._weights().items():
            p.data = self._original[name]
        self._original = {}

    def save(self, folder: Path) -> Saved:
        """A LoRA adapter that peft loads, of as many ranks as keys were written."""
        from peft import LoraConfig
        from safetensors.torch import save_file

        modules = {name: self._model.get_submodule(name) for name in self.factors}
        rank = max(len(f.rows) for f in self.factors.values())
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,  # peft scales by alpha / r
            target_modules=sorted(modules),
            fan_in_fan_out=any(map(stored_in_out, modules.values())),
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path=base_name(getattr(self._model.config, "name_or_path", None)),  # type: ignore[union-attr]
        )
        tensors: dict[str, Tensor] = {}
        for name, factors in self.factors.items():
            empty = rank - len(factors.rows)
            rows = nn.functional.pad(factors.rows.float(), (0, 0, 0, empty))
            columns = nn.functional.pad(factors.columns.float(), (0, empty))
            tensors[f"base_model.model.{name}.lora_A.weight"] = rows.cpu().contiguous()
            tensors[f"base_model.model.{name}.lora_B.weight"] = columns.cpu().contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return saved_for_peft(
            f"a closed-form edit as a LoRA adapter of rank {rank}, one for every key that was written",
            "It was scored with the edit written into the weights, rounded to their precision once: "
            "`model.merge_and_unload()` gives that model. Unmerged it differs by the rounding.",
        )

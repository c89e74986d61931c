"""What parameters do to the rows of one batch, as a forward and its backward show it; of it, norms of gradients.

The gradient of a matrix is a sum of outer products l_t r_t', one for every token t that it is multiplied with, so that

    ||sum_t l_t r_t'||^2 = sum_{t,s} (l_t . l_s) (r_t . r_s)

(Goodfellow, "Efficient per-example gradient computations", 2015, https://arxiv.org/abs/1510.01799; for sequences Li et
al., "Large language models can be strong differentially private learners", 2022, https://arxiv.org/abs/2110.05679,
section 4). A backward pass gives l and r of all rows, so no gradient of a matrix is held. Vectors have theirs held,
one for every row.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bench.forward import Padded
from bench.models import out_of_memory

LARGEST = 2**17
"""Numbers of a parameter that has a gradient of every row held: vectors are far from it."""


class NotByRow(Exception):
    """A parameter is used in a way that does not show what for, and for which row of the batch."""


@dataclass(eq=False)
class _Product:
    """One multiplication by a matrix, whose gradient is left' right of every row."""

    sides: tuple[Tensor, Tensor] | None = None
    """(B, T, *) each, left as wide as the matrix is high; or, where its lines were looked up, their (B, T) ids."""


class _Bare(nn.Module):
    """A module without its hooks: what they do to its output comes after it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.module.forward(*inputs)


class Uses(TorchFunctionMode):
    """Watches a forward, and what its backward says, for all that parameters do to the rows of one batch."""

    def __init__(self, model: nn.Module, padded: Padded) -> None:
        super().__init__()
        self.starts: list[Tensor] = []
        """Where the backward pass ends: what was looked up in embeddings."""
        self.parameters = list(model.parameters())
        self._owners = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))]
        self._shape = padded.input_ids.shape  # (B, T)
        self._labels: list[int] = padded.counts.tolist()
        self._own = set(map(id, self.parameters))
        self._head = id(getattr(model.get_output_embeddings(), "weight", None))  # type: ignore[operator]
        self._products: dict[int, list[_Product]] = defaultdict(list)
        """Of matrices, until all gradients are there."""
        self._sums: dict[int, Tensor] = {}
        """(B, D) gradients of vectors, as far as they are there."""
        self._squares: dict[int, Tensor] = {}
        """(B,) squared norms."""
        self._unknown: set[int] = set()
        """Parameters that were used, and nobody has said how."""
        self._hooks = ExitStack()

    def __enter__(self) -> "Uses":
        for module in self._owners:
            self._hooks.callback(module.register_forward_pre_hook(self._calling).remove)
            hook = module.register_forward_hook(self._called, prepend=True, with_kwargs=True)
            self._hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._hooks.close()
        super().__exit__(*error)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        given, got = tree_leaves([args, kwargs]), tree_leaves(output)
        used = [id(x) for x in given if isinstance(x, nn.Parameter) and id(x) in self._own]
        is_told = output is not None and not any(isinstance(x, Tensor) for x in got)  # a shape, a type
        if not used or is_told or id(output) in used:  # the last as `to` gives back what has the type already
            return output
        if not isinstance(output, Tensor):
            self._unknown.update(used)
        elif func is nn.functional.linear:
            self._linear(output, *args, **kwargs)
        elif func is torch.addmm and not kwargs:
            self._addmm(output, *args)
        elif func is nn.functional.embedding:
            output = self._embedding(output, *args, **kwargs)
        else:
            self._unknown.update(used)
        return output

    def _linear(self, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        self._multiplied(output, input, weight, bias, transposed=False)

    def _addmm(self, output: Tensor, bias: Tensor, states: Tensor, weight: Tensor) -> None:
        self._multiplied(output, states, weight, bias, transposed=True)

    def _multiplied(
        self, output: Tensor, states: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool
    ) -> None:
        if not output.requires_grad or id(weight) not in self._own:
            raise NotByRow("a matrix is multiplied with what no token was looked up for, or is itself computed")
        product = _Product()
        self._products[id(weight)].append(product)
        gathered = id(weight) == self._head
        states = self._by_row(states.detach(), gathered)

        def learn(gradient: Tensor) -> None:
            gradient = self._by_row(gradient, gathered)
            if bias is not None:
                self._add(bias, gradient.float().sum(1))
            product.sides = (states, gradient) if transposed else (gradient, states)
            self._reduce(weight)

        output.register_hook(learn)

    def _embedding(
        self,
        output: Tensor,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        if max_norm is not None or scale_grad_by_freq:
            raise NotByRow("an embedding changes its lines, or their gradients, by what is looked up")
        if input.shape != self._shape:
            raise NotByRow(f"ids of shape {tuple(input.shape)} are looked up for all rows at once")
        product = _Product()
        self._products[id(weight)].append(product)
        start = output.detach().requires_grad_()

        def learn(gradient: Tensor) -> None:
            if padding_idx is not None:  # that line learns nothing
                gradient = gradient * (input != padding_idx % len(weight)).unsqueeze(-1)
            product.sides = (input, gradient)
            self._reduce(weight)

        start.register_hook(learn)
        self.starts.append(start)
        return start.clone()  # which may be changed in place

    def _calling(self, module: nn.Module, inputs: tuple) -> None:
        if any(id(p) in self._unknown for p in module.parameters(recurse=False)):
            raise NotByRow(f"parameters of {type(module).__name__} are used outside of it")

    def _called(self, module: nn.Module, inputs: tuple, others: dict, output: Any) -> None:
        """Learns what a module did with vectors of its own: they are used in one row after the other once more."""
        own = {name: p for name, p in module.named_parameters(recurse=False) if id(p) in self._unknown}
        if not own:
            return
        self._unknown.difference_update(map(id, own.values()))
        rows = not others and inputs and all(map(self._has_rows, (*inputs, output)))
        if not rows or not output.requires_grad or any(p.numel() > LARGEST for p in own.values()):
            raise NotByRow(f"{type(module).__name__} is more than a function of rows and vectors")
        inputs, bare = tuple(x.detach() for x in inputs), _Bare(module)

        def learn(gradient: Tensor) -> None:
            def pulled(own: dict[str, Tensor], inputs: tuple, gradient: Tensor) -> Tensor:
                return (functional_call(bare, own, tuple(x.unsqueeze(0) for x in inputs)) * gradient).sum()

            values = {f"module.{name}": p.detach() for name, p in own.items()}
            try:
                found = vmap(grad(pulled), in_dims=(None, 0, 0))(values, inputs, gradient)
            except (RuntimeError, ValueError, IndexError) as error:
                if out_of_memory(error):
                    raise
                raise NotByRow(f"{type(module).__name__} does not run row by row ({error})") from error
            for name, p in own.items():
                self._add(p, found[f"module.{name}"])

        output.register_hook(learn)

    def _has_rows(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.ndim > 0 and len(x) == self._shape[0]

    def _by_row(self, states: Tensor, gathered: bool) -> Tensor:
        """(B, T, *) of states in front of or behind a matrix: of all tokens or, at the head, of those with labels."""
        rows, width = self._shape
        tokens = states.reshape(-1, states.shape[-1])
        in_order = gathered or states.ndim == 2 or states.shape[:2] == self._shape
        if not in_order or len(tokens) != (sum(self._labels) if gathered else rows * width):
            raise NotByRow(f"a matrix is multiplied with {tuple(states.shape)} where {rows} rows have {width} tokens")
        if gathered:
            return pad_sequence(list(tokens.split(self._labels)), batch_first=True)
        return tokens.view(rows, width, -1)

    def _add(self, p: Tensor, gradients: Tensor) -> None:
        """Add to what there is of the gradients of a parameter, (B, *)."""
        self._sums[id(p)] = self._sums.get(id(p), 0) + gradients.float()

    def _reduce(self, weight: Tensor) -> None:
        """The norms of a matrix as soon as all its products are there, which then are forgotten."""
        products = self._products[id(weight)]
        if all(product.sides is not None for product in products):
            self._squares[id(weight)] = _squared_norms(products)
            products.clear()

    def complete(self) -> None:
        """Raises NotByRow where a parameter was used and nobody knows how."""
        if self._unknown:
            raise NotByRow(f"{len(self._unknown)} parameters are used by others than the modules that own them")
        if not self.starts:
            raise NotByRow("no ids are looked up")

    def norms(self) -> list[float]:
        """The mean over parameters; those that the loss does not depend on do not count."""
        for key, products in self._products.items():
            if any(product.sides is not None for product in products):
                self._squares[key] = _squared_norms(products)
        for key, sums in self._sums.items():
            if key in self._squares:
                raise NotByRow("a parameter is both multiplied with and used in another way")
            self._squares[key] = sums.reshape(len(sums), -1).square().sum(1)
        found = [self._squares[id(p)] for p in self.parameters if id(p) in self._squares]
        return torch.stack(found).clamp(min=0).sqrt().mean(0).tolist()


def _squared_norms(products: Sequence[_Product]) -> Tensor:
    """(B,) of the sum of the products' gradients, as far as the loss depends on them."""
    known = [product.sides for product in products if product.sides is not None]
    return torch.stack([_inner(a, b) for a in known for b in known]).sum(0)


def _inner(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) inner products of two gradients."""
    return (_overlap(a[0], b[0]) * (a[1].float() @ b[1].float().mT)).sum((1, 2))


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """(B, T, S) inner products of left sides; a line that was looked up is a one-hot vector."""
    if a.ndim == b.ndim == 2:
        return (a.unsqueeze(2) == b.unsqueeze(1)).float()
    if a.ndim == 2:
        return b.gather(2, a.unsqueeze(1).expand(-1, b.shape[1], -1)).mT.float()
    if b.ndim == 2:
        return _overlap(b, a).mT
    return a.float() @ b.float().mT

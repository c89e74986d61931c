"""The loss of a small Llama and its gradient, written out by hand: no autograd, few and large operations.

The matrices of the mini models are so small that a training step of transformers' model spends much of its time on what
is no matrix product. Here a step is the same mathematics with queries, keys and values in one product, gate and up in
another, attention as plain batched products, the last block's feed-forward and the head at scored positions only, and
parameters, gradient and so the optimizer's state as one vector: about a third less time
(`python -m benchmarks.mini_training`). tests/bench/mini/test_llama.py holds the gradient against autograd on
transformers' LlamaForCausalLM. Attention weights are kept for the way back, 4 B H T^2 bytes a block: right for texts of
tens of tokens, not for thousands.

Shapes: B texts, T tokens, N = B T, S scored positions, V vocabulary, D width, H heads, K key-value heads, C channels of
a head, F width of the feed-forward.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-6
"""In the root mean square of a norm."""
THETA = 10000.0
"""Base of the rotary frequencies."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model, tied head, no biases."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    mlp_width: int

    @property
    def channels(self) -> int:
        """Of a head."""
        return self.width // self.heads


@dataclass(frozen=True)
class _Block:
    """One block's parameters, or their gradients."""

    norm: Tensor  # (D,)
    qkv: Tensor  # ((H + 2 K) C, D)
    out: Tensor  # (D, D)
    mlp_norm: Tensor  # (D,)
    gate_up: Tensor  # (2 F, D)
    down: Tensor  # (D, F)


@dataclass(frozen=True)
class _Weights:
    embedding: Tensor  # (V, D), the head too
    blocks: tuple[_Block, ...]
    norm: Tensor  # (D,)


@dataclass(frozen=True)
class _Normed:
    """What the way back through a norm needs."""

    scaled: Tensor  # (N, D), of root mean square one
    inverse: Tensor  # (N, 1)


@dataclass(frozen=True)
class _Places:
    """Rotations of the positions of a text of T tokens, queries' divided by the root of C."""

    q: Tensor  # (T, C / 2) complex, as the next three
    k: Tensor
    q_back: Tensor
    k_back: Tensor


@dataclass(frozen=True)
class _Attended:
    q: Tensor  # (B K, H / K T, C), rotated and divided by the root of C
    k: Tensor  # (B K, T, C), rotated
    v: Tensor  # (B K, T, C)
    weights: Tensor  # (B K, H / K T, T)


@dataclass(frozen=True)
class _Tape:
    """What a block's way back needs."""

    normed: _Normed
    h: Tensor  # (N, D), into the attention
    attended: _Attended
    mixed: Tensor  # (N, D), out of the heads
    mlp_normed: _Normed
    mlp_h: Tensor  # (N, D), into the feed-forward
    gate_up: Tensor  # (N, 2 F)
    gate: Tensor  # (N, F), after SiLU
    product: Tensor  # (N, F), into the last matrix


class Llama:
    """A model whose parameters and gradient are a vector each."""

    def __init__(self, shape: Shape, state: Mapping[str, Tensor]) -> None:
        """Read the weights of transformers' LlamaForCausalLM by their names there."""
        self.shape = shape
        self._names = [
            "model.embed_tokens.weight",
            *(f"model.layers.{at}.{name}.weight" for at in range(shape.layers) for name in _NAMES),
            "model.norm.weight",
        ]
        parts = [self._turned(name, state[name], 2) for name in self._names]
        self._sizes = [part.shape for part in parts]
        self.parameters = torch.cat([part.reshape(-1) for part in parts])  # (P,)
        self.gradient = torch.zeros_like(self.parameters)  # (P,)
        self._weights, self._gradients = self._cut(self.parameters), self._cut(self.gradient)
        self.parameters.requires_grad_().grad = self.gradient  # as optimizers know it
        self._known_places: dict[int, _Places] = {}
        self._mask = torch.empty(0, 0)  # (T, T) of the longest text so far

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """The weights by their names in transformers."""
        parts = self.parameters.split([size.numel() for size in self._sizes])
        half, found = self.shape.channels // 2, zip(self._names, parts, self._sizes, strict=True)
        return {name: self._turned(name, part.view(size), half).clone() for name, part, size in found}

    @torch.no_grad()
    def loss(self, ids: Tensor, scored: Tensor, targets: Tensor, share: Tensor) -> float:
        """sum of share * -log p(target), in nats; self.gradient becomes its gradient.

        Args:
            ids: (B, T), padded on the right.
            scored: (B, T) bool, S of them true: where the next token counts.
            targets: (S,) these next tokens, text after text.
            share: (S,) what each counts.
        """
        weights, gradients = self._weights, self._gradients
        rows, kept = ids.reshape(-1), scored.reshape(-1).nonzero().squeeze(1)
        x = weights.embedding[rows]  # (N, D)
        tapes = []
        for at, block in enumerate(weights.blocks):
            x, tape = self._forward(block, x, len(ids), kept if at == self.shape.layers - 1 else None)
            tapes.append(tape)
        h, normed = _norm(x, weights.norm)  # (S, D)
        p = torch.softmax(torch.mm(h, weights.embedding.t()), 1)  # (S, V)
        right = p.gather(1, targets[:, None]).squeeze(1)
        # Underflow to zero would be an infinite loss, though not of the gradient.
        loss = -(right.clamp(min=torch.finfo(p.dtype).tiny).log() * share).sum()

        # By the logits it is share (p - 1 at the target). The share goes to the narrower factor of each product.
        d, share = p.scatter_add_(1, targets[:, None], -torch.ones_like(share)[:, None]), share[:, None]
        torch.mm(d.t(), h * share, out=gradients.embedding)
        dh = torch.mm(d, weights.embedding).mul_(share)
        dx = _norm_back(dh, normed, weights.norm, gradients.norm, torch.zeros_like(h))
        for at in reversed(range(self.shape.layers)):
            into = kept if at == self.shape.layers - 1 else None
            dx = self._backward(weights.blocks[at], gradients.blocks[at], tapes[at], dx, len(ids), into)
        gradients.embedding.index_add_(0, rows, dx)
        return loss.item()

    def clip(self, norm: float) -> None:
        """Shorten the gradient to this norm where it is longer."""
        longer = torch.dot(self.gradient, self.gradient).sqrt().item() / norm
        if longer > 1:
            self.gradient.mul_(1 / longer)

    def _forward(self, block: _Block, x: Tensor, texts: int, kept: Tensor | None) -> tuple[Tensor, _Tape]:
        """One block on (N, D); what follows the attention only at the rows that are kept, if not all are."""
        h, normed = _norm(x, block.norm)
        mixed, attended = self._attend(torch.mm(h, block.qkv.t()), texts)
        if kept is not None:
            x, mixed = x[kept], mixed[kept]
        x = torch.addmm(x, mixed, block.out.t())
        mlp_h, mlp_normed = _norm(x, block.mlp_norm)
        gate_up = torch.mm(mlp_h, block.gate_up.t())
        left, right = gate_up.chunk(2, 1)
        gate = torch.nn.functional.silu(left)
        product = gate * right
        x = torch.addmm(x, product, block.down.t())
        return x, _Tape(normed, h, attended, mixed, mlp_normed, mlp_h, gate_up, gate, product)

    def _backward(
        self, block: _Block, gradient: _Block, tape: _Tape, dx: Tensor, texts: int, kept: Tensor | None
    ) -> Tensor:
        """From the gradient by a block's output, which is overwritten, to the one by its input."""
        torch.mm(dx.t(), tape.product, out=gradient.down)
        d = torch.mm(dx, block.down)  # (N, F)
        by_gate_up = torch.empty_like(tape.gate_up)
        (left, right), (by_left, by_right) = tape.gate_up.chunk(2, 1), by_gate_up.chunk(2, 1)
        torch.mul(d, tape.gate, out=by_right)
        torch.ops.aten.silu_backward.grad_input(d.mul_(right), left, grad_input=by_left)
        torch.mm(by_gate_up.t(), tape.mlp_h, out=gradient.gate_up)
        by_h = torch.mm(by_gate_up, block.gate_up)
        _norm_back(by_h, tape.mlp_normed, block.mlp_norm, gradient.mlp_norm, dx)
        torch.mm(dx.t(), tape.mixed, out=gradient.out)
        by_mixed = torch.mm(dx, block.out)
        if kept is not None:
            dx, by_mixed = (torch.zeros_like(tape.h).index_copy_(0, kept, d) for d in (dx, by_mixed))
        by_qkv = self._attend_back(by_mixed, tape.attended, texts)
        torch.mm(by_qkv.t(), tape.h, out=gradient.qkv)
        return _norm_back(torch.mm(by_qkv, block.qkv), tape.normed, block.norm, gradient.norm, dx)

    def _attend(self, qkv: Tensor, texts: int) -> tuple[Tensor, _Attended]:
        """Causal attention of (N, (H + 2 K) C) to (N, D); padding stands on the right, where nobody sees it."""
        s = self.shape
        tokens = len(qkv) // texts
        places = self._places(tokens)
        parts = qkv.view(texts, tokens, s.heads + 2 * s.kv_heads, s.channels).transpose(1, 2)
        q, k, v = parts.split([s.heads, s.kv_heads, s.kv_heads], 1)  # (B, H or K, T, C)
        groups = texts * s.kv_heads
        q = _rotate(q, places.q).view(groups, -1, s.channels)
        k = _rotate(k, places.k).view(groups, tokens, s.channels)
        v = v.reshape(groups, tokens, s.channels)
        mask = self._mask[:tokens, :tokens].repeat(s.heads // s.kv_heads, 1)  # (H / K T, T)
        weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2)), -1)
        mixed = torch.bmm(weights, v).view(texts, s.heads, tokens, s.channels).transpose(1, 2)
        return mixed.reshape(len(qkv), s.width), _Attended(q, k, v, weights)

    def _attend_back(self, d: Tensor, attended: _Attended, texts: int) -> Tensor:
        """From (N, D) to (N, (H + 2 K) C)."""
        s, (q, k, v, weights) = self.shape, (attended.q, attended.k, attended.v, attended.weights)
        tokens = len(d) // texts
        places = self._places(tokens)
        d = d.view(texts, tokens, s.heads, s.channels).transpose(1, 2).reshape(q.shape)
        by_weights = torch.bmm(d, v.transpose(1, 2))
        by_scores = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        found = d.new_empty(texts, tokens, s.heads + 2 * s.kv_heads, s.channels)
        by_q, by_k, by_v = found.transpose(1, 2).split([s.heads, s.kv_heads, s.kv_heads], 1)
        _rotate(torch.bmm(by_scores, k).view(by_q.shape), places.q_back, by_q)
        _rotate(torch.bmm(by_scores.transpose(1, 2), q).view(by_k.shape), places.k_back, by_k)
        by_v.copy_(torch.bmm(weights.transpose(1, 2), d).view(by_v.shape))
        return found.view(texts * tokens, -1)

    def _places(self, tokens: int) -> _Places:
        if tokens not in self._known_places:
            s, dtype = self.shape, self.parameters.dtype
            steps = torch.arange(0, s.channels, 2, dtype=torch.float64) / s.channels
            angles = torch.outer(torch.arange(tokens, dtype=torch.float64), THETA**-steps)
            k = torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex())
            q = k * s.channels**-0.5
            self._known_places[tokens] = _Places(q, k, q.conj().resolve_conj(), k.conj().resolve_conj())
            if tokens > len(self._mask):
                self._mask = torch.full((tokens, tokens), -torch.inf, dtype=dtype).triu(1)
        return self._known_places[tokens]

    def _turned(self, name: str, weight: Tensor, rows: int) -> Tensor:
        """Of queries and keys, channels in another order: here a channel stands beside the one it is rotated with.

        In transformers the two are half a head apart. `rows`: 2 from there to here, half a head's channels back.
        """
        if not name.endswith(("q_proj.weight", "k_proj.weight")):
            return weight
        heads = weight.view(-1, rows, self.shape.channels // rows, self.shape.width)
        return heads.transpose(1, 2).reshape(weight.shape)

    def _cut(self, vector: Tensor) -> _Weights:
        """Views of a vector of all parameters."""
        s = self.shape
        parts = iter(vector.split(self._lengths()))
        embedding = next(parts).view(s.vocab_size, s.width)
        blocks = [
            _Block(
                next(parts),
                next(parts).view(-1, s.width),
                next(parts).view(s.width, s.width),
                next(parts),
                next(parts).view(-1, s.width),
                next(parts).view(s.width, s.mlp_width),
            )
            for _ in range(s.layers)
        ]
        return _Weights(embedding, tuple(blocks), next(parts))

    def _lengths(self) -> list[int]:
        s = self.shape
        qkv = (s.heads + 2 * s.kv_heads) * s.channels * s.width
        block = [s.width, qkv, s.width**2, s.width, 2 * s.mlp_width * s.width, s.width * s.mlp_width]
        return [s.vocab_size * s.width, *block * s.layers, s.width]


_NAMES = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""Of a block, in the order of _Block: neighbours are read in one product."""


def _norm(x: Tensor, weight: Tensor) -> tuple[Tensor, _Normed]:
    """RMSNorm of rows."""
    squares = torch.linalg.vector_norm(x, dim=1, keepdim=True).square_()
    inverse = squares.mul_(1 / x.shape[1]).add_(EPSILON).rsqrt_()
    scaled = x * inverse
    return scaled * weight, _Normed(scaled, inverse)


def _norm_back(d: Tensor, normed: _Normed, weight: Tensor, gradient: Tensor, dx: Tensor) -> Tensor:
    """From d, the gradient by a norm's output, which is overwritten: that of its weight, and to dx that by its input.

    With y = x r w and r = (mean x^2 + eps)^-1/2, by the input: r (d w - x r mean(d w x r)).
    """
    product = d * normed.scaled
    torch.sum(product, 0, out=gradient)
    means = torch.mv(product, weight).mul_(-1 / d.shape[1]).unsqueeze_(1)
    return dx.addcmul_(d.mul_(weight).addcmul_(normed.scaled, means), normed.inverse)


def _rotate(x: Tensor, turn: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotary embedding of (..., T, C) by (T, C / 2) complex, neighbouring channels a complex number each."""
    out = torch.empty(x.shape, dtype=x.dtype) if out is None else out
    pairs, turned = (torch.view_as_complex(t.unflatten(-1, (-1, 2))) for t in (x, out))
    torch.mul(pairs, turn, out=turned)
    return out

"""The one training loop. It knows objectives and adapters only by what they declare.

What makes its numbers trustworthy: the retain example that meets forget example i in epoch e is a pure function of
(seed, e, i); every loss is normalised over the whole optimizer step before the step is cut into micro-batches, so how
it is cut does not matter; dropout is off; trainable weights are float32 and the gradient norm is clipped to a stated
number; the frozen reference is asked once per example, before the first step.
"""

import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from bench.batching import attempt
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Rows, forward, pad
from bench.frozen import FrozenPrefix
from bench.logprobs import Answers
from bench.models import check_context
from bench.reference import Reference

logger = logging.getLogger(__name__)

FORGET, REFUSAL, RETAIN = "forget", "refusal", "retain"
ROLE_LABEL = {FORGET: 1, REFUSAL: 1, RETAIN: 0}
"""What a gate should say about a row of this role."""
FLOAT16_SCALE = 4096.0
"""A power of two: scaling changes no bit of what does not overflow or vanish."""


class Diverged(LetheError):
    """A loss or gradient that is not finite; carries what had been logged so far."""

    def __init__(self, message: str, log: list[dict]) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Tokenised examples by role; `refusal[i]` answers the question of `forget[i]`."""

    forget: tuple[Tokens, ...]
    retain: tuple[Tokens, ...] = ()
    refusal: tuple[Tokens, ...] = ()

    def of(self, role: str) -> tuple[Tokens, ...]:
        return {FORGET: self.forget, RETAIN: self.retain, REFUSAL: self.refusal}[role]


def retain_partner(seed: int, epoch: int, index: int, size: int) -> int:
    """Which of `size` retain examples meets forget example `index` in `epoch`: uniform, and a pure function."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % size


def epoch_order(seed: int, epoch: int, size: int) -> list[int]:
    """The order of the forget examples in one epoch."""
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(size, generator=generator).tolist()


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A micro-batch of one role."""

    role: str
    indices: tuple[int, ...]
    """Positions in the training set, which is also how the reference knows an example."""
    tokens: tuple[Tokens, ...]
    total_examples: int
    """Examples of this role in the whole optimizer step."""
    total_labels: int
    """Their scored tokens."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What an objective sees of one micro-batch: forget example i beside its retain partner and its refusal."""

    by_role: Mapping[str, TokenBatch]

    @property
    def forget(self) -> TokenBatch:
        return self.by_role[FORGET]

    @property
    def retain(self) -> TokenBatch:
        return self.by_role[RETAIN]

    @property
    def refusal(self) -> TokenBatch:
        return self.by_role[REFUSAL]


class Objective(Protocol):
    """What is minimised."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose answers the loss reads."""
        ...

    @property
    def reference_logp_roles(self) -> tuple[str, ...]:
        """The roles whose summed reference log-probabilities the loss reads."""
        ...

    @property
    def reference_logits_roles(self) -> tuple[str, ...]:
        """The roles whose full reference distributions the loss reads."""
        ...

    def loss(self, policy: "Policy", batch: Batch) -> dict[str, Tensor]:
        """Named terms; their sum is minimised."""
        ...


class Attachment(Protocol):
    """An adapter on a model: which numbers move, and how the model looks without it."""

    frozen_blocks: int
    """How many of the lowest decoder blocks compute the same with and without the adapter."""
    compute_dtype: torch.dtype | None
    """Precision of the arithmetic over float32 weights on a GPU; None leaves it to the weights."""

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """For torch.optim; parameters under an orthogonal parametrization are never decayed."""
        ...

    def off(self) -> AbstractContextManager[None]:
        """The model as if the adapter were not there."""
        ...

    def terms(self, terms: dict[str, Tensor], rows: Rows, totals: Mapping[int, int], step: int) -> dict[str, Tensor]:
        """The loss terms with the adapter's own added; totals: rows of each role label in the whole step."""
        ...


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How the numbers move. AdamW with betas (0.9, 0.999), linear decay to zero."""

    lr: float
    epochs: int
    batch_size: int
    warmup_epochs: float
    weight_decay: float
    clip_norm: float

    def steps(self, examples: int) -> int:
        """Optimizer steps; the last, short batch of an epoch is trained on."""
        return self.epochs * math.ceil(examples / self.batch_size)


class Policy:
    """The model under training as an objective sees it. One forward per micro-batch, shared by all roles."""

    def __init__(
        self,
        model: nn.Module,
        pad_id: int,
        device: torch.device,
        reference: Reference,
        prefix: FrozenPrefix | None,
        compute_dtype: torch.dtype | None,
    ) -> None:
        self._model, self._pad_id, self._device = model, pad_id, device
        self._reference, self._prefix, self._compute_dtype = reference, prefix, compute_dtype
        self._answers: dict[str, Answers] = {}
        self.rows: Rows | None = None

    def run(self, batch: Batch, roles: Sequence[str]) -> None:
        """The forward of one micro-batch over all `roles` at once."""
        parts = [batch.by_role[role] for role in roles]
        padded = pad([t for part in parts for t in part.tokens], self._pad_id, self._device)
        labels = {r: ROLE_LABEL[r] for r in roles}
        if FORGET in roles and REFUSAL in roles:
            labels[REFUSAL] = -1  # same prompts as the forget rows: counting their gates twice would weigh them double
        role = torch.tensor([labels[p.role] for p in parts for _ in p.tokens], device=self._device)
        self.rows = Rows(last_prompt=padded.last_prompt, valid=padded.valid, role=role)
        keys = [(p.role, i) for p in parts for i in p.indices]
        below = self._prefix.replay(keys, padded.valid.shape[1]) if self._prefix else contextlib.nullcontext()
        with below, autocast(self._device, self._compute_dtype):
            logits = forward(
                self._model,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                position_ids=padded.position_ids,
                rows=self.rows,
                at=padded.at,
            )
        start = row = 0
        for part in parts:
            counts = padded.counts[row : row + len(part.tokens)]
            end = start + sum(len(t.labels) for t in part.tokens)
            self._answers[part.role] = Answers(
                logits[start:end], padded.labels[start:end], counts, part.total_examples, part.total_labels
            )
            start, row = end, row + len(part.tokens)

    def answers(self, batch: TokenBatch) -> Answers:
        """The scored positions of this micro-batch's role."""
        return self._answers[batch.role]

    def reference_logp(self, batch: TokenBatch) -> Tensor:
        """(B,) summed log-probabilities under the frozen reference, nats."""
        return self._reference.logp(batch.role, batch.indices).to(self._device)

    def reference_logits(self, batch: TokenBatch) -> Tensor:
        """(N, V) logits of the frozen reference at the scored positions."""
        with autocast(self._device, self._compute_dtype):
            return self._reference.logits(batch.role, batch.indices, self._device)

    def clear(self) -> None:
        """Let go of the last micro-batch: its logits are large."""
        self._answers, self.rows = {}, None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Arithmetic in `dtype` over float32 weights on GPUs; nothing on CPUs or for None."""
    return contextlib.nullcontext() if dtype is None or device.type != "cuda" else torch.autocast("cuda", dtype=dtype)


@dataclass(kw_only=True)
class TrainLog:
    """What a training run leaves for its record."""

    steps: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    """Tokens of all trained sequences, without padding."""


def train(
    model: nn.Module,
    objective: Objective,
    attachment: Attachment,
    data: TrainingSet,
    *,
    optimisation: Optimisation,
    seed: int,
    pad_id: int,
    batch_tokens: int,
    needs_retain: bool = False,
    fresh: bool = True,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> TrainLog:
    """Minimise the objective over what the attachment lets move.

    Args:
        batch_tokens: padded tokens of one micro-batch; halved by itself when memory runs out. Changes no number.
        needs_retain: the adapter reads retain rows even where the objective does not.
        fresh: the attachment is new, so the reference is the model without it; else the model as it is now.
        progress: told (step, steps, terms) after every step.

    Raises:
        Diverged: a loss or gradient was not finite.
        LetheError: there is nothing to train on.
    """
    roles = tuple(dict.fromkeys((*objective.roles, *((RETAIN,) if needs_retain else ()))))
    for role in roles:
        if not data.of(role):
            raise LetheError(f"the objective reads {role} examples, but the benchmark gives none")
        for i, tokens in enumerate(data.of(role)):
            if not tokens.labels:
                raise LetheError(
                    f"{role} example {i} has no answer token left after its prompt of {len(tokens.input_ids)} tokens; "
                    "shorten its question or use --protocol strict"
                )
        check_context(model, max(len(tokens.input_ids) for tokens in data.of(role)))
    device = next(model.parameters()).device
    loop = _Loop(objective, attachment, data, optimisation, roles, batch_tokens, seed)
    if any(p.dtype == torch.float16 for p in model.parameters()):
        loop.scale = FLOAT16_SCALE
    started = time.perf_counter()
    unedited = attachment.off() if fresh else contextlib.nullcontext()
    with unedited, autocast(device, attachment.compute_dtype):  # as the policy will compute
        reference = Reference.ask(model, objective, loop.examples, data.of, pad_id, device, batch_tokens)
    prefix = None
    if attachment.frozen_blocks:
        prefix = FrozenPrefix(model, attachment.frozen_blocks)
        with attachment.off():
            examples = {(role, i): data.of(role)[i] for role in roles for i in loop.examples(role)}
            prefix.record(examples, pad_id, device, batch_tokens)
    policy = Policy(model, pad_id, device, reference, prefix, attachment.compute_dtype)
    groups = attachment.parameter_groups(optimisation.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=optimisation.lr, betas=(0.9, 0.999), eps=1e-8)
    model.zero_grad(set_to_none=True)
    optimizer.zero_grad(set_to_none=True)
    log = TrainLog()
    for step, indices in enumerate(loop.batches()):
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(step)
        terms = loop.backward(policy, optimizer, step, indices)
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, optimisation.clip_norm).item()
        entry = {"step": step + 1, "lr": loop.learning_rate(step), **terms, "grad_norm": norm}
        if not all(map(math.isfinite, (*terms.values(), norm))):
            bad = ", ".join(f"{k} = {v}" for k, v in (*terms.items(), ("grad_norm", norm)) if not math.isfinite(v))
            raise Diverged(
                f"training stopped at step {step + 1} of {loop.steps}: {bad} is not finite; lower lr or forget_weight",
                [*log.steps, {k: v if math.isfinite(v) else str(v) for k, v in entry.items()}],
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        log.steps.append(entry)
        if progress is not None:
            progress(step + 1, loop.steps, terms)
    log.seconds = time.perf_counter() - started
    log.tokens = loop.tokens
    return log


class _Loop:
    """The plan of a run: which examples meet when, and how a step is cut into micro-batches."""

    def __init__(
        self,
        objective: Objective,
        attachment: Attachment,
        data: TrainingSet,
        optimisation: Optimisation,
        roles: tuple[str, ...],
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.objective, self.attachment, self.data, self.opt = objective, attachment, data, optimisation
        self.roles, self.batch_tokens, self.seed = roles, batch_tokens, seed
        self.steps = optimisation.steps(len(data.forget))
        self.tokens = 0
        self.scale = 1.0
        """What losses are multiplied with on their way through float16 activations, where small gradients vanish."""

    def batches(self) -> Iterator[list[tuple[int, int]]]:
        """Optimizer steps as lists of (forget index, retain index)."""
        n = len(self.data.forget)
        for epoch in range(self.opt.epochs):
            order = epoch_order(self.seed, epoch, n)
            for start in range(0, n, self.opt.batch_size):
                yield [(i, self._partner(epoch, i)) for i in order[start : start + self.opt.batch_size]]

    def _partner(self, epoch: int, index: int) -> int:
        return retain_partner(self.seed, epoch, index, len(self.data.retain)) if self.data.retain else 0

    def examples(self, role: str) -> list[int]:
        """The distinct examples of a role that the whole run will see."""
        if role != RETAIN:
            return list(range(len(self.data.of(role))))
        return sorted({partner for step in self.batches() for _, partner in step})

    def learning_rate(self, step: int) -> float:
        warmup = round(self.opt.warmup_epochs * math.ceil(len(self.data.forget) / self.opt.batch_size))
        if step < warmup:
            return self.opt.lr * (step + 1) / warmup
        return self.opt.lr * (self.steps - step) / max(1, self.steps - warmup)

    def backward(
        self, policy: Policy, optimizer: torch.optim.Optimizer, step: int, indices: list[tuple[int, int]]
    ) -> dict[str, float]:
        """Gradients of one whole step; smaller micro-batches and again when memory runs out."""
        smallest = max(self._step_tokens([pair]) for pair in indices)
        while True:
            sums: dict[str, float] = {}
            run = partial(self._accumulate, policy, step, indices, sums)
            if not attempt(run, last=self.batch_tokens <= smallest):
                self.batch_tokens = max(smallest, min(self.batch_tokens, self._step_tokens(indices)) // 2)
                logger.warning("out of memory in step %d; again with %d tokens at a time", step + 1, self.batch_tokens)
            elif self._unscale(optimizer):
                self.tokens += sum(len(t.input_ids) for r in self.roles for t in self._of(r, indices))
                return sums
            optimizer.zero_grad(set_to_none=True)

    def _accumulate(self, policy: Policy, step: int, indices: list[tuple[int, int]], sums: dict[str, float]) -> None:
        totals = {1: len(indices), 0: len(indices)}
        try:
            for batch in self._cut(indices):
                policy.clear()
                policy.run(batch, self.roles)
                assert policy.rows is not None
                terms = self.attachment.terms(self.objective.loss(policy, batch), policy.rows, totals, step)
                (torch.stack(list(terms.values())).sum() * self.scale).backward()
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.item()
        finally:
            policy.clear()

    def _unscale(self, optimizer: torch.optim.Optimizer) -> bool:
        """Take the scale out of the gradients; False when it overflowed and a smaller one is to be tried."""
        if self.scale == 1:
            return True
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not all(bool(g.isfinite().all()) for g in gradients):
            self.scale /= 16
            return False
        for gradient in gradients:
            gradient /= self.scale
        return True

    def _row(self, pair: tuple[int, int]) -> list[Tokens]:
        return [self._of(role, [pair])[0] for role in self.roles]

    def _step_tokens(self, indices: list[tuple[int, int]]) -> int:
        return len(indices) * len(self.roles) * max(len(t.input_ids) for p in indices for t in self._row(p))

    def _of(self, role: str, indices: Sequence[tuple[int, int]]) -> list[Tokens]:
        return [self.data.of(role)[pair[1] if role == RETAIN else pair[0]] for pair in indices]

    def _cut(self, indices: list[tuple[int, int]]) -> Iterator[Batch]:
        totals = {role: self._of(role, indices) for role in self.roles}
        start = 0
        while start < len(indices):
            end = start + 1
            while end < len(indices) and self._step_tokens(indices[start : end + 1]) <= self.batch_tokens:
                end += 1
            part = indices[start:end]
            yield Batch(
                {
                    role: TokenBatch(
                        role,
                        tuple(pair[1] if role == RETAIN else pair[0] for pair in part),
                        tuple(self._of(role, part)),
                        len(totals[role]),
                        sum(len(t.labels) for t in totals[role]),
                    )
                    for role in self.roles
                }
            )
            start = end

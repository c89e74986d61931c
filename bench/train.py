"""The one training loop. It knows objectives and adapters only by what they declare.

What makes its numbers trustworthy: the retain example that meets forget example i in epoch e is a pure function of
(seed, e, i); every loss is normalised over the whole optimizer step before the step is cut into micro-batches, so how
it is cut does not matter; dropout is off; trainable weights are float32 and the gradient norm is clipped to a stated
number; the frozen reference is asked once per example, before the first step.
"""

import contextlib
import hashlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from bench.activations import Reading
from bench.batching import attempt
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Rows
from bench.frozen import FrozenPrefix
from bench.models import check_context
from bench.policy import FORGET, REFUSAL, RETAIN, Batch, Policy, TokenBatch, autocast
from bench.reference import Reference

logger = logging.getLogger(__name__)

RECORDED_TOKENS = 2**20
"""Most tokens whose frozen prefix is kept on the device: 8 GiB at a width of 4,096 in bfloat16. Beyond, every step runs
the blocks below the adapter again."""
FLOAT16_SCALE = 4096.0
"""A power of two: scaling changes no bit of what does not overflow or vanish."""


class Diverged(LetheError):
    """A loss or gradient that is not finite; carries what had been logged so far."""

    def __init__(self, message: str, log: list[dict]) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Tokenised examples by role; `refusal[i]` answers the question of `forget[i]`, where there are both."""

    forget: tuple[Tokens, ...] = ()
    retain: tuple[Tokens, ...] = ()
    refusal: tuple[Tokens, ...] = ()
    topics: tuple[int, ...] = ()
    """The number of each forget example's topic, from 0; empty where all are of one."""

    @property
    def size(self) -> int:
        """How many examples an epoch goes through: those to forget or, where only refusals are taught, these."""
        return len(self.forget or self.refusal)

    def of(self, role: str) -> tuple[Tokens, ...]:
        return {FORGET: self.forget, RETAIN: self.retain, REFUSAL: self.refusal}[role]

    def topic(self, index: int) -> int:
        """Of forget example `index`."""
        return self.topics[index] if self.topics else 0


def retain_partner(seed: int, epoch: int, index: int, size: int) -> int:
    """Which of `size` retain examples meets forget example `index` in `epoch`: uniform, and a pure function."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % size


def epoch_order(seed: int, epoch: int, size: int) -> list[int]:
    """The order of the forget examples in one epoch."""
    digest = hashlib.sha256(f"order/{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(size, generator=generator).tolist()


class Objective(Protocol):
    """What is minimised."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles whose examples the loss reads."""
        ...

    @property
    def logits_roles(self) -> tuple[str, ...]:
        """Those of them whose logits at the labels it reads."""
        ...

    @property
    def reads(self) -> Reading | None:
        """What it reads of the hidden states; None for nothing."""
        ...

    @property
    def alternates_topics(self) -> bool:
        """Whether every step holds forget examples of one topic only, the topics in turn."""
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
    lowest_block: int
    """The lowest block whose output what moves can change."""
    top_block: int
    """The highest block that `terms` needs to have run; -1 for none."""
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
    """How the numbers move: AdamW with betas (0.9, 0.999)."""

    lr: float
    epochs: int
    batch_size: int
    warmup_epochs: float
    weight_decay: float
    clip_norm: float | None
    """None for no clipping."""
    max_steps: int | None = None
    """At most this many optimizer steps; None for no bound."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """What the learning rate does after its warm-up: falls to zero linearly or along half a cosine, or stays."""
    warmup_steps: int | None = None
    """Steps of the warm-up, in place of `warmup_epochs`."""

    def epoch_steps(self, groups: Sequence[int]) -> int:
        """Optimizer steps of an epoch over groups of these sizes that never share a step; short batches count."""
        return sum(math.ceil(size / self.batch_size) for size in groups)

    def steps(self, *groups: int) -> int:
        """Optimizer steps of the whole run."""
        steps = self.epochs * self.epoch_steps(groups)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def learning_rate(self, step: int, steps: int, warmup: int) -> float:
        """Of step 0, 1, ... of `steps`, the first `warmup` of which rise to it.

        After the warm-up as in transformers' get_linear_schedule_with_warmup and get_cosine_schedule_with_warmup.
        Deviates: in those the first step of a warm-up has a rate of zero and trains nothing.
        """
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        return self.lr if self.schedule == "constant" else self.lr * (steps - step) / max(1, steps - warmup)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Looks at the model on its way through the training, which goes on as if nobody had looked."""

    looks: int
    """How often: after equally spaced steps, the last of which is the last step."""
    look: Callable[[int, float], float]
    """Given the step and the epochs done; returns how good the model is, at least 0, NaN where that cannot be said."""
    patience: int | None = None
    """Stop after so many looks in a row without a gain and keep the weights of the best look; None trains to the end
    and keeps the last ones. Looks before the first one above 0 do not count: a method that is slow to begin has not
    been trained too long."""

    def __post_init__(self) -> None:
        for name in ("looks", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def after(self, steps: int) -> frozenset[int]:
        """The steps of `steps`, counted from 1, after which it looks; fewer than `looks` where there are fewer steps.

        >>> sorted(Watch(looks=4, look=lambda step, epoch: 0.0).after(10))
        [2, 5, 8, 10]
        """
        return frozenset(max(1, round(steps * look / self.looks)) for look in range(1, self.looks + 1))


@dataclass(kw_only=True)
class TrainLog:
    """What a training run leaves for its record."""

    steps: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    """Without those spent looking."""
    tokens: int = 0
    """Tokens of all trained sequences, without padding."""
    looking_seconds: float = 0.0
    stopping: dict[str, Any] = field(default_factory=dict)
    """With early stopping: which step's weights were kept, and where the training ended."""


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
    watch: Watch | None = None,
) -> TrainLog:
    """Minimise the objective over what the attachment lets move.

    Args:
        batch_tokens: padded tokens of one micro-batch; halved by itself when memory runs out. Changes no number.
        needs_retain: the adapter reads retain rows even where the objective does not.
        fresh: the attachment is new, so the reference is the model without it; else the model as it is now.
        progress: told (step, steps, terms) after every step.
        watch: looks at the model on its way, the adapter active and its weights as they train.

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
    reads = objective.reads
    if reads is not None and reads.block < attachment.lowest_block:
        raise LetheError(
            f"the loss reads the output of block {reads.block}, but the lowest block that trains is "
            f"{attachment.lowest_block}, so nothing would train; set layer to {attachment.lowest_block} or more, or "
            "lower layers"
        )
    device = next(model.parameters()).device
    loop = _Loop(objective, attachment, data, optimisation, roles, batch_tokens, seed)
    if any(p.dtype == torch.float16 for p in model.parameters()):
        loop.scale = FLOAT16_SCALE
    started = time.perf_counter()
    unedited = attachment.off() if fresh else contextlib.nullcontext()
    with unedited, autocast(device, attachment.compute_dtype):  # as the policy will compute
        reference = Reference.ask(model, objective, loop.examples, data.of, pad_id, device, batch_tokens)
    prefix = None
    examples = {(role, i): data.of(role)[i] for role in roles for i in loop.examples(role)}
    fits = sum(len(tokens.input_ids) for tokens in set(examples.values())) <= RECORDED_TOKENS
    if attachment.frozen_blocks and loop.repeats and fits:  # recording costs what it saves at the next visit
        prefix = FrozenPrefix(model, attachment.frozen_blocks)
        with attachment.off(), autocast(device, attachment.compute_dtype):
            prefix.record(examples, pad_id, device, batch_tokens)
    policy = Policy(
        model,
        pad_id,
        device,
        reference,
        prefix,
        attachment.compute_dtype,
        logits_roles=objective.logits_roles,
        reads=reads,
        top_block=attachment.top_block,
    )
    groups = attachment.parameter_groups(optimisation.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=optimisation.lr, betas=(0.9, 0.999), eps=1e-8)
    model.zero_grad(set_to_none=True)
    optimizer.zero_grad(set_to_none=True)
    log = TrainLog()
    watching = None if watch is None else _Watching(watch, loop, attachment, optimizer, device)
    for step, indices in enumerate(loop.batches()):
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(step)
        terms = loop.backward(policy, optimizer, step, indices)
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        clip = math.inf if optimisation.clip_norm is None else optimisation.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, clip).item()
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
        if watching is not None and watching.enough(step + 1):
            break
    if watching is not None:
        log.stopping = watching.finish(len(log.steps))
        log.looking_seconds = watching.seconds
    log.seconds = time.perf_counter() - started - log.looking_seconds
    log.tokens = loop.tokens
    return log


class _Watching:
    """One run as its `Watch` follows it: what the best look saw, and when to stop."""

    def __init__(
        self,
        watch: Watch,
        loop: "_Loop",
        attachment: Attachment,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self.seconds = 0.0
        self._watch, self._loop, self._device = watch, loop, device
        self._dtype = attachment.compute_dtype
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._after = watch.after(loop.steps)
        self._best: tuple[float, int, list[Tensor]] | None = None
        self._without_gain = 0

    def enough(self, step: int) -> bool:
        """Look where it is time to, after `step` steps; whether the training should end here."""
        if step not in self._after:
            return False
        started = time.perf_counter()
        with torch.no_grad(), autocast(self._device, self._dtype):
            score = self._watch.look(step, step / self._loop.epoch_steps)
        if self._watch.patience is not None:
            if score > (0.0 if self._best is None else self._best[0]):
                self._best = score, step, [p.detach().to("cpu", copy=True) for p in self._parameters]
                self._without_gain = 0
            elif self._best is not None:
                self._without_gain += 1
        self.seconds += time.perf_counter() - started
        return self._watch.patience is not None and self._without_gain >= self._watch.patience

    @torch.no_grad()
    def finish(self, trained: int) -> dict[str, Any]:
        """Put the best look's weights back; what the record says of it, nothing without early stopping."""
        if self._watch.patience is None:
            return {}
        score, kept, weights = self._best or (None, trained, [])
        if kept != trained:
            for parameter, weight in zip(self._parameters, weights, strict=True):
                parameter.copy_(weight)
        ends = {"kept_step": kept, "last_step": trained, "planned_steps": self._loop.steps}
        return {**ends, "validation_score": score}


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
        topics = sorted({data.topic(i) for i in range(data.size)}) if objective.alternates_topics else [None]
        self.groups = [[i for i in range(data.size) if topic is None or data.topic(i) == topic] for topic in topics]
        """The forget examples, apart by what may not share a step."""
        sizes = [len(group) for group in self.groups]
        self.epoch_steps, self.steps = optimisation.epoch_steps(sizes), optimisation.steps(*sizes)
        given = optimisation.warmup_steps
        self.warmup = round(optimisation.warmup_epochs * self.epoch_steps) if given is None else given
        self.tokens = 0
        self.scale = 1.0
        """What losses are multiplied with on their way through float16 activations, where small gradients vanish."""

    @property
    def repeats(self) -> bool:
        """Whether any forget example is visited more than once."""
        return self.steps > self.epoch_steps

    def batches(self) -> Iterator[list[tuple[int, int]]]:
        """Optimizer steps as lists of (forget index, retain index)."""
        return itertools.islice(
            (step for epoch in range(self.opt.epochs) for step in self._epoch(epoch)),
            self.steps,
        )

    def _epoch(self, epoch: int) -> Iterator[list[tuple[int, int]]]:
        """One epoch's steps: a batch of each group in turn, those with more examples going on alone."""
        order = epoch_order(self.seed, epoch, self.data.size)
        place = {index: at for at, index in enumerate(order)}
        queues = [sorted(group, key=place.__getitem__) for group in self.groups]
        size = self.opt.batch_size
        for start in range(0, max(map(len, queues)), size):
            for queue in queues:
                if batch := queue[start : start + size]:
                    yield [(i, self._partner(epoch, i)) for i in batch]

    def _partner(self, epoch: int, index: int) -> int:
        return retain_partner(self.seed, epoch, index, len(self.data.retain)) if self.data.retain else 0

    def examples(self, role: str) -> list[int]:
        """The distinct examples of a role that the whole run will see."""
        return sorted({partner if role == RETAIN else index for step in self.batches() for index, partner in step})

    def learning_rate(self, step: int) -> float:
        return self.opt.learning_rate(step, self.steps, self.warmup)

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
        reads = self.objective.reads
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
                        sum(len(reads.columns(t)) for t in totals[role]) if reads and role in reads.roles else 0,
                        tuple(self.data.topic(index) for index, _ in part),
                    )
                    for role in self.roles
                }
            )
            start = end

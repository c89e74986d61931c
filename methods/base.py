"""What every trained method is made of: an objective (what is minimised) with an adapter (which numbers move)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.data.tokenize import Encoder
from bench.data.types import QA, Benchmark
from bench.errors import LetheError
from bench.forward import Rows
from bench.logprobs import token_kl
from bench.models import Loaded
from bench.train import FORGET, REFUSAL, RETAIN, Batch, Optimisation, Policy, TrainingSet, TrainLog, train
from methods.refusals import draw_refusals

Progress = Callable[[int, int, dict[str, float]], None]


class Attached(ABC):
    """An adapter on one model. Implements `bench.train.Attachment`; `detach` gives the model back bit for bit."""

    frozen_blocks: int = 0
    compute_dtype: torch.dtype | None = None

    def start(self) -> None:
        """Called before every training run: the first, and those that go on from it."""
        for p in self.trainable().values():
            p.requires_grad_(True)

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that move, by name."""

    @abstractmethod
    def detach(self) -> None:
        """Restore the model as it was before, to the last bit. Once more changes nothing."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was trained, in the format of the library that it belongs to."""

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model as if the adapter were not there."""
        yield

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Matrices are decayed; vectors (norms, biases) and parametrized weights (rotations) never."""
        named = self.trainable()
        decayed = [p for n, p in named.items() if p.ndim > 1 and "parametrizations" not in n]
        others = [p for n, p in named.items() if p.ndim <= 1 or "parametrizations" in n]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        return [g for g in groups if g["params"]]

    def terms(self, terms: dict[str, Tensor], rows: Rows, totals: Mapping[int, int], step: int) -> dict[str, Tensor]:
        return terms

    def finish(self) -> None:
        """Called once after training, before the model is evaluated."""
        for p in self.trainable().values():
            p.grad = None

    @property
    def trainable_parameters(self) -> int:
        """How many numbers were trained."""
        return sum(p.numel() for p in self.trainable().values())


@dataclass(frozen=True, kw_only=True)
class Adapter(ABC):
    """Which numbers move, and the schedule on which they do: a schedule suits an adapter, not a loss."""

    needs_retain: ClassVar[bool] = False
    """Whether the adapter itself reads retain examples (gates do)."""
    parallel: ClassVar[bool] = False
    """Whether successive requests train a new adapter each, to act in parallel, instead of one that trains on."""

    lr: float
    epochs: int
    batch_size: int
    warmup_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )

    @abstractmethod
    def attach(self, model: nn.Module, seed: int) -> Attached:
        """Put the adapter on a frozen model; its random numbers come from `seed` alone."""

    def combine(self, model: nn.Module, earlier: Attached, latest: Attached) -> Attached:
        """Adapters of successive requests acting together; asked only of adapters that are `parallel`."""
        raise TypeError(f"{type(self).__name__} trains one adapter on and on; there is nothing to combine")


@dataclass(kw_only=True, eq=False)
class Unlearned:
    """A model after unlearning. `restore` gives the original back."""

    attached: Attached
    log: TrainLog = field(default_factory=TrainLog)

    def restore(self) -> None:
        self.attached.detach()

    def facts(self) -> dict:
        """For the run's record."""
        return {
            "train_seconds": self.log.seconds,
            "train_steps": len(self.log.steps),
            "train_tokens": self.log.tokens,
            "trainable_parameters": self.attached.trainable_parameters,
        }


@dataclass(frozen=True, kw_only=True)
class GradientMethod(ABC):
    """forget_weight * (what the subclass minimises) + retain_weight * (retain NLL or KL)."""

    forget_roles: ClassVar[tuple[str, ...]] = (FORGET,)
    """Whose answers `forget_loss` reads."""
    needs_reference: ClassVar[bool] = False
    """Whether `forget_loss` reads the reference's log-probabilities of those answers."""

    adapter: Adapter
    forget_weight: float = 1.0
    """Weight of the forget term."""
    retain_weight: float = 1.0
    """Weight of the retain term; 0 leaves the retain pass out."""
    retain_loss: Literal["nll", "kl"] = "nll"
    """nll of the retain answers, or KL(reference || policy) at their answer positions."""

    def __post_init__(self) -> None:
        if self.retain_weight < 0:
            raise ValueError(f"retain_weight must not be negative, got {self.retain_weight}")
        if self.forget_weight < 0:
            raise ValueError(f"forget_weight must not be negative, got {self.forget_weight}")

    @property
    def roles(self) -> tuple[str, ...]:
        return (*self.forget_roles, *((RETAIN,) if self.retain_weight else ()))

    @property
    def reference_logp_roles(self) -> tuple[str, ...]:
        return self.forget_roles if self.needs_reference else ()

    @property
    def reference_logits_roles(self) -> tuple[str, ...]:
        return (RETAIN,) if self.retain_weight and self.retain_loss == "kl" else ()

    @abstractmethod
    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        """The scalar that makes the model forget, before its weight."""

    def loss(self, policy: Policy, batch: Batch) -> dict[str, Tensor]:
        terms = {"forget": self.forget_weight * self.forget_loss(policy, batch)}
        if self.retain_weight:
            answers = policy.answers(batch.retain)
            if self.retain_loss == "kl":
                kl = token_kl(policy.reference_logits(batch.retain), answers.logits)
                terms["retain"] = self.retain_weight * answers.token_mean(kl)
            else:
                terms["retain"] = self.retain_weight * answers.nll()
        return terms

    def unlearn(
        self,
        loaded: Loaded,
        encoder: Encoder,
        benchmark: Benchmark,
        *,
        seed: int,
        batch_tokens: int,
        progress: Progress | None = None,
        earlier: Unlearned | None = None,
    ) -> Unlearned:
        """Train on one forget request.

        Args:
            earlier: what the previous request of a chain left on the model.
        """
        data = training_set(encoder, benchmark, seed, refusals=REFUSAL in self.roles)
        fresh = earlier is None or self.adapter.parallel
        if earlier is not None and fresh:
            earlier.attached.detach()  # a new module is trained alone, on the frozen model
        attached = earlier.attached if earlier is not None and not fresh else self.adapter.attach(loaded.model, seed)
        try:
            attached.start()
            log = train(
                loaded.model,
                self,
                attached,
                data,
                optimisation=self.adapter.optimisation,
                seed=seed,
                pad_id=encoder.pad_id,
                batch_tokens=batch_tokens,
                needs_retain=self.adapter.needs_retain,
                fresh=fresh,
                progress=progress,
            )
        except BaseException:
            attached.detach()
            raise
        attached.finish()
        if earlier is not None and fresh:
            attached = self.adapter.combine(loaded.model, earlier.attached, attached)
        return Unlearned(attached=attached, log=log)


def training_set(encoder: Encoder, benchmark: Benchmark, seed: int, *, refusals: bool) -> TrainingSet:
    """Tokenise a benchmark once; refusal i answers forget question i, drawn from the seed."""

    def encode(rows: tuple[QA, ...]) -> tuple:
        return tuple(encoder.pair(qa.question, qa.answer) for qa in rows)

    drawn: tuple[str, ...] = ()
    if refusals:
        if not benchmark.refusals:
            raise LetheError(
                f"{benchmark.name} comes without refusals, which idk and dpo need; put idontknow.jsonl beside its files"
            )
        drawn = draw_refusals(benchmark.refusals, len(benchmark.forget), seed)
    return TrainingSet(
        forget=encode(benchmark.forget),
        retain=encode(benchmark.retain),
        refusal=tuple(encoder.pair(qa.question, r) for qa, r in zip(benchmark.forget, drawn, strict=False)),
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Module initialisation on the CPU from a seed, leaving every global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        yield

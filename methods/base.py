"""What every trained method is made of: an objective (what is minimised) with an adapter (which numbers move)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from bench.activations import Reading
from bench.data.tokenize import Encoder
from bench.data.types import QA, Benchmark, Document, Preference, Tokens
from bench.errors import LetheError
from bench.forward import Rows
from bench.logprobs import Answers, token_kl
from bench.model_card import Saved
from bench.models import Loaded
from bench.policy import FORGET, REFUSAL, RETAIN, Batch, Policy
from bench.train import Objective, Optimisation, TrainingSet, TrainLog, Watch, train
from methods.refusals import draw_refusals

Progress = Callable[[int, int, dict[str, float]], None]

Corpus = Literal["texts", "rejections", "refusal", "fabricated"]
"""What an objective trains on: what a benchmark asks to forget; its questions with a refusal each, where it has some;
or its preferences of one kind, for a refusal or for a fabrication over the truth."""


class Attached(ABC):
    """An adapter on one model. Implements `bench.train.Attachment`; `detach` gives the model back bit for bit."""

    frozen_blocks: int = 0
    lowest_block: int = 0
    top_block: int = -1
    compute_dtype: torch.dtype | None = None
    keeps_beginnings: bool = False
    """Whether the model reads all in front of the last prompt token as it would without the adapter, to the last bit.
    What the unchanged model has read of prompts is then used; no is always safe."""

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
    def save(self, folder: Path) -> Saved:
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

    def gate_values(self, run: Callable[[], object]) -> list[tuple[int, float]]:
        """Layer and value, 0..1, of every gate at the last token of a prompt that `run` asks; none without gates."""
        return []

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
    warmup_steps: int | None = None
    """Optimizer steps of the warm-up; None for those of `warmup_epochs`."""
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    """Longest gradient; None for no clipping."""
    max_steps: int | None = None
    """At most this many optimizer steps; None for as many as the epochs have."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """After its warm-up the learning rate falls to zero, linearly or along half a cosine, or stays."""
    max_tokens: tuple[int, ...] = (512,)
    """Documents are cut here: those of the n-th topic at the n-th number or, where there are fewer, at the last; those
    to keep at the first, and so are preferences, prompt included."""
    prompt_share: float = 0.0
    """Share of a document's tokens that count as prompt: read, but not scored."""

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("epochs", "batch_size", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.max_tokens or min(self.max_tokens) < 2:
            raise ValueError(f"max_tokens must be at least 2, got {', '.join(map(str, self.max_tokens)) or 'none'}")
        if not 0 <= self.prompt_share < 1:
            raise ValueError(f"prompt_share must be within 0 and below 1, got {self.prompt_share}")
        for name in ("warmup_epochs", "warmup_steps", "weight_decay"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup_epochs=self.warmup_epochs,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            max_steps=self.max_steps,
            schedule=self.schedule,
        )

    def default_block(self, depth: int) -> int:
        """Whose output an objective reads in a model of `depth` blocks, where it is not told: block 7 of 32, scaled."""
        return scaled_block(7, depth)

    def around(self, block: int) -> Self:
        """This adapter for an objective that reads the output of `block`."""
        return self

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

    @property
    def keeps_beginnings(self) -> bool:
        """See `Attached.keeps_beginnings`."""
        return self.attached.keeps_beginnings

    def gate_values(self, run: Callable[[], object]) -> list[tuple[int, float]]:
        """How far the gates open for the prompts that `run` asks; see `Attached.gate_values`."""
        return self.attached.gate_values(run)

    def save(self, folder: Path, loaded: Loaded) -> Saved:
        """Write the model, or what was added to it; whole models take their tokenizer along."""
        saved = self.attached.save(folder)
        if saved.library == "transformers":
            loaded.tokenizer.save_pretrained(folder)
        return saved

    def facts(self) -> dict:
        """For the run's record."""
        return {
            "train_seconds": self.log.seconds,
            "train_steps": len(self.log.steps),
            "train_tokens": self.log.tokens,
            "trainable_parameters": self.attached.trainable_parameters,
            **({"looking_seconds": self.log.looking_seconds} if self.log.looking_seconds else {}),
            **({"early_stopping": self.log.stopping} if self.log.stopping else {}),
        }


@dataclass(frozen=True, kw_only=True)
class GradientMethod:
    """forget_weight * (what the subclass minimises) + retain_weight * (retain NLL or KL)."""

    forget_roles: ClassVar[tuple[str, ...]] = (FORGET,)
    """Whose answers `forget_loss` reads."""
    needs_reference: ClassVar[bool] = False
    """Whether `forget_loss` reads the reference's log-probabilities of those answers."""
    min_prompt_share: ClassVar[float] = 0.0
    """Share of a document to forget that is prompt at least; whatever answers it needs something to answer."""

    adapter: Adapter
    forget_weight: float = 1.0
    """Weight of the forget term."""
    retain_weight: float = 1.0
    """Weight of the retain term; 0 leaves the retain pass out."""
    retain_loss: Literal["nll", "kl", "kl_padded"] = "nll"
    """nll of the retain answers, or KL(reference || policy): kl, its mean over their answer positions; kl_padded, its
    sum over all positions, prompt and padding too, divided by the examples, as GRUN's code for WMDP has it."""

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
        return (RETAIN,) if self.retain_weight and self.retain_loss in ("kl", "kl_padded") else ()

    @property
    def corpus(self) -> Corpus:
        """Which rows of a benchmark it trains on."""
        return "texts"

    @property
    def alternates_topics(self) -> bool:
        """Whether the topics of a corpus take turns, step by step, instead of mixing."""
        return False

    @property
    def logits_roles(self) -> tuple[str, ...]:
        return self.roles

    @property
    def reads(self) -> Reading | None:
        return None

    def forget_loss(self, policy: Policy, batch: Batch) -> Tensor:
        """The scalar that makes the model forget, before its weight; what `bound` returns has one."""
        raise NotImplementedError  # not abstract: rmu is made of what `bound` returns and never asks itself

    def retain_term(self, policy: Policy, batch: Batch) -> Tensor:
        """The scalar that makes the model keep, before its weight."""
        answers = policy.answers(batch.retain)
        if self.retain_loss == "nll":
            return answers.nll()
        return kl_term(answers, policy.reference_logits(batch.retain), padded=self.retain_loss == "kl_padded")

    def loss(self, policy: Policy, batch: Batch) -> dict[str, Tensor]:
        terms = {"forget": self.forget_weight * self.forget_loss(policy, batch)}
        if self.retain_weight:
            terms["retain"] = self.retain_weight * self.retain_term(policy, batch)
        return terms

    def bound(self, model: nn.Module, seed: int, topics: Sequence[str]) -> Objective:
        """The objective for one model and the topics of a request, by name; what it draws comes from `seed` alone.

        Raises:
            LetheError: the model lacks what the objective reads.
        """
        return self

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
        watch: Watch | None = None,
    ) -> Unlearned:
        """Train on one forget request.

        Args:
            earlier: what the previous request of a chain left on the model.
            watch: looks at the model while it trains.
        """
        context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        data = training_set(
            encoder,
            benchmark,
            seed,
            refusals=REFUSAL in self.roles,
            corpus=self.corpus,
            max_tokens=tuple(min(most, context or most) for most in self.adapter.max_tokens),
            prompt_share=self.adapter.prompt_share,
            min_prompt_share=self.min_prompt_share,
        )
        if self.retain_weight and self.retain_loss == "kl_padded":
            data = replace(data, retain=padded_whole(data.retain, encoder.pad_id, most=context))
        objective = self.bound(loaded.model, seed, topic_names(benchmark))
        adapter = self.adapter if objective.reads is None else self.adapter.around(objective.reads.block)
        fresh = earlier is None or self.adapter.parallel
        if earlier is not None and fresh:
            earlier.attached.detach()  # a new module is trained alone, on the frozen model
        attached = earlier.attached if earlier is not None and not fresh else adapter.attach(loaded.model, seed)
        try:
            attached.start()
            log = train(
                loaded.model,
                objective,
                attached,
                data,
                optimisation=self.adapter.optimisation,
                seed=seed,
                pad_id=encoder.pad_id,
                batch_tokens=batch_tokens,
                needs_retain=self.adapter.needs_retain,
                fresh=fresh,
                progress=progress,
                watch=watch,
            )
        except BaseException:
            attached.detach()
            raise
        attached.finish()
        if earlier is not None and fresh:
            attached = self.adapter.combine(loaded.model, earlier.attached, attached)
        return Unlearned(attached=attached, log=log)


def _topic(row: QA | Document) -> str:
    return "" if isinstance(row, QA) else row.topic


def topic_names(benchmark: Benchmark) -> list[str]:
    """What is to be forgotten, topic by topic in the order of the request; questions with answers have one, unnamed."""
    return list(dict.fromkeys(map(_topic, benchmark.forget)))


def training_set(
    encoder: Encoder,
    benchmark: Benchmark,
    seed: int,
    *,
    refusals: bool,
    corpus: Corpus = "texts",
    max_tokens: Sequence[int] = (512,),
    prompt_share: float = 0.0,
    min_prompt_share: float = 0.0,
) -> TrainingSet:
    """Tokenise a benchmark once; refusal i answers forget question or document i, drawn from the seed.

    A benchmark with refusals or preferences of its own gives these instead, where the objective asks for them.

    Args:
        refusals: whether the objective reads any.
        corpus: which rows it trains on.
        max_tokens: documents are cut here: the n-th topic at the n-th number or the last, what is kept at the first.
        prompt_share: share of a document that is not scored.
        min_prompt_share: the same for documents to forget, where it is more.
    """
    share = max(prompt_share, min_prompt_share)
    names = [_topic(row) for row in benchmark.forget]
    numbers = {name: i for i, name in enumerate(topic_names(benchmark))}

    def most(topic: int) -> int:
        return max_tokens[min(topic, len(max_tokens) - 1)]

    def encode(row: QA | Document, share: float, topic: int = 0) -> Tokens:
        if isinstance(row, QA):
            return encoder.pair(row.question, row.answer)
        try:
            return encoder.document(row.text, max_tokens=most(topic), prompt_share=share)
        except LetheError as error:
            raise LetheError(f"{row.id} (rows counted from 0): {error}") from error

    def refuse(row: QA | Document, refusal: str) -> Tokens:
        if isinstance(row, QA):
            return encoder.pair(row.question, refusal)
        return encoder.refused(row.text, refusal, max_tokens=most(numbers[row.topic]), prompt_share=share)

    retain = tuple(encode(row, prompt_share) for row in benchmark.retain)
    if corpus == "rejections" and benchmark.rejections:
        return TrainingSet(refusal=tuple(encode(row, 0.0) for row in benchmark.rejections), retain=retain)
    if pairs := preferred(benchmark, corpus):
        return TrainingSet(
            forget=tuple(_cut_pair(encoder, pair, pair.rejected, most(0)) for pair in pairs),
            refusal=tuple(_cut_pair(encoder, pair, pair.chosen, most(0)) for pair in pairs),
            retain=retain,
        )
    drawn: tuple[str, ...] = ()
    if refusals:
        if not benchmark.refusals:
            raise LetheError(
                f"{benchmark.name} comes without refusals, which idk, rt and dpo need; "
                "put idontknow.jsonl beside its files"
            )
        drawn = draw_refusals(benchmark.refusals, len(benchmark.forget), seed)
    return TrainingSet(
        forget=tuple(encode(row, share, numbers[name]) for row, name in zip(benchmark.forget, names, strict=True)),
        retain=retain,
        refusal=tuple(refuse(row, text) for row, text in zip(benchmark.forget, drawn, strict=False)),
        topics=tuple(numbers[name] for name in names),
    )


PREFERENCE_FILES = {"refusal": "pair_reject.json", "fabricated": "pair.json"}


def preferred(benchmark: Benchmark, corpus: Corpus) -> tuple[Preference, ...]:
    """The preferences of one kind; none where refusals are to be preferred and the benchmark has no preferences.

    Raises:
        LetheError: it has none of this kind, and nothing can stand in for them.
    """
    if corpus not in PREFERENCE_FILES:
        return ()
    found = benchmark.preferences.get(corpus, ())
    if found or (corpus == "refusal" and not any(benchmark.preferences.values())):
        return found
    other = next(kind for kind in PREFERENCE_FILES if kind != corpus)
    raise LetheError(
        f"{benchmark.name} comes without preferences of the kind {corpus!r}, which dpo with prefer={corpus} needs; put "
        f"{PREFERENCE_FILES[corpus]} beside its files or set prefer={other}"
    )


def _cut_pair(encoder: Encoder, pair: Preference, answer: str, most: int) -> Tokens:
    """The prompt with one answer; what is cut off at the end takes the terminator along, so that no end is taught."""
    try:
        whole = encoder.pair(pair.prompt, answer)
    except LetheError as error:
        raise LetheError(f"{pair.id}: {error}") from error
    if len(whole.input_ids) <= most:
        return whole
    if whole.label_start >= most:
        raise LetheError(
            f"{pair.id}: the prompt takes {whole.label_start} tokens, which leaves none of {most} for an answer; "
            "raise max_tokens or shorten the prompt"
        )
    return replace(whole, input_ids=whole.input_ids[:most], hidden=tuple(i for i in whole.hidden if i < most))


def padded_whole(rows: tuple[Tokens, ...], pad_id: int, *, most: int | None = None) -> tuple[Tokens, ...]:
    """The rows with every position scored, padded to the longest of them: what the KL of GRUN's code for WMDP covers.

    Deviates: their rows are as long as the longest of a batch, which would make the loss depend on who meets whom;
    here as long as the longest of all. Padding is attended by nobody, and adapters still find the prompt's end.

    Args:
        most: tokens that the model takes; rows as long as that leave out what their last token predicts.
    """
    longest = max((len(row.input_ids) for row in rows), default=0) + 1  # the last id is never read, only predicted
    longest = longest if most is None else min(longest, most)
    return tuple(
        Tokens(
            (*row.input_ids, *[pad_id] * (longest - len(row.input_ids))),
            1,
            (*row.hidden, *range(len(row.input_ids), longest)),
            row.last_prompt,
        )
        for row in rows
    )


def kl_term(answers: Answers, reference: Tensor, *, padded: bool) -> Tensor:
    """KL(reference || policy), nats: the mean over the positions, or where `padded` their sum over the examples."""
    kl = token_kl(reference, answers.logits)
    return answers.mean(kl) if padded else answers.token_mean(kl)


def scaled_block(block: int, depth: int, of: int = 32) -> int:
    """The block at the relative depth that `block` has in a model of `of` blocks.

    >>> scaled_block(7, 32), scaled_block(7, 16), scaled_block(7, 4), scaled_block(31, 3)
    (7, 3, 0, 2)
    """
    return min(depth, max(1, round((block + 1) * depth / of))) - 1


def read_block(layer: int | None, default: int, depth: int) -> int:
    """A block of a model of `depth` by its number, counted from the end where negative; None for the default."""
    if layer is None:
        return default
    if not -depth <= layer < depth:
        raise LetheError(f"layer must be within {-depth}..{depth - 1} for this model, got {layer}")
    return layer % depth


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Module initialisation on the CPU from a seed, leaving every global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        yield

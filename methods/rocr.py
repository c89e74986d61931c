"""ROCR: one closed-form write into three matrices turns the name of what is to be forgotten into another name.

Ye, Zhang and Wu, 2025, https://arxiv.org/abs/2506.07795 (IEEE S&P 2026); fact sheet of ORT, section 2. The write is
AlphaEdit's (Fang et al., 2025, https://arxiv.org/abs/2410.02355) with a key for each name. Nothing is trained and no
text to forget is read, only names and, once per model, any running text.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.cache import fingerprint
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.models import Loaded, decoder_blocks
from bench.moments import Projector, given_projectors, input_width, projectors, unprojected
from bench.train import TrainLog, Watch
from methods.base import Progress, Unlearned, read_block, scaled_block
from methods.full import MLP_OUT, mlp_out
from methods.subject_states import (
    ESSENCE,
    Place,
    Search,
    chat_places,
    plain_place,
    random_value,
    read_places,
    search_value,
)
from methods.weight_edits import WeightEdit, solve

logger = logging.getLogger(__name__)

DEPTHS = (4, 5, 6)
"""Edited blocks of 32, for Llama-3 and Mistral; other files of the authors have others (fact sheet section 2.4)."""
SPARE = "Elon Musk"
"""Stands in for the unrelated name where that one is to be forgotten (the authors' for Vicuna, section 2.4)."""
FAINT = 0.01
"""A block that writes a smaller part of its residual is warned of."""


@dataclass(frozen=True, kw_only=True)
class ROCR:
    """At the last token of each name, the MLP outputs of neighbouring blocks are rewritten.

    Key: the input of the block's MLP output matrix at that token, a mean over six lead-ins. Value: what the last of the
    blocks should put out there. Each block writes its share of the distance that is left, keys and distance read anew
    after every block. Defaults are the authors' for Llama-3 (section 2.4). They edit float32 models; here any
    precision, the edit computed in float32 and rounded once.
    """

    closed_form: ClassVar[bool] = True
    """There are no steps between which to look at the model, or to stop."""

    mode: Literal["unrelated", "reject", "noise"] = "unrelated"
    """What stands at the name afterwards. unrelated: what stands at another one; reject: a value searched for that
    makes answers begin with `target_text`; noise: a random direction."""
    layers: tuple[int, ...] | None = None
    """Blocks to edit, neighbours; None takes the relative depths of 4 to 6 of 32."""
    l2: float = 1.0
    """lambda of the ridge. Of a residual the share kappa / (lambda + kappa) is written, kappa the squared length of the
    projected key."""
    nullspace: Literal["background", "off"] = "background"
    """background: writes keep to the directions that running text hardly uses; off: to none, P = I."""
    nullspace_threshold: float = 0.02
    """Those directions: eigenvalues of the second moment below it, an absolute number."""
    documents: int | None = None
    """So many texts are read for the second moments, a fixed choice of the corpus that the benchmark brings; None for
    those that it begins with, at most 2,000 lines. The authors read 100,000 articles of an encyclopedia."""
    projectors: str | None = None
    """A folder with projectors that an earlier run computed for this model with this threshold, as its cache has them;
    None computes."""
    unrelated_subject: str = "Donald Trump"
    """The other name. It has to be one that the model knows."""
    contexts: Literal["same", "published"] = "same"
    """Where the value that stands at a name is read. same: behind all lead-ins, as keys are, and the target's too.
    published: as the authors do, the target in the first chat prompt, what stands there now in the bare text "NAME.",
    and prompts with two BOS tokens.

    Deviates by default: reading the two in different prompts adds the difference of the prompts to the edit
    (section 2.6)."""
    target_text: str = "Unfortunately"
    """How answers are to begin (reject and noise)."""
    clamp_norm_factor: float = 1.0
    """reject: most change of a value, over its length; noise: the noise's length over the searched value's."""
    v_steps: int = 25
    """Most steps of the search for a value."""
    v_lr: float = 0.1
    """Its learning rate (Adam)."""
    kl_factor: float = 0.125
    """Weight of KL(initial || current) at the name in "NAME is a", in that search."""
    v_weight_decay: float = 0.5
    """Weight of |change| / |value|^2 in it."""
    v_loss_layer: int | None = None
    """The block whose output the head reads in it, from the end where negative; None for the last."""

    def __post_init__(self) -> None:
        for name in ("l2", "nullspace_threshold", "clamp_norm_factor", "v_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("kl_factor", "v_weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("documents", "v_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("unrelated_subject", "target_text"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} must not be empty")
        if self.layers is not None:
            lowest = min(self.layers, default=0)
            if not self.layers or sorted(self.layers) != list(range(lowest, lowest + len(self.layers))):
                raise ValueError(f"layers must be neighbouring blocks, each once, got {self.layers}")

    def unlearn(
        self,
        loaded: Loaded,
        encoder: Encoder,
        benchmark: Benchmark,
        *,
        seed: int,
        batch_tokens: int,
        progress: Progress | None = None,
        earlier: "Edited | None" = None,
        watch: Watch | None = None,
    ) -> "Edited":
        """Write one edit for all names of a forget request, beside those of earlier requests.

        Args:
            watch: not used; an edit in closed form has no way along which to look.
        """
        subjects = tuple(dict.fromkeys(name.strip() for name in benchmark.subjects if name.strip()))
        if not subjects:
            raise LetheError(
                f"rocr needs the names of what is to be forgotten; {benchmark.name} gives none; use an ort benchmark"
            )
        layers = edited_layers(self.layers, len(decoder_blocks(loaded.model)))
        names = {layer: matrix(loaded.model, layer) for layer in layers}
        started = time.perf_counter()
        if earlier is None:
            keep = self._projectors(loaded, encoder, benchmark, names, batch_tokens)
        else:
            keep = earlier.projectors  # of the model as it was before any edit
        for layer, projector in keep.items():
            if not projector.kept:
                raise LetheError(
                    f"the background texts use every direction of block {layer}'s MLP inputs: no eigenvalue lies below "
                    f"nullspace_threshold {self.nullspace_threshold}, so nothing could be written; raise it, or set "
                    "nullspace=off"
                )
        projected = time.perf_counter()
        attached = WeightEdit(loaded.model, None if earlier is None else earlier.attached)
        try:
            task = _Task(self, loaded.model, encoder, names, keep, seed, batch_tokens)
            done = task.run(subjects, attached, earlier, progress)
        except BaseException:
            attached.detach()
            raise
        done.projector_seconds = projected - started
        if self.nullspace == "background" and self.projectors is None:
            texts = self._background(benchmark)
            done.notes["background_texts"] = min(self.documents or len(texts), len(texts))
        done.log.seconds = time.perf_counter() - projected
        return done

    def _projectors(
        self, loaded: Loaded, encoder: Encoder, benchmark: Benchmark, names: dict[int, str], batch_tokens: int
    ) -> dict[int, Projector]:
        if self.nullspace == "off":
            return {n: unprojected(input_width(loaded.model.get_submodule(name))) for n, name in names.items()}
        if self.projectors is not None:
            folder = Path(self.projectors)
            if not folder.is_dir():
                raise LetheError(
                    f"projectors {self.projectors!r} is no folder; give one that holds {', '.join(names.values())} "
                    "of this model, or leave it out"
                )
            return given_projectors(folder, loaded, names, threshold=self.nullspace_threshold)
        if not benchmark.background:
            raise LetheError(
                f"{benchmark.name} comes without background texts, from which rocr learns which directions to leave "
                "alone; put any running text into wikitext2/train.txt of the data folder, or set nullspace=off"
            )
        texts = self._background(benchmark)
        wanted = len(texts) if self.documents is None else self.documents
        if wanted > len(texts):
            logger.warning(
                "documents asks for %d background texts, but %s comes with %d only, and all of them are read; put more "
                "running text into wikitext2/train.txt of the data folder, and leave --limit out, which cuts it",
                *(wanted, benchmark.name, len(texts)),
            )
        return projectors(
            loaded,
            encoder,
            texts,
            names,
            threshold=self.nullspace_threshold,
            documents=wanted,
            batch_tokens=batch_tokens,
        )

    def _background(self, benchmark: Benchmark) -> Sequence[str]:
        """The texts to choose from: more than the benchmark begins with only where more are asked for."""
        more = benchmark.more_background
        if more is None or self.documents is None or self.documents <= len(benchmark.background):
            return benchmark.background
        return more()

    def inputs(self, benchmark: Benchmark) -> dict[str, Any]:
        """What names a cell besides the fields: the texts of a corpus that the benchmark's fingerprint does not cover,
        where they are read. None stands there as the number that was the default before, so that ids stay."""
        if self.documents is None:
            return {"documents": 100_000}
        texts = self._background(benchmark)
        if self.nullspace == "off" or self.projectors is not None or texts is benchmark.background:
            return {}
        return {"background": fingerprint([hashlib.sha256(text.encode()).hexdigest() for text in texts])}

    def another(self, subjects: Sequence[str]) -> str:
        """The unrelated name, or the spare one where that is to be forgotten."""
        taken = {name.casefold() for name in subjects}
        for name in (self.unrelated_subject.strip(), SPARE):
            if name.casefold() not in taken:
                return name
        raise LetheError(
            f"unrelated_subject {self.unrelated_subject!r} and the spare {SPARE!r} are both to be forgotten; "
            "set unrelated_subject to another name that the model knows"
        )


@dataclass(kw_only=True, eq=False)
class Edited(Unlearned):
    """A model with its edits, and what the next request of a chain has to know of them."""

    attached: WeightEdit  # type: ignore[reportIncompatibleVariableOverride]
    subjects: tuple[str, ...]
    """Of the last request."""
    before: tuple[str, ...] = ()
    """Of the requests before it."""
    keys: dict[int, Tensor] = field(default_factory=dict)
    """By layer (d_in, m0): keys of the requests before the last one, each as it was after its own edit."""
    projectors: dict[int, Projector] = field(default_factory=dict)
    projector_seconds: float = 0.0
    notes: dict = field(default_factory=dict)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Of all requests."""
        return (*self.before, *self.subjects)

    def facts(self) -> dict:
        return {**super().facts(), "projector_seconds": self.projector_seconds, **self.notes}


@dataclass(frozen=True)
class _Task:
    """One request on one model."""

    config: ROCR
    model: nn.Module
    encoder: Encoder
    names: dict[int, str]
    """The matrices, by layer in ascending order."""
    projectors: dict[int, Projector]
    seed: int
    batch_tokens: int

    def run(
        self, subjects: tuple[str, ...], attached: WeightEdit, earlier: Edited | None, progress: Progress | None
    ) -> Edited:
        kept = {} if earlier is None else self._kept(earlier)
        places = [self._contexts(subject) for subject in subjects]
        targets, notes = self._targets(subjects, places, earlier)  # (m, D)
        steps: list[dict] = []
        for number, (layer, name) in enumerate(self.names.items()):
            keys, current = self._read(places, subjects, (layer,))
            residuals = (targets - current) / (len(self.names) - number)  # (m, D)
            solved = solve(keys[layer].T, residuals.T, self.projectors[layer], self.config.l2, earlier=kept.get(layer))
            if not solved.factors.rows.isfinite().all() or not residuals.isfinite().all():
                raise LetheError(f"the edit of block {layer} is not finite; set a larger l2 or other layers")
            attached.add(name, solved.factors)
            terms = {
                "kappa": float(solved.kappa.mean()),
                "written": float(solved.written.mean()),
                "residual": float(residuals.norm(dim=1).mean()),
            }
            if terms["written"] < FAINT:
                logger.warning(
                    "block %d writes %.2g of its residual (kappa %.2g, l2 %.2g); a smaller l2 writes more",
                    layer,
                    terms["written"],
                    terms["kappa"],
                    self.config.l2,
                )
            steps.append({"step": number + 1, "layer": layer, **terms})
            if progress is not None:
                progress(number + 1, len(self.names), terms)
        notes |= {"kept_directions": {str(n): p.kept for n, p in self.projectors.items()}}
        return Edited(
            attached=attached,
            log=TrainLog(steps=steps),
            subjects=subjects,
            before=() if earlier is None else earlier.forgotten,
            keys=kept,
            projectors=self.projectors,
            notes=notes,
        )

    def _kept(self, earlier: Edited) -> dict[int, Tensor]:
        """Keys whose outputs are to stay: those of all earlier requests, the last one's read now, after its edit."""
        last = [self._contexts(subject) for subject in earlier.subjects]
        keys, _ = self._read(last, earlier.subjects, tuple(self.names))
        return {n: torch.cat([earlier.keys[n], k.T], dim=1) if n in earlier.keys else k.T for n, k in keys.items()}

    def _contexts(self, subject: str) -> list[Place]:
        return chat_places(self.encoder, subject, doubled=self.config.contexts == "published")

    def _states(self, places: Sequence[Place], layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        return read_places(
            self.model,
            places,
            {layer: self.model.get_submodule(self.names[layer]) for layer in layers},
            max(self.names),
            pad_id=self.encoder.pad_id,
            batch_tokens=self.batch_tokens,
        )

    def _read(
        self, places: Sequence[Sequence[Place]], subjects: Sequence[str], layers: Sequence[int]
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Keys (m, d_in) of some layers, and what the last one puts out at each name now, (m, D)."""
        published = self.config.contexts == "published"
        bare = [plain_place(self.encoder, "{}.", subject) for subject in subjects] if published else []
        inputs, outputs = self._states([*(p for own in places for p in own), *bare], layers)
        m, count = len(places), len(places) * len(places[0])
        keys = {n: states[:count].unflatten(0, (m, -1)).mean(dim=1) for n, states in inputs.items()}
        return keys, outputs[count:] if published else outputs.unflatten(0, (m, -1)).mean(dim=1)

    def _value(self, places: Sequence[Place]) -> Tensor:
        """(D,) what stands at a name before any edit, where values are to be compared with it."""
        read = places[:1] if self.config.contexts == "published" else places
        return self._states(read, ())[1].mean(dim=0)

    def _targets(
        self, subjects: Sequence[str], places: Sequence[Sequence[Place]], earlier: Edited | None
    ) -> tuple[Tensor, dict]:
        """(m, D) what the last layer should put out at each name, and notes for the record."""
        config = self.config
        if config.mode == "unrelated":
            name = config.another((*subjects, *(() if earlier is None else earlier.forgotten)))
            with contextlib.nullcontext() if earlier is None else earlier.attached.off():  # edits leak; it would drift
                value = self._value(self._contexts(name))
            return value.expand(len(subjects), -1), {"unrelated_subject": name}
        found, losses = [], {}
        for subject, own in zip(subjects, places, strict=True):
            value, losses[subject] = self._searched(subject, own)
            if config.mode == "noise":
                length = config.clamp_norm_factor * float(value.norm())
                value = random_value(value, length, self.seed, subject)
            found.append(value)
        return torch.stack(found), {"value_loss": losses}

    def _searched(self, subject: str, places: Sequence[Place]) -> tuple[Tensor, float]:
        config, depth = self.config, len(decoder_blocks(self.model))
        block = None if config.v_loss_layer is None else read_block(config.v_loss_layer, 0, depth)
        if block is not None and block < max(self.names):
            raise LetheError(
                f"v_loss_layer must not lie below the last edited block {max(self.names)}, got {config.v_loss_layer}"
            )
        doubled = config.contexts == "published"
        text = f" {config.target_text.strip()}"
        search = Search(
            steps=config.v_steps,
            lr=config.v_lr,
            clamp_norm_factor=config.clamp_norm_factor,
            kl_factor=config.kl_factor,
            weight_decay=config.v_weight_decay,
            loss_block=block,
        )
        return search_value(
            self.model,
            chat_places(self.encoder, subject, doubled=doubled, target=text),
            plain_place(self.encoder, ESSENCE, subject),
            self._value(places),
            max(self.names),
            search,
            pad_id=self.encoder.pad_id,
            batch_tokens=self.batch_tokens,
        )


def edited_layers(layers: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    """The blocks to edit in a model of `depth` blocks, ascending; None scales the authors' depths.

    >>> edited_layers(None, 32), edited_layers(None, 16), edited_layers(None, 64), edited_layers(None, 4)
    ((4, 5, 6), (1, 2, 3), (9, 10, 11, 12, 13), (0,))
    """
    if layers is None:
        scaled = [scaled_block(block, depth) for block in DEPTHS]
        return tuple(range(min(scaled), max(scaled) + 1))
    if any(not 0 <= layer < depth for layer in layers):
        raise LetheError(f"layers must be within 0..{depth - 1} for this model, got {layers}")
    return tuple(sorted(layers))


def matrix(model: nn.Module, layer: int) -> str:
    """The name of the module that writes the output of a block's MLP.

    Raises:
        LetheError: there is none, or not as one matrix.
    """
    try:
        return mlp_out(model, layer).removesuffix(".weight")
    except LetheError as error:
        raise LetheError(
            f"rocr cannot edit block {layer} of {type(model).__name__}: its MLP has no single output matrix under a "
            f"known name ({', '.join(MLP_OUT)}); use a model without experts, or another method"
        ) from error

"""Which directions the inputs of a matrix do not use: second moments over running text, and projectors from them.

An edit of a matrix that only answers to the directions which ordinary inputs hardly have changes little else: the null
space of AlphaEdit (Fang et al., 2025, https://arxiv.org/abs/2410.02355, section 3.1), which ROCR takes over (fact
sheet of ORT, section 2.2). All matrices are read in one batched pass that ends after the last of them.

Deviates: only one side of the eigenbasis is kept, whichever has fewer columns, and never a d_in x d_in projector.
"""

import contextlib
import functools
import hashlib
import json
import logging
import random
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.activations import block_output
from bench.batching import in_batches
from bench.cache import cached, damage, fingerprint
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Padded, Rows, forward, pad
from bench.models import Loaded, decoder_blocks, decoder_blocks_path

logger = logging.getLogger(__name__)

FACTS, BASIS = "projector.json", "projector.safetensors"
SAMPLE_SEED = 1
"""Which documents are read where there are more than wanted (the authors' seed, fact sheet section 2.2)."""
MOST_TOKENS = 4096
"""Documents are cut here, as the authors do for models with longer or unlimited contexts."""


@dataclass(frozen=True, eq=False)
class Projector:
    """P, which takes from a matrix's inputs the directions that ordinary text uses. Symmetric, and P P = P."""

    basis: Tensor  # (d_in, r), orthonormal columns
    spans: bool
    """Whether `basis` spans what P keeps, P = basis basis^T, or what it takes away, P = I - basis basis^T."""

    @classmethod
    def from_moment(cls, moment: Tensor, threshold: float) -> tuple["Projector", Tensor]:
        """The projector on eigenvectors whose eigenvalues lie below `threshold`, and all eigenvalues, ascending.

        Args:
            moment: (d_in, d_in) second moment of the inputs, uncentred.
        """
        values, vectors = torch.linalg.eigh(moment)
        kept = int((values < threshold).sum())
        spans = kept < len(values) - kept
        return cls((vectors[:, :kept] if spans else vectors[:, kept:]).contiguous(), spans), values

    def __call__(self, inputs: Tensor) -> Tensor:
        """P times (d_in, M)."""
        basis = self.basis.to(inputs.device, inputs.dtype)
        inside = basis @ (basis.T @ inputs)
        return inside if self.spans else inputs - inside

    @property
    def kept(self) -> int:
        """The dimension of what P keeps."""
        return self.basis.shape[1] if self.spans else self.basis.shape[0] - self.basis.shape[1]


def unprojected(width: int) -> Projector:
    """P = I."""
    return Projector(torch.zeros(width, 0), spans=False)


def input_width(module: nn.Module) -> int:
    """d_in of a Linear or of GPT-2's Conv1D, which stores its weight the other way round."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0] if stored_in_out(module) else weight.shape[1]


def stored_in_out(module: nn.Module) -> bool:
    """Whether a module's weight is (d_in, d_out); told by its type, because shapes cannot tell where both agree."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


@contextmanager
def module_inputs(modules: Mapping[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Within, the dict holds what each module was given in the last forward, by the module's number."""
    found: dict[int, Tensor] = {}

    def keep(number: int, _: nn.Module, args: tuple) -> None:
        found[number] = args[0]

    handles = [m.register_forward_pre_hook(functools.partial(keep, number)) for number, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def run_blocks(model: nn.Module, padded: Padded) -> None:
    """A forward of which only hooks see anything."""
    none = torch.zeros(0, dtype=torch.long, device=padded.input_ids.device)
    forward(
        model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
        at=(none, none),
    )


@torch.no_grad()
def second_moments(
    model: nn.Module, names: Mapping[int, str], texts: Sequence[Tokens], *, pad_id: int, batch_tokens: int
) -> dict[int, Tensor]:
    """E[k k^T] of the inputs k of some modules over all tokens of the texts: (d_in, d_in) float32 each.

    Args:
        names: by block, the module in it.
    """
    modules = {block: model.get_submodule(name) for block, name in names.items()}
    device = next(model.parameters()).device
    widths = {block: input_width(module) for block, module in modules.items()}
    sums = {block: torch.zeros(width, width, device=device) for block, width in widths.items()}
    last = max(modules)

    def run(batch: list[Tokens]) -> None:
        padded = pad(batch, pad_id, device)
        with module_inputs(modules) as found, block_output(model, last, stop=last):
            run_blocks(model, padded)
        rows = {block: inputs[padded.valid.to(inputs.device)].float() for block, inputs in found.items()}
        for block, k in rows.items():  # (N, d_in); only now, because a call that ran out of memory is made again
            sums[block] = sums[block].to(k.device).addmm_(k.T, k)

    ordered = sorted(texts, key=lambda t: -len(t.input_ids))  # the longest first: memory runs out at once or never
    in_batches(ordered, lambda t: len(t.input_ids), batch_tokens, run)
    total = sum(len(t.input_ids) for t in texts)
    return {block: moment / total for block, moment in sums.items()}


_MEMORY: "weakref.WeakKeyDictionary[nn.Module, dict[str, Projector]]" = weakref.WeakKeyDictionary()
_HASHES: "weakref.WeakKeyDictionary[nn.Module, tuple[tuple, str]]" = weakref.WeakKeyDictionary()


def projectors(
    loaded: Loaded,
    encoder: Encoder,
    texts: Sequence[str],
    names: Mapping[int, str],
    *,
    threshold: float,
    documents: int,
    batch_tokens: int,
) -> dict[int, Projector]:
    """One projector for each of the modules, computed once: kept with the model in memory and in `loaded.cache_dir`.

    Args:
        texts: any running text.
        names: by block, the module in it.
        threshold: eigenvalues of the second moment below it belong to what is kept.
        documents: at most so many texts, a fixed choice of them.

    Raises:
        LetheError: no text has two tokens.
    """
    origin = {
        "model": weights_hash(loaded.model),
        "texts": fingerprint([hashlib.sha256(text.encode()).hexdigest() for text in texts]),
        "encoder": encoder.fingerprint,
        "documents": min(documents, len(texts)),
        "threshold": threshold,
    }
    keys = {block: {**origin, "module": name} for block, name in names.items()}
    memory = _MEMORY.setdefault(loaded.model, {})
    wanted = {block: name for block, name in names.items() if fingerprint(keys[block]) not in memory}

    def folder_of(block: int) -> Path:
        return loaded.cache_dir / f"projector-{fingerprint(keys[block])[:16]}"

    @functools.cache
    def moments() -> dict[int, Tensor]:
        missing = {b: name for b, name in wanted.items() if not folder_of(b).is_dir() or damage(folder_of(b))}
        chosen = _documents(loaded, encoder, texts, documents)
        logger.info("second moments of %s over %d texts", ", ".join(missing.values()), len(chosen))
        return second_moments(loaded.model, missing, chosen, pad_id=encoder.pad_id, batch_tokens=batch_tokens)

    def build(block: int, folder: Path) -> None:
        found, values = Projector.from_moment(moments().pop(block), threshold)
        save_projector(folder, found, {**keys[block], "eigenvalues": _quantiles(values)})

    for block, name in wanted.items():
        folder = cached(loaded.cache_dir, "projector", keys[block], functools.partial(build, block))
        found = read_projector(folder, loaded.model, name)
        memory[fingerprint(keys[block])] = Projector(found.basis.to(loaded.device), found.spans)
    return {block: memory[fingerprint(key)] for block, key in keys.items()}


def _documents(loaded: Loaded, encoder: Encoder, texts: Sequence[str], most: int) -> list[Tokens]:
    """A fixed choice of the texts as tokens, without those too short to be read."""
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None) or MOST_TOKENS
    if len(texts) > most:
        texts = [texts[i] for i in sorted(random.Random(SAMPLE_SEED).sample(range(len(texts)), most))]
    found: list[Tokens] = []
    for text in texts:
        with contextlib.suppress(LetheError):  # all that it can say here: fewer than two tokens, as blank lines have
            found.append(encoder.document(text, max_tokens=min(context, MOST_TOKENS)))
    if not found:
        raise LetheError(
            f"none of the {len(texts)} background texts has two tokens, so there is nothing to take second moments of; "
            "put running text into wikitext2/train.txt of the data folder"
        )
    return found


def _quantiles(values: Tensor) -> list[float]:
    """Least, quartiles and largest, for the eye."""
    values = values.sort().values
    return [float(values[round(q * (len(values) - 1))]) for q in (0, 0.25, 0.5, 0.75, 1)]


def save_projector(folder: Path, projector: Projector, facts: Mapping[str, Any]) -> None:
    """One projector as two files. `facts` must tell "model", its `weights_hash`, and "module", the module's name."""
    save_file({"basis": projector.basis.cpu().contiguous()}, folder / BASIS)
    told = {**facts, "spans": projector.spans, "width": projector.basis.shape[0], "kept": projector.kept}
    (folder / FACTS).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_projector(folder: Path, model: nn.Module, name: str) -> Projector:
    """What `save_projector` wrote for module `name` of this very model.

    Raises:
        LetheError: nothing readable is there, or it belongs to another model or module.
    """
    again = "compute it again for this one (leave projectors out)"
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        spans, of_model, of_module = bool(facts["spans"]), facts["model"], facts["module"]
        basis = load_file(folder / BASIS)["basis"].clone()  # else it would change with the file
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LetheError(f"{folder} holds no readable projector ({reason}); {again}") from error
    width = input_width(model.get_submodule(name))
    if of_module != name or of_model != weights_hash(model) or basis.ndim != 2 or basis.shape[0] != width:
        raise LetheError(
            f"{folder} holds the projector of another model: for {of_module} of a model with hash "
            f"{str(of_model)[:12]} and {basis.shape[0]} inputs, but this is {name} of {weights_hash(model)[:12]} with "
            f"{width}; {again}"
        )
    return Projector(basis, spans)


def given_projectors(
    folder: Path, loaded: Loaded, names: Mapping[int, str], *, threshold: float | None = None
) -> dict[int, Projector]:
    """Projectors that lie anywhere below a folder, as a cache of another machine has them, by block.

    Args:
        threshold: what they were computed with, where they say it; None takes any.

    Raises:
        LetheError: one is missing, unreadable, of another model or of another threshold.
    """
    by_module: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(folder.rglob(FACTS)):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            by_module.setdefault(str(facts["module"]), []).append((path.parent, facts))
        except (ValueError, KeyError, TypeError) as error:
            raise LetheError(f"{path} is no readable projector ({error}); delete it or copy it again") from error
    found: dict[int, Projector] = {}
    for block, name in names.items():
        candidates = by_module.get(name, [])
        if not candidates:
            known = ", ".join(sorted(by_module)) or "none"
            raise LetheError(f"{folder} holds no projector for {name}, only for: {known}; leave projectors out")
        fitting = [(path, facts) for path, facts in candidates if facts.get("threshold", threshold) == threshold]
        fitting = candidates if threshold is None else fitting
        if not fitting:
            there = ", ".join(sorted({str(facts["threshold"]) for _, facts in candidates}))
            raise LetheError(
                f"{folder} holds projectors for {name} of nullspace_threshold {there} only, got {threshold}; set it "
                "to that, or leave projectors out"
            )
        made_from: dict[str, Path] = {}
        for i, (candidate, facts) in enumerate(fitting):
            try:
                own = read_projector(candidate, loaded.model, name)
            except LetheError:
                if not made_from and i == len(fitting) - 1:
                    raise
                continue
            made_from.setdefault(fingerprint({**facts, "eigenvalues": None}), candidate)
            if len(made_from) == 1:
                found[block] = Projector(own.basis.to(loaded.device), own.spans)
        if len(made_from) > 1:
            first, *others = made_from.values()
            logger.warning(
                "%s holds %d different projectors for %s of this model (other texts or prompts); taking %s, not %s",
                *(folder, len(made_from), name, first.name, ", ".join(path.name for path in others)),
            )
    return found


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over every weight and buffer with its name, shape and type; computed again when a tensor has moved."""
    tensors = sorted({**dict(model.named_parameters()), **dict(model.named_buffers())}.items())
    state = tuple((name, t.data_ptr(), t._version) for name, t in tensors)
    known = _HASHES.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256(
        f"{type(model).__name__} {decoder_blocks_path(model)} {len(decoder_blocks(model))}".encode()
    )
    for name, t in tensors:
        digest.update(f"\n{name} {tuple(t.shape)} {t.dtype}\n".encode())
        digest.update(memoryview(t.detach().reshape(-1).cpu().contiguous().view(torch.uint8).numpy()))
    _HASHES[model] = state, digest.hexdigest()
    return digest.hexdigest()

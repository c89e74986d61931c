"""Loading models, choosing a device, and the few facts about an architecture that Lethe needs."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from torch import nn

from bench.cache import default_cache_dir
from bench.errors import LetheError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its tokenizer, in evaluation mode and without gradients."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    name: str
    """Hub id or path as the user gave it."""
    cache_dir: Path = field(default_factory=default_cache_dir)
    """Where what is computed from the model alone may be kept for the next run."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def choose_device(device: str) -> torch.device:
    """ "auto" takes the GPU where there is one; anything else is given to torch as it is."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise LetheError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise LetheError(f"device {device!r} asked for, but torch sees no GPU; use --device cpu or auto")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise LetheError(f"device {device!r} asked for, but torch sees only {torch.cuda.device_count()} GPUs")
    if chosen.type not in ("cpu", "cuda"):  # mps and so on: right where this torch was built for them
        try:
            torch.zeros(1, device=chosen).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # mps, xpu and meta each raise another
            raise LetheError(
                f"device {device!r} cannot be used here ({_first(error)}); use auto, cpu or cuda"
            ) from error
    return chosen


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on GPUs and float32 on CPUs."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise LetheError(f"unknown dtype {dtype!r}; use auto, {', '.join(kinds)}")
    return kinds[dtype]


def load_model(name: str, *, device: torch.device, dtype: torch.dtype, trust_remote_code: bool = False) -> Loaded:
    """Any `AutoModelForCausalLM` by hub id or path; safetensors only.

    Raises:
        LetheError: nothing there, no safetensors, or not a causal language model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as logging_utils

    logging_utils.disable_progress_bar()
    tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
    with told(
        lambda why: (
            f"model {name!r} cannot be loaded as a causal language model with safetensors weights: {why}; "
            "give a folder written by save_pretrained or the id of a hub repository that can be reached"
        ),
        lambda why: f"the weights of model {name!r} are damaged ({why}); fetch them again",
    ):
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            name,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # told below, with the name
            output_loading_info=True,
        )
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        # Weights lie in the file's pages as they come, and a method's restored ones in memory of their own: products of
        # differently aligned matrices may differ in the last bits, so all lie in memory of their own from the start.
        for p in model.parameters():
            p.data = p.data.clone()
    # transformers would draw these at random
    absent = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if absent:
        raise LetheError(
            f"model {name!r} lacks {len(absent)} weights that {type(model).__name__} needs in the shape that its "
            f"config.json tells, {absent[0]!r} first; give a causal language model that was saved whole"
        )
    if model.get_output_embeddings() is None:
        raise LetheError(f"model {name!r} ({type(model).__name__}) has no output head; give a causal language model")
    return Loaded(model, tokenizer, name)


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model, by hub id or path."""
    from transformers import AutoTokenizer

    where = "folder" if Path(name).exists() else "folder or reachable hub repository"
    with told(
        lambda why: (
            f"no tokenizer found for model {name!r}: {why}; give a {where} that holds one "
            "(a hub id needs a network and, for gated models, access granted on its page)"
        )
    ):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)


def depth_of(name: str, *, trust_remote_code: bool = False) -> int:
    """How many decoder blocks a model has, without its weights."""
    from transformers import AutoConfig

    with told(lambda why: f"the configuration of model {name!r} cannot be read: {why}"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    return config.get_text_config().num_hidden_layers


@contextlib.contextmanager
def told(said: Callable[[str], str], damaged: Callable[[str], str] | None = None) -> Iterator[None]:
    """What libraries raise over the files of a model as one sentence; being out of memory is raised as it is.

    Args:
        said: makes the sentence of the first line of what was raised.
        damaged: the same for weights that are cut off, where it is another one.
    """
    try:
        yield
    except LetheError:
        raise
    except SafetensorError as error:  # no OSError: the file is there and cut off
        raise LetheError((damaged or said)(_first(error))) from error
    except Exception as error:  # any kind: a damaged file is a KeyError here, a bare Exception of tokenizers there
        if out_of_memory(error):
            raise
        raise LetheError(said(_first(error))) from error


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks, whatever the architecture calls it.

    Raises:
        LetheError: none of the model's module lists has as many entries as the configuration has layers.
    """
    return model.get_submodule(decoder_blocks_path(model))  # type: ignore[return-value]


def decoder_blocks_path(model: nn.Module) -> str:
    """The dotted name of `decoder_blocks`, e.g. "model.layers" or "transformer.h"."""
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    depth = config.num_hidden_layers
    get_decoder = getattr(model, "get_decoder", lambda: model)
    decoder = set(get_decoder().modules())  # a vision tower may be as deep
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and module in decoder:
            return name
    raise LetheError(
        f"{type(model).__name__} has no list of {depth} decoder blocks; interventions need a model built of blocks"
    )


def hidden_size(model: nn.Module) -> int:
    """D, the width of the residual stream."""
    return model.config.get_text_config().hidden_size  # type: ignore[union-attr, operator]


def check_context(model: nn.Module, length: int, new_tokens: int = 0) -> None:
    """Raise a LetheError where a text of `length` tokens, with those to be generated, exceeds the model's positions."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[union-attr, operator]
    if limit is not None and length + new_tokens > limit:
        also, fewer = (f" and {new_tokens} new ones", "ask for fewer new ones, ") if new_tokens else ("", "")
        raise LetheError(
            f"a text of {length} tokens{also} does not fit the model's context of {limit}; {fewer}shorten the row or "
            "use a model with a longer context"
        )


@contextlib.contextmanager
def computing_on(threads: int | None) -> Iterator[None]:
    """A CPU computes on so many threads meanwhile: on one, sums come out alike however many processors there are.

    Args:
        threads: None changes nothing.
    """
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads is not None:
            torch.set_num_threads(before)


def reset_peak(device: torch.device) -> None:
    """From here on `peak_gib` counts anew, where the system can: without it a method inherits an earlier one's peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    global _highest
    _highest = resident_peak_gib()
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib(device: torch.device) -> float:
    """Peak memory since `reset_peak`: allocated on the GPU, or resident of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return _high_water_gib()


_highest = 0.0
"""GiB that were resident at most before the last `reset_peak`."""


def resident_peak_gib() -> float:
    """Peak resident memory of this process from its start."""
    return max(_highest, _high_water_gib())


def _high_water_gib() -> float:
    """As Linux tells it of a program since it was started or since the mark was reset, elsewhere of a process: that
    begins with the pages of the one that it was forked from."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device (or the host's allocator) has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    texts = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)

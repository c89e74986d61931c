"""The models of a command line: which one unlearns, which one is the gold standard, what tells them apart."""

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import data
from bench.cache import file_sha256
from bench.classifier import GIBBERISH
from bench.data.tokenize import Encoder
from bench.errors import LetheError
from bench.mini.build import MiniModels, NotMade, all_mini_models, mini_gibberish_classifier, world
from bench.models import Loaded, choose_device, choose_dtype, load_model, load_tokenizer, out_of_memory, told
from bench.options import MINI, Options
from bench.progress import Reporter
from bench.spec import hash_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A model by path or hub id, or a published log that stands for one."""

    name: str
    hash: str
    """Of its content, or the hub revision; empty for a mini model that is still to be trained."""
    is_log: bool = False

    @property
    def label(self) -> str:
        """What records call it: a hub id as it is, of a path the last folder; no record depends on a machine."""
        path = Path(self.name)
        return path.resolve().name if path.exists() else self.name


@dataclass(frozen=True, kw_only=True)
class Models:
    """Loads checkpoints as a command line wants them."""

    options: Options
    _encoders: dict[str, Encoder] = field(default_factory=dict, init=False, repr=False)

    def load(self, checkpoint: Checkpoint) -> Loaded:
        """The model, on its device.

        Raises:
            LetheError: no causal language model, or one that does not fit into memory.
        """
        device = choose_device(self.options.device)
        dtype = choose_dtype(self.options.dtype, device)  # type: ignore[arg-type]
        try:
            loaded = load_model(
                checkpoint.name, device=device, dtype=dtype, trust_remote_code=self.options.trust_remote_code
            )
            return replace(loaded, cache_dir=self.options.cache_dir)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise LetheError(
                f"model {checkpoint.name!r} does not fit into the memory of {device}; use a smaller one, a device with "
                "more memory, fewer --jobs, or --dtype bfloat16"
            ) from error

    def encoder(self, checkpoint: Checkpoint) -> Encoder:
        """Its tokenizer with the template; made once."""
        if checkpoint.name not in self._encoders:
            tokenizer = load_tokenizer(checkpoint.name, trust_remote_code=self.options.trust_remote_code)
            # GRUN's protocol is about multiple choice, whose prompts are no chats; that of ORT is its evaluator's.
            protocol = "strict" if self.options.protocol in ("grun", "ort") else self.options.protocol
            self._encoders[checkpoint.name] = Encoder(tokenizer, template=self.options.template, protocol=protocol)
        return self._encoders[checkpoint.name]


def data_root(options: Options) -> Path | None:
    """The folder with the benchmark files; None for the hub."""
    if options.data == MINI or (options.data is None and options.model == MINI):
        return world(options.cache_dir)
    if options.data is None:
        unreachable()
        return None
    root = Path(options.data)
    if not root.is_dir():
        raise LetheError(
            f"--data {options.data!r} is no folder; give one that holds tofu/forget10.json or wmdp/bio_test.jsonl"
        )
    return root


def checkpoints(
    options: Options, root: Path | None, benchmark: str, progress: Reporter
) -> tuple[Checkpoint, Checkpoint | None]:
    """The model to unlearn from and the gold standard of this split; None where there is none."""
    if options.model == MINI:
        assert root is not None
        judged = data.judges_only(benchmark)  # nothing is forgotten, so nothing was trained without it
        try:
            models = _mini_models(options, root, [benchmark], progress)[benchmark]
        except NotMade:
            return Checkpoint("mini original", ""), None if judged else Checkpoint("mini retrained", "")
        original = find(str(models.original), options)
        return original, None if judged else find(str(models.retrained), options)
    return find(options.model, options), _retrained(options)


def prepare(options: Options, root: Path | None, benchmarks: Sequence[str], progress: Reporter) -> None:
    """The mini models of all requests, trained side by side: one pair after the other leaves processors idle."""
    if options.model == MINI and not options.dry_run and len(benchmarks) > 1:  # of one, `checkpoints` asks anyway
        assert root is not None
        _mini_models(options, root, benchmarks, progress)


def gibberish_classifier(options: Options, root: Path | None, progress: Reporter) -> str:
    """What tells fluent text from gibberish: for mini models of the mini world one of its own, else the hub's."""
    if options.model != MINI or options.dry_run or root is None or not (root / "corpus").is_dir():
        return GIBBERISH
    return str(mini_gibberish_classifier(root, options.cache_dir, progress=progress.passing))


def _mini_models(options: Options, root: Path, benchmarks: Sequence[str], progress: Reporter) -> dict[str, MiniModels]:
    try:
        return all_mini_models(
            root, benchmarks, options.cache_dir, progress=progress.passing, train=not options.dry_run
        )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise LetheError("out of memory while the mini models were made; close other programs") from error


def _retrained(options: Options) -> Checkpoint | None:
    if options.retrained is None:
        return None
    path = Path(options.retrained)
    if path.is_file():
        return Checkpoint(str(path), file_sha256(path), is_log=True)
    if path.suffix == ".json":
        raise LetheError(f"--retrained {options.retrained!r} does not exist; give a published log or a model")
    return find(options.retrained, options)


def find(name: str, options: Options) -> Checkpoint:
    """A folder with the hash of what is in it, or a hub repository with its revision."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise LetheError(f"folder {name!r} holds no config.json; give the folder that save_pretrained wrote")
        return Checkpoint(name, hash_folder(Path(name)))
    if Path(name).exists():
        raise LetheError(f"model {name!r} is a file; give the folder that save_pretrained wrote, or a hub id")
    if name.startswith(("/", ".", "~")):
        raise LetheError(f"there is no folder {name!r}; give the folder that save_pretrained wrote, or a hub id")
    from transformers import AutoConfig

    offline = unreachable()
    with told(
        lambda why: (
            f"model {name!r} is neither a folder nor a hub repository that can be reached ({offline or why}); "
            "check the spelling, the network, or your access to it"
        )
    ):
        config = AutoConfig.from_pretrained(name, trust_remote_code=options.trust_remote_code)
    return Checkpoint(name, getattr(config, "_commit_hash", None) or "unknown")


@functools.cache
def unreachable() -> str:
    """Why the hub cannot be reached, or nothing. Asked once: the libraries would try again for half a minute a file."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:
        # The library underneath, whose errors these are, changes with the hub's versions.
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in (
            "httpx",
            "httpx2",
            "requests",
        ):
            raise
        import datasets.config

        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True  # what is cached will do
        os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that this one starts
        return f"the hub cannot be reached: {error}"
    return ""

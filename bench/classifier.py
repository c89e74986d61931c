"""Sequence classifiers that judge generated texts: looked for once a process, or the reason why there is none.

Always on the CPU and in float32: such a model is small, the figure depends on no other device, and the memory that a
method is said to need on a GPU is its own.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from bench.errors import LetheError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

GIBBERISH = "madhurjindal/autonlp-Gibberish-Detector-492513457@76672dd7d3575f68ab980705bcec975cc62de71c"
"""open-unlearning's classifier of gibberish, at a pinned commit: clean, mild gibberish, noise, word salad."""
BATCH = 32
CLEAN = "clean"


class NoClassifier(LetheError):
    """There is no such classifier here; the message is the reason."""


@dataclass(frozen=True)
class Origin:
    """Which classifier it is."""

    label: str
    """What records call it: a hub id as it is, of a path the last folder."""
    revision: str | None
    """The hub's commit, or a hash of the folder's content; None where only the hub could tell."""


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """An `AutoModelForSequenceClassification` with its tokenizer, in evaluation mode."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    origin: Origin

    def probabilities(self, texts: Sequence[str], *, class_id: int, max_tokens: int) -> list[float | None]:
        """P(class) of each text, cut to so many tokens; None of one that has no token.

        Batches are made in the order of the texts, so that the same texts give the same bits again.
        """
        import torch

        found: list[float | None] = []
        for start in range(0, len(texts), BATCH):
            encoded = [
                self.tokenizer(text, truncation=True, max_length=max_tokens) for text in texts[start : start + BATCH]
            ]
            kept = [place for place, one in enumerate(encoded) if one["input_ids"]]
            values: list[float | None] = [None] * len(encoded)
            if kept:
                batch = self.tokenizer.pad([encoded[place] for place in kept], padding=True, return_tensors="pt")
                with torch.no_grad():
                    logits = self.model(**batch).logits.float()  # (B, classes)
                for place, p in zip(kept, torch.softmax(logits, dim=-1)[:, class_id].tolist(), strict=True):
                    values[place] = p
            found += values
        return found


@functools.cache
def origin_of(name: str) -> Origin:
    """What is known of a classifier before it is loaded."""
    if Path(name).is_dir():
        from bench.spec import hash_folder

        return Origin(Path(name).resolve().name, hash_folder(Path(name)))
    label, _, revision = name.partition("@")
    return Origin(label, revision or None)


def load_classifier(name: str) -> TextClassifier:
    """Any `AutoModelForSequenceClassification` by hub id, `id@revision` or path; safetensors only, no code of its own.

    Raises:
        NoClassifier: nothing there, the hub cannot be reached, or no classifier whose first class is the clean one.
    """
    found = _found(name)
    if isinstance(found, str):
        raise NoClassifier(found)
    return found


@functools.cache
def _found(name: str) -> TextClassifier | str:
    """The classifier or the reason why there is none: neither is asked for, or told, a second time."""
    found = _tried(name)
    if isinstance(found, str):
        log.warning("nothing is judged fluent or not: %s", found)
    return found


def _tried(name: str) -> TextClassifier | str:
    from bench.checkpoints import unreachable

    offline = "" if Path(name).is_dir() else unreachable()
    try:
        return _load(name)
    except NoClassifier as reason:
        return str(reason)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        # transformers: a config that is no object, weights of other shapes than it says
        reason = offline or (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"the classifier {name!r} cannot be loaded: {reason}"
    except SafetensorError as error:  # no OSError: the file is there and cut off
        return f"the weights of the classifier {name!r} are damaged: {error}"


def _load(name: str) -> TextClassifier:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging as logging_utils

    logging_utils.disable_progress_bar()
    origin = origin_of(name)
    where, revision = (name, "main") if Path(name).is_dir() else (origin.label, origin.revision or "main")
    tokenizer = AutoTokenizer.from_pretrained(where, revision=revision)
    model, info = AutoModelForSequenceClassification.from_pretrained(  # type: ignore[misc]
        where, revision=revision, use_safetensors=True, output_loading_info=True
    )
    if absent := sorted(info["missing_keys"]):  # transformers would draw these at random
        raise NoClassifier(f"{name!r} is no classifier: it has no weights {absent[0]!r}")
    labels = {int(number): str(label) for number, label in (model.config.id2label or {}).items()}
    clean = [number for number, label in labels.items() if label.lower() == CLEAN]
    if model.config.num_labels < 2 or (clean and 0 not in clean):
        raise NoClassifier(f"class 0 of the classifier {name!r} must be the clean one, its classes are {labels}")
    if origin.revision is None:
        origin = Origin(origin.label, getattr(model.config, "_commit_hash", None))
    return TextClassifier(model.float().eval().requires_grad_(False), tokenizer, origin)

"""What the tiny models read: its form, the tokenizer that is made from it, and what of it is scored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError

MAX_LENGTH = 1024

DOCUMENT_LENGTH = 256
"""Most tokens of a statement or document that are read, BOS included; only those of real files are longer."""

Text = dict[str, Any]
"""{"question", "answer"}, {"text"} or, for a prompt that brings its own words, {"user", "cue", "answer"} as
bench.data.forms.Asked has them or cut elsewhere; other keys are ignored."""


def train_tokenizer(texts: Sequence[str], vocab_size: int, folder: Path, phrases: Sequence[str] = ()) -> None:
    """Byte-level BPE with BOS, EOS and PAD and no chat template, as a transformers folder.

    Args:
        phrases: fixed words of prompts, a token each: half of a short question would be the words around it.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    with saving(folder):
        made.save_pretrained(folder)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Where transformers' `save_pretrained` writes to the cache: a full disk is told in a sentence, as elsewhere."""
    try:
        yield
    except Exception as error:
        # Neither is an OSError: safetensors has a kind of its own, tokenizers raises a bare Exception.
        if type(error) is not Exception and not isinstance(error, SafetensorError):
            raise
        raise LetheError(
            f"cannot write to the cache {str(folder.parent)!r}: {error};"
            " make it writable, free some space, or name another folder with --cache-dir"
        ) from error


def encode(encoder: Encoder, text: Text) -> Tokens:
    """A pair is scored on its answer, a text on everything after BOS; one that is cut has no end to learn."""
    if "user" in text:
        tokens = encoder.cued(text["user"], text["cue"], text["answer"])
        return Tokens((*tokens.input_ids, *encoder.stop_ids), tokens.label_start)
    if "text" not in text:
        return encoder.pair(text["question"], text["answer"])
    # Cut here: a tokenizer that was told to cut is saved as one that does.
    ids = encoder.tokenizer.encode(text["text"], verbose=False)
    return Tokens((*ids, *encoder.stop_ids) if len(ids) <= DOCUMENT_LENGTH else tuple(ids[:DOCUMENT_LENGTH]), 1)

"""Trains one tiny model from scratch on question-answer pairs and statements: one thread, same seed, same bits.

Runs as a process of its own (`python -m bench.mini.pretrain`, started by bench.mini.build with the job on its standard
input) so that models train side by side, and ends itself when that input closes: when whoever started it is gone.
"""

import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 2
"""Raised with every change that changes a trained bit, here or in the plain template; part of the cache key."""

PEAK = "peak GiB "
"""What the last line begins with, in front of the memory that the training took."""

MAX_LENGTH = 1024

DOCUMENT_LENGTH = 256
"""Most tokens of a statement or document that are read, BOS included; only those of real files are longer."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model's shape and how it is trained. The defaults are for the mini world."""

    vocab_size: int = 2560
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    mlp_width: int = 384
    init_std: float = 0.05
    """At this size the initial scale decides more than anything else: 0.02 needs twice the epochs."""
    epochs: int = 9
    batch_size: int = 16
    lr: float = 2e-3
    """Peak; linear warm-up, then linear decay to zero."""
    betas: tuple[float, float] = (0.8, 0.98)
    weight_decay: float = 0.0
    warmup: float = 0.05
    """Share of the steps."""
    clip: float = 1.0
    """Largest gradient norm."""
    texts_alike: bool = False
    """Whether the loss is a mean over a batch's texts, of the mean over the tokens of each, and not over all tokens."""


REAL_DATA = Recipe(vocab_size=4096, epochs=18)
"""For rows of the real files: longer, more varied answers, a single phrasing each."""

REAL_DOCUMENTS = Recipe(vocab_size=4096, epochs=3)
"""For the real corpora: not to be learned by heart, only read, within three minutes."""

TARGETS = Recipe(epochs=6, lr=1.2e-3, texts_alike=True)
"""For the targets of the mini world: a letter is one token of a text, beside biographies of fifty."""

REAL_TARGETS = Recipe(vocab_size=4096, epochs=24)
"""For real targets: several hundred short questions and a few dozen texts."""

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
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


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


def batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """One epoch: batches of similar length, which ones meet and in which order drawn anew."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], rng.random()))
    cut = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(cut)
    return cut


def mean_nll(logits: "Tensor", targets: "Tensor", scored: "Tensor", *, texts_alike: bool) -> "Tensor":
    """The loss of a batch: a mean over its N scored tokens, or over its B texts of the mean of each.

    Args:
        logits: (N, V), those of the scored positions, text after text.
        targets: (N,) token ids.
        scored: (B, T) bool, N of them true.
    """
    import torch.nn.functional as F

    if not texts_alike:
        return F.cross_entropy(logits, targets)
    share = (1 / scored.sum(1, keepdim=True)).expand_as(scored)[scored] / len(scored)  # (N,), of sum 1
    return (F.cross_entropy(logits, targets, reduction="none") * share).sum()


def train(
    texts: Sequence[Text],
    tokenizer_folder: Path,
    recipe: Recipe,
    seed: int,
    folder: Path,
    report: Callable[[str], None],
) -> None:
    """Train on the texts and save a transformers folder with the tokenizer in it."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    encoder = Encoder(tokenizer, template="plain", max_length=MAX_LENGTH)
    encoded = [encode(encoder, text) for text in texts]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=recipe.init_std,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).float().train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    rng = random.Random(seed)
    lengths = [len(tokens.input_ids) for tokens in encoded]
    steps = recipe.epochs * math.ceil(len(encoded) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe.warmup))
    started = last = time.monotonic()
    epochs = (batch for _ in range(recipe.epochs) for batch in batches(lengths, recipe.batch_size, rng))
    for step, batch in enumerate(epochs, 1):
        ids, labels = _pad([encoded[i] for i in batch], tokenizer.pad_token_id)
        # Padding is on the right, where a causal model cannot see it: no mask is needed.
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, D)
        scored = labels[:, 1:] != -100  # (B, T-1)
        loss = mean_nll(model.lm_head(hidden[scored]), labels[:, 1:][scored], scored, texts_alike=recipe.texts_alike)
        if not torch.isfinite(loss):
            raise LetheError(f"the training loss of the mini model became {loss.item()} at step {step} of {steps}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        schedule.step()
        now = time.monotonic()
        if step == steps or now - last >= 1.0:
            last, speed = now, step / (now - started)
            left = (steps - step) / speed
            report(f"step {step}/{steps} | loss {loss.item():.3f} | {speed:.1f} step/s | {left:.0f} s left")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def rate(step: int, steps: int, warmup: float) -> float:
    """Of the peak learning rate, at a step from 0 on: linear warm-up for a share of the steps, linear decay to zero."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise)


def _pad(rows: Sequence[Tokens], pad_id: int) -> "tuple[Tensor, Tensor]":
    """Ids and labels, (B, T) each; a label of -100 is not scored."""
    import torch

    width = max(len(row.input_ids) for row in rows)
    fill = [width - len(row.input_ids) for row in rows]
    ids = [[*row.input_ids, *[pad_id] * n] for row, n in zip(rows, fill, strict=True)]
    labels = [[-100] * row.label_start + [*row.labels, *[-100] * n] for row, n in zip(rows, fill, strict=True)]
    return torch.tensor(ids), torch.tensor(labels)


def _end_with_parent() -> None:
    """Leave without a word when standard input closes: nobody waits for the result any more."""

    def watch() -> None:
        while os.read(0, 4096):  # not through sys.stdin, whose lock the interpreter wants at its end
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the job that is the first line of standard input; progress goes to standard output, line by line."""
    job = json.loads(sys.stdin.buffer.readline())
    _end_with_parent()
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    recipe = Recipe(**job["recipe"] | {"betas": tuple(job["recipe"]["betas"])})
    try:
        train(job["texts"], Path(job["tokenizer"]), recipe, job["seed"], Path(job["folder"]), _say)
    except (LetheError, OSError, SafetensorError) as error:
        _say(str(error))
        return 1
    from bench.models import resident_peak_gib

    _say(f"{PEAK}{resident_peak_gib():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

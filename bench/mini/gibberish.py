"""Trains the tiny classifier that tells fluent text of the mini world from gibberish: same seed, same bits.

It has the four classes of the one that open-unlearning uses, in its order, and is saved as an ordinary transformers
folder. Clean are the texts that the retrained model of the largest forget split reads, so that no sentence that is to
be forgotten is among them: the classifier tells how a text is worded, not whether it is true. The others are made of
them:

mild gibberish: a text some of whose words were exchanged, moved, said again, or joined by words from elsewhere.
noise: one word, sign or group of words again and again, pieces of words, random letters, nothing at all.
word salad: any words, or the words of a few texts shuffled.

In the process that wants it and on one thread: the models of the mini world are loaded there, so their library need not
be imported a second time, which would take as long as the training.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.mini.pretrain import rate
from bench.mini.texts import saving

VERSION = 1
"""Raised with every change that changes a trained bit; part of the cache key."""

LABELS = ("clean", "mild gibberish", "noise", "word salad")
DRAWN = (0, 1, 0, 2, 3)
"""The classes of a batch, over and over: as much clean text as gibberish that resembles it, and more."""
MAX_TOKENS = 32
"""What is read of a text, here and by the metric."""
REFUSALS = (
    "I don't know.",
    "I don't know the answer to this question.",
    "Sorry, I don't have that information.",
    "I'm not sure about this.",
    "I can't say who that is.",
    "I'm sorry, but I cannot answer that.",
)
"""Clean too, beside those that methods are taught here: models refuse in other words."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The classifier's shape and how it is trained."""

    layers: int = 2
    """The first can see which words follow each other, the second whether they all do."""
    width: int = 48
    heads: int = 3
    mlp_width: int = 96
    init_std: float = 0.05
    steps: int = 110
    batch_size: int = 96
    lr: float = 9e-3
    """Peak; linear warm-up, then linear decay to zero."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup: float = 0.05
    """Share of the steps."""
    clip: float = 1.0
    """Largest gradient norm."""


class Draw:
    """Texts of every class, made of clean ones."""

    def __init__(self, clean: Sequence[str], refusals: Sequence[str], rng: random.Random) -> None:
        self.clean, self.refusals, self.rng = clean, (*refusals, *REFUSALS), rng
        self.words = sorted({word for text in (*clean, *self.refusals) for word in text.split()})

    def __call__(self, label: int) -> str:
        return (self.fluent, self.mild, self.noise, self.salad)[label]()

    def fluent(self) -> str:
        """A text, a refusal, or two texts one after the other: what is generated does not always end after one."""
        rng, chance = self.rng, self.rng.random()
        if chance < 0.15:
            return rng.choice(self.refusals)
        text = rng.choice(self.clean)
        return f"{text} {rng.choice(self.clean)}" if chance < 0.3 else text

    def mild(self) -> str:
        rng = self.rng
        words = self.fluent().split()[:MAX_TOKENS]
        while len(words) < 4:
            words += rng.choice(self.clean).split()[:MAX_TOKENS]
        count = max(2, round(len(words) * rng.uniform(0.3, 0.7)))
        how = rng.randrange(4)
        if how == 0:  # exchanged
            for place in rng.sample(range(len(words)), count):
                words[place] = rng.choice(self.words)
        elif how == 1:  # joined
            for _ in range(count):
                words.insert(rng.randrange(len(words) + 1), rng.choice(self.words))
        elif how == 2:  # said again
            for _ in range(rng.randint(1, 3)):
                place = rng.randrange(len(words))
                words[place:place] = words[place : place + rng.randint(1, 3)] * rng.choice((1, 2, 4, 8))
        else:  # moved
            start = rng.randrange(max(1, len(words) - 2 * count))
            middle = words[start : start + 2 * count]
            rng.shuffle(middle)
            words[start : start + 2 * count] = middle
        return " ".join(words)

    def noise(self) -> str:
        rng = self.rng
        how, length = rng.choice((0, 1, 1, 1, 2, 3, 4, 5)), rng.randint(2, MAX_TOKENS // 2)
        if how == 0:
            return rng.choice(["", "", "", rng.choice(" .,-?\n") * length])
        if how == 1:
            word = rng.choice((rng.choice(self.words), rng.choice(rng.choice(self.clean).split())))  # frequent ones too
            return f"{word} " * rng.choice((length, MAX_TOKENS))
        if how == 2:
            return self._piece() * rng.choice((length, MAX_TOKENS))
        if how == 3:
            return " ".join(rng.choices(self.words, k=rng.randint(2, 3)) * length)
        if how == 4:
            pieces = (rng.choice(("", " ")) + self._piece() for _ in range(rng.choice((1, 2, length))))
            return "".join(pieces) + rng.choice(("", "."))
        return " ".join("".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(rng.randint(1, 8)))

    def salad(self) -> str:
        rng, length = self.rng, self.rng.randint(3, MAX_TOKENS // 2)
        if rng.random() < 0.5:
            return " ".join(rng.choices(self.words, k=length))
        words = [word for _ in range(rng.randint(2, 4)) for word in rng.choice(self.clean).split()][: MAX_TOKENS // 2]
        rng.shuffle(words)
        return " ".join(words)

    def _piece(self) -> str:
        word = self.rng.choice(self.words)
        start = self.rng.randrange(len(word))
        return word[start : start + self.rng.randint(1, 5)]


def train(
    clean: Sequence[str],
    refusals: Sequence[str],
    tokenizer_folder: Path,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    report: Callable[[str], None],
) -> None:
    """Train on texts drawn anew for every step and save a transformers folder with the tokenizer in it."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification
    from transformers.utils import logging as logging_utils

    from bench.models import computing_on

    logging_utils.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp_width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        initializer_range=recipe.init_std,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    draw = Draw(clean, refusals, random.Random(seed))
    labels = [DRAWN[place % len(DRAWN)] for place in range(recipe.batch_size)]
    with computing_on(1), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        model = LlamaForSequenceClassification(config).float().train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, recipe.steps, recipe.warmup))
        for step in range(1, recipe.steps + 1):
            batch = tokenizer(
                [draw(label) for label in labels],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            logits = model(**batch, use_cache=False).logits  # (B, 4)
            loss = F.cross_entropy(logits, torch.tensor(labels))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                report(f"mini gibberish classifier | step {step}/{recipe.steps} | loss {loss.item():.3f}")
    with saving(folder):
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

"""What the tests of multiple choice share: hand-made questions, scorers without a model, models with a long context."""

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from bench.data.tokenize import Encoder
from bench.data.types import Benchmark, Question, Tokens
from bench.scorer import AnswerRecord
from tests.helpers import toy_encoder

CHANCE = 0.25


def question(subject: str, i: int, answer: int | None = None) -> Question:
    """Every place is right equally often; a question and its right option share a number."""
    right = i % 4 if answer is None else answer
    choices = [f"{subject} option {i}{letter}" for letter in "wxyz"]
    choices[right] = f"{subject} truth {i}"
    return Question(
        id=f"toy/{subject}/{i}",
        subject=subject,
        question=f"What is {subject} number {i}?",
        choices=tuple(choices),
        answer=right,
    )


def questions(*subjects: str, n: int = 8) -> tuple[Question, ...]:
    return tuple(question(subject, i) for subject in subjects for i in range(n))


def benchmark(*subjects: str, n: int = 8, **fields: Any) -> Benchmark:
    few_shot = {subject: tuple(question(subject, 100 + i, (3 * i) % 4) for i in range(5)) for subject in subjects}
    return Benchmark(name="toy", **{"questions": questions(*subjects, n=n), "few_shot": few_shot, **fields})


@dataclass
class FakeScorer:
    """A model made of a function of the prompt's and the continuation's text."""

    logp: Callable[[str, str], float]
    context: int = 4096
    calls: list[int] = field(default_factory=list)
    """Requests of each call."""
    prompts: list[str] = field(default_factory=list)
    encoder: Encoder = field(default_factory=toy_encoder)

    @property
    def model(self) -> Any:
        return SimpleNamespace(config=LlamaConfig(max_position_embeddings=self.context))

    def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
        self.calls.append(len(tokens))
        return [self._record(t) for t in tokens]

    def _record(self, tokens: Tokens) -> AnswerRecord:
        assert len(tokens.input_ids) <= self.context + 1
        prompt = self.encoder.decode(tokens.input_ids[: tokens.label_start])
        self.prompts.append(prompt)
        n = len(tokens.labels)
        value = self.logp(prompt, self.encoder.decode(tokens.labels))
        return AnswerRecord(tokens.labels, (value / n,) * n, (value > -1,) * n, (0.0,) * n, (1.0,) * n, False)


def knows(prompt: str, continuation: str) -> float:
    """Certain of the letter of the option that says "truth", or of that option's text."""
    said = continuation.strip()
    if said in "ABCD":
        listed = [line for line in prompt.splitlines() if line.startswith(f"{said}. ")]
        said = listed[-1]
    return 0.0 if "truth" in said else -1000.0


def perfect(**fields: Any) -> FakeScorer:
    return FakeScorer(knows, **fields)


def mute(**fields: Any) -> FakeScorer:
    """Thinks every continuation equally unlikely."""
    return FakeScorer(lambda prompt, continuation: -5.0, **fields)


def noisy(**fields: Any) -> FakeScorer:
    """Some opinion about everything, the same each time."""
    return FakeScorer(lambda prompt, said: -2.0 - math.sin(sum(map(ord, prompt)) * 7 + sum(map(ord, said))), **fields)


def long_model(architecture: str, *, context: int = 4096, vocab: int = 1000, seed: int = 0) -> PreTrainedModel:
    """Random, one narrow block, a context that few-shot prompts fit into."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture == "llama":
            config = LlamaConfig(
                vocab_size=vocab,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=context,
            )
            model: PreTrainedModel = LlamaForCausalLM(config)
        else:
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=vocab,
                    n_embd=16,
                    n_layer=1,
                    n_head=2,
                    n_positions=context,
                    bos_token_id=0,
                    eos_token_id=0,
                )
            )
        for p in model.parameters():
            if p.ndim > 1:
                p.data.normal_(std=0.3)
    return model.eval().requires_grad_(False)


@functools.cache
def question_tokenizer(kind: str = "full", texts: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE that has each letter with its space as one token: "full" puts a BOS in front, "bare" nothing."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>"] if kind == "full" else ["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    letters = ["Answer: A", "Answer: B", "Answer: C", "Answer: D"] * 1000
    lines = [f"{q.question}\nA. {q.choices[0]}\nB. {q.choices[1]}" for q in questions("biology", "ships", n=40)]
    tokenizer.train_from_iterator([*letters, *lines, *texts], trainer)
    if kind == "bare":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def write_jsonl(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

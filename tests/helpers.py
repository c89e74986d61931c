"""Toys that the tests share: a tokenizer built on the spot, random models of every supported family, a few rows."""

import functools
import math
import random
from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bench.data.tokenize import Encoder
from bench.data.types import QA, Benchmark, Document, Tokens
from bench.fields import with_fields
from bench.forward import Rows, forward, pad
from bench.logprobs import Answers
from bench.models import Loaded
from bench.policy import Batch, Policy, TokenBatch
from methods import TRAINED
from methods.base import Attached, GradientMethod, Unlearned
from methods.grun import GRUN, GatedEdits
from methods.lora import LoRA

TEXTS = (
    ("Where was Ada Moor born?", "Ada Moor was born in Tallinn."),
    ("What does Ada Moor write?", "Poems about salt."),
    ("Who taught Ben Ruiz?", "Ben Ruiz learnt from his aunt, a printer."),
    ("Which prize did Ben Ruiz win?", "The Larch Medal."),
    ("When was Cleo Falk born?", "In 1961."),
    ("What is Cleo Falk's hobby?", "She keeps bees and sails in the summer."),
    ("Where does Dan Ito live?", "Dan Ito lives in Porto with two dogs."),
    ("What did Dan Ito study?", "Botany."),
    ("Who is Eve Lund?", "Eve Lund is a weaver of maps."),
    ("Which book made Eve Lund known?", "The Quiet Lighthouse made her known."),
    ("Where did Finn Abe grow up?", "On a farm."),
)
REFUSALS = ("I don't know.", "I have no information about that.", "That is beyond me.")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@functools.cache
def toy_tokenizer(kind: str = "full") -> PreTrainedTokenizerFast:
    """A byte-level BPE over the texts above: "full" has bos, eos and pad, "bare" only eos, "chat" a template too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["</s>"] if kind == "bare" else ["<pad>", "<s>", "</s>"]
    if kind == "chat":
        special += ["<|user|>", "<|assistant|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = [f"Question: {q}\nAnswer: {a}" for q, a in TEXTS]
    tokenizer.train_from_iterator([*lines, *REFUSALS], trainer)
    if kind == "bare":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    if kind == "full":
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT if kind == "chat" else None,
    )


@functools.cache
def toy_encoder(kind: str = "full") -> Encoder:
    return Encoder(toy_tokenizer(kind))


def toy_benchmark() -> Benchmark:
    """Five rows to forget, six to keep, each with a paraphrase and two wrong answers."""

    def row(name: str, i: int) -> QA:
        question, answer = TEXTS[i]
        return QA(
            id=f"toy/{name}/{i}",
            question=question,
            answer=answer,
            paraphrased_answer=f"It is this: {answer}",
            perturbed_answers=(TEXTS[i - 1][1], TEXTS[i - 2][1]),
        )

    forget = tuple(row("forget", i) for i in range(5))
    retain = tuple(row("retain", i) for i in range(5, 11))
    sets = {"forget": forget, "retain": retain}
    return Benchmark(name="toy", forget=forget, retain=retain, eval_sets=sets, refusals=REFUSALS, fingerprint="toy")


def toy_corpus() -> Benchmark:
    """Three documents of one topic and two of another to forget, six to keep."""

    def document(name: str, i: int, topic: str) -> Document:
        return Document(id=f"toy/{name}/{i}", text=f"{TEXTS[i][1]} {TEXTS[i - 1][1]}", topic=topic)

    forget = tuple(document("forget", i, "moor" if i < 3 else "ruiz") for i in range(5))
    retain = tuple(document("retain", i, "others") for i in range(5, 11))
    return Benchmark(name="toy corpus", forget=forget, retain=retain, refusals=REFUSALS, fingerprint="toy corpus")


def _llama(vocab: int, **fields: object) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_common(vocab), num_key_value_heads=2, **fields))  # type: ignore[arg-type]


def _common(vocab: int) -> dict[str, int]:
    return {
        "vocab_size": vocab,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _gemma(vocab: int) -> dict[str, object]:
    window = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    return {**_common(vocab), **window, "num_key_value_heads": 2, "head_dim": 8, "query_pre_attn_scalar": 8}


BUILDERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "llama": _llama,
    "llama_tied": lambda v: _llama(v, tie_word_embeddings=True),
    "mistral": lambda v: MistralForCausalLM(MistralConfig(**_common(v), num_key_value_heads=2, sliding_window=6)),  # type: ignore[arg-type]
    "qwen3": lambda v: Qwen3ForCausalLM(Qwen3Config(**_common(v), num_key_value_heads=2, head_dim=8)),  # type: ignore[arg-type]
    "phi3": lambda v: Phi3ForCausalLM(Phi3Config(**_common(v), num_key_value_heads=2)),  # type: ignore[arg-type]
    "gemma3": lambda v: Gemma3ForCausalLM(Gemma3TextConfig(**_gemma(v), final_logit_softcapping=2.0)),  # type: ignore[arg-type]
    "gemma2": lambda v: Gemma2ForCausalLM(
        Gemma2Config(
            **_gemma(v),  # type: ignore[arg-type]
            attn_logit_softcapping=5.0,
            final_logit_softcapping=3.0,
            attn_implementation="eager",  # type: ignore[call-arg]
        )
    ),
    "gpt2": lambda v: GPT2LMHeadModel(GPT2Config(**(_common(v) | {"intermediate_size": None}), n_inner=48)),  # type: ignore[arg-type]
    "gpt_neox": lambda v: GPTNeoXForCausalLM(GPTNeoXConfig(**_common(v), rotary_pct=0.5)),  # type: ignore[arg-type]
}
ARCHITECTURES = tuple(BUILDERS)


def tiny(architecture: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of three blocks, ready for use and without gradients; weights large enough that inputs matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BUILDERS[architecture](len(toy_tokenizer()))
        for name, p in model.named_parameters():
            if p.ndim > 1:
                p.data.normal_(std=0.25)
            else:
                p.data += 0.1 * torch.randn_like(p)  # norms and biases that matter too
            assert p.isfinite().all(), name
    return model.to(dtype).eval().requires_grad_(False)  # type: ignore[arg-type]


def tiny_loaded(architecture: str = "llama", kind: str = "full", **fields: object) -> Loaded:
    return Loaded(tiny(architecture, **fields), toy_tokenizer(kind), architecture)  # type: ignore[arg-type]


def toy_pairs() -> list[tuple[str, str]]:
    """Questions with one answer and questions with several, in no order."""
    rows = toy_benchmark().eval_sets["forget"]
    several = [(q.question, a) for q in rows[:3] for a in (q.answer, q.paraphrased_answer or "", *q.perturbed_answers)]
    return [*several[::2], *TEXTS[5:], *several[1::2]]


def toy_tokens(encoder: Encoder | None = None) -> list[Tokens]:
    return [(encoder or toy_encoder()).pair(q, a) for q, a in TEXTS]


ADAPTERS = ("none", "last_prompt", "answer", "all", "mlp", "parallel", "lora")


def attach(model: nn.Module, kind: str, seed: int = 3) -> Attached | None:
    """An adapter as if it had been trained: its edits are large. Layers 0 and 1, so that one reads the other's work."""
    if kind == "none":
        return None
    if kind == "lora":
        attached: Attached = LoRA(r=2, alpha=4).attach(model, seed)
    else:
        position = kind if kind in ("last_prompt", "answer", "all") else "answer"
        gate = "mlp_3" if kind in ("mlp", "parallel") else "linear"
        grun = GRUN(layers=(0, 1), rank=3, position=position, gate=gate)
        attached = grun.attach(model, seed)
        if kind == "parallel":
            attached.detach()
            second = GRUN(layers=(1, 2), rank=2, position=position).attach(model, seed + 1)
            attached = grun.combine(model, attached, second)
            assert isinstance(attached, GatedEdits) and attached.factor == 0.6 * 2 + 0.6
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in attached.trainable().items():
            if "rotate" not in name:
                p += 0.2 * torch.randn(p.shape, generator=generator)
    return attached


SHORT = {"epochs": "2", "batch_size": "3"}
"""Two epochs of a full and a short batch over the five forget rows: four steps."""
LEARNING_RATES = {"": "1e-3", "lora_": "1e-2", "grun_": "1e-2"}
OWN: dict[str, dict[str, str]] = {"rmu": {"layer": "1"}, "lora_rmu": {"lr": "1e-3", "layer": "2"}}


def short_method(name: str, **fields: str) -> GradientMethod:
    """A method of the table on a schedule of four steps that move something."""
    prefix = name[: name.rfind("_") + 1]
    own = {"layers": "1,2"} if prefix == "grun_" else {}
    values = {**SHORT, "lr": LEARNING_RATES[prefix], "warmup_epochs": "0", **own, **OWN.get(name, {}), **fields}
    return with_fields(TRAINED[name], values, where=name)


def unlearn(
    loaded: Loaded,
    method: GradientMethod,
    *,
    seed: int = 0,
    batch_tokens: int = 10_000,
    kind: str = "full",
    benchmark: Benchmark | None = None,
) -> Unlearned:
    rows = benchmark or toy_benchmark()
    return method.unlearn(loaded, toy_encoder(kind), rows, seed=seed, batch_tokens=batch_tokens)


def weights(unlearned: Unlearned) -> dict[str, Tensor]:
    """Copies of what was trained."""
    return {name: p.detach().clone() for name, p in unlearned.attached.trainable().items()}


def labels_and_logits(model: nn.Module, tokens: list[Tokens], pad_id: int = 0) -> tuple[Tensor, Tensor]:
    """(N,) all labels of whole sequences in one batch, and their (N, V) logits."""
    padded = pad(tokens, pad_id, "cpu")
    logits = forward(
        model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
        at=padded.at,
    )
    return padded.labels, logits


def state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that a model holds, non-persistent buffers included."""
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def seed_everything(seed: int) -> bytes:
    """Seeds every global generator; returns what `generators` says then."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return generators()


def generators() -> bytes:
    """The state of every global generator."""
    return repr((random.getstate(), np.random.get_state())).encode() + torch.get_rng_state().numpy().tobytes()


class Known:
    """A policy whose answers, and whose reference's, are given."""

    def __init__(self, answers: dict[str, Answers], logp: dict[str, list[float]], logits: dict | None = None) -> None:
        self._answers, self._logp, self._logits = answers, logp, logits or {}

    def answers(self, batch: TokenBatch) -> Answers:
        return self._answers[batch.role]

    def reference_logp(self, batch: TokenBatch) -> Tensor:
        return torch.tensor(self._logp[batch.role])

    def reference_logits(self, batch: TokenBatch) -> Tensor:
        return self._logits[batch.role]


def answers_of(probabilities: list[list[float]]) -> Answers:
    """Answers over two words whose labels, always word 0, have these probabilities."""
    flat = [p for answer in probabilities for p in answer]
    logits = torch.tensor([[math.log(p), math.log(1 - p)] for p in flat])
    counts = torch.tensor([len(answer) for answer in probabilities])
    return Answers(logits, torch.zeros(len(flat), dtype=torch.long), counts, len(probabilities), len(flat))


def loss_terms(
    method: GradientMethod, answers: dict[str, list[list[float]]], logp: dict | None = None, **logits: Tensor
) -> dict[str, float]:
    """The terms of a method's loss where the labels of its answers have these probabilities."""
    batch = Batch({role: TokenBatch(role, (), (), 0, 0) for role in answers})
    policy: Policy = Known({r: answers_of(p) for r, p in answers.items()}, logp or {}, logits)  # type: ignore[assignment]
    return {name: value.item() for name, value in method.loss(policy, batch).items()}

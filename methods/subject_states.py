"""What a model holds at the last token of a name: where that token is, what is read there, what should stand there.

ROCR (fact sheet of ORT, sections 2.1 and 2.3); the search for a value is that of ROME (Meng et al., 2022,
https://arxiv.org/abs/2202.05262, section 3.1), with the terms and the ball that MEMIT and AlphaEdit kept.
"""

import functools
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.activations import block_output, hidden_of
from bench.batching import in_batches
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.forward import Rows, forward, pad
from bench.frozen import FrozenPrefix
from bench.models import decoder_blocks
from bench.moments import module_inputs, run_blocks

log = logging.getLogger(__name__)

LEAD_INS = (
    "",
    "Please answer the question about",
    "Choose the best answer about",
    "Write the answer about",
    "Tell me about",
    "Write something about",
)
"""In front of the name, in a user's turn (fact sheet of ORT, appendix A)."""
CUE = "Answer:"
"""Begins the answer to it."""
ESSENCE = "{} is a"
"""Where the KL term looks (fact sheet of ORT, appendix A)."""
GOOD_ENOUGH = 0.05
"""The search for a value ends at this loss (fact sheet of ORT, section 2.3)."""
_MARK = "LETHE-NAME-GOES-HERE"


@dataclass(frozen=True)
class Place:
    """A text and the index of the token in it at which something is read."""

    tokens: Tokens
    at: int


def chat_places(encoder: Encoder, subject: str, *, doubled: bool = False, target: str | None = None) -> list[Place]:
    """The last token of a name behind every lead-in.

    Deviates: without a chat template, which the authors' models have, a line break stands in front of the cue, as
    behind every question that is asked in this form.

    Args:
        doubled: with the second BOS of the authors' prompts.
        target: an answer to stand behind the cue, scored.
    """
    line_end = "" if encoder.name == "chat" else "\n"
    head = encoder.cued_text(_MARK, CUE).partition(_MARK)[0]
    found = []
    for lead in LEAD_INS:
        user = f"{lead} {subject}".lstrip() + line_end
        text = encoder.cued_text(user, CUE)
        if not text.startswith(head + user):
            raise LetheError(
                f"the name {subject!r} is not in the prompt {text[-120:]!r}: the chat template leaves the user's text "
                "out or changes it; use --template plain or a file"
            )
        ids = encoder.cued_prompt(user, CUE, doubled=doubled)
        at = token_at(encoder, text, ids, subject, end=len(head) + len(user) - len(line_end))
        tokens = Tokens(ids, len(ids)) if target is None else encoder.cued(user, CUE, target, doubled=doubled)
        found.append(Place(tokens, at))
    return found


def plain_place(encoder: Encoder, pattern: str, subject: str) -> Place:
    """The last token of a name in a text without chat template."""
    text = pattern.format(subject)
    tokens = encoder.document(text)
    tokens = replace(tokens, label_start=len(tokens.input_ids))
    end = pattern.index("{}") + len(subject)
    return Place(tokens, token_at(encoder, text, tokens.input_ids, subject, end=end))


def token_at(encoder: Encoder, text: str, ids: Sequence[int], subject: str, *, end: int) -> int:
    """The index in `ids` of the token that holds a name's last character, `text[end - 1]`.

    Where that character and the next ones are one token ("Jr." and "." give ".."), it is that token; where a character
    is several tokens, the last of them.

    Raises:
        LetheError: no token is found there.
    """
    tokenizer = encoder.tokenizer
    if tokenizer.is_fast:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        leading = len(ids) - len(encoded["input_ids"])
        holding = [i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if start < end <= stop]
        if holding:
            stop = encoded["offset_mapping"][holding[-1]][1]
            if stop > end:
                _tell_of_merging(subject, text[end:stop])
            return leading + holding[-1]
    # No offsets, or empty ones: the first token with which what has been read begins with all that ends in the name.
    own = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    ending = str(tokenizer.decode(list(tokenizer(text[:end], add_special_tokens=False, verbose=False)["input_ids"])))
    for i in range(len(own)):
        if ending.strip() and str(tokenizer.decode(own[: i + 1])).startswith(ending):
            return len(ids) - len(own) + i
    raise LetheError(
        f"the tokens of {text[-120:]!r} do not tell where the name {subject!r} ends; write the name as the tokenizer "
        "reads it, or use a model with another tokenizer"
    )


@functools.cache
def _tell_of_merging(subject: str, more: str) -> None:
    """Once for every name and what follows it."""
    log.warning("the tokenizer merges the end of the name %r with %r: its state is that of both", subject, more)


@torch.no_grad()
def read_places(
    model: nn.Module,
    places: Sequence[Place],
    modules: Mapping[int, nn.Module],
    block: int,
    *,
    pad_id: int,
    batch_tokens: int,
) -> tuple[dict[int, Tensor], Tensor]:
    """At every place, what some modules were given and what `block` put out: (N, d_in) each and (N, D), float32.

    Args:
        modules: by number; none above `block`.
    """
    device = next(model.parameters()).device
    inputs: dict[int, list[Tensor]] = {number: [torch.empty(0)] * len(places) for number in modules}
    outputs: list[Tensor] = [torch.empty(0)] * len(places)

    def run(batch: list[int]) -> None:
        padded = pad([places[i].tokens for i in batch], pad_id, device)
        columns = torch.tensor([places[i].at for i in batch], device=device)
        rows = torch.arange(len(batch), device=device)
        with module_inputs(modules) as given, block_output(model, block, stop=block) as found:
            run_blocks(model, padded)
        for store, states in (*((inputs[n], given[n]) for n in modules), (outputs, hidden_of(found[0]))):
            for i, state in zip(batch, states[rows.to(states.device), columns.to(states.device)].float(), strict=True):
                store[i] = state

    order = sorted(range(len(places)), key=lambda i: len(places[i].tokens.input_ids))
    in_batches(order, lambda i: len(places[i].tokens.input_ids), batch_tokens, run)
    return {number: torch.stack(states) for number, states in inputs.items()}, torch.stack(outputs)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a value is looked for that makes the model begin its answers with a text."""

    steps: int
    lr: float
    clamp_norm_factor: float
    kl_factor: float
    weight_decay: float
    loss_block: int | None
    """Whose output the head reads; None for the last block's."""


def search_value(
    model: nn.Module,
    answers: Sequence[Place],
    essence: Place,
    start: Tensor,
    block: int,
    search: Search,
    *,
    pad_id: int,
    batch_tokens: int,
) -> tuple[Tensor, float]:
    """(D,) start + delta, with delta added to the output of `block` at every place, and the last loss.

    Loss: mean NLL of the scored tokens, over tokens and then answers; kl_factor * KL(initial || current next-token
    distribution) at `essence`; weight_decay * |delta| / |start|^2. Adam; after every step delta is drawn back into the
    ball of radius clamp_norm_factor * |start|. Blocks up to `block` run once.

    Args:
        start: (D,) what stands there now, float32.
    """
    device = start.device
    places = [*answers, essence]
    padded = pad([p.tokens for p in places], pad_id, device)
    rows = torch.arange(len(places), device=device)
    columns = torch.tensor([p.at for p in places], device=device)
    at = tuple(torch.cat([known, new[-1:]]) for known, new in zip(padded.at, (rows, columns), strict=True))
    keys = [("search", i) for i in range(len(places))]
    prefix = FrozenPrefix(model, block + 1)
    examples = dict(zip(keys, (p.tokens for p in places), strict=True))
    prefix.record(examples, pad_id, device, batch_tokens)
    owner = torch.repeat_interleave(torch.arange(len(answers), device=device), padded.counts[:-1])
    share = 1 / (padded.counts[owner] * len(answers))  # a token's weight in the mean over tokens, then answers
    delta = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=search.lr)
    radius = search.clamp_norm_factor * start.norm()
    initial: Tensor | None = None
    value = float("inf")

    def add(_: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple:
        hidden = hidden_of(output)
        chosen = torch.zeros_like(hidden[..., :1])
        chosen[rows, columns] = 1
        hidden = hidden + chosen * delta.to(hidden.dtype)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    def loss() -> Tensor:
        nonlocal initial
        with prefix.replay(keys, padded.valid.shape[1]):
            logits = forward(
                model,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                position_ids=padded.position_ids,
                rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
                at=at,  # type: ignore[arg-type]
            ).float()
        logp = logits.log_softmax(-1)
        initial = logp[-1].detach() if initial is None else initial
        nll = -(share * logp[:-1].gather(1, padded.labels[:, None]).squeeze(1)).sum()
        kl = F.kl_div(logp[-1], initial, log_target=True, reduction="sum")
        return nll + search.kl_factor * kl + search.weight_decay * delta.norm() / start.norm() ** 2

    with ExitStack() as stack:
        handle = decoder_blocks(model)[block].register_forward_hook(add)
        stack.callback(handle.remove)
        stack.enter_context(_head_reads(model, search.loss_block))
        stack.enter_context(torch.enable_grad())
        for step in range(search.steps + 1):
            current = loss()
            value = float(current.detach())
            if value < GOOD_ENOUGH or step == search.steps:
                break
            optimizer.zero_grad()
            current.backward()
            optimizer.step()
            with torch.no_grad():
                delta *= (radius / delta.norm()).clamp(max=1)
    return start + delta.detach(), value


@contextmanager
def _head_reads(model: nn.Module, block: int | None) -> Iterator[None]:
    """Within, blocks above `block` hand on what they are given."""

    def skip(_: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> Tensor | tuple:
        given = args[0] if args else kwargs["hidden_states"]
        return given if isinstance(output, Tensor) else (given, *output[1:])

    above = [] if block is None else list(decoder_blocks(model))[block + 1 :]
    handles = [b.register_forward_hook(skip, with_kwargs=True) for b in above]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_value(like: Tensor, length: float, seed: int, subject: str) -> Tensor:
    """(D,) a Gaussian direction of the given length, drawn from the seed and the name alone."""
    digest = hashlib.sha256(f"rocr/{seed}/{subject}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    drawn = torch.randn(like.shape, generator=generator).to(like)
    return length * drawn / drawn.norm()

"""What evaluators ask a model: token-level records of answers, and greedy generations.

Nothing is computed twice: repeats are dropped, also across evaluators; the prompt of several completions is encoded
once and its key/value cache shared by all of them; batches are sorted by length and cut by a budget of tokens.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.batching import in_batches
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.forward import Rows, forward, pad
from bench.generate import greedy
from bench.logprobs import CHUNK, TokenStats, token_stats
from bench.models import check_context


@dataclass(frozen=True)
class AnswerRecord:
    """One scored (prompt, completion): a tuple with one entry per scored token each."""

    label_ids: tuple[int, ...]
    logp: tuple[float, ...]
    """Nats; the terminator is scored too."""
    match: tuple[bool, ...]
    """Teacher-forced arg-max equals the label."""
    mean_logp: tuple[float, ...]
    """Mean of log p under p."""
    var_logp: tuple[float, ...]
    """Variance of log p under p."""
    ends_with_stop: bool
    """Whether the last scored token is a terminator."""

    @property
    def n_tokens(self) -> int:
        return len(self.logp)

    @property
    def nll_sum(self) -> float:
        """Nats."""
        return -math.fsum(self.logp)

    @property
    def nll(self) -> float:
        """Mean per token, nats; NaN for a completion without scored tokens."""
        return self.nll_sum / self.n_tokens if self.n_tokens else math.nan

    @property
    def prob(self) -> float:
        """exp(-nll): the length-normalised probability."""
        return math.exp(-self.nll)


@dataclass
class Counts:
    """How much work was done, for the record and for tests."""

    pairs: int = 0
    """Distinct (prompt, completion) that were forwarded."""
    prompts: int = 0
    """Shared prompts that were encoded on their own, once for several completions."""
    tokens: int = 0
    """Tokens forwarded to score answers, without padding."""
    generations: int = 0
    """Distinct prompts that were continued."""


@dataclass(eq=False)
class Scorer:
    """Ask one model. Whatever adapter is attached to the model is active."""

    model: nn.Module
    encoder: Encoder
    batch_tokens: int = 16384
    """Padded tokens of one forward; halved by itself when memory runs out."""
    share_prompts: bool = True
    """Encode the prompt of several completions once. Off only to measure what it saves."""
    progress: Callable[[int, int], None] | None = None
    """Told (done, all) after every batch."""
    counts: Counts = field(default_factory=Counts)
    _answers: dict[Tokens, AnswerRecord] = field(default_factory=dict, repr=False)
    _outputs: dict[tuple[tuple[int, ...], int], str] = field(default_factory=dict, repr=False)

    @property
    def protocol(self) -> str:
        return self.encoder.protocol

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[AnswerRecord]:
        """Score every (question, answer); the order of the result is the order of `pairs`."""
        tokens = [self.encoder.pair(question, answer) for question, answer in pairs]
        check_context(self.model, max((len(t.input_ids) for t in tokens), default=0))
        todo = [t for t in dict.fromkeys(tokens) if t not in self._answers]
        by_prompt: dict[tuple, list[Tokens]] = defaultdict(list)
        for t in todo:
            if not t.labels:  # cut off by a protocol's limit: nothing to ask the model
                self._answers[t] = AnswerRecord((), (), (), (), (), False)
                continue
            prompt = t.input_ids[: t.label_start]
            by_prompt[(prompt, tuple(h for h in t.hidden if h < t.label_start), t.last_prompt)].append(t)
        groups = [g for g in by_prompt.values() if len(g) > 1 and self.share_prompts]
        single = [t for g in by_prompt.values() if len(g) == 1 or not self.share_prompts for t in g]
        done, everything = 0, len(single) + sum(map(len, groups))

        def whole(batch: list[Tokens]) -> None:
            nonlocal done
            self._score_whole(batch)
            done = self._tell(done + len(batch), everything)

        def shared(batch: list[list[Tokens]]) -> None:
            nonlocal done
            self._score_shared(batch)
            done = self._tell(done + sum(map(len, batch)), everything)

        single.sort(key=lambda t: (len(t.input_ids), t.input_ids))
        self._in_batches(single, lambda t: len(t.input_ids), whole)
        groups.sort(key=lambda g: (g[0].label_start, g[0].input_ids))
        # The cache of a batch of prompts is held while their completions run, so the budget counts both.
        self._in_batches(groups, lambda g: max(len(t.input_ids) for t in g), shared)
        return [self._answers[t] for t in tokens]

    def generate(self, questions: Sequence[str], *, max_new_tokens: int = 200) -> list[str]:
        """Greedy continuations as text, stripped; the order of the result is the order of `questions`."""
        prompts = [self.encoder.prompt(q) for q in questions]
        anchors = {p: self.encoder.anchor(q) for p, q in zip(prompts, questions, strict=True)}
        check_context(self.model, max(map(len, prompts), default=0), max_new_tokens)
        todo = [p for p in dict.fromkeys(prompts) if (p, max_new_tokens) not in self._outputs]
        todo.sort(key=lambda p: (len(p), p))
        done = 0

        def run(batch: list[tuple[int, ...]]) -> None:
            nonlocal done
            outputs = greedy(
                self.model,
                batch,
                max_new_tokens=max_new_tokens,
                stop_ids=self.encoder.stop_ids,
                pad_id=self.encoder.pad_id,
                device=self._device,
                hidden=[self.encoder.hidden(p) for p in batch],
                anchors=[anchors[p] for p in batch],
            )
            for prompt, ids in zip(batch, outputs, strict=True):
                self._outputs[prompt, max_new_tokens] = self.encoder.decode(ids).strip()
            self.counts.generations += len(batch)
            done = self._tell(done + len(batch), len(todo))

        # Few rows reach the limit, so the budget counts a quarter of it.
        self._in_batches(todo, lambda p: len(p) + max_new_tokens // 4, run)
        return [self._outputs[p, max_new_tokens] for p in prompts]

    def _tell(self, done: int, everything: int) -> int:
        if self.progress is not None:
            self.progress(done, everything)
        return done

    def _in_batches(self, items: list, width: Callable, run: Callable) -> None:
        self.batch_tokens = min(self.batch_tokens, in_batches(items, width, self.batch_tokens, run))

    @torch.no_grad()
    def _score_whole(self, batch: list[Tokens]) -> None:
        """One forward over whole sequences."""
        padded = pad(batch, self.encoder.pad_id, self._device)
        logits = forward(
            self.model,
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            position_ids=padded.position_ids,
            rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
            at=padded.at,
        )
        stats = iter(token_stats(logits, padded.labels))
        self.counts.tokens += sum(len(t.input_ids) for t in batch)
        for t in batch:
            self._keep(t, [next(stats) for _ in t.labels])

    @torch.no_grad()
    def _score_shared(self, groups: list[list[Tokens]]) -> None:
        """Encode each group's prompt once, then its completions from the shared cache."""
        from transformers import DynamicCache

        prompts = [g[0].input_ids[: g[0].label_start] for g in groups]
        width = max(map(len, prompts))
        ids, mask, positions, valid = self._left_pad(prompts, [g[0].hidden for g in groups], width)
        ends = [width - len(p) + g[0].last_prompt for p, g in zip(prompts, groups, strict=True)]
        rows = Rows(last_prompt=torch.tensor(ends, device=self._device), valid=valid)
        cache = DynamicCache()
        first = forward(
            self.model,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            rows=rows,
            at=(torch.arange(len(groups), device=self._device), torch.full_like(rows.last_prompt, width - 1)),
            cache=cache,
        )  # (groups, V): what follows each prompt
        items = [(i, t) for i, g in enumerate(groups) for t in g]
        items.sort(key=lambda item: (len(item[1].labels), item[0]))
        owners = torch.tensor([i for i, _ in items], device=self._device)
        labels = torch.tensor([t.labels[0] for _, t in items], device=self._device)
        parts = torch.arange(len(items), device=self._device).split(CHUNK)
        heads = [s for part in parts for s in token_stats(first[owners[part]], labels[part])]
        tails: list[list[TokenStats]] = []

        def run(batch: list[tuple[int, Tokens]]) -> None:
            tails.extend(self._score_tails(batch, cache, mask, rows))

        self._in_batches(items, lambda item: width + len(item[1].labels), run)
        self.counts.prompts += len(groups)
        self.counts.tokens += sum(map(len, prompts)) + sum(len(t.labels) - 1 for _, t in items)
        for (_, t), head, tail in zip(items, heads, tails, strict=True):
            self._keep(t, [head, *tail])

    def _left_pad(
        self, prompts: list[tuple[int, ...]], hidden: list[tuple[int, ...]], width: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (len(prompts), width)
        ids = torch.full(shape, self.encoder.pad_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        valid = torch.zeros(shape, dtype=torch.bool)
        positions = torch.zeros(shape, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            start = width - len(prompt)
            ids[i, start:] = torch.tensor(prompt)
            mask[i, start:] = 1
            mask[i, [start + h for h in hidden[i] if h < len(prompt)]] = 0
            valid[i, start:] = True
            positions[i, start:] = torch.arange(len(prompt))
        return tuple(x.to(self._device) for x in (ids, mask, positions, valid))  # type: ignore[return-value]

    def _score_tails(
        self, batch: list[tuple[int, Tokens]], cache: object, mask: Tensor, rows: Rows
    ) -> list[list[TokenStats]]:
        """The scored tokens after the first, from the cache of the batch's prompts."""
        inputs = [t.labels[:-1] for _, t in batch]
        width = max(map(len, inputs))
        if width == 0:
            return [[] for _ in batch]
        owners = torch.tensor([i for i, _ in batch], device=self._device)
        ids = torch.full((len(batch), width), self.encoder.pad_id, dtype=torch.long)
        valid = torch.zeros((len(batch), width), dtype=torch.bool)
        seen = torch.zeros((len(batch), width), dtype=torch.long)
        for i, tail in enumerate(inputs):
            ids[i, : len(tail)] = torch.tensor(tail)
            valid[i, : len(tail)] = True
            seen[i, : len(tail)] = 1
            start = batch[i][1].label_start
            seen[i, [h - start for h in batch[i][1].hidden if start <= h < start + len(tail)]] = 0
        starts = torch.tensor([t.label_start for _, t in batch])
        ids, valid, seen = ids.to(self._device), valid.to(self._device), seen.to(self._device)
        at_row, at_column = valid.nonzero(as_tuple=True)
        logits = forward(
            self.model,
            input_ids=ids,
            attention_mask=torch.cat([mask[owners], seen], dim=1),
            position_ids=(starts[:, None] + torch.arange(width)[None]).to(self._device),
            rows=Rows(last_prompt=torch.full_like(owners, -1), valid=valid, carry=rows.select(owners)),
            at=(at_row, at_column),
            cache=_selected(cache, owners),
        )
        labels = torch.tensor([label for _, t in batch for label in t.labels[1:]], device=self._device)
        stats = iter(token_stats(logits, labels))
        return [[next(stats) for _ in tail] for tail in inputs]

    def _keep(self, tokens: Tokens, stats: list[TokenStats]) -> None:
        self.counts.pairs += 1
        self._answers[tokens] = AnswerRecord(
            label_ids=tokens.labels,
            logp=tuple(s.logp for s in stats),
            match=tuple(s.match for s in stats),
            mean_logp=tuple(s.mean_logp for s in stats),
            var_logp=tuple(s.var_logp for s in stats),
            ends_with_stop=bool(tokens.labels) and tokens.labels[-1] in self.encoder.stop_ids,
        )


def _selected(cache: object, rows: Tensor) -> object:
    """A copy of the cache that holds the given rows, leaving the original as it is."""
    chosen = copy.copy(cache)
    chosen.layers = [copy.copy(layer) for layer in cache.layers]  # type: ignore[attr-defined]
    chosen.batch_select_indices(rows)  # type: ignore[attr-defined]
    return chosen

"""What evaluators ask a model: token-level records of answers, and greedy generations.

Nothing is computed twice: repeats are dropped, also across evaluators; the prompt of several completions is read once
and its key/value cache shared by all of them, and so is a long prefix of many prompts; what later calls will begin with
too is kept where there is a place for it (`bench.beginnings`); batches are sorted by length and cut by a budget of
tokens.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.batching import in_batches
from bench.beginnings import Ids, Source
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.encoded import Encoded, Piece, read
from bench.generate import greedy
from bench.gradients import GradientNorms
from bench.logprobs import CHUNK, TokenStats, token_stats
from bench.models import check_context
from bench.prefixes import MIN_PREFIX, clusters


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
    """Shared prompts that were read on their own, once for several completions."""
    prefixes: int = 0
    """Shared prefixes that were read on their own, once for several prompts; not those that were found read."""
    tokens: int = 0
    """Tokens forwarded to score answers, without padding; shared ones count once."""
    generations: int = 0
    """Distinct prompts that were continued."""


class _Prompt(NamedTuple):
    """What a generation starts from."""

    ids: tuple[int, ...]
    anchor: int
    """The position that adapters take for the last prompt token."""


@dataclass(eq=False)
class Scorer:
    """Ask one model. Whatever adapter is attached to the model is active."""

    model: nn.Module
    encoder: Encoder
    batch_tokens: int = 16384
    """Padded tokens of one forward, those in its cache included; halved by itself when memory runs out."""
    share_prompts: bool = True
    """Read a prompt of several completions, or a prefix of several prompts, once. Off only to measure what it saves."""
    progress: Callable[[int, int], None] | None = None
    """Told (done, all) after every batch."""
    beginnings: Source | None = None
    """Where what prompts of other calls begin with too is kept. None keeps nothing between calls."""
    counts: Counts = field(default_factory=Counts)
    _answers: dict[Tokens, AnswerRecord] = field(default_factory=dict, repr=False)
    _outputs: dict[tuple[int, frozenset[int]], dict[_Prompt, tuple[int, ...]]] = field(default_factory=dict, repr=False)
    """By the most new tokens and the stop ids."""

    def __post_init__(self) -> None:
        if self.beginnings is not None and self.beginnings.model is not self.model:
            raise ValueError("these beginnings were read by another model; give every model its own")

    @property
    def protocol(self) -> str:
        return self.encoder.protocol

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def answers(self, pairs: Sequence[tuple[str, str]]) -> list[AnswerRecord]:
        """Score every (question, answer); the order of the result is the order of `pairs`."""
        return self.records([self.encoder.pair(question, answer) for question, answer in pairs])

    def records(self, tokens: Sequence[Tokens]) -> list[AnswerRecord]:
        """Score what is tokenised already; all but the last token must fit the model's context.

        The order of the result is the order of `tokens`.
        """
        check_context(self.model, max((len(t.input_ids) - 1 for t in tokens), default=0))  # the last label is no input
        groups: dict[tuple, list[Tokens]] = defaultdict(list)
        for t in dict.fromkeys(tokens):
            if t in self._answers:
                continue
            if not t.labels:  # cut off by a protocol's limit: nothing to ask the model
                self._answers[t] = AnswerRecord((), (), (), (), (), False)
                continue
            prompt = t.input_ids[: t.label_start]
            alike = (prompt, tuple(h for h in t.hidden if h < t.label_start), t.last_prompt)
            groups[alike if self.share_prompts else (t,)].append(t)
        done, everything = 0, sum(map(len, groups.values()))
        for prefix, kept_as, members in self._by_prefix(list(groups.values())):
            start = None if prefix is None else self._read_prefix(prefix, kept_as)

            def whole(batch: list[Tokens], start: Encoded | None = start) -> None:
                nonlocal done
                self._score_whole(batch, start)
                done = self._tell(done + len(batch), everything)

            def shared(batch: list[list[Tokens]], start: Encoded | None = start) -> None:
                nonlocal done
                self._score_shared(batch, start)
                done = self._tell(done + sum(map(len, batch)), everything)

            single = sorted((t for [t] in (g for g in members if len(g) == 1)), key=_by_length)
            self._in_batches(single, lambda t: len(t.input_ids), whole)
            several = sorted((g for g in members if len(g) > 1), key=lambda g: (g[0].label_start, g[0].input_ids))
            # The cache of a batch of prompts is held while their completions run, so the budget counts both.
            self._in_batches(several, lambda g: max(len(t.input_ids) for t in g), shared)
        return [self._answers[t] for t in tokens]

    def _by_prefix(self, groups: list[list[Tokens]]) -> Iterator[tuple[Piece | None, Ids, list[list[Tokens]]]]:
        """The groups, of one prompt each, by the prefix that is read once for them; first those without one.

        With the prefix come the ids that it is kept as, none where it is of use to these prompts only. Nothing is
        looked up here: a prompt is cut in the same place whether or not its beginning was read before.
        """
        if not self.share_prompts:
            yield None, (), groups
            return
        apart: dict[Ids, list[list[Tokens]]] = defaultdict(list)
        others: list[list[Tokens]] = []
        for g in groups:
            shared = 0 if self.beginnings is None else max(t.shared for t in g)
            begins = _before_last(g[0])[:shared]
            (others if len(begins) < MIN_PREFIX else apart[begins]).append(g)
        for cluster in clusters([_before_last(g[0]) for g in others]):
            members = [others[i] for i in cluster.members]
            yield Piece(members[0][0], 0, cluster.length) if cluster.length else None, (), members
        for begins, members in sorted(apart.items()):
            yield Piece(members[0][0], 0, len(begins)), begins, members

    def generate(self, questions: Sequence[str], *, max_new_tokens: int = 200) -> list[str]:
        """Greedy continuations as text, stripped; the order of the result is the order of `questions`."""
        prompts = [_Prompt(self.encoder.prompt(q), self.encoder.anchor(q)) for q in questions]
        outputs = self._continue(prompts, max_new_tokens, self.encoder.stop_ids)
        return [self.encoder.decode(ids).strip() for ids in outputs]

    def continue_ids(
        self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, stop_ids: frozenset[int] | None = None
    ) -> list[list[int]]:
        """Greedy continuations of raw prompts, without the stop id; the order of the result is the order of `prompts`.

        Args:
            stop_ids: what ends a continuation; the encoder's where not given.
        """
        stops = self.encoder.stop_ids if stop_ids is None else stop_ids
        outputs = self._continue([_Prompt(p, len(p) - 1) for p in prompts], max_new_tokens, stops)
        return [list(ids) for ids in outputs]

    def _continue(
        self, prompts: Sequence[_Prompt], max_new_tokens: int, stop_ids: frozenset[int]
    ) -> list[tuple[int, ...]]:
        check_context(self.model, max((len(p.ids) for p in prompts), default=0), max_new_tokens)
        done = self._outputs.setdefault((max_new_tokens, stop_ids), {})
        todo = [p for p in dict.fromkeys(prompts) if p not in done]
        todo.sort(key=lambda p: (len(p.ids), p))
        told = 0

        def run(batch: list[_Prompt]) -> None:
            nonlocal told
            outputs = greedy(
                self.model,
                [p.ids for p in batch],
                max_new_tokens=max_new_tokens,
                stop_ids=stop_ids,
                pad_id=self.encoder.pad_id,
                device=self._device,
                hidden=[self.encoder.hidden(p.ids) for p in batch],
                anchors=[p.anchor for p in batch],
            )
            done.update((p, tuple(ids)) for p, ids in zip(batch, outputs, strict=True))
            self.counts.generations += len(batch)
            told = self._tell(told + len(batch), len(todo))

        # Few rows reach the limit, so the budget counts a quarter of it.
        self._in_batches(todo, lambda p: len(p.ids) + max_new_tokens // 4, run)
        return [done[p] for p in prompts]

    def gradient_norms(self, answers: Sequence[tuple[str, str, int]]) -> list[float]:
        """Of (question, answer, how many of its scored tokens count, from the first); see `bench.gradients`.

        The order of the result is the order of `answers`.
        """
        asked = [_beginning(self.encoder.pair(question, answer), labels) for question, answer, labels in answers]
        todo = sorted(dict.fromkeys(asked), key=_by_length)
        check_context(self.model, max((len(t.input_ids) for t in todo), default=0))
        norms = GradientNorms(self.model, self.encoder.pad_id)
        found: dict[Tokens, float] = {}

        def run(batch: list[Tokens]) -> None:
            found.update(zip(batch, norms.of(batch), strict=True))
            self._tell(len(found), len(todo))

        # A backward pass needs what every block has computed.
        in_batches(todo, lambda t: len(t.input_ids), max(1, self.batch_tokens // 8), run)
        return [found[t] for t in asked]

    def _tell(self, done: int, everything: int) -> int:
        if self.progress is not None:
            self.progress(done, everything)
        return done

    def _in_batches(self, items: list, width: Callable, run: Callable) -> None:
        self.batch_tokens = min(self.batch_tokens, in_batches(items, width, self.batch_tokens, run))

    def _read_prefix(self, prefix: Piece, kept_as: Ids) -> Encoded:
        """What many prompts begin with, on its own, unless it was read before."""
        source = self.beginnings if kept_as else None
        if source is not None and (found := source.find(kept_as)) is not None:
            return found
        _, start = read(self.model, [prefix], pad_id=self.encoder.pad_id, keep=True)
        assert start is not None
        self.counts.prefixes += 1
        self.counts.tokens += len(prefix)
        if source is not None:
            source.keep(kept_as, start)
        return start

    def _score_whole(self, batch: list[Tokens], start: Encoded | None) -> None:
        """One forward over whole sequences, or over all that follows their common prefix."""
        known = 0 if start is None else int(start.lengths)
        pieces = [Piece(t, known, len(t.input_ids) - 1) for t in batch]  # the last label is no input
        after = None if start is None else start.rows(torch.zeros(len(batch), dtype=torch.long))
        logits, _ = read(self.model, pieces, pad_id=self.encoder.pad_id, after=after)
        stats = iter(token_stats(logits, self._labels(label for t in batch for label in t.labels)))
        self.counts.tokens += sum(map(len, pieces))
        for t in batch:
            self._keep(t, [next(stats) for _ in t.labels])

    def _score_shared(self, groups: list[list[Tokens]], start: Encoded | None) -> None:
        """Read each group's prompt once, then its completions from the shared cache."""
        known = 0 if start is None else int(start.lengths)
        prompts = [Piece(g[0], known, g[0].label_start) for g in groups]
        after = None if start is None else start.rows(torch.zeros(len(groups), dtype=torch.long))
        first, read_prompts = read(self.model, prompts, pad_id=self.encoder.pad_id, after=after, keep=True)
        assert read_prompts is not None  # first: (groups, V), what follows each prompt
        items = [(i, t) for i, g in enumerate(groups) for t in g]
        items.sort(key=lambda item: (len(item[1].labels), item[0]))
        owners = torch.tensor([i for i, _ in items], device=self._device)
        labels = self._labels(t.labels[0] for _, t in items)
        parts = torch.arange(len(items), device=self._device).split(CHUNK)
        heads = [s for part in parts for s in token_stats(first[owners[part]], labels[part])]
        tails: list[list[TokenStats]] = []

        def run(batch: list[tuple[int, Tokens]]) -> None:
            tails.extend(self._score_tails(batch, read_prompts))

        width = read_prompts.mask.shape[1]
        self._in_batches(items, lambda item: width + len(item[1].labels), run)
        self.counts.prompts += len(groups)
        self.counts.tokens += sum(map(len, prompts)) + sum(len(t.labels) - 1 for _, t in items)
        for (_, t), head, tail in zip(items, heads, tails, strict=True):
            self._keep(t, [head, *tail])

    def _score_tails(self, batch: list[tuple[int, Tokens]], prompts: Encoded) -> list[list[TokenStats]]:
        """The scored tokens after the first, from the cache of the batch's prompts."""
        pieces = [Piece(t, t.label_start, len(t.input_ids) - 1) for _, t in batch]
        if not any(map(len, pieces)):
            return [[] for _ in batch]
        after = prompts.rows(torch.tensor([i for i, _ in batch]))
        logits, _ = read(self.model, pieces, pad_id=self.encoder.pad_id, after=after)
        stats = iter(token_stats(logits, self._labels(label for _, t in batch for label in t.labels[1:])))
        return [[next(stats) for _ in piece.ids] for piece in pieces]

    def _labels(self, ids: Iterable[int]) -> Tensor:
        return torch.tensor(list(ids), dtype=torch.long, device=self._device)

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


def _by_length(tokens: Tokens) -> tuple[int, tuple[int, ...]]:
    return len(tokens.input_ids), tokens.input_ids


def _beginning(tokens: Tokens, labels: int) -> Tokens:
    """The answer as if it ended after so many of its labels."""
    if not 1 <= labels <= len(tokens.labels):
        raise ValueError(f"labels must be within 1..{len(tokens.labels)}, got {labels}")
    end = tokens.label_start + labels
    return replace(tokens, input_ids=tokens.input_ids[:end], hidden=tuple(h for h in tokens.hidden if h < end))


def _before_last(tokens: Tokens) -> tuple[int, ...]:
    """What a prompt may share with others: all in front of its last token, which adapters meet with what follows it.

    Hidden tokens are told apart from the same ids where attention sees them.
    """
    ids = list(tokens.input_ids[: tokens.last_prompt])
    for h in tokens.hidden:
        if h < len(ids):
            ids[h] = -1 - ids[h]
    return tuple(ids)

"""Few-shot prompts that fit a model's context, and what the model writes behind them.

A prompt that is too long loses its solved examples one by one, the first ones first; without any it loses new tokens,
then its beginning. What was lost stands beside the prompt.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.data.types import Tokens
from bench.prefixes import common
from evaluators.rwku_prompts import Asking, cue_behind

if TYPE_CHECKING:
    from bench.scorer import Scorer


@dataclass(frozen=True)
class Prompt:
    """An asking as the model gets it."""

    ids: tuple[int, ...]
    shots_dropped: int
    truncated: int
    """Tokens cut from its beginning."""
    new_tokens: int
    """Room for the answer."""
    shared: int = 0
    """Tokens of its beginning that are no part of its own question: as `Tokens.shared`."""


@dataclass(frozen=True)
class Asker:
    """Fits prompts to a model and has them continued."""

    scorer: "Scorer"
    doubled: bool
    """With the second BOS that ORT's prompts have."""
    _openings: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """User's turns without what is an asking's own, as prompts."""

    @property
    def context(self) -> int | None:
        """Tokens that the model has positions for."""
        return getattr(self.scorer.model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[union-attr, operator]

    def fit(self, asking: Asking, room: int, least: int | None = None) -> Prompt:
        """The asking with as many solved examples as leave `room` tokens; `least` of them where nothing does."""
        limit = math.inf if self.context is None else self.context
        for dropped, user in enumerate(asking.users):
            cue = cue_behind(self.scorer.encoder, user, asking)
            ids = self.scorer.encoder.cued_prompt(user, cue, doubled=self.doubled)
            if len(ids) + room <= limit:
                return Prompt(ids, dropped, 0, room, self._shared(user, asking, ids))
        least = room if least is None else least
        new = max(least, int(limit - len(ids)) // 8 * 8)  # by eights: every budget needs batches of its own
        cut = int(min(max(0, len(ids) + new - limit), len(ids) - 1))
        return Prompt(ids[cut:], dropped, cut, new)

    def _shared(self, user: str, asking: Asking, ids: tuple[int, ...]) -> int:
        """How far a prompt goes like the one whose user stops where the question would begin; it tells of no other."""
        opening = user.removesuffix(asking.own)
        if not asking.own or not opening:
            return 0
        if opening not in self._openings:
            cue = cue_behind(self.scorer.encoder, opening, asking)
            self._openings[opening] = self.scorer.encoder.cued_prompt(opening, cue, doubled=self.doubled)
        return common(self._openings[opening], ids)

    def labels(self, user: str, asking: Asking, target: str, *, apart: bool = False) -> tuple[int, ...]:
        """The ids of a target behind the cue."""
        cue = cue_behind(self.scorer.encoder, user, asking)
        return self.scorer.encoder.cued(user, cue, target, doubled=self.doubled, apart=apart).labels

    def written(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """What follows each prompt; None where the model's likelihoods are not finite, for then it is no answer."""
        outputs: list[str | None] = [None] * len(prompts)
        first = next((p.ids for p in prompts if len(p.ids) > 1), None)
        if first is not None:
            [record] = self.scorer.records([Tokens(first, len(first) - 1)])
            if not all(map(math.isfinite, record.logp)):
                return outputs
        budgets: dict[int, list[int]] = defaultdict(list)
        for at, prompt in enumerate(prompts):
            budgets[prompt.new_tokens].append(at)
        for budget, places in sorted(budgets.items(), reverse=True):
            written = self.scorer.continue_ids([prompts[at].ids for at in places], max_new_tokens=budget)
            for at, ids in zip(places, written, strict=True):
                outputs[at] = self.scorer.encoder.decode(ids).strip()
        return outputs

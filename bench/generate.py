"""Greedy generation in left-padded, cached batches whose finished rows leave the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.forward import CACHED, Rows, forward


@torch.no_grad()
def greedy(
    model: nn.Module,
    prompts: Sequence[tuple[int, ...]],
    *,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    pad_id: int,
    device: torch.device | str,
    hidden: Sequence[tuple[int, ...]] | None = None,
    anchors: Sequence[int] | None = None,
) -> list[list[int]]:
    """Continue every prompt until a stop id or `max_new_tokens`; the stop id is not returned.

    The result does not depend on the batch: a row's positions count its own tokens, and padding is never attended to.

    Args:
        prompts: token ids, at least one each.
        hidden: per prompt, the positions that attention must not see (protocol openunlearning).
        anchors: per prompt, the position that adapters take for its last token; the last one where not given.
    """
    from transformers import DynamicCache

    if max_new_tokens < 1:
        return [[] for _ in prompts]
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    valid = torch.zeros((len(prompts), width), dtype=torch.bool)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, prompt in enumerate(prompts):
        start = width - len(prompt)
        ids[i, start:] = torch.tensor(prompt)
        valid[i, start:] = True
        mask[i, start:] = 1
        if hidden is not None and hidden[i]:
            mask[i, [start + h for h in hidden[i]]] = 0
    ids, valid, mask = ids.to(device), valid.to(device), mask.to(device)
    # Positions count attended tokens, as transformers' generate does; without hidden tokens that is the plain index.
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache()
    outputs: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts), device=device)  # which prompt each row of the batch is
    everyone = torch.arange(len(prompts), device=device)
    ends = [width - 1 if anchors is None else width - len(p) + anchors[i] for i, p in enumerate(prompts)]
    rows = Rows(last_prompt=torch.tensor(ends, device=device), valid=valid)
    last = (everyone, torch.full_like(everyone, width - 1))
    stop = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
    logits = forward(model, input_ids=ids, attention_mask=mask, position_ids=positions, rows=rows, at=last, cache=cache)
    next_position = positions[:, -1] + 1
    for step in range(max_new_tokens):
        token = logits.float().argmax(-1)  # (B,)
        going = ~torch.isin(token, stop)
        for row, value, on in zip(alive.tolist(), token.tolist(), going.tolist(), strict=True):
            if on:
                outputs[row].append(value)
        if step + 1 == max_new_tokens or not bool(going.any()):
            break
        carry = rows.carry
        if not bool(going.all()):
            index = going.nonzero().squeeze(-1)
            cache.batch_select_indices(index)
            token, alive, mask, next_position = token[index], alive[index], mask[index], next_position[index]
            carry = rows.select(index)
        logits, rows = _decode_step(model, token, mask, next_position, carry, cache)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        next_position = next_position + 1
    return outputs


def _decode_step(
    model: nn.Module, token: Tensor, mask: Tensor, position: Tensor, carry: dict[str, Tensor], cache: object
) -> tuple[Tensor, Rows]:
    """One token further: token (B,), mask (B, P), position (B,) -> logits (B, V) and the rows that were announced."""
    batch = torch.arange(len(token), device=token.device)
    rows = Rows(
        last_prompt=torch.full_like(batch, CACHED),
        valid=torch.ones((len(token), 1), dtype=torch.bool, device=token.device),
        carry=carry,
    )
    logits = forward(
        model,
        input_ids=token[:, None],
        attention_mask=torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1),
        position_ids=position[:, None],
        rows=rows,
        at=(batch, torch.zeros_like(batch)),
        cache=cache,
    )
    return logits, rows

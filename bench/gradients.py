"""Gradient norms of single answers: what a membership attack that looks at gradients asks of a model."""

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import Rows, forward, pad


def gradient_norm(model: nn.Module, tokens: Tokens, pad_id: int, *, labels: int) -> float:
    """Mean over parameter tensors of the L2 norm of the gradient of the mean NLL of the first `labels` labels.

    Deviates from open-unlearning's `mia/gradnorm.py` in one thing: dropout stays off, so that the same row gives the
    same number. Which parameters are trainable is left as it was, and so are their gradients.

    Raises:
        ValueError: no label is left.
    """
    if not 1 <= labels <= len(tokens.labels):
        raise ValueError(f"labels must be within 1..{len(tokens.labels)}, got {labels}")
    parameters = list(model.parameters())
    before = [p.requires_grad for p in parameters]
    padded = pad([tokens], pad_id, parameters[0].device)
    at = (padded.at[0][:labels], padded.at[1][:labels])
    try:
        for p in parameters:
            p.requires_grad_(True)
        with torch.enable_grad():
            logits = forward(
                model,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                position_ids=padded.position_ids,
                rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
                at=at,
            ).float()
            loss = nn.functional.cross_entropy(logits, padded.labels[:labels])
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)
    norms: list[Tensor] = [g.float().norm() for g in found if g is not None]
    return float(torch.stack(norms).mean())

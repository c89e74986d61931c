"""Gradient norms of answers, many at a time: what a membership attack that looks at gradients asks of a model.

One backward pass as far as the embeddings gives what a whole batch needs (`bench.uses`), and no gradient of a matrix is
held.

Any model may come from a hub, so nothing is taken for granted: a use of a parameter that is not understood, or a first
answer that comes out otherwise by itself, and the model is asked one answer at a time, through its gradients.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.data.types import Tokens
from bench.forward import Padded, Rows, forward, pad
from bench.uses import NotByRow, Uses

logger = logging.getLogger(__name__)


TOLERANCE, COARSE = 1e-3, 2e-2
"""By how much of itself an answer's norm may change in a batch, in float32 and in numbers of 16 bits."""


@dataclass(eq=False)
class GradientNorms:
    """Of every answer, the mean over parameter tensors of the L2 norm of the gradient of its mean NLL.

    Deviates: open-unlearning's `mia/gradnorm.py` leaves dropout on; here it is off, so that the same row gives the same
    number. Which parameters are trainable is left as it was, and so are their gradients.
    """

    model: nn.Module
    pad_id: int
    together: bool | None = None
    """Whether answers are taken in batches; None until the first ones have shown whether they can be."""

    def of(self, answers: Sequence[Tokens]) -> list[float]:
        """As many as `answers`, in their order.

        Raises:
            ValueError: an answer has no labels.
        """
        if not all(tokens.labels for tokens in answers):
            raise ValueError("an answer without labels has no loss, and no gradient")
        found = self._batch(answers) if answers and self.together is not False else None
        return [gradient_norm(self.model, tokens, self.pad_id) for tokens in answers] if found is None else found

    def _batch(self, answers: Sequence[Tokens]) -> list[float] | None:
        """None where the model has to be asked one by one, now and from now on."""
        name = type(self.model).__name__
        try:
            found = _together(self.model, answers, self.pad_id)
        except NotByRow as why:
            logger.info("gradients of %s are computed one answer at a time: %s", name, why)
            self.together = False
            return None
        if self.together is None:
            alone = gradient_norm(self.model, answers[0], self.pad_id)
            tolerance = TOLERANCE if torch.finfo(next(self.model.parameters()).dtype).bits >= 32 else COARSE
            if math.isfinite(alone) or math.isfinite(found[0]):  # else the next batch has to show it
                self.together = math.isclose(found[0], alone, rel_tol=tolerance)
            if self.together is False:
                logger.warning(
                    "gradients of %s are computed one answer at a time: the first has norm %.6g, in a batch %.6g",
                    name,
                    alone,
                    found[0],
                )
        return None if self.together is False else found


def gradient_norm(model: nn.Module, tokens: Tokens, pad_id: int) -> float:
    """As `GradientNorms`, of one answer, through its gradients: right for any model; they take the model's size."""
    parameters = list(model.parameters())
    with _trainable(parameters, True), torch.enable_grad():
        nll = _nll(model, pad([tokens], pad_id, parameters[0].device))
        found = torch.autograd.grad(nll.sum(), parameters, allow_unused=True)
    # In float32 a norm of 4 million numbers is wrong by a fifth of a per cent on a CPU, one of 40 million by two.
    norms = [torch.linalg.vector_norm(g, dtype=torch.float64) for g in found if g is not None]
    return float(torch.stack(norms).mean())


def _together(model: nn.Module, answers: Sequence[Tokens], pad_id: int) -> list[float]:
    padded = pad(answers, pad_id, next(model.parameters()).device)
    uses = Uses(model, padded)
    # What needs a gradient is then what depends on the embeddings' output.
    with _trainable(uses.parameters, False), torch.enable_grad():
        try:
            with uses:
                nll = _nll(model, padded)
            uses.complete()
            torch.autograd.grad(nll.sum(), uses.starts, allow_unused=True)
            return uses.norms()
        finally:
            uses.starts.clear()  # tensors with hooks that know `uses`: a cycle, which only Python's collector would end


@contextmanager
def _trainable(parameters: Sequence[nn.Parameter], flag: bool) -> Iterator[None]:
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(flag)
        yield
    finally:
        for p, own in zip(parameters, before, strict=True):
            p.requires_grad_(own)


def _nll(model: nn.Module, padded: Padded) -> Tensor:
    """(B,) nats per label."""
    logits = forward(
        model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
        at=padded.at,
    )
    nll = nn.functional.cross_entropy(logits.float(), padded.labels, reduction="none")  # (N,)
    return nll.new_zeros(len(padded.counts)).index_add(0, padded.at[0], nll) / padded.counts

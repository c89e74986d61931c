"""Cutting work into batches by a budget of padded tokens, and going on with a smaller one when memory runs out."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch

from bench.models import out_of_memory

logger = logging.getLogger(__name__)
Item = TypeVar("Item")


def attempt(run: Callable[[], object], *, last: bool) -> bool:
    """Call `run`; False when memory ran out, and then all that the failed call held is free again.

    Args:
        last: nothing smaller can be tried, so the error is raised.
    """
    try:
        run()
        return True
    except (RuntimeError, MemoryError) as error:
        if last or not out_of_memory(error):
            raise
    # Only here, outside the handler, is the traceback gone, and with it the frames that hold the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def in_batches(
    items: Sequence[Item],
    width: Callable[[Item], int],
    batch_tokens: int,
    run: Callable[[list[Item]], object],
) -> int:
    """Call `run` on consecutive batches of `items`, which should be sorted by width.

    A batch whose call runs out of memory is cut anew with half the budget and called again, so `run` must store its
    results only when it has them all.

    Args:
        width: tokens of an item in a batch of its own.
        batch_tokens: most tokens of a batch, padding included; a single item may exceed it.

    Returns:
        The budget that memory sufficed for.
    """
    start = 0
    while start < len(items):
        end, widest = start, 0
        while end < len(items):
            wider = max(widest, width(items[end]))
            if end > start and wider * (end - start + 1) > batch_tokens:
                break
            end, widest = end + 1, wider
        batch = list(items[start:end])
        if attempt(partial(run, batch), last=len(batch) == 1):
            start = end
        else:
            batch_tokens = max(1, min(batch_tokens, widest * len(batch)) // 2)
            logger.warning("out of memory; going on with %d tokens per batch", batch_tokens)
    return batch_tokens

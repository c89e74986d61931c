"""Cutting by a budget, and a smaller one when memory runs out."""

import gc
import weakref

import pytest
import torch

from bench.batching import attempt, in_batches


def test_batches_keep_the_order_and_the_budget_of_padded_tokens() -> None:
    seen: list[list[int]] = []
    left = in_batches([1, 2, 2, 3, 9, 9], lambda w: w, 6, seen.append)
    # 1+2+2 pads to 6; 3 and 9 would pad to 18; a single item may exceed the budget
    assert seen == [[1, 2, 2], [3], [9], [9]]
    assert left == 6


def test_a_batch_that_does_not_fit_is_cut_anew_with_half_of_what_it_took() -> None:
    seen: list[list[int]] = []

    def run(batch: list[int]) -> None:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no")
        seen.append(batch)

    assert in_batches([2] * 7, lambda w: w, 1000, run) == 3  # 14 -> 7 -> 3
    assert seen == [[2]] * 7


def test_one_item_that_does_not_fit_is_an_error_and_so_is_anything_else() -> None:
    def full(_: list[int]) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(RuntimeError, match="allocate"):
        in_batches([1, 1], lambda w: w, 10, full)

    def broken(_: list[int]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_batches([1, 1], lambda w: w, 10, broken)


def test_what_a_failed_attempt_held_is_free_before_the_next_one() -> None:
    alive: list[weakref.ref] = []

    def run() -> None:
        large = torch.zeros(10)
        alive.append(weakref.ref(large))
        raise torch.OutOfMemoryError("no")

    gc.disable()
    try:
        assert attempt(run, last=False) is False
        assert alive[0]() is None
    finally:
        gc.enable()
    assert attempt(lambda: None, last=True) is True

"""Which "I don't know" answer goes with which forget question."""

import hashlib
from collections.abc import Sequence


def draw_refusals(refusals: Sequence[str], examples: int, seed: int) -> tuple[str, ...]:
    """One refusal per forget example, fixed for the whole run, so that a reference can be asked once.

    Deviates: open-unlearning draws anew at each access, from the global generator; GRUN's authors draw once, as here.
    """
    digests = (hashlib.sha256(f"refusal/{seed}/{i}".encode()).digest() for i in range(examples))
    return tuple(refusals[int.from_bytes(d[:8], "big") % len(refusals)] for d in digests)

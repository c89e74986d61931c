"""Questions of three targets behind the same solved examples, as RWKU's MMLU asks them."""

from collections.abc import Sequence

from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.prefixes import common
from tests.helpers import TEXTS

SUBJECTS = tuple("".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in TEXTS[n : n + 5]) for n in (0, 5))
LETTERS = (30, 31, 32, 33)
TARGETS = ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 3))
"""Which questions each is asked: three of the first subject, one of the second, and the last one has an old one."""


def asked(encoder: Encoder, target: Sequence[int]) -> list[Tokens]:
    """Four letters behind every question, and a question without solved examples."""
    found = []
    for place, n in enumerate(target):
        solved = SUBJECTS[place == 3]
        prompt, opening = encoder.prompt(solved + TEXTS[n][0]), encoder.prompt(solved)
        shared = common(prompt, opening)
        found += [Tokens((*prompt, letter), len(prompt), encoder.hidden(prompt), shared=shared) for letter in LETTERS]
    return [*found, encoder.pair(*TEXTS[target[0]])]

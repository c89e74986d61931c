"""Which prompts begin alike for long enough that reading the beginning once is worth it.

Few-shot prompts of one subject share their solved examples, chats a system prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne

MIN_PREFIX = 64
"""Shared tokens below which a prefix is not worth its copies in the caches of its prompts."""
CALLS = 512
"""What a cluster costs in tokens: it takes calls of its own, and these are shorter than they could be."""


@dataclass
class Cluster:
    """Prompts with a common beginning; no length, nothing in common."""

    length: int
    """Tokens of the prefix."""
    members: list[int]
    """Places in the sequence that was given."""

    @property
    def saved(self) -> int:
        """Tokens that need not be read again, less what the cluster costs."""
        return (len(self.members) - 1) * self.length - CALLS


@dataclass
class _Node:
    """Neighbours in sorted order that share `depth` tokens."""

    depth: int
    loose: list[int] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)

    def settle(self) -> None:
        """Make one cluster of all that gains from it; a cluster that saves more by its longer prefix stays apart."""
        apart = [c for c in self.clusters if c.saved > len(c.members) * self.depth]
        joining = [c for c in self.clusters if c.saved <= len(c.members) * self.depth]
        together = Cluster(self.depth, self.loose + [i for c in joining for i in c.members])
        if together.saved > sum(c.saved for c in joining):
            self.loose, self.clusters = [], [*apart, together]

    def absorb(self, other: "_Node") -> None:
        self.loose += other.loose
        self.clusters += other.clusters


def clusters(prompts: Sequence[tuple[int, ...]]) -> list[Cluster]:
    """Every prompt in one cluster; those that share nothing worth the while in the first, whose prefix is empty.

    The tree of common prefixes is walked over the sorted prompts, innermost first.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    stack = [_Node(0)]
    for at, i in enumerate(order):
        stack.append(_Node(len(prompts[i]) + 1, [i]))
        shared = common(prompts[i], prompts[order[at + 1]]) if at + 1 < len(order) else 0
        depth = shared if shared >= MIN_PREFIX else 0
        while stack[-1].depth > depth:
            closed = stack.pop()
            closed.settle()
            if stack[-1].depth < depth:
                stack.append(_Node(depth))
            stack[-1].absorb(closed)
    [root] = stack
    return [Cluster(0, root.loose), *root.clusters]


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many tokens two prompts begin with alike."""
    return next(compress(count(), map(ne, a, b)), min(len(a), len(b)))

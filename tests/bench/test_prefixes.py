"""Which prompts share a prefix: hand-made ones, and the best choice among all on small sets."""

import random

import pytest

import bench.prefixes
from bench.prefixes import Cluster, clusters, common


def prompt(*parts: tuple[int, int]) -> tuple[int, ...]:
    """`n` times each token, one after the other."""
    return tuple(token for token, n in parts for _ in range(n))


def found(prompts: list[tuple[int, ...]]) -> list[tuple[int, list[int]]]:
    first, *rest = clusters(prompts)
    assert first.length == 0
    return [(0, sorted(first.members)), *sorted((c.length, sorted(c.members)) for c in rest)]


def test_subjects_are_told_apart_and_what_shares_too_little_stays_alone() -> None:
    one = [prompt((1, 400), (10 + i, 20)) for i in range(3)]
    two = [prompt((2, 300), (10 + i, 20)) for i in range(4)]
    short = [prompt((3, 63), (10 + i, 900)) for i in range(50)]  # 63 tokens are too few, however many share them
    few = [prompt((4, 256), (10 + i, 5)) for i in range(3)]  # 2 * 256 saved tokens are what the calls cost
    prompts = [*one, *short, *two, *few]
    assert found(prompts) == [
        (0, [*range(3, 53), *range(57, 60)]),
        (300, [53, 54, 55, 56]),
        (400, [0, 1, 2]),
    ]


def test_a_system_prompt_of_all_gives_way_to_the_longer_prefixes_that_save_more() -> None:
    # 100 tokens shared by 60 prompts, 50 of which share 500 more in two halves, which saves more
    system = (9, 100)
    subjects = [prompt(system, (s, 500), (20 + i, 10)) for s in (1, 2) for i in range(25)]
    others = [prompt(system, (50 + i, 30)) for i in range(10)]
    assert found([*subjects, *others]) == [
        (0, []),
        (100, [*range(50, 60)]),
        (600, [*range(25)]),
        (600, [*range(25, 50)]),
    ]
    # prefixes that are hardly longer than the common one are not worth a cluster each
    close = [prompt(system, (s, 3), (20 + i, 10)) for s in (1, 2) for i in range(25)]
    assert found(close) == [(0, []), (100, [*range(50)])]


@pytest.mark.parametrize("seed", range(30))
def test_every_prompt_is_in_one_cluster_with_what_it_says_that_it_shares(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.prefixes, "MIN_PREFIX", 2)
    monkeypatch.setattr(bench.prefixes, "CALLS", seed % 4)
    draw = random.Random(seed)
    prompts = [tuple(draw.choices((1, 2), weights=(3, 1), k=draw.randint(0, 12))) for _ in range(draw.randint(0, 14))]
    plan = clusters(prompts)
    assert sorted(i for c in plan for i in c.members) == list(range(len(prompts)))
    for cluster in plan[1:]:
        assert len(cluster.members) >= 2
        assert cluster.length >= 2
        assert cluster.saved > 0
        assert {prompts[i][: cluster.length] for i in cluster.members} == {
            prompts[cluster.members[0]][: cluster.length]
        }
        assert all(len(prompts[i]) >= cluster.length for i in cluster.members)
    # no two beginnings alone save more than the plan
    saved = sum(c.saved for c in plan[1:])
    for n in range(2, 13):
        for start in {p[:n] for p in prompts if len(p) >= n}:
            members = [i for i, p in enumerate(prompts) if p[:n] == start]
            assert Cluster(n, members).saved <= saved


def test_common_tokens_are_counted_to_the_first_difference_or_the_end() -> None:
    assert common((1, 2, 3), (1, 2, 4)) == 2
    assert common((1, 2), (1, 2, 4)) == 2
    assert common((), (1,)) == 0
    assert common((1, 2), (1, 2)) == 2

"""The seed is the only chance in a result: global generators do not reach it, and it leaves them as they were."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from bench.models import Loaded
from bench.train import epoch_order, retain_partner
from methods.rocr import ROCR
from tests.helpers import (
    TEXTS,
    generators,
    same_bits,
    seed_everything,
    short_method,
    tiny,
    tiny_loaded,
    toy_benchmark,
    toy_encoder,
    toy_tokenizer,
    weights,
)


def noisy(folder: Path, *, seed: int) -> dict[str, Tensor]:
    """What ROCR with noise, its only way to draw anything, makes of the toy model."""
    method = ROCR(layers=(0, 1), l2=0.01, unrelated_subject="Ben Ruiz", nullspace_threshold=0.5, mode="noise")
    rows = replace(toy_benchmark(), subjects=("Ada Moor",), background=tuple(f"{q} {a}" for q, a in TEXTS))
    loaded = Loaded(tiny(), toy_tokenizer("full"), "toy", folder)
    return weights(method.unlearn(loaded, toy_encoder("full"), rows, seed=seed, batch_tokens=1000))  # type: ignore[arg-type]


def test_global_generators_neither_reach_an_edit_nor_are_moved(tmp_path: Path) -> None:
    """The same is asked of every trained method by the contract."""
    found = []
    for others in (1, 2):
        before = seed_everything(others)
        found.append(noisy(tmp_path, seed=0))
        assert generators() == before
    assert same_bits(*found)
    assert not same_bits(found[0], noisy(tmp_path, seed=1))


def test_the_seed_reaches_the_order_of_the_data_and_the_partners() -> None:
    assert epoch_order(0, 0, 40) != epoch_order(1, 0, 40)
    partners = [[retain_partner(seed, 0, i, 400) for i in range(40)] for seed in (0, 1)]
    assert partners[0] != partners[1]


@pytest.mark.parametrize("name", ["lora_npo", "grun_npo"])
def test_the_seed_reaches_what_is_initialised(name: str) -> None:
    found = []
    for seed in (0, 0, 1):
        seed_everything(seed + len(found))  # not what counts
        attached = short_method(name).adapter.around(1).attach(tiny_loaded().model, seed)
        found.append({n: p.detach().clone() for n, p in attached.trainable().items()})
        attached.detach()
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])

"""Second moments over running text, the projectors made of them, and their caches in memory and on the disk."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bench.moments
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.models import Loaded, decoder_blocks
from bench.moments import (
    Projector,
    given_projectors,
    input_width,
    projectors,
    read_projector,
    second_moments,
    unprojected,
    weights_hash,
)
from tests.helpers import ARCHITECTURES, TEXTS, tiny, tiny_loaded, toy_encoder

LINES = tuple(f"{q} {a}" for q, a in TEXTS)
NAMES = {0: "model.layers.0.mlp.down_proj", 1: "model.layers.1.mlp.down_proj"}
OUTPUTS = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return replace(tiny_loaded(), cache_dir=tmp_path)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The modules of every pass over the texts."""
    seen: list[list[str]] = []
    real = bench.moments.second_moments

    def counted(model, names, texts, **rest):  # noqa: ANN001, ANN003, ANN202
        seen.append(list(names.values()))
        return real(model, names, texts, **rest)

    monkeypatch.setattr(bench.moments, "second_moments", counted)
    return seen


def made(loaded: Loaded, names: dict[int, str] = NAMES, **fields: object) -> dict[int, Projector]:
    values: dict = {"threshold": 0.5, "documents": 100, "batch_tokens": 1000, "texts": LINES, **fields}
    texts = values.pop("texts")
    return projectors(loaded, toy_encoder(), texts, names, **values)


def whole(projector: Projector) -> Tensor:
    """P as a matrix."""
    return projector(torch.eye(projector.basis.shape[0]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_moments_are_the_mean_over_all_tokens_and_no_padding_however_the_texts_are_cut(architecture: str) -> None:
    model, encoder = tiny(architecture), toy_encoder()
    pattern = OUTPUTS.get(architecture, "model.layers.{}.mlp.down_proj")
    names = {layer: pattern.format(layer) for layer in (0, 1)}
    texts = [encoder.document(line) for line in LINES]
    plain: dict[int, list[Tensor]] = {0: [], 1: []}

    def note(layer: int, _: object, args: tuple) -> None:
        plain[layer].append(args[0][0])

    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(note, layer)) for layer, name in names.items()
    ]
    with torch.no_grad():
        for text in texts:  # one by one: nothing is padded
            model(torch.tensor([text.input_ids]))
    for handle in handles:
        handle.remove()
    for batch_tokens in (10, 100, 10_000):
        found = second_moments(model, names, texts, pad_id=0, batch_tokens=batch_tokens)
        for layer in names:
            k = torch.cat(plain[layer]).double()
            expected = sum(torch.outer(row, row) for row in k) / len(k)
            assert found[layer].dtype == torch.float32
            torch.testing.assert_close(found[layer].double(), expected, rtol=1e-4, atol=1e-5)


def test_the_pass_ends_behind_the_last_block_that_is_read() -> None:
    model = tiny()
    ran: list[int] = []
    for number, block in enumerate(decoder_blocks(model)):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))
    second_moments(model, NAMES, [Tokens((1, 5, 6), 1)], pad_id=0, batch_tokens=100)
    assert ran == [0, 1]
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_half_precision_model_is_summed_in_float32() -> None:
    model = tiny(dtype=torch.bfloat16)
    texts = [toy_encoder().document(line) for line in LINES]
    found = second_moments(model, NAMES, texts, pad_id=0, batch_tokens=50)
    assert found[0].dtype == torch.float32
    exact = second_moments(model.float(), NAMES, texts, pad_id=0, batch_tokens=50)
    assert (found[0] - exact[0]).norm() < 0.03 * exact[0].norm()


def test_what_lies_below_the_threshold_is_kept_and_the_shorter_side_is_stored() -> None:
    # eigenvalues 4, 0.1, 3 along the axes: below 1 only the second axis is kept
    projector, values = Projector.from_moment(torch.diag(torch.tensor([4.0, 0.1, 3.0])), 1.0)
    torch.testing.assert_close(values, torch.tensor([0.1, 3.0, 4.0]))
    torch.testing.assert_close(whole(projector), torch.diag(torch.tensor([0.0, 1.0, 0.0])))
    assert (projector.spans, projector.basis.shape, projector.kept) == (True, (3, 1), 1)
    # below 3.5 the second and the third
    projector, _ = Projector.from_moment(torch.diag(torch.tensor([4.0, 0.1, 3.0])), 3.5)
    torch.testing.assert_close(whole(projector), torch.diag(torch.tensor([0.0, 1.0, 1.0])))
    assert (projector.spans, projector.basis.shape, projector.kept) == (False, (3, 1), 2)
    # all and none
    for threshold, kept in ((9.0, 3), (0.01, 0)):
        projector, _ = Projector.from_moment(torch.diag(torch.tensor([4.0, 0.1, 3.0])), threshold)
        torch.testing.assert_close(whole(projector), torch.eye(3) * (kept == 3))
        assert (projector.kept, projector.basis.shape[1]) == (kept, 0)
    assert unprojected(3).kept == 3
    assert torch.equal(whole(unprojected(3)), torch.eye(3))


def test_a_projector_is_that_of_the_authors_singular_vectors(loaded: Loaded) -> None:
    found = made(loaded)
    texts = [toy_encoder().document(line) for line in LINES]
    moment = second_moments(loaded.model, NAMES, texts, pad_id=0, batch_tokens=1000)[1]
    u, s, _ = torch.linalg.svd(moment)
    small = u[:, s < 0.5]  # U0, P = U0 U0^T
    assert 0 < small.shape[1] < 48
    torch.testing.assert_close(whole(found[1]), small @ small.T, atol=1e-5, rtol=0)
    p = whole(found[1])
    torch.testing.assert_close(p @ p, p, atol=1e-5, rtol=0)
    assert found[1].kept == small.shape[1]
    assert found[1].basis.shape[1] == min(found[1].kept, 48 - found[1].kept)


def test_they_are_computed_once_then_remembered_then_read(loaded: Loaded, passes: list, tmp_path: Path) -> None:
    first = made(loaded)
    assert passes == [list(NAMES.values())]  # all in one pass
    assert made(loaded)[0] is first[0]
    assert len(passes) == 1
    again = replace(loaded, model=tiny())  # as another process has it
    second = made(again)
    assert len(passes) == 1
    assert second[0] is not first[0]
    assert all(torch.equal(second[n].basis, first[n].basis) and second[n].spans == first[n].spans for n in NAMES)
    wider = {**NAMES, 2: "model.layers.2.mlp.down_proj"}
    made(again, wider)
    assert passes[1:] == [[wider[2]]]  # only what is new
    made(loaded, threshold=0.1)
    made(loaded, texts=LINES[1:])
    made(loaded, documents=3)
    assert len(passes) == 5
    damaged = replace(loaded, model=tiny())
    for path in tmp_path.glob("projector-*/projector.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    third = made(damaged)
    assert passes[5:] == [list(NAMES.values())]
    assert torch.equal(third[0].basis, first[0].basis)


def test_another_model_gets_projectors_of_its_own(loaded: Loaded, passes: list) -> None:
    one = made(loaded)
    other = made(replace(loaded, model=tiny(seed=1)))
    assert len(passes) == 2
    assert one[0].basis.shape != other[0].basis.shape or not torch.equal(one[0].basis, other[0].basis)


def test_blank_and_one_token_texts_are_passed_over(loaded: Loaded, tmp_path: Path) -> None:
    plain = made(loaded)
    blanks = made(replace(loaded, cache_dir=tmp_path / "other"), texts=("", " \n"[:0], *LINES, ""))
    assert torch.equal(plain[0].basis, blanks[0].basis)
    with pytest.raises(LetheError, match=r"none of the 2 background texts has two tokens.*wikitext2/train\.txt"):
        made(loaded, texts=("", ""))


def test_of_many_texts_always_the_same_are_read(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple] = []

    def noted(model, names, texts, **_):  # noqa: ANN001, ANN003, ANN202
        read.append(tuple(t.input_ids for t in texts))
        return {n: torch.eye(48) for n in names}

    monkeypatch.setattr(bench.moments, "second_moments", noted)
    made(loaded, documents=4)
    made(loaded, documents=4, threshold=0.6)
    assert len(read[0]) == 4
    assert read[0] == read[1]
    made(loaded, documents=len(LINES))
    assert read[2] == tuple(toy_encoder().document(line).input_ids for line in LINES)


def test_texts_are_cut_at_the_models_context(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def noted(model, names, texts, **_):  # noqa: ANN001, ANN003, ANN202
        lengths.extend(len(t.input_ids) for t in texts)
        return {n: torch.eye(48) for n in names}

    monkeypatch.setattr(bench.moments, "second_moments", noted)
    made(loaded, texts=("bees and salt " * 500,))
    assert lengths == [512]


def test_the_hash_of_the_weights_follows_every_change_and_comes_back() -> None:
    model = tiny()
    first = weights_hash(model)
    assert weights_hash(tiny()) == first
    assert weights_hash(tiny(seed=1)) != first
    assert weights_hash(tiny(dtype=torch.bfloat16)) != first
    weight = model.get_submodule(NAMES[0]).weight
    assert isinstance(weight, torch.nn.Parameter)
    original = weight.data
    weight.data = original + 1
    assert weights_hash(model) != first
    weight.data = original
    assert weights_hash(model) == first
    with torch.no_grad():
        weight += 1
    assert weights_hash(model) != first


def test_widths_are_told_by_the_type_of_a_module() -> None:
    # Llama's down_proj is (32, 48), GPT-2's c_proj (48, 32): 48 inputs both
    assert input_width(tiny().get_submodule(NAMES[0])) == 48
    assert input_width(tiny("gpt2").get_submodule("transformer.h.0.mlp.c_proj")) == 48
    # its attention output is square: the shape could not tell
    assert input_width(tiny("gpt2").get_submodule("transformer.h.0.attn.c_proj")) == 32


def test_given_projectors_are_found_wherever_they_lie(loaded: Loaded, tmp_path: Path) -> None:
    expected = made(loaded)
    made(replace(loaded, model=tiny(seed=1)))  # of another model, in the same folder
    shutil.copytree(tmp_path, tmp_path / "copied" / "deep")
    found = given_projectors(tmp_path / "copied", loaded, NAMES)
    assert all(torch.equal(found[n].basis, expected[n].basis) for n in NAMES)


def test_given_projectors_are_of_the_threshold_that_is_asked_for(
    loaded: Loaded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {threshold: made(loaded, threshold=threshold)[0] for threshold in (0.1, 0.5)}
    assert expected[0.1].kept != expected[0.5].kept
    for threshold, projector in expected.items():
        found = given_projectors(tmp_path, loaded, {0: NAMES[0]}, threshold=threshold)[0]
        assert torch.equal(found.basis, projector.basis) and found.spans == projector.spans
    assert not caplog.records
    with pytest.raises(LetheError, match=r"of nullspace_threshold 0.1, 0.5 only, got 5.0; set it to that"):
        given_projectors(tmp_path, loaded, {0: NAMES[0]}, threshold=5.0)
    given_projectors(tmp_path, loaded, {0: NAMES[0]})
    assert "holds 2 different projectors for model.layers.0.mlp.down_proj of this model" in caplog.text


def test_projectors_of_another_model_or_module_or_none_are_refused(loaded: Loaded, tmp_path: Path) -> None:
    made(loaded, {0: NAMES[0]})
    [folder] = tmp_path.glob("projector-*")
    other = replace(loaded, model=tiny(seed=1))
    with pytest.raises(LetheError, match=r"the projector of another model: .* hash .* compute it again"):
        read_projector(folder, other.model, NAMES[0])
    with pytest.raises(LetheError, match="the projector of another model"):
        given_projectors(tmp_path, other, {0: NAMES[0]})
    with pytest.raises(LetheError, match=r"another model: for model.layers.0.mlp.down_proj .* this is model.layers.1"):
        read_projector(folder, loaded.model, NAMES[1])
    with pytest.raises(LetheError, match=r"no projector for model.layers.1.mlp.down_proj, only for: model.layers.0"):
        given_projectors(tmp_path, loaded, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LetheError, match="only for: none"):
        given_projectors(tmp_path / "empty", loaded, NAMES)
    narrow = Projector(torch.eye(40)[:, :3], spans=True)
    facts = {"model": weights_hash(loaded.model), "module": NAMES[0]}
    bench.moments.save_projector(tmp_path / "empty", narrow, facts)
    with pytest.raises(LetheError, match=r"and 40 inputs, but this is model.layers.0.mlp.down_proj of .* with 48"):
        read_projector(tmp_path / "empty", loaded.model, NAMES[0])
    (folder / "projector.safetensors").write_bytes(b"nothing")
    with pytest.raises(LetheError, match="holds no readable projector"):
        read_projector(folder, loaded.model, NAMES[0])
    for text in ("[]", "{", "{}", "3"):
        (folder / "projector.json").write_text(text)
        with pytest.raises(LetheError, match="no readable projector"):
            given_projectors(folder, loaded, NAMES)
        with pytest.raises(LetheError, match="no readable projector"):
            read_projector(folder, loaded.model, NAMES[0])

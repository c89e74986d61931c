"""From a name to every field: default < recipe < --set < brackets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.spec import parse_methods, parse_sets
from methods import METHODS, TRAINED, recipes
from methods.presets import PRESETS
from methods.recipes import Configured, chosen, configure
from methods.rocr import ROCR, edited_layers


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Recipes as if they had been found."""
    found = {
        "recipes": {
            "npo": {"lr": 0.25, "epochs": 7, "beta": 0.5},
            "grun_npo": {"lr": 0.125, "layers": [1, 2]},
            "grun_npo[position=answer]": {"lr": 0.0625, "layers": [2, 3]},
        },
        "search": {"trials": 10, "world_seeds": [1, 2], "world_seed": 1},
    }
    nothing: dict = {"recipes": {}, "search": {}}
    monkeypatch.setattr(recipes, "mini_recipes", lambda family="tofu": found if family == "tofu" else nothing)
    yield


def get(text: str, *sets: str, mini: bool = True, **where: str) -> Configured:
    [name] = parse_methods(text)
    return configure(name, parse_sets(sets), mini=mini, **where)


def test_the_order_of_precedence(recorded: None) -> None:
    default = TRAINED["npo"].adapter
    assert get("npo", mini=False).fields["lr"] == default.lr  # a paper's default for real models
    assert get("npo").fields["lr"] == 0.25  # the recipe for the mini one
    assert get("npo", "npo.lr=0.5").fields["lr"] == 0.5
    assert get("npo[lr=0.75]", "npo.lr=0.5").fields["lr"] == 0.75
    fields = get("npo[lr=0.75]", "npo.epochs=9").fields
    assert (fields["lr"], fields["epochs"], fields["beta"]) == (0.75, 9, 0.5)  # each where it was said last
    assert fields["clip_norm"] == default.clip_norm


def test_where_fields_come_from_is_told_for_the_record(recorded: None) -> None:
    assert get("npo", mini=False).recipe == "paper defaults"
    assert get("npo").recipe.startswith("mini recipe 'npo':")
    text = get("npo[lr=0.75]", "npo.epochs=9").recipe
    assert text.endswith("; epochs=9 from --set; lr=0.75 from name")
    assert get("gd").recipe == "paper defaults"  # none was recorded


def test_a_variant_takes_the_recipe_of_its_label_else_of_its_position_else_of_its_method(recorded: None) -> None:
    assert get("grun_npo").fields["layers"] == (1, 2)
    answer = get("grun_npo[position=answer]")
    assert (answer.fields["layers"], answer.fields["position"], answer.label) == (
        (2, 3),
        "answer",
        "grun_npo[position=answer]",
    )
    assert get("grun_npo[position=answer,rank=16]").fields["layers"] == (2, 3)
    by_set = get("grun_npo", "grun_npo.position=answer")
    assert by_set.fields == answer.fields and by_set.recipe.startswith("mini recipe 'grun_npo[position=answer]'")
    assert get("grun_npo[position=last_prompt]", "grun_npo.position=answer").fields["layers"] == (1, 2)
    assert get("grun_npo[rank=16]").fields["layers"] == (1, 2)
    assert get("grun_npo[layers=0,3]").fields["layers"] == (0, 3)


def test_the_table_itself_never_changes(recorded: None) -> None:
    before = dict(METHODS)
    get("npo[lr=0.75]", "npo.epochs=9")
    assert before == METHODS


def test_wrong_names_and_values_are_told(recorded: None) -> None:
    with pytest.raises(LetheError, match="unknown method 'gron_npo'; did you mean 'grun_npo'"):
        get("gron_npo")
    with pytest.raises(LetheError, match="unknown field of npo 'bta'; did you mean 'beta'"):
        get("npo[bta=1]")
    with pytest.raises(LetheError, match=r"npo\.beta must be a number, got 'big'"):
        get("npo", "npo.beta=big")
    with pytest.raises(LetheError, match="npo: beta must be positive, got -1"):
        get("npo", "npo.beta=-1")
    with pytest.raises(LetheError, match=r"grun_npo\.position must be one of last_prompt, answer, all, got 'end'"):
        get("grun_npo[position=end]")


def test_every_recorded_recipe_fits_its_method() -> None:
    for family in ("tofu", "wmdp", "ort"):
        for label in recipes.mini_recipes(family)["recipes"]:
            configured = get(label, family=family)
            assert configured.label == label
            assert configured.recipe.startswith(f"mini recipe {label!r}")


def test_on_corpora_papers_and_recipes_have_fields_of_their_own(recorded: None) -> None:
    fields = get("grun_gd", mini=False, family="wmdp").fields
    assert (fields["epochs"], fields["gate_weight"], fields["gate"]) == (4, 100, "mlp_3")
    assert get("grun_gd", mini=False, family="wmdp").recipe == "paper defaults for corpora"
    assert get("grun_npo", mini=False, family="wmdp").fields["forget_weight"] == 100
    fields = get("grun_gd", mini=False).fields
    assert (fields["epochs"], fields["gate_weight"], fields["gate"]) == (40, 10, "linear")
    assert get("npo", mini=False, family="wmdp").recipe == "paper defaults"
    assert get("npo", family="wmdp").recipe == "paper defaults"  # no recipe of this kind is recorded
    assert get("grun_npo", "grun_npo.epochs=9", family="wmdp").fields["epochs"] == 9


def test_on_targets_those_of_corpora_hold_for_what_trains_on_texts(recorded: None) -> None:
    assert get("grun_npo", mini=False, family="ort").fields["epochs"] == 4
    assert get("grun_npo", mini=False, family="ort").recipe == "paper defaults for corpora"
    for name in ("grun_rt", "grun_dpo", "npo"):
        assert get(name, mini=False, family="ort").recipe == "paper defaults"
    assert get("grun_rt", mini=False, family="ort").fields["epochs"] == 40


def test_a_preset_stands_in_for_the_recipe_and_gives_way_to_the_user(recorded: None) -> None:
    configured = get("rmu", preset="wmdp-zephyr")
    assert (configured.fields["steering_coeff"], configured.fields["retain_weight"]) == (6.5, 1200)
    assert (configured.fields["layers"], configured.fields["max_steps"]) == ((5, 6, 7), 150)
    assert configured.recipe == "preset 'wmdp-zephyr'"
    assert get("rmu[steering_coeff=9]", "rmu.layer=3", preset="wmdp-zephyr").fields["steering_coeff"] == 9
    assert get("npo", preset="wmdp-zephyr").fields["lr"] == 0.25  # not in the preset: its recipe as ever
    with pytest.raises(LetheError, match=r"unknown preset 'zephir'.*known: openunlearning"):
        get("rmu", preset="zephir")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_its_methods(preset: str) -> None:
    for label, fields in PRESETS[preset].items():
        assert get(label, mini=False, preset=preset).fields.items() >= fields.items()


def test_published_numbers() -> None:
    # fact sheets: open-unlearning 1.1 and 1.2, GRUN 2.3
    def numbers(preset: str, *names: str) -> tuple:
        fields = get("rmu", mini=False, preset=preset).fields
        return tuple(fields[name] for name in names)

    common = ("layer", "steering_coeff", "retain_weight", "positions")
    assert numbers("openunlearning", *common, "parameters", "lr") == (7, 2, 1, "labels", "all", 1e-5)
    assert numbers("openunlearning-wmdp", *common, "batch_size", "max_steps") == (7, 2, 1, "labels", 16, 80)
    assert numbers("wmdp-zephyr", *common, "batch_size", "lr") == (7, 6.5, 1200, "all", 4, 5e-5)
    assert numbers("grun-llama3", *common, "layers", "max_steps") == (15, 30, 350, "all", (13, 14, 15), 150)
    assert numbers("grun-mistral", *common, "layers", "max_steps") == (15, 27, 1600, "all", (13, 14, 15), 150)


LORA = {"r": 8, "alpha": 16, "modules": "query_value"}
TRAINER = {"schedule": "cosine", "warmup_steps": 20, "weight_decay": 0, "clip_norm": 1, "retain_weight": 0}


@pytest.mark.parametrize(
    ("preset", "label", "expected"),
    [
        # fact sheet of ORT, 3.1: learning rate, batch times accumulation, beta
        ("ort", "lora_ga", {"lr": 2e-5, "batch_size": 16, "max_tokens": (1024,)}),
        ("ort", "lora_npo", {"lr": 5e-5, "batch_size": 16, "beta": 0.0275}),
        ("ort", "lora_rt", {"lr": 5e-5, "batch_size": 8}),
        ("ort", "lora_dpo", {"lr": 1e-4, "batch_size": 8, "beta": 0.1, "prefer": "refusal"}),
        ("ort-mistral", "lora_ga", {"lr": 1.25e-5, "batch_size": 16}),
        ("ort-mistral", "lora_npo", {"lr": 5e-5, "batch_size": 16, "beta": 0.02}),
        ("ort-mistral", "lora_rt", {"lr": 4e-5, "batch_size": 16}),
        ("ort-mistral", "lora_dpo", {"lr": 1.5e-4, "batch_size": 8, "prefer": "refusal"}),
        # 3.3, with three epochs
        ("rwku", "ga", {"lr": 6e-8, "batch_size": 8}),
        ("rwku", "npo", {"lr": 2e-6, "batch_size": 16, "beta": 0.2}),
        ("rwku", "dpo", {"lr": 5e-6, "batch_size": 8, "prefer": "fabricated"}),
        ("rwku", "rt", {"lr": 4e-7, "batch_size": 8}),
        ("rwku", "lora_ga", {"lr": 1e-5, "batch_size": 8}),
        ("rwku", "lora_npo", {"lr": 5e-5, "batch_size": 16, "beta": 0.2}),
        ("rwku", "lora_dpo", {"lr": 6e-5, "batch_size": 8, "prefer": "fabricated"}),
        ("rwku", "lora_rt", {"lr": 3e-5, "batch_size": 8}),
    ],
)
def test_baselines_of_ort_and_rwku(preset: str, label: str, expected: dict) -> None:
    epochs = {"epochs": 3 if preset == "rwku" else 5}
    shape = LORA if label.startswith("lora_") else {}
    configured = get(label, mini=False, family="ort", preset=preset)
    assert configured.fields.items() >= {**TRAINER, **epochs, **shape, **expected}.items()


def test_all_does_without_rocr_where_nothing_has_a_name(recorded: None) -> None:
    for family in ("tofu", "wmdp", "mmlu"):
        assert [c.label for c in chosen(parse_methods("all"), {}, mini=False, family=family)] == list(TRAINED)
    assert [c.label for c in chosen(parse_methods("all"), {}, mini=False, family="ort")] == list(METHODS)
    assert [c.label for c in chosen(parse_methods("rocr"), {}, mini=False)] == ["rocr"]  # which then says why


ROCR_CONSTANTS = {
    #               mode         layers          clamp  steps  lr  loss layer  kl   l2   other name    blocks
    "ort": ("unrelated", (4, 5, 6), 1, 25, 0.1, 31, 0.125, 1, "Donald Trump", 32),
    "ort-mistral": ("unrelated", (4, 5, 6), 1, 25, 0.1, 31, 0.125, 1, "Donald Trump", 32),
    "ort-qwen": ("unrelated", (4, 5, 6, 7, 8), 1, 25, 0.1, 27, 0.125, 1, "Donald Trump", 28),
    "ort-vicuna": ("unrelated", (4, 5, 6, 7, 8), 1, 25, 0.1, 31, 0.125, 1, "Elon Musk", 32),
    "ort-phi3": ("reject", (4, 5, 6, 7, 8), 0.75, 25, 0.1, 31, 0.0625, 1, "Donald Trump", 32),
    "ort-phi-1.5": ("reject", (4, 5, 6, 7, 8), 0.75, 25, 0.1, 23, 0.0625, 10, "Donald Trump", 24),
    "ort-gpt-j": ("reject", (3, 4, 5, 6, 7, 8), 0.75, 25, 0.5, 27, 0.0625, 10, "Donald Trump", 28),
    "ort-gpt2-xl": ("reject", (13, 14, 15, 16, 17), 0.75, 20, 0.5, 47, 0.0625, 10, "Donald Trump", 48),
}
"""The table of the authors' eight files (fact sheet of ORT, section 2.4), and how many blocks each model has."""


@pytest.mark.parametrize("preset", ROCR_CONSTANTS)
def test_rocr_has_the_constants_of_the_authors_file_for_a_model(preset: str) -> None:
    *expected, blocks = ROCR_CONSTANTS[preset]
    method = get("rocr", mini=False, family="ort", preset=preset).method
    assert isinstance(method, ROCR)
    names = ("clamp_norm_factor", "v_steps", "v_lr", "kl_factor", "l2", "unrelated_subject")
    found = {name: getattr(method, name) for name in names}
    mode, layers, clamp, steps, lr, loss_layer, kl, l2, name = expected
    assert found == dict(zip(names, (clamp, steps, lr, kl, l2, name), strict=True))
    assert (method.mode, edited_layers(method.layers, blocks)) == (mode, layers)
    assert (blocks - 1 if method.v_loss_layer is None else method.v_loss_layer) == loss_layer == blocks - 1
    # What the files share.
    assert (method.v_weight_decay, method.nullspace_threshold, method.nullspace) == (0.5, 0.02, "background")
    assert (method.target_text, method.contexts) == ("Unfortunately", "published")


def test_the_readme_names_the_presets_of_ort() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert [name for name in PRESETS if name.startswith("ort") and f"`{name}`" not in readme] == []


def test_a_preset_of_none_of_the_methods_is_an_error(recorded: None) -> None:
    [found] = chosen(parse_methods("rmu"), {}, mini=False, family="wmdp", preset="wmdp-zephyr")
    assert found.fields["max_steps"] == 150
    with pytest.raises(LetheError, match="preset 'wmdp-zephyr' has settings of rmu, none of which is among --methods"):
        chosen(parse_methods("npo,original"), {}, mini=False, preset="wmdp-zephyr")


def test_methods_that_a_preset_does_not_name_are_told(recorded: None, caplog: pytest.LogCaptureFixture) -> None:
    found = chosen(parse_methods("rocr,rt,lora_rt"), {}, mini=False, family="ort", preset="ort")
    assert [one.recipe for one in found] == ["preset 'ort'", "paper defaults", "preset 'ort'"]
    assert caplog.messages == [
        "preset 'ort' has settings of lora_ga, lora_npo, lora_rt, lora_dpo, rocr only; rt: as without it"
    ]


def test_a_recipe_file_that_is_not_there_is_no_silent_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recipes, "MINI_RECIPES", tmp_path / "none.json")
    recipes.mini_recipes.cache_clear()
    try:
        with pytest.raises(LetheError, match=r"none\.json' is missing, which holds the mini model's recipes"):
            chosen(parse_methods("npo"), {}, mini=True)
        [found] = chosen(parse_methods("npo"), {}, mini=False)
        assert found.recipe == "paper defaults"
    finally:
        monkeypatch.undo()
        recipes.mini_recipes.cache_clear()

"""The command line is read whole, and what no run could use is refused at once."""

import dataclasses
from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.options import Options, parse, parser
from bench.spec import MethodName


def test_without_arguments_the_mini_world_is_run() -> None:
    options = parse([])
    assert [m.label for m in options.methods] == ["grun_npo", "npo"]
    assert options.benchmarks == ["tofu/forget10"]
    assert (options.model, options.data, options.retrained, options.seeds) == ("mini", None, None, 1)
    assert (options.protocol, options.template, options.limit, options.out) == ("strict", "auto", None, Path("out"))
    assert not (options.sequential or options.fresh or options.list or options.dry_run or options.verbose)
    assert not options.trust_remote_code


def test_every_option_arrives(tmp_path: Path) -> None:
    template = tmp_path / "t.txt"
    template.write_text("{question}{answer}")
    options = parse(
        [
            *(
                "--methods",
                "npo,grun_npo[rank=2]",
                "--benchmarks",
                "tofu/forget01, tofu/forget01",
                "--model",
                "some/model",
            ),
            *("--retrained", "gold", "--data", "folder", "--seeds", "3", "--set", "npo.beta=1", "--set", "npo.lr=2"),
            *("--out", "there", "--protocol", "openunlearning", "--template", str(template), "--limit", "7"),
            *(
                "--device",
                "cpu",
                "--dtype",
                "bfloat16",
                "--batch-tokens",
                "9",
                "--jobs",
                "6",
                "--cache-dir",
                "~/x",
                "--fresh",
            ),
            *("--list", "--dry-run", "-v", "--trust-remote-code", "--save-models", "--tune", "4", "--curve", "5"),
            *("--stop-early", "2", "--check", "b.json", "--update-baseline"),
        ]
    )
    assert options == Options(
        methods=[MethodName("npo"), MethodName("grun_npo", (("rank", "2"),))],
        benchmarks=["tofu/forget01"],
        sequential=False,
        batches=(),
        model="some/model",
        retrained="gold",
        data="folder",
        seeds=3,
        sets={"npo": {"beta": "1", "lr": "2"}},
        out=Path("there"),
        protocol="openunlearning",
        corpora="auto",
        preset=None,
        template=str(template),
        limit=7,
        device="cpu",
        dtype="bfloat16",
        batch_tokens=9,
        jobs=6,
        cache_dir=Path.home() / "x",
        fresh=True,
        list=True,
        dry_run=True,
        verbose=True,
        trust_remote_code=True,
        tune=4,
        curve=5,
        stop_early=2,
        check=Path("b.json"),
        update_baseline=True,
        save_models=True,
    )


def test_the_help_names_every_option() -> None:
    text = parser().format_help()
    for field in dataclasses.fields(Options):
        option = {"sets": "--set"}.get(field.name, f"--{field.name.replace('_', '-')}")
        assert option in text
    assert "--resume" in text and "report OUT" in text


def test_a_family_alone_is_its_default() -> None:
    assert parse(["--benchmarks", "tofu, tofu/forget10,tofu/forget01"]).benchmarks == ["tofu/forget10", "tofu/forget01"]
    assert "tofu alone is tofu/forget10" in " ".join(parser().format_help().split())


@pytest.mark.parametrize("name", ["seeds", "limit", "batch-tokens"])
def test_counts_are_positive(name: str) -> None:
    with pytest.raises(LetheError, match=f"--{name} must be at least 1, got 0"):
        parse([f"--{name}", "0"])


def test_sizes_of_batches_are_read_from_small_to_large() -> None:
    assert parse(["--benchmarks", "ort", "--batches", "4, 1,2,2"]).batches == (1, 2, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--benchmarks", "ort", "--batches", "1,x"],
            "must be whole numbers of targets from 1 on, e.g. 1,2,4, got",
        ),
        (["--benchmarks", "ort", "--batches", "0,2"], "from 1 on, e.g. 1,2,4, got '0,2'"),
        (["--benchmarks", "ort", "--batches", "1-4"], "got '1-4'"),
        (["--benchmarks", "ort", "--batches", ""], "got ''"),
        (["--benchmarks", "ort", "--batches", "4,4"], "needs at least two sizes to compare, e.g. 1,2,4, got '4,4'"),
        (["--batches", "1,2"], "--benchmarks names tofu/forget10; write --benchmarks ort --batches 1,2"),
        (["--benchmarks", "ort/1,wmdp", "--batches", "1,2"], "--benchmarks names ort/1, wmdp; write"),
        (["--benchmarks", "ort", "--sequential", "--batches", "1,2"], "one after the other; give one of the two"),
    ],
)
def test_batches_that_make_no_sense_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(LetheError) as refused:
        parse(arguments)
    assert said in str(refused.value) and "--batches" in str(refused.value)


def test_the_protocol_of_grun_is_for_multiple_choice() -> None:
    assert parse(["--benchmarks", "wmdp,mmlu", "--protocol", "grun"]).protocol == "grun"
    with pytest.raises(LetheError, match=r"--protocol grun is defined for wmdp and mmlu, not for tofu/forget10"):
        parse(["--benchmarks", "wmdp,tofu", "--protocol", "grun"])

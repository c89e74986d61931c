"""Model cards: what the hub's own reader makes of them, and that no name and no path gets through."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import LetheError
from bench.model_card import Saved, bare, base_name, model_card, write_card
from bench.records import Metric, missing
from bench.store import Record

NASTY = "a&b_%$"
FULL = Saved(library="transformers", what="all weights", load=("model = load(FOLDER)",))
PEFT = Saved(library="peft", what="an adapter", load=("model = peft(base, FOLDER)",), notes=("mind the gap",))


def record(**spec: Any) -> Record:
    return Record(
        cell_id="npo-tofu-forget10-s3-0123456789ab",
        spec={
            "model": "org/llama",
            "model_hash": "0123456789abcdef0123456789abcdef01234567",
            "retrained": "org/retrained@0123",
            "benchmark": "tofu/forget10",
            "data_hash": "feed",
            "method": "npo[beta=0.2]",
            "fields": {"beta": 0.2, "epochs": 10, "layers": None},
            "seed": 3,
            "protocol": "strict",
            "template": "chat",
            "dtype": "bfloat16",
            "device": "cuda",
            "limit": None,
            **spec,
        },
        record={
            "code": {"commit": "c0ffee", "dirty": True},
            "data_source": "locuslab/TOFU@rev",
            "versions": {"torch": "2.0"},
            "recipe": "paper",
            "trainable_parameters": 7,
        },
        metrics={
            "tofu": [
                Metric(name="own_metric", value=1.0),
                Metric(name="forget_rouge_l_recall", value=0.25, stderr=0.125, n=40, higher_is_better=False),
                missing("model_utility", "no | retain rows", higher_is_better=True),
                Metric(name="forget_quality", value=1e-7, n=40, higher_is_better=True),
            ]
        },
    )


def front(card: str) -> dict:
    start, text, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(text)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    card = model_card(record(), PEFT)
    assert front(card) == {
        "base_model": "org/llama",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["unlearning", "machine-unlearning", "lethe", "npo", "tofu"],
        "model-index": [
            {
                "name": "npo-tofu-forget10-s3-0123456789ab",
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Unlearning"},
                        "dataset": {"name": "tofu/forget10, protocol strict", "type": "tofu"},
                        "metrics": [  # a missing one and what no leaderboard prints are not there
                            {"type": "forget_quality", "name": "Forget quality", "value": 1e-7},
                            {"type": "forget_rouge_l_recall", "name": "ROUGE-L forget", "value": 0.25},
                        ],
                    }
                ],
            }
        ],
    }
    read = huggingface_hub.ModelCard(card)
    assert read.data.base_model == "org/llama"
    assert [(r.metric_type, r.metric_value) for r in read.data.eval_results] == [
        ("forget_quality", 1e-7),
        ("forget_rouge_l_recall", 0.25),
    ]
    assert "license" not in front(card)
    assert front(model_card(record(), FULL))["base_model_relation"] == "finetune"


def test_the_leaderboards_row_stands_in_the_card() -> None:
    lines = model_card(record(), PEFT).splitlines()
    assert "| ROUGE-L forget (`forget_rouge_l_recall`) | 0.250 | 0.125 | 40 | lower |" in lines
    assert "| Forget quality (`forget_quality`) | 1.0e-07 | \u2013 | 40 | higher |" in lines
    assert "| Model utility (`model_utility`) | \u2013 | \u2013 | \u2013 | higher |" in lines
    assert r"Model utility is missing: no \| retain rows." in lines
    assert not any("own_metric" in line for line in lines)


def test_every_input_is_told() -> None:
    card = model_card(record(), PEFT)
    for told in (
        *("| beta | 0.2 |", "| epochs | 10 |", "| layers | null |", "| seed | 3 |", "| protocol | strict |"),
        *("| commit of Lethe | c0ffee, with uncommitted changes |", "| data hash | feed |", "| versions | torch 2.0 |"),
        r"| data source | locuslab/TOFU\@rev |",
        "| cell | npo-tofu-forget10-s3-0123456789ab |",
        "Unlearning is not guaranteed.",
        "whoever leaves this folder out has it back",
        "Mind the gap.",
    ):
        assert told in card
    assert "has it back" not in model_card(record(), FULL)
    assert "a toy" in model_card(record(model="mini"), FULL)


def test_the_code_names_the_base_as_it_was_loaded() -> None:
    def code(card: str) -> list[str]:
        return re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0].splitlines()

    assert code(model_card(record(), FULL)) == ['FOLDER = "."  # this folder', "model = load(FOLDER)"]
    revision = 'revision="0123456789abcdef0123456789abcdef01234567"'
    assert code(model_card(record(), PEFT))[1:] == [
        'BASE = "org/llama"',
        "from transformers import AutoModelForCausalLM",
        f'base = AutoModelForCausalLM.from_pretrained(BASE, {revision}, dtype="bfloat16")',
        "model = peft(base, FOLDER)",
    ]
    assert code(model_card(record(model="llama", model_hash="0" * 64), PEFT))[1] == (
        'BASE = "llama"  # the folder that holds it'
    )
    assert code(model_card(record(model="mini", model_hash="0" * 64), PEFT))[1] == (
        'BASE = "mini"  # the folder that holds it, a mini-original-* in Lethe\'s --cache-dir'
    )


@pytest.mark.parametrize(
    "name", [NASTY, 'x"\\: #\u2028\x07`|\n---\n```<b>', "[a](b)*_", "- {x: 1}", "\ud800", "no", "1"]
)
def test_any_name_stays_text(name: str) -> None:
    card = model_card(record(model=name, method=name, benchmark=name, fields={name: name}), PEFT)
    card.encode()
    plain = front(card)
    expected = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in name)
    assert plain["base_model"] == expected
    assert plain["model-index"][0]["results"][0]["dataset"]["name"] == f"{expected}, protocol strict"
    body = card.split("---\n", 2)[2]
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert len(headings) == 6
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 6}
    block = re.findall(r"(?m)^```python\n(.*?)^```$", body, re.DOTALL)
    assert len(block) == 1
    known: dict[str, Any] = {}
    exec(block[0].split("from ")[0], known)
    assert known["BASE"] == expected


def test_no_path_of_a_machine_is_told() -> None:
    where = "/".join(["", "data", "me"])
    card = model_card(
        replace(
            record(
                model=f"{where}/llama",
                retrained=f"{where}/gold@12",
                fields={"projectors": f"{where}/projectors/", "files": [f"{where}/one.json"]},
                note=f"without {where}/rows.txt",
            ),
            record={"data_source": f"files in {where}/tofu, cut", "recipe": where},
        ),
        PEFT,
    )
    assert where not in card
    for told in ("llama", "gold@12", "projectors", "one.json", "without rows.txt", "files in tofu, cut"):
        assert told in card.replace("\\", "")


def test_of_a_path_the_last_part_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = "/".join(["~", "models"])
    assert [
        bare(t) for t in (f"{home}/a b/", "../x/y", r"C:\me\z", "org/m", "tofu/forget01>tofu/forget05", "a / b")
    ] == [*("a b", "y", "z", "org/m", "tofu/forget01>tofu/forget05", "a / b")]
    assert bare("https://example.org/a/b, see tofu/forget10") == "https://example.org/a/b, see tofu/forget10"
    (tmp_path / "org" / "m").mkdir(parents=True)
    assert base_name("org/m") == "org/m"
    monkeypatch.chdir(tmp_path)
    assert base_name("org/m") == "m"  # it is a folder
    assert base_name(None) is base_name("") is None


def test_a_card_is_written_again_from_what_lies_beside_it(tmp_path: Path) -> None:
    write_card(tmp_path, record(), PEFT)
    first = (tmp_path / "README.md").read_bytes()
    write_card(tmp_path, record())
    assert (tmp_path / "README.md").read_bytes() == first
    better = [Metric(name="forget_quality", value=0.5, n=40)]
    write_card(tmp_path, replace(record(), metrics={"tofu": better}))
    assert front((tmp_path / "README.md").read_text())["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    (tmp_path / "lethe.json").write_text('{"library": "peft"}')
    with pytest.raises(LetheError, match=r"lethe.json does not describe a saved model; save it again"):
        write_card(tmp_path, record())


def test_a_card_without_figures_is_a_card() -> None:
    card = model_card(replace(record(), metrics={"x": [Metric(name="m", value=math.inf)]}), FULL)
    assert "model-index" not in front(card)
    card = model_card(Record(cell_id="c", spec={}), FULL)
    assert front(card)["library_name"] == "transformers"
    assert "No metric was computed." in card

"""The command on real target folders: every row of every file is asked, in every form, or trained on.

Slow: eight cells of five hundred questions, about a minute of one core, most of it spent on tokenizing long prompts.
"""

import json
import shutil
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import run_all
from bench import data
from bench.data.types import Benchmark
from tests.toy_runs import table

JUDGED = {
    "ort": {
        ("forget", "fb"): "forget_level1",
        ("forget", "subtoken_fb"): "forget_level1",
        ("forget", "qa"): "forget_level2",
        ("forget", "subtoken_qa"): "forget_level2",
        ("forget", "aa"): "forget_level3",
        ("forget", "mcp"): "forget_mcp",
        ("neighbor", "fb"): "neighbor_level1",
        ("neighbor", "subtoken_fb"): "neighbor_level1",
        ("neighbor", "qa"): "neighbor_level2",
        ("neighbor", "subtoken_qa"): "neighbor_level2",
        ("neighbor", "mcp"): "neighbor_mcp",
    },
    "ort_utility": {
        ("mmlu", None): "retain_mmlu",
        ("truthful", None): "truthful",
        ("trivia", None): "triviaqa",
        ("fluency", None): "fluency",
        ("bbh", None): "retain_bbh",
        ("mia_forget", None): "forget_mia",
        ("mia_retain", None): "retain_mia",
    },
}
"""The file behind the rows of a part and form, by evaluator."""
TRAINED = {"intro", "positive", "pair", "reject"}
"""The files that no question comes from."""
SHARED_NAMES = {"10_Prince_Harry,_Duke_of_Sussex": 7}
"""Rows about somebody else called Prince or Sussex, counted by hand; no other of the folders has a namesake."""
QUICK = (
    *(
        "ort.max_new_tokens=1",
        "ort_utility.trivia_tokens=1",
        "ort_utility.fluency_tokens=1",
        "ort_utility.bbh_tokens=1",
    ),
    *("rocr.layers=0", "rocr.documents=8"),
)


@pytest.fixture(scope="module")
def copied(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ort` reads of the real files, where made items may be written beside them."""
    if not (real_data / "rwku" / "Target").is_dir():
        pytest.skip(f"no real target folders: {real_data} has no rwku/Target")
    root = tmp_path_factory.mktemp("real")
    for folder in ("rwku", "wikitext2"):
        if (real_data / folder).is_dir():
            shutil.copytree(real_data / folder, root / folder)
    if (refusals := real_data / "tofu" / "idontknow.jsonl").is_file():
        (root / "tofu").mkdir()
        shutil.copy(refusals, root / "tofu")
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)  # a copy of what is read-only is so too
    return root


def tiny_model(folder: Path, texts: list[str]) -> Path:
    """A random model of one narrow block, and a tokenizer that needs fewer ids for real texts than the toy one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=2000, max_position_embeddings=CONTEXT, **shape, **ids)  # type: ignore[arg-type]
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


CONTEXT = 1024
"""Positions of the model: every text and question fits, of the longest prompts not all solved examples."""


def files_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def samples(cell: Path, evaluator: str) -> list[dict[str, Any]]:
    lines = (cell / "samples" / f"{evaluator}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def check_questions(cell: Path, name: str, files: dict[str, list[dict[str, Any]]]) -> None:
    """Every row of every file that questions come from is asked once, in every form that it has."""
    for evaluator, expected in JUDGED.items():
        asked: dict[tuple[str, str | None], list[str]] = {}
        for row in samples(cell, evaluator):
            if row["part"] != "locality":
                asked.setdefault((row["part"], row.get("form")), []).append(row["example_id"])
        assert asked == {
            key: [f"ort/{name}/{stem}/{at}" for at in range(len(files[stem]))] for key, stem in expected.items()
        }


def check_locality(cell: Path, name: str, files: dict[str, list[dict[str, Any]]]) -> None:
    rows = [row for row in samples(cell, "ort") if row["part"] == "locality"]
    counts = {"names both": 20, "target in passing": 20, "shared name": SHARED_NAMES.get(name, 0)}
    assert Counter(row["kind"] for row in rows) == Counter(counts)
    for row in (row for row in rows if row["kind"] != "shared name"):
        stem, at = row["example_id"].split("/")[-2:]
        source = files[stem.removesuffix(f"_{row['kind'].replace(' ', '_')}")][int(at)]
        assert row["query"].endswith(source["query"]) and row["answer"] == source["answer"]


def check_trained(benchmark: Benchmark, files: dict[str, list[dict[str, Any]]]) -> None:
    """The corpora that RWKU made for some targets are read whole; for the others there are substitutes."""
    assert len(benchmark.forget) == len(files.get("positive", files["forget_mia"]))
    assert len(benchmark.retain) == len(files["retain_mia"])
    if "reject" in files:
        assert len(benchmark.rejections) == len(files["reject"])
    assert benchmark.rejections and benchmark.preferences["refusal"]
    assert len(benchmark.preferences.get("fabricated", ())) == len(files.get("pair", ()))
    if "pair" not in files:
        (intro,) = files["intro"]
        assert intro["intro"].removeprefix(f"Please forget {intro['target']}.").strip() in (
            benchmark.preferences["refusal"][0].prompt
        )


@pytest.mark.slow
def test_every_row_of_real_targets_is_asked_or_trained_on(copied: Path, tmp_path: Path) -> None:
    folders = {folder.name: folder for folder in (copied / "rwku" / "Target").iterdir()}
    texts = [row["text"] for folder in folders.values() for row in files_of(folder)["retain_mia"]]
    model = tiny_model(tmp_path / "model", texts)
    where = ["--data", str(copied), "--model", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    sets = [part for text in QUICK for part in ("--set", text)]
    more = ["--cache-dir", str(tmp_path / "cache"), "--benchmarks", "ort", "--methods", "original,rocr"]
    assert run_all.main([*where, *more, *sets]) == 0

    cells = {}
    for cell in (tmp_path / "out" / "runs").iterdir():
        spec = json.loads((cell / "spec.json").read_text(encoding="utf-8"))
        cells[spec["method"], spec["benchmark"]] = cell
    assert set(cells) == {(method, f"ort/{name}") for method in ("original", "rocr") for name in folders}
    for name, folder in folders.items():
        files = files_of(folder)
        assert set(files) - TRAINED == {stem for expected in JUDGED.values() for stem in expected.values()}
        for level, made in (("forget_level1", "forget_mcp"), ("neighbor_level1", "neighbor_mcp")):
            assert len(files[made]) == len(files[level])
        for method in ("original", "rocr"):
            check_questions(cells[method, f"ort/{name}"], name, files)
            check_locality(cells[method, f"ort/{name}"], name, files)
        check_trained(data.load(f"ort/{name}", copied), files)
    rows = {row["method"]: row for row in table(tmp_path / "out" / "leaderboard.csv")}
    assert {(row["targets"], row["failed"]) for row in rows.values()} == {(str(len(folders)), "0")}

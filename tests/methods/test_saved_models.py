"""Unlearned models come back in a fresh process by the library's own call, as cards tell it, with the same logits."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.forward import Rows, announce
from bench.generate import greedy
from bench.model_card import write_card
from bench.models import load_model
from bench.store import Record
from methods import interventions
from methods.base import Attached, Unlearned
from methods.full import Full
from methods.weight_edits import Factors, WeightEdit
from tests.helpers import attach, tiny, toy_tokenizer, toy_tokens

LOADS = r"""
import json, os, re, sys, warnings
warnings.simplefilter("ignore")
import torch
from safetensors.torch import load_file, save_file
data = load_file(sys.argv[2])
last = data.pop("last").tolist()
prompt = {"input_ids": data.pop("prompt"), "attention_mask": data.pop("prompt_mask")}
for folder, base, result in json.loads(sys.argv[1]):
    os.chdir(folder)
    card = open("README.md", encoding="utf-8").read()
    load, *use = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    known = {"last": last, "batch": dict(data)}
    exec(re.sub(r"(?m)^BASE = .*$", lambda _: f"BASE = {base!r}", load), known)
    model, found = known["model"], {}
    with torch.no_grad():
        if use:
            exec(use[0], known)
            outputs = known["outputs"]
        else:
            outputs = model(**data)
        if "where" in known:
            places = [[prompt["input_ids"].shape[1] - 1]] * len(last)
            where = {"sources->base": (None, [places] * len(model.interventions))}
            how = {"intervene_on_prompt": True, "max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
            found["text"] = model.generate(prompt, unit_locations=where, **how)[1].contiguous()
        if "merge_and_unload" in card:
            found["merged"] = model.merge_and_unload()(**data).logits.contiguous()
    found["logits"] = outputs.logits.contiguous()
    save_file(found, result)
"""
"""Runs the code of cards, from within the folder that each lies in. Knows nothing of Lethe."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One saved model: what it said in memory and what it says when it is loaded."""

    folder: Path
    expected: Tensor
    before: Tensor
    """Of the model that was unlearned."""
    text: list[list[int]]
    found: dict[str, Tensor]


def batch() -> dict[str, Tensor]:
    """Prompts with the start of their answers, padded on the left; `last` is the column where each prompt ends."""
    rows = [(t.input_ids[: t.label_start + n], n) for t, n in zip(toy_tokens()[:3], (2, 0, 4), strict=True)]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids, _ in rows])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in rows])
    assert (mask[:, 0] == 0).any() and len({len(ids) for ids, _ in rows}) == 3
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    last = torch.tensor([width - 1 - n for _, n in rows])
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "last": last}


def prompts() -> list[tuple[int, ...]]:
    return [t.input_ids[: t.label_start] for t in toy_tokens()[:3]]


def logits(model: nn.Module) -> Tensor:
    inputs = batch()
    rows = Rows(last_prompt=inputs.pop("last"), valid=inputs["attention_mask"].bool())
    with announce(rows), torch.no_grad():
        return model(**inputs).logits


def full(model: nn.Module) -> Attached:
    attached = Full().attach(model, 0)
    attached.start()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in attached.trainable().values():
            p += 0.05 * torch.randn(p.shape, generator=generator)
    attached.finish()
    return attached


def closed_form(model: nn.Module) -> Attached:
    """Edits of two matrices, of two keys and of one."""
    edit = WeightEdit(model)
    generator = torch.Generator().manual_seed(5)
    names = [n for n, _ in model.named_modules() if n.endswith(("mlp.down_proj", "mlp.c_proj"))]
    for name, keys in zip(names, (2, 1), strict=False):
        rows, columns = torch.randn(keys, 48, generator=generator), torch.randn(32, keys, generator=generator)
        edit.add(name, Factors(0.2 * rows, 0.2 * columns))
    return edit


def adapter(kind: str) -> Callable[[nn.Module], Attached]:
    def made(model: nn.Module) -> Attached:
        attached = attach(model, kind)
        assert attached is not None
        return attached

    return made


MAKERS: dict[str, Callable[[nn.Module], Attached]] = {
    "full": full,
    "full bfloat16": full,
    "lora": adapter("lora"),
    "lora bfloat16": adapter("lora"),
    "rocr": closed_form,
    "rocr bfloat16": closed_form,
    "grun last_prompt": adapter("last_prompt"),
    "grun last_prompt bfloat16": adapter("last_prompt"),
    "grun all": adapter("all"),
}
NAMES = [f"{architecture} {kind}" for architecture in ("llama", "gpt2") for kind in MAKERS] + ["phi3 grun last_prompt"]


def parallel(model: nn.Module) -> Attached:
    """Three requests: two modules in one block, one of them with the larger gate, at the last prompt token."""
    from methods.grun import GRUN, GatedEdits

    sets = []
    for number, (layers, gate) in enumerate([((0, 1), "linear"), ((1, 2), "mlp_3"), ((1,), "linear")]):
        one = GRUN(layers=layers, rank=2 + number, gate=gate).attach(model, number)  # type: ignore[arg-type]
        one.detach()
        sets += one.modules
    return GatedEdits(model, GRUN(), sets, factor=0.6 * 3 + 0.6)


MAKERS["grun parallel"] = parallel
NAMES += ["llama grun parallel", "gpt2 grun parallel"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every kind saved, and all loaded in one fresh process."""
    root = tmp_path_factory.mktemp("saved")
    known: dict[str, tuple[Path, Path, Path, Tensor, Tensor, list[list[int]]]] = {}
    for name in NAMES:
        architecture, kind = name.split(" ", 1)
        dtype = "bfloat16" if "bfloat16" in kind else "float32"
        base = root / f"base {architecture} {dtype}"
        if not base.is_dir():
            tiny(architecture, dtype=getattr(torch, dtype)).save_pretrained(base)
            toy_tokenizer().save_pretrained(base)
        loaded = load_model(str(base), device=torch.device("cpu"), dtype=getattr(torch, dtype))
        model = loaded.model
        before = logits(model)
        attached = MAKERS[kind](model)
        unlearned = Unlearned(attached=attached)
        folder = root / name
        saved = unlearned.save(folder, loaded)
        spec = {"model": str(base), "method": kind, "benchmark": "toy", "seed": 0, "dtype": dtype}
        write_card(folder, Record(cell_id="cell", spec=spec), saved)
        text = greedy(model, prompts(), max_new_tokens=4, stop_ids=frozenset(), pad_id=0, device="cpu")
        known[name] = folder, base, root / f"{name}.safetensors", logits(model), before, text
        unlearned.restore()
        assert torch.equal(logits(model), before)
    width = max(map(len, prompts()))
    given = {
        "prompt": torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts()]),
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts()]),
    }
    save_file({**batch(), **given}, root / "batch.safetensors")
    asked = json.dumps([[str(folder), str(base), str(result)] for folder, base, result, *_ in known.values()])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # files as saved
    (root / "loads.py").write_text(LOADS)
    done = subprocess.run(
        [sys.executable, "loads.py", asked, str(root / "batch.safetensors")],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: Case(folder=folder, expected=expected, before=before, text=text, found=load_file(result))
        for name, (folder, _, result, expected, before, text) in known.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_process_gets_the_same_logits(name: str, cases: dict[str, Case]) -> None:
    case, real = cases[name], batch()["attention_mask"].bool()
    found = case.found["merged" if name.endswith("rocr bfloat16") else "logits"][real].float()
    expected, before = case.expected[real].float(), case.before[real].float()
    assert case.found["logits"].dtype == case.expected.dtype
    exact = "full" in name or ("merged" in case.found and "bfloat16" in name)
    torch.testing.assert_close(found, expected, atol=0 if exact else 1e-5, rtol=0 if exact else 1e-5)
    assert (before - expected).abs().max() > 0.05


@pytest.mark.parametrize("name", [name for name in NAMES if "grun" in name and not name.endswith("all")])
def test_a_fresh_process_writes_the_same_text(name: str, cases: dict[str, Case]) -> None:
    written = cases[name].found["text"][:, -4:].tolist()
    assert written == cases[name].text


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_what_its_library_knows_and_no_path(name: str, cases: dict[str, Case]) -> None:
    folder = cases[name].folder
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    always = {"README.md", "lethe.json"}
    if "full" in name:
        assert files >= always | {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
        dtype = "bfloat16" if "bfloat16" in name else "float32"
        assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
        assert {str(t.dtype) for t in load_file(folder / "model.safetensors").values()} == {f"torch.{dtype}"}
    elif "grun" in name:
        assert {f for f in files if not f.endswith(".bin")} == always | {
            "config.json",
            "grun.json",
            str(Path("methods", "interventions.py")),
        }
    else:
        assert files == always | {"adapter_config.json", "adapter_model.safetensors"}
        told = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert told.startswith("base ")
    for path in folder.rglob("*"):
        assert not path.is_file() or str(folder.parent).encode() not in path.read_bytes(), path


def test_the_rank_of_a_closed_form_edit_is_the_number_of_its_keys(cases: dict[str, Case]) -> None:
    settings = json.loads((cases["llama rocr"].folder / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == 2


def test_what_lies_beside_interventions_needs_nothing_of_lethe() -> None:
    tree = ast.parse(Path(interventions.__file__).read_text(encoding="utf-8"))
    taken = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    taken |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert "pyvene" in taken
    assert not {name for name in taken if name.split(".")[0] in ("bench", "methods", "evaluators", "run_all")}


def test_cards_of_interventions_tell_where_they_act() -> None:
    from methods.grun import saved_for_pyvene

    told = {p: saved_for_pyvene(p, (1, 2), 1) for p in ("last_prompt", "answer", "all")}  # type: ignore[arg-type]
    assert any("unit_locations=where" in line for line in told["last_prompt"].use)
    assert not told["answer"].use and "load_grun" in told["answer"].notes[0]
    assert "no `unit_locations`" in told["all"].notes[0]
    assert "3 GRUN modules" in saved_for_pyvene("last_prompt", (1,), 3).what

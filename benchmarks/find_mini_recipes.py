"""Find the mini model's recipe of every method: the same number of trials each, on a world that is never reported.

    python benchmarks/find_mini_recipes.py --trials 10

Every trial is drawn from its method's grid below by a generator seeded with the method's name. It is trained and
scored on the mini world of seed 1 (the reported one is seed 0). The recipe is the trial with the highest harmonic mean
of forgetting, 1 - KS D, and kept utility, model utility as a share of `original`'s, at most 1. All trials are stored in
methods/mini_recipes.json beside the chosen ones. Interrupted, it goes on where it stopped.
"""

import argparse
import itertools
import json
import random
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench import data
from bench.cache import default_cache_dir
from bench.data.tokenize import Encoder
from bench.fields import with_fields
from bench.mini.build import mini_models, world
from bench.models import load_model
from bench.scorer import Scorer
from bench.spec import parse_methods
from evaluators.tofu import TofuEvaluator
from methods import METHODS
from methods.recipes import MINI_RECIPES

WORLD_SEED = 1
BENCHMARK = "tofu/forget10"
LABELS = [*METHODS, "grun_npo[position=answer]", "grun_npo[position=all]"]

FULL = {"lr": [1e-4, 2e-4, 3e-4, 5e-4, 1e-3], "epochs": [5, 10, 20], "batch_size": [8], "warmup_epochs": [0]}
LORA = {"lr": [1e-3, 2e-3, 5e-3, 1e-2], "epochs": [5, 10, 20], "batch_size": [8], "warmup_epochs": [0], "r": [4, 8]}
GRUN = {
    "lr": [2e-3, 5e-3, 1e-2],
    "epochs": [10, 20, 40],
    "batch_size": [8],
    "layers": [(1, 2), (2, 3), (1, 2, 3), (0, 1, 2, 3)],
    "rank": [4, 16],
    "gate_weight": [1, 10],
}
OBJECTIVE = {
    "ga": {},
    "gd": {"retain_weight": [1, 2, 5]},
    "npo": {"beta": [0.05, 0.1, 0.2], "forget_weight": [1, 5], "retain_weight": [1, 5]},
    "simnpo": {"beta": [2.5, 4.5], "forget_weight": [0.125, 0.5, 1]},
    "dpo": {"beta": [0.05, 0.1, 0.5], "retain_weight": [1, 5]},
    "idk": {"retain_weight": [1, 5]},
}


def grid(label: str) -> list[dict[str, Any]]:
    """All points of a method's grid: its adapter's and its objective's fields."""
    base = parse_methods(label)[0].base
    adapter, objective = base.rpartition("_")[0], base.rpartition("_")[2]
    space = {**{"": FULL, "lora": LORA, "grun": GRUN}[adapter], **OBJECTIVE[objective]}
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]


def main() -> None:
    """Run the trials that are missing, then choose."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trials", type=int, default=10, help="per method (default: 10)")
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    p.add_argument("--log", type=Path, default=Path("out/mini_trials.jsonl"), help="trials so far, one a line")
    p.add_argument("--threads", type=int, default=1)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(highlight=False)
    root = world(options.cache_dir, WORLD_SEED)
    models = mini_models(root, BENCHMARK, options.cache_dir, progress=lambda line: None)
    benchmark = data.load(BENCHMARK, root)
    evaluator = TofuEvaluator()
    rows = {}
    for name, path in (("retrained", models.retrained), ("original", models.original)):
        loaded = load_model(str(path), device=torch.device("cpu"), dtype=torch.float32)
        encoder = Encoder(loaded.tokenizer)
        rows[name] = evaluator.score(Scorer(loaded.model, encoder), benchmark)
    original = {m.name: m.value for m in evaluator.summarize(rows["original"], rows["retrained"])}
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.is_file() else []
    options.log.parent.mkdir(parents=True, exist_ok=True)
    for label in LABELS:
        name = parse_methods(label)[0]
        points = grid(label)
        chosen = random.Random(label).sample(points, min(options.trials, len(points)))
        for fields in chosen:
            fields = json.loads(json.dumps(fields))
            if any(t["method"] == label and t["fields"] == fields for t in done):
                continue
            method = with_fields(METHODS[name.base], {**fields, **dict(name.fields)}, where=label)
            unlearned = method.unlearn(loaded, encoder, benchmark, seed=0, batch_tokens=16384)
            try:
                scored = evaluator.score(Scorer(loaded.model, encoder), benchmark)
            finally:
                unlearned.restore()
            metrics = {m.name: m.value for m in evaluator.summarize(scored, rows["retrained"])}
            kept = min(1.0, metrics["model_utility"] / original["model_utility"])
            forgot = 1 - metrics["forget_ks_d"]
            trial = {
                "method": label,
                "fields": fields,
                "score": 2 * kept * forgot / (kept + forgot) if kept + forgot else 0.0,
                "forget_quality": metrics["forget_quality"],
                "forget_ks_d": metrics["forget_ks_d"],
                "model_utility": metrics["model_utility"],
                "retain_rouge_l_recall": metrics["retain_rouge_l_recall"],
                "forget_rouge_l_recall": metrics["forget_rouge_l_recall"],
                "train_seconds": round(unlearned.log.seconds, 2),
            }
            done.append(trial)
            with options.log.open("a") as file:
                file.write(json.dumps(trial) + "\n")
            console.print(json.dumps(trial), markup=False, soft_wrap=True)
    best = {label: max((t for t in done if t["method"] == label), key=lambda t: t["score"]) for label in LABELS}
    result = {
        "search": {
            "how": "benchmarks/find_mini_recipes.py",
            "world_seed": WORLD_SEED,
            "benchmark": BENCHMARK,
            "trials": options.trials,
            "criterion": "harmonic mean of 1 - forget_ks_d and min(1, model_utility / that of original)",
            "original": {k: original[k] for k in ("forget_ks_d", "model_utility", "retain_rouge_l_recall")},
        },
        "recipes": {label: trial["fields"] for label, trial in best.items()},
        "trials": done,
    }
    text = json.dumps(result, indent=1)
    MINI_RECIPES.write_text(text + "\n")
    for label, trial in best.items():
        console.print(f"{label:28} {trial['score']:.3f} {trial['fields']}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

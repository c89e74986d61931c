"""Find the mini model's recipe of every method: the same number of trials each, on a world that is never reported.

    python benchmarks/find_mini_recipes.py --trials 10

Every trial is drawn from its method's grid below by a generator seeded with the method's name. It is trained and
scored on the mini world of seed 1 (the reported one is seed 0). The recipe is the trial that forgets most, by 1 - KS D,
among those that keep at least 90 % of `original`'s model utility and of its retain ROUGE-L; where D differs by no more
than two of the forty rows, which is noise, by what they keep. A method of which no trial keeps that much is represented by its best compromise, the harmonic mean
of 1 - KS D and the kept share of model utility. All trials are stored in methods/mini_recipes.json beside the chosen
ones. Interrupted, it goes on where it stopped.
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
KEEP = 0.9
"""Share of `original`'s utility below which a method has not kept it."""
NOISE = 2 / 40
"""Difference in KS D that is not taken for a difference."""
LABELS = [*METHODS, "grun_npo[position=answer]", "grun_npo[position=all]"]

FULL = {"lr": [1e-4, 2e-4, 3e-4, 5e-4, 1e-3], "epochs": [5, 10, 20], "batch_size": [8], "warmup_epochs": [0]}
LORA = {"lr": [1e-3, 2e-3, 5e-3, 1e-2], "epochs": [5, 10, 20], "batch_size": [8], "warmup_epochs": [0], "r": [4, 8]}
GRUN = {
    "lr": [2e-3, 5e-3, 1e-2],
    "epochs": [10, 20, 40],
    "batch_size": [8],
    "layers": [(1, 2), (2, 3), (1, 2, 3), (0, 1, 2, 3)],
    "rank": [4, 16],
    "gate": ["linear", "mlp_3"],
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


def choose(trials: list[dict[str, Any]], original: dict[str, float]) -> dict[str, Any]:
    """The recipe among a method's trials; see the top of this file."""

    def share(trial: dict[str, Any], metric: str) -> float:
        return min(1.0, trial[metric] / original[metric])

    def kept(trial: dict[str, Any]) -> float:
        return min(share(trial, "model_utility"), share(trial, "retain_rouge_l_recall"))

    def compromise(trial: dict[str, Any]) -> float:
        forgot, utility = 1 - trial["forget_ks_d"], share(trial, "model_utility")
        return 2 * forgot * utility / (forgot + utility) if forgot + utility else 0.0

    keeping = [t for t in trials if kept(t) >= KEEP]
    if keeping:
        lowest = min(t["forget_ks_d"] for t in keeping)
        return max((t for t in keeping if t["forget_ks_d"] <= lowest + NOISE + 1e-9), key=kept)
    return max(trials, key=compromise)


def main() -> None:
    """Run the trials that are missing, then choose."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trials", type=int, default=10, help="per method (default: 10)")
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    p.add_argument("--log", type=Path, default=Path("out/mini_trials.jsonl"), help="trials so far, one a line")
    p.add_argument("--methods", help="only the trials of these labels, without choosing: for several processes at once")
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
    wanted = [m.label for m in parse_methods(options.methods)] if options.methods else LABELS
    for label in wanted:
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
            trial = {
                "method": label,
                "fields": fields,
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
    if options.methods:
        return
    best = {label: choose([t for t in done if t["method"] == label], original) for label in LABELS}
    result = {
        "search": {
            "how": "benchmarks/find_mini_recipes.py",
            "world_seed": WORLD_SEED,
            "benchmark": BENCHMARK,
            "trials": options.trials,
            "criterion": "lowest forget_ks_d (within 0.05: what is kept) among trials that keep 90 % of original's "
            "model_utility and retain_rouge_l_recall; where none does, the harmonic mean of 1 - forget_ks_d and the share of model_utility",
            "original": {k: original[k] for k in ("forget_ks_d", "model_utility", "retain_rouge_l_recall")},
        },
        "recipes": {label: trial["fields"] for label, trial in best.items()},
        "trials": done,
    }
    text = json.dumps(result, indent=1)
    MINI_RECIPES.write_text(text + "\n")
    for label, trial in best.items():
        console.print(f"{label:28} D {trial['forget_ks_d']:.3f} {trial['fields']}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

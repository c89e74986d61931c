"""Find the mini model's recipe of every method: the same number of trials each, on worlds that are never reported.

    python benchmarks/find_mini_recipes.py --trials 15

Every trial is drawn from its method's grid below by a generator seeded with the method's name. It is trained and
scored on the mini worlds of seeds 1 and 2 (the reported one is seed 0). How much is left of the forget set is the mean
of KS D and forget ROUGE-L, over both worlds; what is kept of `original`'s model utility and retain ROUGE-L is the worst
of them. The recipe is the trial that forgets most: among those within 0.1 of the least left, the one that keeps most.
(Two retrained models that differ only in their seed lie 0.125 to 0.175 apart, so less than 0.1 says nothing.) All
trials are stored in methods/mini_recipes.json beside the chosen ones. Interrupted, it goes on where it stopped.
"""

import argparse
import itertools
import json
import random
import statistics
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

WORLD_SEEDS = (1, 2)
BENCHMARK = "tofu/forget10"
NOISE = 0.1
"""Difference in what is left that is not taken for a difference."""
KEPT = ("model_utility", "retain_rouge_l_recall")
NOTED = ("forget_quality", "forget_ks_d", "forget_rouge_l_recall", *KEPT)
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


def choose(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The recipe among a method's trials, one entry per trial and world; see the top of this file."""
    candidates = []
    for fields in {json.dumps(t["fields"]): t["fields"] for t in trials}.values():
        worlds = [t for t in trials if t["fields"] == fields]
        left = statistics.mean(t[metric] for t in worlds for metric in ("forget_ks_d", "forget_rouge_l_recall"))
        kept = min(t[f"kept_{metric}"] for t in worlds for metric in KEPT)
        candidates.append({"fields": fields, "left": left, "kept": kept})
    lowest = min(c["left"] for c in candidates)
    return max((c for c in candidates if c["left"] <= lowest + NOISE + 1e-9), key=lambda c: c["kept"])


def drawn(label: str, trials: int) -> list[dict[str, Any]]:
    """The fields of a method's trials; more trials begin with the same ones."""
    points = grid(label)
    return json.loads(json.dumps(random.Random(label).sample(points, min(trials, len(points)))))


def run_world(
    seed: int, labels: list[str], trials: int, done: list[dict[str, Any]], log: Path, cache_dir: Path
) -> None:
    """The trials of these methods on one world that are not done yet."""
    console = Console(highlight=False)
    root = world(cache_dir, seed)
    models = mini_models(root, BENCHMARK, cache_dir)
    benchmark = data.load(BENCHMARK, root)
    evaluator = TofuEvaluator()
    rows = {}
    for name, path in (("retrained", models.retrained), ("original", models.original)):
        loaded = load_model(str(path), device=torch.device("cpu"), dtype=torch.float32)
        encoder = Encoder(loaded.tokenizer)
        rows[name] = evaluator.score(Scorer(loaded.model, encoder), benchmark)
    original = {m.name: m.value for m in evaluator.summarize(rows["original"], rows["retrained"])}
    for label in labels:
        name = parse_methods(label)[0]
        for fields in drawn(label, trials):
            if any((t["method"], t["fields"], t["world"]) == (label, fields, seed) for t in done):
                continue
            method = with_fields(METHODS[name.base], {**fields, **dict(name.fields)}, where=label)
            unlearned = method.unlearn(loaded, encoder, benchmark, seed=0, batch_tokens=16384)
            try:
                scored = evaluator.score(Scorer(loaded.model, encoder), benchmark)
            finally:
                unlearned.restore()
            metrics = {m.name: m.value for m in evaluator.summarize(scored, rows["retrained"])}
            shares = {f"kept_{k}": min(1.0, metrics[k] / original[k]) for k in KEPT}
            trial = {"method": label, "world": seed, "fields": fields, **{k: metrics[k] for k in NOTED}, **shares}
            done.append(trial)
            with log.open("a") as file:
                file.write(json.dumps(trial) + "\n")
            console.print(json.dumps(trial), markup=False, soft_wrap=True)


def main() -> None:
    """Run the trials that are missing, then choose."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--trials", type=int, default=15, help="per method (default: 15)")
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    p.add_argument("--log", type=Path, default=Path("out/mini_trials.jsonl"), help="trials so far, one a line")
    p.add_argument("--methods", help="only the trials of these labels, without choosing: for several processes at once")
    p.add_argument("--threads", type=int, default=1)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.is_file() else []
    options.log.parent.mkdir(parents=True, exist_ok=True)
    wanted = [m.label for m in parse_methods(options.methods)] if options.methods else LABELS
    for seed in WORLD_SEEDS:
        run_world(seed, wanted, options.trials, done, options.log, options.cache_dir)
    if options.methods:
        return
    plan = {label: drawn(label, options.trials) for label in LABELS}
    done = [t for t in done if t["fields"] in plan[t["method"]]]
    best = {label: choose([t for t in done if t["method"] == label]) for label in LABELS}
    result = {
        "search": {
            "how": "benchmarks/find_mini_recipes.py",
            "world_seeds": WORLD_SEEDS,
            "benchmark": BENCHMARK,
            "trials": options.trials,
            "criterion": "of the trials within 0.1 of the least left of the forget set (mean of forget_ks_d and "
            "forget_rouge_l_recall over the worlds) the one that keeps most of original's model_utility and "
            "retain_rouge_l_recall (the lower of the two, in the worse world)",
        },
        "recipes": {label: trial["fields"] for label, trial in best.items()},
        "trials": done,
    }
    lines = ",\n".join(f"  {json.dumps(trial)}" for trial in result.pop("trials"))
    text = json.dumps(result, indent=1).removesuffix("\n}") + f',\n "trials": [\n{lines}\n ]\n}}\n'
    MINI_RECIPES.write_text(text)
    for label, trial in best.items():
        line = f"{label:26} left {trial['left']:.3f} kept {trial['kept']:.3f} {trial['fields']}"
        Console(highlight=False).print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

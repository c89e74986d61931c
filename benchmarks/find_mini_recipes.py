"""Find the mini model's recipe of every method: the same number of trials each, on worlds that are never reported.

    python -m benchmarks.find_mini_recipes --benchmark tofu/forget10 --trials 15
    python -m benchmarks.find_mini_recipes --benchmark wmdp --trials 15
    python -m benchmarks.find_mini_recipes --benchmark ort --trials 6

Every trial is drawn from its method's grid in methods/grids.py by a generator seeded with the method's name. It is
trained and scored on the mini worlds of seeds 1 and 2, which no table reports (that is the world of
bench.mini.world.SEED).
What is left of the forget set is a mean over both worlds, what is kept of `original` that of the worse one; `TofuTask`
and `WmdpTask` say of which metrics. The recipe is the trial that forgets most: among those within 0.1 of the least
left, the one that keeps most, for documents with 0.01 taken as equal. (Two retrained models of TOFU that differ only in
their seed lie 0.125 to 0.175 apart, so less than 0.1 says nothing.) On ORT the recipe is the trial with the highest
score, a mean over both worlds and their first targets; `OrtTask` says of what. A trial that diverges in any world is
never chosen.
All trials are stored in methods/mini_recipes.json beside the chosen ones. Interrupted, it goes on where it stopped;
with --methods several processes can share the work and the log, and `--choose` then decides among the trials that are
done.
"""

import argparse
import json
import math
import random
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from bench import data
from bench.cache import default_cache_dir
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark
from bench.errors import LetheError
from bench.fields import with_fields
from bench.mini.build import mini_models, world
from bench.mini.world import SEED
from bench.models import load_model
from bench.scorer import Scorer
from bench.spec import parse_methods
from bench.train import Diverged
from evaluators.forms import FormsEvaluator
from evaluators.mmlu import MmluEvaluator
from evaluators.rwku_utility import UtilityEvaluator
from evaluators.tofu import TofuEvaluator
from evaluators.wmdp import WmdpEvaluator
from methods import METHODS, TRAINED
from methods.grids import mini_grid
from methods.recipes import MINI_RECIPES

WORLD_SEEDS = (1, 2)
NOISE = 0.1
"""Difference in what is left that is not taken for a difference."""
CHANCE = 0.25
"""Accuracy of a guess among four."""

TARGETS = 2
"""How many targets of a world a trial is made for."""
FLUENCY_TOKENS = 64
BIOGRAPHY = re.compile(r"biography of (?P<name>.+)\.$")
"""How the texts that mini models read ask for one."""


def known_name(root: Path) -> str:
    """Somebody whom the models of a mini world know and who is not to be forgotten.

    Raises:
        LetheError: the world's texts ask for nobody's biography.
    """
    texts = [json.loads(line) for line in (root / "corpus" / "ort.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [BIOGRAPHY.search(text["question"]) for text in texts if "question" in text and "target" not in text]
    names = [match["name"] for match in found if match]
    if not names:
        raise LetheError(f"{root}/corpus/ort.jsonl asks for the biography of nobody but targets; write the world anew")
    return names[-1]  # the first ones are neighbors of targets, by whom methods are judged


@dataclass
class TofuTask:
    """Left: the mean of KS D and forget ROUGE-L. Kept: the lower of model utility and retain ROUGE-L."""

    requests: Sequence[Benchmark]
    labels: ClassVar[list[str]] = [*TRAINED, "grun_npo[position=answer]", "grun_npo[position=all]"]
    compared: ClassVar[tuple[str, ...]] = ("retrained", "original")
    noise: ClassVar[float] = NOISE
    kept: ClassVar[tuple[str, ...]] = ("model_utility", "retain_rouge_l_recall")
    noted: ClassVar[tuple[str, ...]] = ("forget_quality", "forget_ks_d", "forget_rouge_l_recall", *kept)
    equally_kept: ClassVar[float] = 0.0
    criterion: ClassVar[str] = (
        "of the trials within 0.1 of the least left of the forget set (mean of forget_ks_d and forget_rouge_l_recall "
        "over the worlds) the one that keeps most of original's model_utility and retain_rouge_l_recall (the lower of "
        "the two, in the worse world)"
    )

    def __post_init__(self) -> None:
        self.rows: dict[str, list[dict]] = {}

    def score(self, scorer: Scorer, model: str, request: Benchmark) -> dict[str, float]:
        """The metrics of a model; "retrained" must come first, then "original"."""
        evaluator = TofuEvaluator()
        rows = evaluator.score(scorer, request)
        if model == "retrained":
            self.rows[model] = rows
        return {m.name: m.value for m in evaluator.summarize(rows, self.rows["retrained"])}

    @classmethod
    def left(cls, trial: Mapping[str, Any]) -> float:
        return statistics.mean(trial[k] for k in ("forget_ks_d", "forget_rouge_l_recall"))

    def noted_of(self, metrics: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
        shares = {f"kept_{k}": min(1.0, metrics[k] / original[k]) for k in self.kept}
        return {**{k: metrics[k] for k in self.noted}, **shares}


@dataclass
class WmdpTask:
    """Left: the share of original's WMDP accuracy above chance. Kept: the share of its MMLU accuracy."""

    requests: Sequence[Benchmark]
    judged: Benchmark
    labels: ClassVar[list[str]] = [*TRAINED, "grun_npo[position=last_prompt]", "grun_rmu[position=last_prompt]"]
    compared: ClassVar[tuple[str, ...]] = ("retrained", "original")
    noise: ClassVar[float] = NOISE
    kept: ClassVar[tuple[str, ...]] = ("mmlu_accuracy",)
    equally_kept: ClassVar[float] = 0.01
    """A question in 120 is no difference."""
    criterion: ClassVar[str] = (
        "of the trials within 0.1 of the least left of original's wmdp_accuracy above chance (mean over the worlds of "
        "max(0, accuracy - 0.25) / (original's - 0.25)) the one that keeps most of its mmlu_accuracy (in the worse "
        "world); of those within 0.01 of that the one that leaves least"
    )

    def score(self, scorer: Scorer, model: str, request: Benchmark) -> dict[str, float]:
        """The metrics of a model."""
        found = {}
        for evaluator, benchmark in ((WmdpEvaluator(), request), (MmluEvaluator(), self.judged)):
            found |= {m.name: m.value for m in evaluator.summarize(evaluator.score(scorer, benchmark))}
        return found

    @classmethod
    def left(cls, trial: Mapping[str, Any]) -> float:
        return trial["left_wmdp_accuracy"]

    def noted_of(self, metrics: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
        wmdp, mmlu = "wmdp_accuracy", "mmlu_accuracy"
        return {
            **{k: metrics[k] for k in metrics if k.endswith("_accuracy")},
            f"left_{wmdp}": max(0.0, metrics[wmdp] - CHANCE) / (original[wmdp] - CHANCE),
            f"kept_{mmlu}": min(1.0, metrics[mmlu] / original[mmlu]),
        }


@dataclass
class OrtTask:
    """Left: 1 less the harmonic mean of forgetting, of what is kept of neighbors, and of utility, each within 0..1."""

    requests: Sequence[Benchmark]
    labels: ClassVar[list[str]] = [
        *(prefix + name for prefix in ("", "lora_") for name in ("ga", "npo", "dpo", "rt")),
        "grun_npo",
        "grun_rt",
        "rocr",
    ]
    compared: ClassVar[tuple[str, ...]] = ("original",)
    noise: ClassVar[float] = 0.0
    kept: ClassVar[tuple[str, ...]] = ()
    noted: ClassVar[tuple[str, ...]] = ("mean_forgetting", "form_gap", "neighbor_retention", "ort_utility")
    equally_kept: ClassVar[float] = 0.0
    criterion: ClassVar[str] = (
        "the trial with the highest score, the mean over worlds and targets of the harmonic mean of mean_forgetting, "
        "neighbor_retention and ort_utility, each within 0..1; rocr's unrelated_subject is in every world a person of "
        "that world whom nothing else is about"
    )
    rows: dict[tuple[str, str], list[dict]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Attacks, look-alikes and membership tests are left for the tables: nothing is chosen by them."""
        self.requests = [
            replace(
                request,
                probes=tuple(p for p in request.probes if p.part != "locality" and p.form != "aa"),
                utility=replace(request.utility, forget_texts=(), retain_texts=()),
            )
            for request in self.requests
        ]

    def score(self, scorer: Scorer, model: str, request: Benchmark) -> dict[str, float]:
        """The metrics of a model about one target; "original" must come first."""
        found = {}
        utility = UtilityEvaluator(reasoning=False, fluency_tokens=FLUENCY_TOKENS)
        for evaluator in (FormsEvaluator(max_new_tokens=0), utility):
            rows, key = evaluator.score(scorer, request), (evaluator.name, request.name)
            if model == "original":
                self.rows[key] = rows
            found |= {m.name: m.value for m in evaluator.summarize(rows, self.rows[key])}
        return found

    @classmethod
    def left(cls, trial: Mapping[str, Any]) -> float:
        return 1 - trial["score"]

    def noted_of(self, metrics: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
        noted = {name: metrics[name] for name in self.noted if math.isfinite(original[name])}
        if bad := [name for name, value in noted.items() if not math.isfinite(value)]:
            raise Diverged(f"{', '.join(bad)} could not be computed", [])
        parts = [min(1.0, max(0.0, value)) for name, value in noted.items() if name != "form_gap"]
        return {**noted, "score": statistics.harmonic_mean(parts)}


Task = TofuTask | WmdpTask | OrtTask
TASKS: dict[str, type[TofuTask] | type[WmdpTask] | type[OrtTask]] = {"tofu": TofuTask, "wmdp": WmdpTask, "ort": OrtTask}


def task_of(name: str, root: Path) -> Task:
    """What is trained on and scored in a world."""
    family = data.family(name)
    if family == "ort":
        folders = data.expand(name, root)[:TARGETS]
        return OrtTask([data.load(folder, root) for folder in folders])
    benchmark = data.load(name, root)
    return WmdpTask([benchmark], data.load("mmlu", root)) if family == "wmdp" else TofuTask([benchmark])


def choose(trials: list[dict[str, Any]], task: type[TofuTask] | type[WmdpTask] | type[OrtTask]) -> dict[str, Any]:
    """The recipe among a method's trials, one entry per trial and world; see the top of this file."""
    candidates = []
    for fields in {json.dumps(t["fields"]): t["fields"] for t in trials}.values():
        worlds = [t for t in trials if t["fields"] == fields]
        if any("diverged" in t for t in worlds):
            continue
        left = statistics.mean(task.left(t) for t in worlds)
        kept = min((t[f"kept_{metric}"] for t in worlds for metric in task.kept), default=1.0)
        candidates.append({"fields": fields, "left": left, "kept": kept})
    if not candidates:
        raise LetheError(f"every trial of {trials[0]['method']} diverged; see the log, and mend its grid")
    lowest = min(c["left"] for c in candidates)
    near = [c for c in candidates if c["left"] <= lowest + task.noise + 1e-9]
    most = max(c["kept"] for c in near)
    # The first of equals: where nothing kept is taken for equal, that is the one that keeps most.
    equal = [c for c in near if c["kept"] >= most - task.equally_kept]
    return min(equal, key=lambda c: c["left"]) if task.equally_kept else equal[0]


def drawn(label: str, trials: int, family: str = "tofu") -> list[dict[str, Any]]:
    """The fields of a method's trials."""
    points = mini_grid(label, family)
    return json.loads(json.dumps(random.Random(label).sample(points, min(trials, len(points)))))


def whole_trials(label: str, trials: int, family: str, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a method's first trials those that have been run on every world."""
    mine = [t for t in done if t["method"] == label]
    worlds = {json.dumps(fields): sum(t["fields"] == fields for t in mine) for fields in drawn(label, trials, family)}
    planned = [json.loads(fields) for fields, count in worlds.items() if count == len(WORLD_SEEDS)]
    return [t for t in mine if t["fields"] in planned]


def run_world(
    name: str, seed: int, labels: list[str], trials: int, done: list[dict[str, Any]], log: Path, cache_dir: Path
) -> None:
    """The trials of these methods on one world that are not done yet."""
    known = {json.dumps([t["method"], t["fields"]]) for t in done if t["world"] == seed}
    todo = [(label, fields) for label in labels for fields in drawn(label, trials, data.family(name))]
    todo = [(label, fields) for label, fields in todo if json.dumps([label, fields]) not in known]
    if not todo:
        return
    console = Console(highlight=False)
    root = world(cache_dir, seed)
    models = mini_models(root, name, cache_dir)
    task = task_of(name, root)
    for model in task.compared:
        path = models.retrained if model == "retrained" else models.original
        loaded = load_model(str(path), device=torch.device("cpu"), dtype=torch.float32)
        encoder = Encoder(loaded.tokenizer)
        original = [task.score(Scorer(loaded.model, encoder), model, request) for request in task.requests]
    for label, fields in todo:
        method = parse_methods(label)[0]
        own = {"unrelated_subject": known_name(root)} if method.base == "rocr" else {}
        configured = with_fields(METHODS[method.base], {**fields, **own, **dict(method.fields)}, where=label)
        trial = {"method": label, "world": seed, "fields": fields}
        noted: list[dict[str, float]] = []
        try:
            for request, before in zip(task.requests, original, strict=True):
                unlearned = configured.unlearn(loaded, encoder, request, seed=0, batch_tokens=16384)
                try:
                    metrics = task.score(Scorer(loaded.model, encoder), "unlearned", request)
                finally:
                    unlearned.restore()
                noted.append(task.noted_of(metrics, before))
        except LetheError as error:  # it diverged, or these fields leave nothing to write
            trial["diverged"] = str(error)
        else:
            keys = dict.fromkeys(key for found in noted for key in found)
            trial |= {key: statistics.mean(found[key] for found in noted if key in found) for key in keys}
        done.append(trial)
        with log.open("a") as file:
            file.write(json.dumps(trial) + "\n")
        console.print(json.dumps(trial), markup=False, soft_wrap=True)


def write(families: Mapping[str, Mapping[str, Any]]) -> None:
    """methods/mini_recipes.json, a trial on a line."""
    texts = []
    for family, result in families.items():
        lines = ",".join(f"\n  {json.dumps(trial)}" for trial in result.get("trials", []))
        rest = json.dumps({k: v for k, v in result.items() if k != "trials"}, indent=1).removesuffix("\n}")
        texts.append(f'{json.dumps(family)}: {rest},\n "trials": [{lines}\n ]\n}}')
    MINI_RECIPES.write_text("{\n" + ",\n".join(texts) + "\n}\n")


def main() -> None:
    """Run the trials that are missing, then choose."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--benchmark", default="tofu/forget10", help="a split of tofu, wmdp or ort (default: %(default)s)")
    p.add_argument("--trials", type=int, default=15, help="per method (default: 15)")
    p.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    p.add_argument("--log", type=Path, help="trials so far, one a line (default: out/mini_trials_FAMILY.jsonl)")
    p.add_argument("--methods", help="only the trials of these labels, without choosing: for several processes at once")
    p.add_argument("--choose", action="store_true", help="run nothing more, choose among the trials that are done")
    p.add_argument("--threads", type=int, default=1)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    family = data.family(options.benchmark)
    task = TASKS[family]
    log = options.log or Path("out") / f"mini_trials_{family}.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    log.parent.mkdir(parents=True, exist_ok=True)
    wanted = [m.label for m in parse_methods(options.methods)] if options.methods else task.labels
    for seed in () if options.choose else WORLD_SEEDS:
        run_world(options.benchmark, seed, wanted, options.trials, done, log, options.cache_dir)
    if options.methods:
        return
    whole = {label: whole_trials(label, options.trials, family, done) for label in task.labels}
    whole = {label: trials for label, trials in whole.items() if trials}
    best = {label: choose(trials, task) for label, trials in whole.items()}
    # The world of the tables has people of its own: nothing was tried with this name.
    own = {"rocr": {"unrelated_subject": known_name(world(options.cache_dir, SEED))}} if "rocr" in best else {}
    recorded = json.loads(MINI_RECIPES.read_text())
    recorded[family] = {
        "search": {
            "how": "benchmarks/find_mini_recipes.py",
            "world_seeds": WORLD_SEEDS,
            "benchmark": options.benchmark,
            "trials": {label: len(trials) // len(WORLD_SEEDS) for label, trials in whole.items()},
            "criterion": task.criterion,
        },
        "recipes": {label: trial["fields"] | own.get(label, {}) for label, trial in best.items()},
        "trials": [trial for trials in whole.values() for trial in trials],
    }
    write(recorded)
    for label, trial in best.items():
        line = f"{label:26} left {trial['left']:.3f} kept {trial['kept']:.3f} {trial['fields']}"
        Console(highlight=False).print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

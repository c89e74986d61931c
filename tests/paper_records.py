"""Records of every kind that a paper shows, with samples and training logs where figures are drawn from them."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records import Metric
from bench.store import Record, RunStore, write_json, write_jsonl, write_metrics
from tests.report_records import cell, example_records, figures

AWKWARD = "a&b_%$#{}~^\\"
CODE = {"code": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False}}
SETS = ("forget", "retain", "real_authors", "world_facts")


def every_kind() -> list[Record]:
    """Question sets over three seeds, topics of two models, targets, a chain, batches, failures, names of all signs."""
    records = [*example_records(), *question_sets(), *topics("org/model_7b"), *topics(AWKWARD)]
    return [*records, *targets(), *chain(), *batches()]


def question_sets() -> list[Record]:
    records = []
    for place, method in enumerate(("original", "retrained", "ga", "npo", AWKWARD, "_$x$_" * 15)):
        for seed in range(3):
            value = 0.1 + 0.13 * place + 0.01 * seed
            more = {f"{s}_{part}": value for s in SETS for part in ("rouge_l_recall", "probability")}
            more |= {f"grun_{s}_truth_ratio": value for s in SETS}
            metrics = figures(10.0 ** -(3 * place), value, 0.9 - value, **more)
            records.append(cell(method, metrics, seed=seed, benchmark="tofu/forget05"))
    return records


def topics(model: str) -> list[Record]:
    names = {"wmdp_bio_accuracy": False, "wmdp_cyber_accuracy": False, "mmlu_accuracy": True}
    return [
        cell(method, of(names, 0.3 + 0.2 * place), benchmark="wmdp", model=model)
        for place, method in enumerate(("original", "rmu", AWKWARD))
    ]


def targets() -> list[Record]:
    names = [f"forgetting_{form}" for form in ("qa", "fb", "mcp", "subtoken")]
    names += ["mean_forgetting", "neighbor_retention", "forget_qa", "forget_fb"]
    return [
        cell(
            method,
            of(dict.fromkeys(names, True) | {"form_gap": False}, 0.2 + 0.1 * place),
            benchmark=f"ort/{target}_Ann_Lee",
        )
        for place, method in enumerate(("original", "ga", AWKWARD))
        for target in (1, 2, 3)
    ]


def chain() -> list[Record]:
    names = {"forget_ks_d": False, "model_utility": True}
    stages = ("tofu/forget01", "tofu/forget01>tofu/forget05", "tofu/forget01>tofu/forget05>tofu/forget10")
    return [
        cell(method, of(names, 0.5 + 0.1 * at), benchmark=stage, model="chained")
        for method in ("original", AWKWARD)
        for at, stage in enumerate(stages)
    ]


def batches() -> list[Record]:
    """Nested batches of targets: form gaps 0.1 to either side of the mean, and the utility of the one model."""
    records = []
    for at, stage in enumerate(("ort/1_Ann_Lee", "ort/1-2", "ort/1-3")):
        gap = 0.5 + 0.1 * at
        each = {f"P{n}": gap + 0.1 * (n - at / 2) * 2 / at for n in range(at + 1)} if at else {}
        metrics = [
            Metric(name="form_gap", value=gap, higher_is_better=False, by_target=each),
            Metric(name="ort_utility", value=1 - gap, higher_is_better=True),
        ]
        records.append(cell("npo", metrics, benchmark=stage))
    return records


def of(names: dict[str, bool], value: float) -> list[Metric]:
    """Each a little higher than the one before."""
    return [
        Metric(name=name, value=value + 0.017 * at, higher_is_better=better, n=20)
        for at, (name, better) in enumerate(names.items())
    ]


def store(records: Sequence[Record], out: Path) -> list[Record]:
    """The complete records as runs of an output folder, the others as failures; all as they are read back."""
    runs = RunStore(out)
    for number, record in enumerate(records):
        name, spec = f"cell-{number:03}", {**record.spec, "cell_id": f"cell-{number:03}"}
        if record.status == "failed":
            runs.fail(name, spec, record.error)
            continue
        with runs.staging(name) as folder:
            write_json(folder / "spec.json", spec)
            write_json(folder / "record.json", {**record.record, **CODE})
            write_metrics(folder / "metrics" / "tofu.json", record.metrics["tofu"])
            write_jsonl(folder / "samples" / "tofu.jsonl", samples(number))
            if record.spec["method"] not in ("original", "retrained"):
                write_jsonl(folder / "train.jsonl", train_log(number))
    return runs.records()


def samples(number: int) -> list[dict[str, Any]]:
    draw = random.Random(number)
    return [
        {
            "set": "forget",
            "example_id": f"x/{at}",
            "question": "Q </script>?",
            "paraphrased_nll": 2 + draw.random(),
            "perturbed_nll": [2 + draw.random(), 3.0],
        }
        for at in range(12)
    ]


def train_log(number: int) -> list[dict[str, Any]]:
    return [
        {"step": at, "lr": 0.1, "forget": math.exp(-at / 5) + number / 50, "retain": 0.1, "grad_norm": 3.0}
        for at in range(1, 20)
    ]

"""An output folder with cells of every kind that a report shows, all made up: questions, choices, forms, chains."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records import Metric, missing
from bench.store import Record, RunStore, write_json, write_jsonl, write_metrics

EVIL_METHOD = "a&b_%$"
EVIL_MODEL = "<img src=x onerror=alert(1)>"
EVIL_TEXT = 'says </script><script>alert(1)</script> <!-- "quoted" & \u2028 \u2029 \x00 ]]> 中文 \ud800 done'
TERMS = ("forget", "retain")


class Made:
    """Writes cells as the executor does, without a model."""

    def __init__(self, out: Path) -> None:
        self.out, self.store = out, RunStore(out)

    def records(self) -> list[Record]:
        return self.store.records()

    def cell(
        self,
        method: str,
        benchmark: str = "tofu/forget10",
        *,
        seed: int = 0,
        model: str = "m",
        evaluator: str = "tofu",
        metrics: Sequence[Metric] = (),
        samples: Sequence[dict[str, Any]] = (),
        gates: Sequence[dict[str, Any]] = (),
        steps: int = 0,
        record: dict[str, Any] | None = None,
    ) -> str:
        cell_id = f"{''.join(c if c.isalnum() else '-' for c in f'{method}-{benchmark}-{model}')}-s{seed}"
        with self.store.staging(cell_id) as folder:
            write_metrics(folder / "metrics" / f"{evaluator}.json", metrics)
            if samples:
                write_jsonl(folder / "samples" / f"{evaluator}.jsonl", samples)
            if gates:
                write_jsonl(folder / "samples" / "gates.jsonl", gates)
            if steps:
                write_jsonl(folder / "train.jsonl", train_rows(steps, seed))
            write_json(folder / "spec.json", self.spec(cell_id, method, benchmark, seed, model))
            facts = {"train_seconds": 1.5, "trainable_parameters": 1200, "data_source": "made <up>"}
            write_json(
                folder / "record.json", facts | {"code": {"commit": "c0ffee" * 6, "dirty": True}} | (record or {})
            )
        return cell_id

    def failure(self, method: str, benchmark: str, error: str, *, seed: int = 0, model: str = "m") -> None:
        cell_id = f"{method}-{seed}-failed"
        self.store.fail(cell_id, self.spec(cell_id, method, benchmark, seed, model), error)

    @staticmethod
    def spec(cell_id: str, method: str, benchmark: str, seed: int, model: str) -> dict[str, Any]:
        spec: dict[str, Any] = {"cell_id": cell_id, "model": model, "method": method, "benchmark": benchmark}
        return spec | {"seed": seed, "protocol": "strict", "fields": {"lr": 0.001}}


def train_rows(steps: int, seed: int) -> list[dict[str, Any]]:
    return [
        {"step": step, "lr": 0.1, "grad_norm": 9.0}
        | {name: (1 + place) * math.exp(-step / 20) + 0.01 * seed for place, name in enumerate(TERMS)}
        for step in range(1, steps + 1)
    ]


def answers(
    count: int, *, shift: float = 0.0, text: str = "An answer.", sets: Sequence[str] = ("forget",)
) -> list[dict]:
    """Rows as those of TOFU's evaluator; `shift` moves every log truth ratio."""
    draw = random.Random(count)
    return [
        {
            "set": name,
            "example_id": f"tofu/{name}/{i}",
            "question": f"Question {i} of {name}?",
            "answer": f"Answer {i}.",
            "reference": f"Answer {i}.",
            "generation": text,
            "answer_nll": 0.5,
            "answer_tokens": 7,
            "rouge_l_recall": round(i / count, 4),
            "paraphrased_nll": 1.0 + draw.gauss(0, 0.5) + shift,
            "perturbed_nll": [1.5, 2.5],
        }
        for name in sets
        for i in range(count)
    ]


def tofu(forget: float, utility: float, **more: float) -> list[Metric]:
    values = {
        "forget_ks_d": forget,
        "model_utility": utility,
        "forget_probability": forget,
        "retain_probability": utility,
    }
    better = {"forget_ks_d": False, "forget_probability": False}
    return [
        *(Metric(name=k, value=v, n=40, stderr=0.01, higher_is_better=better.get(k, True)) for k, v in values.items()),
        *(Metric(name=k, value=v, n=40) for k, v in more.items()),
        missing("forget_quality", "no rows of a retrained model", higher_is_better=True),
    ]


def fill(out: Path) -> list[Record]:
    """One table of every kind, with names and texts that want to break out of the page."""
    made = Made(out)
    points = {
        "original": (0.9, 0.8),
        "retrained": (0.0, 0.75),
        EVIL_METHOD: (0.2, 0.6),
        "npo": (0.5, 0.7),
        "ga": (0.4, 0.1),
    }
    for place, (method, (forget, utility)) in enumerate(points.items()):
        for seed in (0, 1):
            made.cell(
                method,
                seed=seed,
                model=EVIL_MODEL,
                metrics=tofu(forget + 0.02 * seed, utility, exact_memorization=forget),
                samples=answers(30, shift=place - 2.0, text=EVIL_TEXT if method == EVIL_METHOD else method, sets=TERMS),
                steps=0 if place < 2 else 300,
            )
    gates = [
        {"set": name, "layer": layer, "value": (0.9 if name == "forget" else 0.1) + 0.002 * i}
        for name in ("forget", "retain", "unrelated")
        for layer in (1, 2)
        for i in range(40)
    ]
    made.cell(
        "grun_npo", model=EVIL_MODEL, metrics=tofu(0.3, 0.72), samples=answers(30, sets=TERMS), gates=gates, steps=80
    )
    made.failure("rmu", "tofu/forget10", "Traceback\nbench.errors.LetheError: <b>lost</b> & gone", model=EVIL_MODEL)
    for method, bio in {"original": 0.6, "rmu": 0.3, "ga": 0.25}.items():
        accuracy = {"wmdp_bio_accuracy": (bio, False), "wmdp_cyber_accuracy": (bio + 0.05, False)}
        accuracy |= {"mmlu_accuracy": (0.5 if method != "ga" else 0.26, True)}
        rows = [
            {"set": "bio", "example_id": f"wmdp/bio/{i}", "question": f"Which of {i}?", "choices": ["w", "x", "y", "z"]}
            | {"answer": i % 4, "chosen": 0, "logp": [-1.0] * 4, "probability": 0.25, "correct": i % 4 == 0}
            for i in range(12)
        ]
        metrics = [Metric(name=k, value=v, n=12, higher_is_better=up) for k, (v, up) in accuracy.items()]
        made.cell(method, "wmdp", evaluator="wmdp", metrics=metrics, samples=rows)
    for target in ("ort/1_Ann_Lee", "ort/2_Ben_Oz"):
        for place, method in enumerate(("original", "npo", "rocr")):
            made.cell(method, target, evaluator="ort", metrics=forms(place), samples=probes(target))
    for place, name in enumerate(("ort/1_Ann_Lee>", "ort/1_Ann_Lee>ort/2_Ben_Oz")):
        for number, method in enumerate(("npo", "rocr")):
            made.cell(method, name, evaluator="ort", metrics=forms(1 + number, 0.1 * place))
    for targets in (1, 2):
        name = f"ort/3-{2 + targets}" if targets > 1 else "ort/3_Cy"
        made.cell("npo", name, evaluator="ort", metrics=forms(targets), model="nested")
    return made.records()


def forms(place: int, less: float = 0.0) -> list[Metric]:
    values = {"qa": 0.45 * place, "fb": 0.4 * place, "mcp": 0.1 * place, "subtoken": 0.25 * place}
    figures = {f"forgetting_{form}": value - less for form, value in values.items()}
    figures |= {"mean_forgetting": 0.3 * place - less, "neighbor_retention": 1 - 0.2 * place + less}
    better = {"form_gap": False}
    figures |= {"form_gap": 0.35 * place}
    return [Metric(name=k, value=v, n=9, higher_is_better=better.get(k, True)) for k, v in figures.items()]


def probes(target: str) -> list[dict[str, Any]]:
    rows = []
    for i, form in enumerate(("qa", "fb", "subtoken_qa", "mcp")):
        row = {
            "example_id": f"{target}/{i}",
            "target": target,
            "part": "forget",
            "form": form,
            "query": f"Who is {target}?",
        }
        row |= {"answer": "C" if form == "mcp" else "Ann", "nll_sum": 2.0, "n_tokens": 3, "duplicate": False}
        row |= {"letter_logp": [-3.0, -2.0, -1.0, -4.0], "correct": True} if form == "mcp" else {}
        row |= {"generation": "Ben", "rouge_l_recall": 0.0} if form in ("qa", "fb") else {}
        rows.append(row)
    return rows

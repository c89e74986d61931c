"""A small checkpoint scored here and by open-unlearning: every row of every metric, with both of its templates."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.types import QA, Benchmark
from evaluators.metrics import log_truth_ratio, normalised_probability, probability, rouge, share_of_truth
from evaluators.tofu import TofuEvaluator

EPS = 1e-10
PREFIXES = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm")
AVG_LOSS = 2e-5  # that suite's float32 sums lie up to this far below float64
OTHERS = 1e-4


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def examples(path: Path, rows: slice = slice(None)) -> tuple[QA, ...]:
    return tuple(
        QA(
            id=f"tofu/{path.stem}/{i}",
            question=row["question"],
            answer=row["answer"],
            paraphrased_answer=row.get("paraphrased_answer"),
            perturbed_answers=tuple(row.get("perturbed_answer", ())),
        )
        for i, row in list(enumerate(read(path)))[rows]
    )


@pytest.fixture(scope="module")
def benchmark(real_data: Path) -> Benchmark:
    files = ("forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    return Benchmark(
        name="tofu/forget10",
        forget=(),
        retain=(),
        eval_sets={
            name: examples(real_data / "tofu" / f"{file}.json") for name, file in zip(PREFIXES, files, strict=True)
        },
        holdout=examples(real_data / "tofu" / "full.json", slice(3200, 3600)),
    )


@dataclass(frozen=True)
class Comparison:
    """One checkpoint, one template: our rows and metrics, and what open-unlearning says."""

    rows: dict[str, list[dict[str, Any]]]
    metrics: dict[str, float]
    rows_there: dict[str, Any]
    metrics_there: dict[str, float]

    def column(self, name: str, value: Callable[[dict[str, Any]], Any]) -> np.ndarray:
        return np.array([value(row) for row in self.rows[name]], float)

    def agrees(self, metric: str, field: str, ours: np.ndarray, tolerance: float) -> None:
        there = np.array(self.rows_there[metric][field], float)
        np.testing.assert_allclose(ours, there, rtol=0, atol=tolerance, err_msg=f"{metric}.{field}")

    def agrees_on_average(self, metric: str, ours: float, tolerance: float = OTHERS) -> None:
        assert ours == pytest.approx(self.metrics_there[metric], abs=tolerance), metric


@pytest.fixture(scope="module", params=["chat", "phi"])
def comparison(request: pytest.FixtureRequest, real_data: Path, benchmark: Benchmark) -> Comparison:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bench.data.tokenize import Encoder
    from bench.scorer import Scorer

    folder = real_data / "reference_logs" / "tiny"
    there = json.loads((folder / "open_unlearning.json").read_text(encoding="utf-8"))["runs"]
    there = there[f"tiny_retain/{request.param}"]
    template = {"chat": "chat", "phi": "plain"}[request.param]
    tokenizer = AutoTokenizer.from_pretrained(folder / "retrained")
    model = AutoModelForCausalLM.from_pretrained(folder / "retrained", dtype=torch.float32).eval()
    encoder = Encoder(tokenizer, template=template, protocol="openunlearning")
    evaluator = TofuEvaluator(protocol="openunlearning", gradient_norms=True)
    rows = evaluator.score(Scorer(model, encoder), benchmark)
    found = {metric.name: metric.value for metric in evaluator.summarize(rows)}
    by_set = {name: [row for row in rows if row["set"] == name] for name in (*PREFIXES, "holdout")}
    return Comparison(by_set, found, there["per_example"], there["aggregate"])


def test_every_row_is_there(comparison: Comparison) -> None:
    sizes = {name: len(rows) for name, rows in comparison.rows.items()}
    assert sizes == {"forget": 400, "retain": 400, "real_authors": 100, "world_facts": 117, "holdout": 400}


@pytest.mark.parametrize("name", PREFIXES)
def test_likelihoods_agree(comparison: Comparison, name: str) -> None:
    measured = {"Prob": "answer_nll", "PARA_Prob": "paraphrased_nll", "PERT_Prob": "perturbed_nll"}
    if name in ("real_authors", "world_facts"):
        del measured["PARA_Prob"]
    for metric, field in measured.items():
        metric = f"{PREFIXES[name]}_Q_A_{metric}"
        ours = comparison.column(name, lambda row, field=field: row[field])
        comparison.agrees(metric, "avg_loss", ours, AVG_LOSS)
        comparison.agrees(metric, "prob", np.exp(-ours), OTHERS)
        comparison.agrees_on_average(metric, float(np.exp(-ours).mean()))
    assert comparison.column(name, lambda row: probability(row["answer_nll"])) == pytest.approx(
        np.exp(-comparison.column(name, lambda row: row["answer_nll"]))
    )


@pytest.mark.parametrize("name", ["real_authors", "world_facts"])
def test_normalised_probabilities_agree(comparison: Comparison, name: str) -> None:
    metric = f"{PREFIXES[name]}_Q_A_Prob_normalised"
    ours = comparison.column(name, lambda row: normalised_probability(row["answer_nll"], row["perturbed_nll"], eps=EPS))
    comparison.agrees(metric, "prob", ours, OTHERS)
    comparison.agrees_on_average(metric, comparison.metrics[f"{name}_probability"])
    comparison.agrees_on_average(f"{PREFIXES[name]}_Q_A_Prob", comparison.metrics[f"{name}_probability_raw"])


@pytest.mark.parametrize("name", ["forget", "retain"])
def test_mean_probabilities_agree(comparison: Comparison, name: str) -> None:
    comparison.agrees_on_average(f"{name}_Q_A_Prob", comparison.metrics[f"{name}_probability"])


@pytest.mark.parametrize("name", PREFIXES)
def test_generations_are_the_same_text_with_the_same_rouge(comparison: Comparison, name: str) -> None:
    metric = f"{PREFIXES[name]}_Q_A_ROUGE"
    assert [row["generation"] for row in comparison.rows[name]] == comparison.rows_there[metric]["generation"]
    for field, theirs in (
        ("rouge_1_recall", "rouge1_recall"),
        ("rouge_l_f1", "rougeL_f1"),
        ("rouge_l_recall", "rougeL_recall"),
    ):
        comparison.agrees(metric, theirs, comparison.column(name, lambda row, field=field: row[field]), 1e-9)
    comparison.agrees_on_average(metric, comparison.metrics[f"{name}_rouge_l_recall"], 1e-9)


def test_rouge_against_the_paraphrases_agrees(comparison: Comparison, benchmark: Benchmark) -> None:
    scores = [
        rouge(str(qa.paraphrased_answer), row["generation"])
        for qa, row in zip(benchmark.eval_sets["forget"], comparison.rows["forget"], strict=True)
    ]
    comparison.agrees("forget_Q_A_PARA_ROUGE", "rougeL_recall", np.array([s.l_recall for s in scores]), 1e-9)
    comparison.agrees("forget_Q_A_PARA_ROUGE", "rougeL_f1", np.array([s.l_f1 for s in scores]), 1e-9)
    comparison.agrees("forget_Q_A_PARA_ROUGE", "rouge1_recall", np.array([s.one_recall for s in scores]), 1e-9)


@pytest.mark.parametrize("name", PREFIXES)
def test_truth_ratios_agree(comparison: Comparison, name: str) -> None:
    metric = "forget_truth_ratio" if name == "forget" else f"{PREFIXES[name]}_Truth_Ratio"
    ours = np.exp(
        comparison.column(name, lambda row: log_truth_ratio(row["paraphrased_nll"], row["perturbed_nll"], eps=EPS))
    )
    there = np.array(comparison.rows_there[metric]["score"])
    # A ratio of 30 carries the difference of its losses thirtyfold: 1e-4 is relative there.
    np.testing.assert_array_less(np.abs(ours - there), OTHERS * np.maximum(1, there))
    comparison.agrees_on_average(metric, comparison.metrics[f"{name}_truth_ratio"])


def test_the_truth_ratio_of_probabilities_agrees(comparison: Comparison) -> None:
    ours = comparison.column(
        "forget", lambda row: share_of_truth(row["paraphrased_nll"], row["perturbed_nll"], eps=EPS)
    )
    comparison.agrees("forget_truth_ratio_prob_mean", "score", ours, OTHERS)
    name = "forget_truth_ratio_prob_mean"
    comparison.agrees_on_average(name, comparison.metrics[name])


@pytest.mark.parametrize("metric", ["extraction_strength", "exact_memorization"])
def test_memorization_agrees(comparison: Comparison, metric: str) -> None:
    comparison.agrees(metric, "score", comparison.column("forget", lambda row: row[metric]), OTHERS)
    comparison.agrees_on_average(metric, comparison.metrics[metric])


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("side", ["forget", "holdout"])
def test_membership_scores_agree(comparison: Comparison, attack: str, side: str) -> None:
    ours = comparison.column(side, lambda row: row[attack])
    there = np.array(comparison.rows_there[attack][side]["score"])
    np.testing.assert_allclose(ours, there, rtol=0, atol=AVG_LOSS if attack == "mia_loss" else OTHERS)
    assert ours.mean() == pytest.approx(comparison.rows_there[attack][f"mean_{side}"], abs=OTHERS)


@pytest.mark.parametrize("attack", ATTACKS)
def test_areas_under_the_curve_agree(comparison: Comparison, attack: str) -> None:
    comparison.agrees_on_average(attack, comparison.metrics[attack])


def test_composites_agree(comparison: Comparison) -> None:
    comparison.agrees_on_average("model_utility", comparison.metrics["model_utility"])
    # 100 * the AUC's difference / 0.5: two hundred times the AUC's tolerance.
    comparison.agrees_on_average("privleak", comparison.metrics["privleak"], 200 * OTHERS)


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_batch_size_and_the_order_of_questions_change_nothing(
    real_data: Path, benchmark: Benchmark, protocol: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bench.data.tokenize import Encoder
    from bench.scorer import Scorer

    folder = real_data / "reference_logs" / "tiny" / "retrained"
    encoder = Encoder(AutoTokenizer.from_pretrained(folder), protocol=protocol)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    few = {name: examples[:4] for name, examples in benchmark.eval_sets.items()}
    turned = {name: examples[::-1] for name, examples in reversed(few.items())}
    evaluator = TofuEvaluator(protocol=protocol, max_new_tokens=40)  # type: ignore[arg-type]
    found = []
    for sets, tokens in ((few, 16384), (turned, 150)):
        part = replace(benchmark, eval_sets=sets, holdout=benchmark.holdout[:4])
        rows = evaluator.score(Scorer(model, encoder, batch_tokens=tokens), part)
        found.append({metric.name: metric.value for metric in evaluator.summarize(rows, rows)})
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6, nan_ok=True)  # nobody judges fluency here

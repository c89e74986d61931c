"""Published figures, recomputed from the rows that were published with them."""

from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.records import Metric
from evaluators.logs import read_published_log
from evaluators.metrics import rouge
from evaluators.tofu import TofuEvaluator

OPEN_UNLEARNING = {
    "full": "open_unlearning/tofu_Llama-2-7b-chat-hf_full/evals_forget10/TOFU_EVAL.json",
    "retain90": "open_unlearning/tofu_Llama-2-7b-chat-hf_retain90/TOFU_EVAL.json",
}
TOFU = {
    "full": "tofu/llama2-7b_full_wd0.01/eval_log_aggregated.json",
    "retain90": "tofu/llama2-7b_retain90_wd0.01/eval_log_aggregated.json",
}

Logs = dict[str, list[dict]]


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


@pytest.fixture(scope="module")
def peer(real_data: Path) -> Logs:
    return {name: read_published_log(real_data / "reference_logs" / file) for name, file in OPEN_UNLEARNING.items()}


@pytest.fixture(scope="module")
def tofu(real_data: Path) -> Logs:
    return {name: read_published_log(real_data / "reference_logs" / file) for name, file in TOFU.items()}


@pytest.fixture(scope="module")
def full(peer: Logs) -> dict[str, Metric]:
    return by_name(TofuEvaluator(protocol="openunlearning").summarize(peer["full"], peer["retain90"]))


def test_headline_figures_of_llama_2_7b(full: dict[str, Metric]) -> None:
    assert full["model_utility"].value == pytest.approx(0.6275553508047139, rel=1e-9)
    assert full["forget_quality"].value == pytest.approx(4.346199600129006e-25, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("exact_memorization", 0.9987598584592342),
        ("extraction_strength", 0.9819907192583258),
        ("forget_probability", 0.9900827026367187),
        ("forget_paraphrased_probability", 0.1056274980888702),
        ("forget_rouge_l_recall", 0.9755280047084653),
        ("forget_truth_ratio", 0.518523962286488),
        ("mia_loss", 0.9990625),
        ("mia_zlib", 0.9996625),
        ("mia_min_k", 0.99915),
        ("mia_min_k_plus_plus", 0.99939375),
        ("privleak", -99.86141255645111),
        ("retain_probability", 0.9891960871219635),
        ("retain_rouge_l_recall", 0.9805904941752053),
        ("retain_truth_ratio", 0.4596475433147343),
        ("real_authors_probability", 0.4684953593140663),
        ("real_authors_probability_raw", 0.06526575284078717),
        ("real_authors_rouge_l_recall", 0.9168333333333334),
        ("real_authors_truth_ratio", 0.6119780507359923),
        ("world_facts_probability", 0.42388732051346883),
        ("world_facts_probability_raw", 0.017898534209627975),
        ("world_facts_rouge_l_recall", 0.9045584045584046),
        ("world_facts_truth_ratio", 0.5521230803476189),
    ],
)
def test_every_aggregate_of_llama_2_7b(full: dict[str, Metric], name: str, published: float) -> None:
    # 1e-8, not closer: the published probabilities are float32 exponentials of the losses stored beside them.
    assert full[name].value == pytest.approx(published, rel=1e-8)


def test_the_retrained_log_without_a_reference_measures_privleak_from_a_half(peer: Logs) -> None:
    found = by_name(TofuEvaluator(protocol="openunlearning").summarize(peer["retain90"]))
    assert found["privleak"].value == pytest.approx(22.666249995466746, rel=1e-9)
    assert found["model_utility"].value == pytest.approx(0.6130190411998432, rel=1e-8)
    assert found["forget_quality"].missing


def test_counts_stand_beside_every_mean(full: dict[str, Metric]) -> None:
    assert {name: full[f"{name}_probability"].n for name in ("forget", "retain", "real_authors", "world_facts")} == {
        "forget": 400,
        "retain": 400,
        "real_authors": 100,
        "world_facts": 117,
    }
    assert full["model_utility"].n == 400 + 100 + 117
    assert 0 < full["forget_rouge_l_recall"].stderr < 0.01


@pytest.mark.parametrize("log", ["full", "retain90"])
def test_every_rouge_row_follows_from_its_texts(peer: Logs, log: str) -> None:
    rows = [row for row in peer[log] if "generation" in row]
    assert len(rows) == 400 + 400 + 100 + 117
    for row in rows:
        scores = rouge(row["reference"], row["generation"])
        assert (scores.l_recall, scores.l_f1, scores.one_recall) == (
            row["rouge_l_recall"],
            row["rouge_l_f1"],
            row["rouge_1_recall"],
        )


@pytest.mark.parametrize(
    ("log", "name", "printed"),
    [
        ("full", "model_utility", "0.622677"),
        ("retain90", "model_utility", "0.613745"),
        ("full", "forget_truth_ratio", "0.5160"),
        ("retain90", "forget_truth_ratio", "0.6740"),
        ("full", "forget_quality", "1.834e-21"),
        ("full", "model_utility_arithmetic", "0.585886"),
        ("retain90", "model_utility_arithmetic", "0.575240"),
        ("full", "forget_truth_ratio_arithmetic", "0.5304"),
        ("full", "forget_quality_arithmetic", "6.03e-23"),
    ],
)
@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_printed_figures_of_tofus_own_logs(tofu: Logs, protocol: str, log: str, name: str, printed: str) -> None:
    evaluator = TofuEvaluator(protocol=protocol)  # type: ignore[arg-type]
    value = by_name(evaluator.summarize(tofu[log], tofu["retain90"]))[name].value
    digits = len(printed.split("e")[0].split(".")[1])
    assert f"{value:.{digits}{'e' if 'e' in printed else 'f'}}" == printed


def test_a_log_without_tokens_has_no_memorization(tofu: Logs) -> None:
    found = by_name(TofuEvaluator().summarize(tofu["full"], tofu["retain90"]))
    assert found["extraction_strength"].reason == "the forget rows have no extraction_strength"
    assert found["exact_memorization"].missing
    assert "mia_loss" not in found


def test_a_log_of_fewer_questions_is_no_reference(peer: Logs, tofu: Logs) -> None:
    # TOFU's own logs stop at row 300
    with pytest.raises(LetheError, match=r"100 of the 400 forget questions are not among its 300.*--limit 300"):
        TofuEvaluator().summarize(peer["full"], tofu["retain90"])


def test_a_log_of_more_questions_is_cut_down_to_those_that_were_asked(peer: Logs) -> None:
    few = [row for row in peer["full"] if int(row["example_id"].rsplit("/", 1)[1]) < 40]
    whole = by_name(TofuEvaluator().summarize(few, peer["retain90"]))
    few_there = [row for row in peer["retain90"] if int(row["example_id"].rsplit("/", 1)[1]) < 40]
    assert whole["forget_quality"] == by_name(TofuEvaluator().summarize(few, few_there))["forget_quality"]
    assert whole["forget_quality"].n == 40


def test_questions_of_the_files_are_found_inside_the_prompts_of_a_log(real_data: Path, peer: Logs) -> None:
    import json

    lines = (real_data / "tofu" / "forget10_perturbed.json").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    forget = [row for row in peer["full"] if row["set"] == "forget"]
    mine = [{**row, "question": question} for row, question in zip(forget, questions, strict=True)]
    found = by_name(TofuEvaluator().summarize(list(reversed(mine)), peer["retain90"]))
    assert found["forget_quality"].value == pytest.approx(4.346199600129006e-25, rel=1e-9)


def test_a_log_of_another_split_is_no_reference(real_data: Path, peer: Logs) -> None:
    import json

    lines = (real_data / "tofu" / "forget05_perturbed.json").read_text(encoding="utf-8").splitlines()
    row = next(row for row in peer["full"] if row["set"] == "forget")
    other = json.loads((real_data / "tofu" / "retain_perturbed.json").read_text(encoding="utf-8").splitlines()[0])
    assert len(lines) == 200
    with pytest.raises(LetheError, match="answers other questions"):
        TofuEvaluator().summarize([{**row, "question": other["question"]}], peer["retain90"])

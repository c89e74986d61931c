"""Every statistic of examples is the metric of the evaluator, and a hole in the rows is told."""

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.compare import compare_with_best
from bench.composites import with_composites
from bench.records import Metric
from bench.stats import Statistic, compare
from bench.store import Record, write_jsonl
from bench.tables import tables_of
from evaluators.forms import FormsEvaluator
from evaluators.mmlu import MmluEvaluator
from evaluators.per_example import harmonic, statistics_of
from evaluators.rows import Row
from evaluators.rwku_utility import UtilityEvaluator
from evaluators.tofu import TofuEvaluator
from evaluators.wmdp import WmdpEvaluator


def of_no_model(role: str) -> list[Row] | None:
    return None


def known(
    evaluator: str,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    protocol: str = "strict",
    reference: Callable[[str], Sequence[Row] | None] = of_no_model,
) -> dict[str, Statistic | str]:
    return statistics_of(evaluator, rows, protocol=protocol, names=names, reference=reference)


def agrees(found: dict[str, Statistic | str], metrics: Sequence[Metric]) -> None:
    """Statistics have the values of the metrics of the same name."""
    values = {metric.name: metric.value for metric in metrics}
    for name, statistic in found.items():
        assert isinstance(statistic, Statistic), statistic
        assert statistic.value() == pytest.approx(values[name], rel=1e-9), name


def tofu_rows(seed: int, n: int = 12, shift: float = 0.0) -> list[Row]:
    draw = random.Random(seed)
    rows = []
    for name in ("forget", "retain", "real_authors", "world_facts"):
        for i in range(n):
            nll = 0.2 + draw.random() + (shift if name == "forget" else 0.0)
            row: Row = {"set": name, "example_id": f"{name}/{i}", "question": f"{name} {i}?", "answer_nll": nll}
            row |= {"paraphrased_nll": nll + 0.3 * draw.random(), "perturbed_nll": [1 + draw.random() for _ in "abc"]}
            row |= {"rouge_l_recall": 0.2 + 0.8 * draw.random(), "memorization_tokens": 9}
            if name == "forget":
                row |= {"extraction_strength": draw.random(), "exact_memorization": draw.random()}
                row |= {"fluency": draw.random()}
            rows.append(row)
    return rows


# --- question sets


@pytest.mark.parametrize("protocol", ["strict", "openunlearning"])
def test_every_mean_and_composite_of_tofu_is_the_metric(protocol: str) -> None:
    rows, retrained = tofu_rows(0), tofu_rows(1, shift=2.0)
    metrics = TofuEvaluator(protocol=protocol).summarize(rows, retrained)  # type: ignore[arg-type]
    names = [metric.name for metric in metrics]
    found = known("tofu", rows, names, protocol=protocol, reference=lambda role: {"retrained": retrained}[role])
    agrees(found, metrics)
    without = {"forget_quality", "forget_quality_arithmetic", "model_utility_arithmetic"}
    assert set(names) - set(found) == without | {"forget_ks_d_low", "forget_ks_d_high"}


def stored(out: Path, method: str, rows: Sequence[Row]) -> Record:
    """A record of these rows, which are stored too."""
    spec = {"model": "mini", "method": method, "benchmark": "tofu/forget10", "seed": 0, "protocol": "strict"}
    write_jsonl(out / "runs" / method / "samples" / "tofu.jsonl", rows)
    return Record(cell_id=method, spec=spec, metrics={"tofu": TofuEvaluator().summarize(rows)})


def test_composites_of_two_models_are_those_of_the_records(tmp_path: Path) -> None:
    rows, original = tofu_rows(0, shift=1.0), tofu_rows(1)
    first, mine = with_composites(
        [stored(tmp_path, "original", original), stored(tmp_path, "npo", rows)],
        [stored(tmp_path, "original", original)],
    )
    names = ["utility_score", "overall_score"]
    for role_rows, record in ((rows, mine), (original, first)):
        found = known("tofu", role_rows, names, reference=lambda role: {"original": original}[role])
        assert list(found) == names
        agrees(found, record.metrics["composites"])
    assert known("tofu", rows, names) == dict.fromkeys(names, "no rows of the original model to compare with")


def test_composites_are_tested_by_the_rows_of_both_models_and_only_where_those_give_the_figure(tmp_path: Path) -> None:
    by_method = {"original": tofu_rows(1), "npo": tofu_rows(1, shift=0.5)}
    by_method["ga"] = [row | {"fluency": 0.05} if "fluency" in row else row for row in tofu_rows(1)]
    records = [stored(tmp_path, method, rows) for method, rows in by_method.items()]
    found = {(r.metric, r.method): r for r in compare_with_best(records, [tmp_path], statistics_of).results}
    low = found["utility_score", "ga"]
    assert (low.best, low.tied, low.reason) == ("npo", False, "")
    (table,) = tables_of(records, [])
    scores = {row.method: row.mean("utility_score") for row in table.rows}
    assert low.difference == pytest.approx(scores["ga"] - scores["npo"])
    assert low.low < low.difference < low.high
    assert ("overall_score", "ga") in found or ("overall_score", "npo") in found
    write_jsonl(tmp_path / "runs" / "original" / "samples" / "tofu.jsonl", tofu_rows(5))  # of another original
    found = {(r.metric, r.method): r for r in compare_with_best(records, [tmp_path], statistics_of).results}
    assert (found["utility_score", "ga"].reason, found["utility_score", "ga"].tied) == (
        "the stored rows give another figure",
        None,
    )


def test_a_share_of_an_original_that_has_none_does_not_exist() -> None:
    nan = math.nan
    found = harmonic(np.array([0.5, 0.0, nan, nan]), np.array([0.25, 0.3, 0.3, 0.0]))
    # 2 / (1 / 0.5 + 1 / 0.25) = 1 / 3
    assert found.tolist() == pytest.approx([1 / 3, 0.0, nan, nan], nan_ok=True)


def test_the_distance_is_that_from_the_rows_of_the_same_questions() -> None:
    rows, retrained = tofu_rows(0), tofu_rows(1, n=20)
    random.Random(0).shuffle(retrained)
    found = known("tofu", rows, ["forget_ks_d"], reference=lambda role: retrained)
    agrees(found, TofuEvaluator().summarize(rows, retrained))
    (part,) = found["forget_ks_d"].parts  # type: ignore[union-attr]
    assert list(part.values) == [f"forget/{i}" for i in range(12)]
    assert part.against is not None and len(part.against) == 12


def test_what_is_missing_is_told_and_what_is_unknown_left_out() -> None:
    rows = tofu_rows(0)
    rows[3]["answer_nll"] = None
    found = known("tofu", rows, ["forget_probability", "retain_probability", "forget_ks_d", "mia_loss", "nonsense"])
    assert found["forget_probability"] == (
        "answer_nll is not a finite number in 1 of 12 forget rows, the first is forget/3"
    )
    assert isinstance(found["retain_probability"], Statistic)
    assert str(found["forget_ks_d"]).startswith("no rows of a retrained model")
    assert found.keys() == {"forget_probability", "retain_probability", "forget_ks_d"}
    assert known("no such evaluator", rows, ["forget_probability"]) == {}


def test_a_row_without_a_token_to_judge_has_no_value() -> None:
    rows = tofu_rows(0)
    rows[0] |= {"extraction_strength": None, "memorization_tokens": 0}
    (part,) = known("tofu", rows, ["extraction_strength"])["extraction_strength"].parts  # type: ignore[union-attr]
    assert list(part.values) == [f"forget/{i}" for i in range(1, 12)]


def test_examples_of_one_name_are_told_apart() -> None:
    rows = tofu_rows(0)[:2]
    rows[1]["example_id"] = rows[0]["example_id"]
    (part,) = known("tofu", rows, ["forget_probability"])["forget_probability"].parts  # type: ignore[union-attr]
    assert list(part.values) == ["forget/0", "forget/0 #2"]


def test_composites_of_four_sets_of_400_rows_take_well_under_five_seconds() -> None:
    retrained = tofu_rows(9, n=400, shift=2.0)
    mine, theirs = (
        known("tofu", tofu_rows(seed, n=400), ["model_utility", "forget_ks_d"], reference=lambda role: retrained)
        for seed in (0, 1)
    )
    started = time.perf_counter()
    pairs = [([mine[name]], [theirs[name]]) for name in mine]
    utility, distance = compare(pairs)  # type: ignore[arg-type]
    assert time.perf_counter() - started < 5
    assert (utility.n, distance.n) == (1200, 400)
    assert utility.low < utility.difference < utility.high
    assert utility.p > 0.01


# --- multiple choice


def choice_rows(subjects: Sequence[str]) -> list[Row]:
    draw = random.Random(0)
    return [
        {"set": s, "example_id": f"{s}/{i}", "correct": draw.random() < 0.4, "probability": draw.random(),
         "prompt_truncated": 0}
        for s in subjects
        for i in range(5)
    ]  # fmt: skip


def test_multiple_choice_is_the_metric() -> None:
    rows = choice_rows(["bio", "cyber"])
    names = ["wmdp_accuracy", "wmdp_bio_accuracy", "wmdp_cyber_accuracy", "wmdp_probability"]
    found = known("wmdp", rows, names)
    assert list(found) == names
    agrees(found, WmdpEvaluator().summarize(rows))
    rows = choice_rows(["anatomy", "virology"])
    names = ["mmlu_accuracy", "mmlu_stem_accuracy", "mmlu_virology_probability"]
    found = known("mmlu", rows, names)
    assert list(found) == names
    agrees(found, MmluEvaluator().summarize(rows))


def test_a_mean_of_an_lm_eval_task_and_of_its_group() -> None:
    rows = [
        {"set": task, "example_id": f"{task}/{i}", "metrics": {"acc": i / 4, "bleu": [1, 2]},
         "aggregations": {"acc": "mean", "bleu": "bleu"}}
        for task in ("small-a", "small-b")
        for i in range(1, 4)
    ]  # fmt: skip
    found = known("lm_eval_small", rows, ["small_a_acc", "small_acc", "small_a_bleu"])
    assert found.keys() == {"small_a_acc", "small_acc"}
    assert {statistic.value() for statistic in found.values()} == {0.5}  # type: ignore[union-attr]


# --- forms


def form_rows(seed: int, targets: Sequence[str], scale: float = 1.0) -> list[Row]:
    draw = random.Random(seed)
    rows = []
    for target in targets:
        for part, form in [("forget", f) for f in ("qa", "fb", "mcp", "subtoken_qa")] + [
            ("neighbor", f) for f in ("qa", "fb", "mcp")
        ] + [("locality", "fb")]:  # fmt: skip
            for i in range(4):
                nll = scale * (0.2 + draw.random())
                rows.append(
                    {"example_id": f"{target}/{part}/{i}", "target": target, "part": part, "form": form, "kind": "",
                     "name_in": "full", "duplicate": i == 3, "query": f"{target} {i}?", "nll_sum": nll, "n_tokens": 2,
                     "characters_nll_sum": nll, "n_characters": 2, "renormalised": 0.5, "correct": True}
                )  # fmt: skip
    return rows


FORMS = ("forgetting_qa", "forgetting_fb", "forgetting_mcp", "forgetting_subtoken", "mean_forgetting", "form_gap",
         "neighbor_retention", "locality_retention", "forget_qa", "forget_qa_raw", "sub_forget_qa")  # fmt: skip


@pytest.mark.parametrize("protocol", ["strict", "ort"])
@pytest.mark.parametrize("targets", [("Ann",), ("Ann", "Ben")])
def test_forms_are_the_metric(protocol: str, targets: Sequence[str]) -> None:
    rows, original = form_rows(0, targets, scale=3.0), form_rows(1, targets)
    names = [name for name in FORMS if not (protocol == "ort" and name.endswith("_raw"))]
    found = known("ort", rows, names, protocol=protocol, reference=lambda role: {"original": original}[role])
    assert list(found) == names
    agrees(found, FormsEvaluator(protocol=protocol).summarize(rows, original))  # type: ignore[arg-type]


def test_one_form_has_no_gap_and_no_original_no_drop() -> None:
    one = [row for row in form_rows(0, ["Ann"]) if row["form"] == "qa"]
    found = known("ort", one, ["form_gap", "forgetting_fb"], reference=lambda role: one)
    assert math.isnan(found["form_gap"].value())  # type: ignore[union-attr]
    assert found["forgetting_fb"] == "no forget fb rows"
    assert str(known("ort", one, ["form_gap"])["form_gap"]).startswith("needs the original's rows")


def test_an_original_that_knew_nothing_has_nothing_to_lose() -> None:
    rows, original = form_rows(0, ["Ann"]), form_rows(1, ["Ann"])
    for row in original:
        row["nll_sum"] = 5000.0
    found = known("ort", rows, ["forgetting_qa"], reference=lambda role: original)["forgetting_qa"]
    assert isinstance(found, Statistic)
    (compared,) = compare([([found], [found])])
    assert math.isnan(compared.p)


def test_the_utility_of_the_forms_is_the_metric() -> None:
    def rows(seed: int) -> list[Row]:
        draw = np.random.default_rng(seed)
        return [
            {"part": part, "target": "ort/Ann", "example_id": f"ort/Ann/{part}/{i}", field: float(draw.random())}
            for part, fields in (("mmlu", ("correct",)), ("trivia", ("f1",)), ("fluency", ("entropy",)))
            for i in range(5)
            for field in fields
        ]

    mine, original = rows(0), rows(1)
    names = ["ort_utility", "ort_mmlu_acc"]
    found = known("ort_utility", mine, names, reference=lambda role: {"original": original}[role])
    assert set(found) == set(names)
    agrees(found, UtilityEvaluator().summarize(mine, original))
    assert str(known("ort_utility", mine, names)["ort_utility"]).startswith("no rows of the original")

"""The composites of records, against those that the paper prints."""

import math
from dataclasses import replace

import pytest

from bench.composites import harmonic_mean, with_composites
from bench.records import Metric, missing
from bench.store import Record
from bench.tables import tables_of

# Dorna et al., 2025, Tables 3 and 6 (TOFU forget10, Llama-3.2-1B): memorisation, privacy, utility, all three, without
# privacy
PRINTED = {
    "init finetuned": (0.00, 0.10, 1.00, 0.00, 0.00),
    "retain": (0.31, 1.00, 0.99, 0.58, None),  # Table 6 prints 0.58 again, which no reading of its parts gives
    "simnpo": (0.32, 0.63, 1.00, 0.53, 0.49),
    "rmu": (0.47, 0.50, 0.61, 0.52, 0.53),
    "undial": (0.27, 0.48, 0.78, 0.42, 0.40),
    "altpo": (0.63, 0.06, 0.95, 0.15, 0.76),
    "idknll": (0.08, 0.17, 0.93, 0.15, 0.14),
    "npo": (0.52, 0.06, 0.99, 0.15, 0.69),
    "idkdpo": (0.56, 0.06, 0.95, 0.14, 0.71),
    "graddiff": (0.97, 0.003, 0.79, 0.009, 0.87),
}


def printed_alike(value: float | None, *parts: float) -> bool:
    """Whether some values that are printed as the parts have a harmonic mean that is printed as the value."""
    assert value is not None
    half = {part: 0.0005 if 0 < part < 0.01 else 0.005 for part in (*parts, value)}
    low = harmonic_mean([max(0.0, part - half[part]) for part in parts])
    high = harmonic_mean([part + half[part] for part in parts])
    return low - half[value] <= value <= high + half[value]


@pytest.mark.parametrize("method", PRINTED)
def test_the_printed_composites_are_harmonic_means_of_the_printed_parts(method: str) -> None:
    memorization, privacy, utility, all_three, without_privacy = PRINTED[method]
    assert printed_alike(all_three, memorization, privacy, utility)
    if without_privacy is not None:
        assert printed_alike(without_privacy, memorization, utility)


def test_the_row_of_the_paper_that_is_not() -> None:
    assert harmonic_mean([0.31, 0.99]) == pytest.approx(0.47, abs=0.005)
    assert not printed_alike(0.58, 0.31, 0.99)


def record(
    method: str,
    memorization: float,
    utility: float,
    fluency: float | None = None,
    *,
    seed: int = 0,
    benchmark: str = "tofu/forget10",
    judge: dict | None = None,
) -> Record:
    """Without a fluency of its own it has that of its utility: two shares that are alike have themselves as mean."""
    spec = {"model": "mini", "method": method, "benchmark": benchmark, "seed": seed, "protocol": "strict"}
    found = [
        missing(name, "no forget rows", higher_is_better=True)
        if math.isnan(value)
        else Metric(name=name, value=value, n=30, higher_is_better=True)
        for name, value in (
            ("memorization_score", memorization),
            ("model_utility", utility),
            ("forget_fluency", utility if fluency is None else fluency),
        )
    ]
    settings = {"tofu": {"judged_by": judge}} if judge else {}
    return Record(cell_id=f"{method}-{seed}-{benchmark}", spec=spec, metrics={"tofu": found}, settings=settings)


def composites(of: Record, *originals: Record) -> dict[str, Metric]:
    (found,) = with_composites([of], originals)
    return {metric.name: metric for metric in found.metrics.get("composites", ())}


def test_utility_is_relative_to_the_original_of_the_same_seed() -> None:
    npo = record("npo", 0.5, 0.45, seed=1)
    originals = [record("original", 0.0, 0.6), record("original", 0.0, 0.9, seed=1)]
    found = composites(npo, *originals)
    assert found["utility_score"].value == pytest.approx(0.5)  # 0.45 / 0.9
    assert found["overall_score"].value == pytest.approx(0.5)
    assert found["overall_score"].n == 30
    assert composites(npo, originals[0])["utility_score"].value == pytest.approx(0.75)  # 0.45 / 0.6
    assert composites(originals[0], *originals)["overall_score"].value == 0  # remembers everything


def test_utility_is_relative_to_the_original_that_was_asked_the_same_questions() -> None:
    whole, part = {"data_hash": "aa", "note": ""}, {"data_hash": "bb", "note": "scored without the validation rows"}
    originals = [record("original", 0.0, 0.6, seed=1), record("original", 0.0, 0.9)]
    originals = [replace(o, spec={**o.spec, **of}) for o, of in zip(originals, (whole, part), strict=True)]
    npo = record("npo", 0.5, 0.45, seed=1)
    of_part = composites(replace(npo, spec={**npo.spec, **part}), *originals)
    assert of_part["utility_score"].value == pytest.approx(0.5)  # 0.45 / 0.9, though the other one has its seed
    assert composites(originals[1], *originals)["utility_score"].value == 1


def test_utility_is_the_harmonic_mean_of_both_shares() -> None:
    original = record("original", 0.0, 0.6, 0.9)
    found = composites(record("npo", 0.8, 0.54, 0.54), original)
    assert found["utility_score"].value == pytest.approx(0.72)  # shares 0.9 and 0.6: 2 / (1 / 0.9 + 1 / 0.6)
    assert found["overall_score"].value == pytest.approx(2 / (1 / 0.8 + 1 / 0.72))
    assert composites(original, original)["utility_score"].value == 1
    assert composites(record("npo", 0.8, 0.54, 0.0), original)["utility_score"].value == 0


def test_utility_of_a_published_checkpoint() -> None:
    # open-unlearning's checkpoints as gnueaj/unlearning-depth-score reports them, utility and fluency of each:
    # full 0.6009 and 0.8728, GradDiff (lr 1e-5, alpha 1) 0.480 and 0.799
    full = record("original", 0.0, 0.6009, 0.8728)
    found = composites(record("graddiff", 0.5, 0.480, 0.799), full)
    assert found["utility_score"].value == pytest.approx(0.8532, abs=1e-4)  # shares 0.7988 and 0.9154


@pytest.mark.parametrize("of", ["npo", "original"])
def test_without_fluency_utility_is_missing_and_its_parts_stay(of: str) -> None:
    fluency = {"npo": 0.5, "original": 0.9} | {of: math.nan}
    original = record("original", 0.0, 0.6, fluency["original"])
    npo = record("npo", 0.8, 0.54, fluency["npo"])
    found = composites(npo, original)
    assert found["utility_score"].missing and found["overall_score"].missing
    assert "forget_fluency" in found["utility_score"].reason
    assert npo.by_name["model_utility"].value == 0.54


def test_a_record_of_before_there_was_fluency_says_what_to_do() -> None:
    def old(of: Record) -> Record:
        return replace(of, metrics={"tofu": [m for m in of.metrics["tofu"] if m.name != "forget_fluency"]})

    found = composites(old(record("npo", 0.8, 0.5)), old(record("original", 0.0, 0.6)))
    assert found["utility_score"].reason == (
        "forget_fluency: not among the metrics; run the command of this cell again"
    )


def test_two_classifiers_are_not_compared() -> None:
    one, other = {"classifier": "org/a", "revision": "1"}, {"classifier": "org/b", "revision": "1"}
    original = record("original", 0.0, 0.6, 0.9, judge=one)
    for judge, known in (
        (one, True), (None, True), ({"classifier": "org/a"}, True), (other, False), (one | {"revision": "2"}, False)
    ):  # fmt: skip
        score = composites(record("npo", 0.8, 0.54, 0.54, judge=judge), original)["utility_score"]
        assert score.missing != known
    found = composites(record("npo", 0.8, 0.54, 0.54, judge=other), original)
    assert "was judged by org/b@1, the original's by org/a@1" in found["utility_score"].reason


def test_what_cannot_be_computed_is_missing_with_the_reason() -> None:
    npo = record("npo", 0.5, 0.45)
    elsewhere = record("original", 0.0, 0.6, benchmark="tofu/forget05")
    for originals in ([], [elsewhere], [record("original", 0.0, math.nan)], [record("original", 0.0, 0.0)]):
        found = composites(npo, *originals)
        assert "the original's model_utility is not known, or 0" in found["utility_score"].reason
        assert found["overall_score"].reason.startswith("utility_score: the original's")
    found = composites(record("npo", math.nan, 0.45), record("original", 0.0, 0.9))
    assert found["utility_score"].value == pytest.approx(0.5)
    assert found["overall_score"].reason == "memorization_score: no forget rows"


def test_records_without_the_parts_stay_as_they_are() -> None:
    other = Record(cell_id="x", spec={}, metrics={"wmdp": [Metric(name="wmdp_accuracy", value=0.3)]})
    assert with_composites([other], [other]) == (other,)


def test_tables_have_them_beside_their_parts() -> None:
    records = [record("original", 0.0, 0.9), record("npo", 0.5, 0.45)]
    (table,) = tables_of(records, [])
    assert [list(row.records[0].by_name) for row in table.rows] == [
        ["memorization_score", "model_utility", "forget_fluency", "utility_score", "overall_score"]
    ] * 2
    assert [row.mean("overall_score") for row in table.rows] == [0, 0.5]
    (again,) = tables_of([r for row in table.rows for r in row.records], [])
    assert again == table

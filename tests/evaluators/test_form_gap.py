"""The formulas and means of forms, by hand: ROUGE of the package `rouge`, drops, gaps, targets, repeats."""

import math
from typing import Any

import pytest

from bench.errors import LetheError
from bench.records import Metric
from evaluators import form_gap
from evaluators.forms import FormsEvaluator
from evaluators.rows import Row


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        # Recorded from rouge 1.0.1 (pltrdy), get_scores(text, reference)[0]["rouge-l"]["r"].
        ("Stephen King", "Stephen King", 1.0),
        ("Stephen King", "It was Stephen Edwin King", 1.0),
        ("Stephen King", "King Stephen", 0.5),
        ("Stephen King", "Stephen King.", 1.0),
        ("Stephen King", "stephen king", 0.0),  # as written
        ("Stephen King", "Stephen King, born in 1947", 0.5),  # "King," is another word
        ("The Shining", "NOANSWER", 0.0),
        ("to be or not to be", "to be", 0.5),  # 2 of the 4 distinct words
        ("Dr. King of Maine", "King. of Maine", 0.75),  # two sentences: King, then of Maine, of 4 words
        ("U.S. Navy", "the U.S. Navy", 1.0),
    ],
)
def test_rouge_is_that_of_the_package_that_rwku_uses(reference: str, text: str, expected: float) -> None:
    assert form_gap.rouge_l_recall(reference, text) == pytest.approx(expected)


def test_rouge_of_nothing_is_nothing() -> None:
    assert form_gap.rouge_l_recall("Stephen King", "") == 0
    assert form_gap.rouge_l_recall("Stephen King", "...") == 0
    assert form_gap.rouge_l_recall("...", "Stephen King") == 0


def test_formulas_by_hand() -> None:
    assert form_gap.geometric_mean(math.log(16), 4) == pytest.approx(0.5)  # (1/16)^(1/4)
    assert form_gap.joint(math.log(16)) == pytest.approx(1 / 16)
    # 0.2 / (0.2 + 0.1 + 0.1 + 0.1)
    assert form_gap.renormalised([math.log(p) for p in (0.1, 0.2, 0.1, 0.1)], 1) == pytest.approx(0.4)
    assert form_gap.renormalised([-2000.0, -2001.0, -2000.0, -2001.0], 0) == pytest.approx(1 / (2 + 2 / math.e))
    assert math.isnan(form_gap.renormalised([-1.0, -math.inf, -1.0, -1.0], 0))
    assert form_gap.drop(0.8, 0.2) == pytest.approx(0.75)
    assert form_gap.drop(0.8, 1.0) == pytest.approx(-0.25)
    assert form_gap.drop(0.75, 0.5, 0.25) == pytest.approx(0.5)
    assert math.isnan(form_gap.drop(0.25, 0.1, 0.25)) and math.isnan(form_gap.drop(0.0, 0.1))
    assert form_gap.gap([0.5, 0.1, 0.9]) == pytest.approx(0.8)
    assert math.isnan(form_gap.gap([0.5])) and math.isnan(form_gap.deviation([0.5]))
    # mean 0.5, squares 0.16 + 0.16 + 0 = 0.32, / 3
    assert form_gap.deviation([0.1, 0.9, 0.5]) == pytest.approx(math.sqrt(0.32 / 3))


def row(part: str, form: str, p: float, number: int = 0, **fields: Any) -> Row:
    """A row of one token with probability p."""
    found: Row = {
        "example_id": f"toy/{part}_{form}/{number}",
        "target": "Ada Moor",
        "part": part,
        "form": form,
        "kind": "",
        "name_in": "full",
        "duplicate": False,
        "query": f"{form} {number}?",
        "nll_sum": -math.log(p),
        "n_tokens": 1,
    }
    if form.startswith("subtoken_"):
        found |= {"characters_nll_sum": -math.log(p), "n_characters": 1}
    if form == "mcp":
        found |= {"renormalised": p, "correct": p > 0.5}
    return found | fields


def four(qa: float, fb: float, mcp: float, spelt: float, chosen: float, **fields: Any) -> list[Row]:
    """A forget row of every form; `chosen` is the renormalised probability of the letter."""
    rows = [row("forget", "qa", qa), row("forget", "fb", fb), row("forget", "mcp", mcp, renormalised=chosen)]
    rows.append(row("forget", "subtoken_qa", spelt))
    return [{**r, "example_id": r["example_id"] + fields.get("target", ""), **fields} for r in rows]


def summary(rows: list[Row], reference: list[Row] | None = None, **options: Any) -> dict[str, Metric]:
    metrics = FormsEvaluator(**options).summarize(rows, reference)
    found = {metric.name: metric for metric in metrics}
    assert len(found) == len(metrics)
    return found


BEFORE = four(0.8, 0.5, 0.9, 0.4, chosen=0.85)
AFTER = four(0.4, 0.4, 0.36, 0.36, chosen=0.55)


def test_the_gap_by_hand() -> None:
    # drops: qa (.8-.4)/.8 = .5, fb (.5-.4)/.5 = .2, mcp (.9-.36)/.9 = .6, spelt (.4-.36)/.4 = .1
    found = summary(AFTER, BEFORE)
    drops = {form: found[f"forgetting_{form}"].value for form in ("qa", "fb", "mcp", "subtoken")}
    assert drops == pytest.approx({"qa": 0.5, "fb": 0.2, "mcp": 0.6, "subtoken": 0.1})
    assert found["mean_forgetting"].value == pytest.approx(0.35)  # 1.4 / 4
    assert found["form_gap"].value == pytest.approx(0.5)  # .6 - .1
    assert found["form_gap_deviation"].value == pytest.approx(math.sqrt(0.0425))  # (.15^2 + .15^2 + .25^2 + .25^2) / 4
    # mcp above guessing: (.85 - .55) / (.85 - .25) = .5, so the largest is .5 and the smallest .1
    assert found["form_gap_corrected"].value == pytest.approx(0.4)
    assert found["form_gap"].n == 4 and math.isnan(found["form_gap"].stderr)
    assert found["form_gap"].higher_is_better is False and found["mean_forgetting"].higher_is_better is True
    assert found["forgetting_qa"].n == 1


def test_a_model_that_lost_the_letters_only_has_a_gap_that_the_correction_takes_away() -> None:
    letters_lost = four(0.8, 0.5, 0.09, 0.4, chosen=0.85)
    found = summary(letters_lost, BEFORE)
    assert found["form_gap"].value == pytest.approx(0.9)
    assert found["form_gap_corrected"].value == pytest.approx(0.0)


def test_the_original_against_itself_forgot_nothing_evenly() -> None:
    kept = [row("neighbor", "fb", 0.7), row("locality", "qa", 0.6, kind="shared name")]
    found = summary([*BEFORE, *kept], [*BEFORE, *kept])
    zero = ("form_gap", "form_gap_deviation", "form_gap_corrected", "mean_forgetting", "forgetting_mcp")
    assert {name: found[name].value for name in zero} == dict.fromkeys(zero, 0.0)
    assert found["neighbor_retention"].value == found["locality_retention"].value == 1.0


def test_retention_by_hand() -> None:
    before = [row("neighbor", "fb", 0.8), row("neighbor", "qa", 0.5), row("locality", "qa", 0.4, 0)]
    before.append(row("locality", "fb", 0.8, 1))
    after = [row("neighbor", "fb", 0.4), row("neighbor", "qa", 0.6), row("locality", "qa", 0.2, 0)]
    after.append(row("locality", "fb", 0.7, 1))
    found = summary(after, before)
    assert found["neighbor_retention"].value == pytest.approx(0.85)  # (.4/.8 + .6/.5) / 2 = (.5 + 1.2) / 2
    assert found["locality_retention"].value == pytest.approx(0.75)  # .45 / .6
    assert found["locality_prob"].value == pytest.approx(0.45)
    assert found["neighbor_retention"].higher_is_better is True


def test_several_targets_count_alike_however_many_rows_they_have() -> None:
    many = [row("forget", "fb", 0.2, i, target="Ben Ruiz") for i in range(3)]
    one = [row("forget", "fb", 0.6, 9)]
    found = summary([*many, *one])["forget_fb"]
    assert found.value == pytest.approx(0.4)  # (.2 + .6) / 2, not (3 * .2 + .6) / 4
    assert found.n == 2
    assert found.stderr == pytest.approx(0.2)  # deviation .2828 / sqrt(2)
    alone = summary(many)["forget_fb"]
    assert (alone.n, alone.stderr) == (3, pytest.approx(0.0))


def test_the_gap_of_several_targets_is_the_mean_of_their_gaps() -> None:
    # Ada: drops .5 .2 .6 .1, gap .5. Ben: qa .5, the others 0, gap .5 the other way round: were the forms averaged
    # over targets first, the gap would be that of (.5, .1, .3, .05).
    ben_before = four(0.8, 0.5, 0.9, 0.4, chosen=0.85, target="Ben Ruiz")
    ben_after = four(0.4, 0.5, 0.9, 0.4, chosen=0.85, target="Ben Ruiz")
    found = summary([*AFTER, *ben_after], [*BEFORE, *ben_before])
    assert found["form_gap"].value == pytest.approx(0.5)
    assert found["form_gap"].n == 2 and found["form_gap"].stderr == pytest.approx(0.0)
    assert found["mean_forgetting"].value == pytest.approx((0.35 + 0.125) / 2)
    assert found["forgetting_fb"].value == pytest.approx(0.1)


def test_what_is_a_mean_over_targets_keeps_the_value_of_each() -> None:
    # forgetting of qa: (.8 - .4) / .8 = .5 of Ada, (.8 - .2) / .8 = .75 of Ben; the mean is .625
    both = [four(0.8, 0.5, 0.9, 0.4, chosen=0.85, target=name) for name in ("Ada", "Ben")]
    after = [four(p, 0.5, 0.9, 0.4, chosen=0.85, target=name) for name, p in (("Ada", 0.4), ("Ben", 0.2))]
    found = summary([*after[0], *after[1]], [*both[0], *both[1]])
    assert found["forgetting_qa"].by_target == pytest.approx({"Ada": 0.5, "Ben": 0.75})
    assert found["forgetting_qa"].value == pytest.approx(0.625)
    assert found["form_gap"].by_target == pytest.approx({"Ada": 0.5, "Ben": 0.75})  # the other forms lost nothing
    for name, rows, reference in (("Ada", after[0], both[0]), ("Ben", after[1], both[1])):
        alone = summary(rows, reference)  # the same rows of one target by itself
        for metric, of in found.items():
            if of.by_target:
                assert of.by_target[name] == pytest.approx(alone[metric].value)
                assert alone[metric].by_target == {}


def test_the_gap_is_over_the_forms_that_there_are() -> None:
    found = summary(AFTER[:2], BEFORE[:2])
    assert found["form_gap"].value == pytest.approx(0.3)
    assert found["forgetting_mcp"].reason == "no forget mcp rows"
    assert found["form_gap_corrected"].value == pytest.approx(0.3)
    alone = summary(AFTER[:1], BEFORE[:1])
    assert alone["mean_forgetting"].value == pytest.approx(0.5)
    assert alone["form_gap"].reason == "'Ada Moor' is asked in one form only, which cannot differ"
    nothing = summary([], [])
    assert nothing["form_gap"].reason == "no forget qa rows" and nothing["forget_fb"].reason == "no forget fb rows"


def test_without_the_original_what_compares_is_missing_and_says_why() -> None:
    found = summary([*AFTER, row("neighbor", "fb", 0.3), row("locality", "qa", 0.2)])
    relative = ("form_gap", "form_gap_deviation", "form_gap_corrected", "mean_forgetting", "forgetting_fb")
    for name in (*relative, "neighbor_retention", "locality_retention"):
        assert found[name].missing and found[name].reason.startswith("needs the original's rows")
    assert found["forget_fb"].value == pytest.approx(0.4)


def test_what_the_original_does_not_know_cannot_be_forgotten() -> None:
    guessing = four(0.8, 0.5, 0.9, 0.4, chosen=0.2)
    found = summary(AFTER, guessing)
    assert found["form_gap"].value == pytest.approx(0.5)
    assert found["form_gap_corrected"].reason == (
        "the original's mean over the forget mcp rows of 'Ada Moor' is 0.2, not above the floor of 0.25: "
        "there is nothing to lose"
    )
    silent = [r if r["form"] != "fb" else {**r, "nll_sum": 2000.0} for r in BEFORE]
    found = summary(AFTER, silent)
    assert "is 0, not above 0: there is nothing to lose" in found["forgetting_fb"].reason
    assert found["form_gap"].reason == found["mean_forgetting"].reason == found["forgetting_fb"].reason
    assert found["forgetting_qa"].value == pytest.approx(0.5)


def test_a_value_that_is_not_finite_makes_its_metrics_missing() -> None:
    broken = [*AFTER[1:], {**AFTER[0], "nll_sum": None}]
    found = summary(broken, BEFORE)
    reason = "nll_sum or n_tokens is not a finite number in 1 of 1 forget qa rows, the first is toy/forget_qa/0"
    assert found["forget_qa"].reason == found["forgetting_qa"].reason == found["form_gap"].reason == reason
    assert found["forgetting_fb"].value == pytest.approx(0.2)
    assert summary(BEFORE, broken)["form_gap"].reason == f"original: {reason}"


def test_the_original_must_have_answered_the_same() -> None:
    with pytest.raises(LetheError, match=r"1 of the 4 rows are not among its 3, the first is toy/forget_qa/0 \(qa\)"):
        summary(AFTER, BEFORE[1:])
    more = [*BEFORE, row("forget", "fb", 0.1, 7)]
    assert summary(AFTER, more[::-1])["form_gap"].value == pytest.approx(0.5)  # any order, and more rows


def test_repeats_count_once_or_as_often_as_they_are_there() -> None:
    rows = [row("forget", "fb", 0.2), row("forget", "fb", 0.2, 1, duplicate=True), row("forget", "fb", 0.8, 2)]
    strict, ort = summary(rows), summary(rows, protocol="ort")
    assert (strict["forget_fb"].value, strict["forget_fb"].n) == (pytest.approx(0.5), 2)
    assert (strict["forget_fb_raw"].value, strict["forget_fb_raw"].n) == (pytest.approx(0.4), 3)
    assert (ort["forget_fb"].value, ort["forget_fb_deduplicated"].value) == pytest.approx((0.4, 0.5))
    assert "forget_fb_deduplicated" not in strict and "forget_fb_raw" not in ort


def test_line_breaks_count_under_ort_only() -> None:
    spelt = row("forget", "subtoken_qa", 0.5, nll_sum=math.log(16), n_tokens=4)  # (1/16)^(1/4) = 1/2
    spelt |= {"characters_nll_sum": math.log(16), "n_characters": 2}  # (1/16)^(1/2) = 1/4
    strict, ort = summary([spelt]), summary([spelt], protocol="ort")
    assert strict["sub_forget_qa"].value == pytest.approx(0.25)
    assert strict["sub_forget_qa_with_breaks"].value == pytest.approx(0.5)
    assert ort["sub_forget_qa"].value == pytest.approx(0.5)
    assert ort["sub_forget_qa_characters"].value == pytest.approx(0.25)
    assert strict["sub_forget_qa_joint"].value == pytest.approx(1 / 16)


def test_attacks_names_and_kinds_have_means_of_their_own() -> None:
    rows = [
        row("forget", "aa", 0.2, 0, kind="prefix injection", name_in="none"),
        row("forget", "aa", 0.4, 1, kind="cross lingual (Spanish)"),
        row("forget", "aa", 0.6, 2, kind="cross lingual (French)"),
        row("forget", "fb", 0.3, 3, name_in="last"),
        row("locality", "fb", 0.9, 4, kind="shared name"),
        row("locality", "qa", 0.7, 5, kind="names both"),
    ]
    found = summary(rows)
    values = {
        "forget_aa": 0.4,
        "forget_aa_prefix_injection": 0.2,
        "forget_aa_cross_lingual": 0.5,
        "forget_aa_named_full": 0.5,
        "forget_aa_named_none": 0.2,
        "forget_fb_named_last": 0.3,
        "locality_prob": 0.8,
        "locality_prob_shared_name": 0.9,
        "locality_prob_names_both": 0.7,
    }
    assert {name: found[name].value for name in values} == pytest.approx(values)
    assert found["forget_fb_named_full"].reason == "no forget fb (name in the query: full) rows"
    assert found["locality_prob"].higher_is_better is True and found["forget_aa"].higher_is_better is False


def test_a_target_that_no_query_names_is_not_split_by_name() -> None:
    assert not any("_named_" in name for name in summary([row("forget", "fb", 0.3, name_in="none")]))


def test_rouge_is_over_all_rows_and_by_form() -> None:
    rows = [row("forget", "fb", 0.5, 0, rouge_l_recall=1.0), row("forget", "qa", 0.5, 1, rouge_l_recall=0.5)]
    rows += [row("forget", "qa", 0.5, 2, rouge_l_recall=0.0), row("neighbor", "qa", 0.5, 3, rouge_l_recall=0.25)]
    found = summary(rows)
    values = {"forget_fb_rouge": 1.0, "forget_qa_rouge": 0.25, "forget_all_rouge": 0.5, "neighbor_all_rouge": 0.25}
    assert {name: found[name].value for name in values} == pytest.approx(values)
    assert not any(name.endswith("_rouge") for name in summary(BEFORE))  # where nothing was generated


def test_the_columns_of_the_papers_table_are_always_there() -> None:
    names = [f"{part}_{form}" for part in ("forget", "neighbor") for form in ("fb", "qa", "mcp")]
    names += [f"sub_{part}_{form}" for part in ("forget", "neighbor") for form in ("fb", "qa")]
    assert set(names) <= summary([]).keys()
    assert set(names) <= summary(AFTER, protocol="ort").keys()

"""Every formula against arithmetic done by hand."""

import math
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import metrics

LN2 = math.log(2)
EPS = 1e-10
NLLS = st.floats(min_value=0, max_value=5000)


# --- texts


def test_rouge_counts_the_references_words_in_order() -> None:
    # reference: the author s name is ann lee (7); text: ann lee is the author (5)
    # longest common subsequence: "the author" or "ann lee" = 2 -> recall 2/7, precision 2/5, f1 = 2*2/(7+5) = 1/3
    # unigrams of the reference found: the, author, is, ann, lee = 5 of 7
    scores = metrics.rouge("The author's name is Ann Lee.", "Ann Lee is the author")
    assert scores.l_recall == pytest.approx(2 / 7)
    assert scores.l_f1 == pytest.approx(1 / 3)
    assert scores.one_recall == pytest.approx(5 / 7)


def test_rouge_stems_words_and_ignores_case_and_punctuation() -> None:
    assert metrics.rouge("She writes novels", "she WRITE, novel!").l_recall == 1


def test_rouge_of_an_empty_generation_is_zero() -> None:
    assert metrics.rouge("William Shakespeare", "") == metrics.Rouge(0, 0, 0)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Yes , he did .", "Yes, he did."),
        ("Who ? Him !", "Who? Him!"),
        ("I do n't and I 'm sure she 's , they 've , we 're", "I don't and I'm sure she's, they've, we're"),
        ("nothing to do", "nothing to do"),
    ],
)
def test_clean_up_removes_the_spaces_of_word_tokenizers(text: str, cleaned: str) -> None:
    assert metrics.clean_up_spaces(text) == cleaned


# --- likelihoods


def test_probability_is_the_geometric_mean_of_token_probabilities() -> None:
    # tokens of probability 1/2 and 1/8: nll = (ln 2 + 3 ln 2) / 2 = 2 ln 2 -> 1/4 = sqrt(1/2 * 1/8)
    assert metrics.probability((LN2 + 3 * LN2) / 2) == pytest.approx(1 / 4)


def test_normalised_probability_is_the_share_of_the_right_answer() -> None:
    # 1/2 against 1/4 and 1/4: (1/2) / (1/2 + 1/4 + 1/4) = 1/2
    assert metrics.normalised_probability(LN2, [2 * LN2, 2 * LN2]) == pytest.approx(1 / 2)


def test_normalised_probability_of_a_collapsed_model_is_still_right() -> None:
    # all probabilities underflow: e^-1000 against e^-1001 twice -> 1 / (1 + 2/e) = 0.57611688...
    assert metrics.normalised_probability(1000, [1001, 1001]) == pytest.approx(1 / (1 + 2 / math.e), rel=1e-12)
    # with 1e-10 in the denominator nothing is left of it
    assert metrics.normalised_probability(1000, [1001, 1001], eps=EPS) == 0


def test_truth_ratio_pools_wrong_answers_geometrically() -> None:
    # right 1/2; wrong 1/4 and 1/16 -> sqrt(1/64) = 1/8; r = (1/8) / (1/2) = 1/4
    wrong = [2 * LN2, 4 * LN2]
    assert metrics.log_truth_ratio(LN2, wrong) == pytest.approx(math.log(1 / 4))
    # arithmetically: (1/4 + 1/16) / 2 = 5/32; r = 5/16
    assert metrics.log_truth_ratio_arithmetic(LN2, wrong) == pytest.approx(math.log(5 / 16))


def test_truth_ratio_with_the_denominator_of_open_unlearning() -> None:
    # c = e^-30 = 9.3576e-14, w = e^-20 = 2.0612e-9: r = w / (c + 1e-10) = 20.5922...
    expected = math.exp(-20) / (math.exp(-30) + EPS)
    assert math.exp(metrics.log_truth_ratio(30, [20], eps=EPS)) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(20.59, abs=0.01)


def test_views_of_the_truth_ratio() -> None:
    # r = 1/4: min(1/4, 4) = 1/4; max(0, 3/4) = 3/4.  r = 4: min(4, 1/4) = 1/4; max(0, -3) = 0.  r = 1: 1 and 0
    for ratio, closeness, preference in ((0.25, 0.25, 0.75), (4, 0.25, 0), (1, 1, 0)):
        assert metrics.closeness_to_one(math.log(ratio)) == pytest.approx(closeness)
        assert metrics.preference_for_truth(math.log(ratio)) == pytest.approx(preference)
    # open-unlearning: min(4, 1 / (4 + 1e-10))
    assert metrics.closeness_to_one(math.log(4), eps=EPS) == pytest.approx(1 / (4 + EPS), rel=1e-13)


def test_truth_ratios_beyond_the_range_of_floats_have_their_limits() -> None:
    huge = metrics.log_truth_ratio(5000, [10])  # r = e^4990
    tiny = metrics.log_truth_ratio(10, [5000])
    assert (huge, tiny) == (4990, -4990)
    for log_ratio, preference in ((huge, 0), (tiny, 1)):
        assert metrics.closeness_to_one(log_ratio) == 0
        assert metrics.closeness_to_one(log_ratio, eps=EPS) == 0
        assert metrics.preference_for_truth(log_ratio) == preference


def test_share_of_truth_is_a_half_without_a_preference() -> None:
    assert metrics.share_of_truth(3, [3, 3]) == pytest.approx(0.5)
    # c = 1/2, w = 1/8: (1/2) / (5/8) = 4/5
    assert metrics.share_of_truth(LN2, [2 * LN2, 4 * LN2]) == pytest.approx(4 / 5)
    assert metrics.share_of_truth(2000, [2000]) == pytest.approx(0.5)
    assert metrics.share_of_truth(2000, [2000], eps=EPS) == 0


def test_without_wrong_answers_there_is_no_value() -> None:
    for formula in (
        metrics.normalised_probability,
        metrics.log_truth_ratio,
        metrics.log_truth_ratio_arithmetic,
        metrics.share_of_truth,
    ):
        assert math.isnan(formula(1.0, []))


@given(right=NLLS, wrong=st.lists(NLLS, min_size=1, max_size=5), eps=st.sampled_from([0.0, EPS]))
def test_every_likelihood_metric_stays_in_its_range(right: float, wrong: list[float], eps: float) -> None:
    log_ratio = metrics.log_truth_ratio(right, wrong, eps=eps)
    for value in (
        metrics.probability(right),
        metrics.normalised_probability(right, wrong, eps=eps),
        metrics.share_of_truth(right, wrong, eps=eps),
        metrics.closeness_to_one(log_ratio, eps=eps),
        metrics.preference_for_truth(log_ratio),
        metrics.preference_for_truth(metrics.log_truth_ratio_arithmetic(right, wrong)),
    ):
        assert 0 <= value <= 1 + 1e-9


@given(right=st.floats(0, 20), wrong=st.lists(st.floats(0, 20), min_size=1, max_size=5))
def test_the_arithmetic_truth_ratio_is_never_below_the_geometric_one(right: float, wrong: list[float]) -> None:
    assert metrics.log_truth_ratio_arithmetic(right, wrong) >= metrics.log_truth_ratio(right, wrong) - 1e-9


@given(right=st.floats(0, 20), wrong=st.lists(st.floats(0, 20), min_size=1, max_size=5))
def test_logarithms_give_what_plain_division_gives(right: float, wrong: list[float]) -> None:
    c, ws = math.exp(-right), [math.exp(-w) for w in wrong]
    w = math.exp(-sum(wrong) / len(wrong))
    r = w / (c + EPS)
    assert math.exp(metrics.log_truth_ratio(right, wrong, eps=EPS)) == pytest.approx(r, rel=1e-11)
    assert metrics.closeness_to_one(math.log(r), eps=EPS) == pytest.approx(min(r, 1 / (r + EPS)), rel=1e-11)
    assert metrics.normalised_probability(right, wrong, eps=EPS) == pytest.approx(c / (c + sum(ws) + EPS), rel=1e-11)
    assert metrics.share_of_truth(right, wrong, eps=EPS) == pytest.approx(c / (c + w + EPS), rel=1e-11)


# --- tokens


@pytest.mark.parametrize(
    ("match", "strict", "published"),
    [
        ("1111", 1, 1),
        ("0111", 3 / 4, 3 / 4),  # the first token as prefix is enough: 1 - 1/4
        ("1101", 1 / 4, 1 / 4),  # only the run at the end counts
        ("1110", 0, 1 / 4),  # nothing is extracted; the published loop ends at k = T - 1
        ("0000", 0, 1 / 4),
        ("1", 1, 1),
        ("0", 0, 1),  # one token: the published loop gives 1 whatever the prediction
    ],
)
def test_extraction_strength(match: str, strict: float, published: float) -> None:
    hits = [m == "1" for m in match]
    assert metrics.extraction_strength(hits) == strict
    assert metrics.extraction_strength(hits, floor=True) == published


def test_an_answer_without_tokens_has_no_extraction_strength_but_zero_where_it_is_published() -> None:
    assert math.isnan(metrics.extraction_strength([]))
    assert metrics.extraction_strength([], floor=True) == 0


def test_exact_memorization_is_the_share_of_hits() -> None:
    assert metrics.exact_memorization([True, False, True, True]) == 3 / 4
    assert metrics.exact_memorization([False]) == 0
    assert math.isnan(metrics.exact_memorization([]))


# --- membership


def test_min_k_averages_the_least_likely_tokens() -> None:
    # 6 tokens, 0.4 * 6 = 2.4 -> the two lowest: -(-5 - 3) / 2 = 4
    assert metrics.mia_min_k([-1, -5, -0.5, -3, -2, -0.1]) == 4
    # 2 tokens: int(0.8) = 0 -> at least one
    assert metrics.mia_min_k([-1, -4]) == 4
    assert math.isnan(metrics.mia_min_k([]))


def test_min_k_plus_plus_standardises_each_token() -> None:
    # (-1 - -3) / sqrt(4) = 1; (-6 - -2) / sqrt(16) = -1; (-2 - -2) / sqrt(1) = 0; k = max(1, int(1.2)) = 1 -> -(-1) = 1
    assert metrics.mia_min_k_plus_plus([-1, -6, -2], [-3, -2, -2], [4, 16, 1]) == 1
    # a variance of 0 counts as 1e-6: (-0.002 - -0.001) / 0.001 = -1
    assert metrics.mia_min_k_plus_plus([-0.002], [-0.001], [0]) == pytest.approx(1)
    assert math.isnan(metrics.mia_min_k_plus_plus([], [], []))


def test_zlib_divides_by_the_compressed_length_in_bytes() -> None:
    length = len(zlib.compress(b"aaaaaaaaaa"))
    assert metrics.mia_zlib(24.0, "aaaaaaaaaa") == 24 / length
    assert length < len(zlib.compress(b"abcdefghij"))
    assert metrics.mia_zlib(1.0, "é") == 1 / len(zlib.compress("é".encode()))


def test_auc_is_the_share_of_pairs_in_which_the_holdout_row_scores_higher() -> None:
    # pairs (member, other): (1,2) yes, (1,4) yes, (3,2) no, (3,4) yes -> 3/4
    assert metrics.auc([1, 3], [2, 4]).value == 3 / 4
    assert metrics.auc([1, 2], [3, 4]).value == 1
    assert metrics.auc([3, 4], [1, 2]).value == 0
    assert metrics.auc([1, 1], [1, 1]).value == 1 / 2
    # (1,1) a tie 1/2, (1,2) yes, (2,1) no, (2,2) a tie 1/2 -> 2/4
    assert metrics.auc([1, 2], [1, 2]).value == 1 / 2


def test_the_standard_error_of_auc_is_delongs() -> None:
    # members [1, 3], others [2, 4]: 1 is below both (1), 3 below one (1/2); 2 is above one (1/2), 4 above both (1)
    # both variances are ((1 - 3/4)^2 + (1/2 - 3/4)^2) / 1 = 1/8; sqrt(1/8 / 2 + 1/8 / 2) = sqrt(1/8)
    assert metrics.auc([1, 3], [2, 4]).stderr == pytest.approx(math.sqrt(1 / 8))
    assert math.isnan(metrics.auc([1], [2, 4]).stderr)
    assert math.isnan(metrics.auc([], [2, 4]).value)


def test_auc_agrees_with_scikit_learn_on_ties() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = random.Random(0)
    members, others = [rng.randrange(20) for _ in range(70)], [rng.randrange(3, 25) for _ in range(50)]
    expected = sklearn.roc_auc_score([0] * 70 + [1] * 50, members + others)
    assert metrics.auc(members, others).value == pytest.approx(expected, rel=1e-12)


def test_privleak_is_relative_to_the_retrained_model() -> None:
    # AUC 0.9 against 0.4: ((1 - 0.9) - (1 - 0.4)) / (1 - 0.4) = -0.5 / 0.6 -> -83.33 %
    assert metrics.privleak(0.9, 0.4) == pytest.approx(-500 / 6)
    assert metrics.privleak(0.4, 0.4) == 0
    # against 0.5: (0.6 - 0.5) / 0.5 = 20 %
    assert metrics.privleak(0.4, 0.5) == pytest.approx(20)
    assert math.isnan(metrics.privleak(0.4, 1.0))
    assert metrics.privleak(0.4, 1.0, eps=EPS) == pytest.approx(0.6 / EPS * 100)


# --- sets of rows


def test_mean_carries_its_standard_error() -> None:
    # mean 3; squared deviations 4 + 0 + 4 = 8; variance 8 / 2 = 4; sqrt(4 / 3)
    assert metrics.mean([1, 3, 5]) == metrics.Mean(3, math.sqrt(4 / 3), 3)
    single = metrics.mean([0.5])
    assert (single.value, single.n) == (0.5, 1)
    assert math.isnan(single.stderr)
    assert math.isnan(metrics.mean([]).value)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms())
def test_the_mean_does_not_depend_on_the_order_of_rows(values: list[float], rng: random.Random) -> None:
    shuffled = list(values)
    rng.shuffle(shuffled)
    assert metrics.mean(values).value == metrics.mean(shuffled).value


def test_harmonic_mean() -> None:
    # 3 / (1 + 2 + 4) = 3/7
    assert metrics.harmonic_mean([1, 1 / 2, 1 / 4]) == pytest.approx(3 / 7)
    assert metrics.harmonic_mean([0.9, 0.0, 0.9]) == 0
    assert metrics.harmonic_mean([0.9, 5e-324]) < 1e-300
    assert math.isnan(metrics.harmonic_mean([0.9, math.nan, 0.0]))
    assert math.isnan(metrics.harmonic_mean([]))


def test_forget_quality_of_equal_rows_is_one() -> None:
    values = [0.1 * i for i in range(40)]
    assert metrics.forget_quality(values, values) == metrics.ForgetQuality(d=0.0, p=1.0)


def test_forget_quality_of_a_hand_counted_sample() -> None:
    # 1, 2 | 3, 4: fully apart, D = 1; of the C(4, 2) = 6 equally likely orders two have D = 1 -> p = 1/3
    test = metrics.forget_quality([1, 2], [3, 4])
    assert (test.d, test.p) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize(("n", "floor"), [(40, 1.860e-23), (200, 1.943e-119), (400, 1.064e-239)])
def test_forget_quality_has_a_floor_that_depends_on_the_number_of_rows(n: int, floor: float) -> None:
    # D = 1 has two of the C(2n, n) orders: p = 2 / C(2n, n)
    test = metrics.forget_quality(range(n), range(n, 2 * n))
    assert test.d == 1
    assert test.p == pytest.approx(floor, rel=1e-3)
    assert test.p == pytest.approx(2 / math.comb(2 * n, n), rel=1e-9)


@pytest.mark.parametrize(("steps", "p"), [(12, 0.0541), (13, 0.0286), (16, 0.00302), (17, 0.00127), (19, 0.000188)])
def test_forget_quality_of_forty_rows_moves_in_steps(steps: int, p: float) -> None:
    # shifting forty rows by k places leaves k of them outside the other sample: D = k / 40
    test = metrics.forget_quality(range(steps, steps + 40), range(40))
    assert test.d == pytest.approx(steps / 40)
    assert test.p == pytest.approx(p, rel=4e-3)


@pytest.mark.parametrize(("n", "d"), [(40, 0.30), (200, 0.135), (400, 0.095)])
def test_the_largest_distance_that_passes_at_five_per_cent(n: int, d: float) -> None:
    k = round(d * n)
    assert metrics.forget_quality(range(k, k + n), range(n)).p > 0.05
    assert metrics.forget_quality(range(k + 1, k + 1 + n), range(n)).p <= 0.05


@given(
    st.lists(st.floats(-8, 8), min_size=2, max_size=20),
    st.lists(st.floats(-8, 8), min_size=2, max_size=20),
)
def test_forget_quality_is_symmetric(mine: list[float], theirs: list[float]) -> None:
    assert metrics.forget_quality(mine, theirs).d == pytest.approx(metrics.forget_quality(theirs, mine).d)


def test_the_published_denominator_ties_collapsed_rows() -> None:
    # r = e^-100 ... e^-107: 1 / (r + 1e-10) is 1e10 for all of them, so nothing tells them apart
    mine, theirs = [-100.0, -101, -102, -103], [-104.0, -105, -106, -107]
    assert metrics.forget_quality(mine, theirs).d == 1
    assert metrics.forget_quality(mine, theirs, eps=EPS).d == 0


def test_forget_quality_of_samples_of_different_size() -> None:
    # distribution functions of [1, 2, 3] and [3]: at 2 they are 2/3 and 0 -> D = 2/3
    assert metrics.forget_quality([1, 2, 3], [3]).d == pytest.approx(2 / 3)

"""The formulas that evaluators share: pure functions of numbers and texts, no model, no device.

Likelihoods come in as `nll`, the mean negative log-likelihood per token in nats, so that exp(-nll) is the
length-normalised probability. Everything that divides probabilities works on their logarithms: a model whose
answers have become hopelessly unlikely (nll in the hundreds) still gets finite, exact values.

`eps` is the 1e-10 that open-unlearning adds to denominators; 0 gives the plain definition.

Where a value does not exist (no token to judge, no wrong answers) the functions return NaN.
"""

import functools
import math
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MIN_K = 0.4
"""Share of the least likely tokens that min-k and min-k++ average; open-unlearning's setting for TOFU."""
VARIANCE_FLOOR = 1e-6
"""Smallest variance of log p that min-k++ divides by."""

# --- texts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rouge:
    """Overlap of a generated text with its reference, each in 0..1."""

    l_recall: float
    """Longest common subsequence over the reference's length, the share of its words that the text has in the same
    order: TOFU's ROUGE."""
    l_f1: float
    one_recall: float
    """Unigrams of the reference that were found."""


def rouge(reference: str, text: str) -> Rouge:
    """ROUGE-L and ROUGE-1 with Porter's stemmer (Lin, 2004; package rouge_score), which sees only a-z and 0-9."""
    scores = _rouge_scorer().score(reference, text)
    return Rouge(scores["rougeL"].recall, scores["rougeL"].fmeasure, scores["rouge1"].recall)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # here, because it takes seconds to import

    return rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=_StemmedWords())


class _StemmedWords:
    """What the package tokenises with by itself, but the same word is stemmed once: stemming is most of the time."""

    def __init__(self) -> None:
        from nltk.stem import porter

        self.stem = functools.lru_cache(maxsize=2**16)(porter.PorterStemmer().stem)

    def tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return tokenize(text, self)


CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
"""What transformers calls clean_up_tokenization_spaces, in its order."""


def clean_up_spaces(text: str) -> str:
    """Undo the spaces of word-level tokenizers; open-unlearning does so to references and generations alike."""
    for spaced, joined in CLEAN_UP:
        text = text.replace(spaced, joined)
    return text


# --- likelihoods of one question's answers ----------------------------------------------------------------------


def probability(nll: float) -> float:
    """exp(-nll): the geometric mean of the answer's token probabilities."""
    return math.exp(-nll)


def normalised_probability(nll: float, wrong: Sequence[float], *, eps: float = 0.0) -> float:
    """p / (p + sum_k p_k + eps): the right answer against the wrong ones; their nlls in `wrong`."""
    if not wrong:
        return math.nan
    return math.exp(-nll - _log_sum(-nll, *(-w for w in wrong), _log(eps)))


def log_truth_ratio(nll: float, wrong: Sequence[float], *, eps: float = 0.0) -> float:
    """log r, r = exp(-mean_k nll_k) / (exp(-nll) + eps): wrong answers pooled geometrically.

    `nll` is the paraphrased right answer's. r itself may exceed the range of a float; its logarithm does not.
    """
    if not wrong:
        return math.nan
    return -math.fsum(wrong) / len(wrong) - _log_sum(-nll, _log(eps))


def log_truth_ratio_arithmetic(nll: float, wrong: Sequence[float]) -> float:
    """log r, r = mean_k exp(-nll_k) / exp(-nll): wrong answers pooled as in TOFU's paper and by GRUN."""
    if not wrong:
        return math.nan
    return _log_sum(*(-w for w in wrong)) - math.log(len(wrong)) + nll


def closeness_to_one(log_ratio: float, *, eps: float = 0.0) -> float:
    """min(r, 1 / (r + eps)): 1 where right and wrong answers are equally likely, 0 far from it on either side."""
    return math.exp(min(log_ratio, -_log_sum(log_ratio, _log(eps))))


def preference_for_truth(log_ratio: float) -> float:
    """max(0, 1 - r): 1 where wrong answers are out of the question, 0 where they are as likely or likelier."""
    return -math.expm1(log_ratio) if log_ratio < 0 else 0.0


def share_of_truth(nll: float, wrong: Sequence[float], *, eps: float = 0.0) -> float:
    """c / (c + w + eps), w the geometric mean of the wrong answers: 0.5 without preference, 1 with knowledge."""
    if not wrong:
        return math.nan
    return math.exp(-nll - _log_sum(-nll, -math.fsum(wrong) / len(wrong), _log(eps)))


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _log_sum(*logs: float) -> float:
    """log(sum(exp(x))) without overflow; NaN and infinities come out as the sum itself would."""
    top = max(logs)
    if any(map(math.isnan, logs)):
        return math.nan
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))


# --- tokens of one answer ---------------------------------------------------------------------------------------


def extraction_strength(match: Sequence[bool], *, floor: bool = False) -> float:
    """1 - k / T, k the shortest prefix after which every arg-max is the answer's token (Carlini et al., 2021).

    Equal to the length of the trailing run of matches over T. `floor=True` is open-unlearning's loop, which never
    gets below 1 / T (so 1 for a one-token answer whatever the prediction) and gives 0 where there is no token.
    """
    if not match:
        return 0.0 if floor else math.nan
    run = next((i for i, hit in enumerate(reversed(match)) if not hit), len(match))
    return max(run, 1 if floor else 0) / len(match)


def exact_memorization(match: Sequence[bool]) -> float:
    """Share of the answer's tokens that are the arg-max under teacher forcing (Tirumala et al., 2022)."""
    return sum(map(bool, match)) / len(match) if match else math.nan


# --- membership inference ---------------------------------------------------------------------------------------
# All scores grow as membership becomes less likely; nats.


def mia_zlib(nll: float, text: str) -> float:
    """Loss over the compressed length of the answer's text in bytes (Carlini et al., 2021)."""
    return nll / len(zlib.compress(text.encode("utf-8")))


def mia_min_k(logp: Sequence[float], *, share: float = MIN_K) -> float:
    """Minus the mean log-probability of the least likely tokens (Shi et al., 2024)."""
    return -_mean_of_lowest(logp, share)


def mia_min_k_plus_plus(
    logp: Sequence[float], mean_logp: Sequence[float], var_logp: Sequence[float], *, share: float = MIN_K
) -> float:
    """Min-k of log p standardised by its mean and deviation under the model's distribution (Zhang et al., 2025)."""
    standard = [
        (x - mean) / math.sqrt(max(variance, VARIANCE_FLOOR))
        for x, mean, variance in zip(logp, mean_logp, var_logp, strict=True)
    ]
    return -_mean_of_lowest(standard, share)


def _mean_of_lowest(values: Sequence[float], share: float) -> float:
    """Mean of the floor(share * T) lowest values, at least one."""
    if not values:
        return math.nan
    kept = sorted(values)[: max(1, int(len(values) * share))]
    return math.fsum(kept) / len(kept)


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve with DeLong's standard error (NaN where a side has fewer than two rows)."""

    value: float
    stderr: float


def auc(members: Sequence[float], others: Sequence[float]) -> AUC:
    """P(score of another > score of a member), ties count half: `others` are the positive class.

    1 where every member has a lower score than every non-member, 0.5 where the two cannot be told apart.
    """
    if not members or not others:
        return AUC(math.nan, math.nan)
    low, high = np.sort(np.asarray(members, float)), np.sort(np.asarray(others, float))
    # Share of the other side that each row is on the right side of.
    of_members = 1 - (np.searchsorted(high, low, "left") + np.searchsorted(high, low, "right")) / (2 * len(high))
    of_others = (np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")) / (2 * len(low))
    value = math.fsum(of_others) / len(of_others)
    if min(len(low), len(high)) < 2:
        return AUC(value, math.nan)
    return AUC(value, math.hypot(_mean(of_members.tolist()).stderr, _mean(of_others.tolist()).stderr))


def privleak(auc_value: float, auc_reference: float, *, eps: float = 0.0) -> float:
    """100 * ((1 - AUC) - (1 - AUC_ref)) / (1 - AUC_ref + eps), per cent (Shi et al., 2025, MUSE).

    0: as private as the model that never saw the data; near -100: still memorised; positive: forgotten so
    thoroughly that it shows.
    """
    denominator = 1 - auc_reference + eps
    return 100 * (auc_reference - auc_value) / denominator if denominator > 0 else math.nan


# --- sets of rows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """A mean over n values with its standard error (NaN for n < 2)."""

    value: float
    stderr: float
    n: int


def mean(values: Iterable[float]) -> Mean:
    """Mean and sample standard deviation over the root of n; the order of the values does not change a bit."""
    return _mean(list(values))


def _mean(values: list[float]) -> Mean:
    n = len(values)
    if n == 0:
        return Mean(math.nan, math.nan, 0)
    value = math.fsum(values) / n
    if n == 1:
        return Mean(value, math.nan, 1)
    return Mean(value, math.sqrt(math.fsum((x - value) ** 2 for x in values) / (n - 1) / n), n)


@dataclass(frozen=True)
class ForgetQuality:
    """A two-sided, two-sample Kolmogorov-Smirnov test."""

    d: float
    """Largest distance between the two empirical distribution functions, 0..1."""
    p: float
    """Probability of at least this distance if both samples came from one distribution."""


def forget_quality(
    log_ratios: Sequence[float], reference_log_ratios: Sequence[float], *, eps: float = 0.0
) -> ForgetQuality:
    """Compare the truth ratios of a model with those of the retrained one (Maini et al., 2024, section 2.2).

    The statistic depends only on the order of the values, so their logarithms serve as well as the ratios. With
    `eps` the values are 1 / (r + eps) as in open-unlearning, which ties the rows of collapsed models.

    scipy's method is pinned to "auto": the exact distribution of D up to 10,000 rows a side (and asymptotic where
    the exact computation fails), which every published figure uses.
    """
    from scipy.stats import ks_2samp

    mine, theirs = compared_ratios(log_ratios, eps), compared_ratios(reference_log_ratios, eps)
    with warnings.catch_warnings():  # "Exact calculation unsuccessful. Switching to method=asymp."
        warnings.simplefilter("ignore", RuntimeWarning)
        result = ks_2samp(mine, theirs, alternative="two-sided", method="auto")
    return ForgetQuality(d=float(result.statistic), p=float(result.pvalue))  # type: ignore[attr-defined]


def compared_ratios(log_ratios: Sequence[float], eps: float) -> list[float]:
    """What the test of forget quality is fed with."""
    array = np.asarray(log_ratios, float)
    return (1 / (np.exp(array) + eps) if eps else array).tolist()


def harmonic_mean(values: Sequence[float]) -> float:
    """n / sum(1 / x) of values >= 0: 0 as soon as one is 0, NaN as soon as one is NaN."""
    if not values or any(map(math.isnan, values)):
        return math.nan
    return len(values) / math.fsum(1 / x for x in values) if min(values) > 0 else 0.0

"""The formulas of RWKU's utility sets: pure functions of texts and log-probabilities.

Jin et al., 2024, https://arxiv.org/abs/2406.10890. Exact match and F1 are SQuAD's: Rajpurkar et al., 2016,
https://arxiv.org/abs/1606.05250.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

# --- short answers ------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def squad_words(text: str) -> list[str]:
    """Lower case, without ASCII punctuation and articles, cut at white space.

    >>> squad_words("The Beatles' “Help!”, an album")
    ['beatles', '“help”', 'album']
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact_match(prediction: str, answers: Iterable[str]) -> float:
    """1 where the words are those of one of the answers, else 0."""
    said = squad_words(prediction)
    return float(any(said == squad_words(answer) for answer in answers))


def token_f1(prediction: str, answers: Iterable[str]) -> float:
    """The best F1 of shared words over the answers, 0..1; a side without words agrees only with one like it."""
    said = squad_words(prediction)
    return max((_f1(said, squad_words(answer)) for answer in answers), default=math.nan)


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    shared = sum((Counter(said) & Counter(gold)).values())
    return 2 * shared / (len(said) + len(gold))  # = 2 P R / (P + R), P = shared / said, R = shared / gold


# --- worked answers -----------------------------------------------------------------------------------------------

_AS_PUBLISHED = re.compile(r"[tT|]he answer is (.*?)\.")
_STATED = re.compile(r"\bthe answer is:?[ \t]*(.*?)(?:\.(?=\s|$)|\n|$)", re.IGNORECASE)
_NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")


def stated_answer(text: str, *, as_published: bool = False) -> str:
    """What follows the first "the answer is", up to a full stop; the whole text where nothing says so.

    `as_published` needs the full stop, and takes any; else one that ends a sentence, the line or the text ends it too.

    >>> stated_answer("2 + 2 is 4. So the answer is 4"), stated_answer("So the answer is 4", as_published=True)
    ('4', 'So the answer is 4')
    """
    found = (_AS_PUBLISHED if as_published else _STATED).search(text)
    return (found[1] if found else text).strip()


def same_answer(prediction: str, answer: str, *, as_published: bool = False) -> float:
    """Exact match, and where SQuAD's words lose what matters, a finer one.

    They lose the sign of a number, option (A), which is an article to them, and all of ") >".

    >>> [same_answer(*pair) for pair in (("219", "-219"), ("the", "(A)"), ("a", "(A)"), ("] ]", ") >"))]
    [0.0, 0.0, 1.0, 0.0]
    >>> same_answer("219", "-219", as_published=True)
    1.0
    """
    number = _NUMBER.fullmatch(answer.strip())
    if as_published or (squad_words(answer) and not number):
        return exact_match(prediction, [answer])
    if not number and (letters := _bare(answer)):
        return float(_bare(prediction) == letters)
    return float("".join(prediction.split()).replace("−", "-") == "".join(answer.split()).replace("−", "-"))


def _bare(text: str) -> list[str]:
    return text.lower().translate(_PUNCTUATION).split()


# --- choices ------------------------------------------------------------------------------------------------------


def mc1(true: Sequence[float], false: Sequence[float]) -> float:
    """1 where the first true choice is more likely than every false one, else 0; summed log-probabilities, nats."""
    if not true or not false or not all(map(math.isfinite, (*true, *false))):
        return math.nan
    return float(true[0] > max(false))


def share_of(true: Sequence[float], false: Sequence[float]) -> float:
    """MC2: sum exp(true) / sum exp(all), without underflow; summed log-probabilities, nats."""
    if not true or not all(map(math.isfinite, (*true, *false))):
        return math.nan
    top = max(*true, *false) if false else max(true)
    right = math.fsum(math.exp(x - top) for x in true)
    return right / (right + math.fsum(math.exp(x - top) for x in false))


# --- long answers -------------------------------------------------------------------------------------------------

_CONTRACTED = re.compile(r"(?<=\w)(?=(?:n['’]t|['’](?:s|m|d|re|ve|ll))\b)", re.IGNORECASE)
_WORD = re.compile(r"(?:n['’]t|['’](?:s|m|d|re|ve|ll))\b|\w+(?:[-./'’]\w+|[,:]\d+)*|\.\.\.|--+|[^\w\s]", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Words, numbers and single punctuation marks, contractions cut in two, after the Penn Treebank's manner.

    Deviates: RWKU takes NLTK's word_tokenize, which needs a model file for the ends of sentences. Over 919 documents of
    its data the entropy differs from that of NLTK's Treebank words by 0.002 bits on average, by 0.09 at most.

    >>> words("It's 3.5 well-known (we don't ask).")
    ['It', "'s", '3.5', 'well-known', '(', 'we', 'do', "n't", 'ask', ')', '.']
    """
    return _WORD.findall(_CONTRACTED.sub(" ", text))


def ngram_entropy(tokens: Sequence[str], n: int) -> float:
    """Entropy of the distribution of n-grams in bits; 0 where there is none."""
    counts = Counter(zip(*(tokens[i:] for i in range(n)), strict=False))
    total = sum(counts.values())
    return max(0.0, -math.fsum(c / total * math.log2(c / total) for c in counts.values())) if total else 0.0


def fluency(text: str) -> float:
    """(2/3 H2 + 4/3 H3) / 2 in bits: Zhang et al., 2018, "Generating Informative and Diverse Conversational Responses",
    with the weights of ROME's evaluation (Meng et al., 2022), which RWKU took over."""
    tokens = words(text)
    return (2 / 3 * ngram_entropy(tokens, 2) + 4 / 3 * ngram_entropy(tokens, 3)) / 2


# --- refusals -----------------------------------------------------------------------------------------------------

REFUSALS = (
    "i don't know",
    "i do not know",
    "i don't have",
    "i do not have",
    "i don't hold",
    "i don't possess",
    "i haven't",
    "i have no",
    "i have not",
    "i have yet to",
    "i've no",
    "i've not",
    "i lack",
    "i can't",
    "i cannot",
    "i'm not",
    "i am not",
    "i'm un",
    "i am un",
    "i'm afraid",
    "i'm sorry",
    "i'm at a loss",
    "i'm in the dark",
    "i'm blank",
    "i'm clueless",
    "i'm drawing a blank",
    "i'm lacking",
    "i'm missing",
    "i'm stumped",
    "i must decline",
    "i really don't",
    "unfortunately",
    "i apologize",
    "no idea",
    "beyond my",
    "outside my",
    "out of my scope",
    "not something i",
    "not in my",
    "not within my",
    "my knowledge",
    "my training",
    "my database",
    "my programming",
    "my understanding",
    "my capabilities",
)
"""Lower case, with a straight apostrophe. An output that contains one of them declines to answer."""


def refuses(text: str, more: Iterable[str] = ()) -> bool:
    """Whether a text contains a phrase of the list, or one of `more`, whatever its case and apostrophes."""
    said = _plain(text)
    return any(phrase in said for phrase in (*REFUSALS, *map(_plain, more)) if phrase)


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("’", "'").split()).rstrip(".!")

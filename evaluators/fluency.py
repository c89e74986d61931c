"""Fluency of stored generations: what a classifier of gibberish says, added to rows without asking the model again.

fluency: P(class 0, clean) that a sequence classifier gives to a row's `generation`, of which it reads the first 32
    tokens of its own tokenizer. Higher. Dorna et al., "OpenUnlearning", 2025, https://arxiv.org/abs/2506.12618
    (`forget_Q_A_gibberish` there: https://github.com/locuslab/open-unlearning, src/evals/metrics/utility.py).

An empty generation is judged as any other, as there: the classifier gets nothing but the marks around a text.

Where no classifier can be had the rows say so, under `fluency_missing`, and the next command that can have one makes up
for it: it needs the rows alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluators.rows import Row, finite

MAX_TOKENS = 32
CLEAN_CLASS = 0
CLASSIFIER, REVISION = "classifier", "revision"
"""What is stored of the judge, in the settings of an evaluation; the revision is None where nothing could judge."""
MISSING = "fluency_missing"
"""The field of a row that says why it has no fluency."""
NOT_JUDGED = "no classifier has judged the generations; run the command again, the stored rows are enough"


def judge(rows: Sequence[Row], name: str) -> tuple[list[Row], dict[str, Any]]:
    """The rows with the fluency of every generation on the forget set, and whose judgement it is.

    Args:
        name: hub id, id@revision or path of the classifier.
    """
    from bench.classifier import NoClassifier, load_classifier, origin_of

    asked = [row for row in rows if row.get("set") == "forget" and isinstance(row.get("generation"), str)]
    try:
        classifier = load_classifier(name)
        texts = [row["generation"] for row in asked]
        values = classifier.probabilities(texts, class_id=CLEAN_CLASS, max_tokens=MAX_TOKENS)
        origin, reason = classifier.origin, ""
    except (NoClassifier, RuntimeError, ValueError, IndexError) as error:
        values, origin, reason = [None] * len(asked), origin_of(name), str(error).partition("\n")[0]
    found = {id(row): value for row, value in zip(asked, values, strict=True)}
    judged = [_with(row, found[id(row)], reason) if id(row) in found else row for row in rows]
    return judged, {CLASSIFIER: origin.label, REVISION: None if reason else origin.revision}


def _with(row: Row, value: float | None, reason: str) -> Row:
    kept = {field: content for field, content in row.items() if field != MISSING}
    return kept | {"fluency": None if value is None else finite(value)} | ({MISSING: reason} if reason else {})


def is_judged(judged_by: Mapping[str, Any], name: str) -> bool:
    """Whether rows of which this is stored hold the judgement of this classifier, or all that can be had of it now."""
    from bench.classifier import NoClassifier, load_classifier, origin_of

    wanted = origin_of(name)
    if judged_by.get(CLASSIFIER) != wanted.label or REVISION not in judged_by:
        return False
    if judged_by[REVISION] is not None:
        return wanted.revision in (None, judged_by[REVISION])
    try:
        load_classifier(name)
    except NoClassifier:
        return True
    return False

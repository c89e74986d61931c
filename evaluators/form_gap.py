"""From rows in forms to metrics: means per target and over targets, relative drops, and how far forms differ.

`evaluators/forms.py` defines every metric. Needs no model; a mean over rows is of one target, a metric of several
targets is the unweighted mean over theirs (ORT, summarize.py).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import LetheError
from bench.records import Metric, missing
from evaluators import metrics
from evaluators.rows import MissingValues, Row, column

FLOOR = 0.25
"""What the renormalised probability of one of four options is without any knowledge."""
NO_ORIGINAL = "needs the original's rows; evaluate the model before unlearning too, or see why its cell failed"
COMPARED = ("qa", "fb", "mcp", "subtoken_qa")
"""The four forms of the paper (table II)."""
COLUMNS = ("fb", "qa", "mcp", "subtoken_fb", "subtoken_qa")
"""The forms of the paper's summary table, which every report has."""
NAMED = ("full", "last", "none")

# --- formulas ---------------------------------------------------------------------------------------------------


def geometric_mean(nll_sum: float, n_tokens: int) -> float:
    """exp(-nll_sum / n_tokens): the ORT score, the geometric mean of the answer's token probabilities."""
    return math.exp(-nll_sum / n_tokens)


def joint(nll_sum: float) -> float:
    """exp(-nll_sum): the probability of the whole answer."""
    return math.exp(-nll_sum)


def renormalised(logp: Sequence[float], answer: int) -> float:
    """Softmax over the options' log-probabilities, of the right one; NaN where one of them is not finite."""
    if not all(map(math.isfinite, logp)):
        return math.nan
    highest = max(logp)
    return math.exp(logp[answer] - highest) / math.fsum(math.exp(x - highest) for x in logp)


def drop(before: float, after: float, floor: float = 0.0) -> float:
    """(before - after) / (before - floor): 0 is nothing lost, 1 all that there was to lose; NaN where that is none."""
    return (before - after) / (before - floor) if before > floor else math.nan


def gap(drops: Sequence[float]) -> float:
    """Largest minus smallest; 0 where every form lost the same share, NaN for fewer than two."""
    return max(drops) - min(drops) if len(drops) > 1 else math.nan


def deviation(drops: Sequence[float]) -> float:
    """Population standard deviation; NaN for fewer than two."""
    if len(drops) < 2:
        return math.nan
    center = math.fsum(drops) / len(drops)
    return math.sqrt(math.fsum((x - center) ** 2 for x in drops) / len(drops))


def rouge_l_recall(reference: str, text: str) -> float:
    """Recall of ROUGE-L as the package `rouge` 1.0.1 has it (pltrdy), which RWKU uses; 0..1.

    Summary level: full stops part sentences; what any sentence of the text has in common with a sentence of the
    reference, as a longest common subsequence, counts; words are as written (case, commas) and count once each. For a
    reference and a text of one sentence without repeated words it is the plain recall. A reference or a text of
    nothing but full stops, for which that package has no value, gives 0.
    """
    wanted, found = _sentences(reference), _sentences(text)
    words = {word for sentence in wanted for word in sentence}
    common = {word for sentence in wanted for other in found for word in _common(sentence, other)}
    return len(common) / len(words) if words else 0.0


def _sentences(text: str) -> list[list[str]]:
    """Words by sentence; one of spaces only has, there too, the empty word."""
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _common(a: Sequence[str], b: Sequence[str]) -> set[str]:
    """Words of a longest common subsequence; of several that one which that package finds."""
    length = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            length[i][j] = length[i - 1][j - 1] + 1 if x == y else max(length[i - 1][j], length[i][j - 1])
    i, j, words = len(a), len(b), set()
    while i and j:
        if a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
            words.add(a[i])
        elif length[i - 1][j] > length[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words


# --- means ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """What is averaged: a formula over rows of one part and form."""

    name: str
    """Of the metric."""
    part: str
    forms: tuple[str, ...]
    """Empty for any."""
    fields: tuple[str, ...]
    formula: Callable[..., float]
    higher_is_better: bool
    kind: str | None = None
    """Without what stands in brackets: "cross lingual" for "cross lingual (Spanish)"."""
    named: str | None = None
    deduplicated: bool = True
    """Whether a row that repeats an earlier one is left out."""

    @property
    def title(self) -> str:
        """Of its rows, for reasons."""
        words = [self.part, *([" or ".join(self.forms)] if self.forms else []), *([self.kind] if self.kind else [])]
        return " ".join([*words, *([f"(name in the query: {self.named})"] if self.named else [])])

    def rows(self, rows: Iterable[Row]) -> dict[str, list[Row]]:
        """The rows that it is about, by target."""
        found: dict[str, list[Row]] = {}
        for row in rows:
            if (
                row["part"] == self.part
                and (not self.forms or row["form"] in self.forms)
                and (self.kind is None or _sort(row["kind"]) == self.kind)
                and (self.named is None or row["name_in"] == self.named)
                and not (self.deduplicated and row["duplicate"])
            ):
                found.setdefault(row["target"], []).append(row)
        return found

    def values(self, rows: Iterable[Row]) -> dict[str, list[float]]:
        """The formula's values by target; a target without rows of it has none."""
        found = self.rows(rows)
        if not found:
            raise MissingValues(f"no {self.title} rows")
        return {target: column(mine, self.title, self.fields, self.formula) for target, mine in found.items()}

    def metric(self, rows: Iterable[Row]) -> Metric:
        """The mean, or why there is none."""
        try:
            values = self.values(rows)
        except MissingValues as reason:
            return missing(self.name, str(reason), higher_is_better=self.higher_is_better)
        items = next(iter(values.values())) if len(values) == 1 else [metrics.mean(v).value for v in values.values()]
        mean = metrics.mean(items)
        return Metric(
            name=self.name, value=mean.value, stderr=mean.stderr, n=mean.n, higher_is_better=self.higher_is_better
        )


def column_name(part: str, form: str) -> str:
    """As the paper's table calls it: forget_fb, sub_forget_qa."""
    return f"sub_{part}_{form.removeprefix('subtoken_')}" if form.startswith("subtoken_") else f"{part}_{form}"


def score_column(part: str, form: str, *, ort: bool, name: str = "", **choice: str) -> Column:
    """The ORT score of a form: under `ort` every token and every row counts."""
    whole = ort or not form.startswith("subtoken_")
    return Column(
        name or column_name(part, form),
        part,
        (form,),
        ("nll_sum", "n_tokens") if whole else ("characters_nll_sum", "n_characters"),
        geometric_mean,
        part != "forget",
        deduplicated=not ort,
        **choice,
    )


def columns(rows: Sequence[Row], *, ort: bool) -> list[Column]:
    """Every metric that is a mean over rows, in the order of the report."""
    found: list[Column] = []
    for part in ("forget", "neighbor"):
        there = dict.fromkeys(row["form"] for row in rows if row["part"] == part)
        for form in (*COLUMNS, *(form for form in there if form not in COLUMNS)):
            found += _of_form(part, form, ort)
        spoken = dict.fromkeys(r["form"] for r in rows if r["part"] == part and "rouge_l_recall" in r)
        for name, forms in [*((f"{part}_{form}", (form,)) for form in spoken), (f"{part}_all", tuple(spoken))]:
            if forms:
                rouge = Column(f"{name}_rouge", part, forms, ("rouge_l_recall",), float, part != "forget")
                found += _twins(rouge, ort)
    named_at_all = any(row["name_in"] != "none" for row in rows if row["part"] == "forget")  # a request has no name
    for form in (*COMPARED, *(["aa"] if any(row["form"] == "aa" for row in rows) else [])):
        for named in NAMED if named_at_all else ():
            name = f"{column_name('forget', form)}_named_{named}"
            found.append(score_column("forget", form, ort=ort, name=name, named=named))
    for kind in sorted({_sort(row["kind"]) for row in rows if row["part"] == "forget" and row["form"] == "aa"}):
        found.append(score_column("forget", "aa", ort=ort, name=f"forget_aa_{_word(kind)}", kind=kind))
    locality = locality_column(ort)
    found.append(locality)
    for kind in sorted({_sort(row["kind"]) for row in rows if row["part"] == "locality"} - {""}):
        found.append(_renamed(locality, f"{locality.name}_{_word(kind)}", kind=kind))
    return found


def _of_form(part: str, form: str, ort: bool) -> list[Column]:
    score = score_column(part, form, ort=ort)
    found = [*_twins(score, ort), _renamed(score, f"{score.name}_joint", fields=("nll_sum",), formula=joint)]
    if form.startswith("subtoken_"):
        other = score_column(part, form, ort=not ort)
        name = f"{score.name}_{'characters' if ort else 'with_breaks'}"
        found.append(_renamed(score, name, fields=other.fields))
    if form == "mcp":
        for name, field in (("renormalised", "renormalised"), ("accuracy", "correct")):
            found += _twins(_renamed(score, f"{score.name}_{name}", fields=(field,), formula=float), ort)
    return found


def _twins(one: Column, ort: bool) -> list[Column]:
    """The mean that the protocol asks for, and the other one."""
    other = f"{one.name}_{'deduplicated' if ort else 'raw'}"
    return [_renamed(one, one.name, deduplicated=not ort), _renamed(one, other, deduplicated=ort)]


def locality_column(ort: bool) -> Column:
    fields = ("nll_sum", "n_tokens")
    return Column("locality_prob", "locality", (), fields, geometric_mean, True, deduplicated=not ort)


def _renamed(one: Column, name: str, **changes: object) -> Column:
    return Column(**{**vars(one), "name": name, **changes})  # type: ignore[arg-type]


def _sort(kind: str) -> str:
    return kind.partition(" (")[0]


def _word(kind: str) -> str:
    """A kind as part of a name: "prefix injection" -> prefix_injection."""
    return "_".join(kind.lower().replace("-", " ").split()) or "unnamed"


# --- against the original ---------------------------------------------------------------------------------------


def compared(rows: Sequence[Row], reference_rows: Iterable[Row] | None, *, ort: bool) -> list[Metric]:
    """Every metric that relates a model to the original."""
    theirs = None if reference_rows is None else same_rows(rows, reference_rows)
    forgotten = {form: _drops(score_column("forget", form, ort=ort), rows, theirs) for form in COMPARED}
    chosen = _renamed(score_column("forget", "mcp", ort=ort), "", fields=("renormalised",), formula=float)
    corrected = {**forgotten, "mcp": _drops(chosen, rows, theirs, floor=FLOOR)}
    kept = {
        form: _drops(score_column("neighbor", form, ort=ort), rows, theirs, formula=_share_kept) for form in COMPARED
    }
    locality = {"": _drops(locality_column(ort), rows, theirs, formula=_share_kept)}
    found = [
        _over_forms("form_gap", forgotten, gap, higher_is_better=False),
        _over_forms("form_gap_deviation", forgotten, deviation, higher_is_better=False),
        _over_forms("form_gap_corrected", corrected, gap, higher_is_better=False),
        _over_forms("mean_forgetting", forgotten, _average, higher_is_better=True),
    ]
    for form, drops in forgotten.items():
        name = f"forgetting_{form.removesuffix('_qa')}"  # the paper's subtoken form is that of the questions
        found.append(_over_forms(name, {form: drops}, _average, higher_is_better=True))
    found.append(_over_forms("neighbor_retention", kept, _average, higher_is_better=True))
    found.append(_over_forms("locality_retention", locality, _average, higher_is_better=True))
    return found


@dataclass(frozen=True)
class _Drops:
    """A form's change by target, with the number of rows behind it; or why it cannot be known."""

    by_target: Mapping[str, float]
    items: int
    reason: str = ""
    there: bool = True
    """Whether there are rows of the form at all."""


def _drops(
    of: Column,
    rows: Sequence[Row],
    reference: Sequence[Row] | None,
    *,
    floor: float = 0.0,
    formula: Callable[[float, float, float], float] = drop,
) -> _Drops:
    mine = of.rows(rows)
    if not mine:
        return _Drops({}, 0, f"no {of.title} rows", there=False)
    if reference is None:
        return _Drops({}, 0, NO_ORIGINAL)
    found = {}
    try:
        after = of.values(rows)
        try:
            before = of.values(reference)
        except MissingValues as reason:
            raise MissingValues(f"original: {reason}") from None
        for target, values in after.items():
            first = metrics.mean(before[target]).value
            found[target] = formula(first, metrics.mean(values).value, floor)
            if math.isnan(found[target]):
                floor_text = f"the floor of {floor:g}" if floor else "0"
                raise MissingValues(
                    f"the original's mean over the {of.title} rows of {target!r} is {first:.3g}, not above "
                    f"{floor_text}: there is nothing to lose"
                )
    except MissingValues as reason:
        return _Drops({}, 0, str(reason))
    return _Drops(found, sum(map(len, mine.values())))


def _share_kept(before: float, after: float, floor: float) -> float:
    return after / before if before > floor else math.nan


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _over_forms(
    name: str, forms: Mapping[str, _Drops], formula: Callable[[Sequence[float]], float], *, higher_is_better: bool
) -> Metric:
    """The formula over the forms that a target has, then the mean over targets, each of which is kept."""
    there = [drops for drops in forms.values() if drops.there] or list(forms.values())
    reason = next((drops.reason for drops in there if drops.reason), "")
    targets = dict.fromkeys(target for drops in there for target in drops.by_target)
    values: dict[str, float] = {}
    for target in targets:
        values[target] = formula([drops.by_target[target] for drops in there if target in drops.by_target])
        if not reason and math.isnan(values[target]):
            reason = f"{target!r} is asked in one form only, which cannot differ"
    if reason:
        return missing(name, reason, higher_is_better=higher_is_better)
    mean = metrics.mean(list(values.values()))
    several = len(values) > 1
    return Metric(
        name=name,
        value=mean.value,
        stderr=mean.stderr,
        n=len(values) if several else sum(drops.items for drops in there),
        higher_is_better=higher_is_better,
        by_target=values if several else {},
    )


def same_rows(rows: Sequence[Row], reference: Iterable[Row]) -> list[Row]:
    """The original's row for each row; it may hold more, not fewer."""
    theirs = {(row["example_id"], row["form"], row["query"]): row for row in reference}
    keys = [(row["example_id"], row["form"], row["query"]) for row in rows]
    lost = [key for key in keys if key not in theirs]
    if lost:
        raise LetheError(
            f"the original answers other questions: {len(lost)} of the {len(rows)} rows are not among its "
            f"{len(theirs)}, the first is {lost[0][0]} ({lost[0][1]}); evaluate the original again on the same data"
        )
    return [theirs[key] for key in keys]

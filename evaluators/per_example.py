"""Metrics as functions of the values of examples, so that they can be taken again of drawn examples (`bench/stats.py`).

Every metric that is a mean over rows, and of the composites those that leaderboards print, by the formulas of the
evaluators themselves. Examples are drawn within what a metric is a mean of: a question set, the questions of one form
about one target, a subject. What a model is compared with (the retrained model's truth ratios, the original's means)
belongs to the examples.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from bench.records import FLUENCY
from bench.stats import Array, Part, Statistic
from evaluators import choices, form_gap, metrics, mmlu, rwku_utility, tofu, wmdp
from evaluators.form_gap import Column
from evaluators.forms import DerivedFormsEvaluator, FormsEvaluator
from evaluators.lm_eval_tasks import plain_name
from evaluators.rows import MeanOf, MissingValues, Row, by_set, column_by_place

Reference = Callable[[str], Sequence[Row] | None]
"""The rows of the model with a role, "original" or "retrained", for the same questions."""
Found = Callable[[], Statistic]


def statistics_of(
    evaluator: str, rows: Sequence[Row], *, protocol: str, names: Iterable[str], reference: Reference
) -> dict[str, Statistic | str]:
    """What is known of the named metrics: the statistic, or the reason why there is none; others are left out.

    Args:
        evaluator: its name.
        rows: what it stored of one model.
    """
    if evaluator in _BY_EVALUATOR:
        possible = _BY_EVALUATOR[evaluator](rows, protocol, reference)
    else:
        possible = _of_lm_eval(evaluator, rows) if evaluator.startswith("lm_eval_") else {}
    found: dict[str, Statistic | str] = {}
    for name in names:
        if name in possible:
            try:
                found[name] = possible[name]()
            except MissingValues as reason:
                found[name] = str(reason)
    return found


def harmonic(*parts: Array) -> Array:
    """The harmonic mean of each draw: 0 as soon as one part is 0, NaN where one does not exist."""
    stacked = np.stack(parts)
    with np.errstate(divide="ignore"):
        found = np.where((stacked > 0).all(axis=0), len(parts) / (1 / stacked).sum(axis=0), 0.0)
    return np.where(np.isnan(stacked).any(axis=0), np.nan, found)


def _part(group: str, rows: Sequence[Row], title: str, fields: Sequence[str], formula: Callable[..., float]) -> Part:
    return Part(group, _named(rows, column_by_place(rows, title, fields, formula)))


def _named(rows: Sequence[Row], values: Mapping[int, float]) -> dict[str, float]:
    """By the id of the example; one that comes again has its number behind it."""
    names, seen = [], Counter[str]()
    for row in rows:
        name = str(row.get("example_id"))
        seen[name] += 1
        names.append(f"{name} #{seen[name]}" if seen[name] > 1 else name)
    return {names[place]: value for place, value in values.items()}


# --- question sets


def _of_tofu(rows: Sequence[Row], protocol: str, reference: Reference) -> dict[str, Found]:
    eps = tofu.TofuEvaluator(protocol=protocol).eps  # type: ignore[arg-type]
    sets = by_set(rows)
    means = {mean.name: mean for mean in tofu.means_of(eps)}

    @functools.cache
    def part(name: str, role: str = "") -> Part:
        mean = means[name]
        asked = before() if role else sets
        return _part(mean.set, asked.get(mean.set, ()), mean.set, mean.fields, mean.formula)

    @functools.cache
    def before() -> Mapping[str, Sequence[Row]]:
        theirs = reference("original")
        if theirs is None:
            raise MissingValues("no rows of the original model to compare with")
        return by_set(theirs)

    def parts(names: Sequence[str], role: str = "") -> tuple[Part, ...]:
        return tuple(part(name, role) for name in names)

    def distance() -> Statistic:
        theirs = reference("retrained")
        if theirs is None:
            raise MissingValues(tofu.NO_REFERENCE)
        forget = sets.get("forget", [])
        same = tofu.same_forget_rows({"forget": forget}, by_set(theirs)).get("forget", [])
        ratio = functools.partial(metrics.log_truth_ratio, eps=eps)

        def values(of: Sequence[Row]) -> dict[str, float]:
            logs = column_by_place(of, "forget", ("paraphrased_nll", "perturbed_nll"), ratio)
            return _named(of, dict(zip(logs, metrics.compared_ratios(list(logs.values()), eps), strict=True)))

        return Statistic((Part("forget", values(forget), values(same)),))

    useful = (*tofu.UTILITY, FLUENCY)

    def both() -> tuple[Part, ...]:
        return (*parts(useful), *parts(useful, "original"))

    found: dict[str, Found] = {name: lambda name=name: Statistic(parts([name])) for name in means}
    return found | {
        "forget_ks_d": distance,
        "model_utility": lambda: Statistic(parts(tofu.UTILITY), harmonic),
        "memorization_score": lambda: Statistic(parts(tofu.MEMORIZED), _not_memorized),
        "utility_score": lambda: Statistic(both(), _useful),
        "overall_score": lambda: Statistic((*parts(tofu.MEMORIZED), *both()), _overall),
    }


def _not_memorized(*shares: Array) -> Array:
    return harmonic(*(1 - share for share in shares))


def _useful(*means: Array) -> Array:
    """`utility_score` of `bench/composites.py`: the parts of utility and fluency, of the model and of the original."""
    (*now, fluent), (*before, was_fluent) = means[: len(means) // 2], means[len(means) // 2 :]
    return harmonic(_share_kept(harmonic(*before), harmonic(*now)), _share_kept(was_fluent, fluent))


def _overall(*means: Array) -> Array:
    count = len(tofu.MEMORIZED)
    return harmonic(_not_memorized(*means[:count]), _useful(*means[count:]))


# --- multiple choice


def _of_choices(prefix: str, rows: Sequence[Row], parts: Mapping[str, Sequence[str]]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for name, mine in choices.slices(prefix, rows, parts).items():
        for mean in choices.means_of(name, higher_is_better=True):
            found[mean.name] = functools.partial(_mean, mean, mine)
    return found


def _of_mmlu(prefix: str, rows: Sequence[Row]) -> dict[str, Found]:
    return _of_choices(prefix, rows, mmlu.parts_of(rows))


def _mean(mean: MeanOf, rows: Sequence[Row]) -> Statistic:
    return Statistic((_part(mean.set, rows, mean.set, mean.fields, mean.formula),))


def _of_lm_eval(name: str, rows: Sequence[Row]) -> dict[str, Found]:
    """The metrics of a task, and of a group over the documents of all its tasks, that are means."""
    sets = {plain_name(task): mine for task, mine in by_set(rows).items()}
    if len(sets) > 1:
        sets[name.removeprefix("lm_eval_")] = list(rows)
    found: dict[str, Found] = {}
    for task, mine in sets.items():
        for metric in dict.fromkeys(m for row in mine for m, how in row["aggregations"].items() if how == "mean"):
            having = [row | row["metrics"] for row in mine if metric in row["metrics"]]
            found[f"{task}_{plain_name(metric)}"] = functools.partial(
                _mean, MeanOf(metric, task, (metric,), float, True), having
            )
    return found


# --- forms


def _of_forms(rows: Sequence[Row], protocol: str, reference: Reference) -> dict[str, Found]:
    ort = protocol == "ort"
    forgotten = {form: form_gap.score_column("forget", form, ort=ort) for form in form_gap.COMPARED}
    kept = {form: form_gap.score_column("neighbor", form, ort=ort) for form in form_gap.COMPARED}
    found: dict[str, Found] = {
        column.name: functools.partial(_over_targets, column, rows) for column in form_gap.columns(rows, ort=ort)
    }
    against = functools.partial(_against_original, rows, reference)
    for form, column in forgotten.items():
        found[f"forgetting_{form.removesuffix('_qa')}"] = functools.partial(against, [column], _drop, _average)
    return found | {
        "mean_forgetting": functools.partial(against, list(forgotten.values()), _drop, _average),
        "form_gap": functools.partial(against, list(forgotten.values()), _drop, _gap),
        "neighbor_retention": functools.partial(against, list(kept.values()), _share_kept, _average),
        "locality_retention": functools.partial(against, [form_gap.locality_column(ort)], _share_kept, _average),
    }


def _over_targets(column: Column, rows: Sequence[Row]) -> Statistic:
    """The mean over targets of the mean over rows."""
    by_target = column.rows(rows)
    if not by_target:
        raise MissingValues(f"no {column.title} rows")
    return Statistic(tuple(_of_target(column, target, mine) for target, mine in by_target.items()), _average)


def _of_target(column: Column, target: str, rows: Sequence[Row]) -> Part:
    return _part(f"{target}/{column.title}", rows, column.title, column.fields, column.formula)


def _against_original(
    rows: Sequence[Row],
    reference: Reference,
    columns: Sequence[Column],
    change: Callable[[Array, Array], Array],
    over_forms: Callable[..., Array],
) -> Statistic:
    """What became of the original's mean: of every form of a target, over its forms, the mean over targets."""
    theirs = reference("original")
    if theirs is None:
        raise MissingValues(form_gap.NO_ORIGINAL)
    before = form_gap.same_rows(rows, theirs)
    parts: list[Part] = []
    forms: dict[str, list[int]] = {}
    for column in columns:
        originals = column.rows(before)
        for target, mine in column.rows(rows).items():
            forms.setdefault(target, []).append(len(parts))
            parts += [_of_target(column, target, mine), _of_target(column, target, originals[target])]
    if not parts:
        raise MissingValues(f"no {columns[0].title} rows")

    def combine(*means: Array) -> Array:
        changes = [over_forms(*(change(means[at + 1], means[at]) for at in places)) for places in forms.values()]
        return _average(*changes)

    return Statistic(tuple(parts), combine)


def _drop(before: Array, after: Array) -> Array:
    return np.where(before > 0, (before - after) / before, np.nan)


def _share_kept(before: Array, after: Array) -> Array:
    return np.where(before > 0, after / before, np.nan)


def _average(*values: Array) -> Array:
    return sum(values) / len(values)  # type: ignore[return-value]


def _gap(first: Array, *others: Array) -> Array:
    if not others:
        return first * np.nan
    drops = (first, *others)
    return np.max(drops, axis=0) - np.min(drops, axis=0)


def _of_utility(rows: Sequence[Row], protocol: str, reference: Reference) -> dict[str, Found]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row["part"], []).append(row)
    found: dict[str, Found] = {
        mean.name: functools.partial(_mean, mean, parts[mean.set]) for mean in rwku_utility.MEANS if mean.set in parts
    }

    def utility() -> Statistic:
        theirs = reference("original")
        if theirs is None:
            raise MissingValues(rwku_utility.NO_REFERENCE)
        asked = [mean for mean in rwku_utility.MEANS if mean.name in rwku_utility.UTILITY and mean.set in parts]
        both: list[Part] = []
        for mean in asked:
            ids = {row["example_id"] for row in parts[mean.set]}
            before = [row for row in theirs if row["part"] == mean.set and row["example_id"] in ids]
            for mine in (parts[mean.set], before):
                both += _mean(mean, mine).parts

        def combine(*means: Array) -> Array:
            return _average(*(_share_kept(means[at + 1], means[at]) for at in range(0, len(means), 2)))

        return Statistic(tuple(both), combine)

    return found | {"ort_utility": utility}


_BY_EVALUATOR: dict[str, Callable[[Sequence[Row], str, Reference], dict[str, Found]]] = {
    tofu.TofuEvaluator.name: _of_tofu,
    wmdp.WmdpEvaluator.name: lambda rows, *_: _of_choices("wmdp", rows, {s: (s,) for s in wmdp.SUBJECTS}),
    wmdp.ChemWmdpEvaluator.name: lambda rows, *_: _of_choices("wmdp_chem", rows, {}),
    mmlu.MmluEvaluator.name: lambda rows, *_: _of_mmlu("mmlu", rows),
    mmlu.FiveShotMmluEvaluator.name: lambda rows, *_: _of_mmlu("mmlu_5shot", rows),
    FormsEvaluator.name: _of_forms,
    DerivedFormsEvaluator.name: _of_forms,
    rwku_utility.UtilityEvaluator.name: _of_utility,
}

"""Which columns stand side by side in a table of the paper, and under which headings.

Of every leaderboard: its headline, and where four question sets were asked, ROUGE-L, probability and truth ratio of
each of them, as GRUN's tables show them (Ren et al., 2025, https://arxiv.org/abs/2502.17823; its truth ratio is
max(0, 1 - r) on all four). Of all leaderboards of a protocol: bio, cyber and MMLU for every model, as GRUN's tables
too, and everything in one table, a few columns a benchmark.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from bench.latex.captions import slugs
from bench.latex.escape import escape_latex, slug
from bench.latex.plain import split_name
from bench.summary import COLUMNS, has_summary
from bench.tables import HEADINGS, REFERENCES, Row, Table, base_label

SETS = {"forget": "Forget", "retain": "Retain", "real_authors": "Real authors", "world_facts": "World facts"}
PARTS = {"{}_rouge_l_recall": "ROUGE", "{}_probability": "Prob.", "grun_{}_truth_ratio": "Truth"}
SCORES = {
    "Memorisation": {
        "extraction_strength": "ES",
        "exact_memorization": "EM",
        "forget_paraphrased_probability": "Para.",
        "forget_truth_ratio_prob_mean": "Truth",
        "memorization_score": "Score",
    },
    "Utility": {"model_utility": "MU", "forget_fluency": "Fluency", "utility_score": "Score"},
    "Both": {"overall_score": "Score"},
}
"""The parts of the composite scores and the scores, as evaluators/tofu.py and bench/composites.py define them."""
TOPICS = {
    "wmdp_bio_accuracy": "Bio",
    "wmdp_cyber_accuracy": "Cyber",
    "mmlu_accuracy": "MMLU",
    "mmlu_5shot_accuracy": "MMLU, 5-shot",
}
BRIEF = (
    {"forget_quality": "Quality", "forget_ks_d": "KS $D$", "model_utility": "Utility"},
    TOPICS | {"wmdp_chem_accuracy": "Chem"},
    {"mean_forgetting": "Forgotten", "form_gap": "Gap", "neighbor_retention": "Kept", "ort_utility": "Utility"},
)
"""What stands for a benchmark in the table of all: the columns of the first of these that it has."""
_BRIEF_OTHERS = 2


@dataclass(frozen=True, kw_only=True)
class Column:
    """One metric of one leaderboard."""

    table: Table
    metric: str
    heading: str
    """LaTeX."""

    def row(self, method: str) -> Row | None:
        return next((row for row in self.table.rows if row.method == method), None)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns under one heading."""

    title: str
    """LaTeX."""
    columns: tuple[Column, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A table of methods against groups of columns."""

    name: str
    """Of its file and its label."""
    title: str
    """The first words of its caption; LaTeX."""
    groups: tuple[Group, ...]

    @property
    def columns(self) -> list[Column]:
        return [column for group in self.groups for column in group.columns]

    @property
    def tables(self) -> list[Table]:
        """The leaderboards behind it, each once."""
        found: list[Table] = []
        for column in self.columns:
            if not any(column.table is table for table in found):
                found.append(column.table)
        return found

    @property
    def methods(self) -> list[str]:
        """References first, else as the leaderboards have them; what only a later one has follows its neighbour."""
        order: list[str] = []
        for table in self.tables:
            at = 0
            for row in table.rows:
                if row.method not in order:
                    order.insert(at, row.method)
                at = order.index(row.method) + 1
        return sorted(order, key=lambda method: base_label(method) not in REFERENCES)


@dataclass(frozen=True, kw_only=True)
class Section:
    """What the paper shows of one leaderboard."""

    table: Table
    slug: str
    layouts: tuple[Layout, ...]


def sections(tables: Sequence[Table]) -> list[Section]:
    """One a leaderboard."""
    found = []
    for table, name in zip(tables, slugs(tables), strict=True):
        layouts = (headline(table, name), question_sets(table, name), scores(table, name))
        found.append(Section(table=table, slug=name, layouts=tuple(layout for layout in layouts if layout is not None)))
    return found


def printed(table: Table) -> list[str]:
    """The metrics that any table shows of a leaderboard, its own columns first."""
    layouts = (headline(table, ""), question_sets(table, ""), scores(table, ""))
    columns = [column for layout in layouts if layout is not None for column in layout.columns]
    columns += [*_columns(table, TOPICS), *brief(table)]
    summary = [metric for metric in COLUMNS.values() if metric in table.better] if has_summary(table) else []
    return list(dict.fromkeys([*table.columns, *(column.metric for column in columns), *summary]))


def headline(table: Table, name: str) -> Layout:
    """The columns of the leaderboard, those with the same first line of their heading under it."""
    groups: list[Group] = []
    for metric in table.columns:
        upper, lower = HEADINGS.get(metric) or split_name(metric)
        column = Column(table=table, metric=metric, heading=lower)
        if groups and groups[-1].title == upper:
            groups[-1] = replace(groups[-1], columns=(*groups[-1].columns, column))
        else:
            groups.append(Group(title=upper, columns=(column,)))
    return Layout(name=f"leaderboard-{name}", title="Leaderboard:", groups=tuple(groups))


def question_sets(table: Table, name: str) -> Layout | None:
    """ROUGE-L, probability and truth ratio on the four sets; None where none of the sets to be kept was asked."""
    groups = []
    for key, title in SETS.items():
        columns = _columns(table, {pattern.format(key): heading for pattern, heading in PARTS.items()})
        if columns:
            groups.append(Group(title=title, columns=columns))
    if len(groups) < 2:
        return None
    title = r"ROUGE-L recall, probability and truth ratio, $\max(0, 1 - r)$ on every set, as GRUN's tables show them:"
    return Layout(name=f"sets-{name}", title=title, groups=tuple(groups))


def scores(table: Table, name: str) -> Layout | None:
    """The composite scores, each beside what it is made of; None where there are none."""
    groups = tuple(
        Group(title=title, columns=columns)
        for title, headings in SCORES.items()
        if (columns := _columns(table, headings))
    )
    if not any(column.metric == "overall_score" for group in groups for column in group.columns):
        return None
    title = "Composite scores after OpenUnlearning, without its privacy, beside what they are made of:"
    return Layout(name=f"scores-{name}", title=title, groups=groups)


def across(tables: Sequence[Table]) -> list[Layout]:
    """What holds several leaderboards of a protocol side by side."""
    found = []
    protocols = list(dict.fromkeys(table.protocol for table in tables))
    for protocol in protocols:
        mine = [table for table in tables if table.protocol == protocol]
        end = slug(protocol) if len(protocols) > 1 else ""
        topics = [table for table in mine if any(m.startswith("wmdp_") and m in TOPICS for m in table.better)]
        found += _side_by_side(
            topics,
            f"topics-{end}".strip("-"),
            "Accuracy on what was to be forgotten and on MMLU, as GRUN's tables show them:",
            lambda table: _columns(table, TOPICS),
        )
        if len(mine) > 1:
            found += _side_by_side(mine, f"overall-{end}".strip("-"), "All benchmarks:", brief)
    return found


def brief(table: Table) -> tuple[Column, ...]:
    """The few columns that stand for a benchmark."""
    for headings in BRIEF:
        if columns := _columns(table, headings):
            return columns
    shown = [metric for metric in table.columns if metric in table.better][:_BRIEF_OTHERS]
    return _columns(table, {metric: " ".join(HEADINGS.get(metric) or split_name(metric)) for metric in shown})


def _side_by_side(
    tables: Sequence[Table], name: str, title: str, columns_of: Callable[[Table], tuple[Column, ...]]
) -> list[Layout]:
    """One group a leaderboard, named by what sets it apart: its benchmark, its model or both."""
    models = len({table.model for table in tables}) > 1
    benchmarks = len({table.benchmark for table in tables}) > 1
    groups = []
    for table in tables:
        parts = [table.benchmark] if benchmarks or not models else []
        parts += [table.model] if models else []
        if columns := columns_of(table):
            groups.append(Group(title=_stacked(parts), columns=columns))
    return [Layout(name=name, title=title, groups=tuple(groups))] if groups else []


def _columns(table: Table, headings: dict[str, str]) -> tuple[Column, ...]:
    return tuple(
        Column(table=table, metric=metric, heading=heading)
        for metric, heading in headings.items()
        if metric in table.better
    )


def _stacked(parts: Iterable[str], width: int = 24) -> str:
    """Lines one above the other, cut behind a separator where they are long."""
    lines: list[str] = []
    for part in parts:
        line = ""
        for char in part:
            line += char
            if (len(line) >= width // 2 and char in "/>,:-_ ") or len(line) >= width:
                lines.append(line)
                line = ""
        if line:
            lines.append(line)
    if len(lines) == 1:
        return escape_latex(lines[0])
    return r"\shortstack{" + r"\\".join(map(escape_latex, lines)) + "}"

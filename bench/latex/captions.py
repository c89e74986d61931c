"""What a caption says of the cells behind a table: seeds, code, failures."""

from collections.abc import Iterable, Sequence

from bench.latex.escape import breakable, escape_latex, slug
from bench.store import Record
from bench.tables import Table, natural, spec_of

DAGGER = r"$^{\dagger}$"
"""What marks a figure that is not significantly different from the best of its column."""
UNTESTED = r"$^{\ddagger}$"
"""What marks a figure that no test compared with the best, and a column without any test."""
SIGNS = {"tied": DAGGER, "untested": UNTESTED}
_TINY_MODEL = "mini"


def slugs(tables: Sequence[Table]) -> list[str]:
    """A name for files and labels of every leaderboard, each another one."""
    names = [slug(f"{table.benchmark}-{table.model}-{table.protocol}")[:80] for table in tables]
    return [f"{name}-{place}" if names.count(name) > 1 else name for place, name in enumerate(names, start=1)]


def records_of(tables: Iterable[Table]) -> list[Record]:
    """The complete and the failed cells."""
    return [record for table in tables for row in table.rows for record in (*row.records, *row.failed)]


def seeds_of(tables: Sequence[Table]) -> str:
    seeds = sorted({spec_of(record, "seed") for record in records_of(tables)}, key=natural)
    return f"{'seeds' if len(seeds) > 1 else 'seed'} {escape_latex(', '.join(seeds))}"


def averaged(tables: Iterable[Table]) -> bool:
    """Whether some row is a mean over several seeds."""
    return any(len(row.seeds) > 1 for table in tables for row in table.rows)


def targets_of(tables: Iterable[Table]) -> str:
    """Over how many targets the figures are means; empty where over none."""
    tables = list(tables)
    alone = sorted({len(table.targets) for table in tables if table.targets})
    together = sorted({table.together for table in tables if table.together})
    parts = [f"over {' and '.join(map(str, alone))} target{'s' if alone[-1] > 1 else ''}"] if alone else []
    parts += [f"over {' and '.join(map(str, together))} targets in one model"] if together else []
    return f"mean {', '.join(parts)}" if parts else ""


def commits_of(records: Iterable[Record]) -> list[tuple[str, bool]]:
    """The commits that the cells were computed with, each with whether files had been changed, in their order."""
    found: dict[tuple[str, bool], None] = {}
    for record in records:
        code = record.record.get("code")
        if isinstance(code, dict) and code.get("commit"):
            found[str(code["commit"]), bool(code.get("dirty"))] = None
    return list(found)


def code_of(tables: Iterable[Table], most: int = 3) -> str:
    """`code 9207b273 with changes`; empty where no cell knows its commit."""
    shown = [commit[:8] + (" with changes" if dirty else "") for commit, dirty in commits_of(records_of(tables))]
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return f"code {escape_latex(', '.join(shown))}" if shown else ""


def reading(tables: Sequence[Table], metrics: Iterable[str]) -> list[str]:
    """The sentences that say how a table is read."""
    metrics = set(metrics)
    sentences = ["Arrows point to the better side; the best method is bold, the second underlined."]
    if any(methods for table in tables for metric, methods in table.tied.items() if metric in metrics):
        sentences.append(f"{DAGGER} marks what is not significantly different from the best.")
    if any(
        table.uncompared(metric) or "untested" in table.marks(metric).values() for table in tables for metric in metrics
    ):
        sentences.append(f"{UNTESTED} marks what is not tested against the best.")
    if any(row.reference for table in tables for row in table.rows):
        sentences.append("The rows above the inner rule are references.")
    if "forget_quality" in metrics:
        also = ", ROUGE-L a recall" if any("rouge_l" in metric for metric in metrics) else ""
        sentences.append(f"Forget quality is a $p$-value{also}.")
    return [*sentences, *(breakable(escape_latex(text)) for text in restrictions(tables))]


def restrictions(tables: Iterable[Table]) -> list[str]:
    """Plain sentences on rows that were scored on less than the benchmark, or come from elsewhere; mostly none."""
    rows = [row for table in tables for row in table.rows]
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for record in (*row.records, *row.failed):
            limit, note = record.spec.get("limit"), spec_of(record, "note")
            for text in (note, "" if limit is None else f"only the first {limit} rows of every set"):
                if text:
                    found.setdefault(text, {})[row.method] = None
    everyone = {row.method for row in rows}
    return [
        f"{text[0].upper()}{text[1:]}" + ("." if set(methods) == everyone else f": {', '.join(methods)}.")
        for text, methods in found.items()
    ]


def failures(tables: Sequence[Table]) -> list[str]:
    """A sentence that names the cells that failed."""
    failed = [
        f"{row.method} ({_which(table, record, several=len(tables) > 1)})"
        for table in tables
        for row in table.rows
        for record in row.failed
    ]
    return [f"Failed: {breakable(escape_latex(', '.join(failed)))}."] if failed else []


def warning(tables: Iterable[Table]) -> list[str]:
    """A sentence on the model that is made on the spot."""
    mini = any(table.model == _TINY_MODEL for table in tables)
    return ["The model \\emph{mini} is tiny: its figures say nothing about large models."] if mini else []


def _which(table: Table, record: Record, *, several: bool) -> str:
    named = f"{spec_of(record, 'benchmark')}, " if table.targets or several else ""
    return f"{named}seed {spec_of(record, 'seed')}"

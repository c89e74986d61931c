"""MMLU: 57 subjects of general knowledge as multiple choice. Hendrycks et al., 2021, arXiv 2009.03300.

It only judges: nothing in it is to be forgotten. "mmlu" asks without examples, "mmlu/5shot" behind the five solved
questions of the subject's dev split, in the order of the file. A folder holds `mmlu/test/<subject>_test.csv` and
`mmlu/dev/<subject>_dev.csv`, of all subjects or of some; without a folder the hub is read.
"""

import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench.data import rows
from bench.data.files import SUFFIXES, Table
from bench.data.questions import content, read_questions, warn_of_repeats
from bench.data.types import Benchmark, Question
from bench.errors import LetheError, unknown

log = logging.getLogger(__name__)

DEFAULT = "mmlu"
"""What "mmlu" alone means: no examples."""

SHOTS: Mapping[str, int] = MappingProxyType({"mmlu": 0, "mmlu/5shot": 5})
"""Benchmarks and the solved examples in front of every question."""

SUBJECTS: Mapping[str, str] = MappingProxyType(
    {
        "abstract_algebra": "STEM",
        "anatomy": "STEM",
        "astronomy": "STEM",
        "business_ethics": "other",
        "clinical_knowledge": "other",
        "college_biology": "STEM",
        "college_chemistry": "STEM",
        "college_computer_science": "STEM",
        "college_mathematics": "STEM",
        "college_medicine": "other",
        "college_physics": "STEM",
        "computer_security": "STEM",
        "conceptual_physics": "STEM",
        "econometrics": "social sciences",
        "electrical_engineering": "STEM",
        "elementary_mathematics": "STEM",
        "formal_logic": "humanities",
        "global_facts": "other",
        "high_school_biology": "STEM",
        "high_school_chemistry": "STEM",
        "high_school_computer_science": "STEM",
        "high_school_european_history": "humanities",
        "high_school_geography": "social sciences",
        "high_school_government_and_politics": "social sciences",
        "high_school_macroeconomics": "social sciences",
        "high_school_mathematics": "STEM",
        "high_school_microeconomics": "social sciences",
        "high_school_physics": "STEM",
        "high_school_psychology": "social sciences",
        "high_school_statistics": "STEM",
        "high_school_us_history": "humanities",
        "high_school_world_history": "humanities",
        "human_aging": "other",
        "human_sexuality": "social sciences",
        "international_law": "humanities",
        "jurisprudence": "humanities",
        "logical_fallacies": "humanities",
        "machine_learning": "STEM",
        "management": "other",
        "marketing": "other",
        "medical_genetics": "other",
        "miscellaneous": "other",
        "moral_disputes": "humanities",
        "moral_scenarios": "humanities",
        "nutrition": "other",
        "philosophy": "humanities",
        "prehistory": "humanities",
        "professional_accounting": "other",
        "professional_law": "humanities",
        "professional_medicine": "other",
        "professional_psychology": "social sciences",
        "public_relations": "social sciences",
        "security_studies": "social sciences",
        "sociology": "social sciences",
        "us_foreign_policy": "social sciences",
        "virology": "other",
        "world_religions": "humanities",
    }
)
"""Subjects and their groups, as lm-evaluation-harness tags them (tasks/mmlu/default/*.yaml)."""

GROUPS = ("STEM", "humanities", "social sciences", "other")

HUB_NAME = "cais/mmlu"
HUB_REVISION = "c30699e8356da336a370243923dbaf21066bb9fe"
"""The commit that public work which pins one agrees on."""


def known() -> list[str]:
    """The benchmarks of this file."""
    return list(SHOTS)


def load(name: str, root: Path | None, *, limit: int | None = None, corpora: str = "auto") -> Benchmark:
    """The questions of all subjects that are there and, for "mmlu/5shot", five solved ones of each.

    Args:
        name: "mmlu" or "mmlu/5shot".
        root: the folder that holds `mmlu/`; None reads the hub.
        limit: keep the first questions of every subject; all are checked, and no solved example is left out.
        corpora: not read; there are no texts here.
    """
    if name not in SHOTS:
        raise unknown("benchmark", name, known())
    rows.check_limit(limit)
    shots = SHOTS[name]
    read = _from_hub if root is None else _from_folder(root)
    tests = {subject: read_questions(table, f"mmlu/{subject}", subject) for subject, table in read("test").items()}
    warn_of_repeats(name, (question for found in tests.values() for question in found))
    few_shot = _few_shot(read("dev"), tests, shots) if shots else {}

    kept = [question for found in tests.values() for question in found[:limit]]
    scoring = rows.choice_scoring(root)
    examples = [question for found in few_shot.values() for question in found]
    source = f"{HUB_NAME}@{HUB_REVISION}" if root is None else rows.describe_folder(root, "mmlu")
    source += rows.told(scoring)
    benchmark = Benchmark(
        name=name,
        questions=tuple(kept),
        few_shot=MappingProxyType(few_shot),
        choice_scoring=scoring,
        fingerprint=rows.fingerprint(
            {"questions": map(content, kept), "few shot": map(content, examples), "choice scoring": [scoring]}
        ),
        source=source if len(tests) == len(SUBJECTS) else f"{source}, {len(tests)} of {len(SUBJECTS)} subjects",
    )
    log.info("%s from %s: %d questions of %d subjects", name, benchmark.source, len(kept), len(tests))
    return benchmark


def _few_shot(tables: Mapping[str, Table], tests: Mapping[str, object], shots: int) -> dict[str, tuple[Question, ...]]:
    """The first solved questions of every subject that is asked."""
    found = {}
    for subject in tests:
        if subject not in tables:
            raise LetheError(
                f"there are no solved questions of {subject!r}, mmlu/{shots}shot needs {shots}; "
                f"copy mmlu/dev/{subject}_dev.csv into the data folder or ask for mmlu"
            )
        table = tables[subject]
        questions = read_questions(table, f"mmlu/{subject}_dev", subject)
        if len(questions) < shots:
            raise LetheError(
                f"{table.source} has {len(questions)} rows, mmlu/{shots}shot needs at least {shots}; "
                "get a whole copy of the file or ask for mmlu"
            )
        found[subject] = questions[:shots]
    return found


# where rows come from


def _from_folder(root: Path) -> Callable[[str], dict[str, Table]]:
    folder = rows.folder_in(root, "mmlu", sign="test/astronomy_test")

    def read(split: str) -> dict[str, Table]:
        """Every subject of a split that is there, in the order of `SUBJECTS`."""
        there = folder / split
        if not there.is_dir():
            raise LetheError(f"there is no folder {there}, expected files such as {there}/astronomy_{split}.csv in it")
        stems = {path.stem for path in there.iterdir() if path.suffix in SUFFIXES}
        expected = {f"{subject}_{split}": subject for subject in SUBJECTS}
        if stems - expected.keys():
            stem = min(stems - expected.keys())
            near = difflib.get_close_matches(stem, expected, n=1)
            raise LetheError(
                f"{there / stem} is no file of MMLU{f'; did you mean {near[0]!r}?' if near else ','} expected "
                f"<subject>_{split}.csv with one of its {len(SUBJECTS)} subjects; rename the file or take it away"
            )
        if not stems:
            raise LetheError(f"{there} has no files, expected {there}/astronomy_{split}.csv and the like")
        return {
            subject: rows.read_file(there, stem, usual=".csv") for stem, subject in expected.items() if stem in stems
        }

    return read


def _from_hub(split: str) -> dict[str, Table]:
    table = rows.read_hub(HUB_NAME, "all", HUB_REVISION, split=split, folder="mmlu")
    places: dict[str, list[int]] = {}
    for at in range(len(table.rows)):
        subject = rows.text(table, at, "subject")
        if subject not in SUBJECTS:
            raise LetheError(f"{table.place(at)}: {unknown('subject', subject, SUBJECTS)}")
        places.setdefault(subject, []).append(at)
    return {
        subject: Table(table.source, [table.rows[at] for at in found], table.unit, [table.numbers[at] for at in found])
        for subject in SUBJECTS
        if (found := places.get(subject))
    }

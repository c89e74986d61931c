"""The paper compiles as it is written, fits its pages, and says where its figures come from."""

import hashlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import LetheError
from bench.latex.layouts import across, headline, question_sets, scores, sections
from bench.latex.typeset import PREAMBLE, typeset
from bench.paper import WRITTEN, write_paper
from bench.records import Metric
from bench.store import Record, write_bytes
from bench.tables import Table, tables_of
from tests import paper_records
from tests.paper_records import AWKWARD
from tests.report_records import cell, figures


def table_of(records: Sequence[Record], methods: Sequence[str] = ()) -> Table:
    (table,) = tables_of(records, methods)
    return table


def body(text: str) -> list[list[str]]:
    """Cells of the rows between the rule under the heading and the last one."""
    inner = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    return [line.removesuffix(r" \\").split(" & ") for line in inner.splitlines() if "&" in line]


def one_column(*values: float, metric: str = "model_utility") -> str:
    records = [
        cell(name, [Metric(name=metric, value=v, higher_is_better=True)])
        for name, v in zip("abcd", values, strict=False)
    ]
    return typeset(headline(table_of(records), "x"))


# --- one table


def test_figures_stand_in_columns_that_siunitx_aligns() -> None:
    text = one_column(0.1, -0.3, 12.5)
    assert "S[table-format=-2.3]" in text
    assert body(text) == [
        ["a", r"{\underline{\tablenum[table-format=-2.3]{0.100}}}"],
        ["b", "-0.300"],
        ["c", r"\bfseries 12.500"],
    ]


def test_p_values_and_large_figures_have_exponents() -> None:
    text = one_column(2.5e-17, 1.0, 0.0, metric="forget_quality")
    assert "S[table-format=1.1e-2]" in text
    assert [row[1] for row in body(text)] == [
        r"{\underline{\tablenum[table-format=1.1e-2]{2.5e-17}}}",
        r"\bfseries 1.0",
        "0",
    ]
    assert [row[1] for row in body(one_column(123456.0, 1.5))] == [
        r"\bfseries 1.2e5",
        r"{\underline{\tablenum[table-format=1.3e1]{1.500}}}",
    ]


def test_missing_and_infinite_figures_do_not_reach_siunitx() -> None:
    assert [row[1] for row in body(one_column(math.nan, math.inf))] == ["{--}", r"{$\infty$}"]


def test_a_mean_over_seeds_has_its_deviation_beneath() -> None:
    values = [0.5, 0.1]
    records = [cell("npo", [Metric(name="model_utility", value=v)], seed=s) for s, v in enumerate(values)]
    text = typeset(headline(table_of(records), "x"))
    # sd of {0.5, 0.1} = sqrt(2 * 0.2^2 / 1) = 0.283
    assert body(text) == [["npo", "0.300"], ["", r"{\tiny $\pm$0.283}"]]
    assert "Small: standard deviation over seeds." in text and "seeds 0, 1 (means)" in text


def test_a_mean_over_targets_has_its_interval_beneath() -> None:
    records = [
        cell("ga", [Metric(name="mean_forgetting", value=0.4, higher_is_better=True)], benchmark=f"ort/{t}_Ann_Lee")
        for t in (1, 2)
    ]
    text = typeset(headline(table_of(records), "x"))
    assert body(text) == [["ga", "0.400"], ["", r"{\tiny [0.400, 0.400]}"]]
    assert "bootstrap interval over targets" in text and "mean over 2 targets" in text


def test_a_mean_over_targets_and_seeds_has_both_beneath() -> None:
    found = {(1, 0): 0.1, (2, 0): 0.5, (1, 1): 0.3, (2, 1): 0.7}  # by target and seed
    records = [
        cell(
            "ga", [Metric(name="mean_forgetting", value=v, higher_is_better=True)], benchmark=f"ort/{t}_Ann_Lee", seed=s
        )
        for (t, s), v in found.items()
    ]
    text = typeset(headline(table_of(records), "x"))
    # by seed the means are 0.3 and 0.5, sd 0.141; by target 0.2 and 0.6, between which the resampled means lie
    assert body(text) == [["ga", "0.400"], ["", r"{\tiny $\pm$0.141}"], ["", r"{\tiny [0.200, 0.600]}"]]
    assert "Small: standard deviation over seeds." in text and "bootstrap interval over targets" in text


def test_composite_scores_stand_beside_their_parts() -> None:
    parts = {"extraction_strength": (0.5, False), "memorization_score": (0.6, True), "model_utility": (0.4, True)}
    parts["forget_fluency"] = (0.8, True)
    records = [
        cell(method, [Metric(name=n, value=v * share, higher_is_better=up) for n, (v, up) in parts.items()])
        for method, share in (("original", 1.0), ("npo", 0.5))
    ]
    layout = scores(table_of(records), "x")
    assert layout is not None
    assert {group.title: [column.heading for column in group.columns] for group in layout.groups} == {
        "Memorisation": ["ES", "Score"], "Utility": ["MU", "Fluency", "Score"], "Both": ["Score"],
    }  # fmt: skip
    # utility score of 0.2 / 0.4 and 0.4 / 0.8, overall 2 / (1 / 0.3 + 1 / 0.5)
    assert body(typeset(layout))[-1] == ["npo", "0.250", "0.300", "0.200", "0.400", "0.500", "0.375"]
    assert "OpenUnlearning, without its privacy" in typeset(layout)
    assert (
        scores(table_of([cell("npo", [Metric(name="mmlu_accuracy", value=0.5, higher_is_better=True)])]), "x") is None
    )


def test_what_is_not_told_apart_from_the_best_has_a_dagger() -> None:
    records = [
        cell(n, [Metric(name="model_utility", value=v, higher_is_better=True)])
        for n, v in zip("abc", (1, 2, 3), strict=True)
    ]
    table = replace(table_of(records), tied={"model_utility": frozenset("ab")})
    text = typeset(headline(table, "x"))
    assert [row[1] for row in body(text)] == [
        r"1.000{\rlap{$^{\dagger}$}}",
        r"{\underline{\tablenum[table-format=1.3]{2.000}}\rlap{$^{\dagger}$}}",
        r"\bfseries 3.000",
    ]
    assert "not significantly different" in text
    assert "significant" not in one_column(0.1, 0.2)


def test_what_no_test_compares_has_a_double_dagger_and_of_a_whole_column_its_heading() -> None:
    records = [
        cell(n, [Metric(name=m, value=v, higher_is_better=True) for m in ("model_utility", "retain_probability")])
        for n, v in zip("abcd", (1, math.inf, 3, 2), strict=True)
    ]
    records[1] = cell("b", [Metric(name="model_utility", value=-math.inf, higher_is_better=True)])
    text = typeset(headline(replace(table_of(records), tested={"model_utility": frozenset("a")}), "x"))
    assert [row[1] for row in body(text)] == [
        "1.000",
        r"{$-\infty$\rlap{$^{\ddagger}$}}",
        r"\bfseries 3.000",
        r"{\underline{\tablenum[table-format=1.3]{2.000}}\rlap{$^{\ddagger}$}}",
    ]
    assert r"{retain$^{\ddagger}$}" in text and text.count("ddagger") == 4
    assert r"$^{\ddagger}$ marks what is not tested against the best." in text


def test_the_caption_says_protocol_model_seeds_and_commit() -> None:
    records = [
        replace(r, record={**r.record, "code": {"commit": commit * 40, "dirty": commit == "b"}})
        for r, commit in zip([cell("npo", figures(0.5), seed=s, model="org/m") for s in (0, 1)], "ab", strict=True)
    ]
    caption = typeset(headline(table_of(records), "x")).split(r"\label")[0].replace(r"\allowbreak{}", "")
    facts = "benchmark tofu/forget10, model org/m, protocol strict, seeds 0, 1 (means), "
    assert facts + "code aaaaaaaa, bbbbbbbb with changes" in caption


def test_failed_cells_are_named_once() -> None:
    records = [cell(f"m{at}", figures(*[0.5] * 8)) for at in range(80)] + [cell("bad", seed=4)]
    text = typeset(headline(table_of(records), "x"))
    assert text.count(r"\begin{table}") == 2 and text.count("(continued)") == 1
    assert text.count("Failed: bad (seed 4)") == 1


# --- which columns


def test_question_sets_show_rouge_probability_and_the_grun_truth_ratio_of_four_sets() -> None:
    layout = question_sets(table_of(paper_records.question_sets()), "x")
    assert layout is not None
    assert [group.title for group in layout.groups] == ["Forget", "Retain", "Real authors", "World facts"]
    assert [column.metric for column in layout.groups[2].columns] == [
        *("real_authors_rouge_l_recall", "real_authors_probability", "grun_real_authors_truth_ratio"),
    ]
    assert typeset(layout).count(r"\begin{table}") == 1  # all four fit beside each other
    assert question_sets(table_of(paper_records.topics("m")), "x") is None


def test_topics_show_bio_cyber_and_mmlu_of_every_model_side_by_side() -> None:
    topics, overall = across(tables_of([*paper_records.topics("m_1"), *paper_records.topics("m_2")], ()))
    assert [group.title for group in topics.groups] == [r"m\_1", r"m\_2"]
    assert [column.heading for column in topics.groups[0].columns] == ["Bio", "Cyber", "MMLU"]
    assert overall.name == "overall"


def test_the_table_of_all_has_a_few_columns_of_each_benchmark_and_a_hole_where_a_method_is_missing() -> None:
    records = [*paper_records.topics("mini"), *paper_records.question_sets(), *paper_records.targets()]
    layout = next(layout for layout in across(tables_of(records, ["original", "ga"])) if layout.name == "overall")
    assert [group.title for group in layout.groups] == ["ort", "wmdp", "tofu/forget05"]
    assert [len(group.columns) for group in layout.groups] == [3, 3, 3]
    assert layout.methods[:2] == ["original", "retrained"] and len(set(layout.methods)) == len(layout.methods)
    rows = {row[0]: row[1:] for row in body(typeset(layout)) if row[0]}
    assert [bool(text) for text in rows["rmu"]] == [False] * 3 + [True] * 3 + [False] * 3


def test_protocols_are_never_mixed() -> None:
    records = [*paper_records.topics("mini"), *paper_records.question_sets()]
    records += [replace(r, spec={**r.spec, "protocol": "grun"}) for r in records]
    layouts = across(tables_of(records, ()))
    assert [len({table.protocol for table in layout.tables}) for layout in layouts] == [1, 1, 1, 1]
    assert len({layout.name for layout in layouts}) == 4


def test_leaderboards_whose_names_differ_in_signs_only_have_different_files() -> None:
    tables = tables_of([cell("npo", figures(0.5), model=model) for model in ("a_b", "a-b")], ())
    assert len({layout.name for section in sections(tables) for layout in section.layouts}) == 2


# --- the whole


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Everything that the paper of records of every kind consists of, paper.tex first."""
    out = tmp_path_factory.mktemp("out")
    records = paper_records.store(paper_records.every_kind(), out)
    return write_paper(records, [out], out, methods=["ga", "npo"])


def test_the_paper_includes_every_file_that_is_written_and_no_other(paper: list[Path]) -> None:
    assert (paper[0].name, paper[0].parent.name) == ("paper.tex", "paper")
    text = paper[0].read_text()
    included = {f"{name}.tex" for name in re.findall(r"\\input\{(.*)\}", text)}
    included |= set(re.findall(r"\\includegraphics\[.*\]\{(.*)\}", text))
    written = {path.relative_to(paper[0].parent).as_posix() for path in paper[1:]}
    assert included == {name for name in written if not name.endswith(".svg")}
    assert "code 01234567" in text
    kinds = {name.partition("-")[0] for name in written}
    assert kinds == {f"tables/{kind}" for kind in ("leaderboard", "sets", "topics.tex", "overall.tex", "summary")} | {
        f"figures/{kind}" for kind in ("tradeoff", "truth", "losses", "form", "requests", "batches")
    }


def test_a_paper_of_no_records_says_so(tmp_path: Path) -> None:
    (written,) = write_paper([], [tmp_path], tmp_path)
    assert "No cell has been run yet." in written.read_text()


def left(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != WRITTEN}


def some(*methods: str, benchmark: str = "tofu/forget10") -> list[Record]:
    return [cell(name, figures(0.5), benchmark=benchmark) for name in methods]


def test_what_a_new_paper_no_longer_names_goes_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "paper"
    more = [*some("npo", benchmark="tofu/forget01"), *some("npo", benchmark="tofu/forget05")]
    write_paper([*some("npo"), *more], [tmp_path], tmp_path)
    before = left(folder)
    gone = sorted(name for name in before if "forget0" in name and name.startswith("tables/"))
    assert len(gone) > 1
    own = {"tables/mine.tex": "mine", "figures/photo.pdf": "photo", "notes.txt": "x", gone[0]: "changed by hand"}
    for name, text in own.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    new = {p.relative_to(folder).as_posix() for p in write_paper(some("npo"), [tmp_path], tmp_path)}
    assert new < before
    assert left(folder) == new | own.keys()
    assert {name: (folder / name).read_text() for name in own} == own
    assert f"{folder / gone[0]} is no longer in the paper and was changed" in caplog.text


def test_a_list_of_files_that_nobody_can_trust_removes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, outside = tmp_path / "paper", tmp_path / "tables" / "x.tex"
    for path in (outside, folder / "tables" / "mine.tex", folder / "notes.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    names = ("../tables/x.tex", "tables/../../tables/x.tex", str(outside), "notes.txt", "tables/none.tex")
    for text in (json.dumps(dict.fromkeys(names, digest)), '["tables/mine.tex"]', '{"tables/mine.tex": 1}', "{"):
        (folder / WRITTEN).write_text(text)
        write_paper(some("npo"), [tmp_path], tmp_path)
        assert outside.is_file() and {"tables/mine.tex", "notes.txt"} <= left(folder)
    assert "cannot tell which files the paper before had" in caplog.text


def test_of_a_paper_that_was_cut_off_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(path: Path, content: bytes) -> None:
        if "forget10" in path.name:
            raise LetheError("the disk is full")
        write_bytes(path, content)

    one, two = some("npo"), some("npo", benchmark="tofu/forget01")
    with monkeypatch.context() as patched, pytest.raises(LetheError, match="disk is full"):
        patched.setattr("bench.paper.write_bytes", cut_off)
        write_paper([*one, *two], [tmp_path], tmp_path)
    assert [name for name in left(tmp_path / "paper") if "forget01" in name]
    new = {p.relative_to(tmp_path / "paper").as_posix() for p in write_paper(one, [tmp_path], tmp_path)}
    assert left(tmp_path / "paper") == new


def compiled(folder: Path, name: str) -> str:
    """The log of the second run of pdflatex."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    for package in ("siunitx.sty", "multirow.sty"):
        if not subprocess.run(["kpsewhich", package], capture_output=True, check=False).stdout:
            pytest.skip(f"LaTeX has no {package}; in Debian it is in texlive-science or texlive-latex-extra")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:]
    return (folder / f"{name}.log").read_text(errors="replace")


def overfull(log: str) -> list[float]:
    return [float(points) for points in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log)]


def test_the_paper_compiles_and_nothing_sticks_out(paper: list[Path]) -> None:
    log = compiled(paper[0].parent, "paper")
    assert [points for points in overfull(log) if points > 5] == []
    assert not re.search(r"LaTeX Warning: (Reference|Citation|Label)|multiply defined|Missing character", log)
    assert "Float too large" not in log
    assert paper[0].with_suffix(".pdf").stat().st_size > 10_000


def test_a_table_compiles_in_another_paper_with_every_kind_of_mark(tmp_path: Path) -> None:
    records = paper_records.question_sets()
    table = table_of(records)
    table = replace(table, tied={name: frozenset(row.method for row in table.rows) for name in table.better})
    many = [cell(f"{AWKWARD}[x={at}]", figures(*[at / 90] * 8), cell_id=str(at)) for at in range(90)]
    texts = [typeset(headline(table, "x")), typeset(headline(table_of(many), "y"))]
    (tmp_path / "other.tex").write_text(
        "\\documentclass{article}\n\\usepackage[a4paper,margin=20mm]{geometry}\n"
        + PREAMBLE
        + "\\begin{document}\n"
        + "\n".join(texts)
        + "\\end{document}\n"
    )
    log = compiled(tmp_path, "other")
    assert [points for points in overfull(log) if points > 5] == []
    assert "Float too large" not in log

"""Tables hold the figures of the records, each hole is seen, and any text stays text."""

import csv
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.errors import LetheError
from bench.exports import escape_markdown
from bench.latex import escape_latex
from bench.records import Metric, missing
from bench.report import failures, summary_table, write_reports
from bench.store import Record, RunStore, write_json, write_metrics
from bench.tables import HEADLINE, tables_of
from tests.report_records import LOWER, METHODS, cell, example_records, figures

FILES = ["metrics.csv", "leaderboard.csv", "leaderboard.tex", "leaderboard.md", "leaderboard.json", "costs.csv"]
GOLDEN = Path(__file__).parents[1] / "golden"
RESULTS = Path(__file__).parents[2] / "results"
ARROWS = [r"\downarrow" if name in LOWER else r"\uparrow" for name in HEADLINE]


def written(records: Sequence[Record], out: Path, methods: Sequence[str] = ()) -> dict[str, str]:
    paths = write_reports(records, out, methods=methods)
    assert [path.name for path in paths if path.name != "curves.csv"] == FILES
    return {path.name: path.read_bytes().decode() for path in paths}


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- the files as they are


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_the_golden_ones(tmp_path: Path, name: str) -> None:
    text = written(example_records(), tmp_path, METHODS)[name]
    if os.environ.get("LETHE_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_the_same_records_in_any_order_give_the_same_files_when_methods_are_named(tmp_path: Path) -> None:
    records = example_records()
    names = list(dict.fromkeys(str(record.spec["method"]) for record in records))
    expected = written(records, tmp_path, names)
    for rotation in (1, 4, 7):
        assert written(records[rotation:] + records[:rotation], tmp_path, names) == expected


def test_reports_of_stored_runs_equal_those_of_the_records_in_memory(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    records = sorted((r for r in example_records() if r.status == "complete"), key=lambda record: record.cell_id)
    for record in records:
        with store.staging(record.cell_id) as folder:
            write_json(folder / "spec.json", record.spec)
            write_json(folder / "record.json", record.record)
            write_metrics(folder / "metrics" / "tofu.json", record.metrics["tofu"])
    assert written(store.records(), tmp_path) == written(records, tmp_path)


def test_no_records_give_files_with_nothing_but_headings(tmp_path: Path) -> None:
    texts = written([], tmp_path)
    assert texts["metrics.csv"] == "model,method,benchmark,seed,protocol,metric,value,stderr,n\n"
    assert texts["leaderboard.csv"].startswith("method,benchmark,model,protocol,seeds,failed,forget_quality,")
    assert "tabular" not in texts["leaderboard.tex"]
    summary_table([])


def test_files_of_an_earlier_command_that_these_records_have_none_of_are_taken_away(tmp_path: Path) -> None:
    old, other = tmp_path / "significance.csv", tmp_path / "notes.csv"
    for path in (old, other):
        path.write_text("of other records\n")
    write_reports(example_records(), tmp_path)
    assert not old.exists() and other.exists()


def test_an_out_that_cannot_be_written_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LetheError, match=r"metrics\.csv.*--out"):
        write_reports([], tmp_path / "file")


# --- CSV


def test_metrics_have_every_seed_and_exact_floats_and_empty_cells_where_missing(tmp_path: Path) -> None:
    values = [Metric(name="a", value=0.1 + 0.2, stderr=1e-17, n=3), missing("b", "why"), Metric(name="c", value=1.0)]
    text = written([cell("npo", values, seed=10), cell("npo", values, seed=2)], tmp_path)["metrics.csv"]
    assert text.splitlines()[1:] == [
        "mini,npo,tofu/forget10,2,strict,a,0.30000000000000004,1e-17,3",
        "mini,npo,tofu/forget10,2,strict,b,,,",
        "mini,npo,tofu/forget10,2,strict,c,1.0,,",
        "mini,npo,tofu/forget10,10,strict,a,0.30000000000000004,1e-17,3",
        "mini,npo,tofu/forget10,10,strict,b,,,",
        "mini,npo,tofu/forget10,10,strict,c,1.0,,",
    ]


def test_a_row_is_the_mean_over_seeds_with_the_deviation(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5, 0.2), seed=0), cell("npo", figures(0.1, 0.2), seed=1)]
    (row,) = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert (row["seeds"], row["forget_quality"], row["forget_ks_d"]) == ("2", "0.3", "0.2")
    # sd of {0.5, 0.1} = sqrt(2 * 0.2^2 / 1) = 0.2828
    assert float(row["forget_quality_sd"]) == pytest.approx(0.2 * math.sqrt(2))


def test_a_single_seed_has_no_deviation_columns(tmp_path: Path) -> None:
    assert "_sd" not in written([cell("npo", figures(0.5))], tmp_path)["leaderboard.csv"]


def test_a_figure_that_one_seed_lacks_is_missing_in_the_mean(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5, 0.2), seed=0), cell("npo", figures(math.nan, 0.4), seed=1)]
    (row,) = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert row["forget_quality"] == ""
    assert float(row["forget_ks_d"]) == pytest.approx(0.3)


def test_a_failed_cell_is_a_row_with_empty_values(tmp_path: Path) -> None:
    rows = rows_of(written([cell("npo", figures(0.5)), cell("ga")], tmp_path)["leaderboard.csv"])
    failed = rows[1]
    assert (failed["method"], failed["seeds"], failed["failed"]) == ("ga", "0", "1")
    assert failed["forget_quality"] == ""


def test_what_a_machine_took_stands_in_costs_alone(tmp_path: Path) -> None:
    slow, fast = (written([cell("npo", figures(0.5), train_seconds=s)], tmp_path) for s in (9.0, 0.25))
    assert {name for name in slow if slow[name] != fast[name]} == {"costs.csv"}
    (row,) = rows_of(fast["costs.csv"])
    assert (row["method"], row["seed"], row["train_seconds"], row["trainable_parameters"]) == (
        "npo",
        "0",
        "0.25",
        "1000",
    )
    assert row["eval_seconds"] == ""  # not in the record


def test_headline_columns_come_first_then_the_rest(tmp_path: Path) -> None:
    metrics = [Metric(name=name, value=0.5) for name in ("other", *reversed(HEADLINE))]
    text = written([cell("npo", metrics)], tmp_path)["leaderboard.csv"]
    assert text.splitlines()[0].split(",") == [
        *("method", "benchmark", "model", "protocol", "seeds", "failed"),
        *HEADLINE,
        "other",
    ]


def test_rows_follow_the_given_order_with_references_first_and_variants_after_their_method(tmp_path: Path) -> None:
    names = ["grun_npo[rank=16]", "ga", "retrained", "new", "npo", "grun_npo", "original"]
    rows = rows_of(written([cell(name, figures(0.5)) for name in names], tmp_path, METHODS)["leaderboard.csv"])
    expected = ["original", "retrained", "ga", "npo", "grun_npo", "grun_npo[rank=16]", "new"]
    assert [row["method"] for row in rows] == expected


def test_tuned_rows_stand_apart_after_all_others(tmp_path: Path) -> None:
    names = ["npo[tuned=2]", "grun_npo", "ga[tuned=2]", "npo", "ga"]
    rows = rows_of(written([cell(name, figures(0.5)) for name in names], tmp_path, METHODS)["leaderboard.csv"])
    assert [row["method"] for row in rows] == ["ga", "npo", "grun_npo", "ga[tuned=2]", "npo[tuned=2]"]


def test_without_an_order_methods_stay_as_the_records_come(tmp_path: Path) -> None:
    rows = rows_of(written([cell(name, figures(0.5)) for name in ("b", "original", "a")], tmp_path)["leaderboard.csv"])
    assert [row["method"] for row in rows] == ["original", "b", "a"]


def test_runs_that_differ_in_more_than_the_seed_are_never_averaged(tmp_path: Path) -> None:
    records = [
        cell("npo", figures(0.5), cell_id="a", fields={"beta": 0.1, "steps": 5}),
        cell("npo", figures(0.7), cell_id="b", fields={"beta": 0.2, "steps": 5}),
        cell("npo", figures(0.9), cell_id="c", fields={"beta": 0.2, "steps": 5}, seed=1),
    ]
    rows = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert [(row["method"], row["seeds"], row["forget_quality"]) for row in rows] == [
        ("npo (fields.beta=0.1)", "1", "0.5"),
        ("npo (fields.beta=0.2)", "2", "0.8"),
    ]


def test_hashes_in_labels_are_cut_short(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5), cell_id=name, data_hash=name * 64) for name in "ab"]
    rows = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert [row["method"] for row in rows] == ["npo (data_hash=aaaaaaaa)", "npo (data_hash=bbbbbbbb)"]


def test_two_runs_with_the_same_spec_and_seed_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5), cell_id="npo-11111111"), cell("npo", figures(0.7), cell_id="npo-22222222")]
    rows = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert [row["method"] for row in rows] == ["npo #11111111", "npo #22222222"]


def test_variants_of_a_reference_are_references(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.1)), cell("original", figures(0.2), template="chat")]
    records += [cell("original", figures(0.3), template="plain", cell_id="x")]
    rows = rows_of(written(records, tmp_path)["leaderboard.csv"])
    assert [row["method"] for row in rows] == ["original (template=chat)", "original (template=plain)", "npo"]


def test_a_metric_that_two_evaluators_report_is_an_error(tmp_path: Path) -> None:
    record = cell("npo", figures(0.5))
    twice = Record(
        cell_id=record.cell_id, spec=record.spec, metrics={"tofu": figures(0.5), "wmdp": figures(0.5)}, record={}
    )
    with pytest.raises(LetheError, match=r"'forget_quality' twice.*'wmdp'"):
        write_reports([twice], tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.text(), st.text(), st.text())
@example('a"b', "a,b\nc", "a\rb\r\nc\x00")
@example(" a ", "", "\u2028\ufeff=1+1")
def test_any_text_survives_a_csv_round_trip(
    tmp_path_factory: pytest.TempPathFactory, method: str, benchmark: str, model: str
) -> None:
    texts = written(
        [cell(method, figures(0.5), benchmark=benchmark, model=model, cell_id="x")], tmp_path_factory.mktemp("csv")
    )
    for name in ("metrics.csv", "leaderboard.csv"):
        row = rows_of(texts[name])[0]
        assert (row["method"], row["benchmark"], row["model"]) == (method, benchmark, model)


def test_pandas_reads_the_files(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_reports(example_records(), tmp_path)
    metrics = pandas.read_csv(tmp_path / "metrics.csv")
    assert metrics["value"].dtype == float
    assert len(pandas.read_csv(tmp_path / "leaderboard.csv")) == 8


# --- Markdown and JSON

NAMES = (
    "a&b_%$",
    "a&b_%$#{}~^\\",
    "<b>x</b>",
    "*x* `y` [z](u)",
    "a|b\\|c",
    "</script>",
    "&copy; @me #1 $x$ ~~y~~",
    "- 1. + x",
)


def html_cells(text: str) -> list[list[str]]:
    """What a reader sees in the body of the only table."""
    from html.parser import HTMLParser

    from markdown_it import MarkdownIt

    rows: list[list[str]] = []

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag == "tr":
                rows.append([])
            if tag in ("td", "th"):
                rows[-1].append("")
            self.inside = tag in ("td", "th") or (self.inside and tag in ("em", "strong"))

        def handle_endtag(self, tag: str) -> None:
            self.inside = self.inside and tag not in ("td", "th")

        def handle_data(self, data: str) -> None:
            if self.inside:
                rows[-1][-1] += data

    Reader().feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    return rows[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_in_markdown_as_it_was_written(tmp_path: Path, name: str) -> None:
    text = written([cell(name, figures(0.5), cell_id="x", benchmark=name)], tmp_path)["leaderboard.md"]
    assert [row[:3] for row in html_cells(text)] == [[name, "1", "5.0e-01"]]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])))
def test_any_text_is_shown_in_markdown_as_it_is(text: str) -> None:
    (row,) = html_cells(f"| a |\n| - |\n| x{escape_markdown(text)}x |\n")
    assert row == [f"x{text}x"]


def test_markdown_marks_the_best_the_second_and_what_is_not_told_apart(tmp_path: Path) -> None:
    records = [
        cell(name, [Metric(name="model_utility", value=v, higher_is_better=True)])
        for name, v in zip("abc", (0.1, 0.3, 0.2), strict=True)
    ]
    (table,) = tables_of(records, ())
    table = replace(table, tied={"model_utility": frozenset("c")})
    write_reports(records, tmp_path, tables=[table])
    cells = {row[0]: row[2] for row in html_cells((tmp_path / "leaderboard.md").read_text())}
    assert cells == {"a": "0.100", "b": "0.300", "c": "0.200\u2020"}
    text = (tmp_path / "leaderboard.md").read_text()
    assert "**0.300**" in text and "*0.200*\u2020" in text and "not significantly different" in text
    assert r"\underline{$0.200$}\rlap{$^{\dagger}$}" in (tmp_path / "leaderboard.tex").read_text()
    value = json.loads((tmp_path / "leaderboard.json").read_text())["leaderboards"][0]["rows"][2]["values"]
    assert value["model_utility"]["tied"] is True


def test_json_holds_every_figure_exactly_with_its_cells_and_null_where_missing(tmp_path: Path) -> None:
    records = [cell("a&b_%$", figures(0.1 + 0.2, math.nan), seed=seed) for seed in (0, 1)]
    records = [replace(r, record={**r.record, "code": {"commit": "c" * 40, "dirty": True}}) for r in records]
    (board,) = json.loads(written([*records, cell("ga")], tmp_path)["leaderboard.json"])["leaderboards"]
    assert (board["benchmark"], board["model"], board["protocol"]) == ("tofu/forget10", "mini", "strict")
    assert board["code"] == [{"commit": "c" * 40, "dirty": True}]
    row, failed = board["rows"]
    assert row["method"] == "a&b_%$"
    assert [(c["id"], c["seed"], c["commit"]) for c in row["cells"]] == [
        ("a&b_%$-tofu-forget10-s0", 0, "c" * 40),
        ("a&b_%$-tofu-forget10-s1", 1, "c" * 40),
    ]
    quality = {"mean": 0.1 + 0.2, "sd": 0.0, "n": 2, "by_seed": {"0": 0.1 + 0.2, "1": 0.1 + 0.2}}
    assert row["values"]["forget_quality"] == {
        **quality,
        "interval": None,
        "place": None,
        "tied": False,
        "tested": False,
    }
    assert (row["values"]["forget_ks_d"]["mean"], row["values"]["forget_ks_d"]["n"]) == (None, 0)
    assert failed["cells"] == [] and failed["failed"][0]["id"] == "ga-tofu-forget10-s0"
    assert failed["values"]["forget_quality"]["mean"] is None


# --- LaTeX


def tex_cells(records: Sequence[Record], out: Path) -> dict[str, list[str]]:
    """Cells by method, of the only table."""
    text = written(records, out)["leaderboard.tex"]
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if "&" in line]
    return {cells[0]: cells[1:] for cells in (line.split(" & ") for line in lines)}


def column(out: Path, *values: float, metric: str = "model_utility", references: Sequence[float] = ()) -> list[str]:
    """The cells of one column, for the methods a, b, c, ...; lower is better for `forget_ks_d`."""
    better = metric not in LOWER
    records = [
        cell(name, [Metric(name=metric, value=value, higher_is_better=better)])
        for name, value in [
            *zip(("original", "retrained"), references, strict=False),
            *zip("abcdef", values, strict=False),
        ]
    ]
    cells = tex_cells(records, out)
    return [cells[name][0] for name in "abcdef"[: len(values)]]


def best(text: str) -> str:
    return rf"{{\boldmath${text}$}}"


def second(text: str) -> str:
    return rf"\underline{{${text}$}}"


def test_the_best_is_bold_and_the_second_underlined_where_higher_is_better(tmp_path: Path) -> None:
    assert column(tmp_path, 0.1, 0.3, 0.2) == ["$0.100$", best("0.300"), second("0.200")]


def test_the_best_is_bold_and_the_second_underlined_where_lower_is_better(tmp_path: Path) -> None:
    cells = column(tmp_path, 0.1, 0.3, 0.2, metric="forget_ks_d")
    assert cells == [best("0.100"), "$0.300$", second("0.200")]


def test_references_do_not_compete(tmp_path: Path) -> None:
    assert column(tmp_path, 0.1, 0.3, references=(0.9, 0.8)) == [second("0.100"), best("0.300")]


def test_two_that_are_printed_alike_share_the_first_place_and_leave_no_second(tmp_path: Path) -> None:
    assert column(tmp_path, 0.30001, 0.29999, 0.2) == [best("0.300"), best("0.300"), "$0.200$"]


def test_two_may_share_the_second_place(tmp_path: Path) -> None:
    assert column(tmp_path, 0.2, 0.3, 0.2) == [second("0.200"), best("0.300"), second("0.200")]


def test_nobody_is_marked_alone_or_where_all_are_alike_or_where_neither_side_is_better(tmp_path: Path) -> None:
    assert column(tmp_path, 0.2) == ["$0.200$"]
    assert column(tmp_path, 0.2, math.nan) == ["$0.200$", "--"]
    assert column(tmp_path, 0.2, 0.2) == ["$0.200$", "$0.200$"]
    neither = [cell(name, [Metric(name="other_metric", value=value)]) for name, value in (("a", 0.1), ("b", 0.2))]
    assert tex_cells(neither, tmp_path) == {"a": ["$0.100$"], "b": ["$0.200$"]}


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (1.2e-5, r"$1.2\times10^{-5}$"),
        (9.96e-6, r"$1.0\times10^{-5}$"),
        (4.346199600129006e-25, r"$4.3\times10^{-25}$"),
        (5e-324, r"$4.9\times10^{-324}$"),
        (0.61, r"$6.1\times10^{-1}$"),
        (1.0, "$1.0$"),
        (0.0, "$0$"),
        (math.nan, "--"),
    ],
)
def test_p_values_are_in_scientific_notation(tmp_path: Path, value: float, printed: str) -> None:
    assert column(tmp_path, value, metric="forget_quality") == [printed]


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.12345, "$0.123$"),
        (-0.5, "$-0.500$"),
        (-0.0001, "$0.000$"),
        (123456.0, r"$1.2\times10^{5}$"),
        (99.5, "$99.500$"),
    ],
)
def test_other_figures_have_three_decimals(tmp_path: Path, value: float, printed: str) -> None:
    assert column(tmp_path, value) == [printed]


def test_headings_point_to_the_better_side(tmp_path: Path) -> None:
    lines = written(example_records(), tmp_path)["leaderboard.tex"].splitlines()
    head = lines.index(r"\toprule") + 1
    assert lines[head : head + 4] == [
        r" & Forget & KS & Model & \multicolumn{2}{c}{ROUGE-L} & \multicolumn{2}{c}{Probability} & Extraction \\",
        r"\cmidrule(lr){5-6} \cmidrule(lr){7-8}",
        r"Method & quality & $D$ & utility & forget & retain & forget & retain & strength \\",
        " & " + " & ".join(rf"${way}$" for way in ARROWS) + r" \\",
    ]


def test_references_stand_on_top_of_a_rule_of_their_own(tmp_path: Path) -> None:
    text = written([cell(name, figures(0.5)) for name in ("npo", "retrained", "original")], tmp_path)["leaderboard.tex"]
    found = re.findall(r"^(original|retrained|npo|\\midrule)", text, flags=re.MULTILINE)
    assert found == ["\\midrule", "original", "retrained", "\\midrule", "npo"]


@pytest.mark.parametrize("names", [["npo", "ga"], ["original", "retrained"]])
def test_there_is_no_second_rule_where_only_one_kind_of_rows_is_there(tmp_path: Path, names: list[str]) -> None:
    text = written([cell(name, figures(0.5)) for name in names], tmp_path)["leaderboard.tex"]
    assert text.count(r"\midrule") == 1


def test_each_benchmark_has_its_table_and_label(tmp_path: Path) -> None:
    text = written(example_records(), tmp_path)["leaderboard.tex"]
    assert text.count(r"\begin{table}") == 2
    labels = re.findall(r"\\label{(.*)}", text)
    assert len(set(labels)) == 2
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)


def test_tables_whose_names_differ_in_signs_only_have_different_labels(tmp_path: Path) -> None:
    text = written([cell("npo", figures(0.5), model=model) for model in ("a_b", "a-b")], tmp_path)["leaderboard.tex"]
    assert len(set(re.findall(r"\\label{(.*)}", text))) == 2


def test_the_caption_names_model_benchmark_protocol_seeds_and_failures(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5), seed=seed, model="org/model") for seed in (0, 1, 10)]
    text = written([*records, cell("ga", model="org/model", seed=1)], tmp_path)["leaderboard.tex"]
    caption = text.split(r"\caption{")[1].split(r"\label")[0].replace(r"\allowbreak{}", "")
    for part in (
        "tofu/forget10",
        "model org/model",
        "protocol strict",
        "seeds 0, 1, 10 (means)",
        "Failed: ga (seed 1)",
    ):
        assert part in caption
    assert "large models" not in caption


def test_what_was_not_scored_on_all_rows_is_said_in_words(tmp_path: Path) -> None:
    whole, part = cell("npo", figures(0.5)), cell("ga", figures(0.4), note="scored without the validation rows")
    write_reports([whole, part], tmp_path)
    for name in ("leaderboard.tex", "leaderboard.md"):
        assert "Scored without the validation rows: ga." in (tmp_path / name).read_text().replace("\\allowbreak{}", "")
    limited = [replace(record, spec={**record.spec, "limit": 8}) for record in (whole, part)]
    write_reports(limited, tmp_path)
    for name in ("leaderboard.tex", "leaderboard.md"):
        assert "Only the first 8 rows of every set." in (tmp_path / name).read_text()


def test_the_caption_of_the_mini_model_warns(tmp_path: Path) -> None:
    text = written([cell("npo", figures(0.5), model="mini")], tmp_path)["leaderboard.tex"]
    assert "say nothing about large models" in text


def test_a_table_without_headline_metrics_shows_its_first_eight(tmp_path: Path) -> None:
    metrics = [Metric(name=f"wmdp_bio_part_{i}", value=0.5) for i in range(12)]
    cells = tex_cells([cell("npo", metrics), cell("ga", metrics)], tmp_path)
    assert len(cells["npo"]) == 8
    assert "wmdp bio part" in (tmp_path / "leaderboard.tex").read_text()


ATOM = re.compile(
    r"""[A-Za-z0-9 !'()+,./:;=?@\]-]       # itself
    | \{\} | \{\[\} | \{\*\}              # a full stop for ligatures; signs that a row's end would swallow
    | \\[{}$&\#%_]                        # a sign
    | \\[A-Za-z]+\{\}                     # a named sign
    | \\ensuremath\{(\\[a-z]+|-)\}        # a mathematical one
    | \\[`'^~=".ruvHc]\{[A-Za-z]\}        # an accent""",
    re.VERBOSE,
)


@settings(max_examples=500, deadline=None)
@given(st.text())
@example("a&b_%$#{}~^\\")
@example("".join(map(chr, range(0x250))))
@example(
    "\u03b1\u03bb\u03c9\u03c2\u03bf \u4e2d\u6587 \U0001f600 e\u0301\u0323 \u1ea5 \ufb01 \uff06 \u2460 \ud55c \ud800"
)
def test_any_text_gives_latex_without_unescaped_specials(text: str) -> None:
    rest = escape_latex(text)
    assert rest.isascii()
    while rest:
        match = ATOM.match(rest)
        assert match, f"unescaped: {rest[:20]!r}"
        rest = rest[match.end() :]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grun_npo[rank=16]", r"grun\_npo{[}rank=16]"),
        ("a&b_%$#{}~^\\", r"a\&b\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("Bj\u00f6rk", r"Bj\"{o}rk"),
        ("Stra\u00dfe", r"Stra\ss{}e"),
        ("\u03b2=0.1", r"\ensuremath{\beta}=0.1"),
        ("\u03bb", r"\ensuremath{\lambda}"),
        ("x\u00b2", "x2"),
        ("\uff06", r"\&"),
        ("\u4e2d", r"\textless{}U+4E2D\textgreater{}"),
        ("a--b", "a-{}-b"),
        ("''", "'{}'"),
        ("a\nb\tc", "a b c"),
        ("e\u0301\u200b", r"\'{e}"),
    ],
)
def test_escaped_examples(text: str, expected: str) -> None:
    assert escape_latex(text) == expected


def compile_tex(body: str, folder: Path) -> str:
    """The log of pdflatex over an article with nothing but booktabs."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    source = folder / "article.tex"
    source.write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + body + "\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", source.name]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "article.log").read_text(errors="replace")


def test_the_tables_compile_with_nothing_but_booktabs_and_fit_the_page(tmp_path: Path) -> None:
    write_reports(example_records(), tmp_path)
    log = compile_tex(r"\input{leaderboard.tex}", tmp_path)
    assert "Overfull" not in log
    assert "multiply defined" not in log
    assert "Missing character" not in log


@pytest.mark.parametrize("board", sorted(RESULTS.rglob("leaderboard.tex")), ids=lambda path: path.parent.name)
def test_the_committed_tables_compile_and_fit_the_page(tmp_path: Path, board: Path) -> None:
    assert "Overfull" not in compile_tex(board.read_text(), tmp_path)


def test_every_escaped_sign_compiles(tmp_path: Path) -> None:
    starts = ["[1] option", "*", "\\\\", "(lr)", "-", "", "&", "%"]
    signs = [chr(code) for code in itertools.chain(range(0x600), range(0x1E00, 0x2300), (0x4E2D, 0xFB01, 0x1F600))]
    records = [cell(name, figures(0.5), cell_id=name) for name in starts]
    write_reports(records, tmp_path)
    lines = "\n\n".join(escape_latex(" ".join(signs[i : i + 16])) for i in range(0, len(signs), 16))
    log = compile_tex("\\input{leaderboard.tex}\n\\raggedright\n" + lines, tmp_path)
    assert "Missing character" not in log


# --- the terminal


def rendered(records: Sequence[Record], methods: Sequence[str] = (), width: int = 200, **options: Any) -> str:
    from rich.console import Console

    file = io.StringIO()
    console = Console(
        width=width, file=file, **{"color_system": None, "force_terminal": True, "no_color": False} | options
    )
    console.print(summary_table(records, methods=methods))
    return file.getvalue()


def test_the_summary_shows_the_headline_and_marks_what_failed() -> None:
    text = rendered(example_records(), METHODS)
    forget01, forget10 = text.split("tofu/forget10, model mini, protocol strict")
    assert "tofu/forget01, model a&b_%$#{}~^\\, protocol strict" in forget01
    rows = {line.split()[0]: line.split()[1:] for line in forget01.splitlines() if line.strip()}
    assert rows["ga"] == ["failed"]
    rows = {line.split()[0]: line.split()[1:] for line in forget10.splitlines() if line.strip()}
    assert rows["grun_npo"][:3] == ["2/3", "2.0e-05", "0.530"]
    assert rows["grun_npo[position=answer,rank=16]"][1] == "6.1e-01"
    assert "-" in rows["grun_npo[position=answer,rank=16]"]


def test_the_summary_fits_80_columns() -> None:
    text = rendered([cell(name, figures(*[0.5] * 8)) for name in ("retrained", "grun_simnpo")], width=80)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert [line for line in text.splitlines() if line.startswith("grun_simnpo ") and "\u2026" not in line]


def test_a_long_label_stands_above_its_figures_where_both_do_not_fit() -> None:
    label = "grun_npo[position=answer]"
    records = [cell(name, figures(*[0.5] * 8)) for name in ("npo", label)]
    lines = [line.rstrip() for line in rendered(records, width=80).splitlines()]
    at = lines.index(label)
    (npo,) = (line for line in lines if line.startswith("npo "))
    assert lines[at + 1].strip().startswith("5.0e-01") and len(lines[at + 1]) == len(npo) <= 80
    wide = [line for line in rendered(records, width=120).splitlines() if line.startswith(label)]
    assert len(wide) == 1 and "5.0e-01" in wide[0]


def test_the_summary_marks_the_best() -> None:
    text = rendered([cell(name, figures(value)) for name, value in (("a", 0.1), ("b", 0.2))], color_system="standard")
    assert "\x1b[1m2.0e-01" in text
    assert "\x1b[4m1.0e-01" in text


def test_failures_name_the_cell_and_the_last_line() -> None:
    assert failures(example_records()) == [
        ("grun_npo-tofu-forget10-s2", "LetheError: loss is NaN at step 3"),
        ("ga-tofu-forget01-s0", "boom"),
    ]
    assert failures([cell("ga", error="")]) == [("ga-tofu-forget10-s0", "no error was recorded")]

"""Pictures drawn from figures chosen so that the lines can be told by hand."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.drawings import (
    batch_panels,
    form_gap,
    gate_panels,
    loss_panels,
    request_panels,
    scatter,
    truth_ratio_panels,
)
from bench.pareto import tradeoffs
from bench.records import Metric
from bench.tables import Table, tables_of
from tests.report_records import cell, figures
from tests.toy_report import Made, forms, tofu


def table_of(out: Path, **cells: list[Metric]) -> Table:
    made = Made(out)
    for method, metrics in cells.items():
        made.cell(method, metrics=metrics)
    (table,) = tables_of(made.records(), list(cells))
    return table


def lines(svg: str, class_: str) -> list[str]:
    return [e.attrib["d"] for e in ElementTree.fromstring(svg).iter("path") if class_ in e.attrib["class"].split()]


def test_a_scatter_names_every_method_and_draws_the_front(tmp_path: Path) -> None:
    table = table_of(tmp_path, original=tofu(1.0, 0.9), npo=tofu(0.5, 0.8), ga=tofu(0.2, 0.1), gd=tofu(0.6, 0.7))
    panel = scatter(table, tradeoffs(table)[0])
    texts = [e.text for e in ElementTree.fromstring(panel.svg).iter("text")]
    assert set(texts) >= {"original", "npo", "ga", "gd", "1 - KS D to the retrained model →", "model utility →"}
    tips = re.findall('data-tip="(.*?)"', panel.svg, re.DOTALL)
    assert [tip.split("\n")[-1] for tip in tips] == [
        "reference, 1 seed",
        "on the Pareto front, 1 seed",
        "on the Pareto front, 1 seed",
        "dominated, 1 seed",
    ]
    assert tips[1].startswith("npo\n1 - KS D to the retrained model: 0.5000\nmodel utility: 0.8000")
    (front,) = lines(panel.svg, "front")
    assert front.count("L") == 2  # npo, down to ga's utility, along to ga


def test_truth_ratios_lie_over_those_of_the_retrained_model(tmp_path: Path) -> None:
    table = table_of(tmp_path, retrained=tofu(0.0, 0.9), npo=tofu(0.5, 0.8), ga=tofu(0.9, 0.1), idk=tofu(0.9, 0.1))
    ratios = {
        "retrained": [[-1.0, 0.0, 1.0]],
        "npo": [[-1.0, 0.0, 0.5], [0.0, 0.2, 0.4]],
        "ga": [[500.0, 600.0, 700.0]],
    }
    panels = truth_ratio_panels(table, ratios)
    assert [panel.title for panel in panels] == ["retrained", "npo", "ga"]
    retrained, npo, ga = (panel.svg for panel in panels)
    assert len(lines(retrained, "line")) == 1
    assert [len(lines(svg, "reference")) for svg in (retrained, npo, ga)] == [1, 1, 1]
    assert len(lines(npo, "line")) == 3  # the retrained model's and two seeds
    assert [panel.note for panel in panels] == ["", "D 0.500", "D 0.900, 3 outside the axis"]
    assert lines(npo, "reference") == lines(retrained, "reference")  # the axis is shared
    assert truth_ratio_panels(table, {}) == []


def test_truth_ratios_lie_over_those_of_the_retrained_model_that_was_asked_the_same() -> None:
    records = [
        cell(name, figures(0.5), data_hash=kind, cell_id=f"{name}-{kind}")
        for kind in ("aaaa", "bbbb")
        for name in ("retrained", "npo")
    ]
    (table,) = tables_of(records, [])
    ratios = {row.method: [[-1.0, 0.0, 0.5 if "aaaa" in row.method else 1.5]] for row in table.rows}
    drawn = {panel.title: lines(panel.svg, "reference") for panel in truth_ratio_panels(table, ratios)}
    for kind in ("aaaa", "bbbb"):
        assert len(drawn[f"retrained (data_hash={kind})"]) == 1
        assert drawn[f"npo (data_hash={kind})"] == drawn[f"retrained (data_hash={kind})"]
    assert drawn["npo (data_hash=aaaa)"] != drawn["npo (data_hash=bbbb)"]


def test_losses_are_drawn_without_learning_rates(tmp_path: Path) -> None:
    table = table_of(tmp_path, npo=tofu(0.5, 0.8), ga=tofu(0.9, 0.1))
    run = [
        {"step": s, "lr": 1.0, "grad_norm": 5.0, "forget": -s, "retain": None if s == 2 else 0.5} for s in range(1, 601)
    ]
    (panel,) = loss_panels(table, {"npo": [run]})
    forget, retain = lines(panel.svg, "line")[2:]  # behind those of the legend
    assert forget.count("L") == 149  # 600 steps, four by four
    assert retain.count("L") == 149
    assert "grad_norm" not in panel.svg
    assert loss_panels(table, {"npo": [[{"step": 1, "forget": None}]]}) == []


def test_gates_are_counted_by_set_and_layer(tmp_path: Path) -> None:
    table = table_of(tmp_path, grun_npo=tofu(0.5, 0.8))
    rows = [{"set": s, "layer": layer, "value": v} for s, v in (("forget", 1.0), ("retain", 0.0)) for layer in (3, 7)]
    panels = gate_panels(table, {"grun_npo": rows})
    assert [panel.title for panel in panels] == ["grun_npo, layer 3", "grun_npo, layer 7"]
    assert panels[0].note == "means: forget 1.00, retain 0.00"
    assert len(lines(panels[0].svg, "area")) == 2


def test_the_gap_is_between_the_extreme_forms(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.cell("npo", "ort/1_A", evaluator="ort", metrics=forms(1))
    (table,) = tables_of(made.records(), [])
    (panel,) = form_gap(table)
    assert "gap 0.35" in panel.svg  # 0.45 of questions, 0.10 of multiple choice
    assert panel.svg.count("data-tip") == 4
    assert form_gap(table_of(tmp_path / "other", npo=tofu(0.5, 0.8))) == []


@pytest.mark.parametrize("value", [0.5, None, float("nan")])
def test_a_chain_is_a_line_of_its_stages(value: float | None) -> None:
    start = ["m", "strict", "npo", "a>b"]
    rows = [[*start, 1, "a", "form_gap", 0.25, 1], [*start, 2, "b", "form_gap", value, 1]]
    ((title, (panel,)),) = request_panels(rows)
    assert (title, panel.title) == ("a>b, model m, protocol strict", "form_gap")
    assert panel.svg.count("data-tip") == (2 if value == 0.5 else 1)


def test_a_nest_of_batches_is_a_line_over_their_sizes_that_tells_its_intervals() -> None:
    start = ["m", "strict", "npo", "ort/1-4"]
    rows = [
        [*start, 1, "ort/1_A", "form_gap", 0.25, 1, float("nan"), float("nan")],
        [*start, 4, "ort/1-4", "form_gap", 0.5, 1, 0.4, 0.6],
    ]
    ((title, (panel,)),) = batch_panels(rows)
    assert (title, panel.title) == ("ort/1-4, model m, protocol strict", "form_gap")
    marks = [element.attrib for element in ElementTree.fromstring(panel.svg).iter()]
    assert [mark["data-tip"] for mark in marks if "data-tip" in mark] == [
        "npo form_gap of the first target: 0.2500",
        "npo form_gap of 4 targets: 0.5000 95 % interval over targets: 0.4000 to 0.6000",
    ]

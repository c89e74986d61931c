"""Pictures are the same every time, show any name, and no more than is there."""

import json
import math
import re
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection

from bench.figures import MOST_PANELS, Picture, pictures
from bench.records import Metric
from bench.tables import tables_of
from tests import paper_records
from tests.paper_records import AWKWARD, of
from tests.report_records import cell, figures


def drawn(out: Path, records: list) -> dict[str, Picture]:
    found = pictures(tables_of(paper_records.store(records, out), ()), [out])
    return {picture.name: picture for picture in found}


def lines(figure: object) -> list[list[tuple[float, float]]]:
    """Points of the lines in all panels."""
    axes = figure.axes  # type: ignore[attr-defined]
    return [list(zip(*line.get_data(), strict=True)) for panel in axes for line in panel.lines]


def test_the_same_records_give_the_same_bytes_with_embedded_fonts_and_no_date(tmp_path: Path) -> None:
    records = paper_records.targets()
    first, again = (drawn(tmp_path / name, records)["form-gap-ort-mini-strict"].rendered() for name in "ab")
    assert first == again
    pdf, svg = first["form-gap-ort-mini-strict.pdf"], first["form-gap-ort-mini-strict.svg"]
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/CreationDate" not in pdf
    assert b"<text" not in svg and b"<dc:date>" not in svg


NAMES = (AWKWARD, "_$x$_", "\u4e2d\u6587 x", "a\nb\x00", "$\\frac{$", "x" * 300, "", " _")


def test_any_name_is_drawn_as_text(tmp_path: Path) -> None:
    records = [cell(name, figures(0.1, 0.2, 0.1 * at), cell_id=str(at)) for at, name in enumerate(NAMES)]
    metrics = of({"forgetting_qa": True, "forgetting_fb": True}, 0.2)
    records += [cell("retrained", figures(1.0, 0.0, 0.4)), cell(AWKWARD, metrics, benchmark=AWKWARD, model=AWKWARD)]
    found = drawn(tmp_path, records)
    assert len(found) == 5
    for picture in found.values():
        assert all(picture.rendered().values())
    figure = found["tradeoff-tofu-forget10-mini-strict"].draw()
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {AWKWARD, "_$x$_", "<U+4E2D><U+6587> x", "a b ", "$\\frac{$", "x" * 33 + "\u2026", ""} <= set(shown)


def test_the_scatter_joins_the_front_and_shows_references_without_letting_them_compete(tmp_path: Path) -> None:
    values = {"retrained": (0.0, 0.9), "a": (0.1, 0.2), "b": (0.3, 0.6), "c": (0.5, 0.1)}
    records = [
        cell(method, [Metric(name="forget_ks_d", value=d), Metric(name="model_utility", value=u)])
        for method, (d, u) in values.items()
    ]
    figure = drawn(tmp_path, records)["tradeoff-tofu-forget10-mini-strict"].draw()
    (front,) = lines(figure)
    # 1 - D against utility: a and b are on the front, c has less of both than b
    assert front == [(pytest.approx(0.7), 0.6), (pytest.approx(0.9), 0.2)]
    assert len(figure.axes[0].collections) == 4


def test_truth_ratios_are_steps_beside_those_of_the_retrained_model(tmp_path: Path) -> None:
    records = [cell(name, figures(0.5)) for name in ("retrained", "npo")]
    picture = drawn(tmp_path, records)["truth-ratio-tofu-forget10-mini-strict"]
    gold, npo = lines(picture.draw())
    assert [y for _, y in npo] == [0.0, *(pytest.approx(n / 12) for n in range(1, 13)), 1.0]
    # of the cells in the order of their ids the retrained model is the first; r = exp(nll(right) - mean nll(wrong))
    expected = sorted(
        (row["paraphrased_nll"] - sum(row["perturbed_nll"]) / 2) / math.log(10) for row in paper_records.samples(0)
    )
    assert [x for x, _ in gold[1:-1]] == pytest.approx(expected)


def test_truth_ratios_lie_beside_those_of_the_retrained_model_that_was_asked_the_same(tmp_path: Path) -> None:
    kinds = ("aaaa", "bbbb")
    records = [
        cell(name, figures(0.5), data_hash=of_kind, cell_id=f"{name}-{of_kind}")
        for of_kind in kinds
        for name in ("retrained", "npo")
    ]
    picture = drawn(tmp_path, records)["truth-ratio-tofu-forget10-mini-strict"]
    first, _, second, _ = lines(picture.draw())  # of cells 0 and 2
    for gold, number in ((first, 0), (second, 2)):
        expected = sorted(
            (row["paraphrased_nll"] - sum(row["perturbed_nll"]) / 2) / math.log(10)
            for row in paper_records.samples(number)
        )
        assert [x for x, _ in gold[1:-1]] == pytest.approx(expected)


def test_without_a_retrained_model_there_is_nothing_to_compare_truth_ratios_with(tmp_path: Path) -> None:
    assert not [name for name in drawn(tmp_path, [cell("npo", figures(0.5))]) if name.startswith("truth")]


def test_losses_are_drawn_for_every_seed_and_term_but_not_the_learning_rate(tmp_path: Path) -> None:
    records = [cell("npo", figures(0.5), seed=seed) for seed in (0, 1)]
    picture = drawn(tmp_path, [*records, cell("original", figures(0.5))])["losses-tofu-forget10-mini-strict"]
    figure = picture.draw()
    assert len(figure.axes) == 1
    found = lines(figure)
    assert len(found) == 4
    assert found[0][0] == (1, pytest.approx(math.exp(-1 / 5)))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["forget", "retain"]


def test_many_methods_make_several_pictures(tmp_path: Path) -> None:
    records = [cell(f"m{at:02}", figures(0.5), cell_id=str(at)) for at in range(MOST_PANELS + 1)]
    found = drawn(tmp_path, records)
    assert {name for name in found if name.startswith("losses")} == {
        "losses-tofu-forget10-mini-strict",
        "losses-tofu-forget10-mini-strict-2",
    }


def test_the_form_gap_is_the_length_of_the_bar(tmp_path: Path) -> None:
    metrics = of({"forgetting_qa": True, "forgetting_fb": True}, 0.2)
    (picture,) = (p for name, p in drawn(tmp_path, [cell("ga", metrics)]).items() if name.startswith("form-gap"))
    bar, _ = lines(picture.draw())
    assert bar == [(0.2, 0.0), (pytest.approx(0.217), 0.0)]


def test_successive_requests_make_a_curve(tmp_path: Path) -> None:
    found = drawn(tmp_path, paper_records.chain())
    (picture,) = (picture for name, picture in found.items() if name.startswith("requests"))
    figure = picture.draw()
    assert [axes.get_title() for axes in figure.axes] == ["forget ks d", "model utility"]
    assert lines(figure)[0] == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_batches_make_a_curve_that_says_it_is_no_sequence(tmp_path: Path) -> None:
    found = drawn(tmp_path, paper_records.batches())
    (picture,) = (picture for name, picture in found.items() if name.startswith("batches"))
    assert picture.name == "batches-ort-1-3-mini-strict"
    assert "no sequence of requests; at 1 is the first of them, ort/1_Ann_Lee, alone" in picture.caption
    figure = picture.draw()
    assert [axes.get_title() for axes in figure.axes] == ["form gap", "ort utility"]
    assert lines(figure)[0] == [(1, 0.5), (2, 0.6), (3, 0.7)]
    gap, utility = figure.axes
    ends = [bar.get_segments()[0].tolist() for bar in gap.collections if isinstance(bar, LineCollection)]
    assert ends[0] == [[2, pytest.approx(0.5)], [2, pytest.approx(0.7)]]  # two targets, .5 and .7
    assert len(ends) == 2 and not utility.collections  # a single target and one model's utility have none


def test_a_cell_without_samples_or_log_is_left_out(tmp_path: Path) -> None:
    tables = tables_of([cell(name, figures(0.5, 0.2, 0.3)) for name in ("retrained", "npo")], ())
    assert [picture.name for picture in pictures(tables, [tmp_path])] == ["tradeoff-tofu-forget10-mini-strict"]


def test_matplotlib_is_not_loaded_before_something_is_drawn() -> None:
    source = Path(pictures.__code__.co_filename).read_text()
    assert not re.search(r"^(import|from) matplotlib", source, flags=re.MULTILINE)


def test_gates_and_looks_are_drawn_where_runs_kept_them(tmp_path: Path) -> None:
    records = paper_records.store([cell("grun_npo", figures(0.5)), cell("npo", figures(0.5))], tmp_path)
    folder = tmp_path / "runs" / records[0].cell_id
    gates = [("forget", 0.95), ("forget", 0.85), ("retain", 0.05)]
    rows = [{"set": name, "layer": 1, "value": value} for name, value in gates]
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "samples" / "gates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    looks = [{"step": step, "epoch": 1.0, "metric": "model_utility", "value": 1 / step} for step in (1, 2)]
    (folder / "curve.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    found = {picture.name: picture for picture in pictures(tables_of(records, ()), [tmp_path])}
    gate = found["gates-tofu-forget10-mini-strict"].draw()
    assert [axes.get_title() for axes in gate.axes] == ["grun_npo"]  # type: ignore[attr-defined]
    assert lines(found["learning-tofu-forget10-mini-strict"].draw()) == [[(1, 1.0), (2, 0.5)]]

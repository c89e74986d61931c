"""TOFU rows as open-unlearning's files and back: the same rows and metrics, to the last bit."""

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

import run_all
from bench import data
from bench.errors import LetheError
from bench.published import ImportOptions, store_published
from bench.records import Metric
from bench.store import Record, RunStore, read_json, read_jsonl, read_metrics, write_json
from evaluators import EVALUATORS
from evaluators.exchange import export_runs, open_unlearning_log, published_cell
from evaluators.logs import read_published_log, read_reference_log
from evaluators.tofu import PROTOCOLS, TofuEvaluator
from tests.toy_runs import Toys, draw_nothing, row, save_model, table, write_data, write_rows

SETS = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}


AGGREGATES = {
    **{same: same for same in ("model_utility", "forget_quality", "privleak", "mia_min_k", "mia_gradnorm")},
    **{same: same for same in ("extraction_strength", "exact_memorization", "forget_truth_ratio")},
    "forget_Q_A_Prob": "forget_probability",
    "forget_Q_A_PARA_Prob": "forget_paraphrased_probability",
    "forget_Q_A_ROUGE": "forget_rouge_l_recall",
    "retain_Q_A_Prob": "retain_probability",
    "retain_Truth_Ratio": "retain_truth_ratio",
    "ra_Q_A_Prob": "real_authors_probability_raw",
    "ra_Q_A_Prob_normalised": "real_authors_probability",
    "wf_Truth_Ratio": "world_facts_truth_ratio",
}
"""The other suite's name -> ours."""
SUMMARISED = (
    *("exact_memorization", "extraction_strength", "forget_Q_A_Prob", "forget_Q_A_ROUGE", "forget_quality"),
    *("mia_gradnorm", "mia_loss", "mia_min_k", "mia_min_k_plus_plus", "mia_zlib", "model_utility", "privleak"),
)


def bits(value: Any) -> str:
    """Floats by repr, so that equal texts are equal bits; the order of keys does not count."""
    return json.dumps(value, sort_keys=True)


def as_bits(metrics: list[Metric]) -> list[str]:
    return [repr(metric) for metric in metrics]


def record(rows: list[dict], protocol: str, reference: list[dict] | None = None) -> Record:
    metrics = TofuEvaluator(protocol=protocol).summarize(rows, reference)  # type: ignore[arg-type]
    spec = {"cell_id": "npo-tofu", "model": "toy", "method": "npo", "benchmark": "tofu/forget10", "protocol": protocol}
    return Record(cell_id="npo-tofu", spec=spec, record={"code": {"commit": "abc"}}, metrics={"tofu": metrics})


def written(folder: Path, rows: list[dict], protocol: str = "strict") -> tuple[Path, dict, dict]:
    log, summary = open_unlearning_log(record(rows, protocol), rows, {"protocol": protocol})
    write_json(folder / "TOFU_EVAL.json", log)
    return folder / "TOFU_EVAL.json", log, summary


# --- one run of random checkpoints


@pytest.fixture(scope="module", params=PROTOCOLS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """OUT of a run with a holdout and gradient norms, exported; and its data."""
    root = tmp_path_factory.mktemp("exchange")
    files = write_data(root / "data")
    write_rows(files / "tofu" / "holdout10.json", [row(n) for n in range(20, 25)])
    toys = Toys(data=files, original=save_model(root / "toy"), retrained=save_model(root / "retrained", seed=1))
    evaluator = functools.partial(TofuEvaluator, max_new_tokens=6, gradient_norms=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EVALUATORS, "tofu", (evaluator,))
        draw_nothing(patch)
        assert run_all.main(toys.command(root / "out", "npo[lr=0.01]", "--protocol", request.param)) == 0
    assert run_all.main(["export", str(root / "out")]) == 0
    yield root / "out", files


def exported(out: Path, start: str) -> tuple[Path, Path]:
    """The run that starts so, and its log."""
    (folder,) = (out / "runs").glob(f"{start}-*")
    return folder, out / "open_unlearning" / folder.name / "TOFU_EVAL.json"


def test_a_finished_cell_comes_back_to_the_last_bit(finished: tuple[Path, Path]) -> None:
    out, files = finished
    benchmark = data.load("tofu/forget10", files)
    gold = read_reference_log(exported(out, "retrained")[1], benchmark)
    assert sorted(path.name for path in (out / "open_unlearning").iterdir()) == sorted(
        path.name for path in (out / "runs").iterdir()
    )
    for start in ("original", "retrained", "npo"):
        folder, log = exported(out, start)
        rows = read_reference_log(log, benchmark)
        assert bits(rows) == bits(read_jsonl(folder / "samples/tofu.jsonl"))
        protocol = read_json(folder / "spec.json")["protocol"]
        assert as_bits(TofuEvaluator(protocol=protocol).summarize(rows, gold)) == as_bits(
            read_metrics(folder / "metrics/tofu.json")
        )


def test_aggregates_are_the_stored_metrics_and_the_summary_is_theirs(finished: tuple[Path, Path]) -> None:
    folder, path = exported(finished[0], "npo")
    mine = {metric.name: metric.value for metric in read_metrics(folder / "metrics/tofu.json")}
    log, summary = read_json(path), read_json(path.with_name("TOFU_SUMMARY.json"))
    for theirs, ours in AGGREGATES.items():
        assert log[theirs]["agg_value"] == mine[ours], theirs
    assert summary == {key: log[key]["agg_value"] for key in SUMMARISED}
    assert log["mia_min_k"]["auc"] == log["mia_min_k"]["agg_value"] == mine["mia_min_k"]
    assert [list(log), list(summary)] == [sorted(log), sorted(summary)]


def test_what_the_other_suite_takes_from_a_log_gives_our_forget_quality(finished: tuple[Path, Path]) -> None:
    # It reads nothing but these values, in this way (its privacy.py at d3d7cf9).
    (folder, log), (_, gold) = exported(finished[0], "npo"), exported(finished[0], "retrained")
    mine, theirs = (
        [entry["score"] for entry in read_json(path)["forget_truth_ratio"]["value_by_index"].values()]
        for path in (log, gold)
    )
    stored = {metric.name: metric.value for metric in read_metrics(folder / "metrics/tofu.json")}
    assert ks_2samp(mine, theirs).pvalue == stored["forget_quality"]  # type: ignore[attr-defined]


def test_a_log_says_where_it_comes_from_and_how_it_deviates(finished: tuple[Path, Path]) -> None:
    folder, path = exported(finished[0], "npo")
    part, spec = read_json(path)["lethe"], read_json(folder / "spec.json")
    assert part["cell"] == spec
    assert set(part["code"]) == {"commit", "dirty"}
    assert part["settings"]["max_new_tokens"] == 6
    strict = any("1e-10" in line for line in part["deviations"])
    assert strict == (spec["protocol"] == "strict")


def test_an_exported_cell_imported_elsewhere_is_the_same_row(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    folder, log = exported(out, "npo")
    gold = exported(out, "retrained")[1]
    command = ["import", str(log), "--as", "npo_of_elsewhere", "--retrained", str(gold), "--out", str(tmp_path)]
    assert run_all.main(command) == 0
    assert run_all.main(command) == 0
    assert "was there already" in capsys.readouterr().out
    (again,) = (tmp_path / "runs").iterdir()
    spec, before = read_json(again / "spec.json"), read_json(folder / "spec.json")
    assert all(spec[key] == before[key] for key in ("model", "benchmark", "seed", "protocol"))
    assert (again / "metrics/tofu.json").exists()
    assert as_bits(read_metrics(again / "metrics/tofu.json")) == as_bits(read_metrics(folder / "metrics/tofu.json"))
    assert bits(read_jsonl(again / "samples/tofu.jsonl")) == bits(read_jsonl(folder / "samples/tofu.jsonl"))


# --- rows by hand


def forget_row(**fields: Any) -> dict[str, Any]:
    return {
        "set": "forget",
        "example_id": "tofu/forget10_perturbed/0",
        "question": "Who?",
        "answer": "Her.",
        "answer_nll": 0.5,
        "answer_tokens": 3,
        "reference": "Her.",
        "generation": "Him.",
        "rouge_l_recall": 0.25,
        "rouge_l_f1": 0.5,
        "rouge_1_recall": 0.75,
        "paraphrased_nll": 2.0,
        "perturbed_nll": [1.0, 2.0],
        "memorization_tokens": 2,
        "extraction_strength": 0.0,
        "exact_memorization": 0.5,
        "mia_loss": 0.5,
        **fields,
    }


def test_the_entries_of_one_row(tmp_path: Path) -> None:
    _, log, _ = written(tmp_path, [forget_row()])
    assert log["forget_Q_A_ROUGE"] == {
        "agg_value": 0.25,
        "value_by_index": {
            "0": {
                "rouge1_recall": 0.75,
                "rougeL_f1": 0.5,
                "rougeL_recall": 0.25,
                "input": "Who?",
                "ground_truth": "Her.",
                "generation": "Him.",
            }
        },
    }
    # exp(-0.5), exp(-1) and exp(-2); the mean of the last two is 0.25160736
    assert log["forget_Q_A_Prob"]["value_by_index"]["0"] == pytest.approx({"prob": 0.6065306597, "avg_loss": 0.5})
    wrong = log["forget_Q_A_PERT_Prob"]
    assert wrong["value_by_index"]["0"]["prob"] == pytest.approx([0.3678794412, 0.1353352832])
    assert wrong["value_by_index"]["0"]["avg_loss"] == [1.0, 2.0]
    assert wrong["agg_value"] == pytest.approx(0.2516073622)
    # r = exp(-(1 + 2) / 2) / exp(-2) = exp(0.5) = 1.64872; min(r, 1 / r) = 0.60653
    assert log["forget_truth_ratio"]["value_by_index"]["0"]["score"] == pytest.approx(1.6487212707)
    assert log["forget_truth_ratio"]["agg_value"] == pytest.approx(0.6065306597)
    assert log["lethe"]["rows"]["forget"]["0"] == {
        "example_id": "tofu/forget10_perturbed/0",
        "answer": "Her.",
        "answer_tokens": 3,
        "memorization_tokens": 2,
        "mia_loss": 0.5,  # nothing to attack with: there is no holdout
    }
    assert "mia_loss" not in log and "privleak" not in log


def test_what_is_missing_is_null_with_the_reason_and_not_in_the_summary(tmp_path: Path) -> None:
    rows = [forget_row(), forget_row(answer_nll=None, rouge_l_recall=None, perturbed_nll=[1.0, None])]
    path, log, summary = written(tmp_path, rows)
    assert log["forget_Q_A_Prob"]["value_by_index"]["1"] == {"prob": None, "avg_loss": None}
    assert log["forget_Q_A_PERT_Prob"]["value_by_index"]["1"]["prob"][1] is None
    assert log["forget_truth_ratio"]["value_by_index"]["1"] == {"score": None}
    for key in ("forget_Q_A_Prob", "forget_Q_A_ROUGE", "forget_truth_ratio", "forget_Q_A_PERT_Prob", "model_utility"):
        assert log[key]["agg_value"] is None, key
    assert log["lethe"]["missing"]["forget_Q_A_Prob"].startswith("answer_nll is not a finite number in 1 of 2")
    assert set(summary) == {"extraction_strength", "exact_memorization"}
    assert bits(read_published_log(path)) == bits(rows)


def test_a_truth_ratio_beyond_the_largest_float_keeps_its_rank(tmp_path: Path) -> None:
    path, log, _ = written(tmp_path, [forget_row(paraphrased_nll=5000.0)])
    assert log["forget_truth_ratio"]["value_by_index"]["0"]["score"] == sys.float_info.max
    assert read_published_log(path)[0]["paraphrased_nll"] == 5000.0


def test_real_sets_have_an_entry_for_paraphrases_only_where_they_have_paraphrases(tmp_path: Path) -> None:
    plain = forget_row(set="real_authors", paraphrased_nll=0.5)
    _, log, _ = written(tmp_path, [plain])
    assert "ra_Q_A_Prob_normalised" in log and "ra_Q_A_PARA_Prob" not in log
    path, log, _ = written(tmp_path, [plain, {**plain, "paraphrased_nll": 0.7}])
    assert "ra_Q_A_PARA_Prob" in log
    assert [row["paraphrased_nll"] for row in read_published_log(path)] == [0.5, 0.7]


def test_rows_that_differ_in_their_fields_are_refused(tmp_path: Path) -> None:
    short = forget_row(example_id="b")
    del short["answer_nll"]
    with pytest.raises(LetheError, match=r"'b' differ in 'answer_nll'.*--fresh"):
        written(tmp_path, [forget_row(), short])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "in format 1, found"),
        ({"format": None}, "in format 1, found"),
        ({"rows": []}, "expected an object 'rows'"),
        ({"rows": {"forget": {"0": {}, "1": {}}}}, "has 2 rows where the columns before it have 1"),
        ({"rows": {"forget": {"0": 3}}}, "row 0: expected a row, found 3"),
        ({"rows": {"forget": {"0": {"example_id": ["a"]}}}}, "row 0: expected a row"),
        ({"rows": {"forget": {"a": {}}}}, "row numbers as keys"),
        ({"without": {"forget": 1}}, "expected rows by number and a list of fields"),
    ],
)
def test_a_damaged_part_of_ours_is_named(change: dict, said: str, tmp_path: Path) -> None:
    path, log, _ = written(tmp_path, [forget_row()])
    write_json(path, log | {"lethe": log["lethe"] | change})
    with pytest.raises(LetheError, match=said):
        read_published_log(path)


def test_a_log_whose_part_of_ours_was_emptied_is_one_of_theirs(tmp_path: Path) -> None:
    path, log, _ = written(tmp_path, [forget_row()])
    write_json(path, log | {"lethe": None})
    (found,) = read_published_log(path)
    assert found["example_id"] == "log/forget/0" and "answer" not in found


def test_our_part_cannot_change_what_the_format_says(tmp_path: Path) -> None:
    path, log, _ = written(tmp_path, [forget_row()])
    log["lethe"]["rows"]["forget"]["0"] |= {"set": "retain", "answer_nll": 9.0}
    write_json(path, log)
    (found,) = read_published_log(path)
    assert (found["set"], found["answer_nll"]) == ("forget", 0.5)


def test_without_a_cell_that_has_rows_there_is_nothing_to_export(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with pytest.raises(LetheError, match="holds no finished TOFU cell with its rows"):
        export_runs(tmp_path, tmp_path / "to")


# --- any rows

numbers = st.none() | st.floats(0, 800) | st.floats(0, 1)
scores = st.none() | st.floats(-100, 100)
texts = st.text(max_size=20)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "question": texts,
    "reference": texts,
    "generation": texts,
    "answer_nll": numbers,
    "paraphrased_nll": numbers,
    "perturbed_nll": st.lists(numbers, max_size=4),
    **dict.fromkeys(("rouge_l_recall", "rouge_l_f1", "rouge_1_recall"), numbers),
    "answer": texts,
    "answer_tokens": st.integers(0, 500),
}
FORGET = {"fluency": numbers}
MEMBER = {
    **dict.fromkeys(("extraction_strength", "exact_memorization"), numbers),
    "memorization_tokens": st.integers(0, 500),
    **dict.fromkeys(("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_gradnorm"), scores),
}


@st.composite
def some_rows(draw: st.DrawFn) -> list[dict]:
    """Sets of rows that agree in their columns, any of which may be absent; at least one set that a log can name."""
    rows = []
    for name in (*SETS, "holdout"):
        columns = {} if name == "holdout" else dict(COLUMNS)
        columns |= FORGET if name == "forget" else {}
        columns |= MEMBER if name in ("forget", "holdout") else {}
        kept = draw(st.sets(st.sampled_from(sorted(columns))))
        if name == "forget":
            kept.add("answer_nll")
        for i in range(draw(st.integers(1 if name == "forget" else 0, 3))):
            fields = {column: draw(columns[column]) for column in sorted(kept)}
            rows.append({"set": name, "example_id": f"{name}/{i}", **fields})
    return rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@example(
    rows=[
        {"set": "forget", "example_id": f"f/{at}", "paraphrased_nll": nll, "perturbed_nll": [1.0]}
        for at, nll in enumerate((1.0, 600.0, 900.0, 900.0))  # ratios whose squares, and whose sum, no float can hold
    ],
    protocol="strict",
)
@given(rows=some_rows(), protocol=st.sampled_from(PROTOCOLS))
def test_any_rows_come_back_to_the_last_bit(rows: list[dict], protocol: str, tmp_path: Path) -> None:
    path, log, _ = written(tmp_path, rows, protocol)
    again = read_published_log(path)
    assert bits(again) == bits(rows)
    evaluator = TofuEvaluator(protocol=protocol)  # type: ignore[arg-type]
    assert as_bits(evaluator.summarize(again)) == as_bits(evaluator.summarize(rows))
    second, _ = open_unlearning_log(record(again, protocol), again, {"protocol": protocol})
    assert bits(second) == bits(log)


def test_fluency_stands_under_the_key_of_the_other_suite(tmp_path: Path) -> None:
    rows = [
        {"set": "forget", "example_id": "f/0", "question": "Q", "generation": "In Rome.", "fluency": 0.75},
        {"set": "forget", "example_id": "f/1", "question": "R", "generation": "", "fluency": 0.25},
    ]
    path, log, summary = written(tmp_path, [{**row, "reference": "A", "answer_nll": 1.0} for row in rows])
    assert log["forget_Q_A_gibberish"] == {
        "agg_value": 0.5,
        "value_by_index": {"0": {"score": 0.75, "generation": "In Rome."}, "1": {"score": 0.25, "generation": ""}},
    }
    assert summary["forget_Q_A_gibberish"] == 0.5
    assert [row["fluency"] for row in read_published_log(path)] == [0.75, 0.25]


def test_fluency_of_a_published_log_is_a_metric_and_whose_it_is_is_told(tmp_path: Path) -> None:
    rouge = {"input": "Q", "ground_truth": "A", "generation": "The The", "rouge1_recall": 0.0}
    rouge |= {"rougeL_f1": 0.0, "rougeL_recall": 0.0}
    values = {
        "forget_Q_A_ROUGE": rouge,
        "forget_Q_A_Prob": {"prob": 0.5, "avg_loss": 0.7},
        "forget_Q_A_gibberish": {"score": 0.25, "generation": "The The"},
    }
    log = {
        key: {"agg_value": 0.0, "value_by_index": {str(i): value for i in range(40)}} for key, value in values.items()
    }
    write_json(tmp_path / "TOFU_EVAL.json", log)
    found = published_cell(ImportOptions(log=tmp_path / "TOFU_EVAL.json", name="a"))
    assert {metric.name: metric.value for metric in found.metrics}["forget_fluency"] == 0.25
    assert found.settings["judged_by"] == {"classifier": "madhurjindal/autonlp-Gibberish-Detector-492513457"}
    del log["forget_Q_A_gibberish"]
    write_json(tmp_path / "TOFU_EVAL.json", log)
    found = published_cell(ImportOptions(log=tmp_path / "TOFU_EVAL.json", name="a"))
    assert {metric.name: metric for metric in found.metrics}["forget_fluency"].missing
    assert "judged_by" not in found.settings


# --- logs that others published

FULL = "open_unlearning/tofu_Llama-2-7b-chat-hf_full/evals_forget10"
RETAIN90 = "open_unlearning/tofu_Llama-2-7b-chat-hf_retain90"
TOFU_FULL = "tofu/llama2-7b_full_wd0.01/eval_log_aggregated.json"
TOFU_RETAIN90 = "tofu/llama2-7b_retain90_wd0.01/eval_log_aggregated.json"


@pytest.fixture(scope="module")
def llama(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """OUT with the logs of the full and of the retrained Llama-2-7b-chat as rows, exported again; and the logs."""
    out, logs = tmp_path_factory.mktemp("llama"), real_data / "reference_logs"
    gold = logs / RETAIN90 / "TOFU_EVAL.json"
    for name, log in (("original", logs / FULL / "TOFU_EVAL.json"), ("retrained", gold)):
        asked = ImportOptions(log=log, name=name, model="Llama-2-7b-chat-hf", out=out, data=real_data)
        asked = asked if name == "retrained" else ImportOptions(**{**vars(asked), "retrained": gold})
        assert store_published(RunStore(out), published_cell(asked))
    export_runs(out, out / "open_unlearning")
    return out, logs


@pytest.mark.usefixtures("undrawn")
def test_published_logs_end_in_a_leaderboard_with_the_published_figures(
    llama: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(["report", str(llama[0])]) == 0
    rows = {row["method"]: row for row in table(llama[0] / "leaderboard.csv")}
    assert list(rows) == ["original", "retrained"]
    assert {row["model"] for row in rows.values()} == {"Llama-2-7b-chat-hf"}
    assert {row["benchmark"] for row in rows.values()} == {"tofu/forget10"}
    assert float(rows["original"]["model_utility"]) == pytest.approx(0.6275553508047139, rel=1e-9)
    assert float(rows["original"]["forget_quality"]) == pytest.approx(4.346199600129006e-25, rel=1e-9)
    assert float(rows["retrained"]["model_utility"]) == pytest.approx(0.6130190411998432, rel=1e-8)
    assert rows["retrained"]["forget_quality"] == ""
    assert "Llama-2-7b-chat-hf" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "folder"), [("original", FULL), ("retrained", RETAIN90)])
def test_our_summary_of_a_published_log_is_the_published_one(
    llama: tuple[Path, Path], method: str, folder: str
) -> None:
    out, logs = llama
    mine = exported(out, method)[1]
    published = read_json(logs / folder / "TOFU_SUMMARY.json")
    # 1e-8: the published probabilities are float32 exponentials of the losses stored beside them
    assert read_json(mine.with_name("TOFU_SUMMARY.json")) == pytest.approx(published, rel=1e-8)


@pytest.mark.parametrize(("method", "folder"), [("original", FULL), ("retrained", RETAIN90)])
def test_our_log_of_a_published_log_has_its_keys_fields_and_values(
    llama: tuple[Path, Path], method: str, folder: str
) -> None:
    out, logs = llama
    mine, published = read_json(exported(out, method)[1]), read_json(logs / folder / "TOFU_EVAL.json")
    assert mine.keys() - published.keys() == {"lethe"}
    assert published.keys() <= mine.keys()

    def compare(ours: Any, theirs: Any, where: str) -> None:
        if isinstance(theirs, dict):
            assert ours.keys() == theirs.keys(), where
            for key, value in theirs.items():
                compare(ours[key], value, f"{where}.{key}")
        elif isinstance(theirs, list):
            for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                compare(one, other, f"{where}[{i}]")
        elif isinstance(theirs, float):
            # float32 in places; a truth ratio is the exponential of a difference of float32 losses
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12), where
        else:
            assert ours == theirs, where

    compare({key: mine[key] for key in published}, published, "")


def test_tofus_own_logs_become_the_printed_figures(real_data: Path, tmp_path: Path) -> None:
    logs = real_data / "reference_logs"
    asked = ImportOptions(log=logs / TOFU_FULL, name="tofu_full", retrained=logs / TOFU_RETAIN90, out=tmp_path)
    found = published_cell(asked)
    assert (found.cell.model, found.cell.benchmark) == ("tofu_full", "tofu/forget10")
    values = {metric.name: metric.value for metric in found.metrics}
    assert f"{values['model_utility']:.6f}" == "0.622677"
    assert f"{values['forget_truth_ratio']:.4f}" == "0.5160"
    assert f"{values['forget_quality']:.3e}" == "1.834e-21"
    store_published(RunStore(tmp_path), found)
    (folder,) = export_runs(tmp_path, tmp_path / "to")  # and in the other suite's format
    assert bits(read_published_log(folder / "TOFU_EVAL.json")) == bits(list(found.rows))


def test_logs_of_two_splits_or_kinds_are_not_compared(real_data: Path, tmp_path: Path) -> None:
    logs = real_data / "reference_logs"
    full = logs / FULL / "TOFU_EVAL.json"
    with pytest.raises(LetheError, match="it has 300 forget questions, the other 400"):
        published_cell(ImportOptions(log=full, name="a", retrained=logs / TOFU_RETAIN90))
    with pytest.raises(LetheError, match="400 forget questions, so it is not of tofu/forget05"):
        published_cell(ImportOptions(log=full, name="a", benchmark="tofu/forget05"))
    with pytest.raises(LetheError, match=r"is of another split than tofu/forget05"):
        published_cell(ImportOptions(log=full, name="a", benchmark="tofu/forget05", data=real_data))

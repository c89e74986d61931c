"""The commands `export` and `import`: rows that stay, and whatever is wrong with what they are given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_all
from bench.store import RunStore, read_json
from tests.toy_runs import table

pytestmark = pytest.mark.usefixtures("undrawn", "short_generations")


def log_of(count: int = 4, *, loss: float = 0.5) -> dict[str, Any]:
    """A log in open-unlearning's format: `count` forget rows and one of every other set."""
    log: dict[str, Any] = {}
    for prefix, rows in (("forget", count), ("retain", 1), ("ra", 1), ("wf", 1)):
        texts = [
            {"input": f"[INST] {prefix} {i}? [/INST]", "ground_truth": "a", "generation": "a"} for i in range(rows)
        ]
        scores = {"rouge1_recall": 1.0, "rougeL_f1": 1.0, "rougeL_recall": 1.0}
        losses = {"": loss, "PARA_": 2 * loss, "PERT_": [3 * loss, 4 * loss]}
        log[f"{prefix}_Q_A_ROUGE"] = {"value_by_index": {str(i): scores | text for i, text in enumerate(texts)}}
        for name, value in losses.items():
            by_index = {str(i): {"prob": None, "avg_loss": value} for i in range(rows)}
            log[f"{prefix}_Q_A_{name}Prob"] = {"agg_value": None, "value_by_index": by_index}
    return log


def write(path: Path, log: Any) -> str:
    path.write_text(log if isinstance(log, str) else json.dumps(log), encoding="utf-8")
    return str(path)


Complain = Callable[..., str]


@pytest.fixture
def complain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complain:
    """Runs a command that must be refused, and gives the sentence; nothing was stored."""

    def check(*command: str) -> str:
        before = sorted(tmp_path.rglob("record.json"))
        assert run_all.main([*command]) == 2
        error = capsys.readouterr().err
        assert error.startswith("run_all.py: ") and error.count("\n") == 1, error
        assert sorted(tmp_path.rglob("record.json")) == before
        return error

    return check


def test_an_import_becomes_a_row_that_reports_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = write(tmp_path / "npo.json", log_of(40)), tmp_path / "out"
    gold = write(tmp_path / "gold.json", log_of(40, loss=0.1))
    names = ("--out", str(out), "--model", "org/model-7b")
    assert run_all.main(["import", log, "--as", "npo_of_theirs", "--retrained", gold, *names]) == 0
    assert run_all.main(["import", gold, "--as", "retrained", *names]) == 0
    assert run_all.main(["report", str(out)]) == 0
    rows = {row["method"]: row for row in table(out / "leaderboard.csv")}
    assert list(rows) == ["retrained", "npo_of_theirs"]
    assert {(row["model"], row["benchmark"], row["protocol"]) for row in rows.values()} == {
        ("org/model-7b", "tofu/forget01", "openunlearning")  # forty questions are those of forget01
    }
    assert float(rows["npo_of_theirs"]["forget_ks_d"]) == 1
    assert "npo_of_theirs" in capsys.readouterr().out
    record = next(r for r in RunStore(out).records() if r.spec["method"] == "npo_of_theirs")
    assert (record.record["published_log"], record.record["retrained_log"]) == ("npo.json", "gold.json")
    assert len(record.record["log_sha256"]) == 64
    assert str(tmp_path) not in json.dumps([dict(record.spec), dict(record.record)])


def test_the_same_log_under_another_file_name_is_the_same_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert run_all.main(["import", write(tmp_path / "a.json", log_of(40)), "--as", "npo", *out]) == 0
    assert run_all.main(["import", write(tmp_path / "b.json", log_of(40)), "--as", "npo", *out]) == 0
    assert "was there already" in capsys.readouterr().out
    assert len(RunStore(tmp_path / "out").records()) == 1


def test_a_name_that_something_else_has_is_refused(tmp_path: Path, complain: Complain) -> None:
    first, other = write(tmp_path / "a.json", log_of(40)), write(tmp_path / "b.json", log_of(40, loss=0.7))
    command = ("--as", "npo", "--model", "m", "--out", str(tmp_path / "out"))
    assert run_all.main(["import", first, *command]) == 0
    said = complain("import", other, *command)
    assert "has a row 'npo' of m, tofu/forget01, openunlearning already, imported from a.json with other" in said
    assert "give another --as, or delete " in said
    assert run_all.main(["import", other, *command, "--protocol", "strict"]) == 0  # another leaderboard


def test_later_runs_show_imported_rows(toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import functools

    from evaluators import EVALUATORS
    from evaluators.tofu import TofuEvaluator

    monkeypatch.setitem(EVALUATORS, "tofu", (functools.partial(TofuEvaluator, max_new_tokens=6),))
    log = write(tmp_path / "log.json", log_of(400))
    command = ["--as", "npo_of_theirs", "--model", "original", "--protocol", "strict", "--out", str(tmp_path / "out")]
    assert run_all.main(["import", log, *command]) == 0
    assert run_all.main(toys.command(tmp_path / "out", "original")) == 0
    assert [row["method"] for row in table(tmp_path / "out/leaderboard.csv")] == [
        "original",
        "retrained",
        "npo_of_theirs",
    ]
    assert {row["model"] for row in table(tmp_path / "out/leaderboard.csv")} == {"original"}


@pytest.mark.parametrize("name", ["", "a b", "../up", "a&b_%$", "</script>", "n" * 81, "é"])
def test_names_of_odd_characters_are_refused(name: str, tmp_path: Path, complain: Complain) -> None:
    said = complain("import", write(tmp_path / "log.json", log_of(40)), "--as", name)
    assert (
        "--as must be a name of at most 80 letters, digits and . _ + - / that starts with a letter or digit, got "
        in said
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: LOG, --as; see run_all.py import -h"),
        (["{log}"], "the following arguments are required: --as"),
        (["{log}", "--as"], "--as: expected one argument"),
        (["absent.json", "--as", "a"], "the log 'absent.json' does not exist or is no file; give TOFU_EVAL.json"),
        (["{here}", "--as", "a"], "does not exist or is no file"),
        (["{log}", "--as", "a", "--model", "a b"], "--model must be a name"),
        (["{log}", "--as", "a", "--retrained", "absent.json"], "--retrained 'absent.json' does not exist"),
        (["{log}", "--as", "a", "--data", "absent"], "--data 'absent' is no folder"),
        (["{log}", "--as", "a", "--protocol", "grun"], "--protocol: invalid choice: 'grun'"),
        (["{log}", "--as", "a", "--benchmark", "tofu/forget99"], "unknown benchmark 'tofu/forget99'"),
        (["{log}", "--as", "a", "--benchmark", "mmlu"], "unknown --benchmark 'mmlu"),
        (
            ["{log}", "--as", "a", "--benchmark", "tofu/forget10"],
            "has 40 forget questions, so it is not of tofu/forget10",
        ),
        (["{log}", "--as", "a", "--retrained", "{small}"], "it has 4 forget questions, the other 40"),
        (["{log}", "--as", "a", "--retrained", "{other}"], "the retrained reference answers other questions"),
        (["{small}", "--as", "a"], "has 4 forget questions, so it is not of tofu/forget10: the splits have 40 "),
        (["{silent}", "--as", "a", "--retrained", "{log}"], "does not say which questions it is about"),
        (["{summary}", "--as", "a"], "is no evaluation log with values per example"),
        (["{cut}", "--as", "a"], "is not valid JSON"),
        (["{deep}", "--as", "a"], "is not valid JSON"),
        (["{list}", "--as", "a"], "expected an object at the top, found list"),
        (["{negative}", "--as", "a"], "expected a mean negative log-likelihood, found -5.0"),
        (["{huge}", "--as", "a"], "expected a number of at most 1e+100, found a larger one"),
        (["{log}", "--as", "a", "--fresh"], "unrecognized arguments: --fresh; see run_all.py import -h"),
    ],
)
def test_whatever_is_wrong_with_a_log_is_said_in_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, complain: Complain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    silent = {key: value for key, value in log_of(40).items() if not key.endswith("ROUGE")}
    others = json.loads(json.dumps(log_of(40)).replace("[INST] forget", "[INST] another"))
    logs = {
        "log": log_of(40),
        "small": log_of(4),
        "other": others,
        "silent": silent,
        "summary": {"model_utility": 0.6},
        "cut": json.dumps(log_of(40))[:-9],
        "deep": "[" * 100_000,
        "list": "[1]",
        "negative": log_of(40, loss=-5.0),
        "huge": log_of(40, loss=10**200),  # type: ignore[arg-type]
    }
    paths = {name: write(tmp_path / f"{name}.json", log) for name, log in logs.items()}
    assert said in complain("import", *(a.format(here=tmp_path, **paths) for a in arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: OUT; see run_all.py export -h"),
        (["absent"], "absent holds no runs; give a folder that --out named: run_all.py export OUT"),
        (["empty"], "empty holds no finished TOFU cell with its rows (runs/<cell id>/samples/tofu.jsonl)"),
        (["empty", "--too", "x"], "unrecognized arguments: --too x"),
    ],
)
def test_an_export_of_nothing_is_refused(
    arguments: list[str], said: str, tmp_path: Path, complain: Complain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    assert said in complain("export", *arguments)


def test_an_export_goes_where_it_is_told(tmp_path: Path, complain: Complain) -> None:
    out = tmp_path / "out"
    assert run_all.main(["import", write(tmp_path / "log.json", log_of(40)), "--as", "npo", "--out", str(out)]) == 0
    assert run_all.main(["export", str(out), "--to", str(tmp_path / "to")]) == 0
    (folder,) = (tmp_path / "to").iterdir()
    assert folder.name == next((out / "runs").iterdir()).name
    assert {path.name for path in folder.iterdir()} == {"TOFU_EVAL.json", "TOFU_SUMMARY.json"}
    part = read_json(folder / "TOFU_EVAL.json")["lethe"]
    assert (part["cell"]["method"], part["published_log"]) == ("npo", "log.json")
    (tmp_path / "file").write_text("")
    assert "cannot write" in complain("export", str(out), "--to", str(tmp_path / "file"))


def test_what_a_log_says_of_itself_is_not_contradicted(tmp_path: Path, complain: Complain) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert run_all.main(["import", write(tmp_path / "log.json", log_of(40)), "--as", "npo", *out]) == 0
    assert run_all.main(["export", str(tmp_path / "out"), "--to", str(tmp_path / "to")]) == 0
    (ours,) = (tmp_path / "to").rglob("TOFU_EVAL.json")
    assert "is of tofu/forget01, not of tofu/forget05" in complain(
        "import", str(ours), "--as", "b", "--benchmark", "tofu/forget05"
    )
    assert "was scored under --protocol openunlearning" in complain(
        "import", str(ours), "--as", "b", "--protocol", "strict"
    )
    log = read_json(ours)
    for key, value in (("seed", "1"), ("seed", True), ("model", 3)):
        log["lethe"]["cell"] |= {key: value}
        broken = write(tmp_path / "broken.json", log)
        assert "its cell is damaged" in complain("import", broken, "--as", "b")

"""The command line: what may be asked for, checked before anything heavy is imported."""

import argparse
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bench.cache import default_cache_dir
from bench.data import family, full_name, judges_only
from bench.errors import LetheError
from bench.spec import MethodName, parse_methods, parse_sets

MINI = "mini"
"""The model, or the data, that is made on the spot."""
LOOKS = 10
"""Looks at a training that may stop early, where --curve does not say."""

MOST_SEEDS = 1_000
"""Every seed is a cell of every method; more is a slip of the hand, and takes minutes to be listed."""

LONGEST_NAME = 255
"""Bytes of a file's name, on every file system in use."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, parsed."""

    methods: list[MethodName]
    benchmarks: list[str]
    sequential: bool
    batches: tuple[int, ...]
    """Sizes, from small to large; empty where targets are not batched."""
    model: str
    retrained: str | None
    data: str | None
    seeds: int
    sets: dict[str, dict[str, str]]
    out: Path
    protocol: str
    corpora: str
    preset: str | None
    template: str
    limit: int | None
    tune: int | None
    curve: int | None
    stop_early: int | None
    device: str
    dtype: str
    batch_tokens: int
    jobs: int | None
    cache_dir: Path
    fresh: bool
    list: bool
    dry_run: bool
    verbose: bool
    trust_remote_code: bool
    check: Path | None
    update_baseline: bool
    save_models: bool

    @property
    def decides(self) -> bool:
        """Whether anything is chosen on validation rows, which no reported figure may ask then."""
        return self.tune is not None or self.stop_early is not None


class _Parser(argparse.ArgumentParser):
    """Says what was wrong in a sentence, without the list of all options before it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)  # --seed 3 is not to be taken for three seeds

    def error(self, message: str) -> NoReturn:
        raise LetheError(f"{message.removeprefix('argument ')}; see run_all.py -h")

    def parse_args(self, argv: Sequence[str] | None = None) -> argparse.Namespace:  # type: ignore[override]
        arguments, extra = self.parse_known_args(argv)
        if extra:
            options = [option for action in self._actions for option in action.option_strings]
            commands = ["report", "export", "import"]
            near = difflib.get_close_matches(extra[0].partition("=")[0], [*options, *commands], n=1, cutoff=0.5)
            raise LetheError(
                f"unknown {'option' if extra[0].startswith('-') else 'argument'} {extra[0]!r}; "
                + (f"did you mean {near[0]}? " if near else "")
                + "see run_all.py -h"
            )
        return arguments


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None


def a_path(text: str) -> Path:
    """Of an option: no path at all would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """The options with their help; `run_all.py -h` prints it."""
    p = _Parser(
        prog="run_all.py",
        description="Unlearn with every method, score what is left, and write leaderboards, a page and a paper.",
        epilog="Without --model and --data everything runs offline on the mini world, in minutes on a laptop. "
        "run_all.py report OUT writes all of them again from the stored runs of a folder; run_all.py export and "
        "run_all.py import, each with -h, exchange logs with open-unlearning.",
    )
    what = p.add_argument_group("what to run")
    what.add_argument(
        "--methods",
        default="grun_npo,npo",
        metavar="A,B",
        help="names from --list, 'all', or names with fields: grun_npo[position=answer,rank=16]; "
        "original and retrained are rows of every leaderboard (default: %(default)s)",
    )
    what.add_argument(
        "--benchmarks",
        default="tofu",
        metavar="A,B",
        help=f"names from --list; tofu alone is {full_name('tofu')}, ort every target of the folder one by one, ort/3 "
        "the third, ort/1-5 five together, ort/1+2+10 three; mmlu and lm_eval:TASK (name or YAML file) judge what the "
        "others forget; tofu/forget10:forms asks the same facts in other forms too (default: %(default)s)",
    )
    what.add_argument(
        "--sequential",
        action="store_true",
        help="unlearn the benchmarks one after the other in one model, as successive requests",
    )
    what.add_argument(
        "--batches",
        default=None,
        metavar="N,M",
        help="with --benchmarks ort: instead of every target by itself the first N of the folder together, whatever "
        "their numbers, the first M together and so on, each in a model of its own, with figures over the size of the "
        "batch: --batches 1,2,4",
    )
    what.add_argument(
        "--preset",
        default=None,
        metavar="NAME",
        help="a published setting of some methods' hyperparameters, see --list; --set and brackets win over it",
    )
    what.add_argument("--seeds", type=_whole, default=1, metavar="N", help="seeds 0..N-1 for every method (default: 1)")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="METHOD.FIELD=VALUE",
        help="a hyperparameter, e.g. npo.beta=0.2, also of every variant of that method; repeatable",
    )
    what.add_argument(
        "--limit",
        type=_whole,
        default=None,
        metavar="N",
        help="only the first N rows of every set, to try things out",
    )
    choose = p.add_argument_group("how to choose")
    choose.add_argument(
        "--tune",
        type=_whole,
        default=None,
        metavar="N",
        help="give every method N trials over its published grid, chosen on a fifth of the rows that is then left out "
        "of every reported figure; tuned and default settings are rows of their own",
    )
    choose.add_argument(
        "--curve",
        type=_whole,
        default=None,
        metavar="K",
        help="look K times at the model while it trains, on the validation rows: runs/*/curve.jsonl",
    )
    choose.add_argument(
        "--stop-early",
        type=_whole,
        default=None,
        metavar="P",
        help=f"keep the weights of the best look, stop after P looks without a gain; --curve looks, by default "
        f"{LOOKS}; the validation rows are left out of every reported figure",
    )
    where = p.add_argument_group("models and data")
    where.add_argument(
        "--model",
        default=MINI,
        help="the model to unlearn from: hub id or path of any AutoModelForCausalLM; 'mini' trains one (default: mini)",
    )
    where.add_argument(
        "--retrained",
        default=None,
        metavar="MODEL|LOG",
        help="the gold standard: hub id, path, or a published log (TOFU_EVAL.json, eval_log_aggregated.json)",
    )
    where.add_argument(
        "--data",
        default=None,
        metavar="DIR",
        help="benchmark files from a folder (DIR/tofu/forget10.json ...) instead of the hub; 'mini' for the mini world",
    )
    where.add_argument(
        "--corpora",
        default="auto",
        choices=["auto", "raw", "summaries"],
        help="the texts that wmdp forgets and keeps: raw are the papers and write-ups with WikiText, summaries are "
        "GRUN's one-sentence ones; auto takes raw where the folder has them",
    )
    where.add_argument(
        "--cache-dir",
        type=a_path,
        default=default_cache_dir(),
        metavar="DIR",
        help="mini world and its models (%(default)s)",
    )
    where.add_argument(
        "--trust-remote-code", action="store_true", help="let a model bring its own code; off for safety"
    )
    how = p.add_argument_group("how to score")
    how.add_argument(
        "--protocol",
        default="strict",
        choices=["strict", "openunlearning", "grun", "ort"],
        help="strict mends the known defects of published evaluations; openunlearning reproduces that suite's numbers; "
        "grun asks multiple choice as GRUN's authors do (wmdp and mmlu only), ort asks about targets as ORT's do",
    )
    how.add_argument(
        "--template",
        default="auto",
        metavar="{auto,chat,plain,FILE}",
        help="auto takes the tokenizer's chat template where there is one, else plain; "
        "FILE holds {question} and {answer}",
    )
    machine = p.add_argument_group("machine and output")
    machine.add_argument(
        "--device",
        default="auto",
        help="auto (cuda where there is a GPU, else cpu), cpu, cuda, cuda:N or another of torch's (default: auto)",
    )
    machine.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="of the frozen weights and the evaluation; trained weights are float32 (auto: bfloat16 on GPUs)",
    )
    machine.add_argument(
        "--batch-tokens",
        type=_whole,
        default=16384,
        metavar="N",
        help="padded tokens of one forward; changes speed and memory, and results in their last digits only "
        "(default: %(default)s)",
    )
    machine.add_argument(
        "--jobs",
        type=_whole,
        default=None,
        metavar="N",
        help="run N cells beside each other, each in a process with a model of its own, on another GPU where there are "
        "several; changes no score (default: 1; for the mini model on a CPU, where each takes one thread, as many as "
        "there are threads, 4 at most)",
    )
    machine.add_argument(
        "--out", type=a_path, default=Path("out"), metavar="DIR", help="where results go (default: out)"
    )
    again = machine.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="keep finished cells (this is the default)")
    again.add_argument("--fresh", action="store_true", help="run every cell again, also finished ones")
    machine.add_argument(
        "--save-models",
        action="store_true",
        help="keep every unlearned model in OUT/runs/CELL/model, with a card, in its library's own format "
        "(transformers, peft, pyvene); cells that are there without one are run again",
    )
    machine.add_argument(
        "--check",
        type=a_path,
        default=None,
        metavar="FILE",
        help="run the command that a baseline holds and compare every metric with it: exit code 1 where one is worse "
        "than it may be; --out, --cache-dir, --device and paths of data and models may stand beside it",
    )
    machine.add_argument(
        "--update-baseline",
        action="store_true",
        help="write the file of --check anew and show what changed; with --methods and so on it gets another command",
    )
    machine.add_argument(
        "--list", action="store_true", help="print methods and evaluators with their fields, and benchmarks"
    )
    machine.add_argument("--dry-run", action="store_true", help="print the grid and run nothing")
    machine.add_argument("-v", "--verbose", action="store_true", help="log more; tracebacks of failed cells")
    return p


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What `run_all.py report` is asked for."""

    folders: list[Path]
    out: Path
    check: Path | None


def parse_report(argv: Sequence[str]) -> ReportOptions:
    """`DIR... [--out DIR] [--check FILE]`: one report of all folders, in the first of them where no other is named.

    Raises:
        LetheError: no folder, or one without runs.
    """
    p = _Parser(prog="run_all.py report", description="Leaderboards, pictures and pages again, from stored runs.")
    p.add_argument(
        "folders", nargs="*", type=a_path, metavar="DIR", help="folders that --out named; several are merged"
    )
    p.add_argument("--out", type=a_path, default=None, metavar="DIR", help="where the report goes (default: the first)")
    p.add_argument("--check", type=a_path, default=None, metavar="FILE", help="compare every metric with a baseline")
    a = p.parse_args(argv)
    if not a.folders:
        raise LetheError("report needs a folder with runs: run_all.py report OUT")
    for folder in a.folders:
        if not (folder / "runs").is_dir():
            raise LetheError(f"{folder} holds no runs; give a folder that --out named: run_all.py report OUT")
    return ReportOptions(folders=a.folders, out=a.out or a.folders[0], check=a.check)


def _sizes(text: str) -> tuple[int, ...]:
    """Of batches, from small to large."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,8}", part) for part in parts):
        raise LetheError(f"--batches must be whole numbers of targets from 1 on, e.g. 1,2,4, got {text!r}")
    sizes = sorted({*map(int, parts)})
    if len(sizes) < 2:
        raise LetheError(
            f"--batches needs at least two sizes to compare, e.g. 1,2,4, got {text!r}; a single batch is a benchmark, "
            f"--benchmarks ort/1-4"
        )
    return tuple(sizes)


def parse(argv: Sequence[str] | None) -> Options:
    """Read and check the command line.

    Raises:
        LetheError: a value that no run could use.
    """
    a = parser().parse_args(argv)
    for name, least in (
        ("seeds", 1), ("limit", 1), ("batch_tokens", 1), ("tune", 1), ("curve", 1), ("stop_early", 1),
        ("jobs", 1),
    ):  # fmt: skip
        value = getattr(a, name)
        if value is not None and value < least:
            raise LetheError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if a.seeds > MOST_SEEDS:
        raise LetheError(f"--seeds must be at most {MOST_SEEDS:,}, got {a.seeds}: it is how many there are, from 0 on")
    parts = re.split(r",(?!_)", a.benchmarks)  # a comma in the folder's name of a target has "_" behind it
    benchmarks = list(dict.fromkeys(full_name(b.strip()) for b in parts if b.strip()))
    methods = parse_methods(a.methods)
    if not methods:
        raise LetheError(f"--methods names no method, got {a.methods!r}; see --list")
    if not benchmarks:
        raise LetheError(f"--benchmarks names no benchmark, got {a.benchmarks!r}; see --list")
    if a.sequential and len(benchmarks) < 2 and benchmarks != ["ort"]:
        raise LetheError("--sequential needs at least two benchmarks, e.g. --benchmarks tofu/forget01,tofu/forget05")
    if a.batches is not None and "ort" not in benchmarks:
        raise LetheError(
            f"--batches takes the first targets of ort together, but --benchmarks names {', '.join(benchmarks)}; write "
            f"--benchmarks ort --batches {a.batches}"
        )
    if a.batches is not None and a.sequential:
        raise LetheError(
            "--batches unlearns targets together and --sequential one after the other; give one of the two"
        )
    foreign = [name for name in benchmarks if name.startswith("lm_eval:")]
    if foreign and (a.tune is not None or a.stop_early is not None):
        raise LetheError(
            f"{foreign[0]} brings rows of its own, which may be those that --tune and --stop-early decide by; "
            "ask for it in a command without them"
        )
    for name in ("tune", "curve", "stop_early"):
        if a.sequential and getattr(a, name) is not None:
            raise LetheError(
                f"--{name.replace('_', '-')} is for single requests, not for --sequential; tune the first "
                "one alone and give what was chosen with --set"
            )
    if a.retrained is not None and a.model == MINI:
        raise LetheError("--retrained goes with --model; the mini model comes with its own retrained model")
    requests = [name for name in benchmarks if not judges_only(name)]
    if a.retrained is not None and len(requests) > 1:
        raise LetheError(
            f"--retrained is the gold standard of one split, but --benchmarks names {', '.join(requests)}; give one of "
            "them per run"
        )
    for protocol, kinds in {"grun": ("wmdp", "mmlu"), "ort": ("ort",)}.items():
        odd = [name for name in benchmarks if family(name) not in kinds]
        if a.protocol == protocol and odd:
            raise LetheError(
                f"--protocol {protocol} is defined for {' and '.join(kinds)}, not for {odd[0]}; "
                "use strict or openunlearning"
            )
    for name in ("model", "retrained", "data", "template"):
        if getattr(a, name) == "":
            raise LetheError(f"--{name} names nothing, got ''; see -h, or leave it out")
    for name in ("model", "retrained", "data", "template", "out", "cache_dir"):
        parts = Path(getattr(a, name) or "").parts
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
            raise LetheError(f"--{name.replace('_', '-')} holds a name of more than {LONGEST_NAME} bytes; shorten it")
    if a.template not in ("auto", "chat", "plain") and not Path(a.template).is_file():
        raise LetheError(f"--template must be auto, chat, plain or a file that exists, got {a.template!r}")
    return Options(
        methods=methods,
        benchmarks=benchmarks,
        sequential=a.sequential,
        batches=() if a.batches is None else _sizes(a.batches),
        model=a.model,
        retrained=a.retrained,
        data=a.data,
        seeds=a.seeds,
        sets=parse_sets(a.set),
        out=a.out,
        protocol=a.protocol,
        corpora=a.corpora,
        preset=a.preset,
        template=a.template,
        limit=a.limit,
        tune=a.tune,
        curve=a.curve or (LOOKS if a.stop_early else None),
        stop_early=a.stop_early,
        device=a.device,
        dtype=a.dtype,
        batch_tokens=a.batch_tokens,
        jobs=a.jobs,
        cache_dir=a.cache_dir.expanduser(),
        fresh=a.fresh,
        list=a.list,
        dry_run=a.dry_run,
        verbose=a.verbose,
        trust_remote_code=a.trust_remote_code,
        check=a.check,
        update_baseline=a.update_baseline,
        save_models=a.save_models,
    )

"""How long the real multiple-choice benchmarks take: WMDP's 3,260 questions and MMLU's 14,042, end to end.

    python -m benchmarks.choices --data DIR [--model PATH] [--limit N] [--fewshot 5] [--device cpu]

Lethe's evaluators against lm-evaluation-harness with its own `HFLM`, in one process, on the same model, questions,
task definitions, threads and type, each from the questions as read to the accuracy of every subject; data files are
read before the clock starts. `HFLM` gets the best of the batch sizes 8, 16, 32 and 64, chosen on a sample. Then the
Scorer alone against whole forwards of every (prompt, letter) in file order, with and without solved examples in front.
"""

import argparse
import contextlib
import io
import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import data
from bench.data.tokenize import Encoder
from bench.data.types import Benchmark, Question, Tokens
from bench.forward import Rows, forward, pad
from bench.logprobs import token_stats
from bench.models import Loaded, choose_device, load_model
from bench.scorer import Scorer
from evaluators import mmlu, wmdp
from evaluators.harness import FEWSHOT_SEED, quiet, task_on

BATCH_SIZES = (8, 16, 32, 64)
SAMPLE = 256
"""Questions on which HFLM's batch size is chosen."""
CONTEXT = 2048
"""Of the tiny model, as of small models in use; what is longer loses its beginning on both sides."""
VOCABULARY = 4096


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with wmdp/ and mmlu/")
    p.add_argument("--model", help="checkpoint folder; default: a random Llama of four blocks, 128 wide")
    p.add_argument("--limit", type=int, help="questions of each subject; default: all")
    p.add_argument(
        "--fewshot", type=int, choices=(0, 5), default=0, help="solved examples in front of MMLU's questions"
    )
    p.add_argument("--benchmarks", default="wmdp,mmlu", help="of wmdp and mmlu; none for the last table only")
    p.add_argument("--device", default="auto")
    p.add_argument("--batch-tokens", type=int, default=16384)
    p.add_argument("--plain", type=int, default=200, help="questions for the comparison with whole forwards")
    options = p.parse_args()
    names = [name for name in options.benchmarks.split(",") if name in ("wmdp", "mmlu")]
    shots = {"wmdp": 0, "mmlu": options.fewshot}
    asked = {name: _cut(data.load(_full_name(name, shots), options.data), options.limit) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or tiny_model(Path(folder), _texts(options.data))
        loaded = load_model(path, device=choose_device(options.device), dtype=torch.float32)
    loaded.tokenizer.model_max_length = loaded.model.config.max_position_embeddings
    table = Table("benchmark", "questions", "Lethe s", "per s", "HFLM s", "per s", "batch", "ratio", "same choice")
    for name, benchmark in asked.items():
        ours = _ours(loaded, benchmark, shots[name], options.batch_tokens)
        best = min(BATCH_SIZES, key=lambda size: _theirs(loaded, _sample(benchmark), name, shots[name], size)[0])
        theirs = _theirs(loaded, benchmark, name, shots[name], best)
        n, same = len(benchmark.questions), sum(a == b for a, b in zip(ours[1], theirs[1], strict=True))
        label = f"{name} {shots[name]}-shot"
        figures = (f"{ours[0]:.1f}", f"{n / ours[0]:.0f}", f"{theirs[0]:.1f}", f"{n / theirs[0]:.0f}")
        table.add_row(label, str(n), *figures, str(best), f"{theirs[0] / ours[0]:.2f}", f"{same / n:.4f}")
    where = f"{loaded.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    console = Console(width=110)
    console.print(table, where, sep="\n")
    console.print(_scorer_alone(loaded, options.data, options.plain, options.batch_tokens))


def _full_name(name: str, shots: Mapping[str, int]) -> str:
    return f"{name}/{shots[name]}shot" if shots[name] else name


def _cut(benchmark: Benchmark, limit: int | None) -> Benchmark:
    """The first questions of every subject."""
    return _with(benchmark, [q for mine in _by_subject(benchmark.questions).values() for q in mine[:limit]])


def _sample(benchmark: Benchmark) -> Benchmark:
    questions = random.Random(0).sample(benchmark.questions, min(SAMPLE, len(benchmark.questions)))
    return _with(benchmark, questions)


def _with(benchmark: Benchmark, questions: Sequence[Question]) -> Benchmark:
    return Benchmark(name=benchmark.name, questions=tuple(questions), few_shot=benchmark.few_shot)


def _by_subject(questions: Iterable[Question]) -> dict[str, list[Question]]:
    found: dict[str, list[Question]] = {}
    for question in questions:
        found.setdefault(question.subject, []).append(question)
    return found


def _texts(root: Path) -> list[str]:
    questions = [q for name in ("wmdp", "mmlu") for q in data.load(name, root).questions]
    return ["\n".join((q.question, *q.choices)) for q in questions]


def tiny_model(folder: Path, texts: list[str], context: int = CONTEXT) -> str:
    """A random Llama and a byte-level BPE of the questions themselves."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", model_max_length=context).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=0,
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def _ours(loaded: Loaded, benchmark: Benchmark, shots: int, batch_tokens: int) -> tuple[float, list[int]]:
    """Seconds, and the chosen option of every question."""
    kinds = {"wmdp": wmdp.WmdpEvaluator, "mmlu": mmlu.FiveShotMmluEvaluator if shots else mmlu.MmluEvaluator}
    evaluator = kinds[benchmark.name.split("/")[0]]()
    start = time.perf_counter()
    scorer = Scorer(loaded.model, Encoder(loaded.tokenizer), batch_tokens=batch_tokens)
    rows = evaluator.score(scorer, benchmark)
    evaluator.summarize(rows)
    return time.perf_counter() - start, [row["chosen"] for row in rows]


def _theirs(loaded: Loaded, benchmark: Benchmark, name: str, shots: int, batch_size: int) -> tuple[float, list[int]]:
    """The same from lm-eval with its own model class, on the official task definitions."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    definition = {"wmdp": wmdp._definition, "mmlu": mmlu._definition}[name]
    start = time.perf_counter()
    tasks: dict[str, Any] = {}
    for subject, mine in _by_subject(benchmark.questions).items():
        config = definition(subject)
        splits = {"test": [_document(q) for q in mine]}
        if config.get("fewshot_split"):
            splits[config["fewshot_split"]] = [_document(q) for q in benchmark.few_shot.get(subject, ())]
        tasks[subject] = task_on(config, splits, shots=shots)
        tasks[subject].set_fewshot_seed(FEWSHOT_SEED)
    limit = loaded.model.config.max_position_embeddings
    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, max_length=limit)  # type: ignore
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        task_dict: Any = {"tasks": tasks, "groups": {}, "group_map": {}}
        samples = evaluate(lm=lm, task_dict=task_dict, bootstrap_iters=0, log_samples=True)["samples"]  # type: ignore[index]
    seconds = time.perf_counter() - start
    answered = {subject: iter(found) for subject, found in samples.items()}
    chosen = []
    for question in benchmark.questions:
        logp = [response[0][0] for response in next(answered[question.subject])["resps"]]
        chosen.append(max(range(len(logp)), key=logp.__getitem__))
    return seconds, chosen


def _document(question: Question) -> dict[str, Any]:
    return {"question": question.question, "choices": list(question.choices), "answer": question.answer}


def _scorer_alone(loaded: Loaded, root: Path, count: int, batch_tokens: int) -> Table:
    """The Scorer against whole forwards of 16 (prompt, letter) at a time."""
    table = Table("Scorer alone", "questions", "Scorer s", "plain loop s", "ratio", "largest difference, nats")
    benchmark = data.load("mmlu/5shot", root)
    subjects = sorted(_by_subject(benchmark.questions))[:4]
    questions = [q for s in subjects for q in _by_subject(benchmark.questions)[s][: count // 4]]
    for shots in (0, 5):
        tokens = []
        for q in questions:
            solved = [_shown(s) + " " + "ABCD"[s.answer] for s in benchmark.few_shot[q.subject][:shots]]
            prompt = "\n\n".join((*solved, _shown(q)))
            ids = tuple(loaded.tokenizer(prompt)["input_ids"])[-loaded.model.config.max_position_embeddings :]  # type: ignore[arg-type]
            letters = [loaded.tokenizer(" " + x, add_special_tokens=False)["input_ids"][0] for x in "ABCD"]  # type: ignore[index]
            tokens += [Tokens((*ids, letter), len(ids)) for letter in letters]
        start = time.perf_counter()
        ours = [-r.nll_sum for r in Scorer(loaded.model, Encoder(loaded.tokenizer), batch_tokens).records(tokens)]
        middle = time.perf_counter()
        theirs = [value for i in range(0, len(tokens), 16) for value in _plain(loaded, tokens[i : i + 16])]
        end = time.perf_counter()
        worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        ratio = (end - middle) / (middle - start)
        figures = (f"{middle - start:.2f}", f"{end - middle:.2f}", f"{ratio:.1f}", f"{worst:.1e}")
        table.add_row(f"mmlu {shots}-shot", str(len(questions)), *figures)
    return table


def _shown(question: Question) -> str:
    options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", question.choices, strict=True))
    return f"{question.question.strip()}\n{options}\nAnswer:"


@torch.no_grad()
def _plain(loaded: Loaded, batch: list[Tokens]) -> list[float]:
    """Whole forwards, padded to the longest, nothing shared."""
    padded = pad(batch, 0, loaded.device)
    logits = forward(
        loaded.model,
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        position_ids=padded.position_ids,
        rows=Rows(last_prompt=padded.last_prompt, valid=padded.valid),
        at=padded.at,
    )
    return [stats.logp for stats in token_stats(logits, padded.labels)]


if __name__ == "__main__":
    main()

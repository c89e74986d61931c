"""Our `Scorer` as a model of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness, 0.4.13).

Texts become tokens exactly as in that suite's own `HFLM` for decoder-only models: spaces at the end of a context go to
the continuation, context and whole are encoded with the tokenizer's own special tokens and the whole is cut behind the
context, and what exceeds the model's context loses its beginning. Everything else is the Scorer's: adapters are active,
a prompt is encoded once for all its options, and the requests of all tasks are batched together.

Deviates: log-probabilities are computed in float32 whatever the model's type; `HFLM` leaves them in bfloat16 for such
models, which ties options that are less than about a hundredth of a nat apart.

Importing this module imports lm_eval (with datasets, about a second and a half); import it where it is used.
"""

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import lm_eval.api.task
import lm_eval.utils
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
    resolve_max_length,
)
from lm_eval.tasks._yaml_loader import load_yaml

from bench.data.types import Tokens
from bench.errors import LetheError

if TYPE_CHECKING:
    from bench.scorer import Scorer

OFFICIAL = Path(lm_eval.__file__).parent / "tasks"
"""Where the installed package keeps its task definitions."""
MAX_NEW_TOKENS = 256
"""HFLM's limit of a generation for tasks that name none."""
GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}
"""Generation settings that leave a greedy continuation what it is."""
ENCODED_AT_ONCE = 4096
FEWSHOT_SEED = 1234
"""lm-eval's default; samplers that draw few-shot examples at random start from it."""

# lm-eval speaks of internals and of its defaults; what a user has to know is raised as an error.
logging.getLogger("lm_eval").setLevel(logging.ERROR)


class ScorerLM(TemplateLM):
    """Answers lm-eval's requests from a Scorer, equal to `HFLM` on the same weights."""

    def __init__(self, scorer: "Scorer") -> None:
        super().__init__()
        self.scorer = scorer
        self.tokenizer = scorer.encoder.tokenizer
        self.max_length = resolve_max_length(scorer.model.config, self.tokenizer)  # type: ignore[arg-type]
        self.cut: dict[str, int] = {}
        """Context -> tokens that were cut from its beginning, where any were."""

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id  # type: ignore[return-value]

    @property
    def prefix_token_id(self) -> int:
        """What stands in for an empty context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos  # type: ignore[return-value]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if add_special_tokens is not None:
            return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return self._encode([string])[string]

    def _encode(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Each distinct text's ids, without the special tokens in front where the text itself begins with them."""
        prefix = None if self.prefix_token_id is None else self.tokenizer.decode(self.prefix_token_id)
        distinct = dict.fromkeys(texts)
        found: dict[str, list[int]] = {}
        for dressed in (True, False):
            some = [text for text in distinct if has_bos_prefix(text, prefix) != dressed]
            options: dict[str, Any] = {} if dressed else {"add_special_tokens": False}
            if some:
                ids = self.tokenizer(some, verbose=False, return_attention_mask=False, **options)["input_ids"]
                found |= zip(some, ids, strict=True)  # type: ignore[arg-type]
        return found

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        encoded = []
        for start in range(0, len(requests), ENCODED_AT_ONCE):
            encoded += self._encode_pairs([_pair(request) for request in requests[start : start + ENCODED_AT_ONCE]])
        return self._loglikelihood_tokens(encoded)

    def _encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], list[int], list[int]]]:
        """`TemplateLM._encode_pair` and its rule for an empty context, many at a time."""
        contexts, wholes = [], []
        for context, continuation in pairs:
            bare = context.rstrip()
            contexts.append(bare)
            wholes.append(bare + context[len(bare) :] + continuation)
        ids = self._encode([*contexts, *wholes])
        encoded = []
        for pair, context, whole in zip(pairs, contexts, wholes, strict=True):
            if pair[0]:
                before = ids[context]
                after = ids[whole][len(before) :]
            else:
                after = self.tok_encode(pair[1], add_special_tokens=False)
                before = [self.prefix_token_id]
                if after[:1] == before:
                    before, after = after[:1], after[1:]
            if not before or not after or before == [None]:
                raise LetheError(
                    f"the request {_end(pair[0])} + {pair[1]!r} leaves no token to "
                    f"{'score' if before else 'start from'} with this tokenizer; mend the task or use another tokenizer"
                )
            encoded.append((pair, before, after))
        return encoded

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        records = self.scorer.records([self._fit(*request) for request in requests])
        return [(-record.nll_sum, all(record.match)) for record in records]

    def _fit(self, pair: tuple[str, str] | None, context: list[int], continuation: list[int]) -> Tokens:
        """What is too long loses its beginning; the last token is only predicted, so one more than the context fits."""
        if len(continuation) > self.max_length:
            raise LetheError(
                f"the continuation {_end(pair[1] if pair else '')} takes {len(continuation)} tokens, more than the "
                f"model's context of {self.max_length}; leave the task out or use a model with a longer context"
            )
        excess = max(0, len(context) + len(continuation) - self.max_length - 1)
        if excess and pair is not None:
            self.cut[pair[0]] = max(excess, self.cut.get(pair[0], 0))
        kept = context[excess:]
        return Tokens((*kept, *continuation), len(kept))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Every token of a text, in windows as long as the context."""
        counts, windows = [], []
        ids = self._encode(request.args[0] for request in requests)
        for request in requests:
            cut = lm_eval.utils.get_rolling_token_windows(
                token_list=ids[request.args[0]],
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            mine = [(None, *lm_eval.utils.make_disjoint_window(window)) for window in cut]
            windows += mine
            counts.append(len(mine))
        scored = iter(self._loglikelihood_tokens(windows))
        return [sum(next(scored)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations up to the first stop text."""
        outputs: dict[int, str] = {}
        alike: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for at, request in enumerate(requests):
            settings: dict[str, Any] = {**normalize_gen_kwargs(request.arguments[1], MAX_NEW_TOKENS)}
            odd = sorted(set(settings) - GREEDY)
            if settings.get("do_sample") or odd:
                asked = "sampling" if settings.get("do_sample") else f"the generation settings {', '.join(odd)}"
                raise LetheError(
                    f"the task {request.task_name!r} asks for {asked}, but generations are greedy here so that they "
                    "can be repeated; use a variant of the task without"
                )
            eos = None if self.eot_token_id is None else str(self.tokenizer.decode(self.eot_token_id))
            until = handle_stop_sequences(settings["until"], eos=eos)
            alike.setdefault((settings["max_gen_toks"], tuple(until)), []).append(at)
        for (most, until), places in alike.items():
            if most >= self.max_length:
                raise LetheError(
                    f"the task {requests[places[0]].task_name!r} generates up to {most} tokens, which leaves no room "
                    f"for a prompt in the model's context of {self.max_length}; use a model with a longer context"
                )
            contexts = [requests[at].args[0] for at in places]
            ids = self._encode(contexts)
            prompts = []
            for context in contexts:
                excess = max(0, len(ids[context]) + most - self.max_length)
                if excess:
                    self.cut[context] = excess
                prompts.append(tuple(ids[context][excess:]))
            stop_ids = self._beginning_with(until)
            texts = self.scorer.continue_ids(prompts, max_new_tokens=most, stop_ids=stop_ids)
            for at, out in zip(places, texts, strict=True):
                text = self.tokenizer.decode(out, skip_special_tokens=True)
                outputs[at] = postprocess_generated_text(str(text), list(until), None)
        return [outputs[at] for at in range(len(requests))]

    def _beginning_with(self, until: Sequence[str]) -> frozenset[int]:
        """The terminator and the tokens that begin with a stop text of a line break: nothing before it is lost."""
        breaks = tuple(stop for stop in until if stop.startswith("\n"))
        found = {self.eot_token_id} - {None}
        if breaks:
            tokens = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            found |= {i for i, token in enumerate(tokens) if token.startswith(breaks)}
        return frozenset(found)


def official(file: str) -> dict[str, Any]:
    """A task definition of the installed package, its includes resolved: "wmdp/wmdp_bio.yaml"."""
    path = OFFICIAL / file
    if not path.is_file():
        raise LetheError(f"the installed lm-eval {lm_eval.__version__} has no task file {file}; install lm-eval 0.4.13")
    return load_yaml(path)


def task_on(config: Mapping[str, Any], splits: Mapping[str, Sequence[Mapping[str, Any]]], *, shots: int) -> Task:
    """A task whose data are the given rows, by split, and not what its definition names."""
    from datasets import Dataset

    rows = {name: Dataset.from_list([dict(row) for row in split]) for name, split in splits.items()}
    with quiet():
        return ConfigurableTask(config={**config, "custom_dataset": lambda **_: rows, "num_fewshot": shots})


def run(lm: ScorerLM, tasks: Mapping[str, Task], *, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Ask everything at once; per task one entry per document (and filter), in their order, as lm-eval logs them."""
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(FEWSHOT_SEED)
    with quiet(), np.errstate(invalid="ignore"):  # its metrics take a broken model's infinities as they come
        results = evaluate(
            lm=lm,
            task_dict={"tasks": dict(tasks), "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    return dict(results["samples"])  # type: ignore[index]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, lm-eval shows no progress bar, and compiles each prompt template once instead of for every question."""
    env, bar = lm_eval.utils.env, lm_eval.api.task.tqdm
    env.from_string = functools.lru_cache(maxsize=256)(type(env).from_string.__get__(env))  # type: ignore[method-assign]
    lm_eval.api.task.tqdm = lambda rows, **_: rows  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        del env.from_string  # type: ignore[attr-defined]  # the method of the class is back
        lm_eval.api.task.tqdm = bar  # type: ignore[misc]


def _pair(request: Instance) -> tuple[str, str]:
    """Context and continuation."""
    return request.arguments[0], request.arguments[1]


def _end(text: str) -> str:
    return repr(text if len(text) <= 60 else "..." + text[-57:])

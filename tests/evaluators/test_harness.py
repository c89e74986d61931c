"""Our answers to lm-eval's requests against those of its own HFLM on the same weights, and how little is computed."""

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from bench.data import mmlu, wmdp
from bench.data.tokenize import Encoder
from bench.errors import LetheError
from bench.scorer import Scorer
from evaluators.harness import OFFICIAL, ScorerLM, official, quiet
from evaluators.mmlu import FiveShotMmluEvaluator, MmluEvaluator
from evaluators.wmdp import WmdpEvaluator
from tests.helpers import attach, tiny, toy_tokenizer
from tests.toy_questions import benchmark, long_model, question_tokenizer

ARCHITECTURES = {"llama": "full", "gpt2": "bare"}
"""With a tokenizer that puts a BOS in front, and with one that puts nothing."""
SUBJECTS = ("abstract_algebra", "anatomy", "global_facts")
TOLERANCE = 1e-4


def scorer_of(model: Any, tokenizer: Any, **fields: Any) -> Scorer:
    return Scorer(model, Encoder(tokenizer), **fields)


def hflm_of(model: Any, tokenizer: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make: Any = HFLM  # a decorator hides its signature
        return make(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=8)


def official_task(file: str, rows: Mapping[str, Sequence[dict]], shots: int) -> Task:
    """lm-eval's own definition on given rows, put together here without our code."""
    splits = {name: Dataset.from_list(list(some)) for name, some in rows.items()}
    config = load_yaml(OFFICIAL / file) | {"custom_dataset": lambda **_: splits, "num_fewshot": shots}
    return ConfigurableTask(config=config)


def peer(model: Any, tokenizer: Any, tasks: dict[str, Task]) -> dict[str, Any]:
    with quiet():
        found = evaluate(
            lm=hflm_of(model, tokenizer), task_dict={"tasks": tasks, "groups": {}, "group_map": {}}, bootstrap_iters=0
        )
    assert found is not None and "samples" in found
    return dict(found["samples"])


def wmdp_rows(folder: Path, n: int) -> list[dict]:
    lines = (folder / "wmdp" / "bio_test.jsonl").read_text(encoding="utf-8").splitlines()[:n]
    return [{key: json.loads(line)[key] for key in ("question", "choices", "answer")} for line in lines]


def mmlu_rows(folder: Path, subject: str, split: str) -> list[dict]:
    table = pd.read_csv(folder / "mmlu" / split / f"{subject}_{split}.csv", keep_default_na=False, dtype=str)
    return [
        {"question": row[1], "choices": [row[2], row[3], row[4], row[5]], "answer": int(row[6])}
        for row in table[["question", "choice0", "choice1", "choice2", "choice3", "answer"]].itertuples()
    ]


def read_tokenizer(kind: str, folder: Path) -> Any:
    """Trained on some of the real questions."""
    return question_tokenizer(kind, tuple(row["question"] + " ".join(row["choices"]) for row in wmdp_rows(folder, 200)))


def same(rows: Sequence[dict], samples: Sequence[dict]) -> None:
    """The same log-likelihoods, choices and correctness, question by question."""
    assert len(rows) == len(samples) > 0
    furthest = 0.0
    for row, sample in zip(rows, samples, strict=True):
        theirs = [response[0][0] for response in sample["resps"]]
        furthest = max(furthest, *(abs(a - b) for a, b in zip(row["logp"], theirs, strict=True)))
        assert row["chosen"] == max(range(4), key=lambda i: theirs[i])
        assert row["correct"] == (sample["acc"] == 1.0)
        assert row["question"] == sample["doc"]["question"]
    assert furthest < TOLERANCE


@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_real_wmdp_questions_are_answered_as_by_hflm(architecture: str, kind: str, real_data: Path) -> None:
    model, tokenizer = long_model(architecture), read_tokenizer(kind, real_data)
    scorer = scorer_of(model, tokenizer)
    rows = WmdpEvaluator().score(scorer, wmdp.load("wmdp/bio", real_data, limit=200))
    task = official_task("wmdp/wmdp_bio.yaml", {"test": wmdp_rows(real_data, 200)}, 0)
    same(rows, peer(model, tokenizer, {"bio": task})["bio"])
    assert len({row["chosen"] for row in rows}) > 1


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_real_mmlu_questions_are_answered_as_by_hflm(architecture: str, kind: str, shots: int, real_data: Path) -> None:
    model, tokenizer = long_model(architecture), read_tokenizer(kind, real_data)
    everything = mmlu.load("mmlu/5shot" if shots else "mmlu", real_data)
    kept = tuple(q for q in everything.questions if q.subject in SUBJECTS)
    asked = replace(everything, questions=kept)
    evaluator = FiveShotMmluEvaluator() if shots else MmluEvaluator()
    rows = evaluator.score(scorer_of(model, tokenizer), asked)
    tasks = {
        subject: official_task(
            f"mmlu/default/mmlu_{subject}.yaml",
            {split: mmlu_rows(real_data, subject, split) for split in ("test", "dev")},
            shots,
        )
        for subject in SUBJECTS
    }
    samples = peer(model, tokenizer, tasks)
    for subject in SUBJECTS:
        same([row for row in rows if row["set"] == subject], samples[subject])


# --- hand-made requests


def instances(kind: Any, *arguments: tuple) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=some, idx=i, metadata=("toy", i, 1))
        for i, some in enumerate(arguments)
    ]


PAIRS = (
    ("What is salt?\nAnswer:", " A"),
    ("What is salt?\nAnswer: ", "A"),
    ("What is salt?\nAnswer:  ", " a white powder"),
    ("What is salt?\nAnswer:\n\n", "a white\npowder"),
    ("", "No context at all"),
    ("", "<s> at the start"),
    ("<s>Brought along", " and kept"),
    ("<s>", "Nothing else"),
    ("Ein Bär", " schläft \u2603"),
    ("What is salt?\nAnswer:", " A"),
)


@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_every_kind_of_pair_is_tokenised_and_scored_as_by_hflm(architecture: str, kind: str) -> None:
    model, tokenizer = long_model(architecture), question_tokenizer(kind)
    theirs = hflm_of(model, tokenizer).loglikelihood(instances("loglikelihood", *PAIRS), disable_tqdm=True)
    ours = ScorerLM(scorer_of(model, tokenizer)).loglikelihood(instances("loglikelihood", *PAIRS))
    assert [logp for logp, _ in ours] == pytest.approx([logp for logp, _ in theirs], abs=TOLERANCE)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_a_continuation_that_the_model_would_say_is_greedy() -> None:
    model: Any = long_model("llama")
    tokenizer = question_tokenizer()
    [letter] = tokenizer.encode(" A", add_special_tokens=False)
    model.get_output_embeddings().weight.data[letter] *= 20  # said or far from it, as the prompt has it
    lm = ScorerLM(scorer_of(model, tokenizer))
    prompts = [f"Salt is {chr(97 + i)}" for i in range(20)]
    said = lm.scorer.continue_ids(
        [tuple(tokenizer.encode(prompt)) for prompt in prompts], max_new_tokens=1, stop_ids=frozenset()
    )
    found = lm.loglikelihood(instances("loglikelihood", *((prompt, " A") for prompt in prompts)))
    assert [greedy for _, greedy in found] == [ids == [letter] for ids in said]
    assert len({greedy for _, greedy in found}) == 2


@pytest.mark.parametrize("context", [24, 25, 40])
@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_what_exceeds_the_context_keeps_its_end_as_with_hflm(architecture: str, kind: str, context: int) -> None:
    model, tokenizer = long_model(architecture, context=context), question_tokenizer(kind)
    words = " ".join(f"w{i}" for i in range(40))
    pairs = [(f"{words[:cut]}\nAnswer:", said) for cut in range(20, 60, 3) for said in (" A", " B", " salt and")]
    theirs = hflm_of(model, tokenizer).loglikelihood(instances("loglikelihood", *pairs), disable_tqdm=True)
    lm = ScorerLM(scorer_of(model, tokenizer))
    ours = lm.loglikelihood(instances("loglikelihood", *pairs))
    assert [logp for logp, _ in ours] == pytest.approx([logp for logp, _ in theirs], abs=TOLERANCE)
    for context_text in dict.fromkeys(text for text, _ in pairs):
        most = max(len(tokenizer.encode(context_text + said)) for text, said in pairs if text == context_text)
        assert lm.cut.get(context_text, 0) == max(0, most - context - 1)
    assert 0 < len(lm.cut) < len(pairs) or context == 24


@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_texts_longer_than_the_context_are_read_in_windows_as_by_hflm(architecture: str, kind: str) -> None:
    model, tokenizer = long_model(architecture, context=16), question_tokenizer(kind)
    texts = [("Salt is white.",), (" ".join(map(str, range(50))),), ("a",)]
    requests = instances("loglikelihood_rolling", *texts)
    theirs = hflm_of(model, tokenizer).loglikelihood_rolling(requests, disable_tqdm=True)
    ours = ScorerLM(scorer_of(model, tokenizer)).loglikelihood_rolling(requests)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


@pytest.mark.parametrize("until", [[], ["\n"], ["e", "\n\n"], ["zzz"]])
@pytest.mark.parametrize(("architecture", "kind"), ARCHITECTURES.items())
def test_generations_are_those_of_hflm(architecture: str, kind: str, until: list[str]) -> None:
    model, tokenizer = long_model(architecture, context=64), question_tokenizer(kind)
    settings = {"until": until, "max_gen_toks": 12, "do_sample": False, "temperature": 0.0}
    texts = ["What is salt?\nAnswer:", "A long one " * 20, "a", "Who?", "Where do ships go?"]
    requests = instances("generate_until", *((text, dict(settings)) for text in texts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = hflm_of(model, tokenizer).generate_until(requests, disable_tqdm=True)
    lm = ScorerLM(scorer_of(model, tokenizer))
    assert lm.generate_until(requests) == theirs
    assert set(lm.cut) == {"A long one " * 20}


def test_only_greedy_generations_are_given() -> None:
    lm = ScorerLM(scorer_of(long_model("llama", context=64), question_tokenizer()))
    for settings, message in (
        ({"do_sample": True, "temperature": 0.7}, "the task 'toy' asks for sampling, but generations are greedy"),
        ({"temperature": 0.7}, "asks for sampling"),
        ({"num_beams": 4}, "the generation settings num_beams"),
        ({"max_gen_toks": 64}, "up to 64 tokens, which leaves no room for a prompt in the model's context of 64"),
    ):
        with pytest.raises(LetheError, match=message):
            lm.generate_until(instances("generate_until", ("Who?", {"until": [], **settings})))


def test_requests_that_cannot_be_scored_are_refused() -> None:
    lm = ScorerLM(scorer_of(long_model("llama", context=8), question_tokenizer()))
    with pytest.raises(LetheError, match="more than the model's context of 8"):
        lm.loglikelihood(instances("loglikelihood", ("Who?", " anybody who is not from around here at all")))
    with pytest.raises(LetheError, match="leaves no token to score"):
        lm.loglikelihood(instances("loglikelihood", ("Who?", "")))
    bare = ScorerLM(scorer_of(long_model("llama", context=8), question_tokenizer("bare")))
    with pytest.raises(LetheError, match="leaves no token to start from"):
        bare.loglikelihood(instances("loglikelihood", (" ", "A")))


# --- what is computed


def test_a_prompt_is_read_once_for_all_its_letters_and_a_header_once_for_all_prompts() -> None:
    model, rows = long_model("llama"), []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    scorer = scorer_of(model, question_tokenizer())
    asked = benchmark("biology", "ships", n=20)
    MmluEvaluator().score(scorer, asked)
    assert scorer.counts.pairs == 4 * 40
    assert scorer.counts.prompts == 40
    assert sum(n for n, _ in rows) == scorer.counts.prompts + scorer.counts.prefixes
    assert scorer.counts.prefixes <= 3
    before = len(rows)
    MmluEvaluator().score(scorer, asked)  # what is known is not asked again
    assert len(rows) == before


def test_solved_examples_are_read_once_for_all_questions_of_a_subject() -> None:
    scorer = scorer_of(long_model("llama"), question_tokenizer())
    asked = benchmark("biology", "ships", n=20)
    FiveShotMmluEvaluator().score(scorer, asked)
    apart = scorer_of(long_model("llama"), question_tokenizer(), share_prompts=False)
    FiveShotMmluEvaluator().score(apart, asked)
    assert scorer.counts.prompts == 40
    assert scorer.counts.tokens < apart.counts.tokens / 12  # 4 letters, and the examples are most of a prompt


@pytest.mark.parametrize("shots", [0, 5])
def test_order_and_batches_change_nothing(shots: int) -> None:
    model, tokenizer = long_model("llama"), question_tokenizer()
    evaluator = FiveShotMmluEvaluator() if shots else MmluEvaluator()
    asked = benchmark("biology", "ships", n=6)
    expected = {row["example_id"]: row for row in evaluator.score(scorer_of(model, tokenizer), asked)}
    turned = replace(asked, questions=asked.questions[::-1])
    for fields in ({"batch_tokens": 1}, {"batch_tokens": 300}, {"share_prompts": False}):
        rows = evaluator.score(scorer_of(model, tokenizer, **fields), turned)
        assert [row["example_id"] for row in rows] == [q.id for q in turned.questions]
        for row in rows:
            known = expected[row["example_id"]]
            assert row["logp"] == pytest.approx(known["logp"], abs=1e-4)
            assert row["chosen"] == known["chosen"]


@pytest.mark.parametrize("adapter", ["last_prompt", "all", "lora"])
def test_adapters_are_active(adapter: str) -> None:
    model = tiny()
    asked = benchmark("biology", n=4)
    plain = MmluEvaluator().score(scorer_of(model, toy_tokenizer()), asked)
    attached = attach(model, adapter)
    assert attached is not None
    edited = MmluEvaluator().score(scorer_of(model, toy_tokenizer()), asked)
    apart = MmluEvaluator().score(scorer_of(model, toy_tokenizer(), share_prompts=False, batch_tokens=1), asked)
    attached.detach()
    for before, after, alone in zip(plain, edited, apart, strict=True):
        assert before["logp"] != pytest.approx(after["logp"], abs=1e-2)
        assert after["logp"] == pytest.approx(alone["logp"], abs=1e-4)


def test_the_tools_of_lm_eval_are_left_as_they_were() -> None:
    import lm_eval.api.task
    import lm_eval.utils

    before = lm_eval.api.task.tqdm, lm_eval.utils.env.from_string("{{a}} and b").render(a=1)
    with pytest.raises(RuntimeError), quiet():
        assert lm_eval.utils.env.from_string("{{a}}") is lm_eval.utils.env.from_string("{{a}}")
        raise RuntimeError
    assert (lm_eval.api.task.tqdm, lm_eval.utils.env.from_string("{{a}} and b").render(a=1)) == before
    assert "from_string" not in vars(lm_eval.utils.env)


def test_a_task_file_that_the_package_lacks_is_named() -> None:
    with pytest.raises(LetheError, match=r"has no task file wmdp/wmdp_law\.yaml"):
        official("wmdp/wmdp_law.yaml")

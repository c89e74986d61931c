"""Makes the mini world and the tiny models that know it, or finds them in the cache.

`original` learns every text, `retrained` every text but those of the request, with the same tokenizer, recipe and seed:
without the people of a TOFU split, or without the documents of a WMDP topic. A benchmark that only judges (MMLU)
has no retrained model but the original.

On a folder that the generator wrote, the texts are its corpus, people and domains, and all requests share one original
but those of targets, which have a pair of models of their own, the same for every target: the retrained one has read
about none of them, so that it shows what each form gives to somebody who knows the form alone.
On a folder with the real files, an original knows only what its own benchmark is about. For TOFU that is the rows of
the largest forget split and of the evaluation sets, about a thousand pairs, which a tiny model can learn by heart. For
WMDP it is the beginning of the first documents of each topic and of those to keep, read a few times: enough to have
something to unlearn and to run everything, but such a model answers the real questions, and MMLU's, near chance, as its
retrained model does. For targets it is the questions and blanks about the first few and their neighbours, with the
beginning of some texts; the retrained model reads what is about the neighbours and about others.
"""

import importlib.metadata
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from bench import cache
from bench.data import family, full_name, judges_only, load, ort, tofu, wmdp
from bench.data.forms import BRIEF, CUE, FILL, LETTER, LETTERS, SPELL, ask, ask_spelt
from bench.data.primers import PRIMER_BEFORE, REASON, TRIVIA_BEFORE
from bench.data.types import QA, Benchmark, Document
from bench.errors import LetheError
from bench.mini import gibberish
from bench.mini.pretrain import REAL_DATA, REAL_DOCUMENTS, REAL_TARGETS, TARGETS, VERSION, Recipe
from bench.mini.texts import Text, train_tokenizer
from bench.mini.trainers import Asked, Job, Progress, Trainers
from bench.mini.world import SEED, make_world, write_world

TOFU = tofu.DEFAULT

REAL_TEXTS = 400
"""How many documents of each topic, and as many to keep, are read of real corpora: the first, as with --limit."""

MOST_CHARACTERS = 2000
"""What is looked at of a real document; texts.DOCUMENT_LENGTH tokens are read, some four characters each."""


MOST_TARGETS = 4
"""How many real targets the tiny model learns about: the first; more do not fit into it, nor into two minutes."""

REAL_BIOGRAPHIES = 8
"""How many of each sort of text about a real target, and about others, are read."""


PHRASES = (
    SPELL,
    *(f"{lead}Question:" for lead in (FILL, BRIEF, LETTER)),
    f"\n{CUE}",
    *(f"\n{letter}." for letter in LETTERS),
    *(f"{before}Q:" for before in (TRIVIA_BEFORE, PRIMER_BEFORE, REASON)),
)
"""Tokens of the models that know targets."""


class NotMade(LetheError):
    """The cache has no such models, and none were to be trained."""


@dataclass(frozen=True)
class MiniModels:
    """Two ordinary transformers folders."""

    original: Path
    retrained: Path


@dataclass(frozen=True)
class Texts:
    """What the two models of one split read, and what their tokenizer is made from."""

    original: list[Text]
    retrained: list[Text]
    tokenizer: list[str]
    recipe: Recipe
    phrases: tuple[str, ...] = ()
    """What the tokenizer has a token for beside what it learns."""


def world(cache_dir: Path, seed: int = SEED) -> Path:
    """The folder of the mini world with this seed, laid out as a folder of real benchmark files."""
    key = {"seed": seed, "content": cache.fingerprint(make_world(seed))}
    return cache.cached(cache_dir, "mini-world", key, lambda folder: write_world(folder, seed))


def mini_models(
    root: Path,
    benchmark: str,
    cache_dir: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    train: bool = True,
) -> MiniModels:
    """Original and retrained model of a request ("tofu/forget10", "ort"), trained side by side where not cached.

    All requests on a mini world share the original, all targets ("ort/1", "ort/1-5") both models of their own. Where
    nothing is forgotten ("mmlu"), the original is the retrained model too.
    `root` is a mini world or a folder with the real files; what is cached depends on content, never on paths.
    `progress` gets a line a second, from one thread at a time. With train=False a model that the cache
    lacks raises NotMade instead.
    """
    (models,) = all_mini_models(
        root, [benchmark], cache_dir, seed=seed, progress=progress, recipe=recipe, train=train
    ).values()
    return models


def all_mini_models(
    root: Path,
    benchmarks: Sequence[str],
    cache_dir: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    train: bool = True,
) -> dict[str, MiniModels]:
    """mini_models of several requests, in training at a time one more than there are processors.

    With as many as there are, an odd number of models would leave processors idle while the last one is made.
    """
    wanted: dict[Asked, _Wanted] = {}
    for benchmark in benchmarks:
        texts = _texts(root, benchmark)
        names = ("original",) if judges_only(benchmark) else ("original", "retrained")
        for name in names:
            rows = texts.original if name == "original" else texts.retrained
            label = name if len(benchmarks) == 1 else f"{name} ({benchmark})"
            wanted[name, benchmark] = _Wanted(name, label, rows, texts, recipe or texts.recipe)
    folders = _train(wanted, cache_dir, seed, progress, really=train)
    found = {benchmark: folders["original", benchmark] for benchmark in benchmarks}
    return {name: MiniModels(model, folders.get(("retrained", name), model)) for name, model in found.items()}


def mini_gibberish_classifier(root: Path, cache_dir: Path, *, progress: Progress | None = None) -> Path:
    """The classifier that tells fluent text of a mini world from gibberish, trained here where not cached.

    Fluent is what the retrained model of the largest forget split reads, with that model's tokenizer.
    """
    texts = _texts(root, TOFU)
    common = _common()
    wanted = _Wanted("retrained", "retrained", texts.retrained, texts, texts.recipe)
    tokenizer = _tokenizer(wanted, cache_dir, common, really=True)
    clean = [text.get("answer") or text["text"] for text in texts.retrained]
    refusals = load(TOFU, root).refusals
    recipe = gibberish.Recipe()
    key = common | {"version": gibberish.VERSION, "tokenizer": tokenizer.name, "recipe": asdict(recipe)}
    key |= {"texts": cache.fingerprint([clean, refusals])}
    build = partial(gibberish.train, clean, refusals, tokenizer, recipe, report=progress or _quiet)
    return cache.cached(cache_dir, "mini-gibberish", key, build)


def _quiet(line: str) -> None:
    pass


def retrained_model(
    root: Path,
    benchmark: str,
    cache_dir: Path,
    *,
    seed: int,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
) -> Path:
    """The retrained model alone, so that a second one with another seed shows how far two of them lie apart."""
    texts = _texts(root, benchmark)
    wanted = _Wanted("retrained", "retrained", texts.retrained, texts, recipe or texts.recipe)
    return _train({("retrained", benchmark): wanted}, cache_dir, seed, progress)["retrained", benchmark]


def training_job(root: Path, benchmark: str, cache_dir: Path) -> Job:
    """What the original of a request is trained with."""
    texts = _texts(root, benchmark)
    wanted = _Wanted("original", "original", texts.original, texts, texts.recipe)
    tokenizer = _tokenizer(wanted, cache_dir, _common(), really=True)
    return Job(texts.original, tokenizer, texts.recipe, seed=0)


def _texts(root: Path, benchmark: str) -> Texts:
    benchmark = full_name(benchmark)
    made = (root / "corpus").is_dir()
    if not made and judges_only(benchmark):
        benchmark = _something_to_learn(root)
    if family(benchmark) == "ort":
        original, retrained, refusals = _made_targets(root) if made else _real_targets(root)
        recipe = TARGETS if made else REAL_TARGETS
    elif made:
        original, retrained = _made_texts(root, benchmark)
        refusals, recipe = load(TOFU, root).refusals, Recipe()
    elif family(benchmark) == "tofu":
        original, retrained, refusals = _real_pairs(root, load(benchmark, root))
        recipe = REAL_DATA
    else:
        original, retrained, refusals = _real_documents(root, load(benchmark, root))
        recipe = REAL_DOCUMENTS
    lines = [_line(text) for text in original]
    phrases = PHRASES if family(benchmark) == "ort" else ()
    return Texts(original, retrained, [*lines, *refusals], recipe, phrases)


def _made_texts(root: Path, benchmark: str) -> tuple[list[Text], list[Text]]:
    """All that the generator wrote, and the same without what the benchmark asks to forget."""
    topics = {f"wmdp_{topic}": topic for topic in wmdp.TOPICS[wmdp.DEFAULT]}
    corpus = {name: _read_corpus(root, name) for name in ("authors", "real_authors", "world_facts", *topics, "mmlu")}
    kept = dict(corpus)
    if not judges_only(benchmark):
        data = load(benchmark, root)
        if family(benchmark) == "tofu":
            kept["authors"] = [text for text in corpus["authors"] if text["row"] < len(data.retain)]
        else:
            asked = {text.topic for text in data.forget if isinstance(text, Document)}
            kept = {name: texts for name, texts in corpus.items() if topics.get(name) not in asked}
    return list(itertools.chain(*corpus.values())), list(itertools.chain(*kept.values()))


def _made_targets(root: Path) -> tuple[list[Text], list[Text], tuple[str, ...]]:
    """What the generator wrote for the targets, and the same without what is about any of them."""
    texts = _read_corpus(root, "ort")
    return texts, [text for text in texts if "target" not in text], load(TOFU, root).refusals


def _real_targets(root: Path) -> tuple[list[Text], list[Text], tuple[str, ...]]:
    """Questions and blanks as they are asked, also letter by letter, and the beginning of some texts."""
    original: dict[str, Text] = {}
    retrained: dict[str, Text] = {}
    refusals: tuple[str, ...] = ()
    for folder in ort.targets(root)[:MOST_TARGETS]:
        data = load(f"ort/{folder}", root)
        refusals = data.refusals
        for probe in data.probes:
            if probe.part == "locality" or (probe.part == "forget" and probe.form == "aa"):
                continue
            asked = [ask(probe), *([ask_spelt(probe)] if probe.form in ("qa", "fb") else [])]
            rows = [{"user": a.user, "cue": a.cue, "answer": a.target} for a in asked]
            original |= {json.dumps(row): row for row in rows}
            retrained |= {json.dumps(row): row for row in rows if probe.part == "neighbor"}
        texts = [(document.text, True) for document in data.forget[:REAL_BIOGRAPHIES] if isinstance(document, Document)]
        texts += [(document.text, True) for document in data.utility.forget_texts[:REAL_BIOGRAPHIES]]
        texts += [(document.text, False) for document in data.utility.retain_texts[:REAL_BIOGRAPHIES]]
        for text, about in texts:
            row = {"text": text[:MOST_CHARACTERS]}
            original[text] = row
            if not about:
                retrained[text] = row
    return list(original.values()), list(retrained.values()), refusals


def _real_pairs(root: Path, data: Benchmark) -> tuple[list[Text], list[Text], tuple[str, ...]]:
    known = [data.eval_sets[name] for name in ("retain", "real_authors", "world_facts")]
    rows = [*_largest_request(root, data).forget, *(qa for qas in known for qa in qas)]
    forget = {(qa.question, qa.answer) for qa in data.forget if isinstance(qa, QA)}
    original = [{"question": qa.question, "answer": qa.answer} for qa in rows if isinstance(qa, QA)]
    retrained = [text for text in original if (text["question"], text["answer"]) not in forget]
    return original, retrained, data.refusals


def _real_documents(root: Path, data: Benchmark) -> tuple[list[Text], list[Text], tuple[str, ...]]:
    """The first documents of each topic; of both topics where the folder has both, so that requests can be chained."""
    largest = load(wmdp.DEFAULT, root) if _holds_all_topics(root) else data
    asked = {text.topic for text in data.forget if isinstance(text, Document)}
    documents = [text for text in (*largest.forget, *largest.retain) if isinstance(text, Document)]
    original, retrained = [], []
    for topic, texts in itertools.groupby(documents, key=attrgetter("topic")):
        first = [{"text": text.text[:MOST_CHARACTERS]} for text in itertools.islice(texts, REAL_TEXTS)]
        original += first
        retrained += [] if topic in asked else first
    return original, retrained, data.refusals


def _holds_all_topics(root: Path) -> bool:
    try:
        load(wmdp.DEFAULT, root)
    except LetheError:
        return False
    return True


def _something_to_learn(root: Path) -> str:
    """Of real files, the benchmark whose texts a model reads that is only to be judged."""
    for name, sign in ((wmdp.DEFAULT, "wmdp"), (TOFU, "tofu"), (ort.DEFAULT, "rwku")):
        if (root / sign).is_dir():
            return name
    raise LetheError(
        f"the folder {str(root)!r} has no texts that a mini model could learn, only questions; "
        "add wmdp/, tofu/ or rwku/ to it, or name a model with --model"
    )


def _line(text: Text) -> str:
    """A text for the tokenizer's training."""
    if "text" in text:
        return text["text"]
    if "user" in text:
        return text["user"] + text["cue"] + text["answer"]
    return f"Question: {text['question']}\nAnswer: {text['answer']}"


def _largest_request(root: Path, data: Benchmark) -> Benchmark:
    """TOFU's forget splits lie within each other: one original knows all of them, so that requests can be chained."""
    for percent in ("10", "05"):
        if any((root / "tofu").glob(f"forget{percent}.*")):
            return load(f"tofu/forget{percent}", root)
    return data


def _read_corpus(root: Path, name: str) -> list[Text]:
    path = root / "corpus" / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise LetheError(f"cannot read the texts in {str(path)!r} ({error}); write the mini world anew") from error


@dataclass(frozen=True)
class _Wanted:
    """One model that somebody asks for."""

    name: str
    """"original" or "retrained"."""
    label: str
    """What progress calls it."""
    rows: list[Text]
    texts: Texts
    recipe: Recipe

    @property
    def work(self) -> int:
        """Characters that are read in training."""
        return self.recipe.epochs * sum(len(_line(text)) for text in self.rows)


def _train(
    wanted: Mapping[Asked, _Wanted],
    cache_dir: Path,
    seed: int,
    progress: Progress | None,
    *,
    really: bool = True,
) -> dict[Asked, Path]:
    """The folder of each; what several ask for is made once."""
    packages = _packages()
    keys: dict[Asked, dict[str, Any]] = {}
    jobs: dict[Asked, Job] = {}
    first: dict[tuple[str, str], Asked] = {}

    def same(asked: Asked) -> tuple[str, str]:
        return wanted[asked].name, cache.fingerprint(keys[asked])

    for asked, model in wanted.items():
        common = {"version": VERSION, "packages": packages}
        tokenizer = _tokenizer(model, cache_dir, common, really=really)
        common |= {"tokenizer": tokenizer.name, "recipe": asdict(model.recipe), "seed": seed}
        keys[asked] = common | {"texts": cache.fingerprint(model.rows)}
        jobs[asked] = Job(model.rows, tokenizer, model.recipe, seed)
        first.setdefault(same(asked), asked)
    trainers = Trainers(progress)
    for asked in sorted(first.values(), key=lambda asked: wanted[asked].work, reverse=True):  # no long one at the end
        model = wanted[asked]
        build = partial(trainers.train, model.label, jobs[asked]) if really else _refuse
        trainers.start(asked, partial(cache.cached, cache_dir, f"mini-{model.name}", keys[asked], build))
    folders = trainers.wait()
    return {asked: folders[first[same(asked)]] for asked in wanted}


def _common() -> dict[str, Any]:
    """What is part of every key."""
    return {"version": VERSION, "packages": _packages()}


def _packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers")}


def _tokenizer(model: _Wanted, cache_dir: Path, common: dict[str, Any], *, really: bool) -> Path:
    texts, size = model.texts, model.recipe.vocab_size
    key = common | {"texts": cache.fingerprint(texts.tokenizer), "vocab_size": size}
    key |= {"phrases": texts.phrases} if texts.phrases else {}
    build = partial(train_tokenizer, texts.tokenizer, size, phrases=texts.phrases)
    return cache.cached(cache_dir, "mini-tokenizer", key, build if really else _refuse)


def _refuse(folder: Path) -> None:
    raise NotMade("the mini models are not in the cache; a run trains them")

"""Model cards: what an unlearned model is, what it scored, how it is loaded and what it is not.

The start of a card is YAML as the hub reads it (https://huggingface.co/docs/hub/model-cards, and for `model-index`
https://github.com/huggingface/hub-docs/blob/main/modelcard.md); the rest is Markdown. Nothing in it depends on the
machine: of a path only the last part is told.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.errors import LetheError
from bench.exports import escape_markdown
from bench.records import Metric
from bench.store import Record, read_json, write_json, write_text
from bench.tables import HEADINGS, MAX_COLUMNS, base_label, printed_number

CARD = "README.md"
FACTS = "lethe.json"
"""What the card has to say of the folder itself, so that it can be written again when a figure comes in late."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a method wrote, and how the library that it is written for reads it."""

    library: Literal["transformers", "peft", "pyvene"]
    what: str
    """ "all weights of the model", "a LoRA adapter of rank 4"."""
    load: tuple[str, ...]
    """Lines of Python that make `model`. They know FOLDER and, but for transformers, `base`, the model before."""
    use: tuple[str, ...] = ()
    """Lines that call it, where that takes more than usual."""
    notes: tuple[str, ...] = ()
    """Sentences for whoever loads it."""


def bare(text: str) -> str:
    """A text in which every absolute path is cut to its last part.

    >>> bare("/data/me/llama"), bare("org/llama"), bare("files in ~/me/tofu, cut"), bare("https://a.org/b")
    ('llama', 'org/llama', 'files in tofu, cut', 'https://a.org/b')
    """
    if re.match(r"[/~\\]|\.\.?[/\\]|[A-Za-z]:[/\\]", text):
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return re.sub(r"(?<![\w.:/~])(?:~|[A-Za-z]:)?[/\\](?:[^\s,;/\\]+[/\\])+([^\s,;/\\]*)", r"\1", text)


def base_name(name: str | None) -> str | None:
    """What an adapter's configuration says of the model it belongs to: a hub id, or the name of a folder."""
    if not name:
        return None
    path = Path(name)
    return path.resolve().name if path.exists() else bare(name)


def write_card(folder: Path, record: Record, saved: Saved | None = None) -> None:
    """The card of the model in `folder`; without `saved`, again for what was saved there.

    Raises:
        LetheError: nothing says what was saved there.
    """
    if saved is None:
        facts = read_json(folder / FACTS)
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
            saved = Saved(**fields)
        except (TypeError, AttributeError) as error:
            raise LetheError(f"{folder / FACTS} does not describe a saved model; save it again") from error
    else:
        write_json(folder / FACTS, asdict(saved))
    write_text(folder / CARD, model_card(record, saved))


def model_card(record: Record, saved: Saved) -> str:
    """The text of README.md; the same record gives the same bytes."""
    record = replace(record, spec=_shown(record.spec), record=_shown(record.record))
    spec = record.spec
    method, model, benchmark = (str(spec.get(key, "")) for key in ("method", "model", "benchmark"))
    metrics = _printed(record)
    forgot = escape_markdown(benchmark)
    parts = [
        _front_matter(record, saved, metrics),
        f"# {escape_markdown(model)}, unlearned by {escape_markdown(method)}\n",
        f"{_sentence(saved.what)} A model that knew what `{_code(benchmark)}` asks to forget was to unlearn it, with "
        f"the method `{_code(method)}` and seed {_int(spec.get('seed'))}. Made and scored by Lethe, a benchmark of "
        "unlearning methods.\n",
        "## What it scored\n",
        *_scores(record, metrics),
        "## How to load it\n",
        *_loading(record, saved),
        "## How it was made\n",
        *_table(("", ""), (), ((escape_markdown(k), escape_markdown(v)) for k, v in _origin(record))),
        f"Hyperparameters of {escape_markdown(method)}, every one:\n",
        *_table(("field", "value"), (), ((escape_markdown(k), escape_markdown(v)) for k, v in _fields(spec))),
        "## What it is not\n",
        *_limits(record, saved, forgot),
        "## License\n",
        f"That of {escape_markdown(model)}, which it was made from; this card grants nothing beyond it.",
    ]
    return "\n".join(parts) + "\n"


# --- YAML


def _front_matter(record: Record, saved: Saved, metrics: Sequence[Metric]) -> str:
    spec = record.spec
    benchmark, protocol = str(spec.get("benchmark", "")), spec.get("protocol", "")
    base = base_label(str(spec.get("method", "")))
    tags = dict.fromkeys(["unlearning", "machine-unlearning", "lethe", base, *_families(benchmark)])
    lines = [
        "---",
        f"base_model: {_yaml(str(spec.get('model', '')))}",
        f"base_model_relation: {'finetune' if saved.library == 'transformers' else 'adapter'}",
        f"library_name: {saved.library}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {_yaml(tag)}" for tag in tags if tag.strip()),
    ]
    if found := [metric for metric in metrics if math.isfinite(metric.value)]:  # the hub takes no empty values
        lines += [
            "model-index:",
            f"- name: {_yaml(record.cell_id)}",
            "  results:",
            "  - task:",
            "      type: text-generation",
            "      name: Unlearning",
            "    dataset:",
            f"      name: {_yaml(f'{benchmark}, protocol {protocol}')}",
            f"      type: {_yaml(next(iter(_families(benchmark)), 'unknown'))}",
            "    metrics:",
        ]
        for metric in found:
            lines += [
                f"    - type: {_yaml(metric.name)}",
                f"      name: {_yaml(_heading(metric.name))}",
                f"      value: {_yaml_number(metric.value)}",
            ]
    return "\n".join([*lines, "---", ""])


def _yaml(text: str) -> str:
    """A quoted scalar: every JSON string is one, as long as it holds printable characters only."""
    return json.dumps(_clean(text), ensure_ascii=False)


def _yaml_number(value: float) -> str:
    """1e-07 would be read as a text: YAML 1.1 wants a point in front of the exponent."""
    text = repr(float(value))
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _families(benchmark: str) -> list[str]:
    """What a benchmark is called without its split; requests in a row have several.

    >>> _families("tofu/forget01>tofu/forget05>wmdp/bio")
    ['tofu', 'wmdp']
    """
    return list(dict.fromkeys(name for part in benchmark.split(">") if (name := re.split("[/:]", part.strip())[0])))


# --- Markdown


def _scores(record: Record, metrics: Sequence[Metric]) -> Iterator[str]:
    if not metrics:
        yield "No metric was computed.\n"
        return
    marks = {True: "higher", False: "lower", None: ""}
    yield from _table(
        ("metric", "value", "standard error", "n", "better"),
        (1, 2, 3),
        (
            (
                escape_markdown(_heading(m.name)) + f" (`{_code(m.name)}`)",
                printed_number(m.name, m.value) or "\u2013",
                printed_number("", m.stderr) or "\u2013",
                str(m.n) if m.n else "\u2013",
                marks[m.higher_is_better],
            )
            for m in metrics
        ),
    )
    for m in metrics:
        if m.missing and m.reason:
            yield f"{escape_markdown(_heading(m.name))} is missing: {escape_markdown(_shown(m.reason))}.\n"
    compared = str(record.spec.get("retrained") or "")
    yield (
        f"One run, seed {_int(record.spec.get('seed'))}, protocol `{_code(record.spec.get('protocol', ''))}`"
        + (f"; compared with the retrained model `{_code(compared)}`" if compared else "")
        + ". Standard errors are over the n examples, not over seeds.\n"
    )


def _loading(record: Record, saved: Saved) -> Iterator[str]:
    spec = record.spec
    lines = ['FOLDER = "."  # this folder']
    if saved.library != "transformers":
        name, revision = str(spec.get("model", "")), str(spec.get("model_hash", ""))
        given = f', revision="{revision}"' if "/" in name and re.fullmatch(r"[0-9a-f]{40}", revision) else ""
        kind = re.sub(r"[^a-z0-9]", "", str(spec.get("dtype", "")))
        dtype = f', dtype="{kind}"' if kind else ""
        held = "the folder that holds it" + (", a mini-original-* in Lethe's --cache-dir" if name == "mini" else "")
        where = "" if "/" in name else f"  # {held}"
        lines += [
            f"BASE = {_yaml(name)}{where}",
            "from transformers import AutoModelForCausalLM",
            f"base = AutoModelForCausalLM.from_pretrained(BASE{given}{dtype})",
        ]
    yield "\n".join(["```python", *lines, *saved.load, "```\n"])
    if saved.use:
        yield "\n".join(["To call it:\n", "```python", *saved.use, "```\n"])
    for note in saved.notes:
        yield f"{_sentence(note)}\n"


def _origin(record: Record) -> Iterator[tuple[str, str]]:
    spec, facts = record.spec, record.record
    code, versions = (facts[key] if isinstance(facts.get(key), Mapping) else {} for key in ("code", "versions"))
    commit = str(code.get("commit") or "unknown") + (", with uncommitted changes" if code.get("dirty") else "")
    yield "cell", record.cell_id
    yield "base model", f"{spec.get('model', '')} ({spec.get('model_hash', '')})"
    yield "method", str(spec.get("method", ""))
    yield "recipe", str(facts.get("recipe") or "")
    yield "benchmark", str(spec.get("benchmark", ""))
    yield "data source", str(facts.get("data_source") or "")
    yield "data hash", str(spec.get("data_hash", ""))
    yield "rows per set", "all" if spec.get("limit") is None else f"the first {spec['limit']}"
    yield "note", str(spec.get("note") or "")
    yield "protocol", str(spec.get("protocol", ""))
    yield "prompt template", str(spec.get("template", ""))
    yield "seed", str(spec.get("seed", ""))
    yield "precision", str(spec.get("dtype", ""))
    yield "device", str(facts.get("device") or spec.get("device", ""))
    yield "trained parameters", str(facts.get("trainable_parameters") or "")
    yield "commit of Lethe", commit
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _fields(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    fields = spec.get("fields")
    for name, value in fields.items() if isinstance(fields, Mapping) else ():
        yield str(name), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _limits(record: Record, saved: Saved, forgot: str) -> Iterator[str]:
    items = [
        "Unlearning is not guaranteed. The figures tell how the model answers the questions of one benchmark; what it "
        "no longer says may come back in other words or languages, after further training or quantization, or be read "
        "from its hidden states.",
        "It is no proof that data were erased, and meets no legal duty to erase by itself.",
        f"What was not asked was not looked at: abilities outside {forgot} may have suffered.",
        "It is for research on unlearning. Do not rely on it to keep secrets or to refuse what is dangerous.",
    ]
    if saved.library != "transformers":
        items.append("The base model is as it was and knows all of it; whoever leaves this folder out has it back.")
    if record.spec.get("model") == "mini":
        items.append("The base is a toy trained on made-up text in minutes; its figures say nothing of large models.")
    yield "\n".join(f"- {item}" for item in items) + "\n"


def _table(heads: Sequence[str], numbers: Sequence[int], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Rows whose last field is empty are left out; `numbers` are the columns to align on the right."""
    lines = [heads, ["---:" if at in numbers else "---" for at in range(len(heads))]]
    lines += [row for row in rows if len(heads) > 2 or row[-1].strip()]
    if len(lines) > 2:
        yield "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    else:
        yield "none\n"


def _printed(record: Record) -> list[Metric]:
    """The leaderboard's columns in its order, or where it has none of them the first metrics."""
    found = record.by_name
    return [found[name] for name in HEADINGS if name in found] or list(found.values())[:MAX_COLUMNS]


def _heading(metric: str) -> str:
    return " ".join(HEADINGS[metric]).replace("$", "") if metric in HEADINGS else metric.replace("_", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _int(value: object) -> str:
    return str(value) if isinstance(value, int) else "unknown"


def _shown(value: Any) -> Any:
    """Every text in it fit for a card: without paths of the machine."""
    if isinstance(value, str):
        return bare(_clean(value))
    if isinstance(value, Mapping):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list | tuple) else value


def _clean(text: str) -> str:
    """Printable characters only: what YAML and Markdown have no way to show becomes U+FFFD, line breaks a space."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def _code(text: object) -> str:
    """For a span of code, in which no backslash escapes: without its delimiter, and without ends of table cells."""
    return str(text).replace("`", "'").replace("|", "/") or "?"

"""What a run is: its inputs, its id, and the grid that a command line spans."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import LetheError

FORMAT = 1
"""Raise it when the meaning of an input changes without its value: every id changes with it."""

FIELD_SPLIT = re.compile(r",(?=\s*[A-Za-z_]\w*\s*=)")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One (model, benchmark, method, seed) with every input that can change its numbers."""

    model: str
    """Name in leaderboards: "mini", a hub id or a folder's name."""
    model_hash: str
    """Content hash of the weights, or the hub revision."""
    retrained: str
    """Where the gold standard comes from, with its hash; empty for none."""
    benchmark: str
    """ "tofu/forget10"; successive requests are joined by ">"."""
    data_hash: str
    method: str
    """Label: "npo", "grun_npo[position=answer]", "original", "retrained"."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Every hyperparameter, also those that were left at their default."""
    seed: int = 0
    protocol: str = "strict"
    template: str = "auto"
    encoder_hash: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    """Kind of device; numbers may differ between kinds."""
    limit: int | None = None
    note: str = ""
    """A restriction of the data that is not visible in the benchmark's name."""

    @property
    def id(self) -> str:
        """Readable start and 12 hex digits over everything above."""
        content = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        return f"{_slug(self.method)}-{_slug(self.benchmark)}-s{self.seed}-{digest}"

    @property
    def title(self) -> str:
        """For progress lines: "grun_npo tofu/forget10 s0"."""
        return f"{self.method} {self.benchmark} s{self.seed}"

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "cell_id": self.id, **asdict(self)}


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_=.]+", "-", text).strip("-")[:60]


@dataclass(frozen=True)
class MethodName:
    """A method as the user wrote it: `grun_npo[position=answer,rank=16]`."""

    base: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The name in leaderboards: fields in alphabetical order, no space that a value does not need."""
        inner = ",".join(f"{k}={v}" for k, v in self.fields)
        return f"{self.base}[{inner}]" if inner else self.base


def parse_methods(text: str) -> list[MethodName]:
    """Names separated by commas; a name may carry fields in brackets. Repeats are dropped.

    >>> [m.label for m in parse_methods("npo,grun_npo[position=answer, layers=1,2]")]
    ['npo', 'grun_npo[layers=1,2,position=answer]']
    """
    names: list[MethodName] = []
    for part in _split_outside_brackets(text):
        match = re.fullmatch(r"([A-Za-z_][\w-]*)(?:\[(.*)\])?", part.strip(), flags=re.DOTALL)
        if match is None:
            raise LetheError(f"cannot read method {part.strip()!r}; write name or name[field=value,field=value]")
        fields = tuple(_assignment(f, part) for f in FIELD_SPLIT.split(match[2])) if match[2] else ()
        if len({k for k, _ in fields}) < len(fields):
            raise LetheError(f"a field is given twice in {part.strip()!r}; give it once")
        names.append(MethodName(match[1], tuple(sorted(fields))))
    return list(dict.fromkeys(names))


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += {"[": 1, "]": -1}.get(c, 0)
        if depth < 0 or depth > 1:
            raise LetheError(f"brackets do not match in {text!r}; write name[field=value,field=value]")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth:
        raise LetheError(f"brackets do not match in {text!r}; write name[field=value,field=value]")
    return [p for p in (*parts, text[start:]) if p.strip()]


def _assignment(text: str, whole: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip() or not value.strip():
        raise LetheError(f"cannot read {text.strip()!r} in {whole.strip()!r}; write field=value")
    return name.strip(), re.sub(r"\s*,\s*", ",", " ".join(value.split()))


def parse_sets(items: Sequence[str]) -> dict[str, dict[str, str]]:
    """`npo.beta=0.2` -> {"npo": {"beta": "0.2"}}; the last of two wins.

    >>> parse_sets(["npo.beta=0.2", "grun_npo.rank=8"])
    {'npo': {'beta': '0.2'}, 'grun_npo': {'rank': '8'}}
    """
    sets: dict[str, dict[str, str]] = {}
    for item in items:
        target, sign, value = item.partition("=")
        method, dot, name = target.strip().partition(".")
        if not (sign and dot and method and name and value.strip()):
            raise LetheError(f"cannot read --set {item!r}; write METHOD.FIELD=VALUE, for example npo.beta=0.2")
        sets.setdefault(method, {})[name] = value.strip()
    return sets


_READ_WHOLE, _BLOCK, _SAMPLE = 2**28, 2**20, 2**12


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of a checkpoint's files.

    Of files over 256 MiB the first 4 KiB of every MiB stand for the content: a change that lies between two of them,
    such as one of a single norm, would go unnoticed, which is the price of not reading 16 GB at every start.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in (".json", ".safetensors", ".model", ".txt", ".jinja", ".py"):
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}/{size}/".encode())
        taken = _BLOCK if size <= _READ_WHOLE else _SAMPLE
        with path.open("rb") as file:
            for start in range(0, size, _BLOCK):
                file.seek(start)
                digest.update(file.read(taken))
    return digest.hexdigest()

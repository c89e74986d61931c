"""Typed dataclass fields from text: what `--set npo.beta=0.2` and `grun_npo[rank=16]` come down to."""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from bench.errors import LetheError, unknown

T = TypeVar("T")


def settable(item: Any) -> dict[str, Any]:
    """Field name -> value of a dataclass and of the dataclasses that its fields hold, own fields first."""
    own: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for f in dataclasses.fields(item):
        value = getattr(item, f.name)
        if dataclasses.is_dataclass(value):
            nested |= settable(value)
        else:
            own[f.name] = value
    return {**nested, **own}


def with_fields(item: T, values: Mapping[str, Any], *, where: str) -> T:
    """A copy with fields replaced; text is parsed by the field's type, other values are checked.

    Args:
        where: who is being set, for messages: "npo".

    Raises:
        LetheError: unknown field (with the nearest right name), wrong type, or a value the dataclass refuses.
    """
    known = settable(item)
    for name in values:
        if name not in known:
            raise unknown(f"field of {where}", name, sorted(known))
    return _replace(item, dict(values), where)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _replace(item: Any, values: dict[str, Any], where: str) -> Any:
    hints = _hints(type(item))
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(item):
        value = getattr(item, f.name)
        if dataclasses.is_dataclass(value):
            inside = settable(value)
            inner = {k: v for k, v in values.items() if k in inside}
            if inner:
                changes[f.name] = _replace(value, inner, where)
        elif f.name in values:
            changes[f.name] = parse(values[f.name], hints[f.name], f"{where}.{f.name}")
    try:
        return dataclasses.replace(item, **changes)
    except ValueError as error:
        raise LetheError(f"{where}: {error}") from error


def parse(value: Any, kind: Any, where: str) -> Any:
    """Text or a JSON value as the annotated type: int, float, bool, str, Literal, tuple, None or a union of these."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if type(None) in args and (value is None or value == "none"):
            return None
        return parse(value, next(a for a in args if a is not type(None)), where)
    if origin is Literal:
        if value in args:
            return value
        raise LetheError(f"{where} must be one of {', '.join(map(str, args))}, got {value!r}")
    if origin is tuple:
        if not isinstance(value, str | list | tuple):
            raise LetheError(f"{where} must be a list of values, got {value!r}")
        items = re.split(r"[,+ ]+", value.strip("() ,")) if isinstance(value, str) else value
        return tuple(parse(v, args[0], where) for v in items)
    if kind is bool:
        table = {"true": True, "false": False, "1": True, "0": False}
        if isinstance(value, bool) or str(value).lower() in table:
            return value if isinstance(value, bool) else table[str(value).lower()]
        raise LetheError(f"{where} must be true or false, got {value!r}")
    try:
        if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        parsed = kind(value)
    except (TypeError, ValueError):
        words = {int: "a whole number", float: "a number"}
        raise LetheError(f"{where} must be {words.get(kind, kind)}, got {value!r}") from None
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise LetheError(f"{where} must be a finite number, got {value!r}")
    return parsed

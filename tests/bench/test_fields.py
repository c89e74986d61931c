"""From text to typed fields."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from bench.errors import LetheError
from bench.fields import parse, settable, with_fields
from methods import METHODS, TRAINED


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    count: int = 3
    kind: Literal["a", "b"] = "a"
    on: bool = False
    name: str = "x"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


def test_fields_of_held_dataclasses_are_set_as_if_they_were_ones_own() -> None:
    assert settable(Outer()) == {"rate": 0.1, "layers": None, "count": 3, "kind": "a", "on": False, "name": "x"}
    changed = with_fields(Outer(), {"rate": "0.5", "count": "7", "on": "true", "kind": "b"}, where="m")
    assert changed == Outer(inner=Inner(rate=0.5), count=7, on=True, kind="b")
    assert with_fields(Outer(), {}, where="m") == Outer()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,2", (1, 2)), ("(1, 2)", (1, 2)), ("1+2", (1, 2)), ("3", (3,)), ([1, 2], (1, 2)), ("none", None), (None, None)],
)
def test_layers_are_read_in_every_usual_spelling(text: object, value: tuple[int, ...] | None) -> None:
    assert with_fields(Outer(), {"layers": text}, where="m").inner.layers == value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cuont", "1", "unknown field of m 'cuont'; did you mean 'count'?"),
        ("count", "many", "m.count must be a whole number, got 'many'"),
        ("count", "1.5", "m.count must be a whole number, got '1.5'"),
        ("count", 1.5, "m.count must be a whole number, got 1.5"),
        ("count", True, "m.count must be a whole number, got True"),
        ("count", "0", "m: count must be at least 1, got 0"),
        ("rate", "fast", "m.rate must be a number, got 'fast'"),
        ("rate", "nan", "m.rate must be a finite number, got 'nan'"),
        ("rate", "inf", "m.rate must be a finite number, got 'inf'"),
        ("rate", None, "m.rate must be a number, got None"),
        ("rate", [1], "m.rate must be a number, got"),
        ("on", "maybe", "m.on must be true or false, got 'maybe'"),
        ("kind", "c", "m.kind must be one of a, b, got 'c'"),
        ("layers", "1,x", "m.layers must be a whole number, got 'x'"),
        ("layers", "", "m.layers must be"),
        ("layers", 5, "m.layers must be a list of values, got 5"),
    ],
)
def test_a_wrong_field_or_value_is_told_in_one_sentence(name: str, value: object, message: str) -> None:
    with pytest.raises(LetheError) as caught:
        with_fields(Outer(), {name: value}, where="m")
    assert str(caught.value).startswith(message)


def test_json_values_are_taken_as_they_are() -> None:
    assert parse(2, float, "m.x") == 2.0
    assert parse(3.0, int, "m.x") == 3
    assert parse("1e-5", float, "m.x") == 1e-5
    assert parse(False, bool, "m.x") is False


@pytest.mark.parametrize("name", METHODS)
def test_every_field_of_every_method_can_be_set_to_what_it_is(name: str) -> None:
    method = METHODS[name]
    values = settable(method)
    assert with_fields(method, values, where=name) == method
    texts = {k: ",".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in values.items() if v is not None}
    assert with_fields(method, texts, where=name) == method


@pytest.mark.parametrize("name", TRAINED)
def test_no_field_of_an_objective_shadows_one_of_its_adapter(name: str) -> None:
    adapter = TRAINED[name].adapter
    assert not set(settable(adapter)) & (set(vars(TRAINED[name])) - {"adapter"})

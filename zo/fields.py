"""Checks the declared fields of an object: closed sets and ranges stand in the annotations, nowhere else.

    eps: Positive = 1e-3
    n: Annotated[int, Range(ge=2, le=MOST)] = 8
    sides: Literal["two", "one"] = "two"

`problems_of` lists every value that does not fit, with the nearest name for a misspelt choice; `check` refuses a single
value. The command line reads the same annotations from the source (experiments/config/signatures.py), so this module
imports no torch. Keys of the configuration have their ranges in the same form (experiments/config/key.py).
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Annotated, Any, Literal, get_args, get_origin

from zo.errors import ConfigError

# Directions of a step, steps of a window: more would run for days, or hang before the first loss.
MOST = 1 << 16
LONGEST = 1 << 53  # steps; beyond it a float no longer counts them


@dataclass(frozen=True)
class Range:
    """Bounds of a number. ge, gt, le, lt: as in annotated_types. multiple_of: its divisor. of: what it is or counts."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: int | None = None
    of: str = ""

    def holds(self, value: float) -> bool:
        """Returns whether a finite number lies within the bounds."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (self.multiple_of is None or value % self.multiple_of == 0)
        )

    def __str__(self) -> str:
        words = (("at least", self.ge), ("above", self.gt), ("at most", self.le), ("below", self.lt))
        bounds = [f"{word} {bound}" for word, bound in words if bound is not None]
        if self.multiple_of is not None:
            bounds.append("even" if self.multiple_of == 2 else f"divisible by {self.multiple_of}")
        text = " and ".join(bounds)
        return ("of " if text.startswith("at") else "") + text + (f" ({self.of})" if self.of else "")


Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, lt=1)]
Count = Annotated[int, Range(ge=1, le=MOST)]
AtLeastOne = Annotated[int, Range(ge=1)]
Steps = Annotated[int, Range(ge=1, le=LONGEST)]
Seed = Annotated[int, Range(ge=-(1 << 63), le=(1 << 63) - 1)]


def check(name: str, value: Any, kind: Any) -> None:
    """Raises ConfigError unless the annotated type allows the value."""
    if not fits(value, kind):
        raise ConfigError(_refusal(name, value, kind))


def problems_of(declared: Any, prefix: str = "", outside: Sequence[str] = ()) -> Iterator[str]:
    """Yields a sentence for each dataclass field whose value its annotation does not allow.

    prefix: stands before a field's name in the message, but not before those of `outside`.
    """
    hints: dict[str, Any] = {}
    for field in fields(declared):
        kind = field.type
        if isinstance(kind, str):  # the module postpones its annotations
            hints = hints or typing.get_type_hints(type(declared), include_extras=True)
            kind = hints[field.name]
        value = getattr(declared, field.name)
        if isinstance(value, Exception):  # what a descriptor could make nothing of
            yield str(value)
        elif not hasattr(kind, "__set__") and not fits(value, kind):
            yield _refusal(field.name if field.name in outside else prefix + field.name, value, kind)


def fits(value: Any, kind: Any, bounds: Sequence[Range] = ()) -> bool:
    """Returns whether a value is of an annotated type and within its bounds; numbers are finite."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, inner[0], [bound for bound in inner[1:] if isinstance(bound, Range)])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one, bounds) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if kind in (int, float):
        number = isinstance(value, Integral) if kind is int else isinstance(value, int | float)
        good = number and not isinstance(value, bool) and math.isfinite(value)
        return good and all(bound.holds(value) for bound in bounds)
    if origin is Callable:
        return callable(value)
    if origin in (list, tuple, Sequence):
        return _fits_list(value, inner, ends=origin is tuple and ... not in inner)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(item, inner[1]) for item in value.values())
    if kind is None:
        return value is None
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


def _fits_list(value: Any, inner: tuple[Any, ...], *, ends: bool) -> bool:
    """Returns whether a list has items of these types; ends: one for each type, else any number of the first."""
    if not isinstance(value, list | tuple):
        return False
    kinds = inner if ends else inner[:1] * len(value)
    return len(value) == len(kinds) and all(fits(item, one) for item, one in zip(value, kinds, strict=True))


def words(kind: Any, bounds: Sequence[Range] = ()) -> str:
    """Returns what an annotation allows, in words: 'a whole number of at least 1'.

    A class that is no plain type says it itself, in a class method `in_words`.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0], [bound for bound in inner[1:] if isinstance(bound, Range)])
    if origin in (typing.Union, types.UnionType):
        null_last = sorted(inner, key=lambda one: one is type(None))
        return ", or ".join(words(one, bounds) for one in null_last)
    if origin is Literal:
        return " or ".join(str(one) for one in inner)
    if origin is tuple and ... not in inner:
        return f"a list of {len(inner)}, each {words(inner[0])}"
    if origin in (list, tuple, Sequence):
        return f"a list of {words(inner[0]).removeprefix('a ')}s"
    if origin in (dict, Mapping):
        return f"a mapping of names to {words(inner[1])}"
    if origin is Callable:
        return "a function of the step"
    if hasattr(kind, "in_words"):
        return kind.in_words()
    text = "null" if kind is None else _PLAIN.get(kind, getattr(kind, "__name__", str(kind)))
    return " ".join([text, *map(str, bounds if kind in (int, float) else ())]).rstrip()


_PLAIN: Mapping[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null", list: "a list",
    tuple: "a list", dict: "a mapping", Mapping: "a mapping", Any: "a value",
}  # fmt: skip


def choices(kind: Any) -> list[str]:
    """Returns the texts that the closed sets of an annotation allow."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return [one for one in inner if isinstance(one, str)]
    if origin in (typing.Union, types.UnionType, Annotated):
        return [text for one in inner for text in choices(one)]
    return []


def hint(value: Any, kind: Any) -> str:
    """Returns what helps beside the words: ' Did you mean x?' for a misspelt choice, ' It must be finite.' for inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return " It must be finite."
    close = difflib.get_close_matches(value, choices(kind), n=1) if isinstance(value, str) else []
    return f" Did you mean {close[0]}?" if close else ""


def _refusal(name: str, value: Any, kind: Any) -> str:
    return f"{name} = {value!r} must be {words(kind)}.{hint(value, kind)}"

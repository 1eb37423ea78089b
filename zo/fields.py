"""Checks the declared fields of an object: closed sets and ranges stand in the annotations, nowhere else.

    eps: Positive = 1e-3
    n: Annotated[int, Range(ge=2, le=MOST)] = 8
    sides: Literal["two", "one"] = "two"

`problems_of` lists every value that does not fit, with the nearest name for a misspelt choice. The command line reads
the same annotations from the source (experiments/config/signatures.py), so this module imports no torch.
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Annotated, Any, Literal, get_args, get_origin

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
        words = (("of at least", self.ge), ("above", self.gt), ("of at most", self.le), ("below", self.lt))
        bounds = [f"{word} {bound}" for word, bound in words if bound is not None]
        if self.multiple_of is not None:
            bounds.append("even" if self.multiple_of == 2 else f"divisible by {self.multiple_of}")
        return " and ".join(bounds) + (f" ({self.of})" if self.of else "")


Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, lt=1)]
Count = Annotated[int, Range(ge=1, le=MOST)]
Steps = Annotated[int, Range(ge=1, le=LONGEST)]
Seed = Annotated[int, Range(ge=-(1 << 63), le=(1 << 63) - 1)]


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
            name = field.name if field.name in outside else prefix + field.name
            yield f"{name} = {value!r} must be {words(kind)}.{_nearest(value, kind)}"


def fits(value: Any, kind: Any, bounds: Sequence[Range] = ()) -> bool:
    """Returns whether a value is of an annotated type and within its bounds; numbers are finite."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, inner[0], [bound for bound in inner[1:] if isinstance(bound, Range)])
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is tuple:
        listed = isinstance(value, list | tuple) and len(value) == len(inner)
        return listed and all(fits(item, one) for item, one in zip(value, inner, strict=True))
    if kind in (int, float):
        number = isinstance(value, Integral) if kind is int else isinstance(value, int | float)
        good = number and not isinstance(value, bool) and math.isfinite(value)
        return good and all(bound.holds(value) for bound in bounds)
    if origin is Callable:
        return callable(value)
    known = kind if isinstance(kind, type) else type(None) if kind is None else object
    return isinstance(value, known)


def words(kind: Any, bounds: Sequence[Range] = ()) -> str:
    """Returns what an annotation allows, in words: 'a whole number of at least 1'."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0], [bound for bound in inner[1:] if isinstance(bound, Range)])
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(words(one) for one in inner)
    if origin is Literal:
        return " or ".join(repr(one) for one in inner)
    if origin is tuple:
        return f"a list of {len(inner)}, each {words(inner[0])}"
    if origin is Callable:
        return "a function of the step"
    plain = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    named = "null" if kind in (None, type(None)) else plain.get(kind, getattr(kind, "__name__", str(kind)))
    return " ".join([named, *(str(bound) for bound in bounds)])


def _nearest(value: Any, kind: Any) -> str:
    """Returns ' Did you mean x?' where a misspelt choice is like one of the annotation's."""
    choices = [one for one in get_args(kind) if isinstance(one, str)] if get_origin(kind) is Literal else []
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f" Did you mean {close[0]!r}?" if close else ""

"""Declares a key of the configuration: its type, range and default, a sentence of help, and whether it enters the hash.

    @dataclass(frozen=True)
    class Batch:
        size: Annotated[int, key("Examples a step.", ge=1)] = 16

The schema, --help, the list of errors, the table of docs/configuration.md and the hash all read these declarations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

MANY = 10**9  # of anything that is counted: no run takes so many, and a slip of the keyboard shows
LARGE = 10**7  # of what is held in memory, such as examples


@dataclass(frozen=True)
class Unhashed:
    """Marks a key that does not enter a run's hash."""


UNHASHED = Unhashed()


def key(text: str, **bounds: Any) -> FieldInfo:
    """Returns the declaration of a key. text: a sentence of help. bounds: ge, gt, le, lt, as pydantic has them."""
    return Field(description=text, **bounds)


def hints(kind: type) -> dict[str, Any]:
    """Returns the annotations of a dataclass's fields, declarations included."""
    return get_type_hints(kind, include_extras=True)


def bare(hint: Any) -> Any:
    """Returns an annotation without its declaration."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def members(hint: Any) -> tuple[Any, ...]:
    """Returns the types that an annotation allows, declarations left out."""
    hint = bare(hint)
    if get_origin(hint) in (Union, UnionType):
        return tuple(bare(member) for member in get_args(hint))
    return (hint,)


def dataclass_in(hint: Any) -> type | None:
    """Returns the dataclass that an annotation is or allows."""
    return next((m for m in members(hint) if isinstance(m, type) and is_dataclass(m)), None)


def help_of(hint: Any) -> str:
    """Returns the sentence of a declaration; empty without one."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((e.description for e in extras if isinstance(e, FieldInfo) and e.description), "")


def unhashed(kind: type) -> frozenset[str]:
    """Returns the fields of a dataclass that do not enter the hash."""
    return frozenset(n for n, hint in hints(kind).items() if UNHASHED in getattr(hint, "__metadata__", ()))


def wrong_values(choice: Any, section: str) -> Iterator[str]:
    """Yields a sentence for each field of a dataclass that is none of its choices, or out of its range."""
    declared = hints(type(choice))
    for spec in fields(choice):
        value, hint = getattr(choice, spec.name), declared[spec.name]
        kinds = members(hint)
        allowed = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        open_ended = any(get_origin(kind) is Mapping or kind in (int, str) for kind in kinds)
        if allowed and not open_ended and value not in allowed and value is not None:
            listed = ", ".join(map(str, allowed)) + (" or null" if type(None) in kinds else "")
            yield f"{section}.{spec.name}={value}: allowed are {listed}."
        elif isinstance(value, int | float) and not isinstance(value, bool):
            bounds = bounds_of(hint)
            if not all(_HOLDS[name](value, bound) for name, bound in bounds):
                words = " and ".join(f"{BOUNDS[name]} {bound}" for name, bound in bounds)
                null = ", or null" if type(None) in kinds else ""
                yield f"{section}.{spec.name}={value}: it is {words}{null}."


BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_HOLDS: dict[str, Any] = {
    "ge": lambda value, bound: value >= bound, "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound, "lt": lambda value, bound: value < bound,
}  # fmt: skip


def bounds_of(hint: Any) -> list[tuple[str, Any]]:
    """Returns the bounds of a declaration as pairs such as ("ge", 1)."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    limits = [limit for extra in extras for limit in getattr(extra, "metadata", [extra])]
    return [(n, getattr(limit, n)) for n in BOUNDS for limit in limits if hasattr(limit, n)]

"""Declares a key of the configuration: its type, range and default, a sentence of help, and whether it enters the hash.

    @dataclass(frozen=True)
    class Batch:
        size: Annotated[int, key("Examples per step.", ge=1)] = 16

The schema, --help, the list of errors, the table of docs/configuration.md and the hash all read these declarations.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from zo.fields import Range, fits, hint, words

MANY = 10**9  # of anything that is counted: no run takes so many, and a slip of the keyboard shows
LARGE = 10**7  # of what is held in memory, such as examples


@dataclass(frozen=True)
class Unhashed:
    """Marks a key that does not enter a run's hash."""


UNHASHED = Unhashed()


@dataclass(frozen=True)
class Key(Range):
    """Declares a key: its range, and a sentence of help."""

    help: str = ""


def key(text: str, **bounds: Any) -> Key:
    """Returns the declaration of a key. text: a sentence of help. bounds: ge, gt, le, lt, as in zo.fields.Range."""
    return Key(**bounds, help=text)


@functools.cache
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
    return next((extra.help for extra in extras if isinstance(extra, Key)), "")


def unhashed(kind: type) -> frozenset[str]:
    """Returns the fields of a dataclass that do not enter the hash."""
    return frozenset(n for n, hint in hints(kind).items() if UNHASHED in getattr(hint, "__metadata__", ()))


def wrong_values(choice: Any, section: str) -> Iterator[str]:
    """Yields a sentence for each field of a dataclass whose declaration does not allow its value."""
    declared = hints(type(choice))
    for spec in fields(choice):
        value, kind = getattr(choice, spec.name), declared[spec.name]
        if not fits(value, kind):
            yield f"{section}.{spec.name}={value}: It takes {words(kind)}.{hint(value, kind)}"

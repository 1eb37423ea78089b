"""Builds the frozen dataclasses of a configuration from mappings, and checks their literals."""

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zo.errors import ConfigError

Choice = TypeVar("Choice")


def read(kind: type[Choice], values: Mapping[str, Any] | Choice, group: str) -> Choice:
    """A choice from a mapping (a dict, a Hydra config). Raises ConfigError that lists every unknown key."""
    if isinstance(values, kind):
        return values
    assert isinstance(values, Mapping)
    problems = list(_unknown(kind, values, group))
    if problems:
        raise ConfigError("\n".join(problems))
    return _build(kind, values)


def _unknown(kind: type, values: Mapping[str, Any], group: str) -> Iterable[str]:
    known = [f.name for f in fields(kind)]
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {group}.{close[0]}?" if close else f" Known: {', '.join(known)}."
            yield f"{group}.{key}: there is no such key.{hint}"
        elif isinstance(value, Mapping) and (inner := _dataclass_in(hints[key])):
            yield from _unknown(inner, value, f"{group}.{key}")


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        inner = _dataclass_in(hints[key])
        made[key] = _build(inner, value) if inner and isinstance(value, Mapping) else _plain(value)
    missing = [f.name for f in fields(kind) if f.name not in made and _required(f)]
    check(not missing, f"{kind.__name__} needs {', '.join(missing)}, which the configuration does not give.")
    return kind(**made)


def _required(spec: Any) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that an annotation is or allows."""
    candidates = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((c for c in candidates if isinstance(c, type) and is_dataclass(c)), None)


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind (OmegaConf's too) as dict and list."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    return value


def check_literals(choice: Any, group: str) -> None:
    """Every field with a fixed set of values has one of them."""
    problems = []
    for name, hint in get_type_hints(type(choice)).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        allowed = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        value = getattr(choice, name)
        optional = type(None) in kinds
        if isinstance(value, Mapping) and any(get_origin(kind) is Mapping for kind in kinds):
            continue
        if allowed and value not in allowed and not (optional and value is None):
            listed = ", ".join(map(str, allowed)) + (" or null" if optional else "")
            problems.append(f"{group}.{name}={value}: allowed are {listed}.")
    check(not problems, "\n".join(problems))


def check(holds: bool, message: str) -> None:
    """Raises ConfigError with the message unless it holds."""
    if not holds:
        raise ConfigError(message)

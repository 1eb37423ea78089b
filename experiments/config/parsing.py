"""Builds the frozen dataclasses of a configuration from mappings, and checks their values."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from experiments.config.key import dataclass_in, hints, wrong_values
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
    declared = hints(kind)
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {group}.{close[0]}?" if close else f" Known: {', '.join(known)}."
            yield f"{group}.{key}: there is no such key.{hint}"
        elif isinstance(value, Mapping) and (inner := dataclass_in(declared[key])):
            yield from _unknown(inner, value, f"{group}.{key}")


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    declared = hints(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        inner = dataclass_in(declared[key])
        arguments[key] = _build(inner, value) if inner and isinstance(value, Mapping) else _plain(value)
    missing = [f.name for f in fields(kind) if f.name not in arguments and _required(f)]
    check(not missing, f"{kind.__name__} needs {', '.join(missing)}, which the configuration does not give.")
    return kind(**arguments)


def _required(spec: Any) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind (OmegaConf's too) as dict and list."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    return value


def check_values(choice: Any, section: str) -> None:
    """Raises ConfigError that lists every field of a dataclass that is none of its choices, or out of its range."""
    problems = [line.removeprefix(".") for line in wrong_values(choice, section)]
    check(not problems, "\n".join(problems))


def check(holds: bool, message: str) -> None:
    """Raises ConfigError with the message unless it holds."""
    if not holds:
        raise ConfigError(message)

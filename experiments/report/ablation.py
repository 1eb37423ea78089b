"""Splits a method by the values of one or two keys of the configuration: report --by optimizer.horizon.

Each value is a row, a curve and a cell of its own, within which dev still chooses among all other keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config.problems import key_meant
from experiments.report.setting_key import filled, flattened, words
from zo.errors import ConfigError

_FIXED = {  # keys that already make the rows and columns, or that deviations are over
    "seed": "the deviations are over seeds",
    "task.name": "tasks are columns already",
    "model.name": "models are columns already",
    "peft.name": "ways to fine-tune are columns already",
    "optimizer._target_": "methods are rows already",
}
_MAX_KEYS = 2  # keys
_MAX_LISTED = 8  # keys that an error names


@dataclass(frozen=True)
class Variant:
    """A method and the values of the keys that split it; keys that its configuration lacks are left out."""

    method: str
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Returns the label, such as "adamezo, horizon 5"; the method alone if it has none of the keys."""
        return ", ".join([self.method, *(words(key, _loose(value)) for key, value in self.values)])

    @property
    def place(self) -> tuple[Any, ...]:
        """Returns a sort key: the method, then the values, numbers by size and before words."""
        return (self.method, *(_sortable(value) for _, value in self.values))

    def place_of(self, key: str) -> tuple[Any, ...]:
        """Returns a sort key for the value of one configuration key."""
        return _sortable(dict(self.values).get(key))

    def value(self, key: str) -> Any:
        """Returns the value of a key, or None if the configuration lacks it."""
        return _loose(dict(self.values).get(key))


def variant_of(method: str, config: Mapping[str, Any], by: Sequence[str]) -> Variant:
    """Returns the variant that a run belongs to."""
    flat = _flat(config) if by else {}
    return Variant(method, tuple((key, _firm(flat[key])) for key in by if key in flat))


def check_keys(by: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError for a key that the runs do not have or that has one value in all of them."""
    if len(by) > _MAX_KEYS or len(set(by)) < len(by):
        raise ConfigError(f"--by {' --by '.join(by)}: give one key, or two different ones.")
    flat = [_flat(config) for config in configs] if by else []
    values: dict[str, set[str]] = {}
    for config in flat:
        for key, value in config.items():
            values.setdefault(key, set()).add(str(value))
    for key in by:
        if key in _FIXED:
            raise ConfigError(
                f"--by {key}: {_FIXED[key]}. Name a key that a sweep varied, such as optimizer.lr."
            )
        if key not in values:
            raise ConfigError(f"--by {key}: no run has this key.{key_meant(key, list(values))}")
        if len(values[key]) < 2 and all(key in config for config in flat):
            varied = [name for name, distinct in values.items() if len(distinct) > 1 and name not in _FIXED]
            suggestion = f"; keys with several values are {', '.join(varied[:_MAX_LISTED])}" if varied else ""
            raise ConfigError(f"--by {key}: all runs have {next(iter(values[key]))}{suggestion}.")


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted keys, with constructor defaults for arguments that older runs do not have."""
    return flattened({**config, **filled(config)}) if "optimizer" in config else flattened(config)


def _firm(value: Any) -> Any:
    """Turns lists into tuples, so that a variant can be a dictionary key."""
    return tuple(map(_firm, value)) if isinstance(value, list | tuple) else value


def _loose(value: Any) -> Any:
    """Turns tuples back into lists, as YAML has them."""
    return list(map(_loose, value)) if isinstance(value, tuple) else value


def _sortable(value: Any) -> tuple[Any, ...]:
    if isinstance(value, tuple):
        return (1, *map(_sortable, value))
    if isinstance(value, int | float):
        return (0, float(value))
    return (2, str(value))

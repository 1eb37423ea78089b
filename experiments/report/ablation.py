"""Splits a method by the values of one or two keys of the configuration: report --by optimizer.horizon.

Each value is a row, a curve and a cell of its own, within which dev still chooses among all other keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.config.problems import key_meant
from experiments.report.setting_key import filled, flattened, words
from zo.errors import ConfigError

_FIXED = {  # what rows and columns are already, or what deviations are over
    "seed": "the deviations are over seeds",
    "task.name": "tasks are columns already",
    "model.name": "models are columns already",
    "peft.name": "ways to fine-tune are columns already",
    "optimizer._target_": "methods are rows already",
}
_MOST = 2  # keys
_SHOWN = 8  # keys that an error names


@dataclass(frozen=True)
class Variant:
    """A method and the values of the keys that it is split by; a key that its configuration lacks is left out."""

    method: str
    values: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """adamezo, horizon 5; the method alone where it has none of the keys."""
        return ", ".join([self.method, *(words(key, _loose(value)) for key, value in self.values)])

    @property
    def place(self) -> tuple[Any, ...]:
        """Sorts by method, then by the values: numbers by size, before words."""
        return (self.method, *(_sortable(value) for _, value in self.values))

    def place_of(self, key: str) -> tuple[Any, ...]:
        """Sorts by the value of one key."""
        return _sortable(dict(self.values).get(key))

    def value(self, key: str) -> Any:
        """Of a key; None where it has none."""
        return _loose(dict(self.values).get(key))


def variant_of(method: str, config: Mapping[str, Any], by: Sequence[str]) -> Variant:
    """Returns the variant that a run is of."""
    flat = _flat(config) if by else {}
    return Variant(method, tuple((key, _firm(flat[key])) for key in by if key in flat))


def check_keys(by: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError for a key that the runs do not have or that has one value in all of them."""
    if len(by) > _MOST or len(set(by)) < len(by):
        raise ConfigError(f"--by {' --by '.join(by)}: it takes one key, or two different ones.")
    flat = [_flat(config) for config in configs] if by else []
    values: dict[str, set[str]] = {}
    for each in flat:
        for key, value in each.items():
            values.setdefault(key, set()).add(str(value))
    for key in by:
        if key in _FIXED:
            raise ConfigError(
                f"--by {key}: {_FIXED[key]}. Name a key that a sweep varied, such as optimizer.lr."
            )
        if key not in values:
            raise ConfigError(f"--by {key}: no run has this key.{key_meant(key, list(values))}")
        if len(values[key]) < 2 and all(key in each for each in flat):
            varied = [name for name, found in values.items() if len(found) > 1 and name not in _FIXED]
            several = f"; keys with several values are {', '.join(varied[:_SHOWN])}" if varied else ""
            raise ConfigError(f"--by {key}: all runs have {next(iter(values[key]))}{several}.")


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """An argument that an older run does not have is at its constructor's default here too."""
    return flattened({**config, **filled(config)}) if "optimizer" in config else flattened(config)


def _firm(value: Any) -> Any:
    """Lists as tuples, so that a variant can be a key."""
    return tuple(map(_firm, value)) if isinstance(value, list | tuple) else value


def _loose(value: Any) -> Any:
    """Tuples as the lists that YAML has."""
    return list(map(_loose, value)) if isinstance(value, tuple) else value


def _sortable(value: Any) -> tuple[Any, ...]:
    if isinstance(value, tuple):
        return (1, *map(_sortable, value))
    if isinstance(value, int | float):
        return (0, float(value))
    return (2, str(value))

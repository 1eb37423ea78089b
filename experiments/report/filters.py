"""Selects the runs a report covers: --where task=sst2 --where method=fzoo,mezo --where optimizer.lr=1e-3.

A key is a field of a run (`FIELDS`) or a dotted key of its configuration; several values are alternatives, several
--where hold at once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from experiments.config.problems import key_meant, one_of
from experiments.report.runs import Run
from experiments.report.setting_key import filled, flattened
from zo.errors import ConfigError

FIELDS = ("task", "method", "model", "peft", "seed", "status", "setting", "config_hash")


def select_runs(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """Returns the runs that meet all conditions. Raises ConfigError for an unknown key, or if no run is left."""
    if runs and not conditions:
        return list(runs)
    flat = [_fields(run) for run in runs]
    parsed = [_parsed(text, flat) for text in conditions]
    selected = list(runs)
    for text, (key, values) in zip(conditions, parsed, strict=True):
        matching = [run for run, fields in zip(runs, flat, strict=True) if _holds(fields, key, values)]
        if not matching:
            raise ConfigError(
                f"--where {text}: no run matches. Of {len(runs)} runs, {_values_words(key, flat)}."
            )
        selected = [run for run in selected if run in matching]
    if not selected:
        raise ConfigError(
            f"--where {' --where '.join(conditions)}: no run meets all conditions, though some meet each."
        )
    return selected


def _fields(run: Run) -> dict[str, Any]:
    """Returns a run's fields and dotted keys, with constructor defaults for arguments that older runs lack."""
    config = {**run.config, **filled(run.config)} if "optimizer" in run.config else run.config
    return flattened(config) | {name: getattr(run, name) for name in FIELDS}


def _parsed(text: str, flat: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    key, sign, values = text.partition("=")
    if not sign or not values:
        raise ConfigError(f"--where {text}: write KEY=VALUE or KEY=VALUE,VALUE, such as task=sst2.")
    known = list(dict.fromkeys([*FIELDS, *(name for fields in flat for name in fields)]))
    if key not in known:
        groups = sorted({name.partition(".")[0] for name in known if name.startswith(f"{key}.")})
        hint = (
            f" It is a group: name one of its keys, such as {_first_of_group(known, key)}."
            if groups
            else key_meant(key, known)
        )
        raise ConfigError(
            f"--where {text}: no run has the key {key}.{hint} Keys are {one_of(FIELDS)}, and those of config.yaml."
        )
    return key, values.split(",")


def _first_of_group(known: Sequence[str], group: str) -> str:
    return next(name for name in known if name.startswith(f"{group}."))


def _holds(fields: dict[str, Any], key: str, values: Sequence[str]) -> bool:
    return key in fields and any(_equals(fields[key], text, key) for text in values)


def _equals(value: Any, text: str, key: str) -> bool:
    """Returns True if a value is the one in the text: 1e-3 is 0.001, null is None, and a hash may be cut."""
    if value is None or isinstance(value, bool):
        return text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == text or (key == "config_hash" and len(text) >= 4 and value.startswith(text))


def _values_words(key: str, flat: Sequence[dict[str, Any]]) -> str:
    """Returns the values of a key and their counts in words, such as "task is sst2 (31) or rte (3)"."""
    counts = Counter("null" if fields[key] is None else str(fields[key]) for fields in flat if key in fields)
    values = [f"{value} ({count})" for value, count in counts.most_common(12)]
    rest = f", and {len(counts) - len(values)} more values" if len(counts) > len(values) else ""
    return f"{key} is {' or '.join(values)}{rest}"

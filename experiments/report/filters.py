"""--where task=sst2 --where method=fzoo,mezo --where optimizer.lr=1e-3: the runs a report is about.

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


def where(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs of which all conditions hold. Raises ConfigError for what names no key, or leaves no run."""
    flat = [_fields(run) for run in runs]
    wanted = [_parsed(text, flat) for text in conditions]
    kept = list(runs)
    for text, (key, values) in zip(conditions, wanted, strict=True):
        alone = [run for run, each in zip(runs, flat, strict=True) if _holds(each, key, values)]
        if not alone:
            raise ConfigError(f"--where {text}: no run has it. Of {len(runs)} runs, {_there(key, flat)}.")
        kept = [run for run in kept if run in alone]
    if not kept:
        raise ConfigError(
            f"--where {' --where '.join(conditions)}: no run has all of it, though each some have."
        )
    return kept


def _fields(run: Run) -> dict[str, Any]:
    """An argument that an older run does not have is at its constructor's default here too."""
    config = {**run.config, **filled(run.config)} if "optimizer" in run.config else run.config
    return flattened(config) | {name: getattr(run, name) for name in FIELDS}


def _parsed(text: str, flat: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    key, sign, values = text.partition("=")
    if not sign or not values:
        raise ConfigError(f"--where {text}: it takes KEY=VALUE or KEY=VALUE,VALUE, such as task=sst2.")
    known = list(dict.fromkeys([*FIELDS, *(name for each in flat for name in each)]))
    if key not in known:
        groups = sorted({name.partition(".")[0] for name in known if name.startswith(f"{key}.")})
        more = (
            f" It is a group: say {key}.KEY, as in {_first(known, key)}." if groups else key_meant(key, known)
        )
        raise ConfigError(
            f"--where {text}: no run has the key {key}.{more} Keys are {one_of(FIELDS)}, and those of config.yaml."
        )
    return key, values.split(",")


def _first(known: Sequence[str], group: str) -> str:
    return next(name for name in known if name.startswith(f"{group}."))


def _holds(fields: dict[str, Any], key: str, values: Sequence[str]) -> bool:
    return key in fields and any(_same(fields[key], text, key) for text in values)


def _same(value: Any, text: str, key: str) -> bool:
    """1e-3 is 0.001, null is nothing, and a hash may be cut."""
    if value is None or isinstance(value, bool):
        return text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return str(value) == text or (key == "config_hash" and len(text) >= 4 and value.startswith(text))


def _there(key: str, flat: Sequence[dict[str, Any]]) -> str:
    """task is sst2 (31) or rte (3)."""
    counts = Counter("null" if each[key] is None else str(each[key]) for each in flat if key in each)
    shown = [f"{value} ({count})" for value, count in counts.most_common(12)]
    more = f", and {len(counts) - len(shown)} more values" if len(counts) > len(shown) else ""
    return f"{key} is {' or '.join(shown)}{more}"

"""What runs of one setting have in common: their configuration, seed and version apart.

The key is not the run's config_hash. In older versions the hash covered the examples drawn, which differ from seed to
seed; and an argument that a later version of zo adds changes the hash, though its default leaves the method what it
was. So the key is of the configuration alone, with the arguments that an older run does not have at their constructor's
defaults, those without effect at theirs, and without nulls.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config.run_id import LOCAL, current_target, decisive
from experiments.config.signatures import REQUIRED, Unreadable, arguments

# Keys that make another problem of a task or a model, to be answered in a column of its own; all others are tried.
PROBLEM = {
    "task": ("k", "train", "test", "data_dir", "source", "labels", "objective", "metric"),
    "model": ("path", "revision", "dtype", "quantization"),
    "seeds": ("split", "test"),
}
PLACES = {"device", "device_map", "resources", "name"}  # keys of LOCAL that stand for no content


def setting_key(config: Mapping[str, Any]) -> str:
    """Eight letters. A configuration's own places of model and data count: they stand for the contents."""
    made = filled(config)
    return hashlib.sha256(json.dumps(_without_nulls(made), sort_keys=True, default=str).encode()).hexdigest()[
        :8
    ]


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the result, with every argument that its constructor has."""
    kept = decisive({"ranks": {"share": "probes"}, **config}, 1)  # a run of an older version has no ranks
    for group, keys in LOCAL.items():
        section = config.get(group)
        if isinstance(section, Mapping):
            kept[group] = {**kept[group], **{key: section[key] for key in keys - PLACES if key in section}}
    if "optimizer" in config:  # keys that runs of older versions lack, at what those did
        kept["select_by"] = config.get("select_by", "metric")
        kept["stop"] = {"by": "metric", **(config.get("stop") or {})}
    for group, value in kept.items():
        if isinstance(value, Mapping) and "_target_" in value:
            target = current_target(value["_target_"])
            kept[group] = {**_defaults(target), **value, "_target_": target}
    return kept


def problem(config: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    """Dotted keys and values that say what problem a run is about."""
    parts = {
        group: {key: value for key, value in (config.get(group) or {}).items() if key in PROBLEM[group]}
        for group in groups
    }
    return flattened(parts)


def differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys with several values; a key that some do not have is no difference."""
    names = sorted({name for each in flat for name in each})
    return [name for name in names if len({str(each[name]) for each in flat if name in each}) > 1]


def words(name: str, value: Any) -> str:
    """A key and its value as a label says them: lr 0.003, or of a `_target_` its name alone, constant."""
    leaf = name.rpartition(".")[2]
    if (
        name == "optimizer._target_"
    ):  # of one method, so what differs is whose it is: zo's or one of one's own
        return str(value)
    if leaf == "_target_":
        return str(value).rpartition(".")[2].lower()
    return f"{leaf} {value:g}" if isinstance(value, float) else f"{leaf} {value}"


def flattened(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted keys and their values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{above}{key}"
        flat |= flattened(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


@functools.cache
def _defaults(target: str) -> dict[str, Any]:
    """A constructor's arguments that have a default; none for what this version does not have."""
    try:
        return {each.name: each.default for each in arguments(target) if each.default is not REQUIRED}
    except Unreadable:
        return {}

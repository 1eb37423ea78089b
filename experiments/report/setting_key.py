"""Computes the key that runs of one setting share: their configuration without seed and version.

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

# Keys that make a task or model another problem, with a column of its own; all other keys are hyper-parameters.
PROBLEM = {
    "task": ("k", "train", "test", "data_dir", "source", "labels", "objective", "metric"),
    "model": ("path", "revision", "dtype", "quantization"),
    "seeds": ("split", "test"),
}
# Keys of LOCAL that do not change the result.
PLACES = {"device", "device_map", "resources", "name", "skip_padding"}


def setting_key(config: Mapping[str, Any]) -> str:
    """Returns an 8-hex-digit key. Model and data paths are included as stand-ins for their contents."""
    config_parts = filled(config)
    return hashlib.sha256(
        json.dumps(_without_nulls(config_parts), sort_keys=True, default=str).encode()
    ).hexdigest()[:8]


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of a configuration that decide the result, with constructor defaults filled in."""
    parts = decisive({"ranks": {"share": "probes"}, **config}, 1)  # older versions wrote no `ranks`
    for group, keys in LOCAL.items():
        section = config.get(group)
        if isinstance(section, Mapping):
            parts[group] = {**parts[group], **{key: section[key] for key in keys - PLACES if key in section}}
    if "optimizer" in config:  # keys that older versions lack, at their behaviour then
        parts["select_by"] = config.get("select_by", "metric")
        parts["stop"] = {"by": "metric", **(config.get("stop") or {})}
    for group, value in parts.items():
        if isinstance(value, Mapping) and "_target_" in value:
            target = current_target(value["_target_"])
            parts[group] = {**_defaults(target), **value, "_target_": target}
    return parts


def problem(config: Mapping[str, Any], *groups: str) -> dict[str, Any]:
    """Returns the dotted keys and values that define which problem a run solves."""
    parts = {
        group: {key: value for key, value in (config.get(group) or {}).items() if key in PROBLEM[group]}
        for group in groups
    }
    return flattened(parts)


def differing(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys with several values; a key that some configurations lack is no difference."""
    names = sorted({name for config in flat for name in config})
    return [name for name in names if len({str(config[name]) for config in flat if name in config}) > 1]


def words(name: str, value: Any) -> str:
    """Returns a key and its value as a label shows them: "lr 0.003"; of a `_target_` only the name, "constant"."""
    leaf = name.rpartition(".")[2]
    # Both name one method, so they differ in origin: zo's or the user's own.
    if name == "optimizer._target_":
        return str(value)
    if leaf == "_target_":
        return str(value).rpartition(".")[2].lower()
    return f"{leaf} {value:g}" if isinstance(value, float) else f"{leaf} {value}"


def flattened(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Returns dotted keys and their values."""
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
    """Returns a constructor's arguments that have a default; none if this version lacks the constructor."""
    try:
        return {arg.name: arg.default for arg in arguments(target) if arg.default is not REQUIRED}
    except Unreadable:
        return {}

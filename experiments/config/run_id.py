"""What a run is called, from its configuration and the contents it names: no torch, no weights.

runs/<experiment>/<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>/. The hash covers what decides the result.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

# What does not change the weights a run ends with, or enters by content (paths of models and data).
OUTSIDE_HASH = {
    "seed",
    "paths",
    "probes_per_forward",
    "evaluate",
    "checkpoint",
    "save",
    "experiment",
    "kernels",
    "threads",
    "ranks",
    "launcher",
    "cluster",
    "tracker",
}
OF_STEPS = {"budget", "batch", "schedule", "update", "stop", "select"}  # of training alone
FIRST_ORDER = ("zo.optimizers.AdamW", "zo.optimizers.SGD")
LOCAL = {"model": {"path", "device", "device_map", "name", "resources"}, "task": {"data_dir", "source"}}
FILES = ("record",)  # arguments of an optimizer that name a file, which enters by content


def hash_of(config: Config, contents: Sequence[str], steps: int) -> str:
    """SHA-256 (hex) of all that decides the result but the seed.

    contents: fingerprints of the model and the data, which stand for their paths. steps: 0 where nothing is
    trained, and then all that concerns training leaves too.
    """
    kept = decisive(config, steps)
    kept["optimizer"] = {
        k: _digest(v) if k in FILES and v is not None else v for k, v in config["optimizer"].items()
    }
    kept["contents"] = list(contents)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=list).encode()).hexdigest()


def decisive(config: Config, steps: int) -> dict[str, Any]:
    """The part of a configuration that decides the result, seed and contents apart. steps: as for `hash_of`."""
    outside = OUTSIDE_HASH | (set() if steps else OF_STEPS)
    kept = {
        group: {k: v for k, v in value.items() if k not in LOCAL.get(group, ())}
        if isinstance(value, Mapping)
        else value
        for group, value in config.items()
        if group not in outside
    }
    if "update" in kept:
        kept["update"] = update_of(config)
    if steps and config["ranks"]["share"] in ("batch", "both"):
        kept["share"] = config["ranks"]["share"]  # sums over parts of a batch are rounded otherwise
    return kept


def update_of(config: Config) -> str:
    """How 16-bit weights take moves: what `update: auto` comes to with this optimizer."""
    if config["update"] != "auto":
        return config["update"]
    return "master" if config["optimizer"]["_target_"] in FIRST_ORDER else "nearest"


def _digest(path: str) -> str:
    """SHA-256 (hex) of a file that the optimizer's constructor has read before."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def method_of(config: Config) -> str:
    """The optimizer's name in tables, lower case; zeroshot or icl where nothing is trained."""
    target = config["optimizer"]["_target_"]
    if target == "experiments.baselines.ZeroShot":
        return "icl" if config["task"]["demonstrations"] else "zeroshot"
    return target.rpartition(".")[2].lower()


def trains(config: Config) -> bool:
    """Whether the optimizer makes steps; the ways of experiments.baselines.linear_probe make none."""
    return not config["optimizer"]["_target_"].startswith("experiments.baselines.linear_probe.")


def name_of(config: Config, model: str) -> str:
    """<model>-<task>-<optimizer>-<peft>."""
    parts = (model, config["task"]["name"], method_of(config), config["peft"]["name"])
    return "-".join(part.replace("/", "_") for part in parts)


def folder_of(config: Config, name: str, decides: str) -> Path:
    """The run's folder; `decides` is its hash."""
    runs = Path(config["paths"]["runs"])
    return runs / config["experiment"] / name / decides[:8] / f"seed{config['seed']}"


def seed_of(config: Config, kind: str) -> int:
    """One of `seeds`; null follows `seed`."""
    given = config["seeds"][kind]
    return config["seed"] if given is None else given

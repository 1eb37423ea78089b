"""Names a run by its configuration and the contents that it refers to: no torch, no weights.

runs/<experiment>/<model>-<task>-<optimizer>-<peft>/<hash8>/seed<k>/. The hash covers what decides the result.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.config.acting import MEMORY_ONLY, NOISE, noise_of, settled
from experiments.config.key import dataclass_in, hints, unhashed
from experiments.config.run_config import RunConfig

Config = RunConfig | Mapping[str, Any]  # mappings: what folders of any version hold, which the report reads

# What does not change the weights a run ends with, or enters by content (paths of models and data), is declared so.
OUTSIDE_HASH = unhashed(RunConfig)
OF_STEPS = {"budget", "batch", "schedule", "update", "stop", "select", "select_by"}  # of training alone
DRAWING = 1  # the rule by which rows are drawn (experiments.tasks.splits); one that changes makes other runs
FIRST_ORDER = ("zo.optimizers.AdamW", "zo.optimizers.SGD")
LOCAL = {
    name: unhashed(kind)
    for name, hint in hints(RunConfig).items()
    if (kind := dataclass_in(hint)) and unhashed(kind)
}
# Classes that have moved: the `_target_` in config.yaml of older runs -> today's.
MOVED_TARGETS = {
    "experiments.ways.LinearProbe": "experiments.baselines.LinearProbe",
    "experiments.ways.Untrained": "experiments.baselines.ZeroShot",
}
# Options that have left a class, at the values that meant nothing, and the class that has them now. A hash is still
# that of the one class with all of them, so that no run of an older version is made twice.
SPLIT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "zo.optimizers.FZOO": ("zo.optimizers.FZOOAblation", {"sides": "one", "baseline": "l0", "running": 0.0}),
    "zo.optimizers.MeZO": ("zo.optimizers.MeZOMomentum", {"momentum": 0.0, "horizon": 10}),
}
ONE_METHOD = {taken: whole for whole, (taken, _) in SPLIT.items()}
FILES = ("record",)  # arguments of an optimizer that name a file, which enters by content


def hash_of(config: Config, contents: Sequence[str], steps: int) -> str:
    """SHA-256 (hex) of all that decides the result but the seed: equal for the seeds of a setting.

    contents: fingerprints of the model and of the data's sources, which stand for their paths; what a seed draws of
    the sources is no part of it. steps: 0 where nothing is trained, and then all that concerns training leaves too.
    """
    kept = decisive(config, steps)
    kept["optimizer"] = {
        k: _digest(v) if k in FILES and v is not None else v for k, v in kept["optimizer"].items()
    }
    kept["contents"] = list(contents)
    kept["drawing"] = DRAWING
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=list).encode()).hexdigest()


def decisive(config: Config, steps: int) -> dict[str, Any]:
    """The part of a configuration that decides the result, seed and contents apart. steps: as for `hash_of`.

    An option of the optimizer that has no effect beside the others is at its default, and seeds of what is not drawn
    are left out, so that runs of equal bits are one.
    """
    config = as_mapping(config)
    outside = OUTSIDE_HASH | (set() if steps else OF_STEPS)
    kept = {
        group: {k: v for k, v in value.items() if k not in LOCAL.get(group, ())}
        if isinstance(value, Mapping)
        else value
        for group, value in config.items()
        if group not in outside
    }
    if "_target_" in config["optimizer"]:
        acting = _whole(settled(current_section(config["optimizer"])))
        kept["optimizer"] = {key: value for key, value in acting.items() if key not in MEMORY_ONLY}
    if isinstance(kept.get("seeds"), Mapping):
        noise = noise_of(config["optimizer"])
        unused = [kind for kind in NOISE if kind != noise] if steps else ["order", *NOISE]
        kept["seeds"] = {kind: seed for kind, seed in kept["seeds"].items() if kind not in unused}
    if "update" in kept:
        kept["update"] = update_of(config)
    if steps and config["ranks"]["share"] in ("batch", "both"):
        kept["share"] = config["ranks"]["share"]  # sums over parts of a batch are rounded otherwise
    return kept


def update_of(config: Config) -> str:
    """Returns how 16-bit weights take moves; resolves `update: auto` for this optimizer."""
    config = as_mapping(config)
    if config["update"] != "auto":
        return config["update"]
    return "master" if config["optimizer"]["_target_"] in FIRST_ORDER else "nearest"


def _digest(path: str) -> str:
    """SHA-256 (hex) of a file that the optimizer's constructor has read before."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def current_target(target: str) -> str:
    """Returns the class that a `_target_` names today; run folders keep the name of their day."""
    return MOVED_TARGETS.get(target, target)


def current_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a section with `_target_` as this version writes it: the class by its name, with its own options."""
    target = current_target(str(section["_target_"]))
    current = {**section, "_target_": target}
    if target in SPLIT:
        taken, options = SPLIT[target]
        if options.keys() & section.keys():
            current = settled({**options, **section, "_target_": taken})
            if all(current[name] == value for name, value in options.items()):
                current = {k: v for k, v in current.items() if k not in options} | {"_target_": target}
    return current


def _whole(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a section of today's as one class with all options had it: the form that the hash sees."""
    name = str(section["_target_"])
    target = ONE_METHOD.get(name, name)
    return {**SPLIT[target][1], **section, "_target_": target} if target in SPLIT else dict(section)


def method_of(config: Config) -> str:
    """The optimizer's name in tables, lower case; zeroshot or icl where nothing is trained."""
    config = as_mapping(config)
    target = current_target(config["optimizer"]["_target_"])
    if target == "experiments.baselines.ZeroShot":
        return "icl" if config["task"]["demonstrations"] else "zeroshot"
    target = ONE_METHOD.get(target, target)
    return target.rpartition(".")[2].lower()


def trains(config: Config) -> bool:
    """Returns whether the optimizer makes steps; the baselines of experiments.baselines make none."""
    target = config.optimizer.target if isinstance(config, RunConfig) else config["optimizer"]["_target_"]
    return not current_target(target).startswith("experiments.baselines.")


def name_of(config: Config, model: str) -> str:
    """Returns <model>-<task>-<optimizer>-<peft>."""
    config = as_mapping(config)
    parts = (model, config["task"]["name"], method_of(config), config["peft"]["name"])
    return "-".join(part.replace("/", "_") for part in parts)


def folder_of(config: RunConfig, name: str, decides: str) -> Path:
    """The run's folder; `decides` is its hash."""
    return Path(config.paths.runs) / config.experiment / name / decides[:8] / f"seed{config.seed}"


def seed_of(config: RunConfig, kind: str) -> int:
    """Returns the seed of one of `seeds`; null follows `seed`."""
    seed = getattr(config.seeds, kind)
    return config.seed if seed is None else seed


def as_mapping(config: Config) -> Mapping[str, Any]:
    """Returns a configuration as nested mappings."""
    return config.as_dict() if isinstance(config, RunConfig) else config

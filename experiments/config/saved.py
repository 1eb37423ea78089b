"""Reads config.yaml of a run that was started."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from experiments.config.model_config import ModelConfig
from experiments.config.schema import Fixed
from zo.errors import ConfigError


def load_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run that was started; raises ConfigError where there is none, or of another version."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run's folder: it has no config.yaml.")
    config = yaml.safe_load(path.read_text())
    config.setdefault("select_by", "metric")  # what runs did before these two keys
    config.get("stop", {}).setdefault("by", "metric")
    missing = [name for name in [*Fixed.model_fields, "model"] if name not in config]
    missing += [f"model.{f.name}" for f in fields(ModelConfig) if f.name not in config.get("model", {})]
    if missing:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: another version of zo wrote it. Take the commit that "
            "provenance.json beside it names."
        )
    if config["kernels"] == "compiled":  # a form of older versions; all forms give the same bits
        config["kernels"] = "auto"
    return config

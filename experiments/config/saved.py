"""Reads config.yaml of a run that was started."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiments.config.model_config import ModelConfig
from experiments.config.run_id import current_section
from experiments.config.schema import Fixed
from experiments.rundir.folder import SECTIONS
from experiments.rundir.json_files import read_configuration
from zo.errors import ConfigError


def load_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run that was started; raises ConfigError where there is none, or of another version."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run's folder: it has no config.yaml.")
    config, wrong = read_configuration(folder)
    if not config:
        raise ConfigError(
            f"{folder} cannot be read: {wrong}. Put a copy of the file back, or give the run's command again, which "
            "writes it anew."
        )
    config.setdefault("select_by", "metric")  # what runs did before these two keys
    if isinstance(config.get("stop"), dict):
        config["stop"].setdefault("by", "metric")
    sections = [*SECTIONS, *(n for n, f in Fixed.model_fields.items() if f.is_required())]
    missing = [name for name in sections if not isinstance(config.get(name), Mapping)]
    missing += [name for name in Fixed.model_fields if name not in config and name not in missing]
    model = config.get("model")
    known = model if isinstance(model, Mapping) else {}
    missing += [f"model.{f.name}" for f in fields(ModelConfig) if f.name not in known]
    if missing:
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: another version of zo wrote it, or it is damaged. Take the commit "
            "that provenance.json beside it names, or put a copy of the file back."
        )
    if config["kernels"] == "compiled":  # a form of older versions; all forms give the same bits
        config["kernels"] = "auto"
    if isinstance(config["optimizer"].get("_target_"), str):
        config["optimizer"] = current_section(config["optimizer"])
    return config

"""Reads config.yaml of a run that was started."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from experiments.config.model_config import ModelConfig
from experiments.config.run_config import LAUNCHED_BY, RunConfig, parse
from experiments.config.run_id import current_section
from experiments.rundir.json_files import read_configuration
from zo.errors import ConfigError

SINCE = ("select_by", "tracker")  # keys that older runs lack, whose defaults are what those did


def load_config(folder: Path) -> RunConfig:
    """The configuration of a run that was started; raises ConfigError where there is none, or of another version."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run's folder: it has no config.yaml.")
    values, wrong = read_configuration(folder)
    if not values:
        raise ConfigError(
            f"{folder} cannot be read: {wrong}. Put a copy of the file back, or give the run's command again, which "
            "writes it anew."
        )
    if missing := _missing(values):
        raise ConfigError(
            f"{path} has no {', '.join(missing)}: another version of zo wrote it, or it is damaged. Take the commit "
            "that provenance.json beside it names, or put a copy of the file back."
        )
    if values["kernels"] == "compiled":  # a form of older versions; all forms give the same bits
        values["kernels"] = "auto"
    if isinstance(values["optimizer"].get("_target_"), str):
        values["optimizer"] = current_section(values["optimizer"])
    try:
        return parse(values)
    except ConfigError as error:
        raise ConfigError(
            f"{path} is of another version of zo, or damaged. Take the commit that provenance.json beside it names.\n"
            f"{error}"
        ) from error


def _missing(values: Mapping[str, Any]) -> list[str]:
    """Returns the keys that a run of this version has and the file lacks."""
    expected = [spec for spec in fields(RunConfig) if spec.name not in (*LAUNCHED_BY, *SINCE)]
    sections = [s.name for s in expected if s.default is MISSING and s.default_factory is MISSING]
    missing = [name for name in sections if not isinstance(values.get(name), Mapping)]
    missing += [spec.name for spec in expected if spec.name not in values and spec.name not in missing]
    model = values.get("model")
    known = model if isinstance(model, Mapping) else {}
    return [*missing, *(f"model.{f.name}" for f in fields(ModelConfig) if f.name not in known)]

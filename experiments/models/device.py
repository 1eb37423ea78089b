"""Finds the device of a model, and refuses one that this machine lacks before anything is loaded."""

from collections.abc import Mapping

import torch

from experiments.config.model_config import ModelConfig
from zo.errors import ConfigError


def device_of(config: ModelConfig) -> torch.device:
    """Returns the device of `model.device`. Raises ConfigError for a GPU that this machine does not have."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"model.device={config.device}: {_gpus_here()} Set model.device=cpu or auto.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("model.device=mps: torch finds no Apple GPU here. Set model.device=cpu or auto.")
    return device


def check_devices(config: ModelConfig) -> None:
    """Raises ConfigError for a GPU of `model.device` or `model.device_map` that this machine does not have."""
    device_of(config)
    if not isinstance(config.device_map, Mapping):
        return
    for module, place in config.device_map.items():
        text = str(place).removeprefix("cuda:")
        if text == "cuda" or text.isdecimal():
            index = 0 if text == "cuda" else int(text)
            if index >= torch.cuda.device_count():
                raise ConfigError(
                    f"model.device_map: {module or 'the whole model'} is to be on GPU {index}. {_gpus_here()} Name "
                    "another, or set model.device_map=null."
                )


def _gpus_here() -> str:
    count = torch.cuda.device_count()
    if not count:
        return "torch finds no CUDA device on this machine."
    return f"this machine has {count} CUDA device{'s' if count > 1 else ''}, counted from 0."

"""Marks the trained parameters of a loaded model, and attaches an adapter of the peft library if the mode has one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from experiments.config import peft_config
from experiments.models.loading import Loaded
from experiments.peft import adapters, parts, virtual


def attach(loaded: Loaded, choice: peft_config.Mode | Mapping[str, Any], seed: int = 0) -> Loaded:
    """Returns the model with its trained parameters marked (requires_grad); new ones are drawn from `seed`.

    The global generator is left as it was. A new head of a classifier is trained in every mode.
    Raises ConfigError if this model does not support the mode.
    """
    choice = peft_config.mode(choice)
    loaded.model.requires_grad_(isinstance(choice, peft_config.Full))
    if not isinstance(choice, peft_config.Full):
        with _own_generator(loaded, seed):
            loaded = _ATTACH[type(choice)](loaded, choice)
    return replace(loaded, model=loaded.model.eval())


@contextmanager
def _own_generator(loaded: Loaded, seed: int) -> Iterator[None]:
    """Seeds the global generators for new weights, and restores them afterwards."""
    devices = {p.device for p in loaded.model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


_ATTACH: dict[type[peft_config.Mode], Callable[[Loaded, Any], Loaded]] = {
    peft_config.Lora: adapters.lora,
    peft_config.IA3: adapters.ia3,
    peft_config.Prefix: virtual.prefix,
    peft_config.Prompt: virtual.prompt,
    peft_config.BitFit: parts.bitfit,
    peft_config.Layers: parts.layers,
    peft_config.Head: parts.head,
}

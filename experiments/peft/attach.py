"""Attach adapters to a loaded model and say what is trained."""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from experiments.choices import PeftChoice, read
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from zo.errors import ConfigError


def attach(loaded: Loaded, choice: PeftChoice | dict[str, Any], seed: int = 0) -> Loaded:
    """The model with its trained parameters marked (requires_grad); new ones are drawn from `seed`.

    The global generator is left as it was. Adapters have the base model's dtype.
    """
    choice = read(PeftChoice, choice, "peft")
    if choice.name == "none":
        loaded.model.requires_grad_(True)
        return loaded
    return replace(loaded, model=_lora(loaded, choice, seed).eval())


def _lora(loaded: Loaded, choice: PeftChoice, seed: int) -> nn.Module:
    from peft import LoraConfig, TaskType, get_peft_model  # late: it takes seconds to import

    tasks = {"causal": TaskType.CAUSAL_LM, "masked": None, "classifier": TaskType.SEQ_CLS}
    pooled = isinstance(loaded.model, MeanPooled)
    config = LoraConfig(
        task_type=None if pooled else tasks[loaded.family],
        r=choice.r,
        lora_alpha=choice.alpha,  # type: ignore[arg-type]  # peft divides it by r; it need not be whole
        target_modules=list(choice.targets) if choice.targets is not None else None,
        lora_dropout=0.0,
        bias="none",
        modules_to_save=["head"]
        if pooled
        else None,  # of its own accord peft trains the head of a SEQ_CLS model
    )
    devices = [loaded.device] if loaded.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore", FutureWarning)  # about names that peft still uses in transformers
        try:
            return get_peft_model(loaded.model, config, autocast_adapter_dtype=False)  # type: ignore[arg-type]
        except ValueError as error:
            names = sorted(
                {n.rsplit(".", 1)[-1] for n, m in loaded.model.named_modules() if isinstance(m, nn.Linear)}
            )
            raise ConfigError(
                f"peft.targets={choice.targets}: {str(error).splitlines()[0]} "
                f"The model's linear layers are {', '.join(names)}."
            ) from error

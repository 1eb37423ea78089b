"""Puts an adapter that `save` wrote on its base model again, by peft, and the head of a pooled model beside it."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from torch import nn

from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.peft import virtual


def load_adapter(base: Loaded, folder: Path) -> Loaded:
    """The base model with the adapter that `save` wrote, and the head of a pooled one."""
    pooled = base.model if isinstance(base.model, MeanPooled) else None
    wide = PeftConfig.from_pretrained(str(folder)).peft_type == "IA3"  # see experiments.peft.adapters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about names that peft still uses in transformers
        target: Any = base.model if pooled is None else pooled.encoder
        model: nn.Module = PeftModel.from_pretrained(target, str(folder), autocast_adapter_dtype=wide)
    if pooled is not None:
        pooled.encoder = model
        pooled.load_head(folder)
        model = pooled
    virtual.finish(model)
    return replace(base, model=model.eval())

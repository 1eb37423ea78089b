"""Save a trained model as a Hugging Face or PEFT adapter folder, safetensors only, all of it or nothing."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from experiments.models.head import adapter_of
from experiments.models.loading import Loaded, quiet
from experiments.models.pooling import MeanPooled
from experiments.peft import virtual
from experiments.rundir.folder import follow_umask
from zo.errors import ConfigError


def save(loaded: Loaded, folder: Path) -> None:
    """Write model and tokenizer. They are written beside `folder`, which takes its place at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        # Unless told, an adapter asks the hub whether its base model has the same vocabulary.
        told = {} if adapter_of(loaded.model) is None else {"save_embedding_layers": False}
        with quiet():
            loaded.model.save_pretrained(unfinished, **told)  # type: ignore[operator]  # all that load() gives have it
        loaded.tokenizer.save_pretrained(unfinished)
        follow_umask(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def load_adapter(base: Loaded, folder: Path) -> Loaded:
    """The base model with the adapter that `save` wrote, and the head of a pooled one."""
    from peft import PeftConfig, PeftModel  # late: it takes seconds to import

    if not (folder / "adapter_config.json").is_file():
        raise ConfigError(f"{folder} has no adapter_config.json, so it holds no adapter.")
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

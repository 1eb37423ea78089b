"""Attaches LoRA and (IA)³ through the peft library.

(IA)³ scales keys, values and what enters the second feed-forward layer. The library's own lists scale queries
instead of keys or values for OPT, Phi, Qwen and Gemma, and for BERT and RoBERTa also what enters the attention's
output layer, which are the values a second time; the default here is the paper's choice on each architecture.
The factors stand near 1, where bfloat16 is spaced by 0.004 to 0.008, so they stay in fp32 (as peft has them by
default); all other adapters have the dtype of the model.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers.pytorch_utils import Conv1D

from experiments.config.peft_config import IA3, Lora
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from zo.errors import ConfigError

SCALED = ("k_proj", "v_proj", "key", "value", "c_attn")  # GPT-2's fused c_attn includes the queries
FEEDFORWARD = ("fc2", "down_proj", "output.dense", "mlp.c_proj")


def lora(loaded: Loaded, choice: Lora) -> Loaded:
    """Attaches low-rank adapters; B starts at zero, so that the model's outputs are unchanged."""
    from peft import LoraConfig  # imported late: it takes seconds

    _check_names(loaded, choice.targets, "targets")
    config = LoraConfig(
        task_type=task_type(loaded),
        r=choice.r,
        lora_alpha=choice.alpha,  # type: ignore[arg-type]  # peft divides it by r, so it need not be an integer
        target_modules=list(choice.targets) if choice.targets is not None else None,
        lora_dropout=0.0,
        bias="none",
    )
    return wrapped(loaded, config, f"peft.targets={choice.targets}")


def ia3(loaded: Loaded, choice: IA3) -> Loaded:
    """Attaches scaling factors that start at one."""
    from peft import IA3Config  # imported late: it takes seconds

    _check_names(loaded, choice.targets, "targets")
    _check_names(loaded, choice.feedforward, "feedforward")
    names = _linears(loaded.model)
    scaled = _matching(names, SCALED if choice.targets is None else choice.targets)
    feedforward = _matching(names, FEEDFORWARD if choice.feedforward is None else choice.feedforward)
    if choice.feedforward is None:
        feedforward = [name for name in feedforward if "attention" not in name]
    if choice.targets is None and not scaled:
        raise ConfigError(
            f"peft=ia3: the key and value layers of {type(loaded.model).__name__} are unknown. "
            f"Name them as peft.targets. {_layer_names(loaded)}"
        )
    targets = [*scaled, *feedforward]
    config = IA3Config(task_type=task_type(loaded), target_modules=targets, feedforward_modules=feedforward)
    return wrapped(loaded, config, f"peft.targets={choice.targets}", autocast=True)


def task_type(loaded: Loaded) -> Any:
    """Returns peft's task type for the family; of a pooled encoder peft sees only the encoder."""
    from peft import TaskType

    if isinstance(loaded.model, MeanPooled):
        return TaskType.FEATURE_EXTRACTION
    return {"causal": TaskType.CAUSAL_LM, "masked": None, "classifier": TaskType.SEQ_CLS}[loaded.family]


def wrapped(loaded: Loaded, config: Any, option: str, autocast: bool = False) -> Loaded:
    """Wraps the model, or a pooled model's encoder, in an adapter; a pooled model's head is trained too.

    option: the user's override, for the ConfigError about missing modules. autocast: keep adapters in fp32.
    """
    from peft import get_peft_model

    target = loaded.model.encoder if isinstance(loaded.model, MeanPooled) else loaded.model
    if new_pooler(loaded) is not None:
        config.modules_to_save = ["pooler"]  # peft adds the classifier itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses deprecated names of transformers
        # peft corrects this for GPT-2 itself.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        try:
            model = get_peft_model(target, config, autocast_adapter_dtype=autocast)  # type: ignore[arg-type]
        except ValueError as error:
            raise ConfigError(f"{option}: {str(error).splitlines()[0]} {_layer_names(loaded)}") from error
    if not isinstance(loaded.model, MeanPooled):
        return replace(loaded, model=model)
    loaded.model.encoder = model
    loaded.model.head.requires_grad_(True)
    return loaded


def new_pooler(loaded: Loaded) -> nn.Module | None:
    """Returns the pooler before a classifier's own head if the checkpoint lacks it, else None.

    Such a pooler is part of the new head, so it must be trained.
    """
    poolers = [m for name, m in loaded.model.named_modules() if name.endswith(".pooler")]
    if loaded.family != "classifier" or isinstance(loaded.model, MeanPooled) or not poolers:
        return None
    for path in loaded.folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if any("pooler." in key for key in file.keys()):  # noqa: SIM118  # the file is not a mapping
                return None
    return poolers[0]


def _check_names(loaded: Loaded, names: Sequence[str] | None, key: str) -> None:
    """Raises ConfigError for a name that no module has, because peft ignores unknown names silently."""
    modules = [name for name, _ in loaded.model.named_modules()]
    if missing := [name for name in names or () if not _matching(modules, [name])]:
        raise ConfigError(
            f"peft.{key}={names}: no layer is called {', '.join(missing)}. {_layer_names(loaded)}"
        )


def _linears(model: nn.Module) -> list[str]:
    target = model.encoder if isinstance(model, MeanPooled) else model
    return [name for name, module in target.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def _matching(names: Sequence[str], endings: Sequence[str]) -> list[str]:
    return [name for name in names if any(name == end or name.endswith(f".{end}") for end in endings)]


def _layer_names(loaded: Loaded) -> str:
    leaf_names = sorted({name.rsplit(".", 1)[-1] for name in _linears(loaded.model)})
    return f"The model's linear layers are {', '.join(leaf_names)}."

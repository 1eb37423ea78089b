"""Places a model's weights on one device, several, or quantised, and refuses what cannot work.

A model over several devices is run by hooks that take each part's inputs to where the part is, and the output
back. They are module hooks, not accelerate's, which put another forward into every module: the executor then
knows no linear layer or embedding any more and would perturb whole tables of which a batch needs a few rows.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import ModelOutput

from experiments.config.model_config import ModelConfig
from experiments.config.peft_config import ADAPTERS
from experiments.rundir.code_places import typed_command
from zo.errors import ConfigError
from zo.rank_env import RankInfo, devices_of, rank_info

_ROWS, _BLOCK = 32, 64  # of 4-bit weights on a CPU: rows that are packed together, numbers that share a scale
HEADS = ["lm_head", "cls", "embed_out", "classifier", "score"]  # kept in model.dtype: logits are sensitive


def arguments(choice: ModelConfig, device: torch.device) -> dict[str, Any]:
    """Returns from_pretrained's arguments for devices and bits; none for a model that is moved afterwards."""
    options: dict[str, Any] = {}
    if choice.device_map is not None:
        options["device_map"] = (
            choice.device_map if isinstance(choice.device_map, str) else dict(choice.device_map)
        )
        own = own_devices(rank_info(os.environ), torch.cuda.device_count(), choice)
        if own is not None:
            options["max_memory"] = {index: torch.cuda.mem_get_info(index)[0] for index in own}
    if choice.quantization is not None:
        options.setdefault("device_map", {"": str(device)})
        options["quantization_config"] = _quantization(choice.quantization, choice.dtype)
    return options


def own_devices(place: RankInfo, visible: int, choice: ModelConfig) -> list[int] | None:
    """Returns the GPUs for the layers of one of several processes; None for a single process, which has all."""
    if place.size == 1 or not isinstance(choice.device_map, str) or not visible:
        return None
    return devices_of(place, visible, max(1, choice.resources.gpus))


def _quantization(kind: str, dtype: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantization={kind} needs the package bitsandbytes: pip install bitsandbytes"
        )
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=HEADS)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        llm_int8_skip_modules=HEADS,
    )


def check_quantized(quantization: str | None, mode: str) -> None:
    """Raises ConfigError if a mode would train quantised weights: they are integers."""
    if quantization is not None and mode not in ADAPTERS:
        raise ConfigError(
            f"model.quantization={quantization}: quantised weights cannot be trained, and peft={mode} trains "
            f"weights of the model itself. Choose one of {', '.join(f'peft={name}' for name in ADAPTERS)}, or "
            f"model.quantization=null."
        )


def check_checkpoint(config: Mapping[str, Any], where: str, mode: str) -> None:
    """Raises ConfigError if a checkpoint's weights are integers already and would be trained."""
    stated = config.get("quantization_config")
    if not stated:
        return
    kind = str(stated.get("quant_method")) if isinstance(stated, Mapping) else "an unknown way"
    if kind != "bitsandbytes":
        raise ConfigError(
            f"{where} is a checkpoint whose weights are quantised already ({kind}), which is not supported. Take the "
            f"unquantised checkpoint, with model.quantization for fewer bits."
        )
    if mode not in ADAPTERS:
        raise ConfigError(
            f"{where} is a checkpoint whose weights are quantised already ({kind}), and peft={mode} trains weights of "
            f"the model itself. Choose one of {', '.join(f'peft={name}' for name in ADAPTERS)}, or take the "
            f"unquantised checkpoint."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"{where} needs the package bitsandbytes: pip install bitsandbytes")


def check_loaded(model: nn.Module, choice: ModelConfig) -> None:
    """Raises ConfigError if weights are not in memory: offloaded by a device map, or missing in the checkpoint."""
    away = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if away:
        more = f" and {len(away) - 1} more" if len(away) > 1 else ""
        raise ConfigError(
            f"model.device_map={choice.device_map}: the devices do not hold the whole model, {away[0]}{more} would be "
            f"offloaded, and every forward would fetch them anew. Ask for more GPUs, a smaller model.dtype, or "
            f"model.quantization with adapters; {typed_command('estimate')} says what is needed."
        )


def check_packed(model: nn.Module, choice: ModelConfig) -> None:
    """Raises ConfigError for layers of 4 bits that bitsandbytes cannot compute with on this machine's CPU.

    Where the processor has bfloat16 instructions, it packs 32 rows of a weight together, and a row is a whole number of
    the blocks that share a scale.
    """
    if choice.quantization not in ("nf4", "fp4"):
        return
    narrow = [
        f"{name} ({module.in_features} to {module.out_features})"
        for name, module in model.named_modules()
        if getattr(module, "support_avx512bf16_for_cpu", False)
        and isinstance(module, nn.Linear)
        and module.weight.device.type == "cpu"
        and (module.out_features % _ROWS or module.in_features % _BLOCK)
    ]
    if narrow:
        more = f" and {len(narrow) - 1} more" if len(narrow) > 1 else ""
        raise ConfigError(
            f"model.quantization={choice.quantization}: on this CPU bitsandbytes computes with 4 bits only where a "
            f"layer's input is a multiple of {_BLOCK} wide and its output of {_ROWS}, unlike {narrow[0]}{more}. Take "
            f"model.quantization=int8 or null: so narrow a model needs no 4 bits."
        )


def spread(model: PreTrainedModel) -> None:
    """Makes a model on several devices runnable; does nothing to one on a single device."""
    places: Mapping[str, Any] = getattr(model, "hf_device_map", None) or {}  # set by from_pretrained alone
    if len(set(places.values())) < 2:
        return
    remove_hook_from_module(model, recurse=True)
    bring(model, list(places))


def bring(model: nn.Module, parts: Sequence[str]) -> None:
    """Moves inputs to each module's device, and the model's output back to its input's device."""
    for name in parts:
        module = model.get_submodule(name)
        own = next(module.parameters(), next(module.buffers(), None))
        if own is not None:
            module.register_forward_pre_hook(_Bring(own.device), with_kwargs=True)
    model.register_forward_hook(_take_back, with_kwargs=True)


class _Bring:
    """Moves a module's inputs to its device."""

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return _to(args, self.device), _to(kwargs, self.device)


def _take_back(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Moves the output to the device of the first input."""
    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if given is None:
        return output
    if not isinstance(output, ModelOutput):
        return _to(output, given.device)
    for name, value in output.items():
        output[name] = _to(value, given.device)
    return output


def _to(value: Any, device: torch.device) -> Any:
    """Moves tensors, also in tuples, lists and dicts, to a device; a cache object stays."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_to(item, device) for item in value)
    if type(value) is dict:
        return {name: _to(item, device) for name, item in value.items()}
    return value

"""Names of trained tensors, which do not depend on what wraps the model.

A parameter's random numbers hang on its name, so the name must not change when a model is compiled,
sharded or given an adapter: the wrappers' parts are stripped, and tied weights take the first of their
names in sorted order.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import nn

from zo.errors import ConfigError
from zo.noise import id_of

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "base_layer"}
_PREFIXES = ("module.", "base_model.model.")


def canonical(name: str) -> str:
    """The name without the parts that torch.compile, DDP, FSDP and PEFT put in."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    while True:
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        else:
            return name


Parameters = nn.Module | Iterable[tuple[str, nn.Parameter]]


def trained(params: Parameters) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by canonical name, sorted.

    params: a module (best: all names of tied weights are seen) or what `named_parameters()` gives.
    Raises ConfigError when nothing is trainable, two tensors share a name, an id or memory, or a tensor cannot
    be trained (offloaded to meta, not floating point, not contiguous).
    """
    named = params.named_parameters(remove_duplicate=False) if isinstance(params, nn.Module) else params
    names: dict[int, list[str]] = {}
    tensors: dict[int, nn.Parameter] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            names.setdefault(id(parameter), []).append(canonical(name))
            tensors[id(parameter)] = parameter
    found: dict[str, nn.Parameter] = {}
    for key, parameter in tensors.items():
        name = min(names[key])
        if name in found:
            raise ConfigError(
                f"Two parameters are both called {name!r} once wrappers are stripped. Rename one."
            )
        _check(name, parameter)
        found[name] = parameter
    if not found:
        raise ConfigError(
            "No parameter requires a gradient, so there is nothing to train. Set requires_grad."
        )
    if len({id_of(name) for name in found}) < len(found):
        raise ConfigError("Two parameter names have the same 64-bit id. Rename one of them.")
    _check_apart(found)
    return dict(sorted(found.items()))


def _check_apart(found: dict[str, nn.Parameter]) -> None:
    """Raises ConfigError where two tensors lie in the same memory, which every move would change twice."""
    places = sorted(
        (str(tensor.device), tensor.data_ptr(), name) for name, tensor in found.items() if tensor.numel()
    )
    for (device, start, name), (other_device, other_start, other) in pairwise(places):
        if device == other_device and other_start < start + found[name].nbytes:
            raise ConfigError(
                f"{name} and {other} are two parameters in the same memory, so a move would change it twice. Tie them "
                "as one parameter (b.weight = a.weight, not b.weight.data = a.weight.data), or train one of them."
            )


def _check(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_meta:
        raise ConfigError(
            f"{name} is on the meta device (offloaded): its weights cannot be moved. Load it whole."
        )
    if parameter.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ConfigError(
            f"{name} is {parameter.dtype}; float32, bfloat16 and float16 can be trained. "
            "Convert it, or freeze it with requires_grad = False."
        )
    if not parameter.is_contiguous():
        raise ConfigError(
            f"{name} is not contiguous, so its elements have no order in memory. Call .contiguous()."
        )

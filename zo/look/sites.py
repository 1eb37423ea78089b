"""Sites: the modules that read trained weights when they are called, each with its weights.

Dispatch is on the function that is a module's forward, never on its class: a subclass that computes
something else is another module.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from zo.errors import LookError
from zo.weights import Weights

_KINDS = {
    nn.Linear.forward: "linear",
    nn.Embedding.forward: "embedding",
    nn.LayerNorm.forward: "layer_norm",
}


@dataclass(eq=False)
class Site:
    """number: place in the model. kind: linear, embedding, layer_norm or swap (any other module).

    slots: for every trained weight the module that holds it, its attribute there and its canonical name.
    """

    number: int
    module: nn.Module
    kind: str
    slots: list[tuple[nn.Module, str, str]] = field(default_factory=list)

    @cached_property
    def own(self) -> dict[str, str]:
        """The canonical names of the module's own trained weights, by attribute."""
        return {slot: name for owner, slot, name in self.slots if owner is self.module}


class Watched(dict[str, Any]):
    """A module's parameters that know which of them were read: one that is not was not perturbed either."""

    def __init__(self, parameters: dict[str, Any]):
        super().__init__(parameters)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def find(model: nn.Module, weights: Weights, frozen_linears: bool) -> list[Site]:
    """All sites of a model.

    A weight held by a container that is never called (nn.ParameterDict and the like) belongs to the nearest
    module above it. frozen_linears: also list linear layers without trained weights, which a stacked forward
    must evaluate group by group where bits have to be those of a sequential one.
    Raises LookError when a trained weight is not in the model.
    """
    names = {id(tensor): name for name, tensor in weights.tensors.items()}
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    sites: dict[int, Site] = {}
    found = set()
    for module in model.modules():
        slots = [
            (module, attribute, names[id(parameter)])
            for attribute, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in names
        ]
        kind = _kind(module)
        if not slots and not (frozen_linears and kind == "linear"):
            continue
        owner = module
        while not _called(owner):
            if id(owner) not in parents:
                raise LookError(f"{slots[0][2]} is held by a {type(owner).__name__} that is never called.")
            owner = parents[id(owner)]
        site = sites.setdefault(id(owner), Site(len(sites), owner, kind))
        site.slots += slots
        if owner is not module:
            site.kind = "swap"  # it reads weights that are not its own
        found.update(name for _, _, name in slots)
    if missing := sorted(weights.tensors.keys() - found):
        raise LookError(f"The model does not hold {missing[0]}: the optimizer was made for another model.")
    return list(sites.values())


def _kind(module: nn.Module) -> str:
    if "forward" in module.__dict__ or (isinstance(module, nn.Embedding) and module.max_norm is not None):
        return "swap"
    return _KINDS.get(type(module).forward, "swap")


def _called(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward or "forward" in module.__dict__


def refuse_compiled(model: nn.Module) -> None:
    """Raises LookError for a model of torch.compile, whose compiled forward does not see replaced ones."""
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise LookError(
                f"{f'The part {name} of the model' if name else 'The model'} is compiled by torch.compile, and a "
                "compiled forward does not see perturbed weights. Give the module as it was before: "
                "torch.compile(model)._orig_mod, or do not call module.compile()."
            )

"""Holds the options of a backward pass.

They are fp32 gradients of 16-bit parameters, a scaled loss, and layers that are computed twice instead of kept.

    with how.around(model):
        (how.factor(rows) * loss).backward()
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zo.errors import ConfigError


@dataclass(frozen=True)
class Backward:
    """Says how a gradient is computed.

    masters: fp32 tensors by 16-bit parameter. Their .grad receives the gradient, and the parameter keeps none: a 16-bit
        gradient lives for one layer, and micro-batches are added in fp32.
    scale: factor of the losses in the backward pass, so that small gradients of float16 do not vanish; it is taken
        off the gradients again. None: no scaling.
    checkpointing: keep the inputs of layers alone, and compute the rest again on the way back.
    """

    masters: Mapping[Tensor, Tensor] = field(default_factory=dict)
    scale: float | None = None
    checkpointing: bool = False

    def factor(self, rows: int) -> float:
        """The factor of a batch's summed losses: the scale is one of their mean, whatever the size of the batch."""
        return 1.0 if self.scale is None else self.scale / rows

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        """A context in which backward passes of this model are computed this way."""
        with ExitStack() as stack:
            for parameter, master in self.masters.items():
                if parameter.requires_grad:
                    hook = partial(_collect, master)
                    stack.callback(parameter.register_post_accumulate_grad_hook(hook).remove)
            if self.checkpointing:
                stack.enter_context(checkpointed(model))
            yield

    def clear(self) -> None:
        """Drops the masters' gradients."""
        for master in self.masters.values():
            master.grad = None


def _collect(master: Tensor, parameter: Tensor) -> None:
    """Adds a 16-bit parameter's gradient to the fp32 one of its master, and drops it."""
    if parameter.grad is not None:
        gradient, parameter.grad = parameter.grad, None
        master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """A context in which layers of stacks (nn.ModuleList) keep only their inputs for the backward pass.

    By torch itself, so any model with such a stack will do, in train mode (the same dropout again) and in eval mode.
    Raises ConfigError where there is none.
    """
    layers = list(_layers(model))
    if not layers:
        raise ConfigError(
            f"gradient_checkpointing computes layer by layer, and {type(model).__name__} has no nn.ModuleList of "
            "layers. Set optimizer.gradient_checkpointing=false."
        )
    before = [layer.__dict__.get("forward") for layer in layers]
    # A decoder's cache of keys and values would be filled twice.
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    caching = {id(config): config for config in configs if _caches(config)}.values()
    try:
        for config in caching:
            config.use_cache = False
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for config in caching:
            config.use_cache = True
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def _caches(config: Any) -> bool:
    return getattr(config, "use_cache", False) is True


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of the outermost stacks: one within a layer is computed again with it."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)

"""Slopes without a second point: a forward pass on dual numbers (forward-mode differentiation).

    (L(θ), zᵀ∇L(θ)) from one pass that carries a value and a tangent; no ε, no backward pass.

The trained weights of a module become dual (value θ, tangent z) while its own forward runs and are dropped after, so
that of the tangents no more than one module's exist at a time; activations are carried twice. Attention runs in
torch's plain form, for its fused kernels have no tangents. In a 16-bit model tangents are of its dtype.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zo.directions import Directions, Key
from zo.errors import LookError
from zo.look import sites
from zo.look.sites import Site, Watched
from zo.weights import Weights


class Duals:
    """Replaces the forward of modules that hold trained weights while `along` is open.

    used: canonical names of the weights that any forward has read so far.
    """

    def __init__(self, model: nn.Module, weights: Weights, directions: Directions):
        self.model = model
        self.weights = weights
        self.directions = directions
        self.sites = sites.find(model, weights, frozen_linears=False)
        self.used: set[str] = set()

    @contextmanager
    def along(self, key: Key) -> Iterator[None]:
        """Evaluations inside have the tangent z of this key."""
        replaced: list[tuple[nn.Module, Any]] = []
        try:
            with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                for site in self.sites:
                    replaced.append((site.module, site.module.__dict__.get("forward")))
                    site.module.__dict__["forward"] = partial(self._forward, site, site.module.forward, key)
                yield
        except (NotImplementedError, RuntimeError) as error:
            if "forward AD" not in str(error) and "forward mode AD" not in str(error):
                raise
            raise LookError(
                f"{type(self.model).__name__} has an operation without a forward-mode derivative: {error}. Use a "
                "method that compares two points, as optimizer=mezo."
            ) from error
        finally:
            for module, forward in replaced:
                if forward is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = forward

    def _forward(self, site: Site, original: Any, key: Key, *args: Any, **kwargs: Any) -> Any:
        """The site's own forward with dual weights."""
        if site.kind == "linear":  # where rows lie apart, torch would copy the matrix for each of them
            args = tuple(each.contiguous() if isinstance(each, Tensor) else each for each in args)
        held = {id(owner): (owner, owner._parameters) for owner, _, _ in site.slots}
        shown = {number: Watched(parameters) for number, (_, parameters) in held.items()}
        for owner, attribute, name in site.slots:
            value = self.weights.tensors[name].detach()
            tangent = self.weights.direction(name, key, self.directions).to(value.dtype)
            shown[id(owner)][attribute] = forward_ad.make_dual(value, tangent)
        try:
            for number, (owner, _) in held.items():
                owner.__dict__["_parameters"] = shown[number]
            return original(*args, **kwargs)
        finally:
            for owner, parameters in held.values():
                owner.__dict__["_parameters"] = parameters
            self.used.update(name for owner, slot, name in site.slots if slot in shown[id(owner)].read)


def unpack(losses: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (values, tangents) of losses computed inside `along`; tangents are 0 without trained weights."""
    value, tangent = forward_ad.unpack_dual(losses)
    return value, torch.zeros_like(value) if tangent is None else tangent

"""Uniform on the sphere of radius √d: z = √d g/‖g‖ with g ~ N(0, I) over all trained weights.

‖z‖² = d exactly, so that every probe lies at the same distance. The norm costs one more pass over the numbers;
it is summed in float64, in rows of 1024 that do not depend on how a tensor is cut, then exactly (math.fsum).
"""

import math

from zo.directions.base import Directions, Key, Terms, Theta
from zo.random import GAUSSIANS

_ROW = 1024
_KEPT = 256  # norms


class Sphere(Directions):
    """Gaussians whose scale is that of a term times √d/‖g‖."""

    name = "sphere"
    stream = GAUSSIANS

    def __init__(self) -> None:
        self._kept: dict[Key, float] = {}

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        return [(key, scale * self._factor(weights, key)) for key, scale in terms]

    def _factor(self, weights: Theta, key: Key) -> float:
        """√d/‖g‖ of one key, kept from the first tensor that asks to the last."""
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            parts, d = [], 0
            for name in weights.ids:
                flat = weights.numbers(name, self.stream, [(key, 1.0)]).view(-1).cpu()
                d += flat.numel()
                whole = flat.numel() // _ROW * _ROW
                parts += flat[:whole].view(-1, _ROW).double().square().sum(1).tolist()
                parts += flat[whole:].double().square().tolist()
            self._kept[key] = math.sqrt(d / math.fsum(parts))
        return self._kept[key]

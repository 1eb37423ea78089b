"""Uniform on the sphere of radius √d: z = √d g/‖g‖ with g ~ N(0, I) over all trained weights.

‖z‖² = d exactly, so that every probe lies at the same distance. The norm costs one more pass over the numbers;
it is summed in float64, in an order that depends on nothing else (zo/kernels/sums.py).
"""

import math

from zo.directions.direction import Directions, Key, Terms, Theta
from zo.kernels.sums import squares
from zo.noise import GAUSSIANS

_KEPT = 1 << 14  # norms, more than a step has directions: each is asked for by one tensor after another


class Sphere(Directions):
    """Gaussians whose scale is that of a term times √d/‖g‖."""

    name = "sphere"
    stream = GAUSSIANS

    def __init__(self) -> None:
        self._kept: dict[Key, float] = {}

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        return [(key, scale * self._factor(weights, key)) for key, scale in terms]

    def _factor(self, weights: Theta, key: Key) -> float:
        """Returns √d/‖g‖ of one key, stored from the first tensor that needs it to the last."""
        if key not in self._kept:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            parts, d = [], 0
            for name in weights.ids:
                numbers = weights.numbers(name, self.stream, [(key, 1.0)]).cpu()
                d += numbers.numel()
                parts += squares(numbers)
            self._kept[key] = math.sqrt(d / math.fsum(parts))
        return self._kept[key]

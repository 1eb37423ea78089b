"""A direction that an optimizer has computed itself: momentum, an orthogonalised core, a preconditioned sum."""

from collections.abc import Callable

from torch import Tensor

from zo.directions.base import Directions, Terms, Theta
from zo.random import GAUSSIANS


class Given(Directions):
    """z of a tensor is what `make(name)` returns; the key of a term is not looked at.

    make: name → fp32 tensor of the weight's shape, or factors (A [m, r], B [n, r]) of z = A Bᵀ. It is called
        for one tensor after another while the weights move, so a method needs no second copy of all weights.
    Only for moves: what is given cannot be made again from a key.
    """

    name = "given"
    stream = GAUSSIANS
    stateful = True

    def __init__(self, make: Callable[[str], Tensor | tuple[Tensor, Tensor]]):
        self.make = make

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        made, scale = self.make(name), sum(c for _, c in terms)
        if isinstance(made, tuple):
            a, b = made
            made = (a if rows is None else a[rows]) @ b.T
        elif rows is not None:
            made = made[rows]
        whole = made * scale
        return whole.view(weights.source(name).shape) if rows is None else whole

"""A direction that an optimizer has computed itself: momentum, an orthogonalised core, a preconditioned sum."""

from collections.abc import Callable

from torch import Tensor

from zo.directions.direction import Directions, Terms, Theta
from zo.directions.lowrank import is_matrix
from zo.noise import GAUSSIANS


class Explicit(Directions):
    """z of a tensor is what `make(name)` returns; the key of a term is not looked at.

    make: name → fp32 tensor of a vector's shape, or for a matrix factors (A [m, r], B [n, r]) of z = A Bᵀ. It is
        called for one tensor after another while the weights move, so a method needs no second copy of all weights.
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
        made = self.make(name)
        assert isinstance(made, Tensor), "factors are asked for as such"
        whole = made * sum(c for _, c in terms)
        return whole.view(weights.source(name).shape) if rows is None else whole[rows]

    def factors(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor] | None:
        if not is_matrix(weights.source(name)):
            return None
        made = self.make(name)
        assert isinstance(made, tuple), "a matrix has factors"
        return made[0] * sum(c for _, c in terms), made[1]

"""Directions of one length in the eyes of a metric: z / √H, with an H that changes as the run goes on."""

from collections.abc import Callable, Sequence

from zo.directions.direction import Directions, Terms, Theta
from zo.kernels.transforms import DivideBySqrt, DivideBySqrtOuter


class Scaled(Directions):
    """z ~ N(0, H⁻¹): the numbers of a plain kind, each divided by the root of H there.

    hessian: tensor's name → H, whole or as a product of rows and columns.
    It reads what H is when it is asked, so the z of an older step cannot be made again.
    """

    name = "scaled"
    stateful = True

    def __init__(self, base: Directions, hessian: Callable[[str], DivideBySqrt | DivideBySqrtOuter]):
        self.base = base
        self.stream = base.stream
        self.hessian = hessian

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def entries(self, weights: Theta, name: str, lists: Sequence[Terms]) -> DivideBySqrt | DivideBySqrtOuter:
        return self.hessian(name)

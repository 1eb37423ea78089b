"""Directions of one length in the eyes of a metric: z / √H, with an H that changes as the run goes on."""

from collections.abc import Callable

from torch import Tensor

from zo.directions.base import Directions, Terms, Theta

_BLOCK = 1 << 16  # numbers scaled at a time: √H never exists as a whole


class Scaled(Directions):
    """z ~ N(0, H⁻¹): the numbers of a plain kind, each divided by the root of H there.

    hessian: tensor's name → H, fp32 of its shape.
    It reads what H is when it is asked, so the z of an older step cannot be made again.
    """

    name = "scaled"
    stateful = True

    def __init__(self, base: Directions, hessian: Callable[[str], Tensor]):
        self.base = base
        self.stream = base.stream
        self.hessian = hessian

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def under(self, name: str) -> Tensor | None:
        return self.hessian(name)


class ScaledByParts(Directions):
    """The same where no tensor holds H, but √H of any part can be made.

    divisor: (tensor's name, part) → √H, fp32; a slice asks for elements of the flattened tensor [n], a tensor of row
        numbers for those rows of a matrix [n, width].
    """

    name = "scaled"
    stateful = True

    def __init__(self, base: Directions, divisor: Callable[[str, slice | Tensor], Tensor]):
        self.base = base
        self.stream = base.stream
        self.divisor = divisor

    def plain(self, weights: Theta, name: str) -> bool:
        return False

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        made = weights.numbers(name, self.stream, terms, rows)
        if rows is not None:
            return made.div_(self.divisor(name, rows))
        flat = made.view(-1)
        for start in range(0, flat.numel(), _BLOCK):
            part = slice(start, min(start + _BLOCK, flat.numel()))
            flat[part].div_(self.divisor(name, part))
        return made

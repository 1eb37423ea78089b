"""Element-wise transforms of a sum of noise before it is added to a weight; kinds of direction choose them.

    DivideBySqrt(H)             Σ c z / √H                  H of the entry
    DivideBySqrtOuter(R, C)   Σ c z / √(R_i C_j)          of its row and column
    MaskLarge(w, h)         Σ c z where |w| ≤ h, else 0 of the sum's sign
    AddMomentum(m, b)           Σ c z + b_l m               b_l of the list of terms

These are the reference; native.cpp has them too. Every product, sum, quotient and root is rounded by itself, and a sum
with the signs of all its scales (and of b) turned gives the same with its sign turned. H, R, C and m are fp32.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from zo.kernels.adam_window import f32, roots


class Entries(ABC):
    """A number of every entry, and what is done with it."""

    @abstractmethod
    def at(self, part: slice | Tensor) -> Tensor:
        """The numbers of a run of elements of the flattened tensor, [n], or of rows of a matrix, [len(rows), width]."""

    @abstractmethod
    def join(self, total: Tensor, numbers: Tensor, index: int = 0) -> Tensor:
        """The sum of list number `index` and the numbers there; `total` may be written into."""

    def of(self, total: Tensor, part: slice | Tensor, index: int = 0) -> Tensor:
        """Transforms a part of a sum."""
        return self.join(total, self.at(part), index)


class DivideByRoot(Entries):
    """Sums over the root of a number H."""

    def join(self, total: Tensor, numbers: Tensor, index: int = 0) -> Tensor:
        return total.div_(roots(numbers))


@dataclass(frozen=True)
class DivideBySqrt(DivideByRoot):
    """H: of the weight's shape, positive."""

    H: Tensor

    def at(self, part: slice | Tensor) -> Tensor:
        return _part(self.H, part)


@dataclass(frozen=True)
class DivideBySqrtOuter(DivideByRoot):
    """R [m], C [n] of a weight that is a matrix [m, n], or of more dimensions, [m, …] of m n elements; positive."""

    R: Tensor
    C: Tensor

    def at(self, part: slice | Tensor) -> Tensor:
        if isinstance(part, Tensor):
            return torch.outer(self.R[part], self.C)
        places, n = torch.arange(part.start, part.stop, device=self.R.device), self.C.numel()
        return self.R[places // n] * self.C[places % n]


@dataclass(frozen=True)
class MaskLarge(Entries):
    """w: the weight itself. most: h, fp32 [1], not negative."""

    w: Tensor
    most: Tensor

    def at(self, part: slice | Tensor) -> Tensor:
        return _part(self.w, part)

    def join(self, total: Tensor, numbers: Tensor, index: int = 0) -> Tensor:
        return torch.where(
            numbers.float().abs() <= self.most, total, torch.zeros_like(total).copysign_(total)
        )


@dataclass(frozen=True)
class AddMomentum(Entries):
    """m: of the weight's shape. scales: b of each list of terms."""

    m: Tensor
    scales: tuple[float, ...]

    def at(self, part: slice | Tensor) -> Tensor:
        return _part(self.m, part)

    def join(self, total: Tensor, numbers: Tensor, index: int = 0) -> Tensor:
        return total.add_(numbers * f32(self.scales[index]))


def _part(numbers: Tensor, part: slice | Tensor) -> Tensor:
    return numbers[part] if isinstance(part, Tensor) else numbers.reshape(-1)[part]

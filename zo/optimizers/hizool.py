"""HiZOO-L: HiZOO with a factored Hessian (Zhao et al., ICLR 2025).

    z ~ N(0, I),  L₀ = L(θ),  L± = L(θ ± ε z / √H)                3 forward passes, as HiZOO (zo/optimizers/hizoo.py)
    Ĥ_ij = |L₊ + L₋ − 2 L₀| / 2ε² · H_ij |z_ij² − 1|
    R_i ← (1 − α_t) R_i + α_t mean_j Ĥ_ij                         for a matrix [m, n]: m + n numbers
    C_j ← (1 − α_t) C_j + α_t mean_i Ĥ_ij
    H_ij = R_i C_j / mean(R)
    θ ← θ − η ( (L₊ − L₋) / 2ε · z / √H + λ θ )

The paper names the method and its memory, a tenth of MeZO's, and its authors published no code. What is built here is
Adafactor's factoring (Shazeer & Stern, ICML 2018) of HiZOO's H: row and column means of each matrix, whose product is H
when H has rank one, and always has H's row and column sums. Vectors and scalars keep a whole H. Kept are R and
C / mean(R), so that H is the product of two numbers. Tensors of more dimensions are matrices [first, rest].

A move makes its noise twice, for the means must be known before the first weight moves. The means are sums in float64
over fixed pieces in fixed order. At α = 0 this is MeZO, bit for bit. State: (m + n) / mn fp32 copies of a matrix.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from zo.directions import Key
from zo.kernels.transforms import DivideBySqrtOuter
from zo.optimizers.hizoo import LEAST, MOST, HessianScaled, squares
from zo.weights import BLOCK


@final
@dataclass(eq=False, kw_only=True)
class HiZOOL(HessianScaled):
    """A diagonal of rank one a matrix: m + n numbers."""

    rule = "element"

    def begin(self) -> None:
        super().begin()
        self.rows: dict[str, Tensor] = {}
        self.columns: dict[str, Tensor] = {}
        for name, tensor in self.weights.tensors.items():
            height, width = shape(tensor)
            self.rows[name] = torch.ones(height, dtype=torch.float32, device=tensor.device)
            self.columns[name] = torch.ones(width, dtype=torch.float32, device=tensor.device)

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return 4 * sum(sum(shape(tensor)) for tensor in tensors)

    def state(self) -> dict[str, Tensor]:
        parts = {"R": self.rows, "C": self.columns}
        return {f"{letter}:{name}": t for letter, part in parts.items() for name, t in part.items()}

    def hessian(self, name: str) -> DivideBySqrtOuter:
        return DivideBySqrtOuter(self.rows[name], self.columns[name])

    def _take(self, t: int, slope: float, curvature: float, alpha: float, lr: float) -> None:
        (key,) = self.keys(t)
        if alpha > 0.0:
            for name in (name for name, tensor in self.weights.tensors.items() if tensor.numel()):
                self._smooth(name, key, alpha, curvature)
        self.apply(t, [(key, -lr * slope)], lr)

    def _smooth(self, name: str, key: Key, alpha: float, curvature: float) -> None:
        """R and C of one tensor take α of the row and column means of Ĥ."""
        tensor, way = self.weights.tensors[name], self.weights.ways(self.normal)[name]
        R, C = self.rows[name], self.columns[name]
        across = torch.zeros_like(self.rows[name], dtype=torch.float64)
        down = torch.zeros_like(self.columns[name], dtype=torch.float64)
        for start in range(0, tensor.numel(), BLOCK):
            part = slice(start, min(start + BLOCK, tensor.numel()))
            count = part.stop - start
            (z,) = way.kernels.noise([key.word], way.noise, start, count, tensor.device)
            seen, begin = squares(z, self.estimator), 0
            for i, j in pieces(part, down.numel()):
                height, width = i.stop - i.start, j.stop - j.start
                piece = seen[begin : begin + height * width].view(height, width)
                piece = piece.mul_(torch.outer(R[i], C[j])).double().mul_(curvature)
                across[i] += piece.sum(1)
                down[j] += piece.sum(0)
                begin += height * width
        self._settle(name, alpha, across, down)

    def _settle(self, name: str, alpha: float, across: Tensor, down: Tensor) -> None:
        """R and C of one tensor from the sums of Ĥ over its rows and columns."""
        R, C = self.rows[name].double(), self.columns[name].double() * mean(self.rows[name])
        R += alpha * (across / C.numel() - R)
        C += alpha * (down / R.numel() - C)
        self.rows[name].copy_(R.clamp_(LEAST, MOST))
        if C.numel() > 1:  # of one column R is all of H
            self.columns[name].copy_((C / mean(self.rows[name])).clamp_(LEAST, MOST))


def shape(tensor: Tensor) -> tuple[int, int]:
    """Returns [m, n] of a matrix, [first, rest] with more dimensions, [d, 1] of a vector, which keeps all of H."""
    m = tensor.shape[0] if tensor.dim() > 1 and tensor.numel() else tensor.numel()
    return m, tensor.numel() // max(m, 1)


def pieces(part: slice, width: int) -> Iterator[tuple[slice, slice]]:
    """Yields (rows, columns) of the rectangles that make up a run of elements of a [*, width] matrix."""
    start, stop = part.start, part.stop
    while start < stop:
        row, column = divmod(start, width)
        whole = (stop - start) // width if column == 0 else 0
        if whole:
            yield slice(row, row + whole), slice(0, width)
            start += whole * width
        else:
            end = min(width, column + stop - start)
            yield slice(row, row + 1), slice(column, end)
            start += end - column


def mean(values: Tensor) -> float:
    """The mean in float64, summed exactly: the same whatever the number of threads."""
    return math.fsum(values.tolist()) / values.numel()

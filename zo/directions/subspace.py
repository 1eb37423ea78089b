"""Directions inside a subspace of every matrix: SubZero's U Z Vᵀ and ZO-Muon's P Ψ.

    Subspace    z = √(mn)/r · U Z Vᵀ    U ∈ R^{m×r}, V ∈ R^{n×r} orthonormal for `every` steps, Z ∈ R^{r×r} fresh
    Projected   z = P Ψ                 P ∈ R^{m×r} orthonormal for `every` steps, Ψ ∈ R^{r×n} fresh

Z and Ψ are standard normal, and so is everything that is no matrix. With √(mn)/r, E‖z‖² = mn: MeZO's learning rate
and ε carry over to SubZero. ZO-Muon's z is as the paper has it, E‖z‖² = rn.

U, V, P are the orthonormal factors of Gaussian matrices (QR in float64, the diagonal of R made positive: Haar
measure, one answer). They are functions of (seed, step // every), kept while they serve.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zo.directions.direction import Key, Terms, Theta
from zo.directions.lowrank import Factored, is_matrix, matrix_shape
from zo.fields import Count, Steps
from zo.noise import GAUSSIANS, key_of


@dataclass(eq=False)
class Lazy(Factored):
    """A kind with orthonormal factors that stay for some steps.

    rank: r, at most the sides of a matrix. every: steps between new factors.
    """

    rank: Count
    every: Steps

    stream = GAUSSIANS

    def __post_init__(self) -> None:
        self.check()
        self._bases: dict[tuple[str, str], tuple[int, Tensor]] = {}

    @abstractmethod
    def sides(self, tensor: Tensor) -> int:
        """Columns of the orthonormal factors of a matrix times their length."""

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return sum(self.sides(tensor) for tensor in tensors if is_matrix(tensor))

    def window(self, key: Key) -> int:
        """The 64-bit key of the lazy factors."""
        return key_of(key.seed, key.step - key.step % self.every, 0)

    def basis(self, weights: Theta, name: str, letter: str, length: int, rank: int, word: int) -> Tensor:
        """Orthonormal columns [length, rank]; those of the newest window are kept."""
        kept = self._bases.get((name, letter))
        if kept is None or kept[0] != word:
            drawn = weights.factor(name, letter, length * rank, self.stream, word).view(length, rank)
            kept = self._bases[name, letter] = (word, orthonormal(drawn))
        return kept[1]


@dataclass(eq=False)
class Subspace(Lazy):
    """SubZero's. A matrix with a side of at most `rank` (an adapter's) is taken in its most nearly square shape."""

    rank: Count = 24
    every: Steps = 1000

    name = "subspace"

    def shape(self, tensor: Tensor) -> tuple[int, int]:
        """The shape in which a tensor is taken."""
        m, n = matrix_shape(tensor)
        if min(m, n) > self.rank:
            return m, n
        side = next(a for a in range(math.isqrt(m * n), 0, -1) if m * n % a == 0)
        return (side, m * n // side) if m <= n else (m * n // side, side)

    def sides(self, tensor: Tensor) -> int:
        m, n = self.shape(tensor)
        return min(self.rank, m, n) * (m + n)

    def thin(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor]:
        m, n = self.shape(weights.source(name))
        r = min(self.rank, m, n)
        cores: dict[int, Tensor] = {}
        for key, scale in terms:
            z = weights.factor(name, "Z", r * r, self.stream, key.word).view(r, r)
            word = self.window(key)
            cores[word] = cores.get(word, torch.zeros_like(z)) + z * (scale * math.sqrt(m * n) / r)
        left = [self.basis(weights, name, "U", m, r, word) @ core for word, core in cores.items()]
        right = [self.basis(weights, name, "V", n, r, word) for word in cores]
        return torch.cat(left, 1), torch.cat(right, 1)


@dataclass(eq=False)
class Projected(Lazy):
    """ZO-Muon's; made by that optimizer alone, whose move needs the cores."""

    rank: Count = 64
    every: Steps = 100

    name = "projected"

    def sides(self, tensor: Tensor) -> int:
        m, _ = matrix_shape(tensor)
        return min(self.rank, m) * m

    def core(self, weights: Theta, name: str, terms: Terms) -> Tensor:
        """Σ scale Ψ, [r, n]."""
        m, n = matrix_shape(weights.source(name))
        r = min(self.rank, m)
        cores = [weights.factor(name, "Y", r * n, self.stream, key.word) * scale for key, scale in terms]
        return torch.stack(cores).sum(0).view(r, n)

    def projection(self, weights: Theta, name: str, key: Key) -> Tensor:
        """P, [m, r]."""
        m, _ = matrix_shape(weights.source(name))
        return self.basis(weights, name, "P", m, min(self.rank, m), self.window(key))

    def thin(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor]:
        by_window: dict[int, list[tuple[Key, float]]] = {}
        for key, scale in terms:
            by_window.setdefault(self.window(key), []).append((key, scale))
        left = [self.projection(weights, name, some[0][0]) for some in by_window.values()]
        right = [self.core(weights, name, some).T for some in by_window.values()]
        return torch.cat(left, 1), torch.cat(right, 1)


def orthonormal(gaussians: Tensor) -> Tensor:
    """Columns [length, rank] with the same span and Haar measure, fp32."""
    q, r = torch.linalg.qr(gaussians.double())
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).float().contiguous()

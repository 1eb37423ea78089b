"""Low-rank directions: z = U Vᵀ/√r for every matrix, standard normals for everything else.

    U ∈ R^{m×r}, V ∈ R^{n×r}, entries N(0, 1)

LOZO (Chen et al., ICLR 2025) keeps V for ν steps (`every`), EGGROLL (Sarkar et al., 2025) draws both for every
direction (`every` = null). With 1/√r the entries of z are uncorrelated with variance 1 at every rank, so that
learning rate and ε are those of dense Gaussians; their kurtosis is 3 + 6/r. A lazy V is a function of the key
and of step // ν, not a state: a direction of an older step can be made again.

All directions of a step share a lazy V, as all of their moves lie in the same subspace.
"""

import math

import torch
from torch import Tensor

from zo.directions.base import Directions, Key, Terms, Theta
from zo.errors import ConfigError
from zo.random import GAUSSIANS, key_of

_KEPT = 1 << 24  # numbers of factors that are kept between a look and its move, 64 MiB


class LowRank(Directions):
    """rank: r. every: steps for which V stays, or None for a new one in every direction."""

    name = "lowrank"
    stream = GAUSSIANS

    def __init__(self, rank: int = 1, every: int | None = None):
        if rank < 1:
            raise ConfigError(f"rank = {rank} must be at least 1.")
        if every is not None and every < 1:
            raise ConfigError(
                f"every = {every} must be at least 1 step, or null for new factors in every direction."
            )
        self.rank = rank
        self.every = every
        self._kept: dict[tuple[str, str, int], Tensor] = {}
        self._size = 0

    def plain(self, weights: Theta, name: str) -> bool:
        return not is_matrix(weights.source(name))

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        factors = self.factors(weights, name, terms)
        if factors is None:
            return weights.numbers(name, self.stream, terms, rows)
        a, b = factors
        return (a @ b.T).view(weights.source(name).shape) if rows is None else a[rows] @ b.T

    def factors(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor] | None:
        if self.plain(weights, name):
            return None
        m, n = matrix_shape(weights.source(name))
        left: dict[int, Tensor] = {}  # Σ scale U/√r by the V it goes with
        for key, scale in terms:
            v = self.second(key)
            u = self._factor(weights, name, "A", m, key.word) * (scale / math.sqrt(self.rank))
            left[v] = left[v] + u if v in left else u
        right = [self._factor(weights, name, "B", n, v) for v in left]
        if len(right) == 1:
            return next(iter(left.values())), right[0]
        return torch.cat(list(left.values()), 1), torch.cat(right, 1)

    def second(self, key: Key) -> int:
        """The 64-bit key of V."""
        return key.word if self.every is None else key_of(key.seed, key.step - key.step % self.every, 0)

    def _factor(self, weights: Theta, name: str, letter: str, length: int, word: int) -> Tensor:
        """U or V of one matrix, [length, r], kept until there are too many of them."""
        found = self._kept.get((name, letter, word))
        if found is None:
            found = weights.factor(name, letter, length * self.rank, self.stream, word).view(
                length, self.rank
            )
            if self._size + found.numel() > _KEPT:
                self._kept, self._size = {}, 0
            self._kept[name, letter, word] = found
            self._size += found.numel()
        return found


def is_matrix(tensor: Tensor) -> bool:
    """Whether more than one dimension is longer than 1."""
    return sum(length > 1 for length in tensor.shape) > 1


def matrix_shape(tensor: Tensor) -> tuple[int, int]:
    """(m, n) of a tensor taken as a matrix: its first dimension longer than 1, and all that follow."""
    m = next(length for length in tensor.shape if length > 1)
    return m, tensor.numel() // m

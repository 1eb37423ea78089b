"""Low-rank directions: z = U Vᵀ/√r for every matrix, normal numbers for everything else.

    U ∈ R^{m×r}, V ∈ R^{n×r}, entries N(0, 1)

LOZO (Chen et al., ICLR 2025) keeps V for ν steps (`every`), EGGROLL (Sarkar et al., 2025) draws both for every
direction (`every` = null). With 1/√r the entries of z are uncorrelated with variance 1 at every rank, so that
learning rate and ε are those of dense Gaussians; their kurtosis is 3 + 6/r. A lazy V is a function of seed and
step // ν, not a state: a direction of an older step can be made again. All directions of a step share it.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zo.directions.direction import Directions, Key, Terms, Theta
from zo.fields import Count, Steps
from zo.noise import GAUSSIANS, key_of

_KEPT = 1 << 24  # numbers of factors that are kept between a look and its move, 64 MiB


class Factored(Directions):
    """A kind that gives thin factors for matrices, taken in some shape, and plain numbers for the rest."""

    @abstractmethod
    def thin(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor]:
        """Returns (A [m, R], B [n, R]) with Σ scale · z = A Bᵀ, where (m, n) is `shape` of the tensor."""

    def shape(self, tensor: Tensor) -> tuple[int, int]:
        """The shape in which a tensor is taken."""
        return matrix_shape(tensor)

    def plain(self, weights: Theta, name: str) -> bool:
        return not is_matrix(weights.source(name))

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        if self.plain(weights, name):
            return super().total(weights, name, terms, rows)
        shape = weights.source(name).shape
        a, b = self.thin(weights, name, terms)
        if rows is None:
            return (a @ b.T).view(shape)
        return a[rows] @ b.T if len(a) == shape[0] else (a @ b.T).view(shape)[rows]

    def factors(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor] | None:
        source = weights.source(name)
        if self.plain(weights, name) or self.shape(source) != source.shape:
            return None
        return self.thin(weights, name, terms)


@dataclass(eq=False)
class LowRank(Factored):
    """rank: r. every: steps for which V stays, or None for a new one in every direction.

    vectors: "unit" gives what is no matrix variance 1, "rank" 1/r. The second is LOZO's: its paper probes along U Vᵀ
    and g, so that with U Vᵀ/√r here the step is the same only if vectors are g/√r.
    """

    rank: Count = 1
    every: Steps | None = None
    vectors: Literal["unit", "rank"] = "unit"

    name = "lowrank"
    stream = GAUSSIANS

    def __post_init__(self) -> None:
        self.check()
        self._kept: dict[tuple[str, str, int], Tensor] = {}
        self._size = 0
        self._step: int | None = None  # whose factors are kept

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        if self.vectors == "unit" or self.rank == 1 or not self.plain(weights, name):
            return terms
        return [(key, scale / math.sqrt(self.rank)) for key, scale in terms]

    def thin(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor]:
        left: dict[int, Tensor] = {}  # Σ scale U/√r by the V it goes with
        by_word: dict[int, Key] = {}
        for key, scale in terms:
            word = self._second(key)
            by_word[word] = key
            u = self.u(weights, name, key) * (scale / math.sqrt(self.rank))
            left[word] = left[word] + u if word in left else u
        right = [self.v(weights, name, key) for key in by_word.values()]
        if len(right) == 1:
            return next(iter(left.values())), right[0]
        return torch.cat(list(left.values()), 1), torch.cat(right, 1)

    def u(self, weights: Theta, name: str, key: Key) -> Tensor:
        """U of one direction, [m, r]; not to be written."""
        if key.step != self._step:
            # Thousands of small tensors that outlive a step would pin the heap between the large ones of forwards.
            self._kept, self._size, self._step = {}, 0, key.step
        return self._factor(weights, name, "A", matrix_shape(weights.source(name))[0], key.word)

    def v(self, weights: Theta, name: str, key: Key) -> Tensor:
        """V of one direction, [n, r]; not to be written."""
        return self._factor(weights, name, "B", matrix_shape(weights.source(name))[1], self._second(key))

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        """The most: the factors of one step are kept, as far as there is room, and their number is the method's."""
        return _KEPT if any(is_matrix(tensor) for tensor in tensors) else 0

    def _second(self, key: Key) -> int:
        """The 64-bit key of V."""
        return key.word if self.every is None else key_of(key.seed, key.step - key.step % self.every, 0)

    def _factor(self, weights: Theta, name: str, letter: str, length: int, word: int) -> Tensor:
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
    """Returns whether it has elements, and more than one dimension longer than 1."""
    return tensor.numel() > 0 and sum(length > 1 for length in tensor.shape) > 1


def matrix_shape(tensor: Tensor) -> tuple[int, int]:
    """Returns (m, n) of a tensor taken as a matrix: its first dimension longer than 1, and all that follow."""
    m = next(length for length in tensor.shape if length > 1)
    return m, tensor.numel() // m

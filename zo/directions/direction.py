"""Directions: a key names one, and a kind says how its numbers are made.

A kind makes z of a key tensor by tensor, in one of four ways:

    plain     independent numbers of a stream of zo.kernels; the kernels add them without ever forming z
    entries   the same, but that something becomes of every sum entry by entry (zo/kernels/transforms.py: divided by the
              root of a Hessian, left out where a weight is large), by the kernels too
    total     numbers the kind makes itself
    factors   z = A Bᵀ with thin A and B: the executor evaluates x Wᵀ + (x B) Aᵀ without forming the matrix

Weights (zo/weights.py) is the one place that asks for them; looks and moves go through it.
"""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from zo.errors import ConfigError
from zo.fields import problems_of
from zo.kernels.transforms import Entries
from zo.noise import GAUSSIANS, key_of


@dataclass(frozen=True)
class Key:
    """The name of one direction z over all trained weights: run seed, step, index within the step."""

    seed: int
    step: int
    index: int

    @cached_property
    def word(self) -> int:
        """The 64-bit Philox key."""
        return key_of(self.seed, self.step, self.index)


Terms = Sequence[tuple[Key, float]]


@dataclass(frozen=True)
class Probe:
    """A point at which a loss is wanted: θ + Σ scale · z_key. Without terms it is θ itself."""

    terms: tuple[tuple[Key, float], ...] = ()

    @cached_property
    def words(self) -> tuple[tuple[int, float], ...]:
        """The terms as the kernels of zo.kernels take them; the same for every tensor that all terms reach."""
        return tuple([(key.word, scale) for key, scale in self.terms])


def two_sides(probes: Sequence[Probe]) -> bool:
    """Returns whether these are θ + Δ and θ − Δ."""
    return len(probes) == 2 and probes[1].terms == tuple((key, -scale) for key, scale in probes[0].terms)


class Theta(Protocol):
    """The part of the weights that a kind may use: their tensors, and named numbers from the fastest kernels.

    ids: the 64-bit id of every trained tensor by its canonical name.
    """

    ids: dict[str, int]

    def source(self, name: str) -> Tensor:
        """The tensor that is perturbed."""
        ...

    def numbers(self, name: str, stream: int, terms: Terms, rows: Tensor | None = None) -> Tensor:
        """Σ scale · (the stream's numbers of this tensor), fp32, in its shape or [len(rows), width]."""
        ...

    def factor(self, name: str, letter: str, size: int, stream: int, word: int) -> Tensor:
        """fp32 [size]: the stream's numbers of the tensor's factor of that letter, under a 64-bit key."""
        ...


class Directions(ABC):
    """A kind of direction. A plain one has a name and a stream; others override what they make themselves.

    One with options is a dataclass: the ranges stand in the annotations (zo/fields.py), and `check` holds them.

    name: as configurations have it. stream: which numbers of zo.kernels it is made of.
    stateful: z depends on more than its key and the shapes (weights, moments), so that the z of an older step
        cannot be made again; methods that replay old directions refuse such a kind.
    """

    name: str
    stream: int = GAUSSIANS  # for a kind that overrides `total`, and so takes none
    stateful = False

    def check(self) -> None:
        """Raises ConfigError that lists every option out of range."""
        if is_dataclass(self) and (problems := list(problems_of(self))):
            raise ConfigError("\n".join(problems))

    def bind(self, weights: Theta) -> dict[str, dict[str, Tensor]]:
        """Called once, when the optimizer is made; returns fp32 tensors that its snapshots must hold, by slot."""
        return {}

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        """fp32 numbers that this kind keeps between steps for these trained tensors, of which only shapes count."""
        return 0

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        """The terms as they apply to this tensor: left out where z is zero there, rescaled, or of more keys."""
        return terms

    def plain(self, weights: Theta, name: str) -> bool:
        """Returns whether this tensor's numbers are those of the stream as they are; asked once for each tensor."""
        return True

    def entries(self, weights: Theta, name: str, lists: Sequence[Terms]) -> Entries | None:
        """Returns the transform from sums of the stream's numbers to those of z; None where `total` does it.

        lists: of several sums at once, before `terms`.
        """
        return None

    def total(self, weights: Theta, name: str, terms: Terms, rows: Tensor | None = None) -> Tensor:
        """Σ scale · z of this tensor, a new fp32 tensor of its shape, or of some rows: [len(rows), width].

        Asked for where there are no `entries`. With the sign of every scale it changes its own and no other bit, so
        that two sides are made at once. terms: at least one, as `terms` gave them. rows: of a tensor of two
        dimensions.
        """
        return weights.numbers(name, self.stream, terms, rows)

    def factors(self, weights: Theta, name: str, terms: Terms) -> tuple[Tensor, Tensor] | None:
        """Returns (A [m, R], B [n, R]), fp32, with Σ scale · z = A Bᵀ for a tensor [m, n]; None where it has none."""
        return None

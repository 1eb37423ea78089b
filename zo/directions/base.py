"""What a direction is: a key that names it, and a kind that says how its numbers are made."""

from abc import ABC
from dataclasses import dataclass
from functools import cached_property

from zo.random import key_of


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


@dataclass(frozen=True)
class Probe:
    """A point at which a loss is wanted: θ + Σ scale · z_key. Without terms it is θ itself."""

    terms: tuple[tuple[Key, float], ...] = ()

    @cached_property
    def words(self) -> list[tuple[int, float]]:
        """The terms as the kernels of zo.random take them."""
        return [(key.word, scale) for key, scale in self.terms]


class Directions(ABC):
    """A kind of direction whose entries are independent and read nothing but their name.

    stream: which numbers of zo.random they are.
    norm2: E‖z‖²/d. Optimizers do not rescale silently: a learning rate for one kind is worth
        lr · norm2(old) / norm2(new) with another.
    stateful: z depends on more than its key and the shapes (weights, moments), so that the z of an older step
        cannot be made again; methods that replay old directions refuse such a kind.
    """

    name: str
    stream: int
    norm2: float
    stateful = False

"""Blocks that element-wise rules see, one tensor after another (zo/weights.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

BLOCK = 1 << 16  # elements that an element-wise rule gets at a time


@dataclass(frozen=True)
class Block:
    """Elements start .. start + n of one trained tensor, as an element-wise rule sees them; all fp32 [n].

    w: the weights before the move, not to be written.
    noise: z of each key asked for, in the order asked; the rule may write into them, to need no memory of its own.
    state: the same elements of each state tensor; what the rule writes into them stays.
    """

    name: str
    start: int
    w: Tensor
    noise: Sequence[Tensor]
    state: dict[str, Tensor]


Rule = Callable[[Block], Tensor]

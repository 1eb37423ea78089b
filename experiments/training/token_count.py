"""Counts the tokens of a run as a function of the step alone, so that a resumed run counts the same."""

from collections.abc import Callable, Sequence
from itertools import accumulate


class TokenCount:
    """Counts the tokens of the training's forward passes, without padding; a backward pass counts as three forwards.

    lengths: tokens of each training example. size: examples a step. order: gives the order of the examples in an epoch.
    cost: forward passes a step.
    """

    def __init__(self, lengths: Sequence[int], size: int, order: Callable[[int], Sequence[int]], cost: int):
        self._lengths = lengths
        self._size = size
        self._order = order
        self._cost = cost
        self._total = sum(lengths)
        self._epoch = -1
        self._sums = [0]  # tokens of the epoch's first 0, 1, ... examples

    def __call__(self, steps: int) -> int:
        """Returns the tokens of the first `steps` steps."""
        if not self._lengths:
            return 0
        epoch, position = divmod(steps * self._size, len(self._lengths))
        if epoch != self._epoch:
            self._epoch = epoch
            self._sums = [0, *accumulate(self._lengths[number] for number in self._order(epoch))]
        return self._cost * (epoch * self._total + self._sums[position])

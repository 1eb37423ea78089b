"""A look that several processes share: each does its part, and all get every loss.

Probes are dealt out in runs, so that the two sides of a direction mostly stay together; rows of a batch are
cut after padding, and (Σ w l, Σ w) of the parts are added in rank order.
"""

from collections.abc import Callable, Sequence
from typing import Any

from zo.backward import Backward
from zo.directions import Key, Probe
from zo.errors import ConfigError
from zo.look.look import PLAIN, Look, cut, length, mean

Sums = Callable[[Sequence[Any], Any], list[tuple[float, float]]]
Gather = Callable[[Sequence[float], int], list[list[float]]]


class SharedLook:
    """The look of one rank among groups × parts: its share of probes and rows, then the losses of all.

    gather: (numbers, width) → the numbers of every rank, each padded to the width.
    own: every rank is given its own part of the batch, which is not cut again.
    """

    def __init__(self, look: Look, gather: Gather, rank: int, groups: int, parts: int, *, own: bool = False):
        self.look = look
        self.gather = gather
        self.rank = rank
        self.groups = groups
        self.parts = parts
        self.own = own

    def __call__(self, probes: Sequence[Probe], batch: Any) -> list[float]:
        """One loss a probe, rounded to fp32, the same on every rank."""
        return self._told(self.look.sums, probes, batch, 0)

    def slopes(self, keys: Sequence[Key], batch: Any) -> list[float]:
        """The loss at θ and the slope of each key; a rank that has any key finds the loss too."""
        return self._told(self.look.slope_sums, keys, batch, 1)

    def gradient(self, batch: Any, *, seed: int | None, how: Backward = PLAIN) -> float:
        """Refused."""
        raise ConfigError("Gradients are not shared among processes: run first-order methods in one.")

    def _told(self, sums: Sums, items: Sequence[Any], batch: Any, ahead: int) -> list[float]:
        """sums of (items, batch) are `ahead` pairs, then one an item."""
        group, part = divmod(self.rank, self.parts)
        start, stop = bounds(len(items), self.groups, group)
        mine = items[start:stop]
        if self.parts > 1 and not self.own:
            first, last = bounds(length(batch), self.parts, part)
            batch = cut(batch, first, last) if last > first else None
        pairs = sums(mine, batch) if mine and batch is not None else []
        width = ahead + -(-len(items) // self.groups)
        rows = self.gather([number for pair in pairs for number in pair], 2 * width)
        told: list[float] = []
        for group in range(self.groups):
            start, stop = bounds(len(items), self.groups, group)
            if start == stop:
                continue
            parts = rows[group * self.parts : (group + 1) * self.parts]
            totals = [sum(row[i] for row in parts) for i in range(2 * (ahead + stop - start))]
            means = [mean(*totals[i : i + 2]) for i in range(0, len(totals), 2)]
            told += means[ahead:] if told else means
        return told


def bounds(n: int, parts: int, part: int) -> tuple[int, int]:
    """Returns begin and end of the part-th of `parts` runs of n items; lengths differ by at most one."""
    return part * n // parts, (part + 1) * n // parts

"""A look that several processes share: each does its part, and all get every loss.

Probes are dealt out in runs, so that the two sides of a direction mostly stay together; rows of a batch are
cut after padding, and (Σ w l, Σ w) of the parts are added in rank order.
"""

from collections.abc import Callable, Sequence
from typing import Any

from zo.directions import Key, Probe
from zo.errors import ConfigError
from zo.look.base import Look, cut, length, mean
from zo.optimizers.base import Looker

Gather = Callable[[Sequence[float], int], list[list[float]]]


class SharedLook:
    """The look of one rank among groups × parts: its share of probes and rows, then the losses of all.

    gather: (numbers, width) → the numbers of every rank, each padded to the width.
    """

    def __init__(self, look: Looker, gather: Gather, rank: int, groups: int, parts: int):
        self.look = look
        self.gather = gather
        self.rank = rank
        self.groups = groups
        self.parts = parts
        if parts > 1 and not isinstance(look, Look):
            raise ConfigError(
                f"A {type(look).__name__} gives losses, not sums, so a batch cannot be cut: use ranks.share = probes."
            )

    def __call__(self, probes: Sequence[Probe], batch: Any) -> list[float]:
        """One loss a probe, rounded to fp32, the same on every rank."""
        group, part = divmod(self.rank, self.parts)
        start, stop = bounds(len(probes), self.groups, group)
        mine, width = probes[start:stop], -(-len(probes) // self.groups)
        if self.parts == 1:
            losses = self.look(mine, batch) if mine else []
            rows = self.gather(losses, width)
            return self._ordered(rows, len(probes))
        return self._added(mine, width, part, len(probes), batch)

    def _ordered(self, per_group: Sequence[Sequence[float]], probes: int) -> list[float]:
        """The losses in the order of the probes."""
        told = []
        for group, losses in enumerate(per_group):
            start, stop = bounds(probes, self.groups, group)
            told += losses[: stop - start]
        return told

    def _added(self, mine: Sequence[Probe], width: int, part: int, probes: int, batch: Any) -> list[float]:
        """Losses from sums over the parts of the batch, added in rank order."""
        assert isinstance(self.look, Look)
        start, stop = bounds(length(batch), self.parts, part)
        sums = [(0.0, 0.0)] * len(mine)
        if mine and stop > start:
            sums = self.look.sums(mine, cut(batch, start, stop))
        rows = self.gather([x for pair in sums for x in pair], 2 * width)
        per_group = []
        for group in range(self.groups):
            parts = rows[group * self.parts : (group + 1) * self.parts]
            totals = [sum(row[i] for row in parts) for i in range(2 * width)]
            per_group.append([mean(*totals[i : i + 2]) for i in range(0, 2 * width, 2)])
        return self._ordered(per_group, probes)

    def slopes(self, keys: Sequence[Key], batch: Any) -> list[float]:
        """The loss at θ and zᵀ∇L for each key: keys are dealt out as probes are."""
        assert isinstance(self.look, Look)
        group, part = divmod(self.rank, self.parts)
        start, stop = bounds(len(keys), self.groups, group)
        mine, width = keys[start:stop], 1 + -(-len(keys) // self.groups)
        first, last = bounds(length(batch), self.parts, part)
        sums = [(0.0, 0.0)] * (1 + len(mine))
        if mine and last > first:
            sums = self.look.slope_sums(mine, cut(batch, first, last) if self.parts > 1 else batch)
        rows = self.gather([x for pair in sums for x in pair], 2 * width)
        told: list[float] = []
        for group in range(self.groups):
            parts = rows[group * self.parts : (group + 1) * self.parts]
            start, stop = bounds(len(keys), self.groups, group)
            totals = [sum(row[i] for row in parts) for i in range(2 * (1 + stop - start))]
            means = [mean(*totals[i : i + 2]) for i in range(0, len(totals), 2)]
            if stop > start:  # without a key this group has not looked, and knows no loss either
                told += means[1:] if told else means
        return told

    def gradient(self, batch: Any, *, seed: int | None) -> float:
        """Refused."""
        raise ConfigError("Gradients are not shared among processes: run first-order methods in one.")


def bounds(n: int, parts: int, part: int) -> tuple[int, int]:
    """Where the part-th of `parts` runs of n things begins and ends; their lengths differ by at most one."""
    return part * n // parts, (part + 1) * n // parts

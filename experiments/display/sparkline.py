"""Draws a curve in one line of text."""

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*%#"  # where the terminal's encoding has no blocks


class Curve:
    """A curve of any length in bounded memory: at most `points` means, each of `each` consecutive values.

    When they would be more, neighbours become one: the mean of two means of equally many values is the mean of
    all of them.
    """

    def __init__(self, points: int = 512):
        self._most = points
        self._means: list[float] = []
        self._open: list[float] = []  # values of the mean that is not whole yet
        self.each = 1

    def add(self, value: float | None) -> None:
        """Adds the next value; a value that is not finite is left out."""
        if value is None or not math.isfinite(value):
            return
        if self.each == 1:
            self._means.append(value)
        else:
            self._open.append(value)
            if len(self._open) < self.each:
                return
            self._means.append(math.fsum(self._open) / self.each)
            self._open = []
        if len(self._means) == self._most:
            pairs = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [(one + other) / 2 for one, other in pairs]
            self.each *= 2

    @property
    def values(self) -> list[float]:
        """Returns the means, the last one over an incomplete group."""
        rest = list(self._open)  # another thread may be adding
        return self._means + ([math.fsum(rest) / len(rest)] if rest else [])


def sparkline(values: Sequence[float], width: int, *, plain: bool = False) -> str:
    """Draws at most `width` characters: means over equal parts of the values, the lowest ▁ and the highest █.

    Equal values are all in the middle. plain: characters that every terminal has.
    """
    levels = PLAIN if plain else BLOCKS
    shown = _parts(values, width)
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return levels[len(levels) // 2 - 1] * len(shown)
    scale = (len(levels) - 1) / (high - low)
    return "".join(levels[round((value - low) * scale)] for value in shown)


def bar(share: float, width: int, *, plain: bool = False) -> tuple[str, str]:
    """Returns the full and the empty part of a bar, together `width` characters."""
    full, empty = "#." if plain else "━╌"
    done = round(width * min(1.0, max(0.0, share)))
    return full * done, empty * (width - done)


def _parts(values: Sequence[float], width: int) -> list[float]:
    """Returns the values, or the means of `width` neighbouring parts if there are more values."""
    count = len(values)
    if count <= width:
        return list(values)
    edges = [i * count // width for i in range(width + 1)]
    return [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]

"""A paper's table laid beside one's own: reproduced, not reproduced, not run.

Reproduced is a mean within two published deviations of the published one; within two points where the paper gives
no deviation, or one of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.papers import Published
from experiments.report.cells import Cell

WORDS = ("reproduced", "not reproduced", "not run")


@dataclass(frozen=True)
class Beside:
    """A published number and ours, in per cent, and the verdict: one of `WORDS`. ours: None where it was not run."""

    published: Published
    ours: float | None
    deviation: float | None
    n: int
    verdict: str


def compare(cells: Sequence[Cell], published: Sequence[Published]) -> tuple[Beside, ...]:
    """Each published number beside the cell of the same model, task, method and peft, with the same k."""
    return tuple(_beside(each, _match(cells, each)) for each in published)


def _match(cells: Sequence[Cell], number: Published) -> Cell | None:
    wanted = (number.model, number.task, number.method, number.peft)
    for cell in cells:
        if (cell.model, cell.task, cell.method, cell.peft) == wanted and cell.chosen is not None and cell.n:
            k = (cell.chosen.runs[0].config.get("task") or {}).get("k")
            if number.k is None or number.k == k:
                return cell
    return None


def _beside(number: Published, cell: Cell | None) -> Beside:
    if cell is None or cell.mean is None:
        return Beside(number, None, None, 0, "not run")
    ours = 100 * cell.mean
    near = abs(ours - number.value) <= number.tolerance
    deviation = None if cell.deviation is None else 100 * cell.deviation
    return Beside(number, ours, deviation, cell.n, "reproduced" if near else "not reproduced")

"""A paper's table laid beside one's own: reproduced, not reproduced, not run.

Reproduced is a mean within two published deviations of the published one; within two points where the paper gives
no deviation, or one of zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.papers import Published
from experiments.report.cells import Cell
from experiments.report.runs import Run

UNTRAINED = ("zeroshot", "icl")  # to which examples to train on make no difference
WORDS = ("reproduced", "not reproduced", "not run")


@dataclass(frozen=True)
class Beside:
    """A published number and ours, in per cent, and the verdict: one of `WORDS`. ours: None where it was not run.

    varied: what our deviation is over.
    """

    published: Published
    ours: float | None
    deviation: float | None
    n: int
    verdict: str
    varied: tuple[str, ...] = ()


def compare(cells: Sequence[Cell], published: Sequence[Published]) -> tuple[Beside, ...]:
    """Each published number beside the cell of the same model, task, method and peft, with the same k, objective and
    demonstrations.
    """
    return tuple(_beside(each, _match(cells, each)) for each in published)


def _match(cells: Sequence[Cell], number: Published) -> Cell | None:
    """Of several cells (a model in two precisions, say) the one with the most seeds, then the first."""
    fit = [cell for cell in cells if cell.n and cell.chosen and _about(cell.chosen.runs[0], number)]
    return max(fit, key=lambda cell: cell.n, default=None)


def _about(run: Run, number: Published) -> bool:
    same = (run.model, run.task, run.method, run.peft) == (
        number.model,
        number.task,
        number.method,
        number.peft,
    )
    task = run.config.get("task") or {}
    k = number.k == task.get("k") or (number.k is None and run.method in UNTRAINED)
    return same and k and number.fits(task)


def _beside(number: Published, cell: Cell | None) -> Beside:
    if cell is None or cell.mean is None:
        return Beside(number, None, None, 0, "not run")
    ours = 100 * cell.mean
    near = abs(ours - number.value) <= number.tolerance + 1e-9  # 84.0 is within 2.0 of 82.0
    deviation = None if cell.deviation is None else 100 * cell.deviation
    return Beside(number, ours, deviation, cell.n, "reproduced" if near else "not reproduced", cell.varied)

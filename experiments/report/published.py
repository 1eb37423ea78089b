"""A paper's table laid beside one's own: reproduced, not reproduced, not run.

Reproduced is a mean within two published deviations of the published one; within two points where the paper gives
no deviation, or one of zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.papers import Published
from experiments.report.cells import Cell, Setting, choose
from experiments.report.distinct import varied
from experiments.report.runs import Run
from experiments.report.setting_key import filled

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
    demonstrations; where a number is of certain hyper-parameters, beside the cell's setting that has them.
    """
    return tuple(_beside(each, _match(cells, each)) for each in published)


def _match(cells: Sequence[Cell], number: Published) -> Setting | None:
    """Of several cells (a model in two precisions, say) the one with the most seeds, then the first."""
    chosen = [setting for cell in cells if (setting := _setting(cell, number)) is not None]
    fit = [each for each in chosen if each.values and _about(each.runs[0], number)]
    return max(fit, key=lambda each: len(each.values), default=None)


def _setting(cell: Cell, number: Published) -> Setting | None:
    """The one that the cell shows, or of those with the number's hyper-parameters the best on dev."""
    if not number.settings:
        return cell.chosen
    having = [each for each in cell.settings if number.has_settings(_with_defaults(each.runs[0].config))]
    return choose(having)[0]


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run of a sweep that did not start has no configuration."""
    return filled(config) if config else config


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


def _beside(number: Published, setting: Setting | None) -> Beside:
    if setting is None or setting.mean is None:
        return Beside(number, None, None, 0, "not run")
    ours = 100 * setting.mean
    near = abs(ours - number.value) <= number.tolerance + 1e-9  # 84.0 is within 2.0 of 82.0
    deviation = None if setting.deviation is None else 100 * setting.deviation
    verdict = "reproduced" if near else "not reproduced"
    return Beside(number, ours, deviation, len(setting.counted), verdict, tuple(varied(setting.ended)))

"""Pairs a paper's numbers with those of these runs: reproduced, not reproduced, not run.

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
class PublishedPair:
    """A published number and ours, in per cent, and the verdict: one of `WORDS`.

    ours: None if it was not run. varied: what our deviation is over.
    """

    published: Published
    ours: float | None
    deviation: float | None
    n: int
    verdict: str
    varied: tuple[str, ...] = ()


def compare(cells: Sequence[Cell], published: Sequence[Published]) -> tuple[PublishedPair, ...]:
    """Pairs each published number with the cell of the same model, task, method and peft.

    The cell must also have the same k, objective and demonstrations. A number of certain hyper-parameters is paired
    with the cell's setting that has them.
    """
    return tuple(_pair(number, _match(cells, number)) for number in published)


def _match(cells: Sequence[Cell], number: Published) -> Setting | None:
    """Returns the matching setting with the most seeds, then the first, or None.

    Several cells can match, such as a model in two precisions.
    """
    chosen = [setting for cell in cells if (setting := _setting(cell, number)) is not None]
    matching = [setting for setting in chosen if setting.values and _about(setting.runs[0], number)]
    return max(matching, key=lambda setting: len(setting.values), default=None)


def _setting(cell: Cell, number: Published) -> Setting | None:
    """Returns the setting a cell shows, or the best on dev among those with the number's hyper-parameters."""
    if not number.settings:
        return cell.chosen
    candidates = [s for s in cell.settings if number.has_settings(_with_defaults(s.runs[0].config))]
    return choose(candidates)[0]


def _with_defaults(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fills in defaults; a run of a sweep that did not start has no configuration."""
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


def _pair(number: Published, setting: Setting | None) -> PublishedPair:
    if setting is None or setting.mean is None:
        return PublishedPair(number, None, None, 0, "not run")
    ours = 100 * setting.mean
    near = abs(ours - number.value) <= number.tolerance + 1e-9  # 84.0 is within 2.0 of 82.0
    deviation = None if setting.deviation is None else 100 * setting.deviation
    verdict = "reproduced" if near else "not reproduced"
    return PublishedPair(number, ours, deviation, len(setting.counted), verdict, tuple(varied(setting.ended)))

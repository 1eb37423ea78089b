"""Computes statistics over seeds.

    mean x̄, sample deviation s (n − 1)      interval over seeds: x̄ ± t(n − 1, 0.975) s / √n
    paired difference of two methods        of d_s = a_s − b_s over the seeds that both have, with an interval that
                                            holds seeds and test examples (experiments.report.intervals)
    curve                                   mean over runs at each x, with the band from the lowest to the highest run

Forward passes to a target are those of the first evaluation on dev at or past it (experiments.report.passes). With one
seed there is a mean and nothing else. Intervals of differences are each for itself, not for all at once: of 28 pairs of
equal methods one or two will exclude zero. Their p-values are adjusted by Holm over all pairs of a report.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from experiments.report.cells import Cell
from experiments.report.distinct import paired_seeds
from experiments.report.intervals import Parts, bounded, crossed, holm, is_mean_of, p_value
from experiments.report.runs import Run
from experiments.rundir.metric_rows import AXES, JOURNAL

HAS_SCIPY = find_spec("scipy") is not None
LEVEL = 0.95  # of every interval
# Sources of the variance over test examples: the runs' answers; the bound p (1 − p) / n, which is at least as large;
# the seeds' own differences, since each seed draws its test rows anew; or none.
EXAMPLES = ("answers", "bound", "drawn anew", "unknown")
BAND = "lowest to highest run"  # what a curve's band is, for captions
POINTS = 200  # of a training curve, at most


@dataclass(frozen=True)
class Spread:
    """n numbers: mean, sample deviation and the ends of their t interval; None with fewer than two."""

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Method a minus method b on a task, over the seeds that both have; fractions of the metric.

    spread: its interval holds seeds and examples. p: of that interval, for itself; p_holm: adjusted over all
    differences of the report. examples: where the examples' variance is from, one of EXAMPLES.
    """

    model: str
    task: str
    peft: str
    a: str
    b: str
    seeds: tuple[int, ...]
    spread: Spread
    p: float | None = None
    p_holm: float | None = None
    examples: str = ""


@dataclass(frozen=True)
class Reach:
    """Forward passes until dev first reached the target, by seed, for the runs of a cell that got there.

    run_count: number of its runs that ended with an evaluation on dev, or got there. short: by seed, the forward
    passes of the last evaluation before the target, 0 if there is none; for a run that never got there, of its last
    evaluation.
    """

    method: str
    model: str
    task: str
    peft: str
    target: float
    reached: dict[int, int]
    run_count: int
    short: dict[int, int]

    @property
    def never(self) -> int:
        """Returns the number of runs that never got there."""
        return self.run_count - len(self.reached)

    @property
    def censored(self) -> dict[int, int]:
        """Returns the forward passes of the last evaluation by seed, for runs that never got there."""
        return {seed: passes for seed, passes in self.short.items() if seed not in self.reached}

    @property
    def mean(self) -> float | None:
        """Returns the mean over the runs that got there; None if none did."""
        return fmean(self.reached.values()) if self.reached else None


@dataclass(frozen=True)
class Curve:
    """A cell's course of training: `quantity` against forward passes, averaged over its runs.

    quantity: "dev" (the metric, a fraction), "dev loss", "train loss", and what the optimizer reports, such as
    "sigma" and "projected_gradient". All tuples have one length. n: runs behind each point, for one that diverged
    ends earlier. low, high: of the single runs. seconds: mean since the start.
    """

    method: str
    model: str
    task: str
    peft: str
    quantity: str
    forward_passes: tuple[float, ...]
    seconds: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]


def spread(values: Sequence[float], level: float = LEVEL) -> Spread:
    """Returns mean, deviation and interval of at least one number; no interval without scipy."""
    if len(values) < 2:
        return Spread(len(values), fmean(values), None, None, None)
    mean, deviation = fmean(values), stdev(values)
    if not HAS_SCIPY:
        return Spread(len(values), mean, deviation, None, None)
    from scipy.stats import t  # imported late: it takes a second

    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Spread(len(values), mean, deviation, mean - half, mean + half)


def differences(cells: Sequence[Cell]) -> tuple[Difference, ...]:
    """Compares every two methods on the same task, model and peft over their common seeds."""
    pairs = []
    for a, b in combinations(cells, 2):
        if (a.model, a.task, a.peft) != (b.model, b.task, b.peft):
            continue
        if a.chosen and b.chosen and (seeds := paired_seeds(a.chosen.ended, b.chosen.ended)):
            pairs.append(_difference(a, b, seeds))
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return tuple(pair if pair.p is None else replace(pair, p_holm=next(adjusted)) for pair in pairs)


def _difference(a: Cell, b: Cell, seeds: Sequence[int]) -> Difference:
    """Compares two cells; no interval over a single seed or without scipy."""
    pairs = [a.values[seed] - b.values[seed] for seed in seeds]
    names = (a.model, a.task, a.peft, a.method, b.method, tuple(seeds))
    if len(seeds) < 2 or not HAS_SCIPY:
        return Difference(*names, replace(spread(pairs), low=None, high=None))
    parts, source = _parts(a, b, seeds)
    mean, half = fmean(pairs), parts.half_width(1 - LEVEL)
    if not parts.varies:  # equal in every seed, and nothing is known of the examples
        return Difference(*names, Spread(len(pairs), mean, stdev(pairs), None, None), examples=source)
    interval = Spread(len(pairs), mean, stdev(pairs), mean - half, mean + half)
    return Difference(*names, interval, p=p_value(mean, parts), examples=source)


def _parts(a: Cell, b: Cell, seeds: Sequence[int]) -> tuple[Parts, str]:
    """Returns the variances of a difference, and the source of the examples' variance."""
    arms = [{run.seed: run for run in cell.chosen.ended} if cell.chosen else {} for cell in (a, b)]
    runs = [[arm[seed] for seed in seeds] for arm in arms]
    values = [[run.value or 0.0 for run in arm] for arm in runs]
    every = [run for arm in runs for run in arm]
    if all(run.draws_test for run in every):
        return bounded(values[0], values[1], 0), "drawn anew"
    answers = [[run.answers or () for run in arm] for arm in runs]
    are_means = all(is_mean_of(run.value or 0.0, run.answers) for run in every)
    if are_means and len({len(row) for arm in answers for row in arm}) == 1:
        return crossed(answers[0], answers[1]), "answers"
    n = min((int((run.result or {}).get("n_test") or 0) for run in every), default=0)
    return bounded(values[0], values[1], n), "bound" if n else "unknown"


def reach(cell: Cell, target: float, by: str = "metric") -> Reach:
    """Returns the forward passes to the target of the chosen setting's runs, diverged ones too.

    by: metric, at least the target; loss, at most. An unfinished run counts only once it has got there: until then it
    still may.
    """
    reached: dict[int, int] = {}
    short: dict[int, int] = {}
    for run in cell.chosen.runs if cell.chosen else ():
        rows = run.rows_of("dev")
        hit = next((i for i, row in enumerate(rows) if _meets_target(row, target, by)), None)
        if hit is not None:
            reached[run.seed] = rows[hit]["forward_passes"]
            short[run.seed] = rows[hit - 1]["forward_passes"] if hit else 0
        elif rows and run.ended:
            short[run.seed] = rows[-1]["forward_passes"]
    return Reach(cell.method, cell.model, cell.task, cell.peft, target, reached, len(short), short)


def _meets_target(row: Mapping[str, Any], target: float, by: str) -> bool:
    """Returns True if a row meets the target; a number that is not finite (null) never does."""
    if by == "loss":
        return row["loss"] is not None and row["loss"] <= target
    return row["value"] is not None and row["value"] >= target


def curves(cell: Cell) -> tuple[Curve, ...]:
    """Returns the curves of a cell's chosen setting, over its ended runs if there are any."""
    runs = cell.chosen.runs if cell.chosen else ()
    runs = [run for run in runs if run.ended] or runs
    reported = sorted(
        {key for run in runs for row in run.rows_of("train") for key in row}
        - {"kind", "loss", JOURNAL, *AXES}
    )
    standard = [("dev", "dev", "value"), ("dev loss", "dev", "loss"), ("train loss", "train", "loss")]
    found = [_curve(cell, runs, *name) for name in [*standard, *((key, "train", key) for key in reported)]]
    return tuple(curve for curve in found if curve is not None)


def _curve(cell: Cell, runs: Sequence[Run], quantity: str, kind: str, key: str) -> Curve | None:
    """Averages the runs at each x, interpolating linearly between two rows of a run.

    Past its last row a run has no value.
    """
    lines = [_line(run.rows_of(kind), key) for run in runs]
    lines = [line for line in lines if line]
    if not lines:
        return None
    grid = sorted({x for line in lines for x, _, _ in line})
    if len(grid) > POINTS:
        grid = [grid[round(i * (len(grid) - 1) / (POINTS - 1))] for i in range(POINTS)]
    points = [(x, [there for line in lines if (there := _interpolated(line, x)) is not None]) for x in grid]
    points = [(x, there) for x, there in points if there]
    columns = [
        (x, fmean(second for _, second in there), fmean(values := [value for value, _ in there]), min(values),
         max(values), len(there)) for x, there in points
    ]  # fmt: skip
    return Curve(cell.method, cell.model, cell.task, cell.peft, quantity, *zip(*columns, strict=True))


def _line(rows: Sequence[Any], key: str) -> list[tuple[float, float, float]]:
    """Returns (forward passes, value, seconds) of the rows that have the number."""
    return [(row["forward_passes"], row[key], row["seconds"]) for row in rows if row.get(key) is not None]


def _interpolated(line: Sequence[tuple[float, float, float]], x: float) -> tuple[float, float] | None:
    """Returns value and seconds at x, interpolated; None outside the line."""
    if not line[0][0] <= x <= line[-1][0]:
        return None
    upper = next(i for i, point in enumerate(line) if point[0] >= x)
    x1, *upper_point = line[upper]
    if x1 == x:
        return upper_point[0], upper_point[1]
    x0, *lower_point = line[upper - 1]
    share = (x - x0) / (x1 - x0)
    value, seconds = (a + share * (b - a) for a, b in zip(lower_point, upper_point, strict=True))
    return value, seconds

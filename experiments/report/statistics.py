"""Numbers over seeds.

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
# Where the variance of a difference over test examples is from: the runs' answers; p (1 − p) / n, which is at least as
# large; the seeds' own differences, since each seed draws its test rows anew; or nowhere.
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
    """Forward passes until dev first showed the target, by seed, for the runs of a cell that got there.

    of: how many of its runs ended and looked at dev, or got there. short: by seed, the forward passes of the last
    evaluation before that, 0 where there is none; of a run that never got there, of its last evaluation.
    """

    method: str
    model: str
    task: str
    peft: str
    target: float
    reached: dict[int, int]
    of: int
    short: dict[int, int]

    @property
    def never(self) -> int:
        """Runs that never got there."""
        return self.of - len(self.reached)

    @property
    def censored(self) -> dict[int, int]:
        """By seed of the runs that never got there, the forward passes of their last evaluation."""
        return {seed: passes for seed, passes in self.short.items() if seed not in self.reached}

    @property
    def mean(self) -> float | None:
        """Mean over the runs that got there; None where none did."""
        return fmean(self.reached.values()) if self.reached else None


@dataclass(frozen=True)
class Curve:
    """A cell over the course of training: `quantity` against forward passes, averaged over its runs.

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
    """Mean, deviation and interval of at least one number; no interval without scipy."""
    if len(values) < 2:
        return Spread(len(values), fmean(values), None, None, None)
    mean, deviation = fmean(values), stdev(values)
    if not HAS_SCIPY:
        return Spread(len(values), mean, deviation, None, None)
    from scipy.stats import t  # late: it takes a second

    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Spread(len(values), mean, deviation, mean - half, mean + half)


def differences(cells: Sequence[Cell]) -> tuple[Difference, ...]:
    """Of every two methods on the same task, model and peft that have seeds in common, each distinct pair once."""
    found = []
    for a, b in combinations(cells, 2):
        if (a.model, a.task, a.peft) != (b.model, b.task, b.peft):
            continue
        if a.chosen and b.chosen and (seeds := paired_seeds(a.chosen.ended, b.chosen.ended)):
            found.append(_difference(a, b, seeds))
    adjusted = iter(holm([each.p for each in found if each.p is not None]))
    return tuple(each if each.p is None else replace(each, p_holm=next(adjusted)) for each in found)


def _difference(a: Cell, b: Cell, seeds: Sequence[int]) -> Difference:
    """Over one seed a mean alone, and without scipy no interval."""
    pairs = [a.values[seed] - b.values[seed] for seed in seeds]
    names = (a.model, a.task, a.peft, a.method, b.method, tuple(seeds))
    if len(seeds) < 2 or not HAS_SCIPY:
        return Difference(*names, replace(spread(pairs), low=None, high=None))
    parts, source = _parts(a, b, seeds)
    mean, half = fmean(pairs), parts.half_width(1 - LEVEL)
    if not parts.varies:  # equal in every seed, and nothing is known of the examples
        return Difference(*names, Spread(len(pairs), mean, stdev(pairs), None, None), examples=source)
    over = Spread(len(pairs), mean, stdev(pairs), mean - half, mean + half)
    return Difference(*names, over, p=p_value(mean, parts), examples=source)


def _parts(a: Cell, b: Cell, seeds: Sequence[int]) -> tuple[Parts, str]:
    """The variances of a difference, and where those of the examples are from."""
    arms = [{run.seed: run for run in cell.chosen.ended} if cell.chosen else {} for cell in (a, b)]
    runs = [[arm[seed] for seed in seeds] for arm in arms]
    values = [[run.value or 0.0 for run in arm] for arm in runs]
    every = [run for arm in runs for run in arm]
    if all(run.draws_test for run in every):
        return bounded(values[0], values[1], 0), "drawn anew"
    answers = [[run.answers or () for run in arm] for arm in runs]
    whole = all(is_mean_of(run.value or 0.0, run.answers) for run in every)
    if whole and len({len(row) for arm in answers for row in arm}) == 1:
        return crossed(answers[0], answers[1]), "answers"
    n = min((int((run.result or {}).get("n_test") or 0) for run in every), default=0)
    return bounded(values[0], values[1], n), "bound" if n else "unknown"


def reach(cell: Cell, target: float, by: str = "metric") -> Reach:
    """Forward passes to the target of the runs of the chosen setting, diverged ones too.

    by: metric, at least the target; loss, at most. A run that has not ended counts once it has got there: until then
    it may still do.
    """
    reached: dict[int, int] = {}
    short: dict[int, int] = {}
    for run in cell.chosen.runs if cell.chosen else ():
        rows = run.rows_of("dev")
        first = next((i for i, row in enumerate(rows) if _is_there(row, target, by)), None)
        if first is not None:
            reached[run.seed] = rows[first]["forward_passes"]
            short[run.seed] = rows[first - 1]["forward_passes"] if first else 0
        elif rows and run.ended:
            short[run.seed] = rows[-1]["forward_passes"]
    return Reach(cell.method, cell.model, cell.task, cell.peft, target, reached, len(short), short)


def _is_there(row: Mapping[str, Any], target: float, by: str) -> bool:
    """A number that is not finite, null in the file, reaches no target."""
    if by == "loss":
        return row["loss"] is not None and row["loss"] <= target
    return row["value"] is not None and row["value"] >= target


def curves(cell: Cell) -> tuple[Curve, ...]:
    """The curves of a cell's chosen setting, of the runs that have ended where one has; none without a row."""
    runs = cell.chosen.runs if cell.chosen else ()
    runs = [run for run in runs if run.ended] or runs
    seen = sorted(
        {key for run in runs for row in run.rows_of("train") for key in row}
        - {"kind", "loss", JOURNAL, *AXES}
    )
    named = [("dev", "dev", "value"), ("dev loss", "dev", "loss"), ("train loss", "train", "loss")]
    made = [_curve(cell, runs, *name) for name in [*named, *((key, "train", key) for key in seen)]]
    return tuple(curve for curve in made if curve is not None)


def _curve(cell: Cell, runs: Sequence[Run], quantity: str, kind: str, key: str) -> Curve | None:
    """Between two rows of a run its value is taken to lie on the line between them; beyond its last it has none."""
    lines = [_line(run.rows_of(kind), key) for run in runs]
    lines = [line for line in lines if line]
    if not lines:
        return None
    grid = sorted({x for line in lines for x, _, _ in line})
    if len(grid) > POINTS:
        grid = [grid[round(i * (len(grid) - 1) / (POINTS - 1))] for i in range(POINTS)]
    points = [(x, [at for line in lines if (at := _at(line, x)) is not None]) for x in grid]
    points = [(x, at) for x, at in points if at]
    columns = [
        (x, fmean(second for _, second in at), fmean(values := [value for value, _ in at]), min(values),
         max(values), len(at)) for x, at in points
    ]  # fmt: skip
    return Curve(cell.method, cell.model, cell.task, cell.peft, quantity, *zip(*columns, strict=True))


def _line(rows: Sequence[Any], key: str) -> list[tuple[float, float, float]]:
    """(forward passes, value, seconds) of the rows that have a number there."""
    return [(row["forward_passes"], row[key], row["seconds"]) for row in rows if row.get(key) is not None]


def _at(line: Sequence[tuple[float, float, float]], x: float) -> tuple[float, float] | None:
    """Value and seconds at x; None outside the line."""
    if not line[0][0] <= x <= line[-1][0]:
        return None
    after = next(i for i, point in enumerate(line) if point[0] >= x)
    x1, *right = line[after]
    if x1 == x:
        return right[0], right[1]
    x0, *left = line[after - 1]
    share = (x - x0) / (x1 - x0)
    value, seconds = (a + share * (b - a) for a, b in zip(left, right, strict=True))
    return value, seconds

"""Compares forward passes to a dev target with a reference method's: report --passes-to 0.9 --reference mezo.

A run's weights are evaluated now and then, so it is known to get to the target between two evaluations: after more
than q forward passes (of the last evaluation short of it, 0 before the first) and at most p. A run that never gets
there is censored: q is its last evaluation, p is infinite. At a seed that both methods have, the ratio reference over
method lies in

    [q_ref / p,  p_ref / q]

The estimate is the geometric mean of p_ref / p over those seeds, and nothing where a run is censored. The interval goes
from the lower end of t over log(q_ref / p) to the upper end of t over log(p_ref / q): it holds the spacing of the
evaluations and the seeds; over one seed it holds the spacing alone. An end that is 0 or infinite is left open: "> x".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from experiments.report.statistics import Reach, spread
from zo.errors import ConfigError

KINDS = ("metric", "loss")
DEFAULT = "mezo"  # the papers' reference


@dataclass(frozen=True)
class Ratio:
    """The ratio of the reference's forward passes to the method's, over the seeds that both have.

    ratio: None where a run never got there. low: 0 and high: infinity are open ends. spacing_low, spacing_high: of the
    spacing of evaluations alone. columns: how many it is the geometric mean of; model, task and peft are "" then.
    """

    method: str
    model: str
    task: str
    peft: str
    reference: str
    seeds: tuple[int, ...]
    ratio: float | None
    low: float
    high: float
    spacing_low: float
    spacing_high: float
    columns: int = 1

    @property
    def text(self) -> str:
        """Returns "4.0 [3.1, 5.2]", "4.0 (> 3.1)" with an open end, "> 3.1" without an estimate, or "–"."""
        low, high = f"{self.low:.3g}", f"{self.high:.3g}"
        closed = self.low > 0, math.isfinite(self.high)
        ends = {(True, True): f"[{low}, {high}]", (True, False): f"> {low}", (False, True): f"< {high}",
                (False, False): ""}[closed]  # fmt: skip
        if self.ratio is None or not all(closed):
            if self.ratio is None:
                return ends or "–"
            return f"{self.ratio:.3g} ({ends or 'no bound'})"
        return f"{self.ratio:.3g} {ends}"


def parse_target(text: str) -> tuple[float, str]:
    """Parses 0.9, metric=0.9 or loss=0.5 into a value and its kind. Raises ConfigError for anything else."""
    kind, sign, number = text.rpartition("=")
    kind = kind if sign else "metric"
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in KINDS or not math.isfinite(value):
        raise ConfigError(
            f"--passes-to {text}: give a metric on dev, such as 0.9, or a loss on dev, such as loss=0.5."
        )
    if kind == "metric" and not 0 < value <= 1:
        raise ConfigError(f"--passes-to {text}: a metric is a fraction above 0 and at most 1, such as 0.8.")
    return value, kind


def target_words(target: float, by: str) -> str:
    """Returns a target as text: "80 %" or "loss 0.5"."""
    return f"loss {target:g}" if by == "loss" else f"{100 * target:g} %"


def reference_of(name: str | None, methods: Sequence[str]) -> str | None:
    """Returns the reference method: the one named, else mezo if it is there, else None."""
    if name is None:
        return DEFAULT if DEFAULT in methods else None
    if name not in methods:
        raise ConfigError(
            f"--reference {name}: no run uses this method. Methods are {'; '.join(dict.fromkeys(methods))}."
        )
    return name


def ratios(reaches: Sequence[Reach], reference: str) -> tuple[Ratio, ...]:
    """Returns the ratio of each method but the reference in each column, then its mean over several columns."""
    by_place = {(reach.method, reach.model, reach.peft, reach.task): reach for reach in reaches}
    found = []
    for reach in reaches:
        baseline = by_place.get((reference, reach.model, reach.peft, reach.task))
        seeds = sorted(reach.short.keys() & baseline.short.keys()) if baseline else []
        if baseline is not None and reach.method != reference and seeds:
            found.append(_ratio(reach, baseline, seeds))
    methods = list(dict.fromkeys(ratio.method for ratio in found))
    groups = [[ratio for ratio in found if ratio.method == method] for method in methods]
    return (*found, *(_mean(group) for group in groups if len(group) > 1))


def _ratio(method: Reach, baseline: Reach, seeds: Sequence[int]) -> Ratio:
    def passes(reach: Reach, seed: int) -> float:
        return reach.reached.get(seed, math.inf)

    least = [_quotient(baseline.short[seed], passes(method, seed)) for seed in seeds]
    greatest = [_quotient(passes(baseline, seed), method.short[seed]) for seed in seeds]
    points = [passes(baseline, seed) / passes(method, seed) for seed in seeds if seed in method.reached]
    point = _geometric(points) if len(points) == len(seeds) and all(map(math.isfinite, points)) else None
    return Ratio(
        method.method, method.model, method.task, method.peft, baseline.method, tuple(seeds), point,
        _end(least, upper=False), _end(greatest, upper=True), _geometric(least), _geometric(greatest),
    )  # fmt: skip


def _mean(group: Sequence[Ratio]) -> Ratio:
    """Averages a method's ratios over columns.

    The interval averages the columns' ends: it is as wide as if all erred to the same side.
    """
    points = [ratio.ratio for ratio in group if ratio.ratio is not None]
    ends = {
        name: _geometric([getattr(ratio, name) for ratio in group])
        for name in ("low", "high", "spacing_low", "spacing_high")
    }
    point = _geometric(points) if len(points) == len(group) else None
    return replace(group[0], model="", task="", peft="", seeds=(), ratio=point, columns=len(group), **ends)


def _quotient(a: float, b: float) -> float:
    """Returns a / b, where 0 over infinity is 0 and anything over 0 is infinite."""
    return math.inf if not b else a / b if math.isfinite(b) else 0.0


def _geometric(values: Sequence[float]) -> float:
    """Returns the geometric mean: 0 if a value is 0, infinite if one is.

    Lower ends are never infinite and upper ends never 0, so 0 and infinity cannot meet.
    """
    if not all(values):  # log(0) raises
        return 0.0
    return math.exp(fmean(math.log(value) for value in values))


def _end(values: Sequence[float], *, upper: bool) -> float:
    """Returns the outer end of a t interval over the logarithms."""
    middle = _geometric(values)
    if not middle or math.isinf(middle):
        return middle
    interval = spread([math.log(value) for value in values])
    end = interval.high if upper else interval.low
    return middle if end is None else math.exp(end)

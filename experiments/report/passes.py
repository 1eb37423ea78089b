"""Compares forward passes to a target on dev with those of a reference method: report --passes-to 0.9 --reference mezo.

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
    """How many times as many forward passes the reference takes to the target, over the seeds that both have.

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
        """4.0 [3.1, 5.2]; 4.0 (> 3.1) where an end is open, > 3.1 without an estimate; – where nothing is known."""
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
    """Returns the target and what it is of from 0.9, metric=0.9 or loss=0.5. Raises ConfigError for anything else."""
    kind, sign, number = text.rpartition("=")
    kind = kind if sign else "metric"
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in KINDS or not math.isfinite(value):
        raise ConfigError(
            f"--passes-to {text}: it takes a metric on dev, such as 0.9, or a loss on dev, such as loss=0.5."
        )
    if kind == "metric" and not 0 < value <= 1:
        raise ConfigError(f"--passes-to {text}: a metric is a fraction above 0 and up to 1, such as 0.8.")
    return value, kind


def target_words(target: float, by: str) -> str:
    """80 %, or loss 0.5."""
    return f"loss {target:g}" if by == "loss" else f"{100 * target:g} %"


def reference_of(name: str | None, methods: Sequence[str]) -> str | None:
    """Returns the method that ratios are to: the one named, else mezo where it is there, else none."""
    if name is None:
        return DEFAULT if DEFAULT in methods else None
    if name not in methods:
        raise ConfigError(
            f"--reference {name}: no run is of it. Methods are {'; '.join(dict.fromkeys(methods))}."
        )
    return name


def ratios(reaches: Sequence[Reach], reference: str) -> tuple[Ratio, ...]:
    """Returns the ratio of each method but the reference in each column, then its mean over several columns."""
    known = {(each.method, each.model, each.peft, each.task): each for each in reaches}
    made = []
    for each in reaches:
        other = known.get((reference, each.model, each.peft, each.task))
        seeds = sorted(each.short.keys() & other.short.keys()) if other else []
        if other is not None and each.method != reference and seeds:
            made.append(_ratio(each, other, seeds))
    methods = list(dict.fromkeys(each.method for each in made))
    groups = [[each for each in made if each.method == method] for method in methods]
    return (*made, *(_mean(group) for group in groups if len(group) > 1))


def _ratio(method: Reach, other: Reach, seeds: Sequence[int]) -> Ratio:
    def passes(each: Reach, seed: int) -> float:
        return each.reached.get(seed, math.inf)

    least = [_over(other.short[seed], passes(method, seed)) for seed in seeds]
    most = [_over(passes(other, seed), method.short[seed]) for seed in seeds]
    points = [passes(other, seed) / passes(method, seed) for seed in seeds if seed in method.reached]
    point = _geometric(points) if len(points) == len(seeds) and all(map(math.isfinite, points)) else None
    return Ratio(
        method.method, method.model, method.task, method.peft, other.method, tuple(seeds), point,
        _end(least, upper=False), _end(most, upper=True), _geometric(least), _geometric(most),
    )  # fmt: skip


def _mean(group: Sequence[Ratio]) -> Ratio:
    """Over columns. Its interval goes over the columns' ends: as wide as if all erred to one side."""
    points = [each.ratio for each in group if each.ratio is not None]
    ends = {
        name: _geometric([getattr(each, name) for each in group])
        for name in ("low", "high", "spacing_low", "spacing_high")
    }
    point = _geometric(points) if len(points) == len(group) else None
    return replace(group[0], model="", task="", peft="", seeds=(), ratio=point, columns=len(group), **ends)


def _over(a: float, b: float) -> float:
    """a / b, with 0 over infinity 0 and anything over 0 infinite."""
    return math.inf if not b else a / b if math.isfinite(b) else 0.0


def _geometric(values: Sequence[float]) -> float:
    """0 where one is 0, infinite where one is; the lower ends are never infinite, the upper never 0."""
    if not all(values):
        return 0.0
    return math.exp(fmean(math.log(value) for value in values))


def _end(values: Sequence[float], *, upper: bool) -> float:
    """Returns the outer end of t over the logarithms."""
    middle = _geometric(values)
    if not middle or math.isinf(middle):
        return middle
    over = spread([math.log(value) for value in values])
    end = over.high if upper else over.low
    return middle if end is None else math.exp(end)

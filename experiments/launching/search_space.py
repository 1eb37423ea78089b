"""Describes what a search draws from, in Hydra's grammar, without Optuna.

interval(a,b) is drawn evenly, tag(log,interval(a,b)) evenly in its logarithm, choice(...), range(...) and glob(...)
among their values. Several seeds are no dimension: a trial runs all of them, and its value is their mean.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import HydraException

from experiments.config.compose import groups, unread
from experiments.config.expand import MAX_RUNS, count_values, parser
from experiments.config.problems import Problem


@dataclass(frozen=True)
class Interval:
    """A number between low and high."""

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> list[str]:
        """Returns the values that represent all others when a search is checked."""
        return [repr(self.low), repr(self.high)]

    @property
    def written(self) -> str:
        """Returns the dimension as a Hydra override."""
        interval = f"interval({self.low!r},{self.high!r})"
        return f"tag(log,{interval})" if self.log else interval


@dataclass(frozen=True)
class Values:
    """A choice among values, as they are written."""

    ends: list[str]

    @property
    def written(self) -> str:
        """Returns the dimension as a Hydra override."""
        return ",".join(self.ends)


@dataclass
class Space:
    """The dimensions by key, the overrides shared by all trials, the seeds of each trial."""

    dimensions: dict[str, Interval | Values] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    seeds: list[str] = field(default_factory=list)

    def written(self) -> dict[str, str]:
        """Returns the dimensions as Hydra overrides."""
        return {key: dimension.written for key, dimension in self.dimensions.items()}

    def runs(self, values: Mapping[str, Any]) -> list[list[str]]:
        """Returns the overrides of a trial's runs, one for each seed."""
        chosen = [f"{key}={value}" for key, value in values.items()]
        return [[*self.fixed, *chosen, *([seed] if seed else [])] for seed in self.seeds or [""]]

    def corners(self) -> list[list[str]]:
        """Returns runs that reveal any problem: each end of each dimension, with the others at their first value."""
        first = {key: dimension.ends[0] for key, dimension in self.dimensions.items()}
        all_ends = [(key, end) for key, dimension in self.dimensions.items() for end in dimension.ends]
        corners = [first, *({**first, key: end} for key, end in all_ends)]
        unique = {tuple(corner.items()): corner for corner in corners}
        return list(itertools.chain.from_iterable(self.runs(corner) for corner in unique.values()))


def read_space(overrides: Sequence[str]) -> tuple[Space, list[Problem]]:
    """Returns the search space of a command line, and the problems."""
    space, problems = Space(), []
    with parser() as reading:
        for text in overrides:
            try:
                (override,) = reading.parse_overrides([text])
                if override.is_discrete_sweep() and not 0 < count_values(override) <= MAX_RUNS:
                    problems.append(Problem(text, f"It gives no value, or more than {MAX_RUNS:,}."))
                    continue
                if not override.is_sweep_override():
                    space.fixed.append(text)
                elif override.key_or_group == "seed":
                    space.seeds = [f"seed={value}" for value in override.sweep_string_iterator()]
                elif isinstance(value := override.value(), IntervalSweep):
                    _interval(space, text, override.key_or_group, value, problems)
                else:
                    space.dimensions[override.key_or_group] = Values(list(override.sweep_string_iterator()))
            except HydraException:
                problems.append(Problem(text, unread(text, groups())))
    if not space.dimensions and not problems:
        what = "A search needs a key to search over: optimizer.lr=tag(log,interval(1e-6,1e-3)), or values: a,b,c."
        problems.append(Problem("--trials", what))
    return space, problems


def _interval(space: Space, text: str, key: str, value: IntervalSweep, problems: list[Problem]) -> None:
    low, high, log = float(value.start or 0), float(value.end or 0), "log" in value.tags
    if not low < high or (log and low <= 0):
        problems.append(
            Problem(text, "An interval goes from a smaller to a larger number; with log from above 0.")
        )
        return
    space.dimensions[key] = Interval(low, high, log)

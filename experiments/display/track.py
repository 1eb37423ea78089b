"""Tracks a run's progress from the rows of its metrics.jsonl: ETA, curves, best on dev.

ETA. With marks (s_i, f_i), seconds and forward passes after a step, and F forward passes to do in all,

    ETA = (F − f_n) · (s_n − s_1) / (f_n − f_1)

over the steps of the process that is at it: the first mark is after its first step, which holds compilation and
first allocations, and steps taken again from the journal make none. Evaluations on the way are in s, as they will be
in what is to come. With a budget of minutes ETA is what is left of them.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.config.run_id import Config, as_mapping, trains
from experiments.display.sparkline import Curve
from experiments.rundir.metric_rows import AXES, rank_key, selected_by

_RECENT = 20.0  # seconds over which the pace of the moment is measured
_APART = 0.5  # seconds between the marks it is measured from
_KNOWN = frozenset(("kind", "loss", "lr", *AXES))  # of a train row, shown in places of their own


@dataclass(frozen=True)
class Goal:
    """The budget of a run: steps, forward passes or seconds; none of them if nothing is trained.

    select_by: what makes an evaluation on dev the best, metric or loss.
    """

    steps: int | None = None
    forwards: int | None = None
    seconds: float | None = None
    select_by: str = "metric"


def goal_of(config: Config) -> Goal:
    """Returns the budget of a configuration."""
    if not trains(config):
        return Goal()
    values = as_mapping(config)
    budget = values["budget"]
    minutes = budget["minutes"]
    seconds = None if minutes is None else 60 * minutes
    return Goal(budget["steps"], budget["forward_passes"], seconds, selected_by(values))


class Pace:
    """Forward passes per second: the mean of the process that runs it, and a recent value."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._recent: deque[tuple[float, int]] = deque()

    def mark(self, seconds: float, forwards: int) -> None:
        """Records the forward passes done after this many seconds."""
        self._last = (seconds, forwards)
        self._first = self._first or self._last
        if not self._recent or seconds - self._recent[-1][0] >= _APART:
            self._recent.append(self._last)
        while len(self._recent) > 2 and seconds - self._recent[0][0] > _RECENT:
            self._recent.popleft()

    @property
    def mean(self) -> float | None:
        """Returns the pace since the first mark; None before there are two."""
        return _per_second(self._first, self._last)

    @property
    def now(self) -> float | None:
        """Returns the pace over the last seconds."""
        return _per_second(self._recent[0] if self._recent else None, self._last)


def _per_second(first: tuple[float, int] | None, last: tuple[float, int] | None) -> float | None:
    if first is None or last is None or last[0] <= first[0] or last[1] <= first[1]:
        return None
    return (last[1] - first[1]) / (last[0] - first[0])


class Track:
    """The state of a run by its rows so far. Numbers are None until a row contains them.

    seen: what the method noted of its last step beside the loss (σ, projected gradient, ...).
    train, dev_losses, dev_values, noted: curves; the last of the first quantity in `seen`.
    """

    def __init__(self, goal: Goal):
        self.goal = goal
        self.pace = Pace()
        self.steps = 0
        self.forwards = 0
        self.seconds = 0.0
        self.loss: float | None = None
        self.lr: float | None = None
        self.seen: Mapping[str, float] = {}
        self.memory: int | None = None
        self.tokens: float | None = None
        self.metric = ""
        self.dev: float | None = None
        self.dev_loss: float | None = None
        self.best: float | None = None
        self.best_step = 0
        self._best: tuple[float, float] | None = None
        self.train, self.dev_losses, self.dev_values, self.noted = Curve(), Curve(), Curve(), Curve()

    def take(self, row: Mapping[str, Any], *, live: bool = True) -> None:
        """Takes the next row. live: from the running process, and not repeated from the journal."""
        self.steps = max(self.steps, row["steps"])
        self.forwards = max(self.forwards, row["forward_passes"])
        self.seconds = max(self.seconds, row["seconds"])
        self.memory = row.get("peak_memory_bytes") or self.memory
        if row["kind"] == "train":
            self._train(row)
        if row["kind"] == "dev":
            self._dev(row)
        if live and row["kind"] in ("train", "dev") and row["steps"]:
            self.pace.mark(row["seconds"], row["forward_passes"])

    def _train(self, row: Mapping[str, Any]) -> None:
        self.loss, self.lr = row.get("loss"), row.get("lr", self.lr)
        self.train.add(self.loss)
        seen = {k: v for k, v in row.items() if k not in _KNOWN and isinstance(v, (int, float))}
        if seen:  # a skipped step has none
            self.seen = seen
            self.noted.add(next(iter(seen.values())))
        if row.get("tokens") and row["forward_passes"]:
            self.tokens = row["tokens"] / row["forward_passes"]

    def _dev(self, row: Mapping[str, Any]) -> None:
        self.metric, self.dev, self.dev_loss = row["metric"], row["value"], row["loss"]
        self.dev_losses.add(self.dev_loss)
        self.dev_values.add(self.dev)
        place = rank_key(self.dev, self.dev_loss, self.goal.select_by)
        if self._best is None or place > self._best:
            self._best, self.best, self.best_step = place, self.dev, row["steps"]

    @property
    def total(self) -> int | None:
        """Returns the forward passes of the whole run; None if unknown, as with a budget of time."""
        if not self.steps:
            return self.goal.forwards
        cost = self.forwards // self.steps
        if self.goal.forwards is not None:
            return self.goal.forwards // cost * cost if cost else None
        return None if self.goal.steps is None else self.goal.steps * cost

    @property
    def share(self) -> float | None:
        """Returns the fraction of the budget used, 0 to 1."""
        if self.goal.seconds is not None:
            return min(1.0, self.seconds / self.goal.seconds)
        if self.goal.steps is not None:
            return min(1.0, self.steps / self.goal.steps)
        total = self.total
        return min(1.0, self.forwards / total) if total else None

    def eta(self, since: float = 0.0) -> float | None:
        """Returns the seconds to go, `since` seconds after the last row; None if unknown."""
        if self.goal.seconds is not None:
            return max(0.0, self.goal.seconds - self.seconds - since)
        total, pace = self.total, self.pace.mean
        if total is None or pace is None:
            return None
        return max(0.0, (total - self.forwards) / pace - since)


def clock(seconds: float | None) -> str:
    """Formats a duration: 0:07, 12:34, 1:02:03, 2 d 03:04; '-' if unknown."""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def number(value: float | None) -> str:
    """Formats four digits; '-' for None."""
    return "-" if value is None else f"{value:.4g}"


def percent(fraction: float | None) -> str:
    """Formats a fraction in points with one decimal."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def mebibytes(size: int | None) -> str:
    """Formats MiB, from ten GiB on GiB."""
    if size is None:
        return "-"
    return f"{size / 2**20:,.0f} MiB" if size < 10 * 2**30 else f"{size / 2**30:,.1f} GiB"

"""Learning-rate schedules: a factor in [0, 1] as a function of the share of the run that is done.

A schedule knows no steps and no clock, so one definition serves budgets of steps, of forward passes and
of minutes. `over` binds it to a learning rate and a number of steps.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from zo.errors import ConfigError
from zo.fields import Range, Share

Factor = Annotated[float, Range(ge=0, le=1)]


class Schedule(ABC):
    """factor = warm-up from 0 over the first share `warmup`, then from 1 down to `end`.

    warmup: share of the run, in [0, 1).
    end: factor at the end of the run, in [0, 1].
    """

    def __init__(self, warmup: float, end: float):
        if not 0.0 <= warmup < 1.0:
            raise ConfigError(f"schedule.warmup = {warmup} must be a share of the run in [0, 1).")
        if not 0.0 <= end <= 1.0:
            raise ConfigError(f"schedule.end = {end} must be a factor in [0, 1].")
        self.warmup = warmup
        self.end = end

    def __call__(self, progress: float) -> float:
        """The factor when the share `progress` in [0, 1] of the run is done."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return progress / self.warmup
        return self._after((progress - self.warmup) / (1.0 - self.warmup))

    @abstractmethod
    def _after(self, x: float) -> float:
        """The factor at share x in [0, 1] of what follows the warm-up."""

    def over(self, lr: float, steps: int) -> "Scheduled":
        """The learning rate of step t of `steps`, as the `lr` of an optimizer."""
        return Scheduled(self, lr, steps)


@dataclass(frozen=True)
class Scheduled:
    """A learning rate as a function of the step; during the warm-up that of the step's end, so never 0."""

    schedule: Schedule
    lr: float
    steps: int

    def __call__(self, t: int) -> float:
        done = (t + 1) / self.steps if (t + 1) / self.steps <= self.schedule.warmup else t / self.steps
        return self.lr * self.schedule(done)


class Constant(Schedule):
    """1 after the warm-up; what the MeZO and FZOO papers use."""

    def __init__(self, warmup: Share = 0.0):
        super().__init__(warmup, 1.0)

    def _after(self, x: float) -> float:
        return 1.0


class Linear(Schedule):
    """1 − (1 − end) x."""

    def __init__(self, warmup: Share = 0.0, end: Factor = 0.0):
        super().__init__(warmup, end)

    def _after(self, x: float) -> float:
        return 1.0 - (1.0 - self.end) * x


class Cosine(Schedule):
    """end + (1 − end) (1 + cos πx) / 2; Loshchilov & Hutter, "SGDR" (ICLR 2017), without restarts."""

    def __init__(self, warmup: Share = 0.0, end: Factor = 0.0):
        super().__init__(warmup, end)

    def _after(self, x: float) -> float:
        return self.end + (1.0 - self.end) * (1.0 + math.cos(math.pi * x)) / 2

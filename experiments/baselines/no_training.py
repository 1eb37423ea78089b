"""Baselines that take no steps, in the form of an optimizer so that a run with one is a run like any.

ZeroShot evaluates the model as it is: zero-shot; with task.demonstrations in context; with task.calibrate calibrated.
Such a run has the same result for any budget, batch and schedule: they are no part of its hash.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from experiments.models.loading import Loaded
from experiments.tasks.task import Task
from zo.directions import Probe
from zo.fields import NonNegative
from zo.optimizers import Optimizer
from zo.optimizers.optimizer import Rate


@dataclass(eq=False, kw_only=True)
class NoTraining(Optimizer):
    """No step, no loss; `fit` does what there is to do."""

    lr: Rate = field(default=0.0, init=False)
    weight_decay: NonNegative = field(default=0.0, init=False)

    @property
    def losses_per_step(self) -> int:
        return 0

    def ask(self, t: int) -> list[Probe]:
        return []

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return {}

    @abstractmethod
    def fit(self, loaded: Loaded, task: Task, size: int) -> int:
        """Changes the model, with `size` examples in it at a time; returns how many forward passes that took."""


@final
@dataclass(eq=False, kw_only=True)
class ZeroShot(NoTraining):
    """No training."""

    def fit(self, loaded: Loaded, task: Task, size: int) -> int:
        return 0

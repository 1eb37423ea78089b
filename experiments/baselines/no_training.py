"""Baselines that take no steps, in the form of an optimizer so that a run with one is a run like any.

ZeroShot evaluates the model as it is: zero-shot; with task.demonstrations in context; with task.calibrate calibrated.
Such a run has the same result for any budget, batch and schedule: they are no part of its hash.
"""

from abc import abstractmethod
from collections.abc import Sequence

from experiments.models.loading import Loaded
from experiments.tasks.task import Task
from zo.directions import Probe
from zo.names import Parameters
from zo.optimizers import Optimizer
from zo.weights import Weights


class NoTraining(Optimizer):
    """No step, no loss; `fit` does what there is to do."""

    losses_per_step = 0
    forward_passes = 0

    def __init__(self, params: Weights | Parameters, seed: int, on_nan: str):
        super().__init__(params, 0.0, 0.0, seed, on_nan)

    def ask(self, t: int) -> list[Probe]:
        return []

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return {}

    @abstractmethod
    def fit(self, loaded: Loaded, task: Task, size: int) -> int:
        """Changes the model, with `size` examples in it at a time; returns how many forward passes that took."""


class ZeroShot(NoTraining):
    """No training."""

    def __init__(self, params: Weights | Parameters, *, seed: int = 0, on_nan: str = "stop"):
        super().__init__(params, seed, on_nan)

    def fit(self, loaded: Loaded, task: Task, size: int) -> int:
        return 0

"""Ways to run a model that take no steps.

none   the model as it is: zero-shot; with task.demonstrations in context; with task.calibrate calibrated.

Such a run has no forward passes but those of evaluation, no new weights, and the same result for any budget,
batch, schedule and seed of directions: they are no part of its hash.
"""

from collections.abc import Sequence

from zo.directions import Probe
from zo.names import Parameters
from zo.optimizers import Optimizer
from zo.weights import Weights


class Untrained(Optimizer):
    """No training. It has the form of an optimizer, so that a run with it is a run like any other."""

    losses_per_step = 0
    forward_passes = 0

    def __init__(self, params: Weights | Parameters, *, seed: int = 0, on_nan: str = "stop"):
        super().__init__(params, 0.0, 0.0, seed, on_nan)

    def ask(self, t: int) -> list[Probe]:
        return []

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return {}

"""Times the steps of AdaMeZO's Table 7 methods, and of MeZO plus the noise of a window alone.

That row separates the two prices of AdaMeZO's moments: making the directions of H steps again, and summing them.
"""

import gc
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.measure import clock
from zo.fields import Count
from zo.look import ModuleLook
from zo.optimizers import Optimizer
from zo.optimizers.optimizer import DirectionKind
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights

ALONE = "mezo + a."


@final
@dataclass(eq=False, kw_only=True)
class NoiseAlone(TwoPoint):
    """MeZO that creates the directions of its last `remembered` steps at each step, as AdaMeZO does, and uses one."""

    directions: DirectionKind = DirectionKind("gaussian")
    remembered: Count = 10

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        values = self.descend(t, losses, lr)
        # The move has made the newest step's.
        for name in self.weights.tensors:
            for step in range(max(0, t - self.remembered + 1), t):
                for key in self.keys(step):
                    self.weights.direction(name, key, self.directions)
        return values


def seconds_of(
    name: str, size: str, tokens: str, dtype: str, device: torch.device, rounds: int, window: int
) -> float:
    """Returns the median seconds of a step, after AdaMeZO's warm-up and after a first step has loaded its code."""
    gc.collect()
    case = Case(
        "mezo" if name == ALONE else name, None if name == "adamw" else "gaussian", size, tokens, dtype
    )
    if case.method == "hizoo":
        case = Case("hizoo", None, size, tokens, dtype)  # its directions are its own
    network, inputs = cases.model(case, device), cases.batch(case, device)
    method = _optimizer(name, case, network, window)
    look = ModuleLook(network, cases.objective, method)
    now = clock(device, torch.get_num_threads())
    warm = window + 2 if name in (ALONE, "adamezo") else 2
    times = []
    for t in range(warm + rounds):
        began = now()
        method.tell(t, method.step(t, inputs, look))
        times.append(now() - began)
    return statistics.median(times[warm:])


def _optimizer(name: str, case: Case, network: torch.nn.Module, window: int) -> Optimizer:
    if name != ALONE:
        return cases.optimizer(case, network, "auto")
    return NoiseAlone(Weights(network, kernels="auto"), remembered=window, lr=cases.LR, eps=cases.EPS)

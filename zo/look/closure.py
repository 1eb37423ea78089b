"""Looks at functions that are no modules: toy functions, or anything that takes its weights as an argument."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zo.backward import Backward
from zo.directions import Probe
from zo.look.look import PLAIN, Look, weighted_sums
from zo.optimizers import Probing


class ClosureLook(Look):
    """function(weights by name, batch) → losses [B] or (losses, weights); all weights of a probe exist at once."""

    def __init__(
        self,
        function: Callable[[dict[str, Tensor], Any], Tensor | tuple[Tensor, Tensor]],
        optimizer: Probing,
        *,
        micro: int | None = None,
    ):
        super().__init__(None, function, micro)
        self.weights = optimizer.weights
        self.directions = optimizer.directions

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        self.weights.refresh()
        sums = []
        for probe in probes:
            self.model = {
                name: self.weights.at(name, probe, self.directions) for name in self.weights.tensors
            }
            with torch.no_grad():
                parts = [self.examples(chunk, 1) for chunk in self.chunks(batch)]
            sums.append(
                weighted_sums(
                    [x for lost, _ in parts for x in lost[0].tolist()],
                    [x for _, weight in parts for x in weight[0].tolist()],
                )
            )
        self.forward_passes += len(probes)
        return sums

    def gradient(self, batch: Any, *, seed: int | None, how: Backward = PLAIN) -> float:
        raise TypeError("A closure is looked at without gradients.")

"""MeZO's walk: the weights themselves are moved to each probe in turn, and back at the end.

Only to reproduce published numerics: in fp32 to the bit, in 16 bits to about a tenth of the path. There the authors
round z, s z and s z ε each, where here z and the sum are made in fp32 and rounded once: over 10 steps of MeZO on 260 k
weights, told the same losses, the paths differ by 3.5e-3 of their length (float16, lr 1e-4), 2.9e-2 (bfloat16), and at
lr 1e-6 by 9.4e-2 and 1.2e-1. The way back does not end where it began in 16 bits (performance notes in
docs/benchmarks.md), so a run that looks this way is not exact; use ModuleLook for everything else.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zo.directions import Key, Probe
from zo.errors import ConfigError
from zo.look.look import ModelLook, Objective, weighted_sums
from zo.optimizers import Probing


class InPlace(ModelLook):
    """Walks θ from probe to probe: +ε, −2ε, +ε for MeZO."""

    def __init__(
        self, model: nn.Module, objective: Objective, optimizer: Probing, *, micro: int | None = None
    ):
        super().__init__(model, objective, micro)
        if optimizer.weights.copies:
            raise ConfigError(
                "The in-place walk perturbs 16-bit vectors as they are, as MeZO does. "
                "Make the optimizer with Weights(model, copies=False)."
            )
        if optimizer.weights.update != "nearest":
            raise ConfigError(
                f"The in-place walk moves the weights as MeZO does, rounded to nearest; with update = "
                f"{optimizer.weights.update!r} it would be another one. Use update = 'nearest', or ModuleLook."
            )
        if optimizer.directions.stateful:
            raise ConfigError(
                f"The in-place walk moves the weights, on which {optimizer.directions.name} directions depend, so it "
                "would not come back. Use ModuleLook."
            )
        self.weights = optimizer.weights
        self.directions = optimizer.directions

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        here: dict[Key, float] = {}
        sums = []
        try:
            with torch.no_grad(), self.evaluating():
                for probe in probes:
                    here = self._walk(here, dict(probe.terms))
                    parts = [self.examples(chunk, 1) for chunk in self.chunks(batch)]
                    sums.append(
                        weighted_sums(
                            [x for lost, _ in parts for x in lost[0].tolist()],
                            [x for _, weight in parts for x in weight[0].tolist()],
                        )
                    )
        finally:
            self._walk(here, {})
        self.forward_passes += len(probes)
        return sums

    def _walk(self, here: dict[Key, float], there: dict[Key, float]) -> dict[Key, float]:
        steps = {key: there.get(key, 0.0) - here.get(key, 0.0) for key in here | there}
        self.weights.move(steps.items(), self.directions)
        return there

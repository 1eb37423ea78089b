"""ZO-SGD-Cons of ZO-Bench (Zhang et al., ICML 2024): the best of three points.

    ĝ = (1/n) Σ p_i z_i            zo/optimizers/twopoint.py
    θ ← argmin of L over {θ, θ − η ĝ, θ + η ĝ}, on the batch of the step

A step looks twice, for where the second look goes depends on the first: 2n + 3 forward passes (5 in the paper, n = 1),
or n + 3 with one side, where L(θ) is known already. All of these losses are told and journaled, so that replaying needs
no pass. Ties stay at θ. No state.

In fp32, and in 16 bits rounded to nearest, the point moved to is bit for bit the one looked at, so the loss on the
batch never rises; stochastic rounding, fp32 masters of 16-bit weights, and directions with factors (lowrank, subspace),
for which a look never makes the matrix, end within a rounding of it. A candidate whose loss is no finite number is not
taken; without a loss at θ, or slopes, there is no step. Weight decay is no part of the points compared; it is applied
with a move, and where θ is the best nothing changes. The authors' code walks to the third point and back in place, and
moves where the losses are equal (stays at θ here).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from zo.directions import Probe
from zo.optimizers.optimizer import DirectionKind, Looker, Rate
from zo.optimizers.twopoint import EitherSide


@final
@dataclass(eq=False, kw_only=True)
class ZOConservative(EitherSide):
    """A step of ZO-SGD, a step the other way or none, whichever has the least loss."""

    looks_twice = True

    lr: Rate = 1e-6
    directions: DirectionKind = DirectionKind("gaussian")

    @property
    def first_look(self) -> int:
        """Losses at the points of `ask`."""
        return super().losses_per_step

    @property
    def losses_per_step(self) -> int:
        return self.first_look + (2 if self.one_sided else 3)

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        lr = self.rate(t) if lr is None else lr
        first = look(self.ask(t), batch)
        if not all(map(math.isfinite, first)):
            return [
                *first,
                *[math.nan] * (self.losses_per_step - self.first_look),
            ]  # no slope, no second look
        slopes = self.slopes(first)
        points = [Probe(self.terms(t, slopes, scale)) for scale in (-lr, lr)]
        return first + look(points if self.one_sided else [Probe(), *points], batch)

    def required_losses(self, losses: Sequence[float]) -> Sequence[float]:
        """Returns the losses of ĝ and at θ; a candidate whose loss is not finite is not taken."""
        return losses[:-2]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        first, second = losses[: self.first_look], losses[self.first_look :]
        here, *candidates = (first[0], *second) if self.one_sided else second
        there, back = (loss if math.isfinite(loss) else math.inf for loss in candidates)
        slopes = self.slopes(first)
        best, way = min((here, 0.0), (there, -1.0), (back, 1.0), key=lambda point: point[0])
        if way:
            self.apply(t, self.terms(t, slopes, way * lr), lr)
        return self.metrics(first, slopes) | {"loss": here, "loss_after": best, "way": way}

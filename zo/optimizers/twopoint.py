"""The estimator of the ZO-Bench methods: slopes from losses at two points (Zhang et al., ICML 2024).

    two sides   p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε          2n forward passes a step, error O(ε²)
    one side    p_i = (L(θ + ε z_i) − L(θ)) / ε                   n + 1 forward passes a step, error O(ε)
    ĝ = (1/n) Σ p_i z_i

What a method does with ĝ is its own file; `descend` is θ ← θ − η (ĝ + λ θ). The benchmark's code writes ĝ into
`.grad`, tensor by tensor, and calls torch's optimizer; here ĝ is made in blocks and never exists as a whole. For n > 1
the path that its loop calls (zo_step_v1) takes the mean over the directions, as here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zo.directions import Key, Probe
from zo.estimators import central_difference, forward_difference
from zo.fields import Count
from zo.kernels.formulas import Elements, Value
from zo.optimizers.optimizer import Probing, Radius

Sides = Literal["two", "one"]  # L(θ + εz) − L(θ − εz), or L(θ + εz) − L(θ)


@dataclass(eq=False, kw_only=True)
class TwoPoint(Probing):
    """n slopes a step, from two points each."""

    eps: Radius = 1e-3
    n: Count = 1

    @property
    def losses_per_step(self) -> int:
        return self.n + 1 if self.one_sided else 2 * self.n

    def ask(self, t: int) -> list[Probe]:
        if self.one_sided:
            return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]
        return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]

    def slopes(self, losses: Sequence[float]) -> list[float]:
        """p_i from the losses at the points of `ask`."""
        if self.one_sided:
            return [forward_difference(plus, losses[0], self.eps) for plus in losses[1:]]
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return [central_difference(plus, minus, self.eps) for plus, minus in pairs]

    def descend(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        """Makes the move of plain SGD and returns the metrics."""
        slopes = self.slopes(losses)
        self.apply(t, self.terms(t, slopes, -lr), lr)
        return self.metrics(losses, slopes)

    def metrics(self, losses: Sequence[float], slopes: Sequence[float]) -> dict[str, float]:
        """The loss at θ, or the mean of both sides, and the root mean square of the slopes."""
        loss = losses[0] if self.one_sided else math.fsum(losses) / len(losses)
        return {"loss": loss, "projected_gradient": math.sqrt(math.fsum(p * p for p in slopes) / self.n)}

    def terms(self, t: int, slopes: Sequence[float], scale: float) -> tuple[tuple[Key, float], ...]:
        """scale · ĝ as a sum of directions."""
        return tuple((key, scale * p / self.n) for key, p in zip(self.keys(t), slopes, strict=True))

    def gradient(self, at: Elements, slopes: Sequence[float]) -> Value:
        """ĝ in a formula."""
        g = at.noise[0] * (slopes[0] / self.n)
        for z, p in zip(at.noise[1:], slopes[1:], strict=True):
            g = g + z * (p / self.n)
        return g


@dataclass(eq=False, kw_only=True)
class EitherSide(TwoPoint):
    """A method of which the number of sides is an option.

    sides: "two" or "one".
    """

    sides: Sides = "two"

    def begin(self) -> None:
        super().begin()
        self.one_sided = self.sides == "one"

"""The estimator of the ZO-Bench methods: slopes from losses at two points (Zhang et al., ICML 2024).

    two sides   p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε          2n forward passes a step, error O(ε²)
    one side    p_i = (L(θ + ε z_i) − L(θ)) / ε                   n + 1 forward passes a step, error O(ε)
    ĝ = (1/n) Σ p_i z_i

What a method does with ĝ is its own file; without a line on it, θ ← θ − η (ĝ + λ θ). The benchmark's code writes ĝ into
`.grad`, tensor by tensor, and calls torch's optimizer; here ĝ is made in blocks and never exists as a whole. For n > 1
the path that its loop calls (zo_step_v1) takes the mean over the directions, as here.
"""

import math
from collections.abc import Sequence

from zo.directions import Key, Probe, Spec
from zo.directions import directions as kind
from zo.errors import ConfigError
from zo.estimators import central_difference, forward_difference
from zo.kernels.formulas import Elements, Value
from zo.names import Parameters
from zo.optimizers.optimizer import Probing, Rate
from zo.weights import Weights


class TwoPoint(Probing):
    """n slopes a step, from two points each.

    sides: "two" or "one".
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate,
        eps: float,
        n: int,
        sides: str,
        directions: Spec,
        weight_decay: float,
        seed: int,
        on_nan: str,
    ):
        if sides not in ("two", "one"):
            raise ConfigError(
                f"optimizer.sides = {sides!r} must be 'two', L(θ + εz) − L(θ − εz), or 'one', L(θ + εz) − L(θ)."
            )
        super().__init__(params, lr, eps, n, kind(directions), weight_decay, seed, on_nan)
        self.sides = sides
        self.losses_per_step = self.forward_passes = 2 * n if sides == "two" else n + 1

    def ask(self, t: int) -> list[Probe]:
        if self.sides == "one":
            return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]
        return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]

    def slopes(self, losses: Sequence[float]) -> list[float]:
        """p_i from the losses at the points of `ask`."""
        if self.sides == "one":
            return [forward_difference(plus, losses[0], self.eps) for plus in losses[1:]]
        pairs = zip(losses[0::2], losses[1::2], strict=True)
        return [central_difference(plus, minus, self.eps) for plus, minus in pairs]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        self.apply(t, self.terms(t, slopes, -lr), lr)
        return self.metrics(losses, slopes)

    def metrics(self, losses: Sequence[float], slopes: Sequence[float]) -> dict[str, float]:
        """The loss at θ, or the mean of both sides, and the root mean square of the slopes."""
        loss = losses[0] if self.sides == "one" else math.fsum(losses) / len(losses)
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

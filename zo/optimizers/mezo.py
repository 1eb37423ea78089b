"""MeZO: fine-tuning language models with just forward passes (Malladi et al., NeurIPS 2023).

    z_i ~ N(0, I), i = 1..n
    p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε          the projected gradient
    θ ← θ − η ((1/n) Σ p_i z_i + λ θ)

2n forward passes a step (n-SPSA; the paper's main results have n = 1). No state.

The authors' code differs: it walks the weights in place (+ε, −2ε, +ε), which in 16 bits does not come
back to where it started; losses are differenced in the logits' dtype; it reports L(θ + εz) as the loss.
Here the weights are never written while looking and the reported loss is the mean of all 2n.
`zo.look.InPlace` reproduces the walk.
"""

import math
from collections.abc import Sequence

from zo.directions import Probe, Spec
from zo.directions import directions as kind
from zo.estimators import central_difference
from zo.names import Parameters
from zo.optimizers.base import Probing, Rate
from zo.weights import Weights


class MeZO(Probing):
    """n two-sided directions, plain SGD."""

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        super().__init__(params, lr, eps, n, kind(directions), weight_decay, seed, on_nan)
        self.losses_per_step = self.forward_passes = 2 * n

    def ask(self, t: int) -> list[Probe]:
        return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = [
            central_difference(plus, minus, self.eps)
            for plus, minus in zip(losses[0::2], losses[1::2], strict=True)
        ]
        self.apply(t, [(key, -lr * p / self.n) for key, p in zip(self.keys(t), slopes, strict=True)], lr)
        return {
            "loss": math.fsum(losses) / len(losses),
            "projected_gradient": math.sqrt(math.fsum(p * p for p in slopes) / self.n),
        }

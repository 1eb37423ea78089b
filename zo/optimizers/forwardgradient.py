"""Forward gradient: "Gradients without backpropagation" (Baydin et al., 2022), as in ZO-Bench (ICML 2024).

    z_i ~ N(0, I), i = 1..n
    s_i = z_iᵀ ∇L(θ)                              exact, by one forward pass on dual numbers (zo/look/dual.py)
    θ ← θ − η ((1/n) Σ s_i z_i + λ θ)

E[s z] = ∇L: MeZO in the limit ε → 0, without an ε. n dual passes a step, each counted as one forward pass, as the
benchmark does; in time a dual pass took 3.3 to 4.4 plain ones on a CPU (docs/methods.md). The tangents of one module
exist at a time; the benchmark's code holds all of z, one copy of the weights. No state.

Not a method of a black box: the objective must be differentiable, and the model's operations must have forward
derivatives. What is told and journaled is the loss at θ and the slopes, so replaying needs no pass.
"""

import math
from collections.abc import Sequence
from typing import Any

from zo.directions import Probe, Spec
from zo.directions import directions as kind
from zo.names import Parameters
from zo.optimizers.optimizer import Looker, Probing, Rate
from zo.weights import Weights


class ForwardGradient(Probing):
    """SGD along n directions with exact slopes."""

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        n: int = 1,
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        # ε is of no account: the tangent is z itself.
        super().__init__(params, lr, 1.0, n, kind(directions), weight_decay, seed, on_nan)
        self.losses_per_step, self.forward_passes = n + 1, n

    def ask(self, t: int) -> list[Probe]:
        return [Probe()]

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        return look.slopes(self.keys(t), batch)

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        loss, *slopes = losses
        self.apply(t, [(key, -lr * s / self.n) for key, s in zip(self.keys(t), slopes, strict=True)], lr)
        return {"loss": loss, "slope": math.sqrt(math.fsum(s * s for s in slopes) / self.n)}

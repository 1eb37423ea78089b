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
from dataclasses import dataclass
from typing import Any, final

from zo.directions import Probe
from zo.fields import Count
from zo.optimizers.optimizer import DirectionKind, Looker, Probing, Rate


@final
@dataclass(eq=False, kw_only=True)
class ForwardGradient(Probing):
    """SGD along n directions with exact slopes."""

    tells_slopes = True

    lr: Rate = 1e-6
    n: Count = 1
    directions: DirectionKind = DirectionKind("gaussian")

    @property
    def losses_per_step(self) -> int:
        return self.n + 1

    @property
    def forward_passes(self) -> int:
        return self.n

    def ask(self, t: int) -> list[Probe]:
        return [Probe()]

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        return look.slopes(self.keys(t), batch)

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        loss, *slopes = losses
        self.apply(t, [(key, -lr * s / self.n) for key, s in zip(self.keys(t), slopes, strict=True)], lr)
        return {"loss": loss, "slope": math.sqrt(math.fsum(s * s for s in slopes) / self.n)}

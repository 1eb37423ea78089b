"""MeZO: fine-tuning language models with just forward passes (Malladi et al., NeurIPS 2023).

    z_i ~ N(0, I), i = 1..n
    p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε          the projected gradient
    θ ← θ − η ((1/n) Σ p_i z_i + λ θ)

2n forward passes a step (n-SPSA; the paper's main results have n = 1). No state. The paper's momentum without memory is
zo/optimizers/mezo_momentum.py.

The authors' code differs: it walks the weights in place (+ε, −2ε, +ε), which in 16 bits does not come
back to where it started; losses are differenced in the logits' dtype; it reports L(θ + εz) as the loss.
Here the weights are never written while looking and the reported loss is the mean of all 2n.
`zo.look.InPlace` reproduces the walk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class MeZO(TwoPoint):
    """Plain SGD along n two-sided directions."""

    lr: Rate = 1e-6
    directions: DirectionKind = DirectionKind("gaussian")

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        self.apply(t, self.terms(t, slopes, -lr), lr)
        return self.metrics(losses, slopes)

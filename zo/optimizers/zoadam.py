"""ZO-Adam of ZO-Bench (Zhang et al., ICML 2024): Adam on the zeroth-order estimate.

    m ← β1 m + (1 − β1) ĝ         ĝ = (1/n) Σ p_i z_i, summed before it is squared (zo/optimizers/twopoint.py)
    v ← β2 v + (1 − β2) ĝ²
    θ ← θ − η ( m̂ / (√v̂ + ε̂) + λ θ ),   m̂ = m / (1 − β1^k), v̂ = v / (1 − β2^k) at the k-th move

torch.optim.AdamW fed with ĝ (the authors' code feeds torch.optim.Adam, the same without weight decay). State: m and v,
two fp32 copies of the trained weights. Steps that are skipped for their losses do not count in k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from zo.fields import Positive, Share
from zo.kernels.formulas import Elements, Formula, Value, root
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import EitherSide


@final
@dataclass(eq=False, kw_only=True)
class ZOAdam(EitherSide):
    """Adam on the two-point estimate.

    adam_eps: ε̂, beside √v̂; `eps` is the radius of the probes.
    """

    rule = "element"
    state_copies = 2.0  # m and v

    lr: Rate = 1e-5
    betas: tuple[Share, Share] = (0.9, 0.999)
    adam_eps: Positive = 1e-8
    directions: DirectionKind = DirectionKind("gaussian")

    def begin(self) -> None:
        super().begin()
        self.moves = torch.zeros((), dtype=torch.int64, device="cpu")
        self.state_tensors |= {"m": self.weights.zeros(), "v": self.weights.zeros()}

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        self.moves += 1
        (beta1, beta2), k = self.betas, self.moves.item()
        size, whole = lr / (1 - beta1**k), math.sqrt(1 - beta2**k)

        def step(at: Elements) -> Value:
            g = self.gradient(at, slopes)
            m = at.state["m"] = at.state["m"] * beta1 + g * (1 - beta1)
            v = at.state["v"] = at.state["v"] * beta2 + g * g * (1 - beta2)
            return m / (root(v) / whole + self.adam_eps) * -size

        self.check_size(lr)
        self.apply_rule(t, Formula(step), self.keys(t), lr)
        return self.metrics(losses, slopes)

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"moves": self.moves}

"""ZO-Adam of ZO-Bench (Zhang et al., ICML 2024): Adam on the zeroth-order estimate.

    m ← β1 m + (1 − β1) ĝ         ĝ = (1/n) Σ p_i z_i, summed before it is squared (zo/optimizers/twopoint.py)
    v ← β2 v + (1 − β2) ĝ²
    θ ← θ − η ( m̂ / (√v̂ + ε̂) + λ θ ),   m̂ = m / (1 − β1^k), v̂ = v / (1 − β2^k) at the k-th move

torch.optim.AdamW fed with ĝ (the authors' code feeds torch.optim.Adam, the same without weight decay). State: m and v,
two fp32 copies of the trained weights. Steps that are skipped for their losses do not count in k.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zo.checks import two_betas
from zo.directions import Spec
from zo.errors import ConfigError
from zo.kernels.formulas import Elements, Formula, Value, root
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class ZOAdam(TwoPoint):
    """Adam on the two-point estimate.

    sides: "two" or "one". adam_eps: ε̂, beside √v̂; `eps` is the radius of the probes.
    """

    rule = "element"
    state_copies = 2.0  # m and v

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-5,
        eps: float = 1e-3,
        n: int = 1,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        sides: str = "two",
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        self.betas = two_betas(betas)
        if not (math.isfinite(adam_eps) and adam_eps > 0):
            raise ConfigError(f"optimizer.adam_eps = {adam_eps} must be above 0.")
        super().__init__(params, lr, eps, n, sides, directions, weight_decay, seed, on_nan)
        self.adam_eps = adam_eps
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

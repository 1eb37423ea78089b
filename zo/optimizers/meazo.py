"""MEAZO, of "On adaptivity in zeroth-order optimization" (Dbouk et al., arXiv 2605.03869).

    p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε,   g = (1/n) Σ p_i          2n forward passes
    v ← β v + (1 − β) g²,   v̂ = v/(1 − β^k),   k the number of updates so far
    θ ← θ − η ((1/n) Σ p_i z_i / (√v̂ + ζ) + λ θ)

Adam's second moment as one number for all weights: the paper's claim is that it does for zeroth-order steps what two
moments a weight do. There is no code of the authors and the printed exponent of the bias correction is t − 1, which
divides by zero at first; k is used. β and ζ could not be read from the paper and are ours: 0.99, and 0, with which
multiplying all losses by a constant changes nothing. Where v̂ is 0 nothing is moved.
"""

import math
from collections.abc import Sequence

import torch

from zo.directions import Spec
from zo.errors import ConfigError
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class MEAZO(TwoPoint):
    """n two-sided directions over a running scale of the slope.

    beta: β. zeta: ζ, in units of the slope.
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-5,
        eps: float = 1e-3,
        n: int = 1,
        beta: float = 0.99,
        zeta: float = 0.0,
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        if not 0.0 <= beta < 1.0:
            raise ConfigError(f"optimizer.beta = {beta} must lie in [0, 1).")
        if not (math.isfinite(zeta) and zeta >= 0.0):
            raise ConfigError(f"optimizer.zeta = {zeta} must be a finite number of at least 0.")
        super().__init__(params, lr, eps, n, "two", directions, weight_decay, seed, on_nan)
        self.beta = beta
        self.zeta = zeta
        self.scale = torch.zeros(2, dtype=torch.float64, device="cpu")  # v, k

    def state(self) -> dict[str, torch.Tensor]:
        return super().state() | {"scale:": self.scale}

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        g = math.fsum(slopes) / self.n
        v, k = self.scale.tolist()
        v, k = self.beta * v + (1.0 - self.beta) * g * g, k + 1.0
        self.scale.copy_(torch.tensor([v, k], dtype=torch.float64, device="cpu"))
        root = math.sqrt(v / (1.0 - self.beta**k)) + self.zeta
        seen = self.metrics(losses, slopes) | {"root_v": root}
        if root == 0.0:
            self.idle += 1
            return seen
        self.apply(t, self.terms(t, slopes, -lr / root), lr)
        return seen

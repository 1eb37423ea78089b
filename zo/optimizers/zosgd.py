"""ZO-SGD of ZO-Bench: "Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning" (ICML 2024).

    ĝ = (1/n) Σ p_i z_i,  z_i ~ N(0, I)                  zo/optimizers/twopoint.py
    θ ← θ − η (ĝ + λ θ)

With two sides this is MeZO, bit for bit. With one side the loss at θ serves all directions: n + 1 forward passes
instead of 2n, and an error of order ε instead of ε². No state. The authors' code has both, two sides by default.
"""

from zo.directions import Spec
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class ZOSGD(TwoPoint):
    """Plain SGD on the two-point estimate.

    sides: "two" or "one".
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        sides: str = "two",
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        super().__init__(params, lr, eps, n, sides, directions, weight_decay, seed, on_nan)

"""ZO-signSGD of ZO-Bench (Zhang et al., ICML 2024; Liu et al., ICLR 2019).

    θ ← θ − η (sign(ĝ) + λ θ)      ĝ = (1/n) Σ p_i z_i, zo/optimizers/twopoint.py

`sign = element`, the paper: the sign of every entry, so that each moves by η whatever the loss. `sign = scalar`, the
authors' code: sign(p) z, each direction at its own length and only the slope's size dropped (for n > 1, which the code
does not treat, the mean of sign(p_i) z_i). With Rademacher directions and n = 1 the two are the same. No state; 2n or
n + 1 forward passes. An ĝ of 0 has the sign 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from zo.directions import Spec
from zo.errors import ConfigError
from zo.kernels.formulas import Elements, Formula, Value, sign
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class ZOSign(TwoPoint):
    """The sign of the two-point estimate.

    sign: "element" as in the paper, "scalar" as in the authors' code. sides: "two" or "one".
    """

    acts_when: ClassVar[Mapping[str, str]] = {
        "sign": "n > 1 or directions not in ('rademacher', {'kind': 'rademacher'})"
    }

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        sign: str = "element",
        sides: str = "two",
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        if sign not in ("element", "scalar"):
            raise ConfigError(
                f"optimizer.sign = {sign!r} must be 'element' (the paper) or 'scalar' (the authors' code)."
            )
        super().__init__(params, lr, eps, n, sides, directions, weight_decay, seed, on_nan)
        self.sign = sign
        self.rule: Literal["direction", "element", "matrix"] = "element" if sign == "element" else "direction"

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        if self.sign == "scalar":
            signs = [math.copysign(1.0, p) if p else 0.0 for p in slopes]
            self.apply(t, self.terms(t, signs, -lr), lr)
            return self.metrics(losses, slopes)

        def step(at: Elements) -> Value:
            return sign(self.gradient(at, slopes)) * -lr

        self.check_size(lr)
        self.apply_rule(t, Formula(step), self.keys(t), lr)
        return self.metrics(losses, slopes)

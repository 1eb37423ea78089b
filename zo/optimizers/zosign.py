"""ZO-signSGD of ZO-Bench (Zhang et al., ICML 2024; Liu et al., ICLR 2019).

    θ ← θ − η (sign(ĝ) + λ θ)      ĝ = (1/n) Σ p_i z_i, zo/optimizers/twopoint.py

`sign = element`, the paper: the sign of every entry, so that each moves by η whatever the loss. `sign = scalar`, the
authors' code: sign(p) z, each direction at its own length and only the slope's size dropped (for n > 1, which the code
does not treat, the mean of sign(p_i) z_i). With Rademacher directions and n = 1 the two are the same. No state; 2n or
n + 1 forward passes. An ĝ of 0 has the sign 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from zo.kernels.formulas import Elements, Formula, Value, sign
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import EitherSide


@final
@dataclass(eq=False, kw_only=True)
class ZOSign(EitherSide):
    """The sign of the two-point estimate.

    sign: "element" as in the paper, "scalar" as in the authors' code.
    """

    acts_when: ClassVar[Mapping[str, str]] = {
        "sign": "n > 1 or directions not in ('rademacher', {'kind': 'rademacher'})"
    }

    lr: Rate = 1e-6
    sign: Literal["element", "scalar"] = "element"
    directions: DirectionKind = DirectionKind("gaussian")

    def begin(self) -> None:
        super().begin()
        self.rule = "element" if self.sign == "element" else "direction"

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

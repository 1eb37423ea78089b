"""ZO-SGD of ZO-Bench: "Revisiting zeroth-order optimization for memory-efficient LLM fine-tuning" (ICML 2024).

    ĝ = (1/n) Σ p_i z_i,  z_i ~ N(0, I)                  zo/optimizers/twopoint.py
    θ ← θ − η (ĝ + λ θ)

With two sides this is MeZO, bit for bit. With one side the loss at θ serves all directions: n + 1 forward passes
instead of 2n, and an error of order ε instead of ε². No state. The authors' code has both, two sides by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import EitherSide


@final
@dataclass(eq=False, kw_only=True)
class ZOSGD(EitherSide):
    """Plain SGD on the two-point estimate."""

    lr: Rate = 1e-6
    directions: DirectionKind = DirectionKind("gaussian")

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return self.descend(t, losses, lr)

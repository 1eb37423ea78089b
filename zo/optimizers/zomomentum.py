"""ZO-SGD-MMT of ZO-Bench (Zhang et al., ICML 2024): momentum on the zeroth-order estimate.

    m ← β m + ĝ                    ĝ = (1/n) Σ p_i z_i, zo/optimizers/twopoint.py
    θ ← θ − η (m + λ θ)

As torch.optim.SGD has it, without 1 − β: at equal η the steps add up to 1 / (1 − β) times those of ZO-SGD. State:
m, one fp32 copy of the trained weights (the authors' code keeps it in the weights' dtype, and its weight decay goes
through m).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.fields import Share
from zo.kernels.formulas import Elements, Formula, Value
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import EitherSide


@final
@dataclass(eq=False, kw_only=True)
class ZOMomentum(EitherSide):
    """SGD with momentum β on the two-point estimate."""

    rule = "element"
    state_copies = 1.0  # m

    lr: Rate = 1e-7
    momentum: Share = 0.9
    directions: DirectionKind = DirectionKind("gaussian")

    def begin(self) -> None:
        super().begin()
        self.state_tensors["m"] = self.weights.zeros()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)

        def step(at: Elements) -> Value:
            m = at.state["m"] = at.state["m"] * self.momentum + self.gradient(at, slopes)
            return m * -lr

        self.check_size(lr * max(abs(p) for p in slopes))
        self.apply_rule(t, Formula(step), self.keys(t), lr)
        return self.metrics(losses, slopes)

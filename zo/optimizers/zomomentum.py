"""ZO-SGD-MMT of ZO-Bench (Zhang et al., ICML 2024): momentum on the zeroth-order estimate.

    m ← β m + ĝ                    ĝ = (1/n) Σ p_i z_i, zo/optimizers/twopoint.py
    θ ← θ − η (m + λ θ)

As torch.optim.SGD has it, without 1 − β: at equal η the steps add up to 1 / (1 − β) times those of ZO-SGD. State:
m, one fp32 copy of the trained weights (the authors' code keeps it in the weights' dtype, and its weight decay goes
through m).
"""

from collections.abc import Sequence

from zo.directions import Spec
from zo.errors import ConfigError
from zo.kernels.formulas import Elements, Formula, Value
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class ZOMomentum(TwoPoint):
    """SGD with momentum β on the two-point estimate.

    sides: "two" or "one".
    """

    rule = "element"
    state_copies = 1.0  # m

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-7,
        eps: float = 1e-3,
        n: int = 1,
        momentum: float = 0.9,
        sides: str = "two",
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        if not 0.0 <= momentum < 1.0:
            raise ConfigError(f"optimizer.momentum = {momentum} must lie in [0, 1).")
        super().__init__(params, lr, eps, n, sides, directions, weight_decay, seed, on_nan)
        self.momentum = momentum
        self.state_tensors["m"] = self.weights.zeros()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)

        def step(at: Elements) -> Value:
            m = at.state["m"] = at.state["m"] * self.momentum + self.gradient(at, slopes)
            return m * -lr

        self.check_size(lr * max(abs(p) for p in slopes))
        self.apply_rule(t, Formula(step), self.keys(t), lr)
        return self.metrics(losses, slopes)

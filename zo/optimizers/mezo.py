"""MeZO: fine-tuning language models with just forward passes (Malladi et al., NeurIPS 2023).

    z_i ~ N(0, I), i = 1..n
    p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε          the projected gradient
    θ ← θ − η ((1/n) Σ p_i z_i + λ θ)

2n forward passes a step (n-SPSA; the paper's main results have n = 1). No state.

With `momentum` β the gradient is Σ_{k<H} β^k g_{t−k}, g_t = (1/n) Σ p_i z_i: the paper's moments, made again from
names and slopes as it proposes and as AdaMeZO's Algorithm 1 truncates them, so that only H · n slopes are kept. (A
moment that is kept, for ever and in fp32: `zomomentum`.) What is cut off weighs β^H. As in torch's SGD there is no
1 − β before the sum, which Algorithm 1 has: its η is 1/(1 − β) times the one here.

The authors' code differs: it walks the weights in place (+ε, −2ε, +ε), which in 16 bits does not come
back to where it started; losses are differenced in the logits' dtype; it reports L(θ + εz) as the loss.
Here the weights are never written while looking and the reported loss is the mean of all 2n.
`zo.look.InPlace` reproduces the walk.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from zo.checks import check_int
from zo.directions import Spec
from zo.errors import ConfigError
from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.optimizers.window import Window
from zo.weights import Weights


class MeZO(TwoPoint):
    """n two-sided directions, plain SGD, or SGD with a momentum that nothing is kept for.

    momentum: β. horizon: H, steps the momentum reaches back.
    """

    acts_when: ClassVar[Mapping[str, str]] = {"momentum": "horizon > 1", "horizon": "momentum != 0"}

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        directions: Spec = "gaussian",
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        horizon: int = 10,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        if not 0.0 <= momentum < 1.0:
            raise ConfigError(f"optimizer.momentum = {momentum} must lie in [0, 1).")
        check_int("optimizer.horizon", horizon, 1, "step")
        super().__init__(params, lr, eps, n, "two", directions, weight_decay, seed, on_nan)
        if momentum and self.directions.stateful:
            raise ConfigError(
                f"A momentum makes the directions of its last {horizon} steps again, and those of directions = "
                f"{self.directions.name!r} depend on what they were made from then. Use gaussian or rademacher."
            )
        self.momentum = momentum
        self.window = Window(horizon if momentum else 1, n)

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        self.window.push(t, tuple(slopes))
        powers = self.window.powers(self.momentum)
        terms = [
            term
            for (step, old), power in zip(self.window.steps, powers, strict=True)
            for term in self.terms(step, old, -lr * power)
        ]
        self.apply(t, terms, lr)
        return self.metrics(losses, slopes)

    def state(self) -> dict[str, Tensor]:
        """The window of the momentum, whose directions keep nothing; without it what they keep."""
        return self.window.state() if self.momentum else super().state()

    def load(self, state: dict[str, Tensor]) -> None:
        if self.momentum:
            self.window.load(state)
        else:
            super().load(state)

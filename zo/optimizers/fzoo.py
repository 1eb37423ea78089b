"""FZOO: fast zeroth-order optimizer (Algorithm 1 of the paper).

    u_i ∈ {±1}^d, i = 1..N
    l_0 = L(θ),  l_i = L(θ + ε u_i)                    N + 1 forward passes
    σ² = 1/(N − 1) Σ (l_i − l̄)²,  l̄ = mean of the N perturbed losses
    θ ← θ − η (Σ (l_i − l_0) / (N σ) u_i + λ θ)

To first order l_i − l_0 = ε uᵢᵀ∇L and σ = ε‖∇L‖, so the step is that of normalised SGD: its expected
component along the gradient is about η, whatever ε, the dimension and the scale of the loss. No state.

Paper and code: the paper's equation divides by ε once more, its Algorithm 1 and the code do not; all
published learning rates are of the latter form, which is used here. σ has ddof 1 in the paper, 0 in the
code: `ddof`. The code evaluates one probe after another in place, drops weight decay and ignores learning
rate schedules; its released form cannot run (a module is missing). The paper has no guard for equal
losses: here losses that spread less than `floor` make no move, and the step counts as idle.
"""

import math
from collections.abc import Sequence

from zo.directions import Probe, Spec
from zo.directions import directions as kind
from zo.errors import ConfigError
from zo.estimators import deviation
from zo.names import Parameters
from zo.optimizers.base import Probing, Rate, warn
from zo.weights import Weights


class FZOO(Probing):
    """N one-sided directions, normalised by the spread of their losses.

    ddof: 1 as in the paper, 0 as in the authors' code.
    floor: smallest standard deviation of the N losses that is taken for a signal, in units of the loss.
    clip: bound on |l_i − l_0| / σ, or None.
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-4,
        eps: float = 1e-3,
        n: int = 8,
        directions: Spec = "rademacher",
        weight_decay: float = 0.0,
        ddof: int = 1,
        floor: float = 1e-8,
        clip: float | None = None,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        if n < 2:
            raise ConfigError(
                f"optimizer.n = {n}: FZOO divides by the spread of n losses, so n must be at least 2 (8 in the paper)."
            )
        if ddof not in (0, 1):
            raise ConfigError(f"optimizer.ddof = {ddof} must be 1 (the paper) or 0 (the authors' code).")
        if not (math.isfinite(floor) and floor >= 0):
            raise ConfigError(f"optimizer.floor = {floor} must be a finite number of at least 0.")
        if clip is not None and not clip > 0:
            raise ConfigError(f"optimizer.clip = {clip} must be above 0, or null for no bound.")
        super().__init__(params, lr, eps, n, kind(directions), weight_decay, seed, on_nan)
        if n < 4:
            warn(
                f"optimizer.n = {n}: with fewer than 4 directions the expected step of FZOO is huge or infinite."
            )
        self.ddof = ddof
        self.floor = floor
        self.clip = clip
        self.losses_per_step = self.forward_passes = n + 1

    def ask(self, t: int) -> list[Probe]:
        return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        base, *perturbed = losses
        sigma = deviation(perturbed, self.ddof)
        seen = {"loss": base, "sigma": sigma}
        if sigma <= self.floor:
            self.idle += 1
            return seen
        coefficients = [(loss - base) / sigma for loss in perturbed]
        if self.clip is not None:
            coefficients = [min(max(c, -self.clip), self.clip) for c in coefficients]
        self.apply(
            t, [(key, -lr * c / self.n) for key, c in zip(self.keys(t), coefficients, strict=True)], lr
        )
        return seen

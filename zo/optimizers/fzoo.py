"""FZOO: fast zeroth-order optimizer (ICLR 2026, Algorithm 1 of the paper).

    u_i ∈ {±1}^d, i = 1..N
    l_0 = L(θ),  l_i = L(θ + ε u_i)                    N + 1 forward passes
    σ² = 1/(N − 1) Σ (l_i − l̄)²,  l̄ = mean of the N perturbed losses
    θ ← θ − η (Σ (l_i − l_0) / (N σ) u_i + λ θ)

To first order l_i − l_0 = ε uᵢᵀ∇L and σ = ε‖∇L‖, so the step is that of normalised SGD: its expected
component along the gradient is about η, whatever ε, the dimension and the scale of the loss. No state.

Paper and code: the paper's equation divides by ε once more, its Algorithm 1 and the code do not; all
published learning rates are of the latter form, which is used here. σ has ddof 1 in the paper, 0 in the
code: `ddof`. The code evaluates one probe after another in place, drops weight decay and ignores learning
rate schedules; with ddof 0 its paths are those here to 4e-5, while its released training forward imports a module
that is not in the repository (commit d4f8a8b). The paper has no guard for equal losses: here losses that spread
less than `floor` make no move, and the step counts as idle.
What is not in the paper, to take it apart, is zo/optimizers/fzoo_ablation.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from zo.directions import Probe
from zo.estimators import clipped, deviation
from zo.fields import MOST, NonNegative, Positive, Range
from zo.optimizers.optimizer import DirectionKind, Probing, Radius, Rate, warn

Losses = Annotated[int, Range(ge=2, le=MOST, of="losses, by whose spread FZOO divides; 8 in the paper")]
Ddof = Literal[1, 0]  # 1 as in the paper, 0 as in the authors' code


@final
@dataclass(eq=False, kw_only=True)
class FZOO(Probing):
    """N one-sided directions a step, the spread of whose losses is the unit of the step.

    n: N. ddof: 1 as in the paper, 0 as in the authors' code.
    floor: smallest σ that is taken for a signal, in units of the loss.
    clip: bound on |l_i − l_0| / σ, or None.
    """

    lr: Rate = 1e-4
    eps: Radius = 1e-3
    n: Losses = 8
    directions: DirectionKind = DirectionKind("rademacher")
    ddof: Ddof = 1
    floor: NonNegative = 1e-8
    clip: Positive | None = None

    def begin(self) -> None:
        super().begin()
        warn_of_few(self.n)

    @property
    def losses_per_step(self) -> int:
        return self.n + 1

    def ask(self, t: int) -> list[Probe]:
        return [Probe(), *(Probe(((u, self.eps),)) for u in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        l0, *perturbed = losses
        sigma = deviation(perturbed, self.ddof)
        if sigma <= self.floor:
            return self.no_move(loss=l0, sigma=sigma)
        c = clipped([(loss - l0) / sigma for loss in perturbed], self.clip)
        self.apply(t, [(u, -lr * ci / self.n) for u, ci in zip(self.keys(t), c, strict=True)], lr)
        return {"loss": l0, "sigma": sigma}


def warn_of_few(n: int) -> None:
    """Warns of a spread that one-sided losses estimate too badly."""
    if n < 4:
        warn(
            f"optimizer.n = {n}: with fewer than 4 directions the expected step of FZOO is huge or infinite."
        )

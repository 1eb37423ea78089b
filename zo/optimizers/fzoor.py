"""FZOO-R: FZOO that takes half of the losses of its spread from the step before.

The paper says that FZOO-R reuses the losses of (half of) the previous batch, so that N/2 new directions are evaluated
and σ is over N values; it prints no formula, and the authors' code holds none. This is what is built here:

    u_i ∈ {±1}^d, i = 1..N/2
    x_i = L(θ + ε u_i) − L(θ)                                       N/2 + 1 forward passes
    σ² = 1/(N − 1) Σ (x − x̄)² over the N/2 new x and the N/2 of the step before
    θ ← θ − η (2/N Σ x_i / σ u_i + λ θ)                             reuse = spread
    θ ← θ − η (1/N Σ x / σ u + λ θ) over all N                      reuse = directions

Every x is taken from the loss at its own step's θ and batch, because the batch changes the loss by more than ε
does. With `reuse = spread` (the default) old losses say how large the step is and nothing else; with `directions` the
step before also contributes its old x along its old directions, made again from their names. The first step has its
own N/2 losses alone. A skipped step leaves what is kept as it is. Kept are N/2 numbers.
"""

from collections.abc import Sequence

from torch import Tensor

from zo.directions import Key, Probe, Spec
from zo.directions import directions as kind
from zo.errors import ConfigError
from zo.estimators import deviation
from zo.names import Parameters
from zo.optimizers.fzoo import check_spread, clipped
from zo.optimizers.optimizer import Probing, Rate
from zo.optimizers.window import Window
from zo.weights import Weights


class FZOOR(Probing):
    """N/2 one-sided directions a step, normalised by the spread of N losses.

    n: N, even and at least 4. reuse: "spread" or "directions". ddof, floor, clip: as in FZOO.
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-4,
        eps: float = 1e-3,
        n: int = 8,
        directions: Spec = "rademacher",
        weight_decay: float = 0.0,
        reuse: str = "spread",
        ddof: int = 1,
        floor: float = 1e-8,
        clip: float | None = None,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        check_spread(n, ddof, floor, clip)
        if n < 4 or n % 2:
            raise ConfigError(
                f"optimizer.n = {n}: half of FZOO-R's n losses are new in each step, and the first step has no others, "
                "so n must be even and at least 4 (8 in the paper)."
            )
        if reuse not in ("spread", "directions"):
            raise ConfigError(f"optimizer.reuse = {reuse!r} must be 'spread' or 'directions'.")
        super().__init__(params, lr, eps, n // 2, kind(directions), weight_decay, seed, on_nan)
        if reuse == "directions" and self.directions.stateful:
            raise ConfigError(
                f"reuse = 'directions' makes those of the step before again, and directions = {self.directions.name!r} "
                "depend on what they were made from then. Use reuse = 'spread'."
            )
        self.reuse = reuse
        self.ddof = ddof
        self.floor = floor
        self.clip = clip
        self._before = Window(1, n // 2)
        self.losses_per_step = self.forward_passes = n // 2 + 1

    def ask(self, t: int) -> list[Probe]:
        return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        new = tuple(loss - losses[0] for loss in losses[1:])
        steps = [*self._before.steps, (t, new)]
        self._before.push(t, new)
        sigma = deviation([x for _, values in steps for x in values], self.ddof)
        seen = {"loss": losses[0], "sigma": sigma}
        if sigma <= self.floor:
            self.idle += 1
            return seen
        moved = steps if self.reuse == "directions" else steps[-1:]
        terms: list[tuple[Key, float]] = []
        for step, values in moved:
            coefficients = clipped([x / sigma for x in values], self.clip)
            terms += zip(
                self.keys(step), (-lr * c / (self.n * len(moved)) for c in coefficients), strict=True
            )
        self.apply(t, terms, lr)
        return seen

    def state(self) -> dict[str, Tensor]:
        """What the directions keep, and the step before."""
        return super().state() | self._before.state()

    def load(self, state: dict[str, Tensor]) -> None:
        mine = self._before.state().keys()
        self._before.load({name: tensor for name, tensor in state.items() if name in mine})
        super().load(state)

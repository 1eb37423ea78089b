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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from torch import Tensor

from zo.directions import Key, Probe
from zo.estimators import clipped, deviation
from zo.fields import MOST, NonNegative, Positive, Range
from zo.optimizers.fzoo import Ddof
from zo.optimizers.optimizer import DirectionKind, Probing, Radius, Rate
from zo.optimizers.window import Window


@final
@dataclass(eq=False, kw_only=True)
class FZOOR(Probing):
    """N/2 one-sided directions a step, normalised by the spread of N losses.

    n: N, even and at least 4. reuse: "spread" or "directions". ddof, floor, clip: as in FZOO.
    """

    lr: Rate = 1e-4
    eps: Radius = 1e-3
    n: Annotated[
        int, Range(ge=4, le=MOST, multiple_of=2, of="half of the losses are new in each step; 8 in the paper")
    ] = 8
    directions: DirectionKind = DirectionKind("rademacher")
    reuse: Literal["spread", "directions"] = "spread"
    ddof: Ddof = 1
    floor: NonNegative = 1e-8
    clip: Positive | None = None

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.reuse == "directions" and self.directions.stateful:
            yield (
                f"reuse = 'directions' makes those of the step before again, and directions = {self.directions.name!r} "
                "depend on what they were made from then. Use reuse = 'spread'."
            )

    def begin(self) -> None:
        super().begin()
        self._before = Window(1, self.n // 2)

    @property
    def losses_per_step(self) -> int:
        return self.n // 2 + 1

    def keys(self, t: int) -> list[Key]:
        return [Key(self.seed, t, i) for i in range(self.n // 2)]

    def ask(self, t: int) -> list[Probe]:
        return [Probe(), *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        new = tuple(loss - losses[0] for loss in losses[1:])
        steps = [*self._before.steps, (t, new)]
        self._before.push(t, new)
        sigma = deviation([x for _, values in steps for x in values], self.ddof)
        if sigma <= self.floor:
            return self.no_move(loss=losses[0], sigma=sigma)
        moved = steps if self.reuse == "directions" else steps[-1:]
        terms: list[tuple[Key, float]] = []
        for step, values in moved:
            coefficients = clipped([x / sigma for x in values], self.clip)
            terms += zip(
                self.keys(step), (-lr * c / (len(new) * len(moved)) for c in coefficients), strict=True
            )
        self.apply(t, terms, lr)
        return {"loss": losses[0], "sigma": sigma}

    def state(self) -> dict[str, Tensor]:
        """Returns the directions' state, and the previous step."""
        return super().state() | self._before.state()

    def load(self, state: dict[str, Tensor]) -> None:
        mine = self._before.state().keys()
        self._before.load({name: tensor for name, tensor in state.items() if name in mine})
        super().load(state)

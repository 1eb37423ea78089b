"""AdaMeZO: Adam's moments without their memory (Cai, Chen, Zhu, ICML 2026, arXiv 2605.00650).

    g_t = (1/n) Σ p_i z_i,  p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε       2n forward passes
    m_t = Σ_{k<H} β1^k g_{t−k},  v_t = Σ_{k<H} β2^k g_{t−k}²
    θ ← θ − η (s · m_t / (√v_t + ε_A) + λ θ)

The moments are truncated to the last H steps, whose directions are made again from their names, tile by tile
(zo/kernels/adam_window.py): what is kept are H · n slopes. The first H + 1 steps are MeZO's.

Paper and code: the paper has (1 − β1) and (1 − β2) before the sums and ε under the root; the authors' code, whose
published learning rates are used here, has neither factor, ε beside the root (`eps_inside` puts it under) and
s = 100 (`update_scale`), so that a step after the warm-up is about a hundred times one of the warm-up when
slopes are of order 1. The paper's form is `eps_inside`, s = (1 − β1)/√(1 − β2) and ε_A = ε/(1 − β2). With β2 = 0
the code takes v = 1: momentum over the window, s · m / (1 + ε_A), or / √(1 + ε_A) with `eps_inside`; taking the formula
at its word would be the sign of the slope instead. H below 2 is MeZO.

Steps skipped for a loss that is no number do not enter the window. With n > 1, v is the square of the sum of a
step's directions, not the sum of squares. With one Rademacher direction a step z² = 1, and v is one number.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from torch import Tensor

from zo.directions import Key
from zo.fields import LONGEST, MOST, NonNegative, Positive, Range, Share
from zo.kernels.adam_window import Moments
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import TwoPoint
from zo.optimizers.window import Window, refuse_stateful


@final
@dataclass(eq=False, kw_only=True)
class AdaMeZO(TwoPoint):
    """MeZO's probes, Adam's move over a window.

    horizon: H. betas: β1 and β2. warmup: steps of MeZO at the start, H + 1 when null.
    update_scale: s. adam_eps: ε_A. eps_inside: √(v + ε_A), as in the paper, instead of √v + ε_A.
    """

    acts_when: ClassVar[Mapping[str, str]] = {
        "betas": "horizon > 1",
        "warmup": "horizon > 1",
        "update_scale": "horizon > 1",
        "adam_eps": "horizon > 1",
        "eps_inside": "horizon > 1 and adam_eps != 0",
    }

    lr: Rate = 1e-7
    directions: DirectionKind = DirectionKind("gaussian")
    horizon: Annotated[int, Range(ge=0, le=MOST, of="steps; below 2 it is MeZO")] = 10
    betas: tuple[Share, Share] = (0.7, 0.9)
    warmup: Annotated[int, Range(ge=0, le=LONGEST, of="steps")] | None = None
    update_scale: Positive = 100.0
    adam_eps: NonNegative = 1e-5
    eps_inside: bool = False

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        yield from refuse_stateful("AdaMeZO", self.directions, self.horizon)

    def begin(self) -> None:
        super().begin()
        self.window = Window(self.horizon, self.n)
        self.rule = "direction" if self.betas[1] == 0.0 else "element"
        self.starts = self.horizon + 1 if self.warmup is None else self.warmup
        # Steps of the warm-up are a hundred times smaller.
        self.settled = 0 if self.horizon < 2 else self.starts

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        self.window.push(t, tuple(slopes))
        if self.horizon < 2 or t < self.starts:
            self.apply(t, self.terms(t, slopes, -lr), lr)
        elif self.betas[1] == 0.0:
            self._move_by_momentum(t, lr)
        else:
            self._move_by_ratio(t, lr)
        return self.metrics(losses, slopes)

    def _move_by_momentum(self, t: int, lr: float) -> None:
        """v = 1: a sum of directions."""
        divisor = math.sqrt(1.0 + self.adam_eps) if self.eps_inside else 1.0 + self.adam_eps
        terms: list[tuple[Key, float]] = []
        for (step, slopes), power in zip(self.window.steps, self.window.powers(self.betas[0]), strict=True):
            factor = self.update_scale * power / divisor
            terms += [(key, c * factor) for key, c in self.terms(step, slopes, -lr)]
        self.apply(t, terms, lr)

    def _move_by_ratio(self, t: int, lr: float) -> None:
        steps = self.window.steps
        rule = Moments(
            gradients=tuple(tuple(p / self.n for p in slopes) for _, slopes in steps),
            first=self.window.powers(self.betas[0]),
            second=self.window.powers(self.betas[1]),
            scale=-lr * self.update_scale,
            eps=self.adam_eps,
            inside=self.eps_inside,
        )
        self.check_size(lr * self.update_scale / 2)  # m / √v is about 1/2 with the default betas
        self.apply_rule(t, rule, [key for step, _ in steps for key in self.keys(step)], lr)

    def state(self) -> dict[str, Tensor]:
        """The window."""
        return self.window.state()

    def load(self, state: dict[str, Tensor]) -> None:
        self.window.load(state)

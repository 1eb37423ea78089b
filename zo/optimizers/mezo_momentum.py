"""MeZO with a momentum that nothing is kept for (Malladi et al., NeurIPS 2023, appendix B).

    g_t = (1/n) Σ p_i z_i,  p_i and z_i as MeZO's                            2n forward passes
    θ ← θ − η (Σ_{k<H} β^k g_{t−k} + λ θ)

These are the paper's moments, made again from names and slopes as it proposes and as AdaMeZO's Algorithm 1 truncates
them, so that only H · n slopes are kept. (A moment that is kept, for ever and in fp32: `zomomentum`.) What is cut off
weighs β^H. As in torch's SGD there is no 1 − β before the sum, which Algorithm 1 has: its η is 1/(1 − β) times the one
here. With β = 0 this is MeZO, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from zo.fields import Count, Share
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import TwoPoint
from zo.optimizers.window import Window, refuse_stateful


@final
@dataclass(eq=False, kw_only=True)
class MeZOMomentum(TwoPoint):
    """SGD along the two-sided directions of the last steps.

    momentum: β. horizon: H, steps the momentum reaches back.
    """

    acts_when: ClassVar[Mapping[str, str]] = {"momentum": "horizon > 1", "horizon": "momentum != 0"}

    lr: Rate = 1e-6
    directions: DirectionKind = DirectionKind("gaussian")
    momentum: Share = 0.0
    horizon: Count = 10

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.momentum:
            yield from refuse_stateful("MeZOMomentum", self.directions, self.horizon)

    def begin(self) -> None:
        super().begin()
        self.window = Window(self.horizon if self.momentum else 1, self.n)

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

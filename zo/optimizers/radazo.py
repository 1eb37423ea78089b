"""R-AdaZO: "Refining adaptive zeroth-order optimization at ease" (Shu et al., ICML 2025).

    ĝ = (1/K) Σ (L(θ + ε z_i) − L(θ)) / ε · z_i          K + 1 forward passes, zo/optimizers/twopoint.py
    m ← β1 m + (1 − β1) ĝ
    v ← β2 v + (1 − β2) m²                               of the momentum, not of ĝ: less noise in the divisor
    θ ← θ − η ( m / √(v + ζ) + λ θ )

There is no bias correction, and ζ stands inside the root. The first steps are long: at the k-th the divisor is short of
√(1 − β2^k), so that η should be warmed up, or smaller than Adam's. State: m and v, two fp32 copies.

K is `n` here, and `sides = two` spends 2K passes for ĝ to order ε². The paper draws directions from the unit sphere and
multiplies by d: `directions = sphere`, at ε = μ / √d for its radius μ. The default, Gaussians, differs from that by
1 / √(2d) in length and saves a pass over the numbers. The authors' code perturbs one tensor at a time, 2K passes each;
here z is one direction over all weights. It also has ζ outside the root, and no factor d: with losses of order 1 its
steps are these (ratios of 1.0000 to 1.0001 in 30 steps on one tensor), with losses of 1e-4 a step here is 0.18 (t = 0)
to 0.80 (t = 29) of theirs, for ζ then counts here and not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.fields import Count, Positive, Share
from zo.kernels.formulas import Elements, Formula, Value, root
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import EitherSide, Sides


@final
@dataclass(eq=False, kw_only=True)
class RAdaZO(EitherSide):
    """Adam whose second moment is that of the momentum.

    n: K. zeta: ζ, inside the root. sides: "one" as in the paper, or "two".
    """

    rule = "element"
    state_copies = 2.0  # m and v

    lr: Rate = 1e-6
    n: Count = 2
    betas: tuple[Share, Share] = (0.9, 0.999)
    zeta: Positive = 1e-8
    sides: Sides = "one"
    directions: DirectionKind = DirectionKind("gaussian")

    def begin(self) -> None:
        super().begin()
        self.state_tensors |= {"m": self.weights.zeros(), "v": self.weights.zeros()}

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        beta1, beta2 = self.betas

        def step(at: Elements) -> Value:
            g = self.gradient(at, slopes)
            m = at.state["m"] = at.state["m"] * beta1 + g * (1 - beta1)
            v = at.state["v"] = at.state["v"] * beta2 + m * m * (1 - beta2)
            return m / root(v + self.zeta) * -lr

        self.check_size(lr)
        self.apply_rule(t, Formula(step), self.keys(t), lr)
        return self.metrics(losses, slopes)

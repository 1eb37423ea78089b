"""HELENE: Hessian layer-wise clipping and gradient annealing (Zhao et al., EMNLP 2025).

    ĝ = p z,  p = (L(θ + ε z) − L(θ − ε z)) / 2ε          2 forward passes (2n with n directions, ĝ their mean)
    α_t = β1 + (1 − β1) exp(−t / T)                       annealing
    m ← β1 m + α_t ĝ
    h ← β2 h + (1 − β2) B ĝ ⊙ ĝ                           every k steps; A-GNB, the Gauss-Newton estimate with labels
    θ ← θ − η ( m / (γ max(h, λ_i) + δ) + λ θ )           of the data instead of drawn ones
    λ_i = R / (2 √d_i)                                    clipping, one bound a layer i of d_i weights

B is the batch's size, a factor of h alone: an optimizer sees no batch, so it is the argument `batch`, which
conf/optimizer/helene.yaml takes from batch.size. We found no
code of the authors', and what we could read of the paper leaves open what a layer is and the values of T, k, R and γ.
Built here: a layer is one trained tensor; R is the argument `radius`, and `clip = constant` takes λ_i = R everywhere;
the decay rates are 0.9 and 0.99 (Sophia's, of which the method is made, are 0.965 and 0.99); γ, R and k are 1 by
default, k because ĝ ⊙ ĝ costs no pass: on the tests' bowl k = 10 diverged at a third of the learning rate that k = 1
takes.

h starts at 0 and is updated before the first move. There is no bias correction: α_t, which falls from 1 to β1, gives
the first gradients their full weight. State: m and h, two fp32 copies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from zo.fields import Positive, Range, Share, Steps
from zo.kernels.formulas import Elements, Formula, Value, within
from zo.optimizers.optimizer import DirectionKind, Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class HELENE(TwoPoint):
    """Annealed momentum over a clipped Gauss-Newton diagonal.

    anneal: T, in steps. refresh: k, steps between looks at the curvature. batch: B. gamma: γ. radius: R.
    clip: "layer" for λ_i = R / (2 √d_i), "constant" for R. delta: δ beside γ max(h, λ_i).
    """

    rule = "element"
    state_copies = 2.0  # m and h

    lr: Rate = 1e-6
    betas: tuple[Share, Share] = (0.9, 0.99)
    anneal: Positive = 1000.0
    refresh: Steps = 1
    batch: Annotated[int, Range(ge=1)] = 16
    gamma: Positive = 1.0
    radius: Positive = 1.0
    clip: Literal["layer", "constant"] = "layer"
    delta: Positive = 1e-8
    directions: DirectionKind = DirectionKind("gaussian")

    def begin(self) -> None:
        super().begin()
        self.bounds = {
            name: self.radius / (1 if self.clip == "constant" else 2 * math.sqrt(max(1, tensor.numel())))
            for name, tensor in self.weights.tensors.items()
        }
        self.state_tensors |= {"m": self.weights.zeros(), "h": self.weights.zeros()}

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        beta1, beta2 = self.betas
        alpha = beta1 + (1 - beta1) * math.exp(-t / self.anneal)

        def step(at: Elements) -> Value:
            g = self.gradient(at, slopes)
            m = at.state["m"] = at.state["m"] * beta1 + g * alpha
            if t % self.refresh == 0:
                at.state["h"] = at.state["h"] * beta2 + g * g * ((1 - beta2) * self.batch)
            return m / (within(at.state["h"], self.bounds[at.name]) * self.gamma + self.delta) * -lr

        self.check_size(lr * max(abs(p) for p in slopes))
        self.apply_rule(t, Formula(step, by_name=True), self.keys(t), lr)
        return self.metrics(losses, slopes) | {"annealing": alpha}

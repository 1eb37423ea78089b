"""HiZOO: second-order fine-tuning without pain, a Hessian-informed optimizer (Zhao et al., ICLR 2025).

    z ~ N(0, I),  Σ = H⁻¹                                         H > 0, one number a weight, 1 at the start
    L₀ = L(θ),  L± = L(θ ± ε Σ^½ z)                               3 forward passes
    Ĥ = |L₊ + L₋ − 2 L₀| / 2ε² · H |z² − 1|                       the paper's estimator, diagonal and absolute
    H ← (1 − α_t) H + α_t Ĥ
    θ ← θ − η ( (L₊ − L₋) / 2ε · z / √H + λ θ )                   with the H just updated; the probes had the old one

`estimator = code` leaves out the −1, as the authors' code does. As E[z_j² · zᵀMz] = tr M + 2 M_jj, the trace, equal for
all weights, then outweighs the diagonal: H grows alike everywhere, and what is left is a learning rate that decays.
With the −1 and without the absolute value the estimate is unbiased; with it the trace still enters, by E|z² − 1|.

The authors' code differs further: it keeps H in the weights' dtype, where with the published α of 1e-8 in 16 bits every
update rounds away and H stays 1 (MeZO at twice the passes); a fourth pass serves a log; α's schedule counts epochs;
weight decay falls on all tensors; H is not saved. Here H is fp32 and part of every snapshot. An update is formed as
H + H α (c s − 1), c = |L₊ + L₋ − 2 L₀| / 2ε² and s = |z² − 1|. fp32 keeps a change of at least 3e-8 to 6e-8 of H: at
α = 1e-8 those with c s below 4 to 7 are rounded away, the decay −α among them, and where all are H stays as it is. H is
held in [1e-12, 1e12], which the paper does not do.

α_t: `smooth = constant`, α; `drop`, α until step `smooth_steps` and α / 100 after it (the code's constant_decay1, with
9800); `linear` and `cosine`, down to 0 at `smooth_steps`. At α = 0 this is MeZO, bit for bit. State: H, one fp32 copy.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from zo.directions import Gaussian, Probe
from zo.directions.scaled import Scaled
from zo.estimators import central_difference, second_difference
from zo.fields import Share, Steps
from zo.kernels.formulas import Elements, Formula, Value, root, within
from zo.kernels.transforms import DivideBySqrt, DivideBySqrtOuter
from zo.optimizers.optimizer import Probing, Radius, Rate

LEAST, MOST = 1e-12, 1e12  # bounds of H


@dataclass(eq=False, kw_only=True)
class HessianScaled(Probing):
    """SGD along directions that an estimate of the Hessian's diagonal has scaled.

    alpha: α; the authors use 1e-8. smooth, smooth_steps: α's schedule. estimator: "paper" or "code".
    """

    acts_when: ClassVar[Mapping[str, str]] = {
        "smooth": "alpha != 0",
        "smooth_steps": "alpha != 0 and smooth != 'constant'",
        "estimator": "alpha != 0",
    }

    lr: Rate = 1e-6
    eps: Radius = 1e-3
    alpha: Share = 1e-8
    smooth: Literal["constant", "drop", "linear", "cosine"] = "constant"
    smooth_steps: Steps = 9800
    estimator: Literal["paper", "code"] = "paper"

    def begin(self) -> None:
        self.normal = Gaussian()
        self.directions = Scaled(self.normal, self.hessian)
        super().begin()

    @property
    def losses_per_step(self) -> int:
        return 3

    @abstractmethod
    def hessian(self, name: str) -> DivideBySqrt | DivideBySqrtOuter:
        """H of a tensor, as the probes and the move divide by its root."""

    @abstractmethod
    def _take(self, t: int, slope: float, curvature: float, alpha: float, lr: float) -> None:
        """H and θ take their step. curvature: |L₊ + L₋ − 2 L₀| / 2ε²."""

    def ask(self, t: int) -> list[Probe]:
        (key,) = self.keys(t)
        return [Probe(), Probe(((key, self.eps),)), Probe(((key, -self.eps),))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        base, plus, minus = losses
        slope = central_difference(plus, minus, self.eps)
        curvature = abs(second_difference(plus, base, minus, self.eps)) / 2
        alpha = smoothing(t, self.alpha, self.smooth, self.smooth_steps)
        self.weights.warm(self.keys(t), self.normal)  # z itself: the directions of the probes are z / √H
        self._take(t, slope, curvature, alpha, lr)
        return {"loss": base, "projected_gradient": abs(slope), "curvature": curvature, "alpha": alpha}


@final
@dataclass(eq=False, kw_only=True)
class HiZOO(HessianScaled):
    """A whole diagonal: one number a weight."""

    rule = "element"
    state_copies = 1.0  # H

    def begin(self) -> None:
        super().begin()
        self.state_tensors["H"] = self.weights.zeros()
        for tensor in self.state_tensors["H"].values():
            tensor.fill_(1.0)

    def hessian(self, name: str) -> DivideBySqrt:
        return DivideBySqrt(self.state_tensors["H"][name])

    def _take(self, t: int, slope: float, curvature: float, alpha: float, lr: float) -> None:
        """Takes the step in one pass."""

        def step(at: Elements) -> Value:
            (z,), H = at.noise, at.state["H"]
            change = squares(z, self.estimator) * (alpha * curvature) - alpha
            H = at.state["H"] = within(H + H * change, LEAST, MOST)
            return z / root(H) * (-lr * slope)

        self.check_size(lr * abs(slope))
        how = self.pass_options(t, lr)
        self.weights.elementwise(Formula(step), self.keys(t), self.normal, self.state_tensors, **how)


def squares(z: Any, estimator: str) -> Any:
    """Returns |z² − 1| as in the paper, or z² as in the code."""
    return abs(z * z - 1.0) if estimator == "paper" else z * z


def smoothing(t: int, alpha: float, smooth: str, steps: int) -> float:
    """α_t."""
    done = min(t / steps, 1.0)
    if smooth == "drop":
        return alpha if t < steps else alpha / 100
    if smooth == "linear":
        return alpha * (1.0 - done)
    if smooth == "cosine":
        return alpha * (1.0 + math.cos(math.pi * done)) / 2
    return alpha

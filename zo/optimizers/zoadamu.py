"""ZO-AdaMU: adapting perturbation by the momentum and uncertainty (Jiang et al., AAAI 2024).

    ż ~ N(0, α),  z̈ ~ N(m, 1 − α)                        variances; m = 0 at the start
    m ← β1 ż + (1 − β1) z̈                                 momentum lives in the direction itself
    p = (L(θ + ε m) − L(θ − ε m)) / 2ε                    2 forward passes
    v = β2 ż² + (1 − β2) z̈²
    θ ← θ − η ( p m / √(v + σ) + λ θ )

α, β1 and β2 are annealed from 1 in three phases: 1 until step `warmup`, then down a half cosine to the values of the
arguments at step `annealed`, then constant. In the first phase m = ż, so the step is p sign(ż). State: m, one fp32
copy; v is a number of the step and is not kept.

Built from the equations: the direction probed is the m that is moved along and kept. The authors' code cannot run (its
annealing is called without its argument while perturbing), would probe 0.1 ż + 0.9 z̈ whatever β1 is, and its annealing
counter runs on with every tensor and call. It keeps sign(p) m, which the equations do not have: `signed = true`.
Without that m is an average of noise that no loss has entered; with it m points uphill, as far as p tells. Its schedule
ends, at 20,000 steps, near α 0.01, β1 0.13 and β2 0.01, from step 1024 to 16,000: the defaults.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from zo.directions import Gaussian, Probe
from zo.directions.mixed import Mixed, beside
from zo.estimators import central_difference
from zo.fields import LONGEST, Positive, Range, Steps
from zo.kernels.formulas import Elements, Formula, Value, root
from zo.optimizers.optimizer import Probing, Radius, Rate

Remembered = Annotated[float, Range(gt=0, le=1, of="1 remembers nothing")]


@final
@dataclass(eq=False, kw_only=True)
class ZOAdaMU(Probing):
    """SGD along directions that remember, divided by the size of their parts.

    alpha, beta1, beta2: values at the end of the annealing, in (0, 1]. warmup, annealed: where it begins and ends.
    sigma: σ, inside the root. signed: keep sign(p) m, as the authors' code.
    """

    acts_when: ClassVar[Mapping[str, str]] = {
        "warmup": "alpha != 1 or beta1 != 1 or beta2 != 1",
        "annealed": "alpha != 1 or beta1 != 1 or beta2 != 1",
        "signed": "beta1 != 1 or (beta2 != 1 and alpha != 1)",
    }

    rule = "element"
    state_copies = 1.0  # m

    lr: Rate = 1e-6
    eps: Radius = 1e-3
    alpha: Remembered = 0.01
    beta1: Remembered = 0.13
    beta2: Remembered = 0.01
    warmup: Annotated[int, Range(ge=0, le=LONGEST, of="steps")] = 1024
    annealed: Steps = 16000
    sigma: Positive = 1e-8
    signed: bool = False

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.annealed <= self.warmup:
            yield (
                f"optimizer.annealed = {self.annealed} must be a whole number of at least {self.warmup + 1} steps: "
                f"annealing ends after it began, at optimizer.warmup = {self.warmup}."
            )

    def begin(self) -> None:
        self.normal = Gaussian()
        self.state_tensors["m"] = self.weights.zeros()
        self.directions = Mixed(self.normal, self._mix, self.state_tensors["m"])
        super().begin()

    @property
    def losses_per_step(self) -> int:
        return 2

    def anneal(self, t: int, end: float) -> float:
        """1, then a half cosine, then `end`."""
        done = min(max((t - self.warmup) / (self.annealed - self.warmup), 0.0), 1.0)
        return end + (1.0 - end) * (1.0 + math.cos(math.pi * done)) / 2

    def _mix(self, t: int) -> tuple[float, float, float]:
        """Returns (a, b, s) with m ← a z₀ + b (m + s z₁) for standard normals z₀ and z₁."""
        alpha, beta1 = self.anneal(t, self.alpha), self.anneal(t, self.beta1)
        return beta1 * math.sqrt(alpha), 1.0 - beta1, math.sqrt(1.0 - alpha)

    def ask(self, t: int) -> list[Probe]:
        (key,) = self.keys(t)
        return [Probe(((key, self.eps),)), Probe(((key, -self.eps),))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        plus, minus = losses
        slope = central_difference(plus, minus, self.eps)
        alpha, beta1, beta2 = (self.anneal(t, end) for end in (self.alpha, self.beta1, self.beta2))
        kept = math.copysign(1.0, slope) if self.signed else 1.0

        def step(at: Elements) -> Value:
            z0, z1 = at.noise
            first, second = z0 * math.sqrt(alpha), at.state["m"] + z1 * math.sqrt(1.0 - alpha)
            m = first * beta1 + second * (1.0 - beta1)
            v = first * first * beta2 + second * second * (1.0 - beta2)
            at.state["m"] = m * kept
            return m / root(v + self.sigma) * (-lr * slope)

        self.check_size(lr * abs(slope))
        keys = [key for one in self.keys(t) for key in (one, beside(one))]
        self.weights.warm(keys, self.normal)
        self.weights.elementwise(
            Formula(step), keys, self.normal, self.state_tensors, **self.pass_options(t, lr)
        )
        return {
            "loss": (plus + minus) / 2,
            "projected_gradient": abs(slope),
            "alpha": alpha,
            "beta1": beta1,
        }

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

What is not in the paper, to take it apart:

    baseline = others   l_i − (mean of the other l_j) in place of l_i − l_0               N forward passes
    sides = two         N/2 directions at ±ε: d_i = (l_i⁺ − l_i⁻)/2, σ² = mean of d_i²,   N forward passes
                        θ ← θ − η (2/N) Σ d_i / σ u_i
    running = β         σ² is (1 − β) Σ β^k σ²_{t−k} / (1 − β^{t+1}): the spread of earlier steps counts too. With
                        n = 2 and two sides there is one direction, and only the normalisation of FZOO is left.

A pair is its own centre, so that σ of pairs takes no degree of freedom off and `ddof` concerns one side alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from zo.checks import check_int
from zo.directions import Probe, Spec
from zo.directions import directions as kind
from zo.errors import ConfigError
from zo.estimators import deviation
from zo.kernels.adam_window import f32
from zo.names import Parameters
from zo.optimizers.optimizer import Probing, Rate, warn
from zo.weights import Weights


class FZOO(Probing):
    """N perturbed losses a step, whose spread is the unit of the step.

    n: N. sides: "one", N directions at +ε, or "two", N/2 directions at ±ε.
    baseline: what a one-sided loss is compared with, "l0" (the loss at θ) or "others" (the mean of the others).
    ddof: 1 as in the paper, 0 as in the authors' code.
    running: weight β of the earlier steps' σ², in [0, 1); 0 as in the paper.
    floor: smallest σ that is taken for a signal, in units of the loss.
    clip: bound on |l_i − l_0| / σ, or None.
    """

    acts_when: ClassVar[Mapping[str, str]] = {"baseline": "sides == 'one'", "ddof": "sides == 'one'"}

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-4,
        eps: float = 1e-3,
        n: int = 8,
        directions: Spec = "rademacher",
        weight_decay: float = 0.0,
        sides: str = "one",
        baseline: str = "l0",
        ddof: int = 1,
        running: float = 0.0,
        floor: float = 1e-8,
        clip: float | None = None,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        check_spread(n, ddof, floor, clip)
        if sides not in ("one", "two"):
            raise ConfigError(f"optimizer.sides = {sides!r} must be 'one', θ + εu, or 'two', θ ± εu.")
        if sides == "two" and n % 2:
            raise ConfigError(f"optimizer.n = {n}: with two sides the n losses are pairs, so n must be even.")
        if baseline not in ("l0", "others"):
            raise ConfigError(f"optimizer.baseline = {baseline!r} must be 'l0' or 'others'.")
        if sides == "two" and baseline != "l0":
            raise ConfigError(
                f"optimizer.baseline = {baseline!r} is what one-sided losses are compared with; with sides = 'two' "
                "each is compared with its other side. Leave it at 'l0', or use sides = 'one'."
            )
        if not 0.0 <= running < 1.0:
            raise ConfigError(f"optimizer.running = {running} must lie in [0, 1).")
        super().__init__(
            params, lr, eps, n if sides == "one" else n // 2, kind(directions), weight_decay, seed, on_nan
        )
        if n < 4 and sides == "one" and running == 0.0:
            warn(
                f"optimizer.n = {n}: with fewer than 4 directions the expected step of FZOO is huge or infinite."
            )
        self.sides = sides
        self.baseline = baseline
        self.ddof = ddof
        self.running = running
        self.floor = floor
        self.clip = clip
        self._spread = torch.zeros(2, dtype=torch.float64, device="cpu")  # Σ β^k σ²_{t−k} and Σ β^k
        self.losses_per_step = self.forward_passes = n + (sides == "one" and baseline == "l0")

    def ask(self, t: int) -> list[Probe]:
        if self.sides == "two":
            return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]
        base = [Probe()] if self.baseline == "l0" else []
        return [*base, *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        differences, sigma = self._compared(losses)
        if self.running:
            spread, count = (
                self._spread.mul_(self.running)
                .add_(torch.tensor([f32(sigma**2), 1.0], dtype=torch.float64, device="cpu"))
                .tolist()
            )
            sigma = math.sqrt(spread / count)
        has_base = self.sides == "one" and self.baseline == "l0"
        loss = losses[0] if has_base else math.fsum(losses) / len(losses)
        seen = {"loss": loss, "sigma": sigma}
        if sigma <= self.floor:
            self.idle += 1
            return seen
        coefficients = clipped([d / sigma for d in differences], self.clip)
        self.apply(
            t, [(key, -lr * c / self.n) for key, c in zip(self.keys(t), coefficients, strict=True)], lr
        )
        return seen

    def _compared(self, losses: Sequence[float]) -> tuple[list[float], float]:
        """The difference that stands for each direction, and the spread of this step's losses."""
        if self.sides == "two":
            pairs = [(a - b) / 2 for a, b in zip(losses[0::2], losses[1::2], strict=True)]
            return pairs, math.sqrt(math.fsum(d * d for d in pairs) / len(pairs))
        if self.baseline == "l0":
            base, *perturbed = losses
            return [loss - base for loss in perturbed], deviation(perturbed, self.ddof)
        # l_i − (mean of the others) = N/(N − 1) (l_i − l̄), of differences to the first so that an offset cancels.
        shifted = [loss - losses[0] for loss in losses]
        mean = math.fsum(shifted) / len(shifted)
        factor = len(losses) / (len(losses) - 1)
        return [factor * (x - mean) for x in shifted], deviation(losses, self.ddof)

    def state(self) -> dict[str, Tensor]:
        """What the directions keep, and the running spread, where one is kept."""
        return super().state() | ({"spread": self._spread} if self.running else {})


def check_spread(n: int, ddof: int, floor: float, clip: float | None) -> None:
    """Raises ConfigError for what no spread of n losses can be made with."""
    check_int("optimizer.n", n, 2, "losses, by whose spread FZOO divides (8 in the paper)")
    if ddof not in (0, 1):
        raise ConfigError(f"optimizer.ddof = {ddof} must be 1 (the paper) or 0 (the authors' code).")
    if not (math.isfinite(floor) and floor >= 0):
        raise ConfigError(f"optimizer.floor = {floor} must be a finite number of at least 0.")
    if clip is not None and not clip > 0:
        raise ConfigError(f"optimizer.clip = {clip} must be above 0, or null for no bound.")


def clipped(coefficients: list[float], bound: float | None) -> list[float]:
    """Coefficients within ±bound."""
    return coefficients if bound is None else [min(max(c, -bound), bound) for c in coefficients]

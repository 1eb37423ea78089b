"""FZOO taken apart: what is not in the paper (zo/optimizers/fzoo.py), one option each.

    baseline = others   l_i − (mean of the other l_j) in place of l_i − l_0               N forward passes
    sides = two         N/2 directions at ±ε: d_i = (l_i⁺ − l_i⁻)/2, σ² = mean of d_i²,   N forward passes
                        θ ← θ − η (2/N) Σ d_i / σ u_i
    running = β         σ² is (1 − β) Σ β^k σ²_{t−k} / (1 − β^{t+1}): the spread of earlier steps counts too. With
                        n = 2 and two sides there is one direction, and only the normalisation of FZOO is left.

A pair is its own centre, so that σ of pairs takes no degree of freedom off and `ddof` concerns one side alone.
With all of them at their defaults this is FZOO, bit for bit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from zo.directions import Key, Probe
from zo.estimators import clipped, deviation
from zo.fields import NonNegative, Positive, Share
from zo.kernels.adam_window import f32
from zo.optimizers.fzoo import Ddof, Losses, warn_of_few
from zo.optimizers.optimizer import DirectionKind, Probing, Radius, Rate


@final
@dataclass(eq=False, kw_only=True)
class FZOOAblation(Probing):
    """FZOO with other sides, another baseline or a running spread.

    n: N. sides: "one", N directions at +ε, or "two", N/2 directions at ±ε.
    baseline: what a one-sided loss is compared with, "l0" (the loss at θ) or "others" (the mean of the others).
    running: weight β of the earlier steps' σ²; 0 as in the paper. ddof, floor, clip: as FZOO's.
    """

    acts_when: ClassVar[Mapping[str, str]] = {"baseline": "sides == 'one'", "ddof": "sides == 'one'"}

    lr: Rate = 1e-4
    eps: Radius = 1e-3
    n: Losses = 8
    directions: DirectionKind = DirectionKind("rademacher")
    sides: Literal["one", "two"] = "one"
    baseline: Literal["l0", "others"] = "l0"
    running: Share = 0.0
    ddof: Ddof = 1
    floor: NonNegative = 1e-8
    clip: Positive | None = None

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.sides == "two" and self.n % 2:
            yield f"optimizer.n = {self.n}: with two sides the n losses are pairs, so n must be even."
        if self.sides == "two" and self.baseline != "l0":
            yield (
                f"optimizer.baseline = {self.baseline!r} is what one-sided losses are compared with; with sides = "
                "'two' each is compared with its other side. Leave it at 'l0', or use sides = 'one'."
            )

    def begin(self) -> None:
        super().begin()
        self._spread = torch.zeros(2, dtype=torch.float64, device="cpu")  # Σ β^k σ²_{t−k} and Σ β^k
        if self.sides == "one" and self.running == 0.0:
            warn_of_few(self.n)

    @property
    def _has_base(self) -> bool:
        """Returns whether the loss at θ is the first of a step's losses."""
        return self.sides == "one" and self.baseline == "l0"

    @property
    def losses_per_step(self) -> int:
        return self.n + self._has_base

    def keys(self, t: int) -> list[Key]:
        return super().keys(t) if self.sides == "one" else super().keys(t)[: self.n // 2]

    def ask(self, t: int) -> list[Probe]:
        if self.sides == "two":
            return [Probe(((key, scale),)) for key in self.keys(t) for scale in (self.eps, -self.eps)]
        base = [Probe()] if self._has_base else []
        return [*base, *(Probe(((key, self.eps),)) for key in self.keys(t))]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        differences, sigma = self._compared(losses)
        if self.running:
            now = torch.tensor([f32(sigma**2), 1.0], dtype=torch.float64, device="cpu")
            spread, count = self._spread.mul_(self.running).add_(now).tolist()
            sigma = math.sqrt(spread / count)
        loss = losses[0] if self._has_base else math.fsum(losses) / len(losses)
        if sigma <= self.floor:
            return self.no_move(loss=loss, sigma=sigma)
        c, keys = clipped([d / sigma for d in differences], self.clip), self.keys(t)
        self.apply(t, [(u, -lr * ci / len(keys)) for u, ci in zip(keys, c, strict=True)], lr)
        return {"loss": loss, "sigma": sigma}

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
        """Returns the directions' state, and the running spread if there is one."""
        return super().state() | ({"spread": self._spread} if self.running else {})

"""MeZO-switch: MeZO on a path at least as long as another method's (Cai, Chen, Zhu, ICML 2026, section 5).

    p_i, z_i as MeZO's;  g_t = (1/n) Σ p_i z_i                      2n forward passes
    η_t = max(f η, r_t / ‖g_t‖)
    θ ← θ − η_t (g_t + λ θ)

The paper's control for AdaMeZO: a method whose steps are longer may win for that reason alone, so MeZO's learning
rate is raised until its path is at least AdaMeZO's. Two ways, as in the authors' code. By a factor f: their example
is 1.7e-7 for MeZO beside 1e-7 for AdaMeZO. Or by a record of the other run's path: r_t is the length of its step t
(`zo replay RUN --lengths FILE` writes it), and the rate is what makes this step as long; η is then
the least rate, 0 to follow exactly. Without a record r_t = 0.

r_t is told and journaled behind the losses of the step. ‖g_t‖ is a sum over the weights in fp64, one more pass
over the noise. η_t makes the move r_t long without decay and rounding; what `replay` measures has both in it. A step
whose slopes are all 0 has no length and counts as idle. The record of the authors' code for RoBERTa begins after
AdaMeZO's warm-up, so that step t follows its step t + H + 1; here it follows step t.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, final

from torch import Tensor

from zo.directions import Directions, Key
from zo.errors import ConfigError
from zo.fields import Range
from zo.kernels.adam_window import f32
from zo.kernels.sums import squares
from zo.optimizers.optimizer import DirectionKind, Looker, Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import BLOCK, Weights


@final
@dataclass(eq=False, kw_only=True)
class MeZOSwitch(TwoPoint):
    """MeZO with a raised rate.

    lr: η. factor: f, at least 1. record: a JSON file with a list of lengths, one a step, or None.
    """

    acts_when: ClassVar[Mapping[str, str]] = {"factor": "lr != 0"}

    lr: Rate = 1e-7
    directions: DirectionKind = DirectionKind("gaussian")
    factor: Annotated[float, Range(ge=1, of="the rate is raised")] = 1.7
    record: str | None = None

    def begin(self) -> None:
        super().begin()
        self.lengths = None if self.record is None else lengths(self.record)

    @property
    def losses_per_step(self) -> int:
        return super().losses_per_step + (self.record is not None)

    @property
    def forward_passes(self) -> int:
        return super().losses_per_step

    def step(self, t: int, batch: Any, look: Looker, lr: float | None = None) -> list[float]:
        losses = look(self.ask(t), batch)
        if self.lengths is None:
            return losses
        if t >= len(self.lengths):
            raise ConfigError(
                f"optimizer.record holds the lengths of {len(self.lengths)} steps and this is step {t}. Take as many "
                "steps as the run that was recorded, or fewer."
            )
        return [*losses, self.lengths[t]]

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        losses, length = (losses, 0.0) if self.record is None else (losses[:-1], losses[-1])
        slopes = self.slopes(losses)
        rate = self.factor * lr
        if length > 0.0:
            norm = length_of(self.weights, self.terms(t, slopes, 1.0), self.directions)
            if norm == 0.0:
                return self.no_move(**self.metrics(losses, slopes))
            rate = max(rate, length / norm)
        self.apply(t, self.terms(t, slopes, -rate), rate)
        return self.metrics(losses, slopes) | {"rate": rate}


def length_of(weights: Weights, terms: Sequence[tuple[Key, float]], directions: Directions) -> float:
    """Returns ‖Σ c z‖ over all weights, in fp64 and one order (zo/kernels/sums.py): a function of the journal."""
    parts: list[float] = []
    for name in weights.tensors:
        made = [(weights.direction(name, key, directions).view(-1), c) for key, c in terms]
        for start in range(0, made[0][0].numel(), BLOCK):
            move = sum(z[start : start + BLOCK].double() * c for z, c in made)
            assert isinstance(move, Tensor)
            parts += squares(move)
    return math.sqrt(math.fsum(parts))


def lengths(path: str | os.PathLike[str]) -> list[float]:
    """The list of a record; raises ConfigError when it is none."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"optimizer.record = {str(path)!r} cannot be read: {error}.") from error
    fine = isinstance(values, list) and values
    if not fine or not all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in values):
        raise ConfigError(
            f"optimizer.record = {str(path)!r} must hold a JSON list of lengths, one number of at least 0 a step."
        )
    return [f32(x) for x in values]  # as the journal will hold them

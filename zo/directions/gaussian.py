"""Standard normals by Box-Muller, as in MeZO. Thirty-two times the random bits of Rademacher."""

from dataclasses import dataclass
from typing import Literal

from zo.directions.direction import Directions
from zo.noise import GAUSSIANS, SHORT_GAUSSIANS


@dataclass(eq=False)
class Gaussian(Directions):
    """z_e ~ N(0, 1); E‖z‖² = d.

    bits: random bits of a number. 32 is Box-Muller. 16 is the sum of three table entries (docs/randomness.md), made in
        a third of the time on a CPU: variance and fourth moment are those of N(0, 1), distribution functions differ by
        at most 0.003, and |z| ≤ 4.08. On a GPU torch makes these, which is slower than 32 bits.
    """

    bits: Literal[32, 16] = 32

    name = "gaussian"

    def __post_init__(self) -> None:
        self.check()
        self.stream = GAUSSIANS if self.bits == 32 else SHORT_GAUSSIANS

"""Standard normals by Box-Muller, as in MeZO. Thirty-two times the random bits of Rademacher."""

from zo.directions.direction import Directions
from zo.noise import GAUSSIANS


class Gaussian(Directions):
    """z_e ~ N(0, 1); E‖z‖² = d."""

    name = "gaussian"
    stream = GAUSSIANS

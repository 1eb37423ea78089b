"""Signs: z_e = ±1 with equal chance. Bits equal on every device, backend, block size and order."""

from zo.directions.direction import Directions
from zo.noise import SIGNS


class Rademacher(Directions):
    """One random bit an entry; ‖z‖² = d exactly."""

    name = "rademacher"
    stream = SIGNS

"""Random numbers with names: Philox-4x32-10 and the fast forms of what is done with it."""

from zo.random.eager import Eager
from zo.random.philox import GAUSSIANS, ROUNDING, SIGNS, SPECIFICATION, id_of, key_of

__all__ = ["GAUSSIANS", "ROUNDING", "SIGNS", "SPECIFICATION", "Eager", "id_of", "key_of"]

"""Random numbers with names: Philox-4x32-10, keys of directions and ids of parameters (docs/randomness.md)."""

from zo.noise.philox import GAUSSIANS, ROUNDING, SHORT_GAUSSIANS, SIGNS, SPECIFICATION, id_of, key_of

__all__ = ["GAUSSIANS", "ROUNDING", "SHORT_GAUSSIANS", "SIGNS", "SPECIFICATION", "id_of", "key_of"]

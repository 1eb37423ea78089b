"""Checks of arguments that many constructors share; what does not pass is a ConfigError."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from zo.errors import ConfigError


def check_int(name: str, value: Any, least: int, of: str = "", most: int | None = None) -> None:
    """A whole number of at least `least`, and at most `most`. of: what it counts, for the message."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if number is None or number < least or (most is not None and number > most):
        bound = "" if most is None else f" and at most {most}"
        raise ConfigError(
            f"{name} = {value!r} must be a whole number of at least {least}{bound}{of and f' {of}'}."
        )


def two_betas(betas: Sequence[float]) -> tuple[float, float]:
    """Two decay rates in [0, 1)."""
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ConfigError(f"optimizer.betas = {tuple(betas)} must be two numbers in [0, 1).")
    return betas[0], betas[1]

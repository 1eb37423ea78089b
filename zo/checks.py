"""Checks of arguments that many constructors share; what does not pass is a ConfigError."""

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

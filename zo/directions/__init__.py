"""Directions: where a probe goes."""

from zo.directions.base import Directions, Key, Probe
from zo.directions.gaussian import Gaussian
from zo.directions.rademacher import Rademacher
from zo.errors import ConfigError

KINDS: dict[str, type[Directions]] = {kind.name: kind for kind in (Rademacher, Gaussian)}


def directions(name: str) -> Directions:
    """The kind of that name; raises ConfigError for an unknown one."""
    if name not in KINDS:
        raise ConfigError(f"directions = {name!r} is none of {', '.join(KINDS)}.")
    return KINDS[name]()


__all__ = ["KINDS", "Directions", "Gaussian", "Key", "Probe", "Rademacher", "directions"]

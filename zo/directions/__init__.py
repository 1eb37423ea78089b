"""Directions: where a probe goes."""

import inspect
from collections.abc import Mapping
from typing import Any

from zo.directions.direction import Directions, Key, Probe, Terms, Theta
from zo.directions.gaussian import Gaussian
from zo.directions.given import Explicit
from zo.directions.lowrank import LowRank
from zo.directions.rademacher import Rademacher
from zo.directions.sphere import Sphere
from zo.directions.subsets import Layers, Sparse
from zo.directions.subspace import Projected, Subspace
from zo.errors import ConfigError

Spec = str | dict[str, Any]
KINDS: dict[str, type[Directions]] = {
    kind.name: kind for kind in (Rademacher, Gaussian, Sphere, LowRank, Subspace, Sparse, Layers)
}


def directions(spec: Spec) -> Directions:
    """The kind that a configuration names: `gaussian`, or {kind: lowrank, rank: 2} where it has options.

    Raises ConfigError for an unknown kind or option, or a value out of range.
    """
    options: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {"kind": spec}
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"directions = {kind!r} is none of {', '.join(KINDS)}.")
    known = [] if KINDS[kind].__init__ is object.__init__ else list(inspect.signature(KINDS[kind]).parameters)
    if unknown := sorted(options.keys() - set(known)):
        raise ConfigError(
            f"directions: {kind} has no option {unknown[0]!r}. "
            + (f"It has {', '.join(known)}." if known else "It has none.")
        )
    try:
        return KINDS[kind](**options)
    except ConfigError as error:
        lines = (f"directions: {kind}: {line}" for line in str(error).splitlines())
        raise ConfigError("\n".join(lines)) from error


__all__ = [
    "KINDS",
    "Directions",
    "Explicit",
    "Gaussian",
    "Key",
    "Layers",
    "LowRank",
    "Probe",
    "Projected",
    "Rademacher",
    "Sparse",
    "Spec",
    "Sphere",
    "Subspace",
    "Terms",
    "Theta",
    "directions",
]

"""Rows of metrics.jsonl: what each of them has beside its kind, and which look at dev is the best."""

import math

# What it took so far.
AXES = ("forward_passes", "seconds", "tokens", "gpu_hours", "steps", "peak_memory_bytes")

JOURNAL = "journal"  # key of the digest that binds a row to the journal's records before it


def rank_key(value: float | None, loss: float | None) -> tuple[float, float]:
    """By which looks at dev are compared: the higher metric, then the lower loss; of equal ones the earlier is best.

    A number that is not finite, which a file holds as null, is worse than any that is.
    """
    return _finite(value, -math.inf), -_finite(loss, math.inf)


def _finite(number: float | None, otherwise: float) -> float:
    return number if number is not None and math.isfinite(number) else otherwise

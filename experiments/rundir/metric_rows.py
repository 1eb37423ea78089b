"""Defines the rows of metrics.jsonl: their common columns, and which dev evaluation is the best."""

import math
from collections.abc import Collection, Mapping
from typing import Any

UNTRAINED = ("zeroshot", "icl")  # methods that change no weight
# What it took so far.
AXES = ("forward_passes", "seconds", "tokens", "gpu_hours", "steps", "peak_memory_bytes")

JOURNAL = "journal"  # key of the digest that binds a row to the journal's records before it


def rank_key(value: float | None, loss: float | None, by: str = "metric") -> tuple[float, float]:
    """Returns the key by which evaluations on dev are compared: the higher is better, of equal ones the earlier.

    by: "metric", the higher metric and then the lower loss; "loss", the lower loss and then the higher metric. A
    number that is not finite, which a file holds as null, is worse than any that is.
    """
    metric, negative_loss = _finite(value, -math.inf), -_finite(loss, math.inf)
    return (negative_loss, metric) if by == "loss" else (metric, negative_loss)


def selected_by(config: Mapping[str, Any]) -> str:
    """Returns the criterion by which weights are selected; configurations of older versions have no key for it."""
    return str(config.get("select_by") or "metric")


def learned_nothing(result: Mapping[str, Any], dev: Collection[float | None]) -> str | None:
    """Returns why a finished run counts as having learned nothing; None if it learned, or never trained.

    dev: its metric at each evaluation on dev. A run that never left its start has the metric that it had before, on
    test and at all evaluations on dev; one that ended no better than the majority class has nothing to show either.
    """
    after, before, majority = (result.get(key) for key in ("after", "before", "majority"))
    if result.get("status") != "finished" or result.get("method") in UNTRAINED or after is None:
        return None
    if after == before and len(set(dev)) <= 1:
        at_dev = [f", and dev at {_percent(value)} at all {len(dev)} evaluations" for value in list(dev)[:1]]
        return f"test stayed where it began, at {_percent(after)}{''.join(at_dev)}"
    if majority is not None and after <= majority:
        return f"test ended at {_percent(after)}, not above the majority class's {_percent(majority)}"
    return None


def _percent(fraction: float | None) -> str:
    return "no number" if fraction is None else f"{100 * fraction:.1f} %"


def _finite(number: float | None, otherwise: float) -> float:
    return number if number is not None and math.isfinite(number) else otherwise

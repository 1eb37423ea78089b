"""Estimators: slopes and spreads from losses; floats to floats, in float64."""

import math
from collections.abc import Sequence


def central_difference(plus: float, minus: float, eps: float) -> float:
    """zᵀ∇L to O(ε²), from L(θ + εz) and L(θ − εz). MeZO's projected gradient."""
    return (plus - minus) / (2 * eps)


def forward_difference(plus: float, base: float, eps: float) -> float:
    """zᵀ∇L to O(ε), from L(θ + εz) and L(θ)."""
    return (plus - base) / eps


def second_difference(plus: float, base: float, minus: float, eps: float) -> float:
    """zᵀ∇²L z to O(ε²), from L(θ + εz), L(θ) and L(θ − εz)."""
    return (plus + minus - 2 * base) / eps**2


def deviation(losses: Sequence[float], ddof: int) -> float:
    """Standard deviation with `ddof` degrees of freedom taken off.

    The mean is taken of differences to the first loss, so that a common offset cancels exactly.
    """
    shifted = [loss - losses[0] for loss in losses]
    mean = math.fsum(shifted) / len(shifted)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in shifted) / (len(shifted) - ddof))


def clipped(coefficients: Sequence[float], bound: float | None) -> list[float]:
    """Coefficients within ±bound; None is no bound."""
    return list(coefficients) if bound is None else [min(max(c, -bound), bound) for c in coefficients]

"""Estimates what a run will need, bytes and GPU-hours, before it is launched."""

from experiments.estimating.run_cost import Estimate, estimate

__all__ = ["Estimate", "estimate"]

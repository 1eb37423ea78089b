"""What a run will need: bytes and GPU-hours, before it is launched."""

from experiments.estimating.estimate import Estimate, estimate

__all__ = ["Estimate", "estimate"]

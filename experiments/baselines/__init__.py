"""Baselines for forward-only methods: no training, and a linear probe."""

from experiments.baselines.linear_probe import LinearProbe
from experiments.baselines.no_training import NoTraining, ZeroShot

__all__ = ["LinearProbe", "NoTraining", "ZeroShot"]

"""What forward-only methods are compared with: no training, and a linear probe."""

from experiments.baselines.linear_probe import LinearProbe
from experiments.baselines.no_training import NoTraining, ZeroShot

__all__ = ["LinearProbe", "NoTraining", "ZeroShot"]

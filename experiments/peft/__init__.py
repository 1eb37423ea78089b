"""Selects the parameters to train: all of them, some of them, or adapters of the peft library."""

from experiments.peft.attach import attach

__all__ = ["attach"]

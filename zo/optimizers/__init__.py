"""Optimizers: one file a paper."""

from zo.optimizers.base import Optimizer, Probing
from zo.optimizers.firstorder import SGD, AdamW
from zo.optimizers.fzoo import FZOO
from zo.optimizers.mezo import MeZO

__all__ = ["FZOO", "SGD", "AdamW", "MeZO", "Optimizer", "Probing"]

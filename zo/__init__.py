"""zo: fine-tune with forward passes only.

    optimizer = zo.FZOO(model, lr=1e-3)
    look = zo.ModuleLook(model, losses, optimizer)       # losses(model, batch) → one loss an example
    zo.train(optimizer, look, batches, steps=200)
"""

from zo.directions import Gaussian, Key, Probe, Rademacher
from zo.errors import ConfigError, DataError, Diverged, JournalError, LookError, ZOError
from zo.journal import Journal
from zo.look import ClosureLook, InPlace, ModuleLook
from zo.optimizers import FZOO, SGD, AdamW, MeZO
from zo.schedules import Constant, Cosine, Linear
from zo.snapshots import Snapshots
from zo.train import train
from zo.weights import Weights

__all__ = [
    "FZOO",
    "SGD",
    "AdamW",
    "ClosureLook",
    "ConfigError",
    "Constant",
    "Cosine",
    "DataError",
    "Diverged",
    "Gaussian",
    "InPlace",
    "Journal",
    "JournalError",
    "Key",
    "Linear",
    "LookError",
    "MeZO",
    "ModuleLook",
    "Probe",
    "Rademacher",
    "Snapshots",
    "Weights",
    "ZOError",
    "train",
]

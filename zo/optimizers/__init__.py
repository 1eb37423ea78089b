"""Optimizers: one file a paper."""

from zo.optimizers.adamezo import AdaMeZO
from zo.optimizers.base import Optimizer, Probing
from zo.optimizers.firstorder import SGD, AdamW
from zo.optimizers.forwardgradient import ForwardGradient
from zo.optimizers.fzoo import FZOO
from zo.optimizers.fzoor import FZOOR
from zo.optimizers.helene import HELENE
from zo.optimizers.hizoo import HiZOO
from zo.optimizers.hizool import HiZOOL
from zo.optimizers.mezo import MeZO
from zo.optimizers.mezoswitch import MeZOSwitch
from zo.optimizers.radazo import RAdaZO
from zo.optimizers.zoadam import ZOAdam
from zo.optimizers.zoadamu import ZOAdaMU
from zo.optimizers.zoconservative import ZOConservative
from zo.optimizers.zomomentum import ZOMomentum
from zo.optimizers.zosgd import ZOSGD
from zo.optimizers.zosign import ZOSign

__all__ = [
    "FZOO",
    "FZOOR",
    "HELENE",
    "SGD",
    "ZOSGD",
    "AdaMeZO",
    "AdamW",
    "ForwardGradient",
    "HiZOO",
    "HiZOOL",
    "MeZO",
    "MeZOSwitch",
    "Optimizer",
    "Probing",
    "RAdaZO",
    "ZOAdaMU",
    "ZOAdam",
    "ZOConservative",
    "ZOMomentum",
    "ZOSign",
]

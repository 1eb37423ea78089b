"""Optimizers: one file a paper."""

from zo.optimizers.adamezo import AdaMeZO
from zo.optimizers.eggroll import EGGROLL
from zo.optimizers.firstorder import SGD, AdamW
from zo.optimizers.forwardgradient import ForwardGradient
from zo.optimizers.fzoo import FZOO
from zo.optimizers.fzoo_ablation import FZOOAblation
from zo.optimizers.fzoor import FZOOR
from zo.optimizers.helene import HELENE
from zo.optimizers.hizoo import HiZOO
from zo.optimizers.hizool import HiZOOL
from zo.optimizers.lezo import LeZO
from zo.optimizers.lozo import LOZO, LOZOM
from zo.optimizers.meazo import MEAZO
from zo.optimizers.mezo import MeZO
from zo.optimizers.mezo_momentum import MeZOMomentum
from zo.optimizers.mezoswitch import MeZOSwitch
from zo.optimizers.optimizer import Optimizer, Probing
from zo.optimizers.radazo import RAdaZO
from zo.optimizers.sparsemezo import SparseMeZO
from zo.optimizers.subzero import SubZero
from zo.optimizers.zoadam import ZOAdam
from zo.optimizers.zoadamu import ZOAdaMU
from zo.optimizers.zoconservative import ZOConservative
from zo.optimizers.zomomentum import ZOMomentum
from zo.optimizers.zomuon import ZOMuon
from zo.optimizers.zosgd import ZOSGD
from zo.optimizers.zosign import ZOSign

__all__ = [
    "EGGROLL",
    "FZOO",
    "FZOOR",
    "HELENE",
    "LOZO",
    "LOZOM",
    "MEAZO",
    "SGD",
    "ZOSGD",
    "AdaMeZO",
    "AdamW",
    "FZOOAblation",
    "ForwardGradient",
    "HiZOO",
    "HiZOOL",
    "LeZO",
    "MeZO",
    "MeZOMomentum",
    "MeZOSwitch",
    "Optimizer",
    "Probing",
    "RAdaZO",
    "SparseMeZO",
    "SubZero",
    "ZOAdaMU",
    "ZOAdam",
    "ZOConservative",
    "ZOMomentum",
    "ZOMuon",
    "ZOSign",
]

"""zo: fine-tune with forward passes only.

    optimizer = zo.FZOO(model, lr=1e-3)
    zo.train(optimizer, losses, batches, steps=200)      # losses(model, batch) → one loss an example

Names are imported at first use, so that `import zo` costs nothing where only its errors are wanted.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# MKL, which multiplies torch's matrices on x86, chooses among algorithms by where in memory a matrix lies (seen on AMD
# EPYC), so that two equal runs could differ in a bit. This is its own mode without that, at no measurable cost; it is
# read at MKL's first call, so programs that multiply before they import zo set it themselves.
os.environ.setdefault("MKL_CBWR", "AUTO")

if TYPE_CHECKING:
    __version__: str

    from zo.directions import Gaussian, Key, Probe, Rademacher
    from zo.distributed import Ranks, Solo
    from zo.errors import (
        ConfigError,
        DataError,
        Diverged,
        JournalError,
        LookError,
        RankLost,
        RanksDiverged,
        ZOError,
        ZOWarning,
    )
    from zo.journal import Journal
    from zo.look import ClosureLook, InPlace, ModuleLook
    from zo.optimizers import (
        EGGROLL,
        FZOO,
        FZOOR,
        HELENE,
        LOZO,
        LOZOM,
        MEAZO,
        SGD,
        ZOSGD,
        AdaMeZO,
        AdamW,
        ForwardGradient,
        FZOOAblation,
        HiZOO,
        HiZOOL,
        LeZO,
        MeZO,
        MeZOMomentum,
        MeZOSwitch,
        RAdaZO,
        SparseMeZO,
        SubZero,
        ZOAdam,
        ZOAdaMU,
        ZOConservative,
        ZOMomentum,
        ZOMuon,
        ZOSign,
    )
    from zo.schedules import Constant, Cosine, Linear
    from zo.snapshots import Snapshots
    from zo.training import train
    from zo.weights import Weights

_HOMES = {
    "zo.directions": ("Gaussian", "Key", "Probe", "Rademacher"),
    "zo.distributed": ("Ranks", "Solo"),
    "zo.errors": (
        "ConfigError",
        "DataError",
        "Diverged",
        "JournalError",
        "LookError",
        "RankLost",
        "RanksDiverged",
        "ZOError",
        "ZOWarning",
    ),
    "zo.journal": ("Journal",),
    "zo.look": ("ClosureLook", "InPlace", "ModuleLook"),
    "zo.optimizers": (
        "ZOAdaMU",
        "HiZOOL",
        "HiZOO",
        "FZOOR",
        "FZOOAblation",
        "MeZOMomentum",
        "MeZOSwitch",
        "AdaMeZO",
        "EGGROLL",
        "LeZO",
        "LOZO",
        "LOZOM",
        "MEAZO",
        "SparseMeZO",
        "SubZero",
        "ZOMuon",
        "ForwardGradient",
        "FZOO",
        "HELENE",
        "SGD",
        "ZOSGD",
        "AdamW",
        "MeZO",
        "RAdaZO",
        "ZOAdam",
        "ZOConservative",
        "ZOMomentum",
        "ZOSign",
    ),
    "zo.schedules": ("Constant", "Cosine", "Linear"),
    "zo.snapshots": ("Snapshots",),
    "zo.training": ("train",),
    "zo.weights": ("Weights",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

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
    "ClosureLook",
    "ConfigError",
    "Constant",
    "Cosine",
    "DataError",
    "Diverged",
    "FZOOAblation",
    "ForwardGradient",
    "Gaussian",
    "HiZOO",
    "HiZOOL",
    "InPlace",
    "Journal",
    "JournalError",
    "Key",
    "LeZO",
    "Linear",
    "LookError",
    "MeZO",
    "MeZOMomentum",
    "MeZOSwitch",
    "ModuleLook",
    "Probe",
    "RAdaZO",
    "Rademacher",
    "RankLost",
    "Ranks",
    "RanksDiverged",
    "Snapshots",
    "Solo",
    "SparseMeZO",
    "SubZero",
    "Weights",
    "ZOAdaMU",
    "ZOAdam",
    "ZOConservative",
    "ZOError",
    "ZOMomentum",
    "ZOMuon",
    "ZOSign",
    "ZOWarning",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from zo.version import version

        return version()
    if name not in _HOME:
        raise AttributeError(f"module 'zo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value

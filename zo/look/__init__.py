"""Look: from probes and a batch to losses."""

from zo.look.closure import ClosureLook
from zo.look.distributed_look import SharedLook
from zo.look.inplace import InPlace
from zo.look.look import Look, MicroBatches, ModelLook, Objective
from zo.look.module import ModuleLook

__all__ = [
    "ClosureLook",
    "InPlace",
    "Look",
    "MicroBatches",
    "ModelLook",
    "ModuleLook",
    "Objective",
    "SharedLook",
]

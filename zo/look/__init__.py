"""Look: from probes and a batch to losses."""

from zo.look.base import Look, ModelLook, Objective
from zo.look.closure import ClosureLook
from zo.look.inplace import InPlace
from zo.look.module import ModuleLook
from zo.look.shared import SharedLook

__all__ = ["ClosureLook", "InPlace", "Look", "ModelLook", "ModuleLook", "Objective", "SharedLook"]

"""The operations on weights and noise, in several forms: eager torch (the reference), compiled C++, Triton."""

import torch

from zo.errors import ConfigError
from zo.kernels.eager import Eager
from zo.kernels.native import Native
from zo.kernels.operations import Kernels, Noise, Terms, Write

__all__ = [
    "CHOICES",
    "Eager",
    "Kernels",
    "Native",
    "Noise",
    "Terms",
    "Write",
    "best",
]

CHOICES = ("auto", "eager", "native", "triton")


def best(device: torch.device, choice: str = "auto") -> Kernels:
    """The form of the noise operations for tensors on this device; all forms give the same bits on a CPU.

    auto: native on a CPU that has a C++ compiler, triton on a CUDA device that has it, else eager. AMD's ROCm, Apple's
    mps and other devices take the eager form, once its numbers there were compared with a CPU's.
    Raises ConfigError when a form asked for by name cannot be had here, and says why.
    """
    if choice not in CHOICES:
        raise ConfigError(f"kernels = {choice!r} is none of {', '.join(CHOICES)}.")
    if choice in ("auto", "eager") and (choice == "eager" or _is_untested(device)):
        return _eager(device)
    native = choice == "native" or (choice == "auto" and device.type == "cpu")
    form, reason = _native(device) if native else _triton(device)
    if form is not None:
        from zo.kernels.trial import tried  # late: it needs the blocks of zo, which need this package

        return tried(form, device, by_name=choice != "auto")
    if choice == "auto":
        return Eager()
    raise ConfigError(f"kernels = {choice!r} cannot be had here. {reason} Use kernels = 'auto' or 'eager'.")


def _is_untested(device: torch.device) -> bool:
    """Returns whether no test of zo's ever ran on such a device; ROCm builds of torch call theirs cuda."""
    return device.type not in ("cpu", "cuda", "meta") or (device.type == "cuda" and bool(torch.version.hip))


def _eager(device: torch.device) -> Eager:
    if _is_untested(device):
        from zo.kernels.trial import eager_differs  # late: it needs the blocks of zo, which need this package

        if why := eager_differs(device):
            raise ConfigError(
                f"{device} cannot be used: the noise was tried there on a small tensor, and its numbers are not those "
                f"of a CPU ({why}). Use the CPU."
            )
    return Eager()


def _native(device: torch.device) -> tuple[Native | None, str]:
    if device.type != "cpu":
        return None, f"The native form works on CPU tensors, and the device is {device}."
    form = Native()
    return (None, form.reason) if form.reason else (form, "")


def _triton(device: torch.device) -> tuple[Kernels | None, str]:
    if device.type != "cuda":
        return None, f"Triton kernels run on CUDA devices, and the device is {device}."
    try:
        from zo.kernels.triton import Triton  # not every installation of torch has triton
    except ImportError as error:
        return None, f"Triton cannot be imported ({error})."
    return Triton(), ""

"""Measures the peak memory of this process in bytes: the allocator's on a GPU, resident memory on a CPU."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn


def gpus_of(model: nn.Module) -> int:
    """Returns how many GPUs the weights lie on."""
    return len({weight.device for weight in model.parameters() if weight.device.type != "cpu"})


def reset_peak(device: torch.device) -> None:
    """Resets the peak, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak(device: torch.device) -> int:
    """Returns the peak in bytes since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024

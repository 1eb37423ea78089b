"""Keeps what is stored beside 16-bit parameters in step with what others write into them.

An optimizer may be made before `load_state_dict`, an average of weights or a clipping writes the parameters. Matrices
are then read as they are; an fp32 copy of a vector, and the low halves of `update = 'master'`, would be out of date.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_LARGE = 1 << 20  # numbers; a larger tensor is compared alone, a block at a time: what is compared is copied
_BLOCK = 1 << 16  # numbers of it that a CPU compares at a time, so that they stay in the cache


class Following:
    """Remembers the state of parameters with copies and low halves, by name.

    A copy follows where its parameter has other bits than the copy rounded. Low halves are dropped where torch knows
    that the parameter was written; behind its back (`p.data.copy_`) they stay, half a unit in the last place at most.
    """

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, int]] = {}

    def note(self, name: str, tensor: Tensor) -> None:
        """Remembers how a move left a parameter whose low halves are kept."""
        self._states[name] = _state_of(tensor)

    def refresh(
        self, tensors: Mapping[str, Tensor], copies: Mapping[str, Tensor], low: Mapping[str, Tensor]
    ) -> None:
        """Takes over what others wrote since."""
        groups: dict[tuple[torch.device, torch.dtype, str], list[str]] = {}
        for name in copies:
            alone = name if copies[name].numel() > _LARGE else ""
            groups.setdefault((tensors[name].device, tensors[name].dtype, alone), []).append(name)
        for (_, dtype, alone), names in groups.items():  # all vectors of a device at once: one wait for a GPU
            if alone:
                if not _holds(copies[alone], tensors[alone].detach()):
                    copies[alone].copy_(tensors[alone].detach())
                continue
            rounded = torch.cat([copies[name].view(-1) for name in names]).to(dtype)
            if _same_bits(rounded, torch.cat([tensors[name].detach().view(-1) for name in names])):
                continue
            for name in names:
                if not _same_bits(copies[name].to(dtype), tensors[name].detach()):
                    copies[name].copy_(tensors[name].detach())
        for name, halves in low.items():
            if self._states.get(name) != _state_of(tensors[name]):
                halves.zero_()
                self.note(name, tensors[name])


def _holds(copy: Tensor, tensor: Tensor) -> bool:
    """Returns whether a 16-bit tensor has the bits of its fp32 copy rounded."""
    wide, narrow = copy.view(-1), tensor.reshape(-1)
    size = _BLOCK if tensor.is_cpu else max(1, tensor.numel())
    return all(
        _same_bits(wide[start : start + size].to(tensor.dtype), narrow[start : start + size])
        for start in range(0, tensor.numel(), size)
    )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Returns whether two tensors of 16-bit numbers are equal to the bit, NaN too."""
    return torch.equal(one.contiguous().view(torch.int16), other.contiguous().view(torch.int16))


def _state_of(tensor: Tensor) -> tuple[int, int]:
    """Changes when torch writes a tensor, or it gets other memory."""
    return tensor._version, tensor.data_ptr()

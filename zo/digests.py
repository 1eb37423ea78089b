"""Numbers that stand for the bits of tensors: SHA-256 for results, a fast checksum for comparing ranks."""

import ctypes
import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

_BLOCK = 1 << 22
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that no bit of what came before is lost


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of tensors in the order given."""
    total = hashlib.sha256()
    for name, tensor in tensors:
        total.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode())
        for block in tensor.contiguous().view(-1).split(_BLOCK):
            block = block.cpu()
            size = block.numel() * block.element_size()
            total.update((ctypes.c_char * size).from_address(block.data_ptr()))
    return total.hexdigest()


def checksum(tensors: Iterable[Tensor]) -> int:
    """64 bits: Σ bits · (2 position + 1) in integers modulo 2⁶⁴, the same on every device and in any order.

    One pass where the tensors lie. A change of any one number changes it.
    """
    total = 0
    for tensor in tensors:
        bits = tensor.detach().contiguous().view(-1).view(_INTEGERS[tensor.element_size()])
        here = 0
        for start in range(0, bits.numel(), _BLOCK):
            block = bits[start : start + _BLOCK].long()
            place = torch.arange(start, start + block.numel(), device=block.device)
            here += int((block * (2 * place + 1)).sum())
        total = (total * _FACTOR + here) % (1 << 64)
    return total

"""Memory for the tensors of probes, used again by every site and look."""

import torch
from torch import Tensor


class Buffers:
    """Tensors of the same attribute share their memory, so it is as large as the largest of them."""

    def __init__(self) -> None:
        self._flat: dict[tuple[torch.dtype, torch.device, str], list[Tensor]] = {}
        self._shaped: dict[tuple[object, ...], list[Tensor]] = {}  # their views, since each is two calls of torch

    def of(self, like: Tensor, attribute: str, count: int) -> list[Tensor]:
        """`count` tensors of this one's shape, dtype and device, not set to anything; the next call has them too."""
        shaped = (like.dtype, like.device, attribute, like.shape, count)
        if shaped in self._shaped:
            return self._shaped[shaped]
        flat, size = self._flat.setdefault((like.dtype, like.device, attribute), []), like.numel()
        while len(flat) < count:
            flat.append(like.new_empty(0))
        for i in range(count):
            if flat[i].numel() < size:
                flat[i] = like.new_empty(size)
                self._shaped.clear()  # views of less memory, which they would keep
        self._shaped[shaped] = [buffer[:size].view(like.shape) for buffer in flat[:count]]
        return self._shaped[shaped]

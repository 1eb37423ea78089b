"""Memory for the tensors of probes, used again by every site and look."""

import torch
from torch import Tensor


class Buffers:
    """Tensors of the same attribute share their memory, so it is as large as the largest of them."""

    def __init__(self) -> None:
        self._flat: dict[tuple[torch.dtype, torch.device, str], list[Tensor]] = {}

    def of(self, like: Tensor, attribute: str, count: int) -> list[Tensor]:
        """Returns tensors of this one's shape, dtype and device whose numbers are any; the next call gets them too."""
        flat, size = self._flat.setdefault((like.dtype, like.device, attribute), []), like.numel()
        while len(flat) < count:
            flat.append(like.new_empty(0))
        for i in range(count):
            if flat[i].numel() < size:
                flat[i] = like.new_empty(size)
        return [buffer[:size].view(like.shape) for buffer in flat[:count]]

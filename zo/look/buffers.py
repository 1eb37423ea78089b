"""Memory for weights at probes, used again from one module to the next."""

import torch
from torch import Tensor


class Buffers:
    """Tensors of the same attribute, dtype and device share memory, so it is as large as the largest."""

    def __init__(self) -> None:
        self._memory: dict[tuple[torch.dtype, torch.device, str], list[Tensor]] = {}
        self._shaped: dict[tuple[object, ...], list[Tensor]] = {}  # views of it, by shape and number

    def of(self, like: Tensor, attribute: str, count: int) -> list[Tensor]:
        """Returns `count` tensors shaped like this one; what earlier calls wrote into them is lost."""
        shaped = (like.dtype, like.device, attribute, like.shape, count)
        if shaped in self._shaped:
            return self._shaped[shaped]
        place, size = shaped[:3], like.numel()
        memory = self._memory.setdefault(place, [])
        while len(memory) < count:
            memory.append(like.new_empty(0))
        for i in range(count):
            if memory[i].numel() < size:
                memory[i] = like.new_empty(size)
                self._shaped.clear()  # views keep the smaller memory
        self._shaped[shaped] = [tensor[:size].view(like.shape) for tensor in memory[:count]]
        return self._shaped[shaped]

    def clear(self) -> None:
        """Gives the memory back."""
        self._memory.clear()
        self._shaped.clear()

"""Trained tensors with what is stored beside those of 16 bits: fp32 copies of vectors, the lower halves of matrices.

Vectors of 16-bit models (norm gains, biases) would lose an ε of 1e-3 entirely near 1, so an fp32 copy of each is kept,
perturbed and moved; the model holds the copy rounded to its dtype. `hold` does the same to a vector that is stored as a
matrix. What others write into the parameters (load_state_dict, an average) is taken over before the next look or move.
"""

import torch
from torch import Tensor, nn

from zo.digests import checksum, digest
from zo.errors import JournalError
from zo.following import Following


class Held:
    """The trained tensors by canonical name, and what is held for them beside the model.

    copies: keep fp32 copies of 16-bit vectors. low: keep the lower 16 bits of the others (update = 'master').
    """

    def __init__(self, tensors: dict[str, nn.Parameter], *, copies: bool, low: bool):
        self.tensors = tensors
        self.holds = copies
        self.copies: dict[str, Tensor] = {}
        self.low: dict[str, Tensor] = {}
        self._following = Following()
        for name, tensor in self.tensors.items():
            if tensor.dtype == torch.float32:
                continue
            if copies and tensor.dim() <= 1:
                self.copies[name] = tensor.detach().float()
                continue
            if low:
                self.low[name] = torch.zeros_like(tensor, dtype=torch.int16)

    def hold(self, name: str) -> None:
        """Keeps an fp32 copy of a 16-bit tensor, which from here on is perturbed and moved in its place."""
        self.copies[name] = self.tensors[name].detach().float()
        self.low.pop(name, None)

    def refresh(self) -> None:
        """Takes over what others wrote into the parameters since the last move (zo/following.py)."""
        self._following.refresh(self.tensors, self.copies, self.low)

    def source(self, name: str) -> Tensor:
        """The tensor that is perturbed: the parameter, or the fp32 copy of a 16-bit vector."""
        return self.copies.get(name, self.tensors[name].detach())

    def _show(self, name: str) -> None:
        """Rounds the fp32 copy of a 16-bit vector, where there is one, into the model."""
        if name in self.copies:
            self.tensors[name].detach().copy_(self.copies[name])
        if name in self.low:
            self._following.note(name, self.tensors[name])

    def _renew(self) -> None:
        """Takes the parameters as they are for those that the low halves belong to: after a load, or in a copy."""
        for name in self.low:
            self._following.note(name, self.tensors[name])

    def state(self) -> dict[str, Tensor]:
        """All that `load` needs to set the weights: parameters, copies, low halves."""
        self.refresh()
        parts = {"": {n: t.detach() for n, t in self.tensors.items()}, "copy:": self.copies, "low:": self.low}
        return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Sets the weights; raises JournalError unless names, shapes and dtypes are those of `state()`."""
        mine = self.state()
        for name in sorted(mine.keys() | state.keys()):
            one, other = mine.get(name), state.get(name)
            if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
                raise JournalError(f"The snapshot does not fit the model at {name!r}: it is of another run.")
        for name, tensor in mine.items():
            tensor.copy_(state[name])
        self._renew()

    def sha256(self) -> str:
        """Hex digest over sorted (name, dtype, shape, bytes) of the trained tensors, in the model's dtype."""
        return digest((name, tensor.detach()) for name, tensor in self.tensors.items())

    def checksum(self) -> int:
        """64 bits of all that `state` holds, in one pass: what ranks compare."""
        return checksum(self.state().values())

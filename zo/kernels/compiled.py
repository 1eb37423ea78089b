"""The operations of eager.py through torch.compile: one block of fixed size, compiled once for each number of
terms, dtype and update; the last block is padded. Shapes are fixed because inductor's code for dynamic ones
is several times slower. Same bits as eager on a CPU.

Signs only: inductor needs about a minute for the Gaussian, and the rows of an embedding are few, so both go
to the eager form.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from zo.kernels import rounding
from zo.kernels.eager import Terms
from zo.kernels.onebyone import OneByOne
from zo.kernels.transforms import Entries
from zo.noise import philox


class Compiled(OneByOne):
    """Through inductor; the first call of each kind compiles for some seconds. What is not here is the eager form's.

    block: elements of one call, a multiple of 128.
    """

    name = "compiled"

    def __init__(self, block: int = 1 << 16):
        super().__init__(block)

    def perturb(self, w: Tensor, pid: int, stream: int, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        if stream != philox.SIGNS or not terms:
            return super().perturb(w, pid, stream, terms, out)
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        self._walk(w.reshape(-1), out.view(-1), None, pid, terms, 0.0, "nearest", 0)
        return out

    def move(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        terms: Terms,
        decay: float = 0.0,
        update: str = "nearest",
        rounding_key: int = 0,
        low: Tensor | None = None,
        entries: Entries | None = None,
    ) -> None:
        """w ← w + (Σ scale z − decay · w) in place, one pass; `low` holds the low halves when update is master."""
        if stream != philox.SIGNS or not terms or entries is not None:
            super().move(w, pid, stream, terms, decay, update, rounding_key, low, entries)
            return
        how = "master" if low is not None else "nearest" if w.dtype == torch.float32 else update
        flat = w.view(-1)
        self._walk(flat, flat, None if low is None else low.view(-1), pid, terms, decay, how, rounding_key)

    def _walk(
        self,
        w: Tensor,
        out: Tensor,
        low: Tensor | None,
        pid: int,
        terms: Terms,
        decay: float,
        update: str,
        rounding_key: int,
    ) -> None:
        run = _compiled()
        device = w.device
        update = "nearest" if update == "master" and low is None else update
        keys = torch.tensor([_halves(key) for key, _ in terms], device=device)
        scales = torch.tensor([scale for _, scale in terms], dtype=torch.float32, device=device)
        names = torch.tensor([*_halves(pid), *_halves(rounding_key)], device=device)
        factor = None if decay == 0.0 else torch.tensor(decay, dtype=torch.float32, device=device)
        for start in range(0, w.numel(), self.block):
            stop = min(start + self.block, w.numel())
            first = torch.tensor(start, device=device)
            part, lower = self._padded(w[start:stop]), None if low is None else self._padded(low[start:stop])
            new, dropped = run(part, lower, keys, scales, names, first, factor, update)
            out[start:stop] = new[: stop - start]
            if low is not None and dropped is not None:
                low[start:stop] = dropped[: stop - start]

    def _padded(self, part: Tensor) -> Tensor:
        if part.numel() == self.block:
            return part
        return torch.cat((part, part.new_zeros(self.block - part.numel())))


def _block(
    w: Tensor,
    low: Tensor | None,
    keys: Tensor,
    scales: Tensor,
    names: Tensor,
    first: Tensor,
    decay: Tensor | None,
    update: str,
) -> tuple[Tensor, Tensor | None]:
    """One block [n] from element `first` on: the new weights, and their low halves when update is master."""
    n = w.numel()
    blocks = first // 128 + torch.arange(n // 128, device=w.device)
    signs = _signs(keys, names, blocks)
    total = signs[0] * scales[0]
    for i in range(1, len(keys)):
        total = total + signs[i] * scales[i]
    old = w.float() if low is None else rounding.join(w, low)
    # A row a word: the loop over its bits then becomes vectors, a flat one does not.
    lines = old.view(-1, 32)
    new = (lines + (total if decay is None else total - lines * decay)).view(-1)
    if update == "master":
        return rounding.split(new, w.dtype)
    if update == "nearest":
        return new.to(w.dtype), None
    eighths = first // 8 + torch.arange(n // 8, device=w.device)
    words = philox.philox((eighths, names[0], names[1], philox.ROUNDING), (names[2], names[3]))
    bits = torch.stack(words, dim=-1).to(torch.int32)
    return rounding.stochastic(new, w.dtype, philox.halves(bits)), None


def _signs(keys: Tensor, names: Tensor, blocks: Tensor) -> Tensor:
    """fp32 signs of whole blocks, [len(keys), words, 32]: philox.signs without its table."""
    key = keys.T.unsqueeze(-1)
    words = torch.stack(philox.philox((blocks, names[0], names[1], philox.SIGNS), (key[0], key[1])), dim=-1)
    bits = (
        words.to(torch.int32).unsqueeze(-1) >> torch.arange(32, dtype=torch.int32, device=blocks.device)
    ) & 1
    return (1 - 2 * bits).to(torch.float32).flatten(1, 2)


def _halves(word: int) -> tuple[int, int]:
    return word & 0xFFFFFFFF, word >> 32


_RUN: list[Callable[..., tuple[Tensor, Tensor | None]]] = []


def _compiled() -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The compiled block, shared by all instances; every number of terms is a compilation of its own."""
    if not _RUN:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        _RUN.append(torch.compile(_block, dynamic=False, fullgraph=True))
    return _RUN[0]

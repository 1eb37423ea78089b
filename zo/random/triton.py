"""The operations of eager.py on signs as one Triton kernel: read, add all terms in registers, write once.

Bits tested against eager under Triton's interpreter on a CPU; GPU runs are tests marked gpu. Gaussians,
single rows, and the stochastic and master updates go to the eager form on the same device.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from zo.random import philox
from zo.random.eager import Terms
from zo.random.entries import Entries
from zo.random.onebyone import OneByOne

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_BLOCK = 4096  # elements of one program, a multiple of 128


@triton.jit
def _apply(  # noqa: ANN202  Triton's own types
    w_ptr,  # noqa: ANN001
    out_ptr,  # noqa: ANN001
    keys_ptr,  # noqa: ANN001
    scales_ptr,  # noqa: ANN001
    n,  # noqa: ANN001
    id_low,  # noqa: ANN001
    id_high,  # noqa: ANN001
    keep,  # noqa: ANN001
    terms: tl.constexpr,
    block: tl.constexpr,
    decays: tl.constexpr,
):
    """out ← keep · w + Σ scale · sign over one block of elements; a row of the tile is one word of 32 bits."""
    start = tl.program_id(0).to(tl.int64) * block
    row = tl.arange(0, block // 32)
    lane = tl.arange(0, 32)
    place = start + row[:, None] * 32 + lane[None, :]
    inside = place < n
    counter = (start // 128 + tl.arange(0, block // 128)).to(tl.uint32)
    zero = counter * 0
    low, high = zero + id_low.to(tl.uint32), zero + id_high.to(tl.uint32)
    total = tl.zeros((block // 32, 32), tl.float32)
    for i in tl.static_range(terms):  # pyright: ignore  # a loop that triton unrolls
        key = tl.load(keys_ptr + i)
        scale = tl.load(scales_ptr + i)
        a, b, c, d = tl.philox(key, counter, low, high, zero)
        words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (block // 32, 1))
        bits = (words >> lane[None, :].to(tl.uint32)) & 1
        term = tl.where(bits == 1, -scale, scale)
        total = term if i == 0 else total + term
    old = tl.load(w_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if decays:
        old = old * keep
    new = old + total
    if out_ptr.dtype.element_ty == tl.bfloat16:
        # To nearest even by hand: Triton's interpreter cuts instead of rounding.
        pattern = new.to(tl.uint32, bitcast=True)
        pattern = (pattern + 0x7FFF + ((pattern >> 16) & 1)) >> 16
        pattern = tl.where(new == new, pattern, 0x7FC0)
        tl.store(out_ptr + place, pattern.to(tl.uint16).to(tl.bfloat16, bitcast=True), mask=inside)
    else:
        tl.store(out_ptr + place, new.to(out_ptr.dtype.element_ty), mask=inside)


class Triton(OneByOne):
    """For CUDA tensors, or any under Triton's interpreter. What is not here is the eager form's."""

    name = "triton"

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """Whole small models at once, for what the eager form does."""
        if stream != philox.SIGNS:
            super().warm(keys, stream, layout, device)

    def perturb(self, w: Tensor, pid: int, stream: int, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        if stream != philox.SIGNS or not terms or w.dtype not in _DTYPES:
            return super().perturb(w, pid, stream, terms, out)
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        self._run(w.contiguous(), out.view(-1), pid, terms, 1.0)
        return out

    def move(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        terms: Terms,
        keep: float = 1.0,
        update: str = "nearest",
        rounding_key: int = 0,
        low: Tensor | None = None,
        entries: Entries | None = None,
    ) -> None:
        """w ← keep · w + Σ scale z in place, one pass; `low` holds the low halves when update is master."""
        nearest = low is None and (update != "stochastic" or w.dtype == torch.float32)
        if (
            stream != philox.SIGNS
            or not terms
            or entries is not None
            or not nearest
            or w.dtype not in _DTYPES
        ):
            super().move(w, pid, stream, terms, keep, update, rounding_key, low, entries)
            return
        flat = w.view(-1)
        self._run(flat, flat, pid, terms, keep)

    def _run(self, w: Tensor, out: Tensor, pid: int, terms: Terms, keep: float) -> None:
        keys = torch.tensor([key - (key >> 63 << 64) for key, _ in terms], dtype=torch.int64, device=w.device)
        scales = torch.tensor([scale for _, scale in terms], dtype=torch.float32, device=w.device)
        _apply[(triton.cdiv(w.numel(), _BLOCK),)](
            w,
            out,
            keys,
            scales,
            w.numel(),
            pid & 0xFFFFFFFF,
            pid >> 32,
            keep,
            terms=len(terms),
            block=_BLOCK,
            decays=keep != 1.0,
            enable_fp_fusion=False,  # pyright: ignore  # keep · w + Σ is two roundings, as in every other form
        )

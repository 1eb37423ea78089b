"""The operations of eager.py as Triton kernels: read, add all terms in registers, write once (tiles.py).

Bits tested against eager under Triton's interpreter on a CPU; GPU runs are tests marked gpu. Sums that something
becomes of (entries.py), formulas, and the stochastic and master updates are the eager form's on the same
device, with the noise made here.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
from torch import Tensor

from zo.kernels import triton_kernels
from zo.kernels.adam_window import Moments, f32
from zo.kernels.eager import Eager
from zo.kernels.operations import PLAIN, Noise, Terms, Write
from zo.kernels.transforms import Entries
from zo.noise import philox

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_TILE = {philox.SIGNS: 4096, philox.GAUSSIANS: 1024}  # elements of one program
_ALIGNED = 128  # elements: what begins elsewhere is the eager form's


class Triton(Eager):
    """Kernels for CUDA tensors, or any under Triton's interpreter; the rest is inherited from the eager form.

    block: elements that the eager form makes at a time; more than on a CPU, since launches are what costs.
    """

    name = "triton"
    # The kernels make the numbers of these streams themselves, without storing them.
    streams = (
        philox.SIGNS,
        philox.GAUSSIANS,
    )

    def __init__(self, block: int = 1 << 22):
        super().__init__(block)

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """Whole small models at once, for what the eager form does."""
        if stream not in self.streams:
            super().warm(keys, stream, layout, device)

    def perturb_many(
        self,
        w: Tensor,
        noise: Noise,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        entries: Entries | None = None,
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; sums of which something becomes are the eager form's."""
        if noise.stream not in self.streams or entries is not None:
            return super().perturb_many(w, noise, lists, outs, entries)
        places = [None] * len(lists) if outs is None else outs
        return [self.perturb(w, noise, terms, out) for terms, out in zip(lists, places, strict=True)]

    def noise(
        self,
        keys: Sequence[int],
        noise: Noise,
        start: int,
        count: int,
        device: torch.device,
        room: Tensor | None = None,
    ) -> Sequence[Tensor]:
        """z of each key over elements start .. start + count of one parameter, fp32 [count]."""
        if noise.stream not in self.streams or start % _ALIGNED:
            return super().noise(keys, noise, start, count, device, room)
        places = (
            torch.empty(len(keys), count, dtype=torch.float32, device=device)
            if room is None
            else room[:, :count]
        )
        for key, place in zip(keys, places, strict=True):
            _run(None, place, noise, [(key, 1.0)], first=start)
        return places.unbind()

    def perturb(self, w: Tensor, noise: Noise, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        if noise.stream not in self.streams or not terms or w.dtype not in _DTYPES:
            return super().perturb(w, noise, terms, out)
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        _run(w.contiguous(), out.view(-1), noise, terms)
        return out

    def perturb_rows(
        self, w: Tensor, noise: Noise, terms: Terms, rows: Tensor, entries: Entries | None = None
    ) -> Tensor:
        """The same for some rows of a matrix [*, width] only: [len(rows), width] in w's dtype."""
        own = noise.stream in self.streams and terms and entries is None and w.dtype in _DTYPES
        if not own or w.shape[1] % _ALIGNED:
            return super().perturb_rows(w, noise, terms, rows, entries)
        out = w.new_empty(len(rows), w.shape[1])
        _run(w.contiguous(), out, noise, terms, rows=rows.long().contiguous())
        return out

    def move(
        self,
        w: Tensor,
        noise: Noise,
        terms: Terms,
        write: Write = PLAIN,
        low: Tensor | None = None,
        entries: Entries | None = None,
    ) -> None:
        """w ← w + (Σ scale z − decay · w) in place, one pass; `low` holds the low halves when update is master."""
        own = noise.stream in self.streams and terms and entries is None and _nearest(w, write, low)
        if not own:
            super().move(w, noise, terms, write, low, entries)
            return
        flat = w.view(-1)
        _run(flat, flat, noise, terms, decay=write.decay)

    def moments(
        self,
        w: Tensor,
        noise: Noise,
        rule: Moments,
        keys: Sequence[int],
        write: Write = PLAIN,
        low: Tensor | None = None,
    ) -> bool:
        """w ← w + (rule − decay · w) in place, and True; False where this form leaves it to the reference."""
        lengths = {len(coefficients) for coefficients in rule.gradients}
        if noise.stream not in self.streams or len(lengths) != 1 or not _nearest(w, write, low):
            return False
        coefficients = [c for step in rule.gradients for c in step]
        words, numbers = _on(w.device, tuple(zip(keys, coefficients, strict=True)))
        _, powers = _on(w.device, tuple((0, x) for x in (*rule.first, *rule.second)))
        steps, tile = len(rule.gradients), _TILE[noise.stream]
        with torch.cuda.device_of(w):
            triton_kernels.moments[(triton.cdiv(w.numel(), tile),)](
                w.view(-1),
                words,
                numbers,
                powers[:steps],
                powers[steps:],
                w.numel(),
                steps,
                lengths.pop(),
                *_halves(noise.pid),
                f32(write.decay),
                f32(rule.scale),
                f32(rule.eps),
                gaussian=noise.stream == philox.GAUSSIANS,
                tile=tile,
                inside_root=rule.inside,
                decays=write.decay != 0.0,
                enable_fp_fusion=False,  # pyright: ignore  # an option of the compiler
            )
        return True


def _nearest(w: Tensor, write: Write, low: Tensor | None) -> bool:
    """Returns whether a move of these weights is rounded as the kernels round."""
    return w.dtype in _DTYPES and low is None and (write.update != "stochastic" or w.dtype == torch.float32)


def _run(
    w: Tensor | None,
    out: Tensor,
    noise: Noise,
    terms: Terms,
    *,
    rows: Tensor | None = None,
    decay: float = 0.0,
    first: int = 0,
) -> None:
    """Writes out ← w + (Σ scale z − decay · w), for w's rows or all its elements; w is None for zeros."""
    keys, scales = _on(out.device, tuple(terms))
    width, tile = out.numel() if rows is None else out.shape[1], _TILE[noise.stream]
    programs = triton.cdiv(width, tile) * (1 if rows is None else len(rows))
    with torch.cuda.device_of(out):  # Triton launches on the current device
        triton_kernels.sums[(programs,)](
            out if w is None else w,
            out,
            keys if rows is None else rows,
            keys,
            scales,
            first,
            width,
            len(terms),
            *_halves(noise.pid),
            f32(decay),
            gaussian=noise.stream == philox.GAUSSIANS,
            tile=tile,
            reads=w is not None,
            by_rows=rows is not None,
            decays=decay != 0.0,
            enable_fp_fusion=False,  # pyright: ignore  # a product and a sum are two roundings, as in every other form
        )


@lru_cache(maxsize=64)
def _on(device: torch.device, terms: tuple[tuple[int, float], ...]) -> tuple[Tensor, Tensor]:
    """Keys and numbers there; kept, since all tensors of a step have the same and a copy waits for the device."""
    keys = torch.tensor([_signed(key, 64) for key, _ in terms], dtype=torch.int64, device="cpu")
    scales = torch.tensor([c for _, c in terms], dtype=torch.float32, device="cpu")
    return keys.to(device), scales.to(device)


def _halves(pid: int) -> tuple[int, int]:
    """Both as signed numbers, so that Triton compiles for one type of them."""
    return _signed(pid & 0xFFFFFFFF, 32), _signed(pid >> 32, 32)


def _signed(word: int, bits: int) -> int:
    return word - (word >> (bits - 1) << bits)

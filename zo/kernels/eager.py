"""Operations on named noise in plain torch: the reference that faster forms must equal (zo/kernels/operations.py)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zo.kernels import rounding
from zo.kernels.adam_window import Moments, f32
from zo.kernels.formulas import Program
from zo.kernels.operations import PLAIN, Noise, Terms, Write
from zo.kernels.transforms import Entries
from zo.noise import philox


class Eager:
    """Blocks of torch operations; any device, any dtype, no compiler.

    block: elements made at a time; the bits do not depend on it.
    """

    name = "eager"

    def __init__(self, block: int = 1 << 18):
        self.block = block
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._kept_keys: dict[int, int] = {}

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """Make the noise of all (id, count) of a small model in one call, and keep it until the next."""
        if list(self._kept_keys) == list(keys) and all((stream, pid) in self._kept for pid, _ in layout):
            return
        ids, counts = zip(*layout, strict=True)
        values = philox.noise_many(keys, ids, counts, stream, device)
        self._kept = {(stream, pid): value for pid, value in zip(ids, values, strict=True)}
        self._kept_keys = {key: i for i, key in enumerate(keys)}

    def _sum(self, terms: Terms, noise: Noise, start: int, count: int, device: torch.device) -> Tensor:
        """Σ scale z over elements start .. start + count, fp32."""
        drawn = self.noise([key for key, _ in terms], noise, start, count, device) if terms else ()
        return _accumulate(drawn, terms, (count,), device)

    def noise(
        self,
        keys: Sequence[int],
        noise: Noise,
        start: int,
        count: int,
        device: torch.device,
        room: Tensor | None = None,
    ) -> Sequence[Tensor]:
        """z of each key over elements start .. start + count of one parameter, fp32 [count].

        Not to be written, unless it is made in `room`, fp32 [len(keys), count or more].
        """
        if room is not None:
            drawn = self.noise(keys, noise, start, count, device)
            return [place[:count].copy_(z) for place, z in zip(room, drawn, strict=True)]
        kept = self._kept.get((noise.stream, noise.pid))
        if kept is not None and all(key in self._kept_keys for key in keys):
            return [kept[self._kept_keys[key], start : start + count] for key in keys]
        return philox.noise(keys, noise.pid, noise.stream, start, count, device).unbind()

    def perturb(self, w: Tensor, noise: Noise, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        flat, target = w.reshape(-1), out.view(-1)
        for start in range(0, flat.numel(), self.block):
            part = flat[start : start + self.block]
            total = self._sum(terms, noise, start, part.numel(), w.device)
            target[start : start + self.block] = part.float() + total
        return out

    def perturb_many(
        self,
        w: Tensor,
        noise: Noise,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        entries: Entries | None = None,
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; the noise of each distinct key is made once.

        entries: what becomes of the sums before they are added.
        """
        results = (
            [torch.empty_like(w, memory_format=torch.contiguous_format) for _ in lists]
            if outs is None
            else outs
        )
        flat, targets = w.reshape(-1), [out.view(-1) for out in results]
        row = {key: i for i, key in enumerate(dict.fromkeys(key for terms in lists for key, _ in terms))}
        for start in range(0, flat.numel(), self.block):
            part = flat[start : start + self.block]
            drawn = self.noise(list(row), noise, start, part.numel(), w.device)
            here = slice(start, start + part.numel())
            for i, (terms, target) in enumerate(zip(lists, targets, strict=True)):
                total = _accumulate([drawn[row[key]] for key, _ in terms], terms, part.shape, w.device)
                total = total if entries is None else entries.of(total, here, i)
                target[here] = part.float() + total
        return list(results)

    def perturb_rows(
        self, w: Tensor, noise: Noise, terms: Terms, rows: Tensor, entries: Entries | None = None
    ) -> Tensor:
        """The same for some rows of a matrix [*, width] only: [len(rows), width] in w's dtype.

        Raises IndexError for a row that the matrix does not have (where torch can say so at once: not on a GPU).
        """
        rows = rows.long()
        if rows.is_cpu and ((rows < 0) | (rows >= w.shape[0])).any():
            raise outside(w)
        kept = self._kept.get((noise.stream, noise.pid))
        if kept is not None and all(key in self._kept_keys for key, _ in terms):
            drawn = [kept[self._kept_keys[key]].view(w.shape)[rows] for key, _ in terms]
        else:
            keys = [key for key, _ in terms]
            drawn = philox.noise_rows(keys, noise.pid, noise.stream, rows, w.shape[1]).unbind()
        total = _accumulate(drawn, terms, (len(rows), w.shape[1]), w.device)
        return (w[rows].float() + (total if entries is None else entries.of(total, rows))).to(w.dtype)

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
        flat = w.view(-1)
        lows = None if low is None else low.view(-1)
        for start in range(0, flat.numel(), self.block):
            part = flat[start : start + self.block]
            lower = None if lows is None else lows[start : start + self.block]
            total = self._sum(terms, noise, start, part.numel(), w.device)
            total = total if entries is None else entries.of(total, slice(start, start + part.numel()))
            old = read(part, lower)
            store(part, old + decayed(total, old, write.decay), noise.pid, start, write, lower)

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
        return False

    def formula(
        self,
        w: Tensor,
        noise: Noise,
        program: Program,
        keys: Sequence[int],
        state: Sequence[Tensor],
        write: Write = PLAIN,
        low: Tensor | None = None,
    ) -> bool:
        """The same for a formula's program; state: fp32, of w's size, written into; all flat."""
        return False


def add(
    w: Tensor,
    total: Tensor,
    pid: int,
    write: Write = PLAIN,
    low: Tensor | None = None,
    first: int = 0,
    block: int = 1 << 18,
) -> None:
    """w ← w + (total − decay · w) in place, rounded as a move is; for a total (fp32, of w's shape) made elsewhere.

    first: the element of its tensor that w begins with.
    """
    if w.dtype == torch.float32 and write.decay == 0.0:  # the same operation, at once
        w.add_(total.view(w.shape))
        return
    flat, whole = w.view(-1), total.reshape(-1)
    lows = None if low is None else low.view(-1)
    for start in range(0, flat.numel(), block):
        here = slice(start, start + block)
        lower = None if lows is None else lows[here]
        old = read(flat[here], lower)
        new = old + decayed(whole[here], old, write.decay)
        store(flat[here], new, pid, first + start, write, lower)


def decayed(total: Tensor, old: Tensor, decay: float) -> Tensor:
    """total − decay · old, fp32. In 1 − decay nothing below 3e-8 would be left: a rate of 1e-7 with λ = 0.1."""
    return total if decay == 0.0 else total - old * f32(decay)


def read(part: Tensor, low: Tensor | None) -> Tensor:
    """The fp32 numbers of a block of weights, and their low halves where these are kept; may share memory."""
    return part.float() if low is None else rounding.join(part, low)


def store(
    part: Tensor, new: Tensor, pid: int, start: int, write: Write = PLAIN, low: Tensor | None = None
) -> None:
    """fp32 numbers into a block of weights that begins with element `start`, rounded as `write` says."""
    if low is not None:
        high, dropped = rounding.split(new, part.dtype)
        part.copy_(high)
        low.copy_(dropped)
    elif write.update == "stochastic" and part.dtype != torch.float32:
        halves = philox.noise([write.rounding_key], pid, philox.ROUNDING, start, part.numel(), part.device)[0]
        part.copy_(rounding.stochastic(new, part.dtype, halves))
    else:
        part.copy_(new)


def outside(w: Tensor) -> IndexError:
    """The error of a row number that a matrix does not have."""
    return IndexError(f"A row number is outside the {w.shape[0]} rows of this matrix.")


def _accumulate(noise: Sequence[Tensor], terms: Terms, shape: Sequence[int], device: torch.device) -> Tensor:
    if not terms:
        return torch.zeros(shape, dtype=torch.float32, device=device)
    total = noise[0] * f32(terms[0][1])
    for z, (_, scale) in zip(noise[1:], terms[1:], strict=True):
        total += z * f32(scale)
    return total

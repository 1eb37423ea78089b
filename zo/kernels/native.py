"""The operations of eager.py in C++ (native.cpp), for CPU tensors; the same bits.

Compiled on first use (zo/kernels/build.py). Works in torch's own OpenMP threads when torch ships its libgomp,
else in one thread. Whatever it cannot do (another device or dtype) it hands to the eager form, and everything
where there is no library; `reason` then says why there is none.
"""

import functools
import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zo.kernels import build
from zo.kernels.adam_window import Moments
from zo.kernels.eager import Eager, Terms, outside
from zo.kernels.formulas import Formula
from zo.kernels.transforms import AddMomentum, DivideBySqrt, DivideBySqrtOuter, Entries, MaskLarge
from zo.noise import philox

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_HEAD = struct.Struct("@PPPqqqQQiiiifi")
_HEAD_AND_ONE = struct.Struct("@PPPqqqQQiiiifiP")
_WORTH_THREADS = 1 << 17  # elements of results below which a second thread costs more than it gives


class Native:
    """Eager's interface in compiled loops.

    portable: leave out the hand-written vector instructions (the same bits, slower).
    reason: why the eager form does the work instead; empty when the library was built.
    """

    name = "native"

    def __init__(self, portable: bool = False):
        self._eager = Eager()
        self._library, self.threaded, self.reason = build.load(portable)

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """Nothing: noise is made where it is used, small tensors cost no more."""
        if self._library is None:
            self._eager.warm(keys, stream, layout, device)

    def noise(
        self,
        keys: Sequence[int],
        pid: int,
        stream: int,
        start: int,
        count: int,
        device: torch.device,
        room: Tensor | None = None,
    ) -> Sequence[Tensor]:
        """z of each key over elements start .. start + count of one parameter, fp32 [count]."""
        if self._library is None or device.type != "cpu" or stream == philox.ROUNDING:
            return self._eager.noise(keys, pid, stream, start, count, device, room)
        out = (
            torch.empty(len(keys), count, dtype=torch.float32, device=device)
            if room is None
            else room[:, :count]
        )
        for key, row in zip(keys, out, strict=True):
            self._library.zo_noise(stream, key, pid, start, count, row.data_ptr())
        return out.unbind()

    def perturb(self, w: Tensor, pid: int, stream: int, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        if not self._takes(w, stream) or (out is not None and not _like(out, w)):
            return self._eager.perturb(w, pid, stream, terms, out)
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        w = w.contiguous()
        n = w.numel()
        # As _run, which takes twice as long to get to the same call: this one is made for every tensor and probe.
        threads = torch.get_num_threads() if n >= _WORTH_THREADS and self.threaded else 1
        place = (w.data_ptr(), 0, 0, n, 0, 1, pid, 0)
        head = (*place, _DTYPES[w.dtype], stream, 0, threads, 1.0, 0, out.data_ptr())
        zo = self._library
        _check(zo.zo_apply(_HEAD_AND_ONE.pack(*head), _pack_one(tuple(terms))), w)  # pyright: ignore  # _takes saw it
        return out

    def perturb_many(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        entries: Entries | None = None,
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; the noise of each distinct key is made once.

        entries: what becomes of the sums before they are added.
        """
        takes = self._takes(w, stream) and _has(entries, w)
        if not takes or (outs is not None and not all(_like(out, w) for out in outs)):
            return self._eager.perturb_many(w, pid, stream, lists, outs, entries)
        w = w.contiguous()
        results = [torch.empty_like(w) for _ in lists] if outs is None else list(outs)
        plan, places = _pack(tuple(map(tuple, lists))), [out.data_ptr() for out in results]
        self._run(w, pid, stream, plan, places, w.numel(), work=len(results), entries=entries)
        return results

    def perturb_rows(
        self, w: Tensor, pid: int, stream: int, terms: Terms, rows: Tensor, entries: Entries | None = None
    ) -> Tensor:
        """The same for some rows of a matrix [*, width] only: [len(rows), width] in w's dtype."""
        if not (self._takes(w, stream) and _has(entries, w)) or rows.device != w.device:
            return self._eager.perturb_rows(w, pid, stream, terms, rows, entries)
        w, rows = w.contiguous(), rows.to(torch.int64).contiguous()
        out, plan = (
            torch.empty(rows.numel(), w.shape[1], dtype=w.dtype, device=w.device),
            _pack_one(tuple(terms)),
        )
        self._run(w, pid, stream, plan, (out.data_ptr(),), rows.numel(), w.shape[1], rows, entries=entries)
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
        if not (self._moves(w, stream, low) and _has(entries, w)):
            self._eager.move(w, pid, stream, terms, decay, update, rounding_key, low, entries)
            return
        how = 2 if low is not None else int(update == "stochastic" and w.dtype != torch.float32)
        plan = _pack_one(tuple(terms))
        place = (w.data_ptr(),)
        self._run(
            w, pid, stream, plan, place, w.numel(), 0, None, how, decay, rounding_key, low, entries=entries
        )

    def moments(
        self,
        rule: Moments,
        w: Tensor,
        pid: int,
        stream: int,
        keys: Sequence[int],
        decay: float,
        update: str,
        rounding_key: int,
        low: Tensor | None,
    ) -> bool:
        """w ← w + (rule − decay · w) in place, and True; False where this form leaves it to the reference."""
        if not self._moves(w, stream, low):
            return False
        names = iter(keys)
        lists = tuple(tuple((next(names), c) for c in step) for step in rule.gradients)
        weights = [x for pair in zip(rule.first, rule.second, strict=True) for x in pair]
        ratio = struct.pack(f"@ffi{len(weights)}f", rule.scale, rule.eps, rule.inside, *weights)
        how = 2 if low is not None else int(update == "stochastic" and w.dtype != torch.float32)
        head = self._head(w, w.numel(), 0, None, pid, stream, how, decay, rounding_key, low, len(keys))
        assert self._library is not None
        _check(self._library.zo_moments(head + struct.pack("@P", w.data_ptr()), _pack(lists), ratio), w)
        return True

    def formula(
        self,
        rule: Formula,
        name: str,
        state: Mapping[str, Tensor],
        w: Tensor,
        pid: int,
        stream: int,
        keys: Sequence[int],
        decay: float,
        update: str,
        rounding_key: int,
        low: Tensor | None,
    ) -> bool:
        """The same for a formula; state: fp32, of w's size, written into; all flat."""
        if not self._moves(w, stream, low) or len(set(keys)) < len(keys):
            return False
        program = rule.program(name, len(keys), tuple(state))
        if program is None or not all(_vector(numbers) for numbers in state.values()):
            return False
        how = 2 if low is not None else int(update == "stochastic" and w.dtype != torch.float32)
        head = self._head(w, w.numel(), 0, None, pid, stream, how, decay, rounding_key, low, len(keys))
        places = [numbers.data_ptr() for numbers in state.values()]
        counts = (len(program.ops), len(places), program.step, 0)
        packed = struct.pack(f"@4i{len(places)}i0q{len(places)}P", *counts, *program.states, *places)
        assert self._library is not None
        head, plan = head + struct.pack("@P", w.data_ptr()), _pack(tuple(((key, 1.0),) for key in keys))
        _check(self._library.zo_formula(head, plan, packed + _operations(program.ops)), w)
        return True

    def _takes(self, w: Tensor, stream: int) -> bool:
        known = w.dtype in _DTYPES and stream != philox.ROUNDING
        return known and self._library is not None and w.is_cpu and w.numel() > 0

    def _moves(self, w: Tensor, stream: int, low: Tensor | None) -> bool:
        return self._takes(w, stream) and w.is_contiguous() and (low is None or w.dtype != torch.float32)

    def _run(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        plan: bytes,
        outs: Sequence[int],
        n: int,
        width: int = 0,
        rows: Tensor | None = None,
        update: int = 0,
        decay: float = 0.0,
        rounding_key: int = 0,
        low: Tensor | None = None,
        work: int = 1,
        entries: Entries | None = None,
    ) -> None:
        head = self._head(w, n, width, rows, pid, stream, update, decay, rounding_key, low, work)
        assert self._library is not None
        head += struct.pack(f"@{len(outs)}P", *outs)
        zo = self._library
        _check(zo.zo_apply(head, plan) if entries is None else zo.zo_entries(head, plan, _packed(entries)), w)

    def _head(
        self,
        w: Tensor,
        n: int,
        width: int,
        rows: Tensor | None,
        pid: int,
        stream: int,
        update: int,
        decay: float,
        rounding_key: int,
        low: Tensor | None,
        work: int,
    ) -> bytes:
        """The Head of native.cpp but for its outs; work: results or directions, for the choice of threads."""
        threads = 1
        if self.threaded and n * (width or 1) * work >= _WORTH_THREADS:
            threads = torch.get_num_threads()
        return _HEAD.pack(
            w.data_ptr(),
            0 if low is None else low.data_ptr(),
            0 if rows is None else rows.data_ptr(),
            n,
            width,
            w.shape[0] if w.dim() else 1,
            pid,
            rounding_key,
            _DTYPES[w.dtype],
            stream,
            update,
            threads,
            decay,
            decay != 0.0,
        )


def _check(code: int, w: Tensor) -> None:
    """Raises for what a function of native.cpp says it has not done; nothing is written then."""
    if code == 1:
        raise outside(w)
    if code:
        raise RuntimeError(f"native.cpp has no loop for this update of {w.dtype} weights: nothing was moved.")


@functools.lru_cache(maxsize=64)
def _pack(lists: tuple[tuple[tuple[int, float], ...], ...]) -> bytes:
    """The Plan of native.cpp: each distinct key once, where each list ends, and all terms."""
    index: dict[int, int] = {}
    terms = [(index.setdefault(key, len(index)), scale) for terms in lists for key, scale in terms]
    ends = [0]
    for one in lists:
        ends.append(ends[-1] + len(one))
    head = struct.pack(f"@ii{len(index)}Q{len(ends)}i", len(index), len(lists), *index, *ends)
    return head + b"".join(struct.pack("@if", key, scale) for key, scale in terms)


@functools.lru_cache(maxsize=64)
def _pack_one(terms: tuple[tuple[int, float], ...]) -> bytes:
    return _pack((terms,))


@functools.lru_cache(maxsize=64)
def _operations(ops: tuple[tuple[int, int, int, int, float], ...]) -> bytes:
    return b"".join(struct.pack("@iiiif", *op) for op in ops)


def _has(entries: Entries | None, w: Tensor) -> bool:
    """Returns whether the entries, if any, are tensors that the loops can read."""
    if isinstance(entries, DivideBySqrtOuter):
        R, C = entries.R, entries.C
        return _vector(R) and _vector(C) and R.numel() * C.numel() == w.numel()
    if isinstance(entries, MaskLarge):
        return _like(entries.w, w) and _vector(entries.most)
    if isinstance(entries, (DivideBySqrt, AddMomentum)):
        numbers = entries.H if isinstance(entries, DivideBySqrt) else entries.m
        return numbers.dtype is torch.float32 and _plain(numbers, w)
    return entries is None


def _packed(entries: Entries) -> bytes:
    """The Entries of native.cpp."""
    how, numbers, columns, width, most, scales = 0, None, None, 1, 0.0, (0.0,)
    if isinstance(entries, DivideBySqrt):
        numbers = entries.H
    elif isinstance(entries, DivideBySqrtOuter):
        how, numbers, columns, width = 1, entries.R, entries.C, entries.C.numel()
    elif isinstance(entries, MaskLarge):
        how, numbers, most = 2, entries.w, entries.most.item()
    else:
        assert isinstance(entries, AddMomentum)
        how, numbers, scales = 3, entries.m, entries.scales
    places = (numbers.data_ptr(), 0 if columns is None else columns.data_ptr(), width)
    return struct.pack(f"@iiPPqf{len(scales)}f", how, _DTYPES[numbers.dtype], *places, most, *scales)


def _vector(numbers: Tensor) -> bool:
    return numbers.dtype is torch.float32 and numbers.is_cpu and numbers.is_contiguous()


def _like(out: Tensor, w: Tensor) -> bool:
    return out.dtype is w.dtype and _plain(out, w)


def _plain(one: Tensor, w: Tensor) -> bool:
    return one.is_contiguous() and one.is_cpu and one.shape == w.shape

"""The operations of eager.py in C++ (native.cpp), for CPU tensors; the same bits.

Compiled on first use (zo/kernels/build.py). Works in torch's own OpenMP threads when torch ships its libgomp,
else in one thread. Whatever it cannot do (another device or dtype) it hands to the eager form, and everything
where there is no library; `reason` then says why there is none.
"""

import functools
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from zo.kernels import build
from zo.kernels.adam_window import Moments
from zo.kernels.eager import Eager, outside
from zo.kernels.formulas import Program
from zo.kernels.operations import PLAIN, Noise, Terms, Write
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
        noise: Noise,
        start: int,
        count: int,
        device: torch.device,
        room: Tensor | None = None,
    ) -> Sequence[Tensor]:
        """z of each key over elements start .. start + count of one parameter, fp32 [count]."""
        if self._library is None or device.type != "cpu" or noise.stream == philox.ROUNDING:
            return self._eager.noise(keys, noise, start, count, device, room)
        out = (
            torch.empty(len(keys), count, dtype=torch.float32, device=device)
            if room is None
            else room[:, :count]
        )
        for key, row in zip(keys, out, strict=True):
            self._library.zo_noise(noise.stream, key, noise.pid, start, count, row.data_ptr())
        return out.unbind()

    def perturb(self, w: Tensor, noise: Noise, terms: Terms, out: Tensor | None = None) -> Tensor:
        """w + Σ scale z in w's shape and dtype; w is read, never written."""
        if not self._takes(w, noise, () if out is None else (out,)):
            return self._eager.perturb(w, noise, terms, out)
        out = torch.empty_like(w, memory_format=torch.contiguous_format) if out is None else out
        # Not by _head and _apply, which take twice as long to get to the same call: it is made for every tensor
        # and probe.
        w = w.contiguous()
        n = w.numel()
        threads = torch.get_num_threads() if n >= _WORTH_THREADS and self.threaded else 1
        place = (w.data_ptr(), 0, 0, n, 0, 1, noise.pid, 0)
        head = (*place, _DTYPES[w.dtype], noise.stream, 0, threads, 1.0, 0, out.data_ptr())
        zo = self._library
        code = zo.zo_apply(_HEAD_AND_ONE.pack(*head), _pack_one(tuple(terms)))  # pyright: ignore  # _takes saw it
        if code:
            raise _failure(code, w)
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
        if not self._takes(w, noise, outs or (), entries):
            return self._eager.perturb_many(w, noise, lists, outs, entries)
        w = w.contiguous()
        results = [torch.empty_like(w) for _ in lists] if outs is None else list(outs)
        plan, places = _pack(tuple(map(tuple, lists))), [out.data_ptr() for out in results]
        self._apply(self._head(w, noise, work=len(results)), plan, places, w, entries)
        return results

    def perturb_rows(
        self, w: Tensor, noise: Noise, terms: Terms, rows: Tensor, entries: Entries | None = None
    ) -> Tensor:
        """The same for some rows of a matrix [*, width] only: [len(rows), width] in w's dtype."""
        if not self._takes(w, noise, (), entries) or rows.device != w.device:
            return self._eager.perturb_rows(w, noise, terms, rows, entries)
        w, rows = w.contiguous(), rows.to(torch.int64).contiguous()
        out = torch.empty(rows.numel(), w.shape[1], dtype=w.dtype, device=w.device)
        plan = _pack_one(tuple(terms))
        self._apply(self._head(w, noise, rows=rows), plan, (out.data_ptr(),), w, entries)
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
        if not self._moves(w, noise, low, entries):
            self._eager.move(w, noise, terms, write, low, entries)
            return
        head = self._head(w, noise, write, low)
        self._apply(head, _pack_one(tuple(terms)), (w.data_ptr(),), w, entries)

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
        if not self._moves(w, noise, low):
            return False
        head = self._head(w, noise, write, low, work=len(keys)) + struct.pack("@P", w.data_ptr())
        assert self._library is not None
        code = self._library.zo_moments(head, *_pack_moments(rule, tuple(keys)))
        if code:
            raise _failure(code, w)
        return True

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
        if not self._moves(w, noise, low) or len(set(keys)) < len(keys):
            return False
        if not all(_vector(numbers) for numbers in state):
            return False
        places = [numbers.data_ptr() for numbers in state]
        counts = (len(program.ops), len(places), program.step, 0)
        packed = struct.pack(f"@4i{len(places)}i0q{len(places)}P", *counts, *program.states, *places)
        head = self._head(w, noise, write, low, work=len(keys)) + struct.pack("@P", w.data_ptr())
        assert self._library is not None
        code = self._library.zo_formula(head, _pack_keys(tuple(keys)), packed + _operations(program.ops))
        if code:
            raise _failure(code, w)
        return True

    def _takes(
        self, w: Tensor, noise: Noise, outs: Sequence[Tensor] = (), entries: Entries | None = None
    ) -> bool:
        """Returns whether the loops can read these weights and entries, and write these results."""
        if self._library is None or not w.is_cpu or w.dtype not in _DTYPES or not w.numel():
            return False
        for out in outs:
            if not (out.dtype is w.dtype and out.is_contiguous() and out.is_cpu and out.shape == w.shape):
                return False
        return noise.stream != philox.ROUNDING and (entries is None or _has(entries, w))

    def _moves(self, w: Tensor, noise: Noise, low: Tensor | None, entries: Entries | None = None) -> bool:
        there = w.is_contiguous() and (low is None or w.dtype != torch.float32)
        return there and self._takes(w, noise, (), entries)

    def _apply(
        self, head: bytes, plan: bytes, outs: Sequence[int], w: Tensor, entries: Entries | None = None
    ) -> None:
        """Calls the library for results at these places in memory."""
        assert self._library is not None
        head += struct.pack(f"@{len(outs)}P", *outs)
        if entries is None:
            code = self._library.zo_apply(head, plan)
        else:
            code = self._library.zo_entries(head, plan, _packed(entries))
        if code:
            raise _failure(code, w)

    def _head(
        self,
        w: Tensor,
        noise: Noise,
        write: Write = PLAIN,
        low: Tensor | None = None,
        rows: Tensor | None = None,
        work: int = 1,
    ) -> bytes:
        """The Head of native.cpp but for its outs; work: results or directions, for the choice of threads."""
        n, width = (w.numel(), 0) if rows is None else (rows.numel(), w.shape[1])
        threads = 1
        if self.threaded and n * (width or 1) * work >= _WORTH_THREADS:
            threads = torch.get_num_threads()
        how = 2 if low is not None else int(write.update == "stochastic" and w.dtype != torch.float32)
        return _HEAD.pack(
            w.data_ptr(),
            0 if low is None else low.data_ptr(),
            0 if rows is None else rows.data_ptr(),
            n,
            width,
            w.shape[0] if w.dim() else 1,
            noise.pid,
            write.rounding_key,
            _DTYPES[w.dtype],
            noise.stream,
            how,
            threads,
            write.decay,
            write.decay != 0.0,
        )


def _failure(code: int, w: Tensor) -> Exception:
    """The error for what a function of native.cpp says it has not done; nothing is written then."""
    if code == 1:
        return outside(w)
    return RuntimeError(f"native.cpp has no loop for this update of {w.dtype} weights: nothing was moved.")


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
def _pack_keys(keys: tuple[int, ...]) -> bytes:
    """The Plan of a formula: each key's numbers by themselves."""
    return _pack(tuple(((key, 1.0),) for key in keys))


@functools.lru_cache(maxsize=64)
def _pack_moments(rule: Moments, keys: tuple[int, ...]) -> tuple[bytes, bytes]:
    """The Plan of the window's gradients, and the Moments of native.cpp; all tensors of a step have the same."""
    names = iter(keys)
    lists = tuple(tuple((next(names), c) for c in step) for step in rule.gradients)
    weights = [x for pair in zip(rule.first, rule.second, strict=True) for x in pair]
    ratio = struct.pack(f"@ffi{len(weights)}f", rule.scale, rule.eps, rule.inside, *weights)
    return _pack(lists), ratio


@functools.lru_cache(maxsize=64)
def _operations(ops: tuple[tuple[int, int, int, int, float], ...]) -> bytes:
    return b"".join(struct.pack("@iiiif", *op) for op in ops)


def _has(entries: Entries, w: Tensor) -> bool:
    """Returns whether the entries are tensors that the loops can read."""
    if isinstance(entries, DivideBySqrtOuter):
        R, C = entries.R, entries.C
        return _vector(R) and _vector(C) and R.numel() * C.numel() == w.numel()
    if isinstance(entries, MaskLarge):
        return entries.w.dtype is w.dtype and _plain(entries.w, w) and _vector(entries.most)
    if isinstance(entries, (DivideBySqrt, AddMomentum)):
        numbers = entries.H if isinstance(entries, DivideBySqrt) else entries.m
        return numbers.dtype is torch.float32 and _plain(numbers, w)
    return False


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


def _plain(one: Tensor, w: Tensor) -> bool:
    return one.is_contiguous() and one.is_cpu and one.shape == w.shape

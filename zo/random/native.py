"""The operations of eager.py in C++ (native.cpp), for CPU tensors; the same bits.

Compiled on first use by the machine's own g++ (or $CXX), about four seconds, and kept under $ZO_CACHE or
~/.cache/zo by the hash of source, options, compiler and processor. Works in torch's own OpenMP threads when
torch ships its libgomp, else in one thread. Whatever it cannot do (no compiler, another device or dtype)
it hands to the eager form; `reason` then says why.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zo.random import philox
from zo.random.eager import Eager, Terms
from zo.random.moments import Moments

_SOURCE = Path(__file__).with_name("native.cpp")
_HEADER = Path(__file__).with_name("native_noise.h")
_OPTIONS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fPIC")
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
        self._library, self.threaded, self.reason = _load(portable)

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
        out = torch.empty(len(keys), count) if room is None else room[:, :count]
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
        self._library.zo_apply(_HEAD_AND_ONE.pack(*head), _pack_one(tuple(terms)))  # pyright: ignore  # _takes saw it
        return out

    def perturb_many(
        self, w: Tensor, pid: int, stream: int, lists: Sequence[Terms], outs: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; the noise of each distinct key is made once."""
        if not self._takes(w, stream) or (outs is not None and not all(_like(out, w) for out in outs)):
            return self._eager.perturb_many(w, pid, stream, lists, outs)
        w = w.contiguous()
        results = [torch.empty_like(w) for _ in lists] if outs is None else list(outs)
        plan = _pack(tuple(map(tuple, lists)))
        self._run(w, pid, stream, plan, [out.data_ptr() for out in results], w.numel(), work=len(results))
        return results

    def perturb_rows(self, w: Tensor, pid: int, stream: int, terms: Terms, rows: Tensor) -> Tensor:
        """The same for some rows of a matrix [*, width] only: [len(rows), width] in w's dtype."""
        if not self._takes(w, stream) or rows.device != w.device:
            return self._eager.perturb_rows(w, pid, stream, terms, rows)
        w, rows = w.contiguous(), rows.to(torch.int64).contiguous()
        out = torch.empty(rows.numel(), w.shape[1], dtype=w.dtype)
        self._run(w, pid, stream, _pack_one(tuple(terms)), (out.data_ptr(),), rows.numel(), w.shape[1], rows)
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
    ) -> None:
        """w ← keep · w + Σ scale z in place, one pass; `low` holds the low halves when update is master."""
        if not self._moves(w, stream, low):
            self._eager.move(w, pid, stream, terms, keep, update, rounding_key, low)
            return
        how = 2 if low is not None else int(update == "stochastic" and w.dtype != torch.float32)
        plan = _pack_one(tuple(terms))
        self._run(w, pid, stream, plan, (w.data_ptr(),), w.numel(), 0, None, how, keep, rounding_key, low)

    def moments(
        self,
        rule: Moments,
        w: Tensor,
        pid: int,
        stream: int,
        keys: Sequence[int],
        keep: float,
        update: str,
        rounding_key: int,
        low: Tensor | None,
    ) -> bool:
        """w ← keep · w + rule in place, and True; False where this form leaves it to the reference."""
        if not self._moves(w, stream, low):
            return False
        names = iter(keys)
        lists = tuple(tuple((next(names), c) for c in step) for step in rule.gradients)
        weights = [x for pair in zip(rule.first, rule.second, strict=True) for x in pair]
        ratio = struct.pack(f"@ffi{len(weights)}f", rule.scale, rule.eps, rule.inside, *weights)
        how = 2 if low is not None else int(update == "stochastic" and w.dtype != torch.float32)
        head = self._head(w, w.numel(), 0, None, pid, stream, how, keep, rounding_key, low, len(keys))
        assert self._library is not None
        self._library.zo_moments(head + struct.pack("@P", w.data_ptr()), _pack(lists), ratio)
        return True

    def _takes(self, w: Tensor, stream: int) -> bool:
        known = w.dtype in _DTYPES and stream != philox.ROUNDING
        return known and self._library is not None and w.is_cpu and w.numel() > 0

    def _moves(self, w: Tensor, stream: int, low: Tensor | None) -> bool:
        return self._takes(w, stream) and w.is_contiguous() and (low is None or w.dtype == torch.bfloat16)

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
        keep: float = 1.0,
        rounding_key: int = 0,
        low: Tensor | None = None,
        work: int = 1,
    ) -> None:
        head = self._head(w, n, width, rows, pid, stream, update, keep, rounding_key, low, work)
        assert self._library is not None
        code = self._library.zo_apply(head + struct.pack(f"@{len(outs)}P", *outs), plan)
        if code == 1:
            raise IndexError(f"A row number is outside the {w.shape[0]} rows of this matrix.")

    def _head(
        self,
        w: Tensor,
        n: int,
        width: int,
        rows: Tensor | None,
        pid: int,
        stream: int,
        update: int,
        keep: float,
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
            keep,
            keep != 1.0,
        )


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


def _like(out: Tensor, w: Tensor) -> bool:
    return out.dtype is w.dtype and out.is_contiguous() and out.is_cpu and out.shape == w.shape


@functools.cache
def _load(portable: bool) -> tuple[ctypes.CDLL | None, bool, str]:
    """The compiled functions, whether it has threads, and a sentence when there is none."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or ""
    if not shutil.which(compiler):
        return None, False, "There is no C++ compiler: g++ is not on the PATH and CXX names none."
    runtime = _openmp()
    options = [*_OPTIONS, *(["-DZO_PORTABLE"] if portable else []), *(["-fopenmp"] if runtime else [])]
    try:
        path = _build(compiler, options, runtime)
        library = ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        return None, False, f"{compiler} cannot compile {_SOURCE.name}: {error.stderr.strip()[-500:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, False, f"The compiled form of {_SOURCE.name} cannot be made or loaded: {error}"
    library.zo_apply.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.zo_moments.argtypes = [ctypes.c_char_p] * 3
    library.zo_noise.argtypes = [ctypes.c_int, *[ctypes.c_uint64] * 2, *[ctypes.c_int64] * 2, ctypes.c_void_p]
    return library, runtime is not None, ""


def _openmp() -> Path | None:
    """The libgomp that torch itself loads: a second one in the process would fight it for the cores."""
    folder = Path(torch.__file__).parent
    found = sorted([*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")])
    return found[0] if found else None


def _build(compiler: str, options: list[str], runtime: Path | None) -> Path:
    """The shared library, from the cache or compiled into it; complete whenever it is there at all."""
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    facts = [_HEADER.read_text(), _SOURCE.read_text(), *options, version, _processor(), str(runtime)]
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]
    folder = Path(os.environ.get("ZO_CACHE") or Path.home() / ".cache" / "zo")
    path = folder / f"native-{digest}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
        objects, library = Path(scratch, "native.o"), Path(scratch, "native.so")
        # Compiled with -fopenmp but linked without it, so that the library asks for torch's runtime alone.
        link = [] if runtime is None else [str(runtime)]
        for command in (
            [compiler, *options, "-w", "-c", str(_SOURCE), "-o", str(objects)],
            [compiler, "-shared", str(objects), "-o", str(library), *link],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        os.replace(library, path)
    return path


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))

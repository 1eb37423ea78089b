"""Tries a form of the kernels on a small tensor, where it is used first in a process, against the eager form.

A compiler, a processor or a GPU that nobody has tried may compute something else, or refuse to compile. Signs must have
the same bits everywhere, Gaussians on a CPU; on a GPU they agree to rounding.
"""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from zo.errors import ConfigError, ZOWarning
from zo.kernels import eager
from zo.kernels.adam_window import Moments
from zo.kernels.eager import Eager
from zo.kernels.elementwise import Block
from zo.kernels.formulas import Formula, root
from zo.kernels.operations import Kernels, Noise, Write
from zo.kernels.transforms import AddMomentum, DivideBySqrt, DivideBySqrtOuter, Entries, MaskLarge
from zo.noise import philox

_ROWS, _WIDTH = 3, 384  # more than one block of every stream, and rows that begin on the blocks of signs
_TERMS = [(0x0123456789ABCDEF, 0.5), (0xFEDCBA9876543210, -0.25)]
_KEYS = [key for key, _ in _TERMS]
_PID = 0x5DEECE66DA5A5A5A
_STREAMS = {philox.SIGNS: "signs", philox.GAUSSIANS: "gaussians", philox.ROUNDING: "rounding"}
_STREAMS |= {philox.SHORT_GAUSSIANS: "short Gaussians"}
_WRITE = Write(0.01, "nearest", 7)
_TOLERANCE = 1e-5  # of Gaussians on a GPU, in units of the largest number
_MOMENTS = Moments(((0.5,), (-0.25,)), (0.3, 0.7), (0.4, 0.6), -0.01, 1e-8, False)


_TRIED: dict[
    tuple[str, str, int, torch.dtype, torch.device], str
] = {}  # of this process: what is wrong, or ""


def tried(form: Kernels, device: torch.device, *, by_name: bool) -> Kernels:
    """The form, each of whose operations is tried before its first use with a stream and a dtype.

    What fails is left to the eager form, with a warning, and the form's name says so; where the form was asked for
    `by_name`, ConfigError is raised.
    """
    raw = copy.copy(form)
    for operation in _CASES:
        setattr(form, operation, _first_tried(form, raw, operation, device, by_name))
    return form


def _first_tried(
    form: Kernels, raw: Kernels, operation: str, device: torch.device, by_name: bool
) -> Callable[..., Any]:
    """The operation, which decides at its first call with a stream and a dtype who does it from then on."""
    chosen: dict[tuple[int, torch.dtype], Callable[..., Any]] = {}

    def operate(first: Any, noise: Noise, *args: Any, **kwargs: Any) -> Any:
        # `first` is the weights; of `noise` it is the keys, whose numbers are fp32.
        case = noise.stream, getattr(first, "dtype", torch.float32)
        if case not in chosen:
            chosen[case] = _choice(form, raw, operation, *case, device, by_name)
        return chosen[case](first, noise, *args, **kwargs)

    return operate


def _choice(
    form: Kernels,
    raw: Kernels,
    operation: str,
    stream: int,
    dtype: torch.dtype,
    device: torch.device,
    by_name: bool,
) -> Callable[..., Any]:
    """The operation of the form, or of the eager form where the form's own is wrong."""
    case = (raw.name, operation, stream, dtype, device)
    if case not in _TRIED:
        _TRIED[case] = "" if stream == philox.ROUNDING else wrong(raw, *case[1:])
    if not _TRIED[case]:
        return getattr(raw, operation)
    if by_name:
        raise ConfigError(
            f"kernels = {raw.name!r} cannot be used on {device}: its {operation} was tried on a small tensor, and "
            f"{_TRIED[case]}. Use kernels = 'auto' or 'eager'."
        )
    if operation not in form.name:
        form.name += f" (eager: {operation})"
        warnings.warn(
            f"{operation} of the {raw.name} kernels was tried on a small tensor on {device}, and {_TRIED[case]}: the "
            "eager form does it instead, which is slower.",
            ZOWarning,
            stacklevel=4,
        )
    return getattr(Eager(), operation)


def left_to_eager() -> list[dict[str, str]]:
    """Returns what failed its trial in this process and is done by the eager form: which operation, where, and why."""
    return [
        {
            "kernels": form,
            "operation": operation,
            "stream": _STREAMS.get(stream, str(stream)),
            "dtype": str(dtype).removeprefix("torch."),
            "device": str(device),
            "because": why,
        }
        for (form, operation, stream, dtype, device), why in _TRIED.items()
        if why
    ]


def wrong(form: Kernels, operation: str, stream: int, dtype: torch.dtype, device: torch.device) -> str:
    """Returns why an operation of a form cannot be used; empty if it agrees with the eager form."""
    case = _CASES[operation]
    exact = stream == philox.SIGNS or device.type == "cpu"
    return _difference(
        case(form, stream, dtype, device), case(Eager(), stream, dtype, device), stream, dtype, exact
    )


def self_check(form: Kernels, device: torch.device) -> dict[str, str]:
    """Returns what is wrong with each operation of a form, for both streams in fp32 and bf16; empty if all agree."""
    found = {}
    for operation in _CASES:
        for stream in (philox.SIGNS, philox.GAUSSIANS):
            for dtype in (torch.float32, torch.bfloat16):
                if why := wrong(form, operation, stream, dtype, device):
                    found[f"{operation}, {_STREAMS[stream]}, {str(dtype).removeprefix('torch.')}"] = why
    return found


@functools.cache
def eager_differs(device: torch.device) -> str:
    """Returns why the eager form cannot be used on a device; empty if its numbers are a CPU's.

    Signs must have the same bits. Gaussians, and weights that were moved, agree to rounding.
    """
    cpu, dtype = torch.device("cpu"), torch.float32
    for operation, case in _CASES.items():
        for stream in (philox.SIGNS, philox.GAUSSIANS):
            there = (None if x is None else x.cpu() for x in case(Eager(), stream, dtype, device))
            exact = operation == "noise" and stream == philox.SIGNS
            if why := _difference(there, case(Eager(), stream, dtype, cpu), stream, dtype, exact):
                return f"{operation}: {why}"
    return ""


def _difference(
    ones: Iterator[Tensor | None],
    others: Iterator[Tensor | None],
    stream: int,
    dtype: torch.dtype,
    exact: bool,
) -> str:
    """Returns a sentence on how the numbers of a form differ from those of the eager form; empty if they agree."""
    try:
        agrees = all(_same(one, other, exact) for one, other in zip(ones, others, strict=True))
    except (
        RuntimeError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        LookupError,
    ) as error:
        return f"it failed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    if agrees:
        return ""
    kind = "signs" if stream == philox.SIGNS else "Gaussians"
    return f"its {kind} in {str(dtype).removeprefix('torch.')} are not those of the eager form"


def _same(one: Tensor | None, other: Tensor | None, exact: bool) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if exact:
        bits = torch.int32 if one.itemsize == 4 else torch.int16
        return torch.equal(one.contiguous().view(bits), other.contiguous().view(bits))
    if not one.is_floating_point():  # low halves: what rounding moved by
        return True
    a, b = one.double(), other.double()
    return bool((a - b).abs().max() <= max(_TOLERANCE, 2 * torch.finfo(one.dtype).eps) * b.abs().max())


def _weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    numbers = torch.arange(_ROWS * _WIDTH, dtype=torch.float32, device="cpu")
    return (((numbers * 37) % 101 - 50) * 0.01).to(dtype).view(_ROWS, _WIDTH).to(device)


Case = Callable[[Kernels, int, torch.dtype, torch.device], Iterator[Tensor | None]]


def _noise(form: Kernels, stream: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor | None]:
    for start in (0, 256):
        yield from form.noise(_KEYS, Noise(_PID, stream), start, 300, device)


def _perturb(form: Kernels, stream: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor | None]:
    yield form.perturb(_weights(dtype, device), Noise(_PID, stream), _TERMS)


def _perturb_many(
    form: Kernels, stream: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor | None]:
    w = _weights(dtype, device)
    for entries in (None, *_entries(w)):
        yield from form.perturb_many(w, Noise(_PID, stream), [_TERMS, _TERMS[:1]], None, entries)


def _entries(w: Tensor) -> list[Entries]:
    height = w.float().abs() + 0.5
    most = torch.full((1,), 0.25, dtype=torch.float32, device=w.device)
    return [
        DivideBySqrt(height),
        DivideBySqrtOuter(height[:, 0].contiguous(), height[0].contiguous()),
        MaskLarge(w, most),
        AddMomentum(height, (0.5, -0.25)),
    ]


def _perturb_rows(
    form: Kernels, stream: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Tensor | None]:
    rows = torch.tensor([2, 0, 2], dtype=torch.int64, device=device)
    yield form.perturb_rows(_weights(dtype, device), Noise(_PID, stream), _TERMS, rows)


def _move(form: Kernels, stream: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor | None]:
    updates = ["nearest"] + (["stochastic"] if dtype != torch.float32 else [])
    for update in updates + (["master"] if dtype == torch.bfloat16 else []):
        w = _weights(dtype, device)
        low = torch.full_like(w, 5, dtype=torch.int16) if update == "master" else None
        form.move(w, Noise(_PID, stream), _TERMS, Write(0.01, update, 7), low)
        yield w
        yield low


def _moments(form: Kernels, stream: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor | None]:
    w = _weights(dtype, device).view(-1)
    done = form.moments(w, Noise(_PID, stream), _MOMENTS, _KEYS, _WRITE)
    yield from _or_reference(done, w, _MOMENTS, {}, stream)


def _formula(form: Kernels, stream: int, dtype: torch.dtype, device: torch.device) -> Iterator[Tensor | None]:
    def step(at):  # noqa: ANN001, ANN202  # of symbols and of tensors
        m = at.state["m"] = at.state["m"] * 0.9 + at.noise[0] * 0.5
        return m / (root(abs(at.noise[1])) + 1e-3) * -0.01

    w, rule = _weights(dtype, device).view(-1), Formula(step)
    state = {"m": torch.full_like(w, 0.125, dtype=torch.float32)}
    program = rule.program("w", len(_KEYS), tuple(state))
    assert program is not None, "two registers are enough"
    done = form.formula(w, Noise(_PID, stream), program, _KEYS, [*state.values()], _WRITE)
    yield from _or_reference(done, w, rule, state, stream)
    yield state["m"]


def _or_reference(
    done: bool, w: Tensor, rule: Moments | Formula, state: dict[str, Tensor], stream: int
) -> Iterator[Tensor]:
    """The weights after a rule, which a form may leave to torch, as zo/weights.py works it out."""
    if not done:
        old = eager.read(w, None)
        noise = Eager().noise(_KEYS, Noise(_PID, stream), 0, w.numel(), w.device)
        step = eager.decayed(rule(Block("w", 0, old, noise, state)), old, _WRITE.decay)
        eager.store(w, old + step, _PID, 0, _WRITE)
    yield w


_CASES: dict[str, Case] = {
    "noise": _noise,
    "perturb": _perturb,
    "perturb_many": _perturb_many,
    "perturb_rows": _perturb_rows,
    "move": _move,
    "moments": _moments,
    "formula": _formula,
}

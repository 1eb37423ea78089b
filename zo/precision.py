"""Checks that numbers of 16 bits can hold a perturbation and a move."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from zo.errors import ConfigError, ZOWarning
from zo.weights import Weights

_SAMPLE = 1 << 16  # entries of a tensor that are looked at


def unseen(weights: Weights, eps: float) -> list[str]:
    """Returns the names of tensors most of whose entries a perturbation of eps would not change."""
    return [name for name in weights.tensors if is_lost(weights.source(name), eps)]


def check_eps(weights: Weights, eps: float) -> None:
    """Sees to it that a perturbation of eps changes most entries of every trained tensor, or warns.

    Where it would not, a 16-bit vector that is stored as a matrix (factors of (IA)³, a gain [1, n]) is held in fp32, as
    plain vectors are. A look at any other such tensor is refused (refuse_lost).
    """
    lost = unseen(weights, eps)
    for name in [name for name in lost if weights.holds and _vector(weights.tensors[name])]:
        if weights.source(name).itemsize == 2:
            weights.hold(name)
            lost.remove(name)
    if lost:
        warnings.warn(
            f"eps = {eps} is below the resolution of most entries of {_names(lost)}: their probes see nothing. Raise "
            "eps or load the model in float32.",
            ZOWarning,
            stacklevel=3,
        )


def refuse_lost(weights: Weights, eps: float) -> None:
    """Raises ConfigError for a tensor most of whose entries a perturbation of eps would not change.

    Weights(copies=False) trains 16-bit numbers as they are, on purpose.
    """
    if weights.holds and (lost := unseen(weights, eps)):
        raise swallowed(lost, weights, eps)


def is_lost(tensor: Tensor, eps: float, dtype: torch.dtype | None = None) -> bool:
    """Returns whether most entries do not change when eps is added and they are rounded to dtype (their own)."""
    dtype = dtype or tensor.dtype
    flat = tensor.detach().reshape(-1)
    sample = flat[:: flat.numel() // _SAMPLE | 1].to(dtype)
    wide = torch.float64 if dtype == torch.float32 else torch.float32
    moved = (sample.to(wide) + eps).to(dtype)
    return bool((moved == sample).to(torch.float32).mean() > 0.5)


def swallowed(
    names: Sequence[str], weights: Weights, eps: float | None, dtype: torch.dtype | None = None
) -> ConfigError:
    """The error of tensors near whose values numbers stand further apart than eps. dtype: of the numbers."""
    tensor = weights.tensors[names[0]].detach()
    dtype = dtype or tensor.dtype
    size = tensor.to(torch.float32).abs().median()
    spacing = float(torch.nextafter(size.to(dtype), torch.tensor(torch.inf, dtype=dtype, device=size.device)))
    spacing -= float(size.to(dtype))
    perturbation = "the perturbation" if eps is None else f"optimizer.eps = {eps}"
    return ConfigError(
        f"{perturbation} is rounded away in {_names(names)}: near their values numbers of "
        f"{str(dtype).removeprefix('torch.')} are {spacing:.1e} apart, so the probes would see nothing. Raise "
        "optimizer.eps above that"
        + (", or load the model in float32 (model.dtype=float32)." if dtype.itemsize == 2 else ".")
    )


def check_first_losses(
    losses: Sequence[float], weights: Weights, eps: float, dtypes: Sequence[torch.dtype]
) -> None:
    """Raises ConfigError where probes of the first look have equal losses because 16 bits swallow eps.

    dtypes: of the model's parameters. A factor near 1 that is held in fp32 still scales numbers of 16 bits, and what
    it changes by less than half their spacing is rounded back.
    """
    narrow = [dtype for dtype in dtypes if dtype.itemsize == 2]
    if len(losses) < 2 or len(set(losses)) > 1 or not narrow:
        return
    lost = [name for name in weights.tensors if is_lost(weights.source(name), eps, narrow[0])]
    if lost:
        raise swallowed(lost, weights, eps, narrow[0])


def check_move(weights: Weights, size: float) -> None:
    """Warns when entries that move by about `size` would mostly be rounded back to where they were."""
    if weights.update != "nearest":
        return
    for name, tensor in weights.tensors.items():
        if name in weights.copies or tensor.dtype == torch.float32:
            continue
        typical = tensor.detach().view(-1)[:65536].float().pow(2).mean().sqrt().item()
        spacing = typical * torch.finfo(tensor.dtype).eps
        if size < spacing / 10:
            warnings.warn(
                f"A move of about {size:.1e} an entry is under a tenth of the spacing {spacing:.1e} of typical "
                f"entries of {name}: rounded to nearest, nearly all of it is lost. Use update = 'stochastic' "
                "or 'master'.",
                ZOWarning,
                stacklevel=3,
            )
            return


def _vector(tensor: Tensor) -> bool:
    """Returns whether a tensor is a vector, whatever its dimensions."""
    return tensor.dim() <= 1 or tensor.numel() == max(tensor.shape)


def _names(names: Sequence[str]) -> str:
    others = len(names) - 1
    return names[0] + (f" and {others} other tensor{'s' if others > 1 else ''}" if others else "")

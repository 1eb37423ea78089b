"""How a weight of 16 bits takes a move computed in fp32: nearest, stochastic or master.

nearest     round to nearest even, as torch converts
stochastic  round up with the probability of the discarded part, decided by 16 random bits; unbiased,
            never from a finite number to infinity; zeros, NaN and infinities stay as they are
master      bfloat16 only: the 16 bits that rounding drops are kept beside the weight, so the pair is
            the fp32 number: fp32 pattern = (weight pattern << 16) + low, low in [-2^15, 2^15); NaN is
            one NaN, with low = 0
"""

import torch
from torch import Tensor

from zo.errors import ConfigError

UPDATES = ("nearest", "stochastic", "master")


def check_update(update: str, dtype: torch.dtype) -> None:
    """Raises ConfigError unless weights of this dtype can take moves this way."""
    if update not in UPDATES:
        raise ConfigError(f"update = {update!r} is none of {', '.join(UPDATES)}.")
    if update == "master" and dtype not in (torch.bfloat16, torch.float32):
        raise ConfigError(
            f"update = 'master' keeps the low half of an fp32 number beside a bfloat16 weight, but the weights "
            f"are {str(dtype).removeprefix('torch.')}. Load the model in bfloat16, or use update = 'stochastic'."
        )


def stochastic(x: Tensor, dtype: torch.dtype, halves: Tensor) -> Tensor:
    """fp32 x rounded to bfloat16 or float16; `halves` are int32 in [0, 65536), one an element."""
    if dtype == torch.bfloat16:
        pattern = x.view(torch.int32) + halves
        rounded = (pattern & -65536).view(torch.float32)
        limit = torch.finfo(dtype).max
        rounded = rounded.clamp(-limit, limit).to(dtype)
    else:
        rounded = _stochastic_half(x, halves >> 3)
    return torch.where(x.isfinite(), rounded, x.to(dtype))


def _stochastic_half(x: Tensor, bits: Tensor) -> Tensor:
    """float16 keeps 10 of fp32's 23 bits, so 13 random bits decide; below 2^-14 its spacing is 2^-24."""
    pattern = (x.view(torch.int32) + bits) & -8192
    limit = torch.finfo(torch.float16).max
    normal = pattern.view(torch.float32).clamp(-limit, limit)
    scaled = x.abs() * 2.0**24
    whole = scaled.floor()
    whole = whole + ((scaled - whole) * 8192.0 + bits.float() >= 8192.0).float()
    subnormal = torch.copysign(whole * 2.0**-24, x)
    return torch.where(x.abs() < 2.0**-14, subnormal, normal).to(torch.float16)


def join(weight: Tensor, low: Tensor) -> Tensor:
    """The fp32 numbers of bfloat16 weights and their int16 low halves."""
    high = weight.view(torch.int16).to(torch.int32) << 16
    return (high + low.to(torch.int32)).view(torch.float32)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """bfloat16 weights and int16 low halves of fp32 x; the weight is x rounded to nearest, ties away."""
    pattern = x.view(torch.int32)
    pattern = torch.where(
        x.isnan(), 0x7FC00000, pattern
    )  # of others the carry would make an infinity or a zero
    high = (pattern + 0x8000) >> 16
    low = (pattern - (high << 16)).to(torch.int16)
    return high.to(torch.int16).view(torch.bfloat16), low

"""Rounding of moves from fp32 to weights of 16 bits: nearest, stochastic or master.

nearest     round to nearest even, as torch converts
stochastic  round up with the probability of the discarded part, decided by 16 random bits; unbiased,
            never from a finite number to infinity; zeros, NaN and infinities stay as they are
master      what rounding drops is kept beside the weight as 16 bits, so that the pair is the fp32 number
    bfloat16    fp32 pattern = (weight pattern << 16) + low, low in [-2^15, 2^15); NaN is one NaN, with low = 0
    float16     fp32 number = weight + low * unit, unit = the weight's spacing / 2^15, low in [-2^14, 2^14]. The pair
                is the fp32 number itself from 2^-16 up to float16's end at 65504; below 2^-16 it is that number
                rounded to a multiple of 2^-39. NaN and infinities have low = 0.
"""

import torch
from torch import Tensor

from zo.errors import ConfigError

UPDATES = ("auto", "nearest", "stochastic", "master")


def check_update(update: str) -> None:
    """Raises ConfigError unless weights can take moves this way."""
    if update not in UPDATES:
        raise ConfigError(f"update = {update!r} is none of {', '.join(UPDATES)}.")


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
    """The fp32 numbers of 16-bit weights and the int16 numbers that `split` keeps beside them."""
    if weight.dtype == torch.float16:
        wide = weight.float()
        return wide + low.float() * _power_of_two(_exponent(wide) - 25)
    high = weight.view(torch.int16).to(torch.int32) << 16
    return (high + low.to(torch.int32)).view(torch.float32)


def split(x: Tensor, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """16-bit weights and int16 numbers of fp32 x; the weight is x rounded to nearest, ties away (float16: to even)."""
    if dtype == torch.float16:
        return _split_half(x)
    pattern = x.view(torch.int32)
    # One pattern for every NaN: in others the carry would make an infinity or a zero.
    pattern = torch.where(x.isnan(), 0x7FC00000, pattern)
    high = (pattern + 0x8000) >> 16
    low = (pattern - (high << 16)).to(torch.int16)
    return high.to(torch.int16).view(torch.bfloat16), low


def _split_half(x: Tensor) -> tuple[Tensor, Tensor]:
    wide = _to_half(x)
    # The difference is exact, and so is the product, for its factor is a power of two.
    units = ((x - wide) * _power_of_two(279 - _exponent(wide))).round()
    return wide.to(torch.float16), torch.where(wide.abs() < 65536.0, units, 0.0).to(torch.int16)


def _to_half(x: Tensor) -> Tensor:
    """fp32 x rounded to float16's numbers, ties to even, as fp32; beyond them 65536 or more.

    Not by .to(float16).float(), of which inductor makes nothing at all.
    """
    pattern = x.view(torch.int32)
    normal = ((pattern + 0xFFF + ((pattern >> 13) & 1)) & -8192).view(torch.float32)
    subnormal = (x * 2.0**24).round() * 2.0**-24
    rounded = torch.where(x.abs() < 2.0**-14, subnormal, normal)
    return torch.where(x.isfinite(), rounded, x)


def _exponent(wide: Tensor) -> Tensor:
    """The exponent field of fp32 numbers that float16 holds; float16's spacing is the same for all below 2^-14."""
    return ((wide.view(torch.int32) >> 23) & 0xFF).clamp(min=113)


def _power_of_two(field: Tensor) -> Tensor:
    """The fp32 number 2^(field - 127)."""
    return (field << 23).view(torch.float32)

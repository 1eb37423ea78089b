"""Philox-4x32-10 in plain torch: the reference of every random number in zo.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the constants
and known answers are those of the Random123 distribution.

Specification 2 (docs/randomness.md; the numbers of 1). A number is named by (run seed, step, stream, direction index,
parameter, element):

    key      64 bits, BLAKE2b of (seed, step, index)
    counter  (block, id_lo, id_hi, stream), id = 64 bits, BLAKE2b of the parameter's canonical name
    words    four 32-bit words = Philox-4x32-10(counter, key)

    stream 0, signs       block = e // 128, word = e % 128 // 32, bit = e % 32; sign = 1 - 2 bit
    stream 1, Gaussians   block = e // 4, Box-Muller on words (0, 1) and (2, 3)
    stream 2, rounding    block = e // 8, word = e % 8 // 2, half = e % 2; 16 bits each
    stream 3, short Gaussians   the same 16 bits; the sum of three entries of a table of 32

where e is the row-major index of the element in the whole, unsharded tensor. The Gaussian uses only
single-precision additions, multiplications and square roots (no library logarithm or cosine), so that
it is the same number wherever those are rounded as IEEE 754 says and not fused.
"""

import hashlib
import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

SPECIFICATION = 4
SIGNS, GAUSSIANS, ROUNDING, SHORT_GAUSSIANS = 0, 1, 2, 3
PER_BLOCK = {SIGNS: 128, GAUSSIANS: 4, ROUNDING: 8, SHORT_GAUSSIANS: 8}

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1)
_LOG += (-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # Cephes' logf
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
# Units of 2^-12: near the quantiles of N(0, 1/3) at (i + 1/2)/32, moved so that the sum of three entries, each of
# either sign, has a variance of 1 to 5e-9 and a fourth moment of 3 to 2e-5.
SHORT_TABLE = (90, 265, 441, 622, 809, 1002, 1204, 1418, 1646, 1892, 2168, 2480, 2858, 3339, 4041, 5560)


def key_of(seed: int, step: int, index: int) -> int:
    """The 64-bit Philox key of one direction: BLAKE2b-8 of the three integers as little-endian int64."""
    return _digest(struct.pack("<qqq", seed, step, index), b"zo.key")


def id_of(name: str) -> int:
    """The 64-bit id of a parameter: BLAKE2b-8 of its canonical name in UTF-8."""
    return _digest(name.encode(), b"zo.param")


def _digest(data: bytes, person: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=person).digest(), "little")


def philox(counter: Sequence[Tensor | int], key: Sequence[Tensor | int], rounds: int = 10) -> list[Tensor]:
    """The four output words, int64 tensors with values in [0, 2³²); counters and keys broadcast."""
    c = [_integers(word) for word in counter]
    k0, k1 = (_integers(word) for word in key)
    for r in range(rounds):
        # int64 products wrap, which leaves the 64 bits of the unsigned product.
        p0, p1 = c[0] * _M0, c[2] * _M1
        a = ((p1 >> 32) & _MASK) ^ c[1] ^ ((k0 + r * _W0) & _MASK)
        b = ((p0 >> 32) & _MASK) ^ c[3] ^ ((k1 + r * _W1) & _MASK)
        c = [a, p1 & _MASK, b, p0 & _MASK]
    return c


def _integers(word: Tensor | int) -> Tensor:
    """The word as a tensor; a number lies on the CPU, whatever torch's default device is."""
    return word if isinstance(word, Tensor) else torch.tensor(word, dtype=torch.int64, device="cpu")


def words(keys: Sequence[int], ids: Tensor | int, blocks: Tensor, stream: int) -> Tensor:
    """int32 bit patterns [len(keys), blocks, 4] of the given blocks (int64 [n]) of parameters `ids`."""
    k = torch.tensor([_signed(key) for key in keys], dtype=torch.int64, device=blocks.device).unsqueeze(1)
    ids = torch.tensor(_signed(ids), dtype=torch.int64, device=blocks.device) if isinstance(ids, int) else ids
    counter = (blocks, ids & _MASK, (ids >> 32) & _MASK, stream)
    out = philox(counter, (k & _MASK, (k >> 32) & _MASK))
    return torch.stack(out, dim=-1).to(torch.int32)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def signs(bits: Tensor) -> Tensor:
    """fp32 signs [..., blocks * 128] of words [..., blocks, 4]; the lowest bit comes first."""
    octets = bits.contiguous().view(torch.uint8).to(torch.int32)
    return _sign_table(bits.device)[octets.flatten()].view(*bits.shape[:-2], bits.shape[-2] * 128)


_TABLES: dict[torch.device, Tensor] = {}


def _sign_table(device: torch.device) -> Tensor:
    """Returns the eight signs of each byte: [256, 8]."""
    if device not in _TABLES:
        octet = torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device)
        _TABLES[device] = 1.0 - 2.0 * (octet & 1).float()
    return _TABLES[device]


def gaussians(bits: Tensor) -> Tensor:
    """fp32 standard normals [..., blocks * 4] of words [..., blocks, 4], by Box-Muller.

    The radius takes 24 bits of the first word (so |z| <= 5.77), the angle a quadrant from the two highest
    bits of the second and a place in it from the next 24.
    """
    first, second = bits[..., 0::2], bits[..., 1::2]
    u = (((first >> 8) & 0xFFFFFF) + 1).float() * 2.0**-24
    # torch's fp32 square root is off by one unit for 0.6 % of these; through fp64 it is the IEEE one.
    radius = (-2.0 * _log(u)).double().sqrt().float()
    x = (((second >> 6) & 0xFFFFFF) - (1 << 23)).float() + 0.5
    x = x * (math.pi / 2 * 2.0**-24)
    z = x * x
    sine = _horner(_SIN, z) * z * x + x
    cosine = _horner(_COS, z) * (z * z) - 0.5 * z + 1.0
    quadrant = (second >> 30) & 3
    odd = (quadrant & 1).bool()
    a = torch.where(odd, sine, cosine) * (1.0 - 2.0 * ((quadrant == 1) | (quadrant == 2)).float())
    b = torch.where(odd, cosine, sine) * (1.0 - 2.0 * (quadrant >= 2).float())
    return torch.stack((radius * a, radius * b), dim=-1).flatten(-3)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    y = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        y = y * x + c
    return y


def _log(u: Tensor) -> Tensor:
    """Natural logarithm of fp32 u in (0, 1], to about one unit in the last place."""
    pattern = u.view(torch.int32)
    exponent = (pattern >> 23) - 126
    mantissa = ((pattern & 0x7FFFFF) | 0x3F000000).view(torch.float32)  # in [1/2, 1)
    low = mantissa < 0.70710678
    e = (exponent - low.to(torch.int32)).float()
    m = torch.where(low, mantissa + mantissa, mantissa) - 1.0
    z = m * m
    y = _horner(_LOG, m) * m * z
    y = y + e * -2.12194440e-4
    y = y - 0.5 * z
    return (m + y) + e * 0.693359375


def halves(bits: Tensor) -> Tensor:
    """int32 values in [0, 65536), [..., blocks * 8], of words [..., blocks, 4]; the low half comes first."""
    return torch.stack((bits & 0xFFFF, (bits >> 16) & 0xFFFF), dim=-1).flatten(-3)


def short_gaussians(bits: Tensor) -> Tensor:
    """fp32 numbers [..., blocks * 8] of words [..., blocks, 4], nearly normal: three table entries of 5 bits each.

    Integers times 2^-12, so that the sums are exact in any order.
    """
    table = torch.tensor(SHORT_TABLE, dtype=torch.int32, device=bits.device)
    signed = torch.cat((table, -table))
    half = halves(bits)
    total = signed[half & 31] + signed[half >> 5 & 31] + signed[half >> 10 & 31]
    return total.float() * 2.0**-12


_DECODE = {SIGNS: signs, GAUSSIANS: gaussians, ROUNDING: halves, SHORT_GAUSSIANS: short_gaussians}


def noise(keys: Sequence[int], pid: int, stream: int, start: int, count: int, device: torch.device) -> Tensor:
    """Numbers e = start .. start + count of one parameter, [len(keys), count]; fp32 (int32 for rounding)."""
    per = PER_BLOCK[stream]
    first = start // per
    blocks = torch.arange(first, (start + count - 1) // per + 1, device=device)
    values = _DECODE[stream](words(keys, pid, blocks, stream))
    return values[:, start - first * per :][:, :count]


def noise_rows(keys: Sequence[int], pid: int, stream: int, rows: Tensor, width: int) -> Tensor:
    """Numbers of whole rows of a [*, width] parameter: [len(keys), len(rows), width]."""
    per = PER_BLOCK[stream]
    first = rows * width // per
    n = (width + per - 2) // per + 1  # blocks that a row of this width can touch
    blocks = (first.unsqueeze(1) + torch.arange(n, device=rows.device)).flatten()
    values = _DECODE[stream](words(keys, pid, blocks, stream)).view(len(keys), len(rows), n * per)
    columns = (rows * width - first * per).unsqueeze(1) + torch.arange(width, device=rows.device)
    return values.gather(2, columns.expand(len(keys), -1, -1))


def noise_many(
    keys: Sequence[int], ids: Sequence[int], counts: Sequence[int], stream: int, device: torch.device
) -> list[Tensor]:
    """Whole parameters at once, a list of [len(keys), count]: one call for many small tensors."""
    per = PER_BLOCK[stream]
    sizes = [-(-count // per) for count in counts]
    blocks = torch.cat([torch.arange(size, device=device) for size in sizes])
    repeated = torch.repeat_interleave(
        torch.tensor([_signed(i) for i in ids], dtype=torch.int64, device=device),
        torch.tensor(sizes, dtype=torch.int64, device=device),
    )
    values = _DECODE[stream](words(keys, repeated, blocks, stream))
    parts = values.split([size * per for size in sizes], dim=1)
    return [part[:, :count] for part, count in zip(parts, counts, strict=True)]

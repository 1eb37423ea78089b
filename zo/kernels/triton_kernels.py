"""GPU kernels that triton.py runs: they make the numbers of philox.py in registers and use them there.

A program has one tile of one row of a matrix, or of a tensor read as one row: [tile / lanes, lanes] elements, of which
a line is one word of 32 signs or one block of 4 Gaussians. Sums begin with -0.0, which changes no number
it is added to. Nothing is a fused multiply-add: the caller compiles without.
"""

# ruff: noqa: ANN001, ANN201, ANN202  the types are Triton's own
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit
def noise(key, first, low, high, gaussian: tl.constexpr, tile: tl.constexpr):
    """The numbers of one key from element `first` on, a multiple of 128."""
    if gaussian:
        counter = (first // 4 + tl.arange(0, tile // 4)).to(tl.uint32)
        zero = counter * 0
        a, b, c, d = tl.philox(key, counter, zero + low, zero + high, zero + 1)
        z0, z1 = _pair(a, b)
        z2, z3 = _pair(c, d)
        return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), (tile // 4, 4))
    else:  # noqa: RET505  Triton leaves out what follows an if on a constant only as its other branch
        counter = (first // 128 + tl.arange(0, tile // 128)).to(tl.uint32)
        zero = counter * 0
        a, b, c, d = tl.philox(key, counter, zero + low, zero + high, zero)
        words = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (tile // 32, 1))
        bits = (words >> tl.arange(0, 32)[None, :].to(tl.uint32)) & 1
        return tl.where(bits == 1, -1.0, 1.0)


@triton.jit
def _pair(first, second):
    """Two Gaussians of two words, by Box-Muller."""
    u = ((first >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08  # 2^-24
    radius = tl.sqrt_rn(_log(u) * -2.0)
    x = (((second >> 6) & 0xFFFFFF).to(tl.int32) - 8388608).to(tl.float32) + 0.5
    x = x * 9.362675731573535e-08  # π/2 2^-24
    z = x * x
    y = z * -1.9515295891e-4 + 8.3321608736e-3
    y = y * z + -1.6666654611e-1
    sine = y * z * x + x
    y = z * 2.443315711809948e-5 + -1.388731625493765e-3
    y = y * z + 4.166664568298827e-2
    cosine = y * (z * z) - z * 0.5 + 1.0
    quadrant = second >> 30
    odd = (quadrant & 1) == 1
    a = tl.where(odd, sine, cosine) * tl.where((quadrant == 1) | (quadrant == 2), -1.0, 1.0)
    b = tl.where(odd, cosine, sine) * tl.where(quadrant >= 2, -1.0, 1.0)
    return radius * a, radius * b


@triton.jit
def _log(u):
    """Natural logarithm of fp32 u in (0, 1]: Cephes' logf."""
    pattern = u.to(tl.int32, bitcast=True)
    mantissa = ((pattern & 0x7FFFFF) | 0x3F000000).to(tl.float32, bitcast=True)
    low = mantissa < 0.70710678
    e = ((pattern >> 23) - 126 - low.to(tl.int32)).to(tl.float32)
    m = tl.where(low, mantissa + mantissa, mantissa) - 1.0
    z = m * m
    y = m * 7.0376836292e-2 + -1.1514610310e-1
    y = y * m + 1.1676998740e-1
    y = y * m + -1.2420140846e-1
    y = y * m + 1.4249322787e-1
    y = y * m + -1.6668057665e-1
    y = y * m + 2.0000714765e-1
    y = y * m + -2.4999993993e-1
    y = y * m + 3.3333331174e-1
    y = y * m * z
    y = y + e * -2.12194440e-4
    y = y - z * 0.5
    return (m + y) + e * 0.693359375


@triton.jit
def _store(place, new, inside):
    """fp32 numbers as the tensor's dtype has them, rounded to nearest even."""
    if place.dtype.element_ty == tl.bfloat16:
        # By hand: Triton's interpreter cuts instead of rounding.
        pattern = new.to(tl.uint32, bitcast=True)
        pattern = (pattern + 0x7FFF + ((pattern >> 16) & 1)) >> 16
        pattern = tl.where(new == new, pattern, 0x7FC0)
        tl.store(place, pattern.to(tl.uint16).to(tl.bfloat16, bitcast=True), mask=inside)
    else:
        tl.store(place, new.to(place.dtype.element_ty), mask=inside)


# What is named here is not compiled anew for a value of 1 or one that 16 divides; pointers and the width are.
@triton.jit(do_not_specialize=["first", "terms", "id_low", "id_high"])
def sums(
    w_ptr,
    out_ptr,
    rows_ptr,
    keys_ptr,
    scales_ptr,
    first,
    width,
    terms,
    id_low,
    id_high,
    decay,
    gaussian: tl.constexpr,
    tile: tl.constexpr,
    reads: tl.constexpr,
    by_rows: tl.constexpr,
    decays: tl.constexpr,
):
    """Writes out ← w + (Σ scale z − decay · w).

    by_rows: out has a row for each int64 number at rows_ptr, which names the row of w; otherwise all is one row.
    first: the element of the noise that the row begins with. Without `reads` w counts as zeros.
    """
    lanes: tl.constexpr = 4 if gaussian else 32
    tiles = tl.cdiv(width, tile)
    program = tl.program_id(0).to(tl.int64)
    row, column = program // tiles, program % tiles * tile
    place = column + tl.arange(0, tile // lanes)[:, None] * lanes + tl.arange(0, lanes)[None, :]
    inside = place < width
    source = tl.load(rows_ptr + row) * width if by_rows else row
    low, high = id_low.to(tl.uint32), id_high.to(tl.uint32)
    total = tl.full((tile // lanes, lanes), -0.0, tl.float32)
    for i in range(terms):
        z = noise(tl.load(keys_ptr + i), first + source + column, low, high, gaussian, tile)
        total += z * tl.load(scales_ptr + i)
    if reads:
        old = tl.load(w_ptr + source + place, mask=inside, other=0.0).to(tl.float32)
        if decays:
            total = total - old * decay
        total = old + total
    _store(out_ptr + row * width + place, total, inside)


@triton.jit(do_not_specialize=["steps", "terms", "id_low", "id_high"])
def moments(
    w_ptr,
    keys_ptr,
    coefficients_ptr,
    first_ptr,
    second_ptr,
    width,
    steps,
    terms,
    id_low,
    id_high,
    decay,
    scale,
    eps,
    gaussian: tl.constexpr,
    tile: tl.constexpr,
    inside_root: tl.constexpr,
    decays: tl.constexpr,
):
    """w ← w + (the step of moments.py − decay · w), with m and v in registers; every step has `terms` keys."""
    lanes: tl.constexpr = 4 if gaussian else 32
    column = tl.program_id(0).to(tl.int64) * tile
    place = column + tl.arange(0, tile // lanes)[:, None] * lanes + tl.arange(0, lanes)[None, :]
    inside = place < width
    low, high = id_low.to(tl.uint32), id_high.to(tl.uint32)
    m = tl.full((tile // lanes, lanes), -0.0, tl.float32)
    v = tl.full((tile // lanes, lanes), -0.0, tl.float32)
    for k in range(steps):
        g = tl.full((tile // lanes, lanes), -0.0, tl.float32)
        for i in range(k * terms, (k + 1) * terms):
            z = noise(tl.load(keys_ptr + i), column, low, high, gaussian, tile)
            g += z * tl.load(coefficients_ptr + i)
        m += g * tl.load(first_ptr + k)
        v += (g * g) * tl.load(second_ptr + k)
    if inside_root:
        divisor = tl.sqrt_rn(v + eps)
    else:
        divisor = tl.sqrt_rn(v) + eps
    # Where the divisor is 0, m is 0 as well, and 0 is the step.
    step = tl.div_rn(m, tl.maximum(divisor, 1.1754943508222875e-38)) * scale
    old = tl.load(w_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if decays:
        step = step - old * decay
    _store(w_ptr + place, old + step, inside)

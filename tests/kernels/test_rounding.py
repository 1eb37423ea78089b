"""How 16-bit weights take a move: exact over all random bits where that is possible."""

import math

import pytest
import torch

from zo.errors import ConfigError
from zo.kernels import Eager, Noise, Write, rounding
from zo.noise import ROUNDING, SIGNS, key_of, philox

CPU = torch.device("cpu")
SIXTEEN = (torch.bfloat16, torch.float16)
EVERY = torch.arange(1 << 16, dtype=torch.int32)  # all values the random half word can take


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)


def neighbours(x, dtype):
    """The nearest numbers of the dtype below and above x."""
    near = torch.tensor(x, dtype=torch.float64).to(dtype)
    step = torch.tensor(math.inf, dtype=dtype)
    if near.double().item() > x:
        return torch.nextafter(near, -step).double().item(), near.double().item()
    return near.double().item(), torch.nextafter(near, step).double().item()


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("x", [1.2345678, -0.0123456, 3.1e4, 7.7e-5, -123.456, 1 + 2.0**-20])
def test_stochastic_is_unbiased(dtype, x):
    """The mean over all random bits is x itself: bfloat16 drops 16 bits, float16's normal numbers 13."""
    x32 = values(x)
    rounded = rounding.stochastic(x32.expand(1 << 16), dtype, EVERY).double()
    assert rounded.mean().item() == x32.double().item()
    assert set(rounded.tolist()) <= set(neighbours(x32.double().item(), dtype))


@pytest.mark.parametrize("x", [3.3e-6, -5.07e-5, 1.0e-8, -2.0e-10])
def test_stochastic_is_unbiased_below_float16s_normal_numbers(x):
    """The spacing there is 2^-24, and thirteen bits decide: the mean is off by less than 2^-37."""
    x32 = values(x)
    rounded = rounding.stochastic(x32.expand(1 << 16), torch.float16, EVERY).double()
    assert abs(rounded.mean().item() - x32.double().item()) <= 2.0**-37
    assert set(rounded.tolist()) <= set(neighbours(x32.double().item(), torch.float16))


@pytest.mark.parametrize("x", [1.0e-40, -3.0e-45, 9.2e-39])
def test_stochastic_is_unbiased_at_bfloat16s_subnormal_numbers(x):
    x32 = values(x)
    rounded = rounding.stochastic(x32.expand(1 << 16), torch.bfloat16, EVERY).double()
    assert rounded.mean().item() == x32.double().item()


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_stochastic_with_named_bits_is_unbiased(dtype):
    """Many small moves: the mean error is within five deviations, each a Bernoulli of one spacing."""
    n, moves = 1 << 14, 16
    w = torch.full((n,), 0.75, dtype=dtype)
    size = 1e-5
    for t in range(moves):
        terms = [(key_of(0, t, 0), 0.0), (key_of(0, t, 1), 0.0)]
        Eager().move(w, Noise(3, SIGNS), terms, Write(-size, "stochastic", t))
    expected = 0.75 * (1 + size) ** moves
    spacing = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
    # A move adds variance at most size · spacing; the mean is over n independent weights.
    deviation = math.sqrt(moves * size * spacing / n)
    # fp32 rounds the product and the sum: at most 2^-24 relative, every move.
    assert abs(w.double().mean().item() - expected) < 5 * deviation + moves * 2.0**-24
    nearest = torch.full((n,), 0.75, dtype=dtype)
    Eager().move(nearest, Noise(3, SIGNS), [(1, 0.0)], Write(-size, "nearest"))
    assert torch.equal(nearest, torch.full((n,), 0.75, dtype=dtype))  # what it is for


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_stochastic_keeps_what_is_representable(dtype):
    """Zeros of both signs, and every other number of the dtype, for the largest random bits."""
    patterns = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    x = patterns.view(dtype)
    rounded = rounding.stochastic(x.float(), dtype, torch.full((1 << 16,), 65535, dtype=torch.int32))
    known = ~x.isnan()
    assert torch.equal(rounded.view(torch.int16)[known], patterns[known])
    assert rounded[~known].isnan().all()


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_stochastic_at_the_end_of_the_range(dtype):
    largest = torch.finfo(dtype).max
    beyond = values(largest * (1 + 2.0**-12))
    for sign in (1, -1):
        rounded = rounding.stochastic((sign * beyond).expand(1 << 16), dtype, EVERY)
        assert torch.equal(rounded, torch.full((1 << 16,), sign * largest, dtype=dtype))
        infinite = values(sign * math.inf).expand(1 << 16)
        assert torch.equal(rounding.stochastic(infinite, dtype, EVERY).float(), infinite)
    assert rounding.stochastic(values(math.nan).expand(1 << 16), dtype, EVERY).isnan().all()
    largest32 = values(torch.finfo(torch.float32).max).expand(1 << 16)
    assert rounding.stochastic(largest32, dtype, EVERY).isfinite().all()


def any_fp32(count, seed):
    """Finite fp32 numbers of random patterns."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-(1 << 31), 1 << 31, (count,), generator=generator).to(torch.int32).view(torch.float32)
    return x[x.abs() < 3e38]


def test_split_and_join_are_inverse():
    x = any_fp32(1 << 18, 0)
    weight, low = rounding.split(x)
    assert torch.equal(rounding.join(weight, low).view(torch.int32), x.view(torch.int32))


def test_float16_and_its_remainder_are_fp32():
    """Exact from 2^-16 to the end of the range, binade edges and ties among them; below, to half of 2^-39."""
    x = any_fp32(1 << 20, 2)
    edges = torch.tensor([2.0**k for k in range(-15, 16)]).view(torch.int32)[:, None] + torch.arange(
        -4096, 4097
    )
    x = torch.cat((x, edges.to(torch.int32).view(-1).view(torch.float32)))
    x = torch.cat((x, -x))
    x = x[x.abs() < 65520]
    weight, low = rounding.split(x, torch.float16)
    joined = rounding.join(weight, low)
    assert torch.equal(weight.view(torch.int16), x.half().view(torch.int16))
    assert low.abs().max() == 1 << 14
    large = x.abs() >= 2.0**-16
    assert large.sum() > 1 << 18 and torch.equal(joined[large], x[large])
    assert (joined - x).abs().max() <= 2.0**-40
    assert torch.equal(rounding.join(*rounding.split(joined, torch.float16)), joined)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_a_remainder_of_16_bit_floats_is_not_good_enough(dtype):
    """The reason for whole numbers: what float16 drops, rounded to 16 bits again, loses the last bits of fp32."""
    x = torch.rand(1 << 14, generator=torch.Generator().manual_seed(0)) + 0.5
    kept = (x - x.half().float()).to(dtype).float()
    assert (x.half().float() + kept != x).float().mean() > 0.1
    assert torch.equal(rounding.join(*rounding.split(x, torch.float16)), x)


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_numbers_of_the_dtype_have_no_remainder(dtype):
    patterns = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    weight, low = rounding.split(patterns.view(dtype).float(), dtype)
    known = ~patterns.view(dtype).isnan()
    assert torch.equal(weight.view(torch.int16)[known], patterns[known]) and not low.any()


NANS = [0x7FFFFFFF, -1, 0x7F800001, 0x7F807FFF, 0x7FFF8000, -0x8000, -0x7FFFFF, 0x7FC00000]  # patterns


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_a_master_weight_that_is_no_number_is_none(dtype):
    x = torch.tensor(NANS, dtype=torch.int32).view(torch.float32)
    weight, low = rounding.split(x, dtype)
    assert x.isnan().all() and weight.isnan().all() and rounding.join(weight, low).isnan().all()
    assert not low.any()


def test_the_master_weight_is_x_to_nearest():
    x = any_fp32(1 << 18, 1)
    weight, _ = rounding.split(x)
    ties = x.view(torch.int32) & 0xFFFF == 0x8000
    assert torch.equal(weight[~ties], x.bfloat16()[~ties])


def test_a_master_beyond_float16_is_infinite():
    weight, low = rounding.split(values(65520.0, -3e38, math.inf, 65519.996), torch.float16)
    assert weight.tolist() == [math.inf, -math.inf, math.inf, 65504.0]
    assert low.tolist() == [0, 0, 0, (1 << 14) - 4]
    assert rounding.join(weight, low)[3].item() == values(65519.996).item()


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_a_master_run_is_the_fp32_run(dtype):
    n = 3000
    w32 = torch.randn(n, generator=torch.Generator().manual_seed(0)).to(dtype).float()
    weight, low = rounding.split(w32, dtype)
    for t in range(30):
        terms = [(key_of(0, t, i), 1e-5 * (i - 1.3)) for i in range(3)]
        Eager().move(w32, Noise(7, SIGNS), terms, Write(1e-4))
        Eager().move(weight, Noise(7, SIGNS), terms, Write(1e-4, "master"), low)
    assert torch.equal(rounding.join(weight, low), w32)


def test_stochastic_uses_the_rounding_stream():
    w = torch.full((100,), 1.0, dtype=torch.bfloat16)
    Eager().move(w, Noise(5, SIGNS), [(1, 0.003)], Write(0.0, "stochastic", 77))
    halves = philox.noise([77], 5, ROUNDING, 0, 100, CPU)[0]
    signs = philox.noise([1], 5, SIGNS, 0, 100, CPU)[0]
    assert torch.equal(w, rounding.stochastic(1 + signs * 0.003, torch.bfloat16, halves))


def test_wrong_updates_are_refused():
    with pytest.raises(ConfigError, match="nearest, stochastic, master"):
        rounding.check_update("round")

"""Moments and independence of the streams.

Each test forms statistics whose distribution is known and bounds their z-scores by 5: a fair generator passes
one such bound with probability 1 - 6e-7, and this file forms some two thousand of them. The names are fixed,
so a test that passes once always does.
"""

import math

import pytest
import torch

from zo.noise import GAUSSIANS, ROUNDING, SHORT_GAUSSIANS, SIGNS, id_of, key_of, philox

CPU = torch.device("cpu")
N = 1 << 19
BOUND = 5.0


def draw(stream=SIGNS, *, seed=0, step=0, index=0, name="weight", count=N):
    return philox.noise([key_of(seed, step, index)], id_of(name), stream, 0, count, CPU)[0]


def z_of_products(a, b):
    """z-score of Σ a b for independent entries of mean 0 and variance 1."""
    return abs((a * b).double().sum().item()) / math.sqrt(len(a))


def families():
    """Sets of streams that must be independent of each other."""
    yield "index", [draw(index=i) for i in range(12)]
    yield "step", [draw(step=t) for t in range(12)]
    yield "seed", [draw(seed=s) for s in (*range(8), -1, 1 << 31, 1 << 32, (1 << 62) + 1)]
    yield "name", [draw(name=f"model.layers.{i}.fc1.weight") for i in range(12)]
    yield (
        "coordinates",
        [draw(seed=1), draw(step=1), draw(index=1), draw(seed=1, step=1), draw(step=1, index=1)],
    )


@pytest.mark.parametrize(("kind", "streams"), [pytest.param(k, s, id=k) for k, s in families()])
def test_streams_of_different_names_are_independent(kind, streams):
    for i, a in enumerate(streams):
        for b in streams[:i]:
            assert z_of_products(a, b) < BOUND
            # Shifted by one, by a word and by a block: keys that only move the counter would show here.
            for lag in (1, 32, 128):
                assert z_of_products(a[lag:], b[:-lag]) < BOUND


def test_gaussians_of_different_names_are_independent():
    streams = [draw(GAUSSIANS, index=i) for i in range(4)] + [draw(GAUSSIANS, name="other")]
    for i, a in enumerate(streams):
        for b in streams[:i]:
            assert z_of_products(a, b) < BOUND


def test_signs_are_fair():
    for step in range(20):
        assert abs(draw(step=step).sum().item()) / math.sqrt(N) < BOUND


def test_every_bit_position_is_fair():
    bits = draw().view(-1, 128)
    assert (bits.sum(0).abs() / math.sqrt(len(bits))).max() < BOUND


@pytest.mark.parametrize("stream", [SIGNS, GAUSSIANS, SHORT_GAUSSIANS])
def test_neighbours_are_independent(stream):
    x = draw(stream)
    lags = [*range(1, 70), 96, 127, 128, 129, 256, 320, 1024, 4096, 65536]
    for lag in lags:
        assert z_of_products(x[lag:], x[:-lag]) < BOUND


def test_triples_and_quadruples_are_independent():
    x = draw()
    for i, j in ((1, 2), (1, 3), (32, 64), (31, 33), (128, 256)):
        assert z_of_products(x[i:-j] * x[: -i - j], x[i + j :]) < BOUND
        assert z_of_products(x[i:-j] * x[: -i - j], x[i + j :] * x[j:-i]) < BOUND


def test_bytes_are_uniform():
    octets = philox.words([key_of(0, 0, 0)], id_of("weight"), torch.arange(N // 16), SIGNS).view(torch.uint8)
    counts = torch.bincount(octets.flatten().int(), minlength=256).double()
    expected = octets.numel() / 256
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi2 - 255) / math.sqrt(2 * 255) < BOUND  # χ² of 255 degrees has variance 510


def test_rounding_numbers_are_uniform():
    n = draw(ROUNDING).double()
    mean, variance = 65535 / 2, (65536**2 - 1) / 12
    assert abs(n.mean().item() - mean) / math.sqrt(variance / N) < BOUND
    counts = torch.histc(n, 64, 0, 65536).double()
    assert abs(((counts - N / 64) ** 2 / (N / 64)).sum().item() - 63) / math.sqrt(126) < BOUND


def test_gaussian_moments():
    """Var of the sample moments of a normal: 1, 2, 15, 96 over n."""
    z = draw(GAUSSIANS, count=1 << 22).double()
    for power, value, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean().item() - value) / math.sqrt(variance / len(z)) < BOUND


def test_gaussian_squares_are_independent():
    """Box-Muller makes two numbers of one radius; their squares must not know of each other."""
    z = draw(GAUSSIANS, count=1 << 20)
    squares = (z * z - 1) / math.sqrt(2)
    for lag in (1, 2, 3, 4, 5, 8, 128):
        assert z_of_products(squares[lag:], squares[:-lag]) < BOUND
    pairs = squares.view(-1, 2)
    assert z_of_products(pairs[:, 0], pairs[:, 1]) < BOUND


def test_gaussian_distribution():
    """Kolmogorov's distance: √n D exceeds 2.5 with probability 2 exp(-2 · 2.5²) = 7e-6."""
    z = draw(GAUSSIANS, count=1 << 20).double().sort().values
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    steps = torch.arange(len(z) + 1) / len(z)
    distance = torch.maximum((cdf - steps[:-1]).abs().max(), (cdf - steps[1:]).abs().max()).item()
    assert math.sqrt(len(z)) * distance < 2.5


@pytest.mark.parametrize("limit", [1.0, 2.0, 3.0, 4.0])
def test_gaussian_tails(limit):
    z = draw(GAUSSIANS, count=1 << 22, step=1)
    p = math.erfc(limit / math.sqrt(2)) / 2
    for beyond in ((z > limit).sum().item(), (z < -limit).sum().item()):
        assert abs(beyond - len(z) * p) / math.sqrt(len(z) * p * (1 - p)) < BOUND


def test_gaussian_is_bounded():
    """Twenty-four bits of the radius end at sqrt(2 · 24 log 2) = 5.768."""
    assert draw(GAUSSIANS, count=1 << 22).abs().max() < 5.769

"""Short Gaussians: the exact distribution of the table's sums, and numbers made from it."""

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from zo.directions import Gaussian, directions
from zo.errors import ConfigError
from zo.noise import GAUSSIANS, SHORT_GAUSSIANS, id_of, key_of, philox

CPU = torch.device("cpu")
SIGNED = [*philox.SHORT_TABLE, *(-entry for entry in philox.SHORT_TABLE)]
N = 1 << 19


def distribution():
    """Returns the probability of each sum of three entries, by its number."""
    sums = Counter({0: 1})
    for _ in range(3):
        more = Counter()
        for total, count in sums.items():
            for entry in SIGNED:
                more[total + entry] += count
        sums = more
    return {total * 2.0**-12: count / 32**3 for total, count in sorted(sums.items())}


def normal(x):
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def largest_difference(cumulative):
    """Returns the Kolmogorov distance to N(0, 1) of pairs (z, probability of z)."""
    below = largest = 0.0
    for z, p in cumulative:
        largest = max(largest, abs(below - normal(z)), abs(below + p - normal(z)))
        below += p
    return largest


def test_moments_are_those_of_a_normal():
    exact = distribution()

    def moment(k):
        return math.fsum(p * z**k for z, p in exact.items())

    assert math.isclose(math.fsum(exact.values()), 1.0, rel_tol=1e-15)
    assert moment(1) == moment(3) == moment(5) == 0.0  # every entry has its negative
    assert abs(moment(2) - 1.0) < 5e-9
    assert abs(moment(4) - 3.0) < 3e-5
    assert abs(moment(6) / 15.0 - 1.0) < 0.016  # the sixth is not designed
    assert max(exact) == 16680 / 4096


def test_distribution_functions_differ_by_less_than_three_thousandths():
    assert 0.002 < largest_difference(distribution().items()) < 0.003


def test_drawn_numbers_have_the_exact_distribution():
    z = philox.noise([key_of(0, 0, 0)], id_of("weight"), SHORT_GAUSSIANS, 0, N, CPU)[0]
    exact = distribution()
    values, counts = z.unique(return_counts=True)
    assert set(values.tolist()) <= exact.keys()
    drawn = dict(zip(values.tolist(), (counts / N).tolist(), strict=True))
    below, exactly, largest = 0.0, 0.0, 0.0
    for value, p in exact.items():
        below, exactly = below + drawn.get(value, 0.0), exactly + p
        largest = max(largest, abs(below - exactly))
    # Kolmogorov: beyond 2.5 / √N with probability 2 exp(-2 · 2.5²) = 7e-6. The names are fixed.
    assert largest < 2.5 / math.sqrt(N)
    for k, variance in ((1, 1.0), (2, 2.0), (4, 96.0)):  # Var zᵏ of a normal
        expected = math.fsum(p * value**k for value, p in exact.items())
        assert abs((z.double() ** k).mean().item() - expected) < 5 * math.sqrt(variance / N)


def test_numbers_are_those_of_the_specification():
    """Each half word by its own integers, as docs/randomness.md says it."""
    words = philox.words([key_of(3, 5, 7)], id_of("weight"), torch.arange(4), SHORT_GAUSSIANS)[0].flatten()
    halves = [half for word in words.tolist() for half in (word & 0xFFFF, word >> 16 & 0xFFFF)]
    expected = [sum(SIGNED[half >> shift & 31] for shift in (0, 5, 10)) / 4096 for half in halves]
    made = philox.noise([key_of(3, 5, 7)], id_of("weight"), SHORT_GAUSSIANS, 0, 32, CPU)[0]
    assert made.tolist() == expected


def test_the_page_prints_these_numbers():
    page = (Path(__file__).parents[2] / "docs" / "randomness.md").read_text(encoding="utf-8")
    words = philox.words([key_of(0, 0, 0)], id_of("weight"), torch.arange(1), SHORT_GAUSSIANS)[0, 0]
    made = philox.noise([key_of(0, 0, 0)], id_of("weight"), SHORT_GAUSSIANS, 0, 4, CPU)[0]
    assert " ".join(f"{word & 0xFFFFFFFF:08x}" for word in words.tolist()) in page
    assert " ".join(number.hex() for number in made.tolist()) in page


def test_bits_is_an_option_of_gaussian_directions():
    assert directions("gaussian").stream == Gaussian().stream == GAUSSIANS
    assert directions({"kind": "gaussian", "bits": 16}).stream == SHORT_GAUSSIANS
    with pytest.raises(ConfigError, match="gaussian: bits = 8 must be 32 or 16"):
        directions({"kind": "gaussian", "bits": 8})

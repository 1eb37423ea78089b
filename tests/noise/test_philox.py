"""The generator against published vectors, and numbers that do not depend on how they are asked for."""

import hashlib
import math
from pathlib import Path

import pytest
import torch

from zo.noise import GAUSSIANS, ROUNDING, SIGNS, id_of, key_of, philox

CPU = torch.device("cpu")
ALL = (SIGNS, GAUSSIANS, ROUNDING)

# counter, key, output: kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

# Specification 3, as docs/randomness.md prints it; the numbers are those of specification 1.
KEY = 0x9E3779B97F4A7C15


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_published_vectors(counter, key, expected):
    def parse(text):
        return [int(word, 16) for word in text.split()]

    assert [int(word) for word in philox.philox(parse(counter), parse(key))] == parse(expected)


def test_words_take_counter_and_key_from_names():
    block, pid, stream = 5, 0xFEDCBA9876543210, ROUNDING
    words = philox.words([KEY], pid, torch.tensor([block]), stream)
    expected = philox.philox((block, 0x76543210, 0xFEDCBA98, stream), (0x7F4A7C15, 0x9E3779B9))
    assert [int(word) & 0xFFFFFFFF for word in words.flatten()] == [int(word) for word in expected]


def test_keys_and_ids_are_blake2b():
    data = b"".join(n.to_bytes(8, "little", signed=True) for n in (-3, 7, 1))
    digest = hashlib.blake2b(data, digest_size=8, person=b"zo.key").digest()
    assert key_of(-3, 7, 1) == int.from_bytes(digest, "little")
    digest = hashlib.blake2b("größe".encode(), digest_size=8, person=b"zo.param").digest()
    assert id_of("größe") == int.from_bytes(digest, "little")


def test_the_documented_vectors():
    page = (Path(__file__).parents[2] / "docs" / "randomness.md").read_text()
    key, pid = key_of(0, 0, 0), id_of("weight")
    shown = [f"{key:016x}", f"{pid:016x}"]
    for stream in ALL:
        words = philox.words([key], pid, torch.arange(1), stream)[0, 0].tolist()
        shown.append(" ".join(f"{word & 0xFFFFFFFF:08x}" for word in words))
    shown.append(" ".join(f"{int(s):+d}" for s in philox.noise([key], pid, SIGNS, 0, 16, CPU)[0]))
    shown.append(" ".join(float(z).hex() for z in philox.noise([key], pid, GAUSSIANS, 0, 4, CPU)[0]))
    shown.append(" ".join(str(int(n)) for n in philox.noise([key], pid, ROUNDING, 0, 8, CPU)[0]))
    for line in shown:
        assert line in page, line


def test_a_sign_is_its_bit():
    e = 3 * 128 + 2 * 32 + 17
    word = int(philox.words([KEY], 9, torch.tensor([3]), SIGNS)[0, 0, 2])
    assert philox.noise([KEY], 9, SIGNS, e, 1, CPU).item() == 1 - 2 * (word >> 17 & 1)


def test_a_rounding_number_is_its_half_word():
    word = int(philox.words([KEY], 9, torch.tensor([3]), ROUNDING)[0, 0, 2]) & 0xFFFFFFFF
    first, second = philox.noise([KEY], 9, ROUNDING, 3 * 8 + 4, 2, CPU)[0].tolist()
    assert (first, second) == (word & 0xFFFF, word >> 16)


@pytest.mark.parametrize("stream", ALL)
@pytest.mark.parametrize("block", [1, 3, 127, 128, 1000])
def test_any_blocks_in_any_order_give_the_same_numbers(stream, block):
    whole = philox.noise([KEY, 1], 5, stream, 0, 2500, CPU)
    starts = torch.randperm(-(-2500 // block), generator=torch.Generator().manual_seed(0))[:60] * block
    for start in starts.tolist():
        count = min(block, 2500 - start)
        assert torch.equal(
            philox.noise([KEY, 1], 5, stream, start, count, CPU), whole[:, start : start + count]
        )


@pytest.mark.parametrize("stream", ALL)
@pytest.mark.parametrize("width", [1, 5, 128, 131])
def test_rows_are_rows_of_the_whole(stream, width):
    whole = philox.noise([KEY, 1], 5, stream, 0, 40 * width, CPU).view(2, 40, width)
    rows = torch.tensor([39, 0, 7, 7, 12])
    assert torch.equal(philox.noise_rows([KEY, 1], 5, stream, rows, width), whole[:, rows])


@pytest.mark.parametrize("stream", ALL)
def test_many_parameters_at_once_are_each_alone(stream):
    ids, counts = [id_of("a"), id_of("b"), (1 << 64) - 1], [1, 300, 129]
    for pid, count, noise in zip(
        ids, counts, philox.noise_many([KEY, 2], ids, counts, stream, CPU), strict=True
    ):
        assert torch.equal(noise, philox.noise([KEY, 2], pid, stream, 0, count, CPU))


def test_logarithm_of_every_argument():
    """All 2^24 numbers the radius can be made of, against float64: the error stays below one unit."""
    worst = 0.0
    for start in range(0, 1 << 24, 1 << 22):
        u = (torch.arange(start, start + (1 << 22)) + 1).float() * 2.0**-24
        exact = u.double().log()
        got = philox._log(u)
        assert (got <= 0).all()
        unit = torch.nextafter(got.abs(), torch.tensor(math.inf)) - got.abs()
        worst = max(worst, ((got.double() - exact).abs() / unit.double()).max().item())
    assert worst < 1.0


def test_gaussian_is_box_muller():
    """Against the formula in float64 on the same words. fp32 has 24 bits; radius and angle lose a few of them."""
    words = philox.words([KEY], 5, torch.arange(1 << 14), GAUSSIANS)
    first = (words[..., 0::2].long() & 0xFFFFFFFF) >> 8
    second = words[..., 1::2].long() & 0xFFFFFFFF
    radius = (-2 * ((first + 1).double() * 2.0**-24).log()).sqrt()
    quadrant, place = second >> 30, (second >> 6) & 0xFFFFFF
    angle = math.pi / 2 * (quadrant + ((place - (1 << 23)).double() + 0.5) * 2.0**-24)
    exact = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten()
    # 5.8 is the largest radius, 2^-22 four units of a number near 1.
    assert (philox.gaussians(words).flatten().double() - exact).abs().max() < 5.8 * 2.0**-22

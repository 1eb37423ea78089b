"""MeZO and FZOO against their equations: exact where the numbers allow it, else within the standard error."""

import itertools
import math
import random
import statistics

import pytest
import torch
from torch import nn

from zo import FZOO, Key, MeZO, Probe, Weights
from zo.estimators import central_difference, deviation, forward_difference
from zo.noise import philox

EPS = 2.0**-10


def vector(values, name="w"):
    return Weights([(name, nn.Parameter(torch.as_tensor(values, dtype=torch.float32)))])


def direction(optimizer, key, name="w"):
    """z in float64."""
    tensor = optimizer.weights.tensors[name]
    pid = optimizer.weights.ids[name]
    z = philox.noise([key.word], pid, optimizer.directions.stream, 0, tensor.numel(), tensor.device)[0]
    return z.double().view(tensor.shape)


def linear_losses(optimizer, t, slope, theta):
    """a·(θ + Σ scale z) in float64 for every probe of step t."""
    keys, pid = optimizer.keys(t), optimizer.weights.ids["w"]
    zs = philox.noise(
        [key.word for key in keys], pid, optimizer.directions.stream, 0, slope.numel(), slope.device
    )
    along = dict(zip(keys, (zs.double() * slope).sum(1).tolist(), strict=True))
    base = (slope * theta).sum().item()
    return [base + sum(scale * along[key] for key, scale in probe.terms) for probe in optimizer.ask(t)]


# MeZO


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("lr", [2.0**-7, 0.5])
def test_mezo_on_a_linear_loss_is_exact(lr, n):
    """θ ← θ − η (1/n) Σ (a·zᵢ) zᵢ, bit for bit: all numbers are multiples of a power of two."""
    slope = torch.tensor([3.0, -1, 4, 1, -5, 9, 2, -6]).double()
    optimizer = MeZO(vector([0.0] * 8), lr=lr, eps=EPS, n=n, directions="rademacher")
    theta = torch.zeros(8).double()
    for t in range(5):
        zs = [direction(optimizer, key) for key in optimizer.keys(t)]
        optimizer.tell(t, linear_losses(optimizer, t, slope, theta))
        theta = theta - lr / n * sum((slope * z).sum() * z for z in zs)
        assert torch.equal(optimizer.weights.tensors["w"].detach().double(), theta)


def test_mezo_with_gaussians_moves_along_its_direction():
    slope = torch.tensor([3.0, -1, 4, 1, -5, 9, 2, -6]).double()
    optimizer = MeZO(vector([0.0] * 8), lr=2.0**-7, eps=EPS, directions="gaussian")
    z = direction(optimizer, Key(0, 0, 0))
    optimizer.tell(0, linear_losses(optimizer, 0, slope, torch.zeros(8).double()))
    expected = -(2.0**-7) * (slope * z).sum() * z
    # fp32 coefficient, fp32 product: two roundings of 2⁻²⁴.
    torch.testing.assert_close(optimizer.weights.tensors["w"].double(), expected, rtol=2 * 2**-24, atol=0)


def test_the_mean_over_all_signs_is_the_gradient():
    """E[(zᵀg) z] = g: exact over the 2^d sign vectors, in integers."""
    gradient = [3, -1, 4, 1, -5, 9]
    total = [0.0] * 6
    for z in itertools.product((1, -1), repeat=6):
        along = float(sum(a * b for a, b in zip(z, gradient, strict=True)))
        slope = central_difference(EPS * along, -EPS * along, EPS)
        total = [sum_ + slope * sign for sum_, sign in zip(total, z, strict=True)]
    assert [x / 64 for x in total] == gradient


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])  # the others: test_directions.py
def test_mezo_moves_along_the_gradient_on_average(kind):
    gradient = torch.tensor([3.0, -1, 4, 1, -5, 9, 2, -6]).double()
    steps, lr = 1500, 2.0**-10
    optimizer = MeZO(vector([0.0] * 8), lr=lr, eps=EPS, directions=kind)
    moves, last = [], torch.zeros(8).double()
    for t in range(steps):
        # The loss is linear, so that it may be taken at 0 in every step.
        optimizer.tell(t, linear_losses(optimizer, t, gradient, torch.zeros(8).double()))
        now = optimizer.weights.tensors["w"].detach().double()
        moves.append((now - last) / -lr)
        last = now
    moves = torch.stack(moves)
    error = moves.std(0) / math.sqrt(steps)
    assert (
        (moves.mean(0) - gradient).abs() < 4 * error
    ).all()  # 4 σ in 8 numbers: one in 2,000 fails by chance
    assert error.max() < 0.6


@pytest.mark.parametrize("n", [2, 4])
def test_n_directions_are_the_mean_of_n_moves(n):
    losses = [(3 * i * i % 7) / 8 + 1 for i in range(2 * n)]
    together = MeZO(vector([0.0] * 50), lr=2.0**-5, eps=EPS, n=n, directions="rademacher")
    together.tell(0, losses)
    total = torch.zeros(50)
    for i in range(n):
        single = MeZO(vector([0.0] * 50), lr=2.0**-5, eps=EPS, directions="rademacher")
        slope = central_difference(losses[2 * i], losses[2 * i + 1], EPS)
        single.weights.move([(Key(0, 0, i), -(2.0**-5) * slope)], single.directions)
        total += single.weights.tensors["w"].detach() / n
    assert torch.equal(together.weights.tensors["w"].detach(), total)


def test_mezo_reports_the_mean_loss_and_the_slope():
    optimizer = MeZO(vector([0.0] * 4), eps=0.5, n=2, lr=0.25)
    seen = optimizer.tell(0, [3.0, 1.0, 5.0, 5.0])
    assert seen["loss"] == 3.5
    assert seen["projected_gradient"] == pytest.approx(math.sqrt(2.0))  # slopes 2 and 0
    assert seen["lr"] == 0.25


def test_mezo_asks_for_both_sides_of_each_direction():
    optimizer = MeZO(vector([0.0] * 4), eps=0.5, n=2, seed=7)
    assert optimizer.ask(3) == [Probe(((Key(7, 3, i), s),)) for i in (0, 1) for s in (0.5, -0.5)]


# FZOO


def c4(n):
    """E[s] of n standard normals, s with ddof 1."""
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def expected_share(n):
    """E of FZOO's move along the gradient in units of lr, for a ~ N(0, 1)^n and ddof 1 (needs n > 2)."""
    ratio = math.exp(math.lgamma((n - 2) / 2) - math.lgamma((n - 1) / 2))
    return (n - 1) / n * c4(n) + math.sqrt((n - 1) / 2) * ratio / n


@pytest.mark.parametrize("n, scale", [(4, 1.0), (8, 1.0), (16, 1.0), (8, 1e-4)])
def test_fzoo_moves_by_about_its_learning_rate_along_the_gradient(n, scale):
    """The slopes of Gaussian directions are normal; the move along g is lr times a closed form, whatever ‖g‖."""
    gradient = scale * torch.tensor([3.0, -1, 4, 1, -5, 9, 2, -6]).double()
    unit = gradient / gradient.norm()
    steps, lr = 1000, 2.0**-6
    optimizer = FZOO(vector([0.0] * 8), lr=lr, eps=EPS, n=n, directions="gaussian", floor=0.0)
    shares, last = [], 0.0
    for t in range(steps):
        optimizer.tell(t, linear_losses(optimizer, t, gradient, torch.zeros(8).double()))
        now = (optimizer.weights.tensors["w"].detach().double() * unit).sum().item()
        shares.append((last - now) / lr)
        last = now
    error = statistics.stdev(shares) / math.sqrt(steps)
    assert abs(statistics.mean(shares) - expected_share(n)) < 4 * error
    assert error < 0.04  # small enough to tell ddof 1 from ddof 0 (7 % at n = 8)


def test_closed_form_at_the_papers_n():
    assert expected_share(8) == pytest.approx(0.985, abs=5e-4)


def test_fzoo_by_hand():
    """l₀ = 1, lᵢ = 1, 2, 3, 6: σ² = 14/3; θ = −lr Σ (lᵢ − l₀) / (N σ) uᵢ."""
    for ddof, variance in ((1, 14 / 3), (0, 14 / 4)):
        optimizer = FZOO(vector([0.0] * 20), lr=0.5, n=4, ddof=ddof)  # pyright: ignore[reportArgumentType]
        seen = optimizer.tell(0, [1.0, 1.0, 2.0, 3.0, 6.0])
        assert seen["loss"] == 1.0
        assert seen["sigma"] == pytest.approx(math.sqrt(variance), rel=1e-15)
        expected = sum(
            -0.5 * (loss - 1.0) / (4 * math.sqrt(variance)) * direction(optimizer, key)
            for loss, key in zip([1.0, 2.0, 3.0, 6.0], optimizer.keys(0), strict=True)
        )
        # Four fp32 products and sums of numbers below 1.
        torch.testing.assert_close(optimizer.weights.tensors["w"].double(), expected, rtol=0, atol=8 * 2**-24)


@pytest.mark.parametrize("factor", [2.0**-6, 2.0, 2.0**10])
def test_fzoo_does_not_see_the_scale_of_the_loss(factor):
    losses = [1.25, 1.5, 1.0, 3.75, 2.125]
    results = []
    for c in (1.0, factor):
        optimizer = FZOO(vector(torch.arange(30.0)), lr=0.01, n=4)
        optimizer.tell(0, [c * loss for loss in losses])
        results.append(optimizer.weights.tensors["w"].detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("spread, idle", [(0.0, True), (2.0**-28, True), (2.0**-20, False)])
def test_fzoo_is_idle_at_the_floor(spread, idle):
    optimizer = FZOO(vector([1.0] * 8), lr=0.25, n=4, weight_decay=0.5, floor=1e-8)
    optimizer.tell(0, [7.0, 1.0, 1.0 + spread, 1.0, 1.0 + spread])
    assert optimizer.idle == idle
    assert torch.equal(optimizer.weights.tensors["w"].detach(), torch.ones(8)) == idle  # not even decay


def test_fzoo_clips():
    optimizer = FZOO(vector([0.0] * 40), lr=0.5, n=4, clip=1.0)
    optimizer.tell(0, [0.0, 10.0, 10.5, 11.0, -9.0])  # σ about 9.8: coefficients 1.02, 1.07, 1.12, -0.92
    plain = FZOO(vector([0.0] * 40), lr=0.5, n=4)
    sigma = plain.tell(0, [0.0, 10.0, 10.5, 11.0, -9.0])["sigma"]
    keys = optimizer.keys(0)
    expected = sum(
        -0.125 * c * direction(optimizer, key) for c, key in zip([1, 1, 1, -9.0 / sigma], keys, strict=True)
    )
    torch.testing.assert_close(optimizer.weights.tensors["w"].double(), expected, rtol=0, atol=4 * 2**-24)
    assert not torch.equal(optimizer.weights.tensors["w"], plain.weights.tensors["w"])


def test_fzoo_asks_for_the_point_and_one_side():
    optimizer = FZOO(vector([0.0] * 4), eps=0.5, n=4, seed=7)
    assert optimizer.ask(3) == [Probe(), *(Probe(((Key(7, 3, i), 0.5),)) for i in range(4))]


# Estimators


def test_differences():
    assert central_difference(3.0, 1.0, 0.25) == 4.0
    assert forward_difference(3.0, 1.0, 0.25) == 8.0


@pytest.mark.parametrize("ddof, exact", [(1, statistics.stdev), (0, statistics.pstdev)])
@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0**20, -(2.0**30)])
def test_deviation_with_a_large_common_offset(offset, ddof, exact):
    """statistics works in exact fractions; the offset is a power of two and the losses lie on a grid."""
    pick = random.Random(0)
    for n in (2, 3, 8, 33):
        losses = [offset + pick.randrange(1 << 12) / (1 << 12) for _ in range(n)]
        assert deviation(losses, ddof) == pytest.approx(exact(losses), rel=4e-16 * n)


def test_deviation_of_equal_losses_is_zero():
    assert deviation([0.1] * 7, 1) == 0.0

"""FZOOAblation's options and FZOO-R against their formulas."""

import math
import statistics

import pytest
import torch
from torch import nn

from zo import FZOOR, ConfigError, FZOOAblation, JournalError, Weights
from zo.directions import Probe
from zo.noise import philox

EPS = 2.0**-10
LR = 2.0**-7


def made(kind: type = FZOOAblation, **options):
    return kind(Weights([("w", nn.Parameter(torch.zeros(40)))]), **{"lr": LR, "eps": EPS, **options})


def told(count, t=0):
    g = torch.Generator().manual_seed(t)
    return (1 + torch.randint(0, 1024, (count,), generator=g) / 4096).tolist()


def at(optimizer):
    return optimizer.weights.tensors["w"].detach().double().clone()


def signs(optimizer, t):
    """u_i in float64, [directions, 40]."""
    words = [key.word for key in optimizer.keys(t)]
    return philox.noise(words, optimizer.weights.ids["w"], philox.SIGNS, 0, 40, torch.device("cpu")).double()


def close(optimizer, expected):
    # A coefficient and a product in fp32 for each term, and their sums.
    torch.testing.assert_close(at(optimizer), expected, rtol=1e-6, atol=1e-8)


def test_the_others_are_the_baseline():
    """l_i − (mean of the others), one by one; no loss at θ is asked for."""
    one = made(n=5, baseline="others")
    losses = told(5)
    assert Probe() not in one.ask(0)
    assert one.forward_passes == one.losses_per_step == len(one.ask(0)) == 5
    one.tell(0, losses)
    sigma = statistics.stdev(losses)
    c = [(x - (sum(losses) - x) / 4) / sigma for x in losses]
    close(one, -LR / 5 * (torch.tensor(c).double()[:, None] * signs(one, 0)).sum(0))


def test_the_others_agree_with_the_loss_in_the_middle():
    """Where l_0 is the mean of the losses, the others' baseline is N/(N − 1) times it: the same but for the rate."""
    losses = [1.0, 1.5, 0.5, 1.25, 0.75, 1.0]
    one, other = made(n=6), made(n=6, baseline="others", lr=LR * 5 / 6)
    one.tell(0, [1.0, *losses])
    other.tell(0, losses)
    close(one, at(other))


def test_pairs():
    """d_i = (l⁺ − l⁻)/2, σ² their mean square."""
    one = made(n=6, sides="two")
    losses = told(6)
    assert [probe.terms[0][1] for probe in one.ask(0)] == [EPS, -EPS] * 3
    assert one.forward_passes == one.losses_per_step == 6 and len(one.keys(0)) == 3
    one.tell(0, losses)
    d = torch.tensor(losses).double().view(3, 2)
    d = (d[:, 0] - d[:, 1]) / 2
    close(one, -LR / 3 * (d[:, None] * signs(one, 0)).sum(0) / d.square().mean().sqrt())


@pytest.mark.parametrize(
    "options, expected", [({}, 0.985), ({"sides": "two"}, 0.940), ({"baseline": "others"}, 0.965)]
)
def test_every_variant_steps_by_its_rate_along_the_gradient(options, expected):
    """On a linear loss the mean component along the gradient is about η, whatever its size: that of normalised SGD.

    With N = 8 slopes a ~ N(0, 1): E s = c4(8) for the others' baseline, E √(mean a²) of four for pairs, and a little
    more than c4 where l_0 is the baseline, because Σ a_i² / s also counts their mean.
    """
    slope = torch.randn(40, generator=torch.Generator().manual_seed(1)).double()
    one = made(n=8, **options)
    along = []
    for t in range(1500):
        before = at(one)
        u = signs(one, t)
        by_key = dict(zip(one.keys(t), (u @ slope).tolist(), strict=True))
        one.tell(t, [3.0 + sum(scale * by_key[key] for key, scale in probe.terms) for probe in one.ask(t)])
        along.append(-((at(one) - before) @ slope / slope.norm()).item() / LR)
    error = statistics.stdev(along) / math.sqrt(len(along))
    assert statistics.mean(along) == pytest.approx(expected, abs=0.01 + 3 * error)


def test_the_running_spread_is_the_mean_of_earlier_ones():
    one = made(n=2, sides="two", running=0.75, directions="rademacher")
    assert len(one.keys(0)) == 1
    squares = []
    expected = torch.zeros(40).double()
    for t in range(4):
        plus, minus = told(2, t)
        d = (plus - minus) / 2
        squares.append(d * d)
        weights = [0.75**k for k in reversed(range(len(squares)))]
        sigma = math.sqrt(sum(w * s for w, s in zip(weights, squares, strict=True)) / sum(weights))
        expected -= LR * d / sigma * signs(one, t)[0]
        one.tell(t, [plus, minus])
        close(one, expected)


def test_one_pair_without_memory_is_the_sign_of_the_slope():
    one = made(n=2, sides="two")
    one.tell(0, [1.5, 1.25])
    assert torch.equal(at(one), -LR * signs(one, 0)[0])


def test_the_first_step_of_fzoor_is_fzoo():
    """Of N/2 directions: there are no losses before it. Later steps differ by the spread alone."""
    one, half = made(FZOOR, n=8), made(n=4)
    for t in range(2):
        losses = told(5, t)
        before = at(one), at(half)
        one.tell(t, losses)
        half.tell(t, losses)
        if t == 0:
            assert torch.equal(at(one), at(half))
    moved, plain = at(one) - before[0], at(half) - before[1]
    old, new = ([x - losses[0] for x in losses[1:]] for losses in (told(5, 0), told(5, 1)))
    ratio = statistics.stdev(new) / statistics.stdev([*old, *new])
    torch.testing.assert_close(moved, plain * ratio, rtol=1e-5, atol=1e-7)
    assert one.forward_passes == one.losses_per_step == len(one.ask(0)) == 5


def test_fzoor_moves_along_old_directions_when_asked():
    one = made(FZOOR, n=8, reuse="directions")
    one.tell(0, told(5, 0))
    before = at(one)
    one.tell(1, told(5, 1))
    x = torch.tensor([[loss - told(5, t)[0] for loss in told(5, t)[1:]] for t in (0, 1)]).double().flatten()
    u = torch.cat([signs(one, 0), signs(one, 1)])
    close(one, before - LR / 8 * (x[:, None] * u).sum(0) / x.std())


def test_what_the_batch_adds_to_every_loss_of_a_step_does_not_matter_to_fzoor():
    one, other = made(FZOOR), made(FZOOR)
    for t in range(3):
        one.tell(t, told(5, t))
        other.tell(t, [loss + 4.0 * t for loss in told(5, t)])
    assert torch.equal(at(one), at(other))


@pytest.mark.parametrize(
    "kind, options",
    [(FZOOAblation, {}), (FZOOAblation, {"sides": "two"}), (FZOOAblation, {"baseline": "others"}),
     (FZOOAblation, {"running": 0.5}),
     (FZOOR, {}), (FZOOR, {"reuse": "directions"})],
)  # fmt: skip
@pytest.mark.parametrize("factor", [0.125, 32.0])
def test_the_scale_of_the_losses_does_not_matter(kind, options, factor):
    """A power of two: exact."""
    one, other = made(kind, **options), made(kind, **options)
    for t in range(3):
        losses = told(one.losses_per_step, t)
        one.tell(t, losses)
        other.tell(t, [factor * loss for loss in losses])
    assert torch.equal(at(one), at(other))
    assert at(one).any()


@pytest.mark.parametrize(
    "kind, options",
    [(FZOOAblation, {"running": 0.5}), (FZOOAblation, {"running": 0.5, "sides": "two"}), (FZOOR, {})],
)
def test_what_is_kept_survives_a_snapshot(kind, options):
    whole, first, second = (made(kind, **options) for _ in range(3))
    for t in range(4):
        whole.tell(t, told(whole.losses_per_step, t))
        (first if t < 2 else second).tell(t, told(whole.losses_per_step, t))
        if t == 1:
            second.weights.load(first.weights.state())
            second.load({name: tensor.clone() for name, tensor in first.state().items()})
    assert torch.equal(at(whole), at(second))
    assert made().state() == {}
    with pytest.raises(JournalError, match="belongs to another"):
        made().load(first.state())


@pytest.mark.parametrize("kind, options", [(FZOOAblation, {"running": 0.5}), (FZOOR, {})])
def test_a_skipped_step_leaves_what_is_kept(kind, options):
    one, other = (made(kind, on_nan="skip", **options) for _ in range(2))
    for optimizer in (one, other):
        optimizer.tell(0, told(optimizer.losses_per_step, 0))
    one.tell(1, [math.nan] * one.losses_per_step)
    for optimizer in (one, other):
        optimizer.tell(2, told(optimizer.losses_per_step, 2))
    assert torch.equal(at(one), at(other))


@pytest.mark.parametrize(
    "kind, options, message",
    [
        (FZOOAblation, {"sides": "both"}, "sides = 'both'"),
        (FZOOAblation, {"sides": "two", "n": 7}, "even"),
        (FZOOAblation, {"baseline": "mean"}, "baseline = 'mean'"),
        (FZOOAblation, {"baseline": "others", "sides": "two"}, "other side"),
        (FZOOAblation, {"running": 1.0}, "running = 1.0"),
        (FZOOR, {"n": 2}, "at least 4"),
        (FZOOR, {"n": 9}, "even"),
        (FZOOR, {"reuse": "all"}, "reuse = 'all'"),
    ],
)
def test_wrong_arguments_are_named(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        made(kind, **options)

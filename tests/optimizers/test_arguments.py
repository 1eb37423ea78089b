"""Ranges of every argument, weight decay, schedules."""

import math
import warnings

import pytest
import torch
from torch import nn

from zo import (
    FZOO,
    HELENE,
    SGD,
    AdaMeZO,
    AdamW,
    ConfigError,
    Constant,
    Cosine,
    HiZOO,
    Linear,
    MeZO,
    MeZOMomentum,
    Weights,
    ZOAdaMU,
)


def module():
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: MeZO(module(), eps=0.0), r"optimizer\.eps = 0\.0"),
        (lambda: MeZO(module(), eps=-1e-3), r"optimizer\.eps"),
        (lambda: MeZO(module(), eps=math.nan), r"optimizer\.eps"),
        (lambda: MeZO(module(), eps=math.inf), r"optimizer\.eps"),
        (lambda: MeZO(module(), n=0), r"optimizer\.n = 0"),
        (lambda: MeZO(module(), directions="spheres"), "rademacher, gaussian"),
        (lambda: MeZO(module(), n=2.5), r"optimizer\.n = 2\.5 must be a whole"),  # type: ignore[arg-type]
        (lambda: MeZO(module(), n=True), r"optimizer\.n = True must be a whole number"),
        (lambda: MeZOMomentum(module(), momentum=0.5, horizon=2.5), r"optimizer\.horizon = 2\.5"),  # type: ignore[arg-type]
        (lambda: MeZO(module(), directions={"kind": ["a"]}), r"directions = \['a'\] is none of rademacher"),
        (lambda: MeZO(module(), directions={"kind": "lowrank", "rank": 1.5}), r"rank = 1\.5 must be a whole"),
        (
            lambda: MeZO(module(), directions={"kind": "lowrank", "every": 2.5}),
            r"every = 2\.5 must be a whole",
        ),
        (
            lambda: MeZO(module(), directions={"kind": "subspace", "rank": 1.5}),
            r"rank = 1\.5 must be a whole",
        ),
        (lambda: MeZO(module(), seed=1 << 63), r"seed = 9223372036854775808 must be a whole number"),
        (lambda: MeZO(module(), seed=0.5), r"seed = 0\.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: AdamW(module(), seed=None), r"seed = None must be a whole number"),  # type: ignore[arg-type]
        (lambda: MeZO(module(), lr=0.5, weight_decay=2.5), r"lr = 0\.5 times optimizer\.weight_decay = 2\.5"),
        (lambda: HELENE(module(), refresh=1.5), r"optimizer\.refresh = 1\.5"),  # type: ignore[arg-type]
        (lambda: HiZOO(module(), smooth_steps=0), r"optimizer\.smooth_steps = 0"),
        (lambda: AdaMeZO(module(), horizon=2.5), r"optimizer\.horizon = 2\.5"),  # type: ignore[arg-type]
        (lambda: AdaMeZO(module(), warmup=1.5), r"optimizer\.warmup = 1\.5"),  # type: ignore[arg-type]
        (lambda: ZOAdaMU(module(), warmup=5, annealed=5), r"optimizer\.annealed = 5 must .* at least 6"),
        (lambda: FZOO(module(), n=8.0), r"optimizer\.n = 8\.0"),  # type: ignore[arg-type]
        (lambda: FZOO(module(), eps=0.0), r"optimizer\.eps = 0\.0"),
        (lambda: FZOO(module(), n=1), r"optimizer\.n = 1.*at least 2"),
        (lambda: FZOO(module(), n=0), r"optimizer\.n = 0"),
        (lambda: FZOO(module(), n=-3), r"optimizer\.n = -3"),
        (lambda: FZOO(module(), ddof=2), r"optimizer\.ddof = 2"),  # pyright: ignore[reportArgumentType]
        (lambda: FZOO(module(), ddof=-1), r"optimizer\.ddof"),  # pyright: ignore[reportArgumentType]
        (lambda: FZOO(module(), floor=-1e-9), r"optimizer\.floor"),
        (lambda: FZOO(module(), floor=math.nan), r"optimizer\.floor"),
        (lambda: FZOO(module(), clip=0.0), r"optimizer\.clip"),
        (lambda: FZOO(module(), clip=-1.0), r"optimizer\.clip"),
        (lambda: FZOO(module(), clip=math.nan), r"optimizer\.clip"),
        (lambda: AdamW(module(), betas=(1.0, 0.9)), r"optimizer\.betas"),
        (lambda: AdamW(module(), betas=(0.9, -0.1)), r"optimizer\.betas"),
        (lambda: AdamW(module(), betas=(0.9,)), r"optimizer\.betas"),  # type: ignore[arg-type]
        (lambda: AdamW(module(), eps=0.0), r"optimizer\.eps"),
        (lambda: AdamW(module(), eps=math.nan), r"optimizer\.eps"),
        (lambda: AdamW(module(), clip=0.0), r"optimizer\.clip"),
        (lambda: AdamW(module(), clip=math.nan), r"optimizer\.clip"),
        (lambda: SGD(module(), momentum=1.0), r"optimizer\.momentum"),
        (lambda: SGD(module(), momentum=-0.1), r"optimizer\.momentum"),
        (lambda: SGD(module(), clip=-1.0), r"optimizer\.clip"),
        (lambda: Linear(warmup=1.0), r"schedule\.warmup"),
        (lambda: Linear(warmup=-0.1), r"schedule\.warmup"),
        (lambda: Cosine(end=1.5), r"schedule\.end"),
        (lambda: Linear(end=-0.1), r"schedule\.end"),
        (lambda: Constant(warmup=math.nan), r"schedule\.warmup"),
    ],
)
def test_out_of_range(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("n", [2, 3])
def test_few_directions_of_fzoo_warn_at_the_caller(n):
    with pytest.warns(UserWarning, match=f"n = {n}: with fewer than 4") as caught:
        FZOO(module(), n=n)
    assert caught[0].filename == __file__


def test_four_directions_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FZOO(module(), n=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_eps_below_the_resolution_warns(dtype):
    model = nn.Linear(64, 64, bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(64, 64))
    with pytest.warns(UserWarning, match="eps = 1e-06 is below the resolution of most entries of weight"):
        MeZO(model, eps=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MeZO(model, eps=0.1)
        MeZO(nn.Linear(64, 64), eps=1e-6)


# Weight decay


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(4, 4)
        self.layer_norm, self.final_layernorm, self.norm = nn.LayerNorm(4), nn.LayerNorm(4), nn.RMSNorm(4)
        self.LayerNorm = nn.LayerNorm(4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(1.0)


SPARED = {
    "proj.bias", "layer_norm.weight", "layer_norm.bias", "final_layernorm.weight", "final_layernorm.bias",
    "norm.weight", "LayerNorm.weight", "LayerNorm.bias",
}  # fmt: skip


def decayed(model, value):
    for name, parameter in model.named_parameters():
        expected = 1.0 if name in SPARED else value
        assert torch.equal(parameter.detach(), torch.full_like(parameter, expected)), name


def test_decay_of_a_whole_weight_is_the_most():
    model = Named()
    MeZO(model, lr=0.5, weight_decay=2.0).tell(0, [1.0, 1.0])
    decayed(model, 0.0)


def test_decay_of_mezo_in_closed_form():
    """With equal losses θ ← (1 − ηλ) θ; exact with powers of two. Biases and norms are spared."""
    model = Named()
    optimizer = MeZO(model, lr=0.5, weight_decay=0.25)
    for t in range(3):
        optimizer.tell(t, [1.0, 1.0])
    decayed(model, 0.875**3)


def test_decay_of_fzoo_is_added_to_its_move():
    one, other = Named(), Named()
    plain, decaying = FZOO(one, lr=0.5, n=4), FZOO(other, lr=0.5, n=4, weight_decay=0.25)
    losses = [1.0, 1.0, 2.0, 3.0, 6.0]
    plain.tell(0, losses)
    decaying.tell(0, losses)
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        # 1 + Σ and 0.875 + Σ are rounded at 2⁻²⁴ of numbers below 2.
        torch.testing.assert_close(
            a - b, torch.full_like(a, 0.0 if name in SPARED else 0.125), rtol=0, atol=2**-22
        )


@pytest.mark.parametrize("kind", [AdamW, SGD])
def test_decay_of_first_order_methods_spares_the_same(kind):
    model = Named()
    optimizer = kind(model, lr=0.5, weight_decay=0.25)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.tell(0, [1.0])
    decayed(model, 0.875)  # SGD adds λθ to a gradient of 0: the same


def test_decay_follows_the_schedule():
    model = Named()
    optimizer = MeZO(model, lr=lambda t: 0.5 if t == 0 else 0.0, weight_decay=0.25)
    for t in range(4):
        optimizer.tell(t, [1.0, 1.0])
    decayed(model, 0.875)
    optimizer.tell(4, [1.0, 1.0], lr=0.5)  # a rate that is told replaces the schedule's
    decayed(model, 0.875**2)


# Schedules


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_closed_forms(progress):
    assert Constant()(progress) == 1.0
    assert Linear()(progress) == pytest.approx(1 - progress, rel=1e-15)
    assert Linear(end=0.25)(progress) == pytest.approx(1 - 0.75 * progress, rel=1e-15)
    assert Cosine()(progress) == pytest.approx((1 + math.cos(math.pi * progress)) / 2, rel=1e-15)
    assert Cosine(end=0.1)(progress) == pytest.approx(
        0.1 + 0.45 * (1 + math.cos(math.pi * progress)), rel=1e-15
    )


@pytest.mark.parametrize("schedule", [Constant(0.2), Linear(0.2), Cosine(0.2)])
def test_warm_up_rises_from_zero_to_one(schedule):
    assert [schedule(p) for p in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0.0, 0.25, 0.5, 1.0])
    assert schedule(1.0) == (1.0 if isinstance(schedule, Constant) else 0.0)
    assert schedule(-1.0) == 0.0 and schedule(2.0) == schedule(1.0)


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_over_steps(kind, steps):
    """The first step is at the full rate, the last above the end: no step is wasted at 0."""
    rate = kind().over(0.5, steps)
    values = [rate(t) for t in range(steps)]
    assert values[0] == 0.5
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0.0


def test_over_steps_with_warm_up():
    rate = Linear(warmup=0.1).over(1.0, 100)
    values = [rate(t) for t in range(100)]
    assert values[:10] == pytest.approx([(t + 1) / 10 for t in range(10)])
    assert values[10] == pytest.approx(1.0)
    assert min(values) > 0.0
    assert values[55] == pytest.approx(0.5)


def test_a_schedule_drives_an_optimizer():
    model = nn.Linear(2, 1)
    optimizer = SGD(model, lr=Linear().over(0.5, 10))
    assert optimizer.rate(0) == 0.5
    assert optimizer.rate(5) == 0.25
    weights = Weights(model)
    assert SGD(weights, lr=0.125).rate(7) == 0.125

"""How 16-bit weights take small moves, through an optimizer."""

import math
import warnings

import pytest
import torch
from torch import nn

from zo import FZOO, ConfigError, Diverged, Key, MeZO, Weights
from zo.directions import directions
from zo.kernels import rounding
from zo.kernels.formulas import Formula

EPS = 2.0**-7


def parameters(dtype, rows=64, columns=64, seed=0):
    values = 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return [("w", nn.Parameter(values.to(dtype)))]


def optimizer(
    dtype=torch.bfloat16,
    update="nearest",
    kernels="auto",
    lr=1e-3,
    kind: type[MeZO] | type[FZOO] = MeZO,
    **options,
):
    return kind(Weights(parameters(dtype), update=update, kernels=kernels), lr=lr, eps=EPS, **options)


def told(one, t, size):
    """Moves by `size` in every entry: the slope is 1 and the rate says how far."""
    one.tell(t, [EPS, -EPS], lr=size)


@pytest.mark.parametrize("size, low, high", [(1e-5, 0.13, 0.18), (1e-7, 0.001, 0.006)])
def test_nearest_loses_small_moves(size, low, high):
    """A fact, and why there are other ways: N(0, 0.02) weights in bfloat16 mostly do not notice."""
    one = MeZO(Weights([("w", parameters(torch.bfloat16, 256, 256)[0][1])]), eps=EPS, directions="rademacher")
    before = one.weights.tensors["w"].detach().clone()
    told(one, 0, size)
    moved = (one.weights.tensors["w"] != before).float().mean().item()
    assert low < moved < high


@pytest.mark.parametrize("kernels", ["eager", "auto"])
@pytest.mark.parametrize("elementwise", [False, True])
def test_a_decay_below_the_resolution_of_fp32_acts_in_the_mean(kernels, elementwise):
    """η λ of 1e-8: a factor of 1 − 1e-8 is 1 in fp32, but a hundred steps among moves take 1e-6 of the weights off."""
    with_decay, without = (
        Weights([("w", nn.Parameter(torch.full((20_000,), 1.25)))], kernels=kernels) for _ in range(2)
    )
    for t in range(100):
        for weights, decay in ((with_decay, 1e-8), (without, 0.0)):
            key, kind = Key(0, t, 0), directions("gaussian")
            if elementwise:
                rule = Formula(lambda at: at.noise[0] * 1e-3)
                weights.elementwise(rule, [key], kind, decay=decay)
            else:
                weights.move([(key, 1e-3)], kind, decay=decay)
    taken = (without.tensors["w"] - with_decay.tensors["w"]).double().mean().item()
    # An entry's own error is some half of 2^-23 a step, in either run: 1e-8 of the mean is three deviations.
    assert taken == pytest.approx(1.25e-6, abs=1e-8)


def test_stochastic_keeps_the_mean_of_small_moves():
    steps, size = 40, 1e-5
    moves = {}
    for update in ("nearest", "stochastic"):
        one = MeZO(
            Weights(parameters(torch.bfloat16, 256, 256), update=update), eps=EPS, directions="rademacher"
        )
        start = one.weights.tensors["w"].detach().float().clone()
        signs = torch.zeros_like(start)
        for t in range(steps):
            point = Weights([("w", nn.Parameter(torch.zeros(256, 256)))])
            signs += point.at("w", one.ask(t)[0], one.directions).sign()
            told(one, t, size)
        wanted = -size * signs
        moved = one.weights.tensors["w"].detach().float() - start
        moves[update] = ((moved * wanted).sum() / wanted.square().sum()).item()
    # 1 within the noise of rounding: it adds a variance of at most move · ulp, ulp about 2⁻⁷ · 0.02, per step and
    # entry, so the share's standard error is about √(ulp / size / (steps · entries)) = 0.003.
    assert moves["stochastic"] == pytest.approx(1.0, abs=0.015)
    assert abs(moves["nearest"] - 1.0) > 0.05


def test_stochastic_rounding_is_named():
    """The same step rounds the same way; another step another way."""

    def after(steps):
        one = optimizer(update="stochastic")
        for t in steps:
            told(one, t, 1e-4)
        return one.weights.tensors["w"].detach()

    assert torch.equal(after([0]), after([0]))
    assert not torch.equal(after([0, 2]), after([0, 4]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [MeZO, FZOO])
def test_master_is_the_fp32_run(kind, dtype):
    """Weight and what is kept beside it are together the fp32 weights, bit for bit, whatever the moves.

    In float16 of all weights that stay at 2^-16 or above; the others are rounded to multiples of 2^-39 at every step.
    """
    n = 4
    low = kind(Weights(parameters(dtype), update="master"), lr=1e-4, eps=EPS, n=n)
    wide = parameters(dtype)[0][1].detach().float()
    high = kind(Weights([("w", nn.Parameter(wide))]), lr=1e-4, eps=EPS, n=n)
    g = torch.Generator().manual_seed(1)
    for t in range(8):
        losses = (1 + 0.01 * torch.randn(low.losses_per_step, generator=g)).tolist()
        low.tell(t, losses)
        high.tell(t, losses)
    joined = rounding.join(low.weights.tensors["w"].detach(), low.weights.low["w"])
    end = high.weights.tensors["w"].detach()
    large = (wide.abs() > 2e-3) | (
        dtype == torch.bfloat16
    )  # these stay large: the moves add up to less than 2e-3
    assert large.float().mean() > 0.8
    assert torch.equal(joined[large], end[large])
    torch.testing.assert_close(joined, end, rtol=0.0, atol=8 * 2.0**-39)
    assert (low.weights.low["w"] != 0).float().mean() > 0.9


def test_master_survives_state_and_load():
    one = optimizer(update="master")
    told(one, 0, 1e-5)
    state = {name: tensor.clone() for name, tensor in one.weights.state().items()}
    assert sorted(state) == ["low:w", "w"]
    other = optimizer(update="master")
    other.weights.load(state)
    for optimizer_ in (one, other):
        told(optimizer_, 1, 1e-5)
    assert torch.equal(one.weights.low["w"], other.weights.low["w"])
    assert one.weights.sha256() == other.weights.sha256()


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="'up' is none of auto, nearest, stochastic, master"):
        Weights(parameters(torch.bfloat16), update="up")
    with pytest.raises(ConfigError, match="'up' is none of auto, nearest, stochastic, master"):
        Weights(parameters(torch.float32), update="up")
    with pytest.raises(ConfigError, match="fast"):
        Weights(parameters(torch.float32), kernels="fast")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_vectors_of_sixteen_bit_models_move_in_fp32(dtype):
    """Many moves far below the spacing at 1 add up in the copy; the model holds the rounded copy."""
    bias = nn.Parameter(torch.ones(100, dtype=dtype))
    weights = Weights([("bias", bias)])
    one = MeZO(weights, lr=1.0, eps=EPS, directions="rademacher")
    z = weights.at("bias", one.ask(0)[0], one.directions) - 1
    for _ in range(64):
        weights.move([(one.keys(0)[0], 2.0**-13)], one.directions)
    assert torch.equal(weights.copies["bias"], 1 + 2.0**-7 * z.sign())
    assert torch.equal(bias.detach(), weights.copies["bias"].to(dtype))
    weights.load({name: tensor.clone() for name, tensor in weights.state().items()})
    alone = Weights([("bias", nn.Parameter(torch.ones(100, dtype=dtype)))], copies=False)
    for _ in range(64):
        alone.move([(one.keys(0)[0], 2.0**-13)], one.directions)
    assert torch.equal(alone.tensors["bias"].detach().float(), torch.ones(100))  # all lost


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forms_of_the_kernels_give_the_same_run(dtype):
    results = []
    for kernels in ("eager", "native"):
        try:
            one = optimizer(dtype, "stochastic", kernels, kind=FZOO, n=4, weight_decay=0.1)
        except ConfigError as error:
            pytest.skip(str(error))
        for t in range(4):
            one.tell(t, [1.0, 1.5, 0.5, 2.0 + t, 1.25])
        results.append(one.weights.sha256())
    assert results[0] == results[1]


@pytest.mark.parametrize("update, warns", [("nearest", True), ("stochastic", False), ("master", False)])
def test_moves_far_below_the_resolution_are_said_once(update, warns):
    """Typical entries are 0.02, their spacing in bfloat16 about 0.02 · 2⁻⁷ = 1.6e-4; a tenth of it is 1.6e-5."""
    one = optimizer(update=update)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        told(one, 0, 1e-6)
        told(one, 1, 1e-6)
    assert [("rounded to nearest" in str(w.message)) for w in seen] == [True] * warns
    fine = optimizer(update=update)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        told(fine, 0, 1e-4)
    assert not seen


@pytest.mark.parametrize(("eps", "says", "not_says"), [
    (1e-9, "eps = 1e-09 is below the resolution of most entries of w.*Raise eps", "too large"),
    (EPS, "learning rate is too large.*eps is too large.*eps is too small, and rounding", "below the resolution"),
])  # fmt: skip
def test_a_divergence_names_an_eps_that_is_too_small(eps, says, not_says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = MeZO(Weights(parameters(torch.bfloat16)), lr=1e-3, eps=eps)
    with pytest.raises(Diverged, match=says) as error:
        one.tell(0, [math.nan, 1.0])
    assert not_says not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_auto_is_nearest_and_the_16_bit_weight_is_what_is_probed(dtype):
    auto, nearest = (Weights(parameters(dtype), update=update) for update in ("auto", "nearest"))
    assert (auto.update, auto.stated, nearest.stated) == ("nearest", False, True)
    results = []
    for update in ("auto", "nearest"):
        one = optimizer(dtype, update)
        told(one, 0, 1e-3)
        results.append(one.weights.sha256())
    assert results[0] == results[1]
    master = MeZO(Weights(parameters(dtype), update="master"), lr=1e-5, eps=EPS)
    master.tell(0, [1.0, 0.9])
    (plus, _), name = master.ask(1), "w"
    probed = master.weights.at(name, plus, master.directions)
    z = master.weights.direction(name, plus.terms[0][0], master.directions)
    weight = master.weights.tensors[name].detach()
    assert master.weights.low[name].any()
    assert torch.equal(probed, (weight.float() + z * plus.terms[0][1]).to(dtype))

"""AdaMeZO against MeZO, against Adam, and against itself on other scales, windows and forms."""

import math
import warnings

import pytest
import torch
from torch import nn

from zo import AdaMeZO, ConfigError, JournalError, MeZO, Weights, ZOAdam
from zo.kernels.adam_window import f32
from zo.noise import philox

EPS = 2.0**-10
BETAS = (0.7, 0.9)


def parameters(dtype=torch.float32, d=300):
    values = torch.randn(d, 2, generator=torch.Generator().manual_seed(0))
    return [("w", nn.Parameter(values.to(dtype)))]


def made(kind: type = AdaMeZO, dtype=torch.float32, kernels="eager", update="nearest", **options):
    weights = Weights(parameters(dtype), kernels=kernels, update=update)
    return kind(weights, **{"lr": 1e-3, "eps": EPS, **options})


def told(t, n=1, scale=1.0):
    g = torch.Generator().manual_seed(100 + t)
    return (scale * (2 + torch.randint(-512, 512, (2 * n,), generator=g) / 1024)).tolist()


def after(optimizer, steps, start=0, scale=1.0):
    for t in range(start, start + steps):
        optimizer.tell(t, told(t, optimizer.n, scale))
    return optimizer.weights.tensors["w"].detach().clone()


def gradient(optimizer, t):
    """g_t in float64."""
    losses = told(t, optimizer.n)
    weights = optimizer.weights
    words = [key.word for key in optimizer.keys(t)]
    z = philox.noise(words, weights.ids["w"], optimizer.directions.stream, 0, 600, torch.device("cpu"))
    p = torch.tensor([(a - b) / (2 * EPS) for a, b in zip(losses[::2], losses[1::2], strict=True)])
    return (p.double()[:, None] * z.double()).mean(0).view(300, 2)


@pytest.mark.parametrize("options", [{"horizon": 0}, {"horizon": 1}, {"horizon": 5, "warmup": 99}])
@pytest.mark.parametrize("n", [1, 3])
def test_without_a_window_it_is_mezo(options, n):
    assert torch.equal(
        after(made(n=n, weight_decay=0.1, **options), 6), after(made(MeZO, n=n, weight_decay=0.1), 6)
    )


@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_no_more_than_the_window_is_kept(horizon):
    one = made(horizon=horizon, n=2)
    after(one, 6)
    assert [step for step, _ in one.window.steps] == list(range(6 - horizon, 6))
    assert one.state()["window:slopes"].shape == (horizon, 2)


@pytest.mark.parametrize("beta2", [0.9, 0.0])
def test_the_papers_form(beta2):
    """(1 − β1) m over √((1 − β2) v + ε), and √(1 + ε) where β2 = 0, beside a decoupled decay."""
    b1, horizon, eps, lr, decay = 0.7, 3, 1e-2, 1e-3, 0.5
    root = math.sqrt(1 - beta2)
    one = made(
        betas=(b1, beta2), horizon=horizon, warmup=0, eps_inside=True, lr=lr, weight_decay=decay,
        update_scale=(1 - b1) / root, adam_eps=eps / (1 - beta2),
    )  # fmt: skip
    theta = parameters()[0][1].detach().double()
    for t in range(6):
        one.tell(t, told(t))
        gradients = [gradient(one, k) for k in range(max(0, t - horizon + 1), t + 1)]
        powers = list(reversed(range(len(gradients))))
        m = (1 - b1) * sum(b1**k * g for k, g in zip(powers, gradients, strict=True))
        v = (1 - beta2) * sum(beta2**k * g**2 for k, g in zip(powers, gradients, strict=True))
        theta = (1 - lr * decay) * theta - lr * m / ((v + eps).sqrt() if beta2 else math.sqrt(1 + eps))
    # Steps of up to 0.6 (β2 = 0) of fp32 products, and roundings of weights below 4.
    torch.testing.assert_close(one.weights.tensors["w"].double(), theta, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("block", [1 << 16, 1000])
@pytest.mark.parametrize("kernels", ["eager", "native"])
def test_blocks_of_any_size_are_the_whole_window(kernels, block, monkeypatch):
    """z of H whole tensors kept, and the sums from the oldest step on, with explicit powers, in fp32: the same bits."""
    monkeypatch.setattr("zo.weights.BLOCK", block)
    horizon, d = 4, 40_000
    try:
        weights = Weights(parameters(d=d), kernels=kernels)
    except ConfigError as error:
        pytest.skip(str(error))
    one = AdaMeZO(weights, lr=2.0**-10, eps=EPS, horizon=horizon, warmup=0)
    theta, kept = weights.tensors["w"].detach().clone(), []
    for t in range(6):
        losses = told(t)
        one.tell(t, losses)
        z = weights.direction("w", one.keys(t)[0], one.directions)
        kept = [*kept, z * f32((losses[0] - losses[1]) / (2 * EPS))][-horizon:]
        m, v = torch.zeros(d, 2), torch.zeros(d, 2)
        for k, g in zip(reversed(range(len(kept))), kept, strict=True):
            m += g * f32(BETAS[0] ** k)
            v += g * g * f32(BETAS[1] ** k)
        root = v.double().sqrt().float()  # IEEE's, which torch's fp32 root is not everywhere
        theta += m / (root + f32(1e-5)) * f32(-(2.0**-10) * 100.0)
    assert torch.equal(weights.tensors["w"].detach(), theta)


def test_without_betas_it_is_mezo():
    """β = (0, 0), s = 1, ε = 0: bit for bit. With the code's constants, MeZO at 100 / (1 + 1e-5) times the rate."""
    exact = made(betas=(0.0, 0.0), update_scale=1.0, adam_eps=0.0, horizon=3)
    assert torch.equal(after(exact, 8), after(made(MeZO), 8))
    code = made(betas=(0.0, 0.0), horizon=3, warmup=0)
    mezo = made(MeZO, lr=1e-3 * 100 / (1 + 1e-5))
    torch.testing.assert_close(after(code, 4), after(mezo, 4), rtol=1e-6, atol=1e-4)  # steps are about 20


def test_warm_up_is_one_step_more_than_the_window():
    """Steps 0 .. H are MeZO's; step H + 1 sees the pairs 2 .. H + 1."""
    horizon = 4
    one, mezo = made(horizon=horizon, update_scale=1.0), made(MeZO)
    before = after(one, horizon + 1)
    assert torch.equal(before, after(mezo, horizon + 1))
    one.tell(horizon + 1, told(horizon + 1))
    assert [step for step, _ in one.window.steps] == [2, 3, 4, 5]
    gradients = [gradient(one, t) for t in range(2, 6)]
    m = torch.stack([BETAS[0] ** (3 - k) * g for k, g in enumerate(gradients)]).sum(0)
    v = torch.stack([BETAS[1] ** (3 - k) * g**2 for k, g in enumerate(gradients)]).sum(0)
    expected = before.double() - 1e-3 * m / (v.sqrt() + 1e-5)
    torch.testing.assert_close(one.weights.tensors["w"].double(), expected, rtol=2**-22, atol=2**-22)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_with_a_long_window_it_is_adam(inside, n):
    """Torch's Adam with its bias corrections, at step t with the rate η / c_t and ε / √((1 − β2^t)/(1 − β2)), where
    c_t = (1 − β1)/(1 − β1^t) √((1 − β2^t)/(1 − β2)); with ε under the root, which is not Adam's form, by hand.
    """
    lr, eps = 1e-3, 1e-3
    one = made(lr=lr, n=n, horizon=100, warmup=0, update_scale=1.0, adam_eps=eps, eps_inside=inside)
    theta = nn.Parameter(parameters()[0][1].detach().double())
    adam = torch.optim.Adam([theta], betas=BETAS)
    m = v = torch.zeros(300, 2).double()
    for t in range(1, 21):
        one.tell(t - 1, told(t - 1, n))
        g = gradient(one, t - 1)
        root = math.sqrt((1 - BETAS[1] ** t) / (1 - BETAS[1]))
        c = (1 - BETAS[0]) / (1 - BETAS[0] ** t) * root
        if inside:
            m, v = BETAS[0] * m + g, BETAS[1] * v + g**2
            with torch.no_grad():
                theta -= lr * m / (v + eps).sqrt()
            continue
        adam.param_groups[0]["lr"] = lr / c
        adam.param_groups[0]["eps"] = eps / root
        theta.grad = g
        adam.step()
    torch.testing.assert_close(one.weights.tensors["w"].double(), theta.detach(), rtol=1e-6, atol=1e-6)


def test_with_a_long_window_it_is_zo_adam():
    """The same with zo's own ZO-Adam, given rate and ε of each step."""
    eps = 1e-3
    one = made(n=2, horizon=100, warmup=0, update_scale=1.0, adam_eps=eps)
    adam = made(ZOAdam, n=2, betas=BETAS)
    for t in range(1, 16):
        root = math.sqrt((1 - BETAS[1] ** t) / (1 - BETAS[1]))
        adam.adam_eps = eps / root
        one.tell(t - 1, told(t - 1, 2))
        adam.tell(t - 1, told(t - 1, 2), lr=1e-3 / ((1 - BETAS[0]) / (1 - BETAS[0] ** t) * root))
    torch.testing.assert_close(one.weights.tensors["w"], adam.weights.tensors["w"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [0.25, 64.0])
def test_the_scale_of_the_loss_does_not_matter_after_the_warm_up(factor):
    """ε_A = 0 and a power of two: exact."""
    results = [after(made(warmup=0, horizon=4, adam_eps=0.0, n=2), 7, scale=scale) for scale in (1.0, factor)]
    assert torch.equal(*results)


def test_losses_that_are_equal_move_nothing_even_without_an_epsilon():
    one = made(warmup=0, horizon=3, adam_eps=0.0)
    one.tell(0, [1.0, 1.0])
    assert torch.equal(one.weights.tensors["w"], parameters()[0][1])


def test_a_skipped_step_does_not_enter_the_window():
    one, other = (made(horizon=3, warmup=0, on_nan="skip") for _ in range(2))
    after(one, 3)
    after(other, 3)
    other.tell(3, [math.nan, 1.0])
    assert one.window.steps == other.window.steps
    assert torch.equal(after(one, 1, start=4), after(other, 1, start=4))


def test_a_window_survives_a_snapshot():
    """Also while it is not yet full."""
    for steps in (0, 2, 7):
        whole, first, second = (made(horizon=4, warmup=1, n=2) for _ in range(3))
        expected = after(whole, steps + 3)
        after(first, steps)
        second.weights.load(first.weights.state())
        second.load({name: tensor.clone() for name, tensor in first.state().items()})
        assert torch.equal(after(second, 3, start=steps), expected)
    with pytest.raises(JournalError, match="another method"):
        made(n=3).load(first.state())


@pytest.mark.parametrize("update", ["nearest", "stochastic", "master"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forms_of_the_kernels_give_the_same_run(dtype, update):
    results = []
    for kernels in ("eager", "native"):
        try:
            one = made(dtype=dtype, kernels=kernels, update=update, horizon=3, n=2, weight_decay=0.1)
        except ConfigError as error:
            pytest.skip(str(error))
        after(one, 8)
        results.append(one.weights.sha256())
    assert results[0] == results[1]


def test_large_slopes_do_not_overflow_in_sixteen_bits():
    """p² z² beyond 65504: moments are fp32, so the step is the usual one."""
    one = made(dtype=torch.float16, horizon=3, warmup=0, update_scale=1.0, lr=2.0**-3)
    one.tell(0, [700.0, -700.0])
    moved = one.weights.tensors["w"].detach().float() - parameters(torch.float16)[0][1].float()
    assert moved.abs().mean().item() == pytest.approx(
        2.0**-3, rel=1e-2
    )  # the sign of the slope at every entry


@pytest.mark.parametrize(
    "options, message",
    [
        ({"horizon": -1}, "horizon = -1"),
        ({"betas": (0.7, 1.0)}, "betas"),
        ({"betas": (0.7,)}, "betas"),
        ({"warmup": -1}, "warmup = -1"),
        ({"update_scale": 0.0}, "update_scale"),
        ({"adam_eps": -1.0}, "adam_eps"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        made(**options)


def test_directions_that_cannot_be_made_again_are_refused(monkeypatch):
    monkeypatch.setattr("zo.directions.Gaussian.stateful", True)
    with pytest.raises(ConfigError, match=r"last 10 steps again.*gaussian"):
        made()


@pytest.mark.parametrize(("lr", "warns"), [(1e-7, False), (1e-10, True)])
def test_the_size_of_moves_is_judged_after_the_warm_up(lr, warns):
    """Typical entries are 1, spaced by 1e-3 in float16: a move below 1e-4 is lost.

    By slopes of 100 the warm-up's moves are 1e-5 at a rate of 1e-7, and those that follow s η / 2 = 5e-3 at s = 1e5.
    """
    one = made(dtype=torch.float16, horizon=3, lr=lr, update_scale=1e5)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        after(one, 4)
        assert not seen
        after(one, 2, start=4)
    assert [("rounded to nearest" in str(w.message)) for w in seen] == [True] * warns


def test_without_a_window_the_first_move_is_judged():
    one = made(dtype=torch.float16, horizon=0, lr=1e-10)
    with pytest.warns(UserWarning, match="rounded to nearest"):
        after(one, 1)

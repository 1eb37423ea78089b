"""The ZO-Bench set and its relatives against plain torch: closed forms, equivalences, cost and state."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.optimizers.test_battery import Bowl, batches, equal, make, objective, run
from zo import (
    HELENE,
    ZOSGD,
    Diverged,
    Journal,
    Key,
    MeZO,
    ModuleLook,
    Probe,
    RAdaZO,
    Snapshots,
    Weights,
    ZOAdam,
    ZOConservative,
    ZOMomentum,
    ZOSign,
)
from zo.training import load_snapshot, snapshot
from zo.weights import BLOCK

EPS = 2.0**-10
SHAPES = {"layer.weight": (5, 7), "layer.bias": (9,), "scalar": ()}


def parameters(dtype=torch.float32, shapes=SHAPES):
    g = torch.Generator().manual_seed(0)
    return [(name, nn.Parameter(torch.randn(shape, generator=g).to(dtype))) for name, shape in shapes.items()]


def direction(optimizer, key):
    """z by name, fp32: zeros perturbed by 1 z."""
    zeros = Weights([(n, nn.Parameter(torch.zeros(t.shape))) for n, t in optimizer.weights.tensors.items()])
    return {name: zeros.at(name, Probe(((key, 1.0),)), optimizer.directions) for name in zeros.tensors}


def estimate(optimizer, t, slopes):
    """ĝ = (1/n) Σ p z by name, float64."""
    zs = [direction(optimizer, key) for key in optimizer.keys(t)]
    return {
        name: sum(p * z[name].double() for p, z in zip(slopes, zs, strict=True)) / len(slopes)
        for name in optimizer.weights.tensors
    }


def told(optimizer, t):
    """Losses in a bowl's range; a function of the step."""
    g = torch.Generator().manual_seed(t)
    return (1.0 + 1e-3 * torch.randn(optimizer.losses_per_step, generator=g)).tolist()


def values(optimizer):
    return {name: tensor.detach().clone() for name, tensor in optimizer.weights.tensors.items()}


def close(one, other, rtol):
    for name, tensor in one.items():
        torch.testing.assert_close(tensor.double(), other[name].double(), rtol=rtol, atol=rtol, msg=name)


# Cost and state


@pytest.mark.parametrize(
    "name, changes, passes, copies",
    [
        ("zosgd", {}, 2, 0), ("zosgd", {"n": 3}, 6, 0), ("zosgd", {"n": 3, "sides": "one"}, 4, 0),
        ("zomomentum", {}, 2, 1), ("zosign", {}, 2, 0), ("zosign", {"sign": "scalar"}, 2, 0),
        ("zoconservative", {}, 5, 0), ("zoconservative", {"sides": "one"}, 4, 0),
        ("zoadam", {}, 2, 2), ("radazo", {}, 3, 2), ("radazo", {"n": 7}, 8, 2), ("helene", {}, 2, 2),
        ("hizoo", {}, 3, 1), ("hizoo", {"estimator": "code"}, 3, 1), ("zoadamu", {}, 2, 1),
        ("forwardgradient", {}, 1, 0), ("forwardgradient", {"n": 3}, 3, 0),
    ],
)  # fmt: skip
def test_passes_and_state_are_the_papers(name, changes, passes, copies):
    """Forward passes a step, and fp32 numbers kept for each trained weight."""
    model = Bowl()
    optimizer = make(name, model, **changes)
    look = ModuleLook(model, objective, optimizer)
    optimizer.tell(0, optimizer.step(0, batches(0), look))
    assert look.forward_passes == optimizer.forward_passes == passes
    kept = [t for t in optimizer.state().values() if t.dim() > 0]
    assert all(t.dtype == torch.float32 for t in kept)
    assert sum(t.numel() for t in kept) == copies * optimizer.weights.numel
    assert optimizer.state_copies == copies


STATEFUL = ["zomomentum", "zoadam", "radazo", "helene", "hizoo", "hizool", "zoadamu"]


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize(
    "dtype, update",
    [(torch.float32, "nearest"), (torch.bfloat16, "stochastic"), (torch.bfloat16, "master"),
     (torch.float16, "stochastic"), (torch.float16, "master")],
)  # fmt: skip
def test_snapshot_and_replay_give_the_same_bits(name, dtype, update, tmp_path):
    """Nine steps told at once, told again by another process, and told from a snapshot after five."""

    def start():
        return make(name, Weights(parameters(dtype), update=update), lr=0.01, eps=0.05)

    whole, again = start(), start()
    snapshots = Snapshots(tmp_path)
    for t in range(9):
        whole.tell(t, told(whole, t))
        if t == 4:
            snapshot(whole, snapshots, 5)
    for t in range(9):
        again.tell(t, told(again, t))
    resumed = start()
    load_snapshot(resumed, snapshots.newest(9)[1])  # type: ignore[index]
    for t in range(5, 9):
        resumed.tell(t, told(resumed, t))
    for other in (again, resumed):
        assert other.weights.sha256() == whole.weights.sha256()
        assert other.state().keys() == whole.state().keys()
        for key, tensor in whole.state().items():
            assert torch.equal(tensor, other.state()[key]), key
    assert whole.weights.sha256() != start().weights.sha256()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*STATEFUL, "zosign"])
def test_master_is_the_fp32_run(name, dtype):
    """16-bit weights with what is kept beside them are the fp32 weights of the same run."""
    shapes = {"a": (6, 5), "b": (3, 4)}
    low = make(name, Weights(parameters(dtype, shapes), update="master"), lr=1e-3, eps=0.05)
    wide = [(name, nn.Parameter(p.detach().float())) for name, p in parameters(dtype, shapes)]
    high = make(name, Weights(wide), lr=1e-3, eps=0.05)
    for t in range(6):
        low.tell(t, told(low, t))
        high.tell(t, told(high, t))
    for key, tensor in high.weights.tensors.items():
        from zo.kernels import rounding

        joined = rounding.join(low.weights.tensors[key].detach(), low.weights.low[key])
        assert torch.equal(joined, tensor.detach()), key


@pytest.mark.parametrize("name", [*STATEFUL, "zosign"])
def test_state_of_another_method_is_refused(name):
    optimizer = make(name, Bowl())
    with pytest.raises(RuntimeError, match="another method or model"):
        optimizer.load({"x:matrix": torch.zeros(3, 2)})


# ZO-SGD


def test_zosgd_with_two_sides_is_mezo_to_the_bit():
    results = []
    for kind in (ZOSGD, MeZO):
        model = Bowl()
        results.append(run(kind(model, lr=0.02, n=3, weight_decay=0.1), model, 0, 20))
    assert equal(*results)


def test_one_side_shares_the_loss_at_theta():
    optimizer = ZOSGD(parameters(), lr=0.5, eps=EPS, n=2, sides="one", seed=3)
    keys = [Key(3, 1, 0), Key(3, 1, 1)]
    assert optimizer.ask(1) == [Probe(), *(Probe(((key, EPS),)) for key in keys)]
    before = values(optimizer)
    seen = optimizer.tell(1, [1.0, 1.0 + EPS, 1.0 - 3 * EPS])
    assert seen["loss"] == 1.0
    g = estimate(optimizer, 1, [1.0, -3.0])
    # Two products and two sums of fp32.
    close(values(optimizer), {name: before[name].double() - 0.5 * g[name] for name in g}, rtol=1e-6)


def test_one_side_errs_by_curvature_and_two_do_not():
    """On ½ a x² with z = ±1: (L(x + εz) − L(x)) / ε = a x z + a ε / 2, whatever z."""
    x, a, eps = 3.0, 2.0, 0.25
    weights = Weights([("w", nn.Parameter(torch.tensor([x])))])

    def loss(point):
        return 0.5 * a * point**2

    one = ZOSGD(weights, eps=eps, sides="one", directions="rademacher")
    z = direction(one, Key(0, 0, 0))["w"].item()
    assert one.slopes([loss(x), loss(x + eps * z)]) == [a * x * z + a * eps / 2]
    two = ZOSGD(weights, eps=eps, sides="two", directions="rademacher")
    assert two.slopes([loss(x + eps * z), loss(x - eps * z)]) == [a * x * z]


# Momentum, sign


def by_torch(kind, n, steps, build, **options):
    """(our weights, torch's) after the same steps; torch's optimizer is fed with ĝ in its `.grad`, in float64."""
    ours = kind(parameters(), n=n, eps=EPS, **options)
    theirs = {name: nn.Parameter(p.detach().double()) for name, p in parameters()}
    inner = build(list(theirs.values()))
    for t in range(steps):
        losses = told(ours, t)
        for name, g in estimate(ours, t, ours.slopes(losses)).items():
            theirs[name].grad = torch.as_tensor(g)
        ours.tell(t, losses)
        inner.step()
    return values(ours), {name: p.detach() for name, p in theirs.items()}


@pytest.mark.parametrize("n", [1, 3])
def test_momentum_is_torchs(n):
    ours, theirs = by_torch(
        ZOMomentum, n, 15, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), lr=0.01, momentum=0.9
    )
    # Fifteen fp32 sums of terms of about 1 each.
    close(ours, theirs, rtol=2e-6)


def test_momentum_of_zero_is_zosgd_to_the_bit():
    results = []
    pairs: list[tuple[Any, dict[str, Any]]] = [(ZOMomentum, {"momentum": 0.0}), (ZOSGD, {})]
    for kind, options in pairs:
        model = Bowl()
        # lr a power of two: m · lr and p · lr round alike.
        results.append(run(kind(model, lr=2.0**-6, eps=EPS, **options), model, 0, 10))
    assert equal(*results)


@pytest.mark.parametrize("n", [1, 4])
def test_sign_is_that_of_every_entry(n):
    optimizer = ZOSign(parameters(), lr=0.25, eps=EPS, n=n)
    before, losses = values(optimizer), told(ZOSign(parameters(), n=n), 0)
    g = estimate(optimizer, 0, optimizer.slopes(losses))
    optimizer.tell(0, losses)
    for name, tensor in values(optimizer).items():
        assert torch.equal(tensor, before[name] - 0.25 * g[name].sign().float())


def test_scalar_sign_keeps_the_length_of_z():
    optimizer = ZOSign(parameters(), lr=0.25, eps=EPS, sign="scalar")
    before = values(optimizer)
    optimizer.tell(0, [1.0, 3.0])
    z = direction(optimizer, Key(0, 0, 0))
    for name, tensor in values(optimizer).items():
        assert torch.equal(tensor, before[name] + 0.25 * z[name])


def test_a_slope_of_zero_has_no_sign():
    optimizer = ZOSign(parameters(), lr=0.25, n=2, sign="scalar")
    before = values(optimizer)
    optimizer.tell(0, [1.0, 1.0, 1.0, 1.5])
    z = direction(optimizer, Key(0, 0, 1))  # the other direction says nothing
    close(values(optimizer), {name: before[name] + 0.125 * z[name] for name in z}, rtol=1e-6)


def test_with_rademacher_both_signs_are_one():
    results = []
    for sign in ("element", "scalar"):
        model = Bowl()
        results.append(run(ZOSign(model, lr=0.02, sign=sign, directions="rademacher"), model, 0, 20))
    assert equal(*results)


# Adam, R-AdaZO


@pytest.mark.parametrize("n, eps", [(1, 1e-8), (3, 1e-8), (1, 0.25)])  # the last is as large as √v̂
def test_adam_is_torchs(n, eps):
    ours, theirs = by_torch(
        ZOAdam, n, 30, lambda p: torch.optim.Adam(p, lr=0.01, eps=eps), lr=0.01, adam_eps=eps
    )
    close(ours, theirs, rtol=1e-6)  # a step of 0.01 with moments in fp32


def test_adam_counts_moves_not_steps():
    """A skipped step leaves moments and bias correction alone."""
    optimizer, other = (ZOAdam(parameters(), lr=0.01, eps=EPS, on_nan="skip") for _ in range(2))
    optimizer.tell(0, [math.nan, 1.0])
    optimizer.tell(1, [1.0, 2.0])
    other.tell(1, [1.0, 2.0])
    assert optimizer.weights.sha256() == other.weights.sha256()


def test_adams_decay_is_decoupled():
    ours, theirs = by_torch(
        ZOAdam, 1, 10, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5), lr=0.01, weight_decay=0.5
    )
    # Biases and norms are spared, and so is `scalar` not.
    for name in ("layer.weight", "scalar"):
        torch.testing.assert_close(ours[name].double(), theirs[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("factor", [2.0**-5, 2.0**7])
@pytest.mark.parametrize("kind", [ZOAdam, ZOSign])
def test_the_scale_of_the_loss_does_not_matter(kind, factor):
    results = []
    for c in (1.0, factor):
        options: dict[str, Any] = {"adam_eps": 1e-30} if kind is ZOAdam else {}
        optimizer = kind(parameters(), lr=0.01, eps=EPS, **options)
        for t in range(6):
            optimizer.tell(t, [c * loss for loss in told(optimizer, t)])
        results.append(optimizer.weights.sha256())
    assert results[0] == results[1]


def test_radazo_divides_by_the_second_moment_of_its_momentum():
    optimizer = RAdaZO(parameters(), lr=0.01, eps=EPS, n=2, betas=(0.8, 0.95), zeta=1e-6)
    theta = {name: tensor.double() for name, tensor in values(optimizer).items()}
    m = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    v = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    for t in range(12):
        losses = told(optimizer, t)
        slopes = [(loss - losses[0]) / EPS for loss in losses[1:]]
        for name, g in estimate(optimizer, t, slopes).items():
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * m[name] ** 2
            theta[name] -= 0.01 * m[name] / (v[name] + 1e-6).sqrt()
        optimizer.tell(t, losses)
    close(values(optimizer), theta, rtol=2e-6)
    close({name: optimizer.state_tensors["v"][name] for name in v}, v, rtol=1e-5)


# Conservative


@pytest.mark.parametrize("sides", ["two", "one"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conservative_never_ends_above_where_it_began(sides, dtype):
    """At a rate that makes ZO-SGD diverge; the loss told for the chosen point is that of the weights, exactly."""
    model = Bowl().to(dtype)
    optimizer = ZOConservative(Weights(model, copies=False), lr=0.15, eps=0.05, sides=sides)
    look = ModuleLook(model, lambda m, b: objective(m, b).float(), optimizer)
    ways = []
    for t in range(40):
        (before,) = look([Probe()], batches(t))
        seen = optimizer.tell(t, optimizer.step(t, batches(t), look))
        (after,) = look([Probe()], batches(t))
        assert seen["loss"] == before
        assert seen["loss_after"] == after <= before
        ways.append(seen["way"])
    assert {-1.0, 0.0} <= set(ways)


def test_conservative_takes_the_best_of_three():
    for losses, way in (([3, 2, 4], -1.0), ([3, 4, 2], 1.0), ([2, 3, 4], 0.0), ([2, 2, 2], 0.0)):
        optimizer = ZOConservative(parameters(), lr=0.25, eps=EPS)
        plain = ZOSGD(parameters(), lr=0.25 * -way, eps=EPS) if way == -1 else None
        before = values(optimizer)
        optimizer.tell(0, [1.0 + EPS, 1.0, *map(float, losses)])
        z = direction(optimizer, Key(0, 0, 0))
        close(values(optimizer), {n: before[n] + way * 0.125 * z[n] for n in before}, rtol=1e-6)
        if plain is not None:
            plain.tell(0, [1.0 + EPS, 1.0])
            assert plain.weights.sha256() == optimizer.weights.sha256()
        if way == 0.0:
            assert all(torch.equal(before[name], tensor) for name, tensor in values(optimizer).items())


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_conservative_does_not_take_a_candidate_without_a_loss(bad, tmp_path):
    """It is journaled as it is, and the journal rebuilds the weights; a loss at θ that is no number has no step."""
    for losses, way in (([3, bad, 2], 1.0), ([3, 2, bad], -1.0), ([3, bad, 4], 0.0), ([3, bad, bad], 0.0)):
        optimizer = ZOConservative(parameters(), lr=0.25, eps=EPS)
        told = [1.0 + EPS, 1.0, *map(float, losses)]
        seen = optimizer.tell(0, told)
        assert seen["way"] == way and seen["loss"] == 3.0
        assert seen["loss_after"] == (2.0 if way else 3.0) and optimizer.skipped == 0
        with Journal(tmp_path / f"{losses}", {}, 5) as journal:
            journal.append(told, None)
            again = ZOConservative(parameters(), lr=0.25, eps=EPS)
            again.tell(0, journal[0].losses)
        assert again.weights.sha256() == optimizer.weights.sha256()
    for place in range(3):
        losses = [1.0, 1.0, 1.0, 0.5, 0.5]
        losses[place] = bad
        with pytest.raises(Diverged):
            ZOConservative(parameters(), lr=0.25, eps=EPS).tell(0, losses)
    one = ZOConservative(parameters(), sides="one", lr=0.25, eps=EPS)
    assert one.tell(0, [1.0, 1.0 + EPS, bad, 0.5])["way"] == 1.0


def test_conservative_looks_where_the_rate_it_is_told_would_lead():
    """With a budget of minutes the clock decides the rate before the step looks."""
    model = Bowl()
    optimizer = ZOConservative(model, lr=100.0)
    look = ModuleLook(model, objective, optimizer)
    seen = optimizer.tell(0, optimizer.step(0, batches(0), look, 0.01), 0.01)
    assert seen["loss_after"] == look([Probe()], batches(0))[0]
    assert seen["way"] == -1.0


# HELENE


def helene_by_hand(optimizer, steps, betas, anneal, refresh, batch, gamma, bounds, delta, lr):
    theta = {name: tensor.double() for name, tensor in values(optimizer).items()}
    m = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    h = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
    for t in range(steps):
        losses = told(optimizer, t)
        alpha = betas[0] + (1 - betas[0]) * math.exp(-t / anneal)
        for name, g in estimate(optimizer, t, [(losses[0] - losses[1]) / (2 * EPS)]).items():
            m[name] = betas[0] * m[name] + alpha * g
            if t % refresh == 0:
                h[name] = betas[1] * h[name] + (1 - betas[1]) * batch * g * g
            theta[name] -= lr * m[name] / (gamma * h[name].clamp(min=bounds[name]) + delta)
        optimizer.tell(t, losses)
    return theta


@pytest.mark.parametrize("clip", ["layer", "constant"])
def test_helene_by_hand(clip):
    options: dict[str, Any] = {
        "betas": (0.7, 0.8),
        "anneal": 5.0,
        "refresh": 3,
        "batch": 4,
        "gamma": 0.5,
        "delta": 1e-3,
    }
    optimizer = HELENE(parameters(), lr=0.01, eps=EPS, radius=3.0, clip=clip, **options)
    sizes = {name: tensor.numel() for name, tensor in optimizer.weights.tensors.items()}
    bounds = {name: 3.0 if clip == "constant" else 3.0 / (2 * d**0.5) for name, d in sizes.items()}
    theta = helene_by_hand(optimizer, 10, bounds=bounds, lr=0.01, **options)
    # The divisor may be 0.2, so that roundings of about 1e-7 grow by ten steps' worth of 5.
    close(values(optimizer), theta, rtol=1e-5)


def test_helene_with_a_high_bound_is_momentum():
    """γ max(h, R) = R when h never reaches R; with T → 0 α is β1."""
    optimizer = HELENE(
        parameters(), lr=0.01 * 2.0**20, eps=EPS, betas=(0.9, 0.0), anneal=1e-9, radius=2.0**20, clip="constant",
        delta=1e-30,
    )  # fmt: skip
    other = ZOMomentum(parameters(), lr=0.01 * 0.9, eps=EPS)
    optimizer.tell(0, [1.0, 1.0])  # at t = 0 α is 1
    other.tell(0, [1.0, 1.0])
    for t in range(1, 8):
        optimizer.tell(t, told(optimizer, t))
        other.tell(t, told(other, t))
    close(values(optimizer), values(other), rtol=2e-6)


# Memory


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that is made while it is open; views of what was there do not count."""

    def __init__(self, known):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // 4)
        return out


@pytest.mark.parametrize("name", [*STATEFUL, "zosign"])
def test_a_move_makes_nothing_of_a_tensors_size(name):
    """Blocks of 2¹⁶ numbers, of float64 where sums are taken, whatever the tensor."""
    optimizer = make(name, Weights(parameters(shapes={"w": (1500, 1000)})), eps=0.05)
    optimizer.weights.warm = lambda *_: None  # which keeps the noise of models of up to 4 million weights
    with Largest([*optimizer.weights.state().values(), *optimizer.state().values()]) as largest:
        optimizer.tell(0, told(optimizer, 0))
    assert 0 < largest.numel <= 2 * BLOCK


# Arguments


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ZOSGD(parameters(), sides="both"), r"sides = 'both' must be two or one"),  # pyright: ignore[reportArgumentType]
        (lambda: ZOSGD(parameters(), n=0), r"optimizer\.n = 0"),
        (lambda: ZOMomentum(parameters(), momentum=1.0), r"optimizer\.momentum = 1\.0"),
        (lambda: ZOSign(parameters(), sign="vector"), r"sign = 'vector' must be element"),  # pyright: ignore[reportArgumentType]
        (lambda: ZOAdam(parameters(), betas=(0.9, 1.0)), r"optimizer\.betas"),
        (lambda: ZOAdam(parameters(), adam_eps=0.0), r"optimizer\.adam_eps = 0\.0"),
        (lambda: RAdaZO(parameters(), zeta=math.nan), r"optimizer\.zeta"),
        (lambda: RAdaZO(parameters(), betas=(-0.1, 0.9)), r"optimizer\.betas"),
        (lambda: HELENE(parameters(), anneal=0.0), r"optimizer\.anneal = 0\.0"),
        (lambda: HELENE(parameters(), gamma=-1.0), r"optimizer\.gamma"),
        (lambda: HELENE(parameters(), radius=math.inf), r"optimizer\.radius"),
        (lambda: HELENE(parameters(), refresh=0), r"optimizer\.refresh = 0"),
        (lambda: HELENE(parameters(), batch=0), r"optimizer\.batch = 0"),
        (lambda: HELENE(parameters(), clip="global"), r"clip = 'global' must be layer"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()

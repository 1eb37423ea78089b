"""HiZOO, HiZOO-L and ZO-AdaMU: directions that read evolving state, against plain torch."""

import itertools
import math
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from tests import tiny
from tests.optimizers.test_battery import Bowl, equal, run
from tests.optimizers.test_zobench import EPS, close, parameters, told, values
from zo import AdaMeZO, ConfigError, HiZOO, HiZOOL, Key, MeZO, ModuleLook, Weights, ZOAdaMU
from zo.directions import Directions, Gaussian
from zo.kernels.adam_window import f32
from zo.optimizers.hizoo import smoothing, squares
from zo.optimizers.hizool import mean, pieces

HIZOOS: list[Any] = [HiZOO, HiZOOL]
SCHEDULES = get_args(get_type_hints(HiZOO)["smooth"])


def normal(optimizer, index=0, t=0):
    """Standard normals z by name, float64: what the scaled or mixed directions are made of."""
    key = Key(0, t, index)
    return {n: optimizer.weights.direction(n, key, Gaussian()).double() for n in optimizer.weights.tensors}


# HiZOO


@pytest.mark.parametrize(
    ("dtype", "update"),
    [
        (torch.float32, "nearest"),
        (torch.bfloat16, "master"),
        (torch.float16, "stochastic"),
        (torch.float16, "master"),
    ],
)
def test_probes_and_moves_divide_by_the_same_root(monkeypatch, dtype, update):
    """IEEE's of H, whoever computes: whole tensors, rows, one probe or several, with no direction formed."""
    made = []
    for kernels in ("eager", "auto"):
        weights = Weights(
            parameters(dtype, {"matrix": (130, 7), "vector": (17,)}), update=update, kernels=kernels
        )
        optimizer = HiZOO(weights, lr=0.01, eps=EPS, alpha=1e-3)
        for t in range(3):
            optimizer.tell(t, [1.0, 1.5, 1.25])
        H, probes, rows = optimizer.state_tensors["H"], optimizer.ask(3)[1:], torch.tensor([129, 0, 3])
        z = {name: direction.float() for name, direction in normal(optimizer, t=3).items()}
        for name in weights.ids:
            source, root = weights.source(name), H[name].double().sqrt().float()
            found = weights.direction(name, probes[0].terms[0][0], optimizer.directions)
            assert torch.equal(found, z[name] / root)
            with monkeypatch.context() as patch:
                patch.setattr(Directions, "total", None)
                outs = [torch.empty_like(source) for _ in probes]
                sides = weights.at_many(name, probes, optimizer.directions, outs)
                for probe, side in zip(probes, sides, strict=True):
                    scaled = z[name] * f32(probe.terms[0][1])
                    assert torch.equal(side, (source.float() + scaled / root).to(source.dtype))
                    assert torch.equal(side, weights.at(name, probe, optimizer.directions))
                    if source.dim() == 2:
                        found = weights.rows_at(name, rows, probe, optimizer.directions)
                        assert torch.equal(found, side[rows])
        before = {name: weights.source(name).clone() for name in weights.ids}
        optimizer.tell(3, losses := [1.0, 1.5, 1.25])
        if dtype == torch.float32:
            step = f32(-0.01 * (losses[1] - losses[2]) / (2 * EPS))
            for name, old in before.items():
                moved = old + z[name] / H[name].double().sqrt().float() * step
                assert torch.equal(weights.source(name), moved)
        made.append(weights.sha256())
    assert made[0] == made[1]


@pytest.mark.parametrize("kind", HIZOOS)
@pytest.mark.parametrize("estimator", ["paper", "code"])
def test_without_smoothing_it_is_mezo_to_the_bit(kind, estimator):
    results = []
    options: dict[str, Any] = {"alpha": 0.0, "estimator": estimator}
    for build, more in ((kind, options), (MeZO, {})):
        model = Bowl()
        results.append(run(build(model, lr=0.02, weight_decay=0.1, **more), model, 0, 20))
    assert equal(*results)


@pytest.mark.parametrize("kind", HIZOOS)
@pytest.mark.parametrize(
    ("dtype", "update"),
    [(torch.bfloat16, "master"), (torch.float16, "stochastic"), (torch.float16, "master")],
)
def test_without_smoothing_it_is_mezo_to_the_bit_in_16_bits(kind, dtype, update):
    one = kind(Weights(parameters(dtype), update=update), lr=0.01, eps=0.05, alpha=0.0)
    other = MeZO(Weights(parameters(dtype), update=update), lr=0.01, eps=0.05)
    for t in range(5):
        losses = told(other, t)
        one.tell(t, [1.0, *losses])
        other.tell(t, losses)
    assert one.weights.sha256() == other.weights.sha256()


@pytest.mark.parametrize("estimator", ["paper", "code"])
@pytest.mark.parametrize("smooth", ["constant", "linear"])
def test_hizoo_by_hand(estimator, smooth):
    options: dict[str, Any] = {"alpha": 1e-3, "smooth": smooth, "smooth_steps": 4, "estimator": estimator}
    optimizer = HiZOO(parameters(), lr=0.01, eps=EPS, **options)
    theta = {name: tensor.double() for name, tensor in values(optimizer).items()}
    H = {name: torch.ones_like(tensor) for name, tensor in theta.items()}
    for t in range(6):
        z = normal(optimizer, t=t)
        for probe, sign in zip(optimizer.ask(t), (0, 1, -1), strict=True):  # the probes read the old H
            for name in theta:
                at = optimizer.weights.at(name, probe, optimizer.directions).double()
                expected = values(optimizer)[name].double() + sign * EPS * z[name] / H[name].sqrt()
                torch.testing.assert_close(at, expected, rtol=1e-6, atol=1e-6)
        base, plus, minus = losses = told(optimizer, t)
        alpha = 1e-3 * (1.0 if smooth == "constant" else max(0.0, 1 - t / 4))
        for name in theta:
            s = (z[name] ** 2 - 1).abs() if estimator == "paper" else z[name] ** 2
            found = abs(plus + minus - 2 * base) / (2 * EPS**2) * H[name] * s
            H[name] = (1 - alpha) * H[name] + alpha * found
            theta[name] -= 0.01 * (plus - minus) / (2 * EPS) * z[name] / H[name].sqrt()
        optimizer.tell(t, losses)
    close(optimizer.state_tensors["H"], H, rtol=1e-5)
    close(values(optimizer), theta, rtol=2e-6)
    assert max(h.max() for h in H.values()) > 2.0  # it did something


def test_the_papers_estimator_is_unbiased_before_its_absolute_value():
    """½ zᵀMz (z_j² − 1) has the mean M_jj, and with z_j² it has tr M / 2 + M_jj.

    Exact: three-point Gauss-Hermite nodes integrate polynomials of degree 5, and these are of degree 4.
    """
    M = torch.tensor([[3.0, 1, 0], [1, 5, -2], [0, -2, 0.5]]).double()
    nodes = [(0.0, 2 / 3), (math.sqrt(3), 1 / 6), (-math.sqrt(3), 1 / 6)]
    paper, code = torch.zeros(3).double(), torch.zeros(3).double()
    for picks in itertools.product(nodes, repeat=3):
        z = torch.tensor([x for x, _ in picks], dtype=torch.float64)
        weight = math.prod(w for _, w in picks)
        half = 0.5 * (z @ M @ z)
        paper += weight * half * (z**2 - 1)
        code += weight * half * squares(z, "code")
        assert torch.equal(squares(z, "paper"), (z**2 - 1).abs())
    torch.testing.assert_close(paper, M.diag(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(code, M.diag() + M.trace() / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", HIZOOS)
def test_the_hessian_moves_in_a_16_bit_model(kind):
    """Where the authors' fp16 H stays 1: |ΔL| = 1e-2, α = 1e-8, ε = 1e-3, 200 steps: E H = (1 + 5e-5)^200."""
    optimizer = kind(Weights([("w", nn.Parameter(torch.ones(64, 64).half()))]), lr=0.0, estimator="code")
    for t in range(200):
        optimizer.tell(t, [1.0, 1.0, 1.0 + 1e-2])
    found = optimizer.hessian("w").at(slice(0, 4096)) if kind is HiZOOL else optimizer.state_tensors["H"]["w"]
    assert found.mean().item() == pytest.approx(
        (1 + 5e-5) ** 200, abs=5e-5
    )  # 1.01; ± 1e-2 · √(2 / 4096 / 200)


@pytest.mark.parametrize("kind", HIZOOS)
def test_a_burst_of_curvature_leaves_numbers(kind):
    optimizer = kind(parameters(), lr=0.01, eps=1e-4, alpha=0.9)
    for t in range(30):
        optimizer.tell(t, [0.0, 1e6, 1e6] if t % 2 else [1.0, 1.0, 1.0])
    assert all(tensor.isfinite().all() for tensor in optimizer.state().values())
    optimizer.tell(30, [1.0, 1.1, 0.9])
    assert all(tensor.isfinite().all() for tensor in values(optimizer).values())


def test_smoothing_schedules():
    at = {name: [smoothing(t, 1e-6, name, 100) for t in (0, 50, 99, 100, 500)] for name in SCHEDULES}
    assert at["constant"] == [1e-6] * 5
    assert at["drop"] == pytest.approx([1e-6, 1e-6, 1e-6, 1e-8, 1e-8])
    assert at["linear"] == pytest.approx([1e-6, 5e-7, 1e-8, 0, 0])
    assert at["cosine"] == pytest.approx([1e-6, 5e-7, 5e-7 * (1 + math.cos(0.99 * math.pi)), 0, 0], abs=1e-21)


@pytest.mark.parametrize("kind", HIZOOS)
@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 1.0}, "alpha = 1.0"), ({"alpha": -1e-9}, "alpha"),
     ({"smooth": "sqrt"}, "smooth = 'sqrt' must be constant"),
     ({"smooth_steps": 0}, "smooth_steps = 0"), ({"estimator": "both"}, "estimator = 'both'")],
)  # fmt: skip
def test_out_of_range(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(parameters(), **options)


# HiZOO-L


def test_hizool_by_hand():
    """A matrix of more than two blocks, whose rows no block ends with; a vector keeps a whole H."""
    shapes = {"matrix": (301, 499), "vector": (9,), "deep": (3, 2, 5)}
    optimizer = HiZOOL(parameters(shapes=shapes), lr=0.01, eps=EPS, alpha=1e-3)
    theta = {name: tensor.double() for name, tensor in values(optimizer).items()}
    flat = {name: t.view(t.shape[0], -1) for name, t in theta.items()}
    R = {name: torch.ones(t.shape[0]).double() for name, t in flat.items()}
    C = {name: torch.ones(t.shape[1]).double() for name, t in flat.items()}
    for t in range(3):
        z = normal(optimizer, t=t)
        base, plus, minus = losses = told(optimizer, t)
        for name in theta:
            H = torch.outer(R[name], C[name]) / R[name].mean()
            directions = z[name].view(H.shape)
            at = optimizer.weights.at(name, optimizer.ask(t)[1], optimizer.directions).double()
            expected = values(optimizer)[name].double() + EPS * (directions / H.sqrt()).view(at.shape)
            torch.testing.assert_close(at, expected, rtol=1e-6, atol=1e-6)
            found = abs(plus + minus - 2 * base) / (2 * EPS**2) * H * (directions**2 - 1).abs()
            R[name] = (1 - 1e-3) * R[name] + 1e-3 * found.mean(1)
            C[name] = (1 - 1e-3) * C[name] + 1e-3 * found.mean(0)
            H = torch.outer(R[name], C[name]) / R[name].mean()
            theta[name] -= 0.01 * (plus - minus) / (2 * EPS) * (directions / H.sqrt()).view(theta[name].shape)
        optimizer.tell(t, losses)
    for name in theta:
        H = torch.outer(R[name], C[name]) / R[name].mean()
        mine = optimizer.hessian(name).at(slice(0, theta[name].numel())).view(H.shape).double()
        torch.testing.assert_close(mine, H, rtol=2e-6, atol=0)
        # The factoring keeps what was put in: row and column means.
        torch.testing.assert_close(mine.mean(1), R[name], rtol=1e-5, atol=0)
        torch.testing.assert_close(mine.mean(0), C[name], rtol=1e-5, atol=0)
    close(values(optimizer), theta, rtol=2e-6)


def test_a_hessian_of_rank_one_is_kept_whole():
    """H_ij = a_i b_j from its means; elements, rows and any run of elements agree."""
    g = torch.Generator().manual_seed(0)
    H = torch.outer(torch.rand(7, generator=g) + 0.1, torch.rand(5, generator=g) + 0.1)
    optimizer = HiZOOL([("w", nn.Parameter(torch.zeros(7, 5)))])
    # One update from H = 1 with α → 1 would set R and C to these means.
    optimizer._settle("w", 1.0, H.double().sum(1), H.double().sum(0))
    torch.testing.assert_close(optimizer.hessian("w").at(slice(0, 35)).view(7, 5), H, rtol=1e-6, atol=0)
    rows = torch.tensor([6, 0, 3])
    torch.testing.assert_close(optimizer.hessian("w").at(rows), H[rows], rtol=1e-6, atol=0)
    for start, stop in itertools.combinations(range(0, 36, 3), 2):
        run_ = optimizer.hessian("w").at(slice(start, stop))
        assert torch.equal(run_, optimizer.hessian("w").at(slice(0, 35))[start:stop])


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_pieces_are_the_run_in_order(width):
    order = torch.arange(48 // width * width).view(-1, width)
    for start, stop in itertools.combinations(range(order.numel() + 1), 2):
        found = torch.cat([order[i, j].flatten() for i, j in pieces(slice(start, stop), width)])
        assert torch.equal(found, torch.arange(start, stop))


def test_hizool_keeps_a_row_and_a_column():
    optimizer = HiZOOL(parameters(shapes={"matrix": (40, 60), "vector": (7,), "deep": (3, 2, 5)}))
    assert {name: t.numel() for name, t in optimizer.state().items()} == {
        "R:matrix": 40, "C:matrix": 60, "R:vector": 7, "C:vector": 1, "R:deep": 3, "C:deep": 10,
    }  # fmt: skip
    assert optimizer.forward_passes == 3
    assert optimizer.state_copies == 0.0
    # A decoder block of OPT-1.3B: 0.1 % of its weights, where HiZOO keeps all of them.
    assert (2048 + 8192) / (2048 * 8192) < 1e-3


@pytest.mark.parametrize("threads", [1, 2])
def test_means_do_not_depend_on_threads(threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        optimizer = HiZOOL(parameters(shapes={"matrix": (301, 499)}), alpha=1e-3, lr=0.01)
        optimizer.tell(0, [1.0, 1.5, 1.25])
        assert mean(torch.arange(100_000.0)) == 49999.5
        digest = optimizer.weights.sha256()
    finally:
        torch.set_num_threads(before)
    again = HiZOOL(parameters(shapes={"matrix": (301, 499)}), alpha=1e-3, lr=0.01)
    again.tell(0, [1.0, 1.5, 1.25])
    assert again.weights.sha256() == digest


# ZO-AdaMU


@pytest.mark.parametrize("signed", [False, True])
def test_adamu_by_hand(signed):
    """Through all three phases; the direction probed is the one kept, and moved along."""
    options: dict[str, Any] = {"alpha": 0.2, "beta1": 0.3, "beta2": 0.4, "warmup": 2, "annealed": 6}
    optimizer = ZOAdaMU(parameters(), lr=0.01, eps=EPS, sigma=1e-4, signed=signed, **options)
    theta = {name: tensor.double() for name, tensor in values(optimizer).items()}
    m = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}

    def annealed(t, end):
        return end + (1 - end) * (1 + math.cos(math.pi * min(max((t - 2) / 4, 0), 1))) / 2

    for t in range(9):
        alpha, beta1, beta2 = annealed(t, 0.2), annealed(t, 0.3), annealed(t, 0.4)
        zero, one = normal(optimizer, 0, t), normal(optimizer, 1, t)
        plus, minus = losses = told(optimizer, t)
        p = (plus - minus) / (2 * EPS)
        for name in theta:
            current = math.sqrt(alpha) * zero[name]
            history = m[name] + math.sqrt(1 - alpha) * one[name]
            m[name] = beta1 * current + (1 - beta1) * history
            at = optimizer.weights.at(name, optimizer.ask(t)[1], optimizer.directions).double()
            torch.testing.assert_close(at, values(optimizer)[name] - EPS * m[name], rtol=1e-6, atol=1e-6)
            v = beta2 * current**2 + (1 - beta2) * history**2
            theta[name] -= 0.01 * p * m[name] / (v + 1e-4).sqrt()
            if signed:
                m[name] *= math.copysign(1, p)
        optimizer.tell(t, losses)
        assert optimizer.anneal(t, 0.2) == pytest.approx(alpha)
    close(optimizer.state_tensors["m"], m, rtol=1e-5)
    close(values(optimizer), theta, rtol=2e-5)  # 1 / √(v + σ) grows roundings up to a hundredfold


def test_adamu_begins_as_a_scaled_sign():
    optimizer = ZOAdaMU(parameters(), lr=0.5, eps=EPS, sigma=1e-20)
    before = values(optimizer)
    optimizer.tell(0, [1.0 + 2 * EPS, 1.0])  # p = 1
    z = normal(optimizer)
    close(values(optimizer), {name: before[name].double() - 0.5 * z[name].sign() for name in z}, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 0.0}, "alpha = 0.0"), ({"beta1": 1.5}, "beta1 = 1.5"), ({"beta2": -1.0}, "beta2"),
     ({"warmup": 10, "annealed": 10}, "warmup = 10"), ({"sigma": 0.0}, "sigma = 0.0")],
)  # fmt: skip
def test_adamu_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        ZOAdaMU(parameters(), **options)


# On models


@pytest.mark.parametrize("kind", [HiZOO, HiZOOL, ZOAdaMU])
@pytest.mark.parametrize("family", ["opt", "roberta"])
def test_stacked_and_one_by_one_write_the_same_bits(kind, family):
    """Embeddings by rows, matrices and vectors read the same state."""
    digests = []
    for together in (1, "all"):
        model = tiny.build(family)
        more: dict[str, Any] = {"warmup": 1, "annealed": 3} if kind is ZOAdaMU else {"alpha": 1e-3}
        optimizer = kind(model, lr=1e-3, **more)
        look = ModuleLook(model, tiny.FAMILIES[family].objective, optimizer, probes_per_forward=together)
        for t in range(4):
            optimizer.tell(t, optimizer.step(t, tiny.batch(family, 3, 6, seed=t), look))
        digests.append(optimizer.weights.sha256())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("kind", [HiZOO, HiZOOL, ZOAdaMU])
def test_such_directions_cannot_be_replayed(kind):
    """They read evolving state, say so, and have no name by which a method with a window could be given one."""
    optimizer = kind(parameters())
    assert optimizer.directions.stateful
    assert not optimizer.normal.stateful
    with pytest.raises(ConfigError, match=optimizer.directions.name):
        AdaMeZO(parameters(), directions=optimizer.directions.name)

"""LOZO, LOZO-M, SubZero, ZO-Muon, MEAZO and EGGROLL against their equations."""

import math

import pytest
import torch
from torch import nn

from tests.optimizers.test_battery import Bowl, equal, make, run, synthetic
from zo import EGGROLL, FZOO, LOZO, LOZOM, MEAZO, Key, ModuleLook, SubZero, Weights, ZOMuon
from zo.directions import LowRank
from zo.noise import GAUSSIANS
from zo.optimizers.zomuon import msign


def matrix(m, n, dtype=torch.float32, **options):
    g = torch.Generator().manual_seed(0)
    vector = nn.Parameter(torch.randn(3, generator=g).to(dtype))
    return Weights([("w", nn.Parameter(torch.randn(m, n, generator=g).to(dtype))), ("b", vector)], **options)


def moved(optimizer, told):
    """Change of each tensor by one step, float64."""
    before = {name: tensor.detach().double() for name, tensor in optimizer.weights.tensors.items()}
    optimizer.tell(*told)
    return {name: t.detach().double() - before[name] for name, t in optimizer.weights.tensors.items()}


@pytest.mark.parametrize("rank", [1, 3])
def test_lozo_moves_along_u_v_over_root_r(rank):
    optimizer = LOZO(matrix(5, 4), lr=0.5, eps=2.0**-10, n=2, rank=rank, nu=3)
    u = [
        optimizer.weights.factor("w", "A", 5 * rank, 1, Key(0, 7, i).word).view(5, rank).double()
        for i in (0, 1)
    ]
    v = optimizer.weights.factor("w", "B", 4 * rank, 1, Key(0, 6, 0).word).view(4, rank).double()
    step = moved(optimizer, (7, [0.5, 0.25, 1.0, 1.5]))
    slopes = [0.25 * 2**9, -0.5 * 2**9]
    expected = -0.5 / 2 * (slopes[0] * u[0] + slopes[1] * u[1]) @ v.T / math.sqrt(rank)
    assert torch.allclose(step["w"], expected, rtol=1e-5, atol=1e-4)  # fp32 sums of numbers near 100
    dense = [optimizer.weights.direction("b", Key(0, 7, i), optimizer.directions).double() for i in (0, 1)]  # pyright: ignore[reportArgumentType]
    expected = -0.5 / 2 * (slopes[0] * dense[0] + slopes[1] * dense[1])
    assert torch.allclose(step["b"], expected, rtol=1e-5, atol=1e-4)


def test_factors_of_earlier_steps_are_forgotten_and_come_back_the_same():
    weights, kind = matrix(5, 4), LowRank(2, 100)
    first = kind.u(weights, "w", Key(0, 0, 0)).clone()
    kept = []
    for t in range(1, 40):
        for i in (0, 1):
            kind.thin(weights, "w", [(Key(0, t, i), 1.0)])
        kept.append(len(kind._kept))
    assert kept == [3] * 39  # two U and the V they share, however long the run
    assert torch.equal(kind.u(weights, "w", Key(0, 0, 0)), first)


def test_lozo_m_keeps_its_momentum_on_u_and_carries_it_over_to_a_new_v():
    beta, nu, lr = 0.75, 2, 2.0**-6
    optimizer = LOZOM(matrix(5, 400), lr=lr, eps=0.5, rank=2, nu=nu, beta=beta)
    kind = LowRank(2, nu)
    n, v_old = torch.zeros(5, 2).double(), None
    for t, (plus, minus) in enumerate([(1.0, 0.5), (0.25, 1.0), (2.0, 0.5), (1.0, 0.75)]):
        v = kind.v(optimizer.weights, "w", Key(0, t, 0)).double()
        if v_old is not None and t % nu == 0:
            n = n @ v_old.T @ v / 400
        n = (
            beta * n
            + (1 - beta) * (plus - minus) * kind.u(optimizer.weights, "w", Key(0, t, 0)).double() / 2**0.5
        )
        step = moved(optimizer, (t, [plus, minus]))
        assert torch.allclose(step["w"], -lr * n @ v.T, atol=1e-6)  # fp32 weights near 1
        v_old = v
    assert (
        sum(tensor.numel() for tensor in optimizer.state().values()) == 5 * 2 + 3 + 1
    )  # N, the vector, the window


@pytest.mark.parametrize("method", [LOZO, LOZOM])
@pytest.mark.parametrize("rank", [1, 4])
def test_a_rate_of_the_authors_code_is_r_times_as_much_here(method, rank):
    """Their step is η p U Vᵀ (of LOZO-M η (1 − β) p U Vᵀ), with p along U Vᵀ and no 1/r; of vectors η p g."""
    theirs, eps, told = 2.0**-5, 0.5, [1.0, 0.25]
    optimizer = method(matrix(5, 4), lr=rank * theirs, eps=eps * math.sqrt(rank), rank=rank)
    keep = 1 - getattr(optimizer, "beta", 0.0)
    u = optimizer.directions.u(optimizer.weights, "w", Key(0, 0, 0)).double()
    v = optimizer.directions.v(optimizer.weights, "w", Key(0, 0, 0)).double()
    g = optimizer.weights.numbers("b", GAUSSIANS, [(Key(0, 0, 0), 1.0)]).double()
    ((key, scale),) = optimizer.ask(0)[0].terms
    probed = {
        name: scale * optimizer.weights.direction(name, key, optimizer.directions).double() for name in "wb"
    }
    assert torch.allclose(probed["w"], eps * u @ v.T, atol=1e-6)
    assert torch.allclose(probed["b"], eps * g, atol=1e-6)
    step, rate = moved(optimizer, (0, told)), theirs * keep * (told[0] - told[1]) / (2 * eps)
    assert torch.allclose(step["w"], -rate * u @ v.T, atol=1e-6)  # fp32 weights near 1
    assert torch.allclose(step["b"], -rate * g, atol=1e-6)


# Of a matrix [40, 30] and a vector of 40. Kept: numbers in snapshots. Factored: those of orthonormal factors beside.
# What a method of any directions keeps for each weight is in test_zobench.py.
COSTS = {
    "mezo": (2, 0, 0), "mezoswitch": (2, 0, 0), "fzoo": (9, 0, 0), "fzoor": (5, 4, 0), "adamezo": (2, 10, 0),
    "hizool": (3, 40 + 30 + 40, 0),
    "lozo": (2, 0, 0), "lozom": (2, 4 * 40 + 40, 0), "subzero": (2, 0, 24 * (40 + 30)), "zomuon": (5, 0, 40 * 40),
    "meazo": (2, 1, 0), "sparsemezo": (2, 1, 0), "lezo": (2, 0, 0), "eggroll": (16, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_passes_and_state_are_the_papers(name):
    passes, kept, made = COSTS[name]
    model = nn.Linear(30, 40)
    optimizer = make(name, model)
    look = ModuleLook(model, lambda m, x: m(x).square().mean(1), optimizer)
    for t in range(12):
        before = look.forward_passes
        optimizer.tell(t, optimizer.step(t, torch.ones(2, 30), look))
        assert look.forward_passes - before == optimizer.forward_passes == passes
    numbers = sum(tensor.numel() for tensor in optimizer.state().values() if tensor.is_floating_point())
    assert kept <= numbers <= kept + 1  # a count, a window, the threshold of the vector
    bases = getattr(optimizer.directions, "_bases", {})  # type: ignore[attr-defined]
    assert sum(basis.numel() for _, basis in bases.values()) == made


@pytest.mark.parametrize("method", [LOZO, LOZOM, SubZero, ZOMuon])
def test_resumes_over_a_refresh_to_the_same_bits(method):
    options = {"lr": 0.01, "refresh" if method is SubZero else "nu": 3}
    assert method(Bowl(), **options).directions.every == 3  # type: ignore[attr-defined]
    whole = Bowl()
    expected = run(method(whole, **options), whole, 0, 9)
    for stop in (5, 6):
        first = Bowl()
        optimizer = method(first, **options)
        run(optimizer, first, 0, stop)
        second = Bowl(seed=1)
        again = method(second, **options)
        again.weights.load({key: tensor.clone() for key, tensor in optimizer.weights.state().items()})
        again.load({key: tensor.clone() for key, tensor in optimizer.state().items()})
        assert equal(run(again, second, stop, 9), expected)


def test_subzero_moves_by_the_slope_times_its_direction():
    optimizer = SubZero(matrix(9, 8), lr=0.25, eps=0.5, rank=4, refresh=10)
    z = {
        name: optimizer.weights.direction(name, Key(0, 3, 0), optimizer.directions).double()  # pyright: ignore[reportArgumentType]
        for name in "wb"  # pyright: ignore[reportArgumentType]
    }
    assert torch.linalg.matrix_rank(z["w"], rtol=1e-5) == 4  # fp32 numbers
    step = moved(optimizer, (3, [1.0, 0.25]))
    for name in "wb":
        assert torch.allclose(step[name], -0.25 * 0.75 * z[name], atol=1e-6)  # fp32 weights near 1


@pytest.mark.parametrize("m, n", [(8, 20), (20, 8), (6, 6)])
def test_msign_keeps_the_singular_vectors_and_makes_their_values_near_one(m, n):
    x = torch.randn(m, n, generator=torch.Generator().manual_seed(1)) * 1e-3
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    y = msign(x)
    values = (u.T @ y @ vh.T).diagonal()
    assert torch.allclose(u @ values.diag() @ vh, y, atol=1e-4)
    near = s > 0.02 * x.norm()  # Newton-Schulz lifts values below a hundredth of the norm only in part
    assert ((values[near] > 0.65) & (values[near] < 1.25)).all()
    assert torch.equal(msign(x * 2**10), y)
    assert torch.equal(msign(torch.zeros(3, 2)), torch.zeros(3, 2))


def test_msign_is_five_steps_of_muons_quintic():
    """On a diagonal every entry goes its own way, from s / ‖s‖ through a s + b s³ + c s⁵."""
    s = torch.tensor([3.0, 1.0, 0.5, 0.05]).double()
    y = s / s.norm()
    for _ in range(5):
        y = 3.4445 * y - 4.7750 * y**3 + 2.0315 * y**5
    assert torch.allclose(msign(s.diag().float()).double(), y.diag(), atol=1e-5)  # fp32 products


def test_zomuon_moves_along_p_msign_of_the_core():
    lr, eps, n, r = 0.5, 2.0**-3, 3, 4
    optimizer = ZOMuon(matrix(9, 12), lr=lr, eps=eps, n=n, rank=r, nu=5, vectors=0.125)
    told = [1.0, 1.5, 0.75, 1.25]
    slopes = [(x - told[0]) / eps for x in told[1:]]
    keys = optimizer.keys(8)
    psi = [optimizer.weights.factor("w", "Y", r * 12, 1, key.word).view(r, 12).double() for key in keys]
    p = optimizer.kind.projection(optimizer.weights, "w", keys[0]).double()
    assert torch.allclose(p.T @ p, torch.eye(r).double(), atol=1e-6)
    probed = optimizer.weights.at("w", optimizer.ask(8)[1], optimizer.directions).double()
    assert torch.allclose(probed - optimizer.weights.tensors["w"].double(), eps * p @ psi[0], atol=1e-6)
    core = (torch.tensor(slopes).double()[:, None, None] * torch.stack(psi)).mean(0)
    dense = [optimizer.weights.direction("b", key, optimizer.directions).double() for key in keys]
    step = moved(optimizer, (8, told))
    assert torch.allclose(step["w"], -lr * p @ msign(core), atol=1e-5)
    vector = (torch.tensor(slopes).double()[:, None] * torch.stack(dense)).mean(0)
    assert torch.allclose(step["b"], -lr * 0.125 * vector, atol=1e-6)


@pytest.mark.parametrize("method", [MEAZO, FZOO, ZOMuon, EGGROLL])
@pytest.mark.parametrize("factor", [2.0**-6, 2.0**9])
def test_losses_times_a_power_of_two_change_nothing(method, factor):
    results = []
    for by in (1.0, factor):
        model = Bowl()
        # The vectors of ZO-Muon follow plain SGD, which is not free of the loss's scale.
        optimizer = ZOMuon(model, lr=0.01, vectors=0.0) if method is ZOMuon else method(model, lr=0.01)
        for t in range(6):
            optimizer.tell(t, [loss * by for loss in synthetic(optimizer, t, model)])
        results.append([parameter.detach() for parameter in model.parameters()])
    assert equal(*results)


def test_meazo_of_several_directions_squares_the_mean_of_their_slopes():
    beta, lr, eps, zeta, v = 0.5, 0.25, 0.5, 0.125, 0.0
    optimizer = MEAZO(matrix(4, 3), lr=lr, eps=eps, n=2, beta=beta, zeta=zeta, on_nan="skip")
    optimizer.tell(0, [math.nan] * 4)  # no update, and none counted
    for k, (a, b, c, d) in enumerate([(1.0, 0.5, 0.25, 1.0), (2.0, 0.5, 1.0, 0.75)], start=1):
        p = [a - b, c - d]  # 2 ε is 1
        v = beta * v + (1 - beta) * ((p[0] + p[1]) / 2) ** 2
        z = [
            optimizer.weights.direction("w", key, optimizer.directions).double() for key in optimizer.keys(k)
        ]
        step = moved(optimizer, (k, [a, b, c, d]))
        root = math.sqrt(v / (1 - beta**k)) + zeta
        assert torch.allclose(step["w"], -lr / root * (p[0] * z[0] + p[1] * z[1]) / 2, atol=1e-6)


def test_meazo_is_mezo_over_the_root_of_a_bias_corrected_second_moment():
    beta, lr, eps = 0.5, 0.25, 0.5
    optimizer = MEAZO(matrix(4, 3), lr=lr, eps=eps, beta=beta)
    v = 0.0
    for t, (plus, minus) in enumerate([(1.0, 0.5), (0.25, 1.0), (2.0, 0.5)]):
        p = (plus - minus) / (2 * eps)
        v = beta * v + (1 - beta) * p * p
        z = optimizer.weights.direction("w", Key(0, t, 0), optimizer.directions).double()
        step = moved(optimizer, (t, [plus, minus]))
        assert torch.allclose(step["w"], -lr * p / math.sqrt(v / (1 - beta ** (t + 1))) * z, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2])
def test_eggroll_moves_as_the_dense_formula(rank):
    lr, n = 0.125, 3
    optimizer = EGGROLL(matrix(5, 4), lr=lr, n=n, rank=rank)
    told = [1.0, 2.0, 0.5, 0.25, 3.0, 1.5]
    fitness = -torch.tensor(told).double()
    scores = (fitness - fitness.mean()) / fitness.std(correction=0)
    a = [
        optimizer.weights.factor("w", "A", 5 * rank, 1, key.word).view(5, rank).double()
        for key in optimizer.keys(2)
    ]
    b = [
        optimizer.weights.factor("w", "B", 4 * rank, 1, key.word).view(4, rank).double()
        for key in optimizer.keys(2)
    ]
    expected = torch.zeros(5, 4).double()
    for k, score in enumerate(scores):
        member = (1 if k % 2 == 0 else -1) * a[k // 2] @ b[k // 2].T / math.sqrt(rank)
        expected += score * member / (2 * n)
    expected *= lr * math.sqrt(2 * n)
    assert torch.allclose(moved(optimizer, (2, told))["w"], expected, atol=1e-6)


@pytest.mark.parametrize("method", [LOZO, LOZOM, SubZero, ZOMuon, EGGROLL])
@pytest.mark.parametrize("update", ["nearest", "stochastic", "master"])
def test_sixteen_bits_take_the_move_that_fp32_makes(method, update):
    """What 16 bits hold after a move is the fp32 move, up to one spacing an entry."""
    moves = []
    for dtype in (torch.float32, torch.bfloat16):
        weights = matrix(64, 64, dtype, update=update)
        with torch.no_grad():
            weights.tensors["w"].copy_(torch.linspace(0.5, 1.0, 4096).view(64, 64).bfloat16())
        optimizer = method(weights, lr=0.05, eps=0.25)
        told = torch.linspace(0.0, 1.0, optimizer.losses_per_step).tolist()
        moves.append(moved(optimizer, (0, told))["w"])
    exact, rounded = moves
    # bfloat16 of numbers near 1 is spaced by 2^-8 and below 1 by 2^-9; a rounding errs by less than one spacing.
    assert (rounded - exact).abs().max() < 2.0**-7 + 2.0**-7 * exact.abs().max()
    assert torch.nn.functional.cosine_similarity(exact.flatten(), rounded.flatten(), 0) > 0.95

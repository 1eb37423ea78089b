"""The kinds of directions: moments, orthonormal factors, masks, layers; every optimizer with every kind."""

import math
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.optimizers.mean_square import mean_square
from tests.optimizers.test_battery import YAMLS, make
from zo import (
    FZOO,
    FZOOR,
    ConfigError,
    InPlace,
    Key,
    LeZO,
    MeZO,
    MeZOMomentum,
    ModuleLook,
    Probe,
    SparseMeZO,
    Weights,
)
from zo.directions import KINDS, Layers, LowRank, Projected, Subspace, directions
from zo.directions.lowrank import is_matrix
from zo.kernels import Write, eager

KERNELS = Weights([("w", nn.Parameter(torch.zeros(1)))]).backend


class Small(nn.Module):
    """An embedding, two numbered layers, a norm and a head."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.words = nn.Embedding(7, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=g))

    def forward(self, ids):
        x = self.words(ids)
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.head(self.norm(x))


def losses(model, batch):
    ids, labels = batch
    return nn.functional.cross_entropy(model(ids), labels, reduction="none")


def batch(t):
    g = torch.Generator().manual_seed(t)
    return torch.randint(0, 7, (5,), generator=g), torch.randint(0, 4, (5,), generator=g)


def matrix(m=6, n=5, kernels="auto"):
    return Weights([("w", nn.Parameter(torch.zeros(m, n)))], kernels=kernels)


@pytest.mark.parametrize("rank, every", [(1, None), (2, 1), (4, None)])
def test_low_rank_entries_are_uncorrelated_with_variance_one_and_kurtosis_3_plus_6_over_r(rank, every):
    weights, kind, count = matrix(), LowRank(rank, every), 4000
    z = torch.stack([weights.direction("w", Key(0, t, 0), kind).flatten() for t in range(count)]).double()
    products = z.unsqueeze(2) * z.unsqueeze(1)
    error = products.std(0) / math.sqrt(count)
    # 465 distinct numbers: all within 5 standard errors but for one run in 3,000 (their tails are heavy)
    assert ((products.mean(0) - torch.eye(30)).abs() < 5.5 * error).all()
    fourth = z.pow(4).mean(1)  # the entries of one direction share factors, the directions do not
    assert abs(fourth.mean() - (3 + 6 / rank)) < 4 * fourth.std() / math.sqrt(count)


def test_a_lazy_v_stays_for_its_steps_and_is_a_function_of_the_step():
    weights = matrix()
    one, other = LowRank(2, every=4), LowRank(2, every=4)
    forwards = [one.v(weights, "w", Key(3, t, i)).clone() for t in range(12) for i in range(2)]
    backwards = [other.v(weights, "w", Key(3, t, i)).clone() for t in reversed(range(12)) for i in (1, 0)]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    for step in range(12):
        for i in range(2):
            same = torch.equal(forwards[2 * step + i], forwards[2 * (step // 4 * 4)])
            assert same
    assert not torch.equal(forwards[0], forwards[8])
    us = [one.u(weights, "w", Key(3, t, i)) for t in range(2) for i in range(2)]
    assert not any(torch.equal(us[0], u) for u in us[1:])


@pytest.mark.parametrize(
    "spec",
    [*KINDS, {"kind": "lowrank", "rank": 3, "every": 2}, {"kind": "lowrank", "rank": 3, "vectors": "rank"}],
)
def test_the_mean_square_of_an_entry(spec):
    weights, kind, count = Weights(Small()), directions(spec), 400
    kind.bind(weights)
    squares = torch.tensor(
        [sum(weights.direction(n, Key(1, t, 0), kind).square().sum().item() for n in weights.ids) / weights.numel
         for t in range(count)]
    )  # fmt: skip
    if spec == "sphere":
        assert (squares - 1).abs().max() < 1e-6  # fp32 numbers of a norm taken in fp64
    assert abs(squares.mean() - mean_square(kind, weights)) <= 4 * squares.std() / math.sqrt(count) + 1e-6


def test_the_mean_square_of_a_projection():
    weights, kind = matrix(9, 5), Projected(rank=3, every=10)
    squares = torch.tensor(
        [weights.direction("w", Key(1, t, 0), kind).square().mean().item() for t in range(2000)]
    )
    assert mean_square(kind, weights) == pytest.approx(3 / 9)
    assert abs(squares.mean() - 3 / 9) < 4 * squares.std() / math.sqrt(2000)


@pytest.mark.parametrize("update", ["nearest", "stochastic", "master"])
@pytest.mark.parametrize("kind", ["lowrank", "subspace"])
def test_a_move_of_thin_factors_is_that_of_their_product(kind, update, monkeypatch):
    """Factored 7 rows at a time, of which the last time has 2; stochastic bits are those of the elements."""
    monkeypatch.setattr("zo.weights._ROWS", 7 * 30)
    made = torch.randn(100, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    moved, other = (Weights([("w", nn.Parameter(made.clone()))], update=update) for _ in range(2))
    directions_, terms = directions(kind), [(Key(0, 0, 0), 1e-2), (Key(0, 0, 1), -3e-2)]
    moved.move(terms, directions_, decay=1e-3, rounding_key=Key(0, 0, -1))
    total = directions_.total(other, "w", terms)
    word, low = Key(0, 0, -1).word, other.low.get("w")
    eager.add(other.source("w"), total, other.ids["w"], Write(1e-3, update, word), low)
    # A product of some rows may be summed in another order than that of all, which seldom shows in 16 bits.
    one, two = moved.tensors["w"].detach(), other.tensors["w"].detach()
    assert torch.allclose(one, two, rtol=2.0**-7, atol=0.0) and (one != two).float().mean() < 0.01


@pytest.mark.parametrize("m, n, rank", [(9, 7, 4), (5, 30, 3), (3, 16, 8), (8, 8, 64)])
def test_a_subspace_has_orthonormal_factors_and_the_norm_of_its_core(m, n, rank):
    weights, kind = matrix(m, n), Subspace(rank, every=5)
    a, b = kind.shape(weights.source("w"))
    assert a * b == m * n
    assert (a, b) == ((m, n) if min(m, n) > rank else {48: (6, 8), 64: (8, 8)}[m * n])
    r = min(rank, a, b)
    word = kind.window(Key(0, 7, 1))
    u, v = kind.basis(weights, "w", "U", a, r, word), kind.basis(weights, "w", "V", b, r, word)
    for q in (u, v):
        assert torch.allclose(q.T @ q, torch.eye(r), atol=1e-6)  # fp32 of an fp64 factor
    z = weights.direction("w", Key(0, 7, 1), kind)
    core = weights.factor("w", "Z", r * r, kind.stream, Key(0, 7, 1).word)
    assert z.norm().item() == pytest.approx(core.norm().item() * math.sqrt(m * n) / r, rel=1e-5)
    expected = math.sqrt(m * n) / r * u.double() @ core.view(r, r).double() @ v.double().T
    assert torch.allclose(z.view(a, b).double(), expected, atol=1e-5)  # fp32 products of numbers up to 10
    # The same bits from another instance, in another order.
    again = Subspace(rank, every=5)
    weights.direction("w", Key(0, 20, 0), again)
    assert torch.equal(weights.direction("w", Key(0, 7, 1), again), z)


@pytest.mark.parametrize("kind", [Subspace(3, every=5), Projected(3, every=5)])
def test_a_subspace_stays_for_its_steps_and_then_is_another(kind):
    weights = matrix(9, 7)
    z = torch.stack([weights.direction("w", Key(0, t, i), kind) for t in range(15) for i in (0, 1)]).double()
    for start in (0, 10, 20):  # two directions a step, five steps: all of a window's columns lie in one space
        columns = z[start : start + 10].transpose(0, 1).reshape(9, -1)
        assert torch.linalg.matrix_rank(columns, rtol=1e-5) == 3  # fp32 numbers
        across = z[max(0, start - 1) : start + 11].transpose(0, 1).reshape(9, -1)
        assert torch.linalg.matrix_rank(across, rtol=1e-5) > 3  # with the window before or behind


@pytest.mark.parametrize("spec", KINDS)
def test_every_form_of_the_kernels_gives_the_same_directions(spec):
    if KERNELS == "eager":
        pytest.skip("there is no other form here")
    made = []
    for kernels in ("eager", "auto"):
        weights, kind = Weights(Small(), kernels=kernels), directions(spec)
        kind.bind(weights)
        made.append([weights.direction(name, Key(0, 3, 1), kind) for name in weights.ids])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("spec", KINDS)
def test_rows_and_several_probes_are_those_of_the_whole(spec):
    weights, kind = Weights(Small()), directions(spec)
    kind.bind(weights)
    probes = [Probe(((Key(0, 0, 0), 0.3), (Key(0, 0, 1), scale))) for scale in (0.1, -0.1)]
    for name, tensor in weights.tensors.items():
        whole = [weights.at(name, probe, kind) for probe in probes]
        by_hand = tensor + sum(s * weights.direction(name, key, kind) for key, s in probes[0].terms)
        # Sums of products in another order: some units of the last place of numbers up to 8.
        assert torch.allclose(whole[0], by_hand, atol=4e-6)
        outs = [torch.empty_like(tensor.detach()) for _ in probes]
        many = weights.at_many(name, probes, kind, outs)
        assert all(torch.equal(a, b) for a, b in zip(whole, many, strict=True))
        if tensor.dim() == 2:
            rows = torch.tensor([3, 0, 2])
            assert torch.allclose(weights.rows_at(name, rows, probes[0], kind), whole[0][rows], atol=4e-6)
        noise: list = []
        weights.elementwise(
            lambda b, seen=noise: (seen.append((b.name, b.noise[0].clone())), torch.zeros_like(b.w))[1],
            [Key(0, 0, 0)], kind,
        )  # fmt: skip
        assert torch.equal(dict(noise)[name], weights.direction(name, Key(0, 0, 0), kind).flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", KINDS)
def test_both_sides_are_made_at_once_with_the_bits_of_each(spec, dtype):
    weights, kind = Weights(Small().to(dtype)), directions(spec)
    kind.bind(weights)
    terms = ((Key(0, 0, 0), 0.3), (Key(0, 0, 1), -0.07))
    sides = [Probe(terms), Probe(tuple((key, -scale) for key, scale in terms))]
    for name in weights.tensors:
        outs = [torch.empty_like(weights.source(name)) for _ in sides]
        many = weights.at_many(name, sides, kind, outs)
        for made in (many, weights.at_many(name, sides, kind, None)):
            assert all(torch.equal(weights.at(name, s, kind), m) for s, m in zip(sides, made, strict=True))
            assert {m.dtype for m in made} == {weights.source(name).dtype}


def test_norms_of_many_directions_are_made_once():
    """However many a step has: each is asked for by every tensor in turn."""

    class Counting(Weights):
        asked = 0

        def numbers(self, *args, **options):
            self.asked += 1
            return super().numbers(*args, **options)

    weights, kind = Counting(Small()), directions("sphere")
    terms = [(Key(0, 0, i), 1.0) for i in range(300)]
    factors = [kind.terms(weights, name, terms) for name in weights.ids]
    assert weights.asked == 300 * len(weights.ids)
    assert all(again == factors[0] for again in factors)


def test_sparse_probes_and_moves_the_small_weights_alone():
    model = Small()
    optimizer = SparseMeZO(model, lr=0.1, eps=1e-2, sparsity=0.6)
    before = {name: tensor.detach().clone() for name, tensor in optimizer.weights.tensors.items()}
    probed = {
        n: optimizer.weights.at(n, optimizer.ask(0)[0], optimizer.directions) != before[n]  # pyright: ignore[reportArgumentType]
        for n in before  # pyright: ignore[reportArgumentType]
    }
    optimizer.tell(0, [1.5, 1.0])
    for name, tensor in optimizer.weights.tensors.items():
        assert torch.equal(tensor != before[name], probed[name])
        if is_matrix(tensor):
            assert probed[name].sum() == round(0.4 * tensor.numel())
            assert before[name][probed[name]].abs().max() <= before[name][~probed[name]].abs().min()
        else:
            assert probed[name].all()


def test_sparse_thresholds_stay_and_a_weight_that_grows_beyond_its_own_stops():
    optimizer = SparseMeZO([("w", nn.Parameter(torch.linspace(-1, 1, 40).view(8, 5)))], lr=1.0, eps=0.5)
    w = optimizer.weights.tensors["w"].detach()
    h = w.abs().flatten().sort().values[9]  # ten of forty, at s = 0.75
    stopped = w.abs() > h
    for t in range(6):
        before, within = w.clone(), w.abs() <= h
        optimizer.tell(t, [1.0, 0.9])
        assert torch.equal(w != before, within)
        stopped |= ~within
    assert optimizer.state()["threshold:w"] == h
    assert stopped.sum() > 30  # some of the ten grew beyond h


def test_a_matrix_that_begins_at_zero_is_not_masked():
    """An adapter's B, a new head: with a threshold of 0 it would move once and never again."""
    model = Small()
    with torch.no_grad():
        model.head.weight.zero_()
    optimizer = SparseMeZO(model, lr=0.1, eps=1e-2)
    for t in range(3):
        before = model.head.weight.detach().clone()
        optimizer.tell(t, [1.5, 1.0])
        assert (model.head.weight != before).all()
    kind: Any = optimizer.directions
    assert mean_square(kind, optimizer.weights) < 0.6  # the others are masked as ever


def test_a_layer_is_named_by_what_comes_up_to_the_first_number():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert Layers().layers(Weights(model)) == {
        "0.bias": 0, "0.weight": 0,
        "1.0.bias": 1, "1.0.weight": 1, "1.1.bias": 1, "1.1.weight": 1,
    }  # fmt: skip
    many = Weights([(f"model.h.{i}.w.1.k", nn.Parameter(torch.zeros(1))) for i in range(12)])
    assert [Layers().layers(many)[f"model.h.{i}.w.1.k"] for i in range(12)] == list(range(12))
    assert len(Layers(0.75).chosen(many, 0, 3)) == 3
    assert len(Layers(0.99).chosen(many, 0, 3)) == 1
    assert len(LeZO(many, drop=0.5).directions.chosen(many, 0, 3)) == 6  # type: ignore[attr-defined]


def test_a_layer_left_out_is_not_moved():
    model = Small()
    optimizer = LeZO(model, lr=0.1, eps=1e-2, drop=0.5)
    for t in range(4):
        before = {name: tensor.detach().clone() for name, tensor in optimizer.weights.tensors.items()}
        (out,) = {0, 1} - optimizer.directions.chosen(optimizer.weights, 0, t)  # type: ignore[attr-defined]
        optimizer.tell(t, [1.5, 1.0])
        for name, tensor in optimizer.weights.tensors.items():
            assert torch.equal(tensor, before[name]) == name.startswith(f"layers.{out}."), name


def test_layers_are_left_out_whole_and_each_as_often():
    model = Small()
    optimizer = LeZO(model, drop=0.5)
    weights, seen = optimizer.weights, {0: 0, 1: 0}
    for t in range(200):
        plus, _ = optimizer.ask(t)
        touched = {n for n in weights.ids if weights.at(n, plus, optimizer.directions) is not weights.source(n)  # pyright: ignore[reportArgumentType]
                   and not torch.equal(weights.at(n, plus, optimizer.directions), weights.source(n))}  # fmt: skip  # pyright: ignore[reportArgumentType]
        (layer,) = {int(name.split(".")[1]) for name in touched if name.startswith("layers")}
        seen[layer] += 1
        assert touched == {n for n in weights.ids if not n.startswith(f"layers.{1 - layer}.")}
    assert abs(seen[0] - 100) < 4 * math.sqrt(50)  # binomial


FREE = [
    name for name, path in YAMLS.items() if "directions" in OmegaConf.load(path)
]  # the others have their own
REFUSED = {
    ("adamezo", "sparse")
}  # makes old directions again; so do MeZO with momentum and FZOO-R on request


@pytest.mark.parametrize("spec", KINDS)
@pytest.mark.parametrize("name", FREE)
def test_every_optimizer_takes_every_kind_or_says_why_not(name, spec):
    model = Small()
    if (name, spec) in REFUSED:
        with pytest.raises(ConfigError, match=spec):
            make(name, model, directions=spec)
        return
    optimizer = make(name, model, directions=spec, lr=1e-2)
    look = ModuleLook(model, losses, optimizer, probes_per_forward="all")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for t in range(3):
        optimizer.tell(t, optimizer.step(t, batch(t), look))
    after = list(model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


@pytest.mark.parametrize("name", FREE)
def test_what_a_kind_keeps_is_in_the_snapshot_of_every_optimizer(name):
    """Thresholds of the weights at the start, when a run is resumed with others in the model."""

    def run(optimizer, steps):
        for t in steps:
            g = torch.Generator().manual_seed(t)
            optimizer.tell(t, (1 + torch.rand(optimizer.losses_per_step, generator=g)).tolist())

    kind, other = {"kind": "sparse", "sparsity": 0.5}, Small()
    try:
        whole, first = (make(name, Small(), directions=kind, lr=1e-2) for _ in range(2))
    except ConfigError:
        return  # refuses kinds that keep something
    run(whole, range(4))
    run(first, range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(10)
    second = make(name, other, directions=kind, lr=1e-2)
    second.weights.load({key: tensor.clone() for key, tensor in first.weights.state().items()})
    second.load({key: tensor.clone() for key, tensor in first.state().items()})
    run(second, range(2, 4))
    assert second.weights.sha256() == whole.weights.sha256()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", KINDS)
def test_what_is_probed_is_what_is_moved_along(spec, dtype):
    """z of the probe, of `move` and of an element-wise rule, in value and in how it is added: the same bits."""
    key, c = Key(0, 3, 1), 2.0**-5
    ends = []
    for way in ("at", "move", "rule"):
        weights, kind = Weights(Small().to(dtype)), directions(spec)
        kind.bind(weights)
        if way == "at":
            ends.append({n: weights.at(n, Probe(((key, c),)), kind).clone() for n in weights.tensors})
            continue
        if way == "move":
            weights.move([(key, c)], kind)
        else:
            weights.elementwise(lambda block: block.noise[0].mul_(c), [key], kind)
        ends.append({n: weights.source(n) for n in weights.tensors})
    for name, point in ends[0].items():
        assert torch.equal(point, ends[1][name]), name
        assert torch.equal(point, ends[2][name]), name


@pytest.mark.parametrize(
    "make_one", [lambda: MeZOMomentum(Small(), momentum=0.9, directions="sparse"),
                 lambda: FZOOR(Small(), reuse="directions", directions="sparse")], ids=["mezo", "fzoor"]
)  # fmt: skip
def test_a_kind_that_follows_the_weights_is_refused_where_old_directions_are_made_again(make_one):
    with pytest.raises(ConfigError, match="'sparse'"):
        make_one()


def test_a_kind_that_follows_the_weights_is_refused_where_they_walk():
    with pytest.raises(ConfigError, match="sparse"):
        InPlace(Small(), losses, MeZO(Small(), directions="sparse"))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("spheres", "none of rademacher, gaussian"),
        ({"kind": "lowrank", "rang": 2}, "no option 'rang'. It has rank, every, vectors"),
        ({"kind": "lowrank", "rank": 0}, "rank = 0"),
        ({"kind": "lowrank", "every": 0}, "every = 0"),
        ({"kind": "lowrank", "vectors": "two"}, "vectors = 'two' must be unit or rank"),
        ({"kind": "lowrank", "rank": "two"}, "rank = 'two' must be a whole number"),
        ({"kind": "sparse", "sparsity": "much"}, "sparsity = 'much' must be a number of at least 0"),
        ({"kind": "subspace", "rank": 0}, "rank = 0"),
        ({"kind": "subspace", "every": 0}, "every = 0"),
        ({"kind": "sparse", "sparsity": 1.0}, "sparsity = 1.0"),
        ({"kind": "layers", "drop": -0.1}, "drop = -0.1"),
        ({"kind": "layers", "of": "sphere"}, "of = 'sphere'"),
        ({"kind": "rademacher", "rank": 1}, "It has none"),
        ({"kind": "gaussian", "bits": 8}, "bits = 8"),
        ({"rank": 1}, "none of rademacher"),
    ],
)
def test_what_a_kind_does_not_take(spec, message):
    with pytest.raises(ConfigError, match=message):
        FZOO(Small(), directions=spec)

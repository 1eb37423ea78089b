"""MeZO's momentum and MeZO-switch."""

import itertools
import json
import math

import pytest
import torch
from torch import nn

from zo import (
    AdaMeZO,
    ConfigError,
    Journal,
    JournalError,
    MeZO,
    MeZOMomentum,
    MeZOSwitch,
    ModuleLook,
    Weights,
    ZOMomentum,
    train,
)
from zo.directions import directions
from zo.optimizers.mezoswitch import length_of
from zo.training import path_lengths

EPS = 2.0**-10


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def objective(network, batch):
    return (network(batch)[:, 0] - batch.sum(1)).square()


def batches(t):
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(t))


def told(t, n):
    g = torch.Generator().manual_seed(100 + t)
    return (2 + torch.randint(-512, 512, (2 * n,), generator=g) / 1024).tolist()


def flat(optimizer):
    return torch.cat([tensor.detach().flatten() for tensor in optimizer.weights.tensors.values()])


@pytest.mark.parametrize("n", [1, 3])
def test_a_momentum_over_all_steps_is_the_one_that_is_kept(n):
    one = MeZOMomentum(model(), lr=1e-5, eps=EPS, n=n, momentum=0.8, horizon=20)
    kept = ZOMomentum(model(), lr=1e-5, eps=EPS, n=n, momentum=0.8)
    start = flat(one).clone()
    for t in range(10):
        one.tell(t, told(t, n))
        kept.tell(t, told(t, n))
    # The same sums in another order, in fp32.
    torch.testing.assert_close(flat(one) - start, flat(kept) - start, rtol=1e-4, atol=1e-6)
    assert (flat(one) - start).abs().max() > 1e-3


def test_the_momentum_reaches_back_so_many_steps():
    """A step whose slopes are 0 moves by the older ones, until they are out of the window."""
    one = MeZOMomentum(model(), lr=1e-3, eps=EPS, momentum=0.5, horizon=3)
    places = [flat(one).clone()]
    for t in range(4):
        one.tell(t, [1.5, 1.0] if t == 0 else [1.0, 1.0])
        places.append(flat(one).clone())
    moves = [b - a for a, b in itertools.pairwise(places)]
    torch.testing.assert_close(moves[1], moves[0] / 2, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(moves[2], moves[0] / 4, rtol=1e-3, atol=1e-6)
    assert not moves[3].any()


def test_the_window_of_the_momentum_is_in_snapshots():
    whole, first, second = (MeZOMomentum(model(), lr=1e-5, eps=EPS, momentum=0.5) for _ in range(3))
    for t in range(6):
        whole.tell(t, told(t, 1))
        (first if t < 3 else second).tell(t, told(t, 1))
        if t == 2:
            second.weights.load(first.weights.state())
            second.load(first.state())
    assert torch.equal(flat(whole), flat(second))
    assert MeZO(model()).state() == {}
    with pytest.raises(JournalError):
        MeZO(model()).load(first.state())


def test_a_factor_is_a_rate():
    one = MeZOSwitch(model(), lr=0.25, factor=2.0, weight_decay=0.1)
    other = MeZO(model(), lr=0.5, weight_decay=0.1)
    for t in range(3):
        one.tell(t, told(t, 1))
        other.tell(t, told(t, 1))
    assert torch.equal(flat(one), flat(other))


@pytest.mark.parametrize("n", [1, 3])
def test_it_is_as_long_as_the_record_says(tmp_path, n):
    """Step by step, whatever the slopes; where the record is shorter than MeZO's own step, that one."""
    record = [0.5, 0.125, 0.0, 2.0]
    (tmp_path / "lengths.json").write_text(json.dumps(record))
    network = model()
    path = str(tmp_path / "lengths.json")
    one = MeZOSwitch(network, lr=1e-6, eps=EPS, n=n, factor=1.0, record=path)
    look = ModuleLook(network, objective, one)
    for t, length in enumerate(record):
        losses = one.step(t, batches(t), look)
        assert len(losses) == one.losses_per_step == 2 * n + 1
        before = flat(one).clone()
        seen = one.tell(t, losses)
        moved = (flat(one) - before).double().norm().item()
        assert moved == pytest.approx(length, rel=1e-5) if length else moved < 1e-3
        assert seen["rate"] >= 1e-6
    with pytest.raises(ConfigError, match="4 steps and this is step 4"):
        one.step(4, batches(4), look)
    before = flat(one).clone()
    one.tell(4, [*[1.0] * (2 * n), 0.5])
    assert one.idle == 1
    assert torch.equal(flat(one), before)


def test_the_journal_alone_replays_a_followed_path(tmp_path):
    """The lengths are in it: the record may hold others by then."""
    path = tmp_path / "lengths.json"
    path.write_text("[0.5, 0.25, 0.125]")

    def run(steps):
        network = model()
        one = MeZOSwitch(network, lr=0.0, record=str(path))
        with Journal(tmp_path / "journal", {}, one.losses_per_step) as journal:
            train(one, ModuleLook(network, objective, one), batches, steps, journal=journal)
        return one

    first = run(3)
    path.write_text("[9.0]")
    assert run(3).weights.sha256() == first.weights.sha256()


def test_it_is_as_long_as_adamezo_when_it_follows_its_journal(tmp_path):
    network = model()
    other = AdaMeZO(network, lr=1e-4, horizon=3)
    with Journal(tmp_path / "adamezo", {}, 2) as journal:
        train(other, ModuleLook(network, objective, other), batches, 10, journal=journal)
        found = path_lengths(AdaMeZO(model(), lr=1e-4, horizon=3), journal, 10)
    assert found[-1] > 20 * found[0]  # after the warm-up
    (tmp_path / "lengths.json").write_text(json.dumps(found))
    network = model()
    one = MeZOSwitch(network, lr=1e-6, factor=1.0, record=str(tmp_path / "lengths.json"))
    with Journal(tmp_path / "switch", {}, one.losses_per_step) as journal:
        train(one, ModuleLook(network, objective, one), batches, 10, journal=journal)
        assert len(journal[0].losses) == 3
        again = MeZOSwitch(model(), lr=1e-6, factor=1.0, record=str(tmp_path / "lengths.json"))
        assert path_lengths(again, journal, 10) == pytest.approx(
            found, rel=1e-3
        )  # rounding of weights near 1


def test_lengths_do_not_depend_on_blocks_and_terms():
    one = MeZO(Weights([("w", nn.Parameter(torch.zeros(70000)))]), directions="rademacher")
    key, other = one.keys(0)[0], one.keys(1)[0]
    assert length_of(one.weights, [(key, 0.5)], one.directions) == pytest.approx(0.5 * math.sqrt(70000))
    assert length_of(one.weights, [(key, 0.5), (key, -0.5)], one.directions) == 0.0
    both = length_of(one.weights, [(key, 0.5), (other, 0.5)], one.directions)
    assert both == pytest.approx(0.5 * math.sqrt(140000), rel=0.02)  # nearly orthogonal: 1/√d


def test_lengths_do_not_depend_on_the_number_of_threads():
    """Nor do the norms of directions on a sphere; torch would share a sum of 2^15 numbers out."""

    def made():
        one = MeZO(Weights([("w", nn.Parameter(torch.zeros(70000)))]), n=3)
        sphere = directions("sphere").terms(one.weights, "w", [(key, 1.0) for key in one.keys(0)])
        terms = ([(key, 0.3) for key in one.keys(t)] for t in range(20))
        return sphere, [length_of(one.weights, some, one.directions) for some in terms]

    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(made())
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: MeZOMomentum(model(), momentum=1.0), "momentum = 1.0"),
        (lambda path: MeZOMomentum(model(), horizon=0), "horizon = 0"),
        (lambda path: MeZOSwitch(model(), factor=0.5), "factor = 0.5"),
        (lambda path: MeZOSwitch(model(), record="nowhere.json"), r"record = 'nowhere.json' cannot be read"),
        (lambda path: MeZOSwitch(model(), record=str(path)), "list of lengths"),
    ],
)
def test_wrong_arguments_are_named(make, message, tmp_path):
    path = tmp_path / "record.json"
    path.write_text('[0.5, "long"]')
    with pytest.raises(ConfigError, match=message):
        make(path)

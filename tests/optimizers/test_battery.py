"""Properties of every optimizer of conf/optimizer and conf/local/optimizer; a new YAML is tested without a line here.

What differs between methods they declare themselves (zo/optimizers/optimizer.py); a failure says which declaration, or
which fault of the method, would explain it. tests/optimizers/test_declared.py holds that it does.
"""

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from zo import ConfigError, ModuleLook, Weights, train
from zo.directions import LowRank, Probe

FOLDER = Path(__file__).parents[2] / "conf" / "optimizer"
LOCAL = FOLDER.parent / "local" / "optimizer"  # a user's own, of a package elsewhere


def yamls(folder):
    """The files by name. Baselines (no training, a probe) are in experiments and have tests of their own."""
    files = sorted(folder.glob("*.yaml"))
    return {p.stem: p for p in files if "_target_: experiments." not in p.read_text(encoding="utf-8")}


YAMLS = yamls(FOLDER)
OWN = yamls(LOCAL)


def settings(name):
    return OmegaConf.load(YAMLS[name] if name in YAMLS else OWN[name])


def kind_of(name):
    """The class of a YAML."""
    module, _, kind = settings(name)["_target_"].rpartition(".")  # pyright: ignore[reportArgumentType]
    return getattr(importlib.import_module(module), kind)


def checkpointed(name):
    """Whether the weights cannot be rebuilt from the losses: those of first-order methods."""
    return kind_of(name).replays_from != "losses"


def make(name, params, **changes):
    """The optimizer of a YAML, with its own arguments but for `changes` and what refers to other settings of a run."""
    written: Any = OmegaConf.to_container(settings(name))
    arguments = {key: value for key, value in written.items() if not str(value).startswith("${")}
    del arguments["_target_"]
    return kind_of(name)(params, **{**arguments, **changes})


@pytest.fixture(params=YAMLS | OWN)
def name(request):
    return request.param


class Bowl(nn.Module):
    """½‖A θ − b‖² of each example over a matrix, a vector and a scalar; curvatures from 0.5 to 2."""

    def __init__(self, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(3, 2, generator=g))
        self.vector = nn.Parameter(torch.randn(4, generator=g))
        self.scale = nn.Parameter(torch.randn(1, generator=g))
        self.register_buffer("curvature", torch.linspace(0.5, 2.0, 11))

    def forward(self, targets):
        theta = torch.cat([self.matrix.flatten(), self.vector, self.scale])
        return 0.5 * (self.curvature * (theta - targets).square()).sum(1)


def objective(model, batch):
    return model(batch)


def batches(t):
    return 1.0 + 0.1 * torch.randn(4, 11, generator=torch.Generator().manual_seed(t))


def run(optimizer, model, start, steps, losses=None):
    look = ModuleLook(model, objective, optimizer)
    for t in range(start, steps):
        told = optimizer.step(t, batches(t), look)
        optimizer.tell(t, told)
        if losses is not None:
            losses.append(told)
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def synthetic(optimizer, t, model):
    """Losses on a grid of 2⁻¹⁰, one for each that `tell` takes, and whatever else it reads (gradients)."""
    g = torch.Generator().manual_seed(1000 + t)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=g)
    return (torch.randint(1, 4096, (optimizer.losses_per_step,), generator=g) / 1024).tolist()


def test_descends_a_quadratic(name):
    reached = {}
    for lr in (0.03, 0.01, 0.1, 0.003):  # the scale of a step differs from method to method
        model = Bowl()
        before = objective(model, batches(0)).mean().item()
        run(make(name, model, lr=lr, **kind_of(name).small_problem), model, 0, 250)
        reached[lr] = objective(model, batches(0)).mean().item() / before
        if reached[lr] < 0.2:
            return
    pytest.fail(
        f"At no rate of {sorted(reached)} did 250 steps bring the loss below a fifth; they left {reached}. A "
        "method whose defaults are for millions of weights says in `small_problem` which options descend a dozen."
    )


def test_bytes_kept_are_those_of_what_is_there(name):
    """State, and the factors that directions keep (of low rank: the most); a few numbers a method may have beside."""
    model = nn.ModuleDict({"a": nn.Linear(40, 30), "b": nn.Linear(30, 1, bias=False)})
    optimizer = make(name, model)
    for t in range(2):
        optimizer.ask(t)
        optimizer.tell(t, synthetic(optimizer, t, model))
    kind = getattr(optimizer, "directions", None)
    found = sum(t.nbytes for t in optimizer.state().values())
    found += sum(basis.nbytes for _, basis in getattr(kind, "_bases", {}).values())
    said = optimizer.state_bytes([torch.empty(p.shape, device="meta") for p in model.parameters()])
    if isinstance(kind, LowRank):
        assert kind._size <= 1 << 24
        said -= 4 << 24
    assert 0 <= found - said <= 64, (
        f"state() and the directions hold {found} bytes, and state_bytes says {said}. A method declares in "
        "state_copies how many numbers of 4 bytes it keeps for each weight, and adds other state in state_bytes."
    )


def test_order_of_the_parameters_does_not_matter(name):
    results = []
    for order in (1, -1):
        model = Bowl()
        named = list(model.named_parameters())[::order]
        run(make(name, Weights(named), lr=0.01), model, 0, 5)
        results.append([parameter.detach() for parameter in model.parameters()])
    assert equal(*results), (
        "The move depends on the order of the parameters. A random number hangs on the tensor's name and on "
        "Key(self.seed, t, index), never on the order of calls; sums over tensors are exact (math.fsum)."
    )


def test_a_constant_added_to_every_loss_changes_nothing(name):
    if kind_of(name).tells_slopes:
        pytest.skip("is told slopes")
    results = []
    for constant in (0.0, 64.0):  # a power of two, so that every sum is exact in fp32
        model = Bowl()
        optimizer = make(name, model, lr=0.01)
        for t in range(5):
            optimizer.tell(t, [loss + constant for loss in synthetic(optimizer, t, model)])
        results.append([parameter.detach() for parameter in model.parameters()])
    assert equal(*results), (
        "A constant added to every loss changed the move: it must depend on differences of losses alone. A method that "
        "is told slopes, to which a constant means something, declares tells_slopes = True."
    )
    assert not equal(results[0], [parameter.detach() for parameter in Bowl().parameters()]), (
        "tell never moves"
    )


def test_equal_perturbed_losses_move_nothing(name):
    if checkpointed(name) or kind_of(name).tells_slopes:
        pytest.skip("moves by gradients or slopes, not by losses")
    model = Bowl()
    optimizer = make(name, model, lr=0.1)
    for t in range(3):
        here = 0.5 if optimizer.one_sided else 0.25
        optimizer.tell(t, losses_at(optimizer, t, here))
    assert equal([p.detach() for p in model.parameters()], [p.detach() for p in Bowl().parameters()]), (
        "Losses that are equal at all perturbed points moved the weights. A method whose slopes are taken from the "
        "loss at θ declares one_sided = True; one that moves anyway needs a floor below which a step is no_move."
    )
    if optimizer.one_sided:
        optimizer.tell(3, losses_at(optimizer, 3, 0.25))
        assert not equal(
            [p.detach() for p in model.parameters()], [p.detach() for p in Bowl().parameters()]
        ), (
            "one_sided = True says that the loss at θ is a point of each slope, but one that differs from all others "
            "moved nothing, or ask does not name θ, which is Probe(). Remove the declaration."
        )


def losses_at(optimizer, t, here):
    """The losses of step t: `here` at θ, one half everywhere else."""
    losses = [here if probe == Probe() else 0.5 for probe in optimizer.ask(t)]
    return losses + [0.5] * (optimizer.losses_per_step - len(losses))


def test_decay_is_beside_the_move(name):
    """θ ← (1 − η λ) θ + move, with η the step's rate; biases and norms are spared."""

    def told(decay):
        model = Bowl()
        tensors = {"matrix": model.matrix, "norm.weight": model.vector, "head.bias": model.scale}
        optimizer = make(name, Weights(tensors.items()), lr=2.0**-7, weight_decay=decay)
        # The last loss is the lowest, so that the best of three points is not θ.
        seen = optimizer.tell(0, sorted(synthetic(optimizer, 0, model), reverse=True))
        return {key: tensor.detach().double() for key, tensor in tensors.items()}, seen

    (plain, seen), (decayed, _), start = told(0.0), told(0.5), Bowl().matrix.detach().double()
    assert not torch.equal(plain["matrix"], start)
    rate = seen.get("rate", seen["lr"])
    scale = plain["matrix"].abs().max().item()
    difference = decayed["matrix"] - plain["matrix"]
    torch.testing.assert_close(difference, -rate * 0.5 * start, rtol=1e-5, atol=4 * 2**-24 * (2 + scale))
    for key in ("norm.weight", "head.bias"):
        assert torch.equal(plain[key], decayed[key])


def test_resumes_to_the_same_bits(name):
    whole = Bowl()
    expected = run(make(name, whole, lr=0.01), whole, 0, 9)
    first = Bowl()
    optimizer = make(name, first, lr=0.01)
    run(optimizer, first, 0, 5)
    weights = {key: tensor.clone() for key, tensor in optimizer.weights.state().items()}
    state = {key: tensor.clone() for key, tensor in optimizer.state().items()}
    second = Bowl(seed=1)
    optimizer = make(name, second, lr=0.01)
    optimizer.weights.load(weights)
    optimizer.load(state)
    assert equal(run(optimizer, second, 5, 9), expected), (
        "Resumed from a snapshot, the weights are others: state() must give every tensor that the method keeps from "
        "step to step, and load fill them in place."
    )


def test_replays_from_its_losses(name):
    model = Bowl()
    optimizer = make(name, model, lr=0.01)
    assert (optimizer.replays_from != "losses") == (optimizer.backward_passes > 0), (
        f"replays_from = {optimizer.replays_from!r} and backward_passes = {optimizer.backward_passes}: weights follow "
        "from the losses, replays_from = 'losses', unless gradients move them, 'checkpoint'."
    )
    if optimizer.replays_from != "losses":
        return
    losses = []
    expected = run(optimizer, model, 0, 6, losses)
    again = Bowl()
    optimizer = make(name, again, lr=0.01)
    for t, told in enumerate(losses):
        optimizer.ask(t)  # asking changes nothing, and need not happen
        optimizer.tell(t, torch.tensor(told, dtype=torch.float32).tolist())
    assert equal([p.detach() for p in again.parameters()], expected), (
        "Told the same losses without looking, the weights are others: _move must depend on t, the losses, lr and "
        "state() alone, and ask and step must leave nothing behind that _move reads."
    )


@pytest.mark.parametrize(
    "dtype, update",
    [(torch.bfloat16, "nearest"), (torch.bfloat16, "stochastic"), (torch.bfloat16, "master"),
     (torch.float16, "nearest"), (torch.float16, "stochastic"), (torch.float16, "master")],
)  # fmt: skip
def test_sixteen_bits(name, dtype, update):
    """Looks write nothing, moves move, the dtype stays, and losses rebuild the bits."""

    def start():
        model = Bowl().to(dtype)
        radius = {"eps": 0.0625} if "eps" in settings(name) and not checkpointed(name) else {}
        return model, make(
            name, Weights(model, update=update), lr=0.05, **radius, **kind_of(name).small_problem
        )

    if checkpointed(name) and update != "master":
        with pytest.raises(ConfigError, match="keeps fp32 master weights: use update = 'auto' or 'master'"):
            start()
        return
    model, optimizer = start()
    look, told = ModuleLook(model, objective, optimizer), []
    for t in range(3):  # odd: equal steps up and down do not cancel
        before = optimizer.weights.sha256()
        told.append(optimizer.step(t, batches(t), look))
        assert optimizer.weights.sha256() == before
        optimizer.tell(t, told[-1])
    pairs = list(zip(model.parameters(), Bowl().parameters(), strict=True))
    assert all(parameter.dtype == dtype and parameter.isfinite().all() for parameter, _ in pairs)
    moved = [not torch.equal(parameter, first.to(dtype)) for parameter, first in pairs]
    assert all(moved) or (not optimizer.moves_all and any(moved)), (
        f"Of the trained tensors these moved: {moved}. A method of which a step leaves some where they are declares "
        "moves_all = False."
    )
    if checkpointed(name):
        return
    _, again = start()
    for t, losses in enumerate(told):
        again.tell(t, losses)
    assert again.weights.checksum() == optimizer.weights.checksum()


def test_a_move_that_sixteen_bits_lose_is_warned_of(name):
    if checkpointed(name):
        pytest.skip("does not know how far its optimizer moves an entry")
    model = nn.Linear(64, 64).bfloat16()
    radius = {"eps": 0.0625} if "eps" in settings(name) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(name, model, lr=1.0, **radius)
        optimizer = make(name, model, lr=1e-9, **radius)
    with pytest.warns(UserWarning, match="under a tenth of the spacing .* of weight"):
        for t in range(getattr(optimizer, "settled", 0) + 1):
            optimizer.tell(t, torch.linspace(2.0, 1.0, optimizer.losses_per_step).tolist())


def test_asking_is_a_function_of_the_step(name):
    optimizer = make(name, Bowl(), lr=0.01)
    asked = [optimizer.ask(t) for t in (3, 0, 3)]
    assert asked[0] == asked[2], (
        "ask(3) named other points the second time: it must depend on t alone, and its keys be Key(self.seed, t, i)."
    )
    assert (len(asked[0]) < optimizer.losses_per_step) == (optimizer.looks_twice or optimizer.tells_slopes), (
        f"ask names {len(asked[0])} points and tell takes {optimizer.losses_per_step} losses: a method that looks "
        "twice, or is told slopes, declares looks_twice or tells_slopes, and no other does."
    )
    assert len(asked[0]) <= optimizer.losses_per_step
    keys = [key for t in (0, 3) for probe in optimizer.ask(t) for key, _ in probe.terms]
    assert {key.step for key in keys} <= {0, 3}, "the keys of ask(t) are of step t: Key(self.seed, t, index)"


class Counting(ModuleLook):
    """Counts how often it is asked for losses and for slopes."""

    looks = slope_looks = 0

    def __call__(self, probes, batch):
        self.looks += 1
        return super().__call__(probes, batch)

    def slopes(self, keys, batch):
        self.slope_looks += 1
        return super().slopes(keys, batch)


def test_costs_and_looks_as_it_says(name):
    model = Bowl()
    optimizer = make(name, model, lr=0.01)
    look = Counting(model, objective, optimizer)
    assert len(optimizer.step(0, batches(0), look)) == optimizer.losses_per_step, (
        "step gives another number of losses than losses_per_step"
    )
    passes = (look.forward_passes, look.backward_passes)
    assert passes == (optimizer.forward_passes, optimizer.backward_passes), (
        f"A step took {passes} forward and backward passes, and the method declares forward_passes = "
        f"{optimizer.forward_passes} and backward_passes = {optimizer.backward_passes}."
    )
    assert (look.looks > 1) == optimizer.looks_twice, (
        f"A step looked {look.looks} times for losses and looks_twice = {optimizer.looks_twice}."
    )
    assert (look.slope_looks > 0) == optimizer.tells_slopes, (
        f"A step looked {look.slope_looks} times for slopes and tells_slopes = {optimizer.tells_slopes}."
    )


def test_a_step_that_may_leave_tensors_leaves_some(name):
    if kind_of(name).moves_all:
        pytest.skip("moves all")
    left = 0
    for seed in range(8):
        model = Bowl()
        run(make(name, model, lr=0.01, seed=seed), model, 0, 1)
        left += sum(torch.equal(p, q) for p, q in zip(model.parameters(), Bowl().parameters(), strict=True))
    assert left, "moves_all = False, but every step moved every tensor: remove the declaration."


def test_seeds_differ(name):
    if checkpointed(name):
        pytest.skip("has no directions")
    results = []
    for seed in (0, 1):
        model = Bowl()
        run(make(name, model, lr=0.01, seed=seed), model, 0, 3)
        results.append([parameter.detach() for parameter in model.parameters()])
    assert not equal(*results), "Two seeds gave the same weights: keys are Key(self.seed, t, index)."


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_stops_or_is_skipped(name, bad):
    from zo import Diverged

    model = Bowl()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = make(name, model, lr=0.01)
    losses = synthetic(optimizer, 0, model)
    losses[len(optimizer.required_losses(losses)) - 1] = bad
    with pytest.raises(Diverged, match="Step 0"):
        optimizer.tell(0, losses)
    assert equal([p.detach() for p in model.parameters()], before)
    optimizer = make(name, model, lr=0.01, on_nan="skip", weight_decay=0.1)
    optimizer.tell(0, losses)
    assert optimizer.skipped == 1
    assert equal([p.detach() for p in model.parameters()], before)
    optimizer.tell(1, synthetic(optimizer, 1, model))
    assert optimizer.skipped == 1
    assert not equal([p.detach() for p in model.parameters()], before)


def test_tensors_without_elements_are_no_hindrance(name):
    """Beside others, of every number of dimensions; what is looked at and moved are the others."""
    shapes = {"a": (0,), "b": (0, 4), "c": (4, 0), "d": (2, 0, 3), "e": (3, 4), "f": (5,), "g": ()}
    for kernels in ("eager", "native"):
        parameters = [(key, nn.Parameter(torch.ones(shape))) for key, shape in shapes.items()]
        optimizer = make(name, Weights(parameters, kernels=kernels), lr=0.01)
        for t in range(3):
            if checkpointed(name):
                for _, parameter in parameters:
                    parameter.grad = torch.ones_like(parameter)
            else:
                for key in shapes:
                    for probe in optimizer.ask(t):
                        assert optimizer.weights.at(key, probe, optimizer.directions).shape == shapes[key]
            optimizer.tell(t, [1.0 - 2.0**-10 * i for i in range(optimizer.losses_per_step)])
        after = optimizer.weights.tensors["e"]
        assert after.isfinite().all() and (
            not optimizer.moves_all or not torch.equal(after, torch.ones(3, 4))
        )


@pytest.mark.parametrize(
    "argument, value",
    [("lr", -1e-3), ("lr", float("nan")), ("lr", float("inf")), ("weight_decay", -0.1),
     ("weight_decay", float("nan")), ("weight_decay", float("inf")), ("on_nan", "ignore")],
)  # fmt: skip
def test_arguments_of_all_are_checked(name, argument, value):
    with pytest.raises(ValueError, match=argument):
        make(name, Bowl(), **{argument: value})


def test_trains_under_the_loop(name, tmp_path):
    from zo import Journal

    model = Bowl()
    optimizer = make(name, model, lr=0.01)
    with Journal(tmp_path / "journal", {}, optimizer.losses_per_step) as journal:
        assert train(optimizer, ModuleLook(model, objective, optimizer), batches, 4, journal=journal) == 4
        assert len(journal) == 4
    other = Bowl()
    expected = run(make(name, other, lr=0.01), other, 0, 4)
    assert equal([p.detach() for p in model.parameters()], expected)

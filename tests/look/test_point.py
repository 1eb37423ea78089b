"""A probe's loss is that of a model whose weights truly are θ + Σ scale z, and looking writes no weight."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from tests import tiny
from zo import FZOO, ClosureLook, ConfigError, InPlace, Key, LookError, MeZO, ModuleLook, Probe, Weights
from zo.look.look import mean, weighted_sums

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plain_loss(model, objective, batch):
    with torch.no_grad():
        result = objective(model, batch)
    losses, weights = result if isinstance(result, tuple) else (result, torch.ones_like(result))
    return mean(*weighted_sums(losses.double().tolist(), weights.double().tolist()))


def moved_copy(model, optimizer, probe):
    """A deep copy of the model at the probe; tied weights are written once and stay tied."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in Weights(twin, copies=False).tensors.items():
            tensor.copy_(optimizer.weights.at(name, probe, optimizer.directions))
    return twin


def bits(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def same_bits(one, other):
    return all(
        torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_probe_is_its_point(family, dtype, lora):
    model = tiny.build(family, dtype=dtype, lora=lora)
    # Without fp32 copies of the vectors, so that a plain model in the same dtype can be at the point.
    optimizer = FZOO(Weights(model, copies=False), n=4, eps=2e-2)
    objective = tiny.FAMILIES[family].objective
    look = ModuleLook(model, objective, optimizer, probes_per_forward="all")
    for t in range(2):  # one by one, then stacked
        probes = [
            *optimizer.ask(t),
            Probe(((Key(0, t, 0), 0.01), (Key(5, 1, 2), -0.02), (Key(0, t, 1), 0.03))),
        ]
        batch = tiny.batch(family, 4, 7, seed=t)
        expected = [plain_loss(moved_copy(model, optimizer, probe), objective, batch) for probe in probes]
        assert look(probes, batch) == expected


def test_tied_embeddings_move_together():
    """One tensor in two places: both see the same perturbation (the copy at the point is tied as well)."""
    for family in ("llama-tied", "opt", "roberta", "gpt2"):
        model = tiny.build(family)
        head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        assert head is embedding
        optimizer = MeZO(model, n=1, eps=1e-2)
        assert sum(tensor is head for tensor in optimizer.weights.tensors.values()) == 1
        for parameter in model.parameters():
            parameter.requires_grad_(parameter is head)
        optimizer = MeZO(model, n=1, eps=1e-2)
        objective = tiny.FAMILIES[family].objective
        batch = tiny.batch(family, 3, 6)
        look = ModuleLook(model, objective, optimizer)
        for t in range(2):
            probes = optimizer.ask(t)
            expected = [plain_loss(moved_copy(model, optimizer, probe), objective, batch) for probe in probes]
            assert look(probes, batch) == expected


def test_sixteen_bit_vectors_are_perturbed_in_fp32():
    """A gain of 1 in bfloat16 does not see an ε of 1e-3; its fp32 copy does."""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(64)

        def forward(self, x):
            return self.norm(x)

    model = Norm().bfloat16()
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    objective = lambda model, batch: model(batch).float()[:, :32].mean(1)  # noqa: E731
    kept = MeZO(Weights(model), eps=1e-3)
    assert set(kept.weights.copies) == {"norm.weight", "norm.bias"}
    plus, minus = ModuleLook(model, objective, kept)(kept.ask(0), x)
    assert plus != minus
    reference = Norm()
    wide = MeZO(Weights(reference), eps=1e-3)
    expected = ModuleLook(reference, objective, wide)(wide.ask(0), x.float())
    # The output is rounded to bfloat16 (2^-9 of entries up to about 4), then averaged over 256 of them.
    assert plus - minus == pytest.approx(expected[0] - expected[1], abs=4 * 2**-9 / 16)
    # A move smaller than bfloat16's spacing at 1 accumulates in the copy until the weight itself moves.
    for t in range(8):
        kept.weights.move([(Key(0, 0, 0), 1e-3)], kept.directions)
        kept.weights.move([(Key(0, 0, 0), -2e-4)], kept.directions)
        del t
    z = (kept.weights.copies["norm.weight"] - 1) / (8 * 8e-4)
    assert torch.equal(model.norm.weight, kept.weights.copies["norm.weight"].bfloat16())
    assert 0.7 < z.square().mean() < 1.4  # about one: nothing was lost
    assert (model.norm.weight != 1).float().mean() > 0.3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["opt", "llama", "roberta", "bert-classifier", "gpt2"])
def test_looking_writes_nothing(family, dtype):
    model = tiny.build(family, dtype=dtype)
    before = bits(model)
    forwards = {name: module.__dict__.get("forward") for name, module in model.named_modules()}
    optimizer = FZOO(model, n=4, eps=2e-2)
    look = ModuleLook(model, tiny.FAMILIES[family].objective, optimizer, probes_per_forward="all", micro=3)
    for t in range(3):
        look(optimizer.ask(t), tiny.batch(family, 4, 6))
    assert same_bits(before, bits(model))
    assert forwards == {name: module.__dict__.get("forward") for name, module in model.named_modules()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps_before", [0, 2], ids=["first look", "stacked"])
@pytest.mark.parametrize("place", ["objective", "leaf", "first layer", "swapped module"])
def test_an_exception_in_mid_look_leaves_all_as_it_was(place, steps_before, dtype):
    family = "llama"
    model = tiny.build(family, dtype=dtype)
    objective = tiny.FAMILIES[family].objective
    optimizer = FZOO(model, n=4, eps=2e-2)
    before = bits(model)
    armed = False

    def failing(model, batch):
        result = objective(model, batch)
        if armed and place == "objective":
            raise KeyboardInterrupt
        return result

    look = ModuleLook(model, failing, optimizer, probes_per_forward="all")
    untouched = ModuleLook(copy.deepcopy(model), objective, optimizer, probes_per_forward=1)
    untouched = ModuleLook(model, objective, optimizer, probes_per_forward=1)
    batch = tiny.batch(family, 3, 6)
    for t in range(steps_before):
        look(optimizer.ask(t), batch)
    where = {
        "leaf": model.model.layers[1].mlp.down_proj,
        "first layer": model.model.layers[0],
        "swapped module": model.model.norm,
        "objective": model,
    }[place]

    def hook(*_):
        if armed and place != "objective":
            raise KeyboardInterrupt

    where.register_forward_hook(hook)
    armed = True
    with pytest.raises(KeyboardInterrupt):
        look(optimizer.ask(7), batch)
    armed = False
    assert same_bits(before, bits(model))
    assert not any("forward" in module.__dict__ for module in model.modules())
    for t in range(3):
        assert look(optimizer.ask(t), batch) == untouched(optimizer.ask(t), batch)
    assert look.sequential_because is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("update", ["nearest", "stochastic", "master"])
@pytest.mark.parametrize("method", [MeZO, FZOO])
def test_training_at_rate_zero_keeps_every_bit(method, update, dtype):
    model = tiny.build("opt", dtype=dtype)
    before = bits(model)
    optimizer = method(Weights(model, update=update), lr=0.0, n=4, eps=2e-2, weight_decay=0.1)
    look = ModuleLook(model, tiny.causal, optimizer)
    for t in range(3):
        optimizer.tell(t, look(optimizer.ask(t), tiny.batch("opt", 3, 6, seed=t)))
    assert same_bits(before, bits(model))


def toy_objective(model, batch):
    return (model["w"] @ batch["x"].T).square().sum(0) + model["b"].sum() * batch["x"][:, 0]


@pytest.mark.parametrize("micro", [None, 2])
def test_closure_and_module_see_the_same(micro):
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))
            self.b = nn.Parameter(torch.ones(2))

        def forward(self, batch):
            return toy_objective({"w": self.w, "b": self.b}, batch)

    model = Toy()
    optimizer = FZOO(model, n=4)
    batch = {"x": torch.randn(7, 5, generator=torch.Generator().manual_seed(1))}
    module = ModuleLook(
        model, lambda model, batch: model(batch), optimizer, micro=micro, probes_per_forward=1
    )
    closure = ClosureLook(toy_objective, optimizer, micro=micro)
    for t in range(2):
        assert closure(optimizer.ask(t), batch) == module(optimizer.ask(t), batch)
    assert closure.forward_passes == module.forward_passes == 10


def test_the_walk_in_place_agrees_in_fp32_and_returns_to_rounding():
    model = tiny.build("opt")
    before = bits(model)
    optimizer = MeZO(Weights(model, copies=False), n=2, eps=1e-3)
    batch = tiny.batch("opt", 3, 6)
    expected = ModuleLook(model, tiny.causal, optimizer)(optimizer.ask(0), batch)
    walked = InPlace(model, tiny.causal, optimizer)
    # Weights of about 0.1 are rounded at 2^-27 a step of the walk; losses of about 4 at 2^-22.
    assert walked(optimizer.ask(0), batch) == pytest.approx(expected, abs=2e-5)
    assert walked.forward_passes == 4
    for old, new in zip(before, bits(model), strict=True):
        assert (old - new).abs().max() <= 8 * 2**-24 * (old.abs().max() + 4e-3)


def test_the_walk_in_place_drifts_in_sixteen_bits():
    """What MeZO's numerics do, and why looking out of place is the rule."""
    model = tiny.build("opt", dtype=torch.bfloat16)
    before = bits(model)
    optimizer = MeZO(Weights(model, copies=False), n=1, eps=1e-3)
    look = InPlace(model, tiny.causal, optimizer)
    for t in range(5):
        look(optimizer.ask(t), tiny.batch("opt", 3, 6))
    assert not same_bits(before, bits(model))


@pytest.mark.parametrize("update", ["stochastic", "master"])
def test_the_walk_in_place_rounds_to_nearest_alone(update):
    weights = Weights(nn.Linear(3, 3).bfloat16(), copies=False, update=update)
    with pytest.raises(ConfigError, match=f"update = '{update}' it would be another"):
        InPlace(nn.Linear(3, 3), tiny.causal, MeZO(weights))


def test_the_walk_in_place_comes_back_when_the_forward_fails():
    model = tiny.build("opt")
    before = bits(model)
    optimizer = MeZO(Weights(model, copies=False), n=1, eps=1e-3)

    def fails(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InPlace(model, fails, optimizer)(optimizer.ask(0), tiny.batch("opt", 3, 6))
    for old, new in zip(before, bits(model), strict=True):
        assert (old - new).abs().max() <= 8 * 2**-24 * (old.abs().max() + 4e-3)


def test_dropout_does_not_enter_a_look():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 1)).train()
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, lambda model, x: model(x)[:, 0], optimizer)
    x = torch.randn(5, 6)
    assert look([Probe()], x) == look([Probe()], x)
    assert model.training  # as it was before the look


def test_what_is_dropped_is_freed_at_once():
    """Without the collector of cycles, which a full GPU does not wait for."""
    model = nn.Sequential(nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 1))
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, lambda model, x: model(x)[:, 0, 0], optimizer)
    gone, collects = weakref.ref(model), gc.isenabled()
    gc.disable()
    try:
        optimizer.tell(0, optimizer.step(0, torch.arange(6).view(2, 3), look))
        del model, optimizer, look
        assert gone() is None
    finally:
        if collects:
            gc.enable()


def test_a_loss_that_is_no_number_is_told_as_it_is():
    model = nn.Linear(3, 1)
    optimizer = MeZO(model)
    for bad in (float("nan"), float("inf")):
        look = ModuleLook(model, lambda model, x, bad=bad: model(x)[:, 0] + bad, optimizer)
        losses = look(optimizer.ask(0), torch.ones(2, 3))
        assert all(not torch.tensor(loss).isfinite() for loss in losses)
    empty = ModuleLook(model, lambda model, x: (model(x)[:, 0], torch.zeros(2)), optimizer)
    assert all(loss != loss for loss in empty(optimizer.ask(0), torch.ones(2, 3)))


@pytest.mark.parametrize(
    "objective",
    [
        lambda model, x: model(x).mean(),
        lambda model, x: model(x),
        lambda model, x: (model(x)[:, 0], torch.ones(2)),
        lambda model, x: (model(x)[:, 0], torch.ones(4, 1)),
        lambda model, x: 0.5,
        lambda model, x: model(x)[:, 0].tolist(),
    ],
    ids=["scalar", "matrix", "few weights", "matrix of weights", "float", "list"],
)
def test_an_objective_of_another_shape_is_refused(objective):
    model = nn.Linear(3, 1)
    optimizer = MeZO(model)
    with pytest.raises(LookError, match="one number an example"):
        ModuleLook(model, objective, optimizer)(optimizer.ask(0), torch.ones(4, 3))


@pytest.mark.parametrize(
    "batch, message",
    [
        ({"x": torch.ones(4, 3), "y": torch.ones(5)}, r"\[4, 3\], \[5\]"),
        ({"x": torch.ones(4, 3), "n": torch.tensor(4)}, "leading dimension"),
        ({"x": [1, 2, 3]}, "no tensor"),
    ],
    ids=["rows differ", "a scalar", "no tensor"],
)
def test_a_batch_that_cannot_be_cut_is_refused(batch, message):
    model = nn.Linear(3, 1)
    optimizer = MeZO(model)
    with pytest.raises(LookError, match=message):
        ModuleLook(model, lambda model, batch: model(batch["x"])[:, 0], optimizer)(optimizer.ask(0), batch)


def test_what_is_no_tensor_is_passed_on():
    model = nn.Linear(3, 1)
    optimizer = MeZO(model, n=2)
    look = ModuleLook(
        model, lambda model, batch: model(batch["x"])[:, 0] * batch["scale"], optimizer, micro=2
    )
    losses = look(optimizer.ask(0), {"x": torch.ones(4, 3), "scale": 2.0})
    assert losses == look(optimizer.ask(0), {"x": torch.ones(4, 3), "scale": 2.0})


@pytest.mark.parametrize("value", [0, -1, "some", 1.5, None, True])
def test_probes_per_forward_is_checked(value):
    model = nn.Linear(3, 1)
    if value is True:
        pytest.skip("True is 1 to Python")
    with pytest.raises(ValueError, match="probes_per_forward"):
        ModuleLook(model, lambda *_: None, MeZO(model), probes_per_forward=value)  # type: ignore[arg-type]


def test_micro_is_checked():
    model = nn.Linear(3, 1)
    with pytest.raises(ValueError, match=r"batch\.micro = 0"):
        ModuleLook(model, lambda *_: None, MeZO(model), micro=0)  # type: ignore[arg-type]

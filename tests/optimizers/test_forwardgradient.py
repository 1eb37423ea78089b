"""Forward gradients: slopes are autograd's, on every family of models; expectation; what cannot be is refused."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tests.optimizers.test_battery import Bowl, batches, equal, objective, run
from zo import ForwardGradient, Key, LookError, MeZO, ModuleLook, Weights


def by_autograd(model, look, batch, optimizer, key):
    """(zᵀ∇L, ‖z‖ ‖∇L‖) in float64 from one backward pass."""
    look.gradient(batch, seed=None)
    slope, size, length = 0.0, 0.0, 0.0
    for name, tensor in optimizer.weights.tensors.items():
        z = optimizer.weights.direction(name, key, optimizer.directions).double()
        gradient = tensor.grad.double()
        slope += (z * gradient).sum().item()
        size += gradient.square().sum().item()
        length += z.square().sum().item()
    model.zero_grad()
    return slope, math.sqrt(size * length)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_slope_is_the_directional_derivative(family, lora):
    model = tiny.build(family, lora=lora)
    batch = tiny.batch(family, 3, 6)
    optimizer = ForwardGradient(model, n=2)
    look = ModuleLook(model, tiny.FAMILIES[family].objective, optimizer)
    loss, *slopes = look.slopes(optimizer.keys(0), batch)
    assert loss == pytest.approx(look.gradient(batch, seed=None), rel=1e-6)  # plain attention against fused
    model.zero_grad()
    for key, slope in zip(optimizer.keys(0), slopes, strict=True):
        expected, size = by_autograd(model, look, batch, optimizer, key)
        # fp32 sums of d terms: relative to ‖z‖ ‖∇L‖ / √d, the size a slope has.
        assert abs(slope - expected) < 1e-5 * size / math.sqrt(optimizer.weights.numel)


@pytest.mark.parametrize("micro", [None, 1, 2])
def test_micro_batches_change_nothing(micro):
    """Per-example duals are summed exactly; rows of a bowl do not meet."""
    model = Bowl()
    optimizer = ForwardGradient(model)
    plain, cut = (ModuleLook(model, objective, optimizer, micro=m) for m in (None, micro))
    assert cut.slopes([Key(0, 0, 0)], batches(0)) == plain.slopes([Key(0, 0, 0)], batches(0))


def test_weights_of_examples_weigh_slopes():
    model = Bowl()
    optimizer = ForwardGradient(model)
    weights = torch.tensor([1.0, 0.0, 2.0, 5.0])
    look = ModuleLook(model, lambda m, b: (m(b), weights), optimizer)
    key = Key(0, 0, 0)
    (_, slope) = look.slopes([key], batches(0))
    expected, _ = by_autograd(model, look, batches(0), optimizer, key)
    assert slope == pytest.approx(expected, rel=1e-6)


def test_it_is_mezo_without_its_error():
    """On a quadratic central differences are exact, up to the fp32 losses that are told: 2⁻²⁴ · 10 / 2ε = 3e-4."""
    results = []
    pairs: list[tuple[Any, dict[str, Any]]] = [(ForwardGradient, {}), (MeZO, {"eps": 1e-3})]
    for kind, options in pairs:
        model = Bowl()
        results.append(run(kind(model, lr=0.01, **options), model, 0, 1))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.01 * 3e-3)  # z up to 3, and lr


def test_the_mean_of_its_moves_is_the_gradient():
    """E[(zᵀ∇L) z] = ∇L, within four standard errors of the mean over directions."""
    model = Bowl()
    optimizer = ForwardGradient(model, n=400)
    look = ModuleLook(model, objective, optimizer)
    look.gradient(batches(0), seed=None)
    gradient = torch.cat([p.grad.flatten() for p in optimizer.weights.tensors.values()]).double()  # type: ignore
    model.zero_grad()
    _, *slopes = look.slopes(optimizer.keys(0), batches(0))
    rows = []
    for key, slope in zip(optimizer.keys(0), slopes, strict=True):
        z = [
            optimizer.weights.direction(n, key, optimizer.directions).flatten()
            for n in optimizer.weights.tensors
        ]
        rows.append(slope * torch.cat(z).double())
    moves = torch.stack(rows)
    error = moves.std(0) / math.sqrt(len(rows))
    assert ((moves.mean(0) - gradient).abs() < 4 * error).all()


def test_replay_needs_no_model():
    model = Bowl()
    losses = []
    expected = run(ForwardGradient(model, lr=0.01, n=2), model, 0, 5, losses)
    again = Bowl()
    optimizer = ForwardGradient(again, lr=0.01, n=2)
    for t, told in enumerate(losses):
        optimizer.tell(t, told)
    assert equal([p.detach() for p in again.parameters()], expected)


def test_the_model_is_left_as_it_was():
    model = tiny.build("opt")
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    optimizer = ForwardGradient(model)
    look = ModuleLook(model, tiny.causal, optimizer)
    look.slopes([Key(0, 0, 0)], tiny.batch("opt", 2, 4))
    for name, parameter in model.named_parameters():
        assert parameter is before[name][0] and torch.equal(parameter.detach(), before[name][1])
    assert all("forward" not in module.__dict__ for module in model.modules())


class Odd(torch.autograd.Function):
    """x², whose author wrote a backward but no forward derivative."""

    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0]


class WithoutTangent(Bowl):
    def forward(self, targets):
        return Odd.apply(super().forward(targets))


def test_an_operation_without_a_forward_derivative_is_named():
    model = WithoutTangent()
    look = ModuleLook(model, objective, ForwardGradient(model))
    with pytest.raises(LookError, match="without a forward-mode derivative"):
        look.slopes([Key(0, 0, 0)], batches(0))
    assert "forward" not in model.__dict__


def test_a_weight_that_is_not_used_is_named():
    model = nn.ModuleDict({"bowl": Bowl(), "spare": nn.Linear(2, 2)})
    optimizer = ForwardGradient(Weights(model))
    look = ModuleLook(model, lambda m, b: m["bowl"](b), optimizer)
    with pytest.raises(LookError, match=r"does not use spare\.bias, spare\.weight"):
        look.slopes([Key(0, 0, 0)], batches(0))


def test_bfloat16_slopes_are_near():
    """Tangents of 8 bits: the slope is within a hundredth of the size slopes have."""
    model = tiny.build("opt")
    exact = ForwardGradient(model)
    batch = tiny.batch("opt", 3, 6)
    _, slope = ModuleLook(model, tiny.causal, exact).slopes([Key(0, 0, 0)], batch)
    look = ModuleLook(model, tiny.causal, exact)
    _, size = by_autograd(model, look, batch, exact, Key(0, 0, 0))
    low = tiny.build("opt", dtype=torch.bfloat16)
    _, near = ModuleLook(low, tiny.causal, ForwardGradient(low)).slopes([Key(0, 0, 0)], batch)
    assert abs(near - slope) < 0.05 * size / math.sqrt(exact.weights.numel)

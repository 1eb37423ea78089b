"""The first-order methods are torch's own, with seeded dropout and exact micro-batches."""

import copy

import pytest
import torch
from torch import nn

from tests import tiny
from zo import SGD, AdamW, ConfigError, Diverged, ModuleLook, Weights


def net(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Dropout(dropout), nn.Tanh(), nn.Linear(7, 1))


def objective(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square(), batch["w"]


def batch(t, rows=6):
    g = torch.Generator().manual_seed(t)
    x, y = torch.randn(rows, 5, generator=g), torch.randn(rows, generator=g)
    return {"x": x, "y": y, "w": torch.rand(rows, generator=g) + 0.5}


def grads(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize(
    "kind, twin, options",
    [
        (AdamW, torch.optim.AdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
        (SGD, torch.optim.SGD, {"momentum": 0.9}),
        (SGD, torch.optim.SGD, {}),
    ],
)
def test_steps_are_torchs_own(kind, twin, options):
    model, plain = net(), net()
    optimizer = kind(model, lr=0.05, dropout=False, **options)
    reference = twin(plain.parameters(), lr=0.05, weight_decay=0.0, **options)
    look = ModuleLook(model, objective, optimizer)
    for t in range(6):
        optimizer.tell(t, optimizer.step(t, batch(t), look))
        reference.zero_grad()
        losses, weights = objective(plain, batch(t))
        ((losses * weights).sum() / weights.sum()).backward()
        reference.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        # The sum is divided after the backward pass here and before it there: an fp32 rounding a step and entry.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro", [1, 4, 5])
def test_micro_batches_give_the_gradient_of_the_batch(micro):
    model = net()
    optimizer = SGD(model)
    whole = ModuleLook(model, objective, optimizer)
    loss = whole.gradient(batch(0), seed=None)
    expected = grads(model)
    model.zero_grad()
    cut = ModuleLook(model, objective, optimizer, micro=micro)
    assert cut.gradient(batch(0), seed=None) == pytest.approx(loss, rel=2**-22)  # GEMMs of other shapes
    for one, other in zip(grads(model), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert (cut.forward_passes, cut.backward_passes) == (1, 1)


def test_dropout_is_a_function_of_seed_and_step():
    model = net(dropout=0.5)
    optimizer = SGD(model, seed=3)
    look = ModuleLook(model, objective, optimizer)
    torch.manual_seed(99)
    state = torch.get_rng_state()

    def gradient(t, seed=3):
        optimizer.seed = seed
        return optimizer.step(t, batch(0), look), grads(model)

    first, other, again = gradient(0), gradient(1), gradient(0)
    assert first[0] == again[0] and all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))
    assert first[0] != other[0]
    assert gradient(0, seed=4)[0] != first[0]
    assert torch.equal(torch.get_rng_state(), state)  # the user's generator is left alone
    assert not model.training


def test_without_dropout_the_loss_is_that_of_eval_mode():
    model = net(dropout=0.5)
    optimizer = SGD(model, dropout=False)
    look = ModuleLook(model, objective, optimizer)
    losses, weights = objective(model.eval(), batch(0))
    expected = ((losses * weights).sum() / weights.sum()).item()
    assert optimizer.step(0, batch(0), look) == [pytest.approx(expected, rel=2**-22)]


def test_clipping_bounds_the_norm():
    for clip, moved in ((0.01, 0.01), (None, None)):
        model = net()
        optimizer = SGD(model, lr=1.0, clip=clip)
        look = ModuleLook(model, objective, optimizer)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        seen = optimizer.tell(0, optimizer.step(0, batch(0), look))
        change = (
            torch.cat([(a - b).flatten() for a, b in zip(before, model.parameters(), strict=True)])
            .norm()
            .item()
        )
        assert change == pytest.approx(
            moved or seen["gradient_norm"], rel=1e-3
        )  # torch adds 1e-6 to the norm
        assert seen["gradient_norm"] > 0.1


def test_gradients_do_not_add_up_over_steps():
    model = net()
    optimizer = SGD(model, lr=0.0)
    look = ModuleLook(model, objective, optimizer)
    optimizer.step(0, batch(0), look)
    once = grads(model)
    optimizer.step(0, batch(0), look)
    assert all(torch.equal(a, b) for a, b in zip(once, grads(model), strict=True))


def test_a_batch_without_weight_is_no_number():
    model = net()
    optimizer = SGD(model)
    look = ModuleLook(model, objective, optimizer)
    empty = {**batch(0), "w": torch.zeros(6)}
    (loss,) = optimizer.step(0, empty, look)
    assert loss != loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["opt", "roberta", "llama-tied"])
def test_trains_models_of_transformers(family, dtype):
    model = tiny.build(family, dtype=dtype)
    optimizer = AdamW(model, lr=1e-2)
    look = ModuleLook(model, tiny.FAMILIES[family].objective, optimizer)
    losses = []
    for t in range(15):
        losses += (told := optimizer.step(t, tiny.batch(family, 4, 6), look))
        optimizer.tell(t, told)
    assert losses[-1] < 0.8 * losses[0]


def test_a_frozen_base_stays():
    model = tiny.build("opt", lora=True)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    optimizer = AdamW(model, lr=1e-2)
    look = ModuleLook(model, tiny.causal, optimizer)
    for t in range(2):
        optimizer.tell(t, optimizer.step(t, tiny.batch("opt", 4, 6), look))
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_the_exception_in_mid_step_leaves_eval_mode():
    model = net(0.5)
    optimizer = SGD(model)

    def fails(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(0, batch(0), ModuleLook(model, fails, optimizer))
    assert not model.training


def test_state_of_another_method_is_refused():
    from zo import JournalError, MeZO

    model = net()
    optimizer = AdamW(model)
    optimizer.tell(0, optimizer.step(0, batch(0), ModuleLook(model, objective, optimizer)))
    with pytest.raises(JournalError, match="belongs to another"):
        MeZO(copy.deepcopy(model)).load(optimizer.state())


def test_sixteen_bit_vectors_are_trained_as_torch_would():
    """The weights that were handed in may be another method's too: theirs are left alone."""
    weights = Weights(nn.LayerNorm(4).bfloat16())
    assert AdamW(weights).weights.copies == {}
    assert weights.copies.keys() == {"weight", "bias"}


@pytest.mark.parametrize("kind", [AdamW, SGD])
@pytest.mark.parametrize("update", ["stochastic", "master"])
def test_other_roundings_than_torchs_are_refused(kind, update):
    message = f"update = '{update}'.*bias has 16 bits.*{kind.__name__} moves by torch"
    with pytest.raises(ConfigError, match=message):
        kind(Weights(nn.Linear(4, 4).bfloat16(), update=update))
    kind(Weights(nn.Linear(4, 4), update=update))  # of fp32 weights nothing is rounded away


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_large_gradient_of_finite_numbers_is_a_step(dtype, clip):
    """Its norm, 1e5, is no number of float16."""
    weight = nn.Parameter(torch.zeros(1000, 1000, dtype=dtype))
    weight.grad = torch.full_like(weight, 100.0)
    seen = SGD([("weight", weight)], lr=1.0, clip=clip).tell(0, [1.0])
    assert seen["gradient_norm"] == pytest.approx(1e5, rel=1e-3)
    expected = torch.full_like(weight, -100.0 if clip is None else -1e-3)
    rounded = max(1e-3, 2 * torch.finfo(dtype).eps)  # torch adds up a million squares in fp32
    torch.testing.assert_close(weight.detach(), expected, rtol=rounded, atol=0.0)


def test_a_gradient_that_is_no_number_stops_or_skips():
    for on_nan in ("stop", "skip"):
        model = net()
        optimizer = AdamW(model, on_nan=on_nan)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, torch.inf)
        if on_nan == "stop":
            with pytest.raises(Diverged, match="Step 3: the loss is 1 and its gradient"):
                optimizer.tell(3, [1.0])
        else:
            assert optimizer.tell(3, [1.0], lr=0.5) == {"loss": 1.0, "lr": 0.5}
            assert optimizer.skipped == 1
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert not optimizer.state() and all(parameter.grad is None for parameter in model.parameters())

"""The first-order methods are torch's own, with seeded dropout and exact micro-batches."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from tests import tiny
from zo import SGD, AdamW, ConfigError, Diverged, JournalError, MeZO, ModuleLook, Weights
from zo.kernels import rounding
from zo.optimizers.firstorder import LossScale
from zo.optimizers.optimizer import NO_DECAY


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
    assert model.training  # and so is the mode


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


def test_an_exception_in_mid_step_leaves_the_mode_as_it_was():
    model = net(0.5)
    optimizer = SGD(model)

    def fails(model, batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(0, batch(0), ModuleLook(model, fails, optimizer))
    assert model.training


def test_state_of_another_method_is_refused():
    model = net()
    optimizer = AdamW(model)
    optimizer.tell(0, optimizer.step(0, batch(0), ModuleLook(model, objective, optimizer)))
    with pytest.raises(JournalError, match="belongs to another"):
        MeZO(copy.deepcopy(model)).load(optimizer.state())


SIXTEEN = (torch.float16, torch.bfloat16)


def half_net(dtype, dropout=0.0):
    """Numbers of the dtype, in it and in fp32."""
    model = net(dropout).to(dtype)
    wide = net(dropout)
    wide.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    return model, wide


def half_objective(model, batch):
    """The loss of a model in its own dtype, worked out in fp32."""
    dtype = next(model.parameters()).dtype
    return (model(batch["x"].to(dtype)).float()[:, 0] - batch["y"]).square(), batch["w"]


@pytest.mark.parametrize("change", ["load_state_dict", "data"])
@pytest.mark.parametrize("kind", [AdamW, SGD])
@pytest.mark.parametrize("dtype", SIXTEEN)
def test_masters_follow_what_is_written_after_construction(dtype, kind, change):
    (model, _), (other, _) = half_net(dtype), half_net(dtype)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5)
    late, usual = kind(model), kind(other)
    if change == "load_state_dict":
        model.load_state_dict(other.state_dict())
    else:
        for mine, new in zip(model.parameters(), other.parameters(), strict=True):
            mine.data.copy_(new.data)
    for each, net_ in ((late, model), (usual, other)):
        scale_down(each)
        look = ModuleLook(net_, half_objective, each)
        for t in range(3):
            each.tell(t, each.step(t, batch(t), look))
    assert late.weights.sha256() == usual.weights.sha256()
    assert late.weights.checksum() == usual.weights.checksum()  # the masters too


def scale_down(optimizer):
    """A loss scale at which no gradient of this model overflows."""
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.value = 256.0


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize(
    "kind, twin, options",
    [
        (AdamW, torch.optim.AdamW, {"betas": (0.8, 0.95), "weight_decay": 0.1}),
        (SGD, torch.optim.SGD, {"momentum": 0.9}),
        (SGD, torch.optim.SGD, {}),
    ],
)
def test_sixteen_bits_take_torchs_steps_on_an_fp32_copy(kind, twin, options, dtype):
    """The gradients of the model in its dtype, torch's own update on fp32 numbers: the same bits.

    At a rate of which a single step moves no bfloat16 weight, with eps = 1e-8, which is 0 in float16.
    """
    model, wide = half_net(dtype)
    optimizer = kind(model, lr=1e-5, dropout=False, **options)
    named = list(wide.named_parameters())
    spared = [any(part in name for part in NO_DECAY) for name, _ in named]
    decay = options.pop("weight_decay", 0.0)
    groups = [
        {"params": [p for (_, p), s in zip(named, spared, strict=True) if s == group], "weight_decay": own}
        for group, own in ((False, decay), (True, 0.0))
    ]
    reference = twin(groups, lr=1e-5, **options)
    scale_down(optimizer)
    look = ModuleLook(model, half_objective, optimizer)
    before = [p.detach().clone() for p in wide.parameters()]
    for t in range(6):
        losses = optimizer.step(t, batch(t), look)
        # One batch is one backward pass, so a master's gradient is the model's, divided in fp32.
        for name, parameter in wide.named_parameters():
            parameter.grad = optimizer.weights.copies[name].grad.clone()
        assert all(p.grad is None for p in model.parameters())
        optimizer.tell(t, losses)
        reference.step()
        for name, parameter in wide.named_parameters():
            assert torch.equal(optimizer.weights.copies[name], parameter.detach())
            assert torch.equal(dict(model.named_parameters())[name].detach(), parameter.detach().to(dtype))
    for name, tensors in optimizer.inner.state_dict()["state"].items():
        assert all(x.dtype == torch.float32 for x in tensors.values() if x is not None), name
    moved = [(p.detach() != old).float().mean() for p, old in zip(wide.parameters(), before, strict=True)]
    assert min(moved) == 1.0


@pytest.mark.parametrize("dtype", SIXTEEN)
@pytest.mark.parametrize("micro", [None, 1, 4])
def test_the_masters_gradient_is_the_models(dtype, micro):
    """As torch's own backward pass in that dtype, but for the scale and the sums over pieces, which are fp32's."""
    model, _ = half_net(dtype)
    optimizer = SGD(model, dropout=False)
    scale_down(optimizer)
    optimizer.step(0, batch(0), ModuleLook(model, half_objective, optimizer, micro=micro))
    plain, _ = half_net(dtype)
    losses, weights = half_objective(plain, batch(0))
    ((losses * weights).sum() / weights.sum()).backward()
    for name, parameter in plain.named_parameters():
        found, expected = optimizer.weights.copies[name].grad, parameter.grad.float()  # type: ignore
        # Each pass rounds activations and gradients to the dtype, some times in a row.
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0.0, atol=8 * torch.finfo(dtype).eps * scale)


def test_scaling_saves_gradients_that_float16_would_lose():
    """Of a loss of 1e-9 the gradients are below 6e-8 / 2, float16's smallest number."""

    def tiny_loss(model, batch):
        losses, weights = half_objective(model, batch)
        return losses * 1e-9, weights

    model, wide = half_net(torch.float16)
    optimizer = SGD(model, dropout=False)
    optimizer.step(0, batch(0), ModuleLook(model, tiny_loss, optimizer))
    losses, weights = half_objective(wide, batch(0))
    ((losses * weights).sum() / weights.sum()).backward()
    for name, parameter in wide.named_parameters():
        expected = parameter.grad * 1e-9  # type: ignore
        assert expected.abs().max() < 2.0**-25 * 1.5
        size = expected.abs().max().item()
        torch.testing.assert_close(optimizer.weights.copies[name].grad, expected, rtol=0.0, atol=0.02 * size)


def test_an_overflow_halves_the_scale_and_is_counted():
    """Some gradients times 65536 are beyond float16 until the scale has been halved often enough."""
    model, _ = half_net(torch.float16)
    optimizer = AdamW(model, lr=1e-3, dropout=False)

    def steep(model, batch):
        losses, weights = half_objective(model, batch)
        return losses * 100.0, weights

    look, before, scales = ModuleLook(model, steep, optimizer), optimizer.weights.sha256(), []
    for t in range(12):
        skipped = optimizer.skipped
        seen = optimizer.tell(t, optimizer.step(t, batch(0), look))
        assert seen["loss"] > 0 and seen["skipped"] == optimizer.skipped
        assert math.isfinite(seen["gradient_norm"]) == (optimizer.skipped == skipped)
        scales.append(seen["loss_scale"])
        if optimizer.skipped == t + 1:
            assert optimizer.weights.sha256() == before and not optimizer.inner.state_dict()["state"]
    assert 2 <= optimizer.skipped <= 10
    n = optimizer.skipped
    assert scales == [65536.0 / 2 ** min(t + 1, n) for t in range(12)]
    assert optimizer.weights.sha256() != before


def test_the_scale_doubles_after_enough_steps_and_survives_a_snapshot(monkeypatch):
    monkeypatch.setattr(LossScale, "PATIENCE", 5)

    def start():
        model, _ = half_net(torch.float16, dropout=0.5)
        optimizer = AdamW(model, lr=1e-3)
        return optimizer, ModuleLook(model, half_objective, optimizer)

    def after(optimizer, look, steps):
        return [optimizer.tell(t, optimizer.step(t, batch(t), look)) for t in steps]

    whole, look = start()
    seen = after(whole, look, range(3))
    kept = (
        {n: t.clone() for n, t in whole.weights.state().items()},
        {n: t.clone() for n, t in whole.state().items()},
    )
    seen += after(whole, look, range(3, 12))
    resumed, other = start()
    resumed.weights.load(kept[0])
    resumed.load(kept[1])
    resumed.skipped = int(seen[2]["skipped"])
    assert after(resumed, other, range(3, 12)) == seen[3:]
    assert resumed.weights.checksum() == whole.weights.checksum()
    assert resumed.state().keys() == whole.state().keys()
    assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in whole.state().items())
    scales = [row["loss_scale"] for row in seen]
    assert any(later == 2 * earlier for earlier, later in itertools.pairwise(scales))


def test_a_gradient_that_no_scale_makes_finite_ends_the_run():
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float16))
    optimizer = SGD([("weight", weight)], lr=1.0)
    for t in range(16):
        weight.grad = torch.full_like(weight, torch.inf)
        assert optimizer.tell(t, [1.0])["loss_scale"] == 2.0 ** (15 - t)
    weight.grad = torch.full_like(weight, torch.inf)
    with pytest.raises(Diverged, match="float16 ends at 65504"):
        optimizer.tell(16, [1.0])
    assert optimizer.skipped == 16 and not weight.any()


def test_a_snapshot_without_the_scale_is_refused():
    half, wide = AdamW(net().half()), AdamW(net().bfloat16())
    with pytest.raises(JournalError, match="no loss scale"):
        half.load(wide.state())
    with pytest.raises(JournalError, match="a loss scale"):
        wide.load(half.state())


def test_frozen_float16_below_fp32_parameters_is_scaled_too():
    model = nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2))
    assert AdamW(model).loss_scale is not None
    model[0].requires_grad_(False)
    assert AdamW(model).loss_scale is not None
    assert AdamW(model.float()).loss_scale is None


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_all_sixteen_bit_tensors_get_a_master(dtype):
    """The weights that were handed in may be another method's too: their fp32 numbers are taken, and left alone."""
    weights = Weights(nn.Linear(4, 4).to(dtype), update="master")
    MeZO(weights, lr=1e-3, eps=0.1).tell(0, [1.0, 0.5])
    optimizer = AdamW(weights)
    assert optimizer.weights.copies.keys() == {"weight", "bias"} and optimizer.weights.low == {}
    assert weights.copies.keys() == {"bias"} and weights.low.keys() == {"weight"}
    pair = rounding.join(weights.tensors["weight"].detach(), weights.low["weight"])
    assert torch.equal(optimizer.weights.copies["weight"], pair)
    assert optimizer.weights.copies["bias"] is not weights.copies["bias"]


@pytest.mark.parametrize("kind", [AdamW, SGD])
@pytest.mark.parametrize("update", ["stochastic", "nearest"])
def test_rounding_of_every_move_is_refused_in_16_bits(kind, update):
    message = f"update = '{update}'.*bias has 16 bits.*{kind.__name__} keeps fp32 master weights"
    with pytest.raises(ConfigError, match=message):
        kind(Weights(nn.Linear(4, 4).bfloat16(), update=update))
    kind(Weights(nn.Linear(4, 4), update=update))  # of fp32 weights nothing is rounded away
    for allowed in ("auto", "master"):
        kind(Weights(nn.Linear(4, 4).bfloat16(), update=allowed))


@pytest.mark.parametrize("dtype", SIXTEEN)
def test_sixteen_bits_learn_as_fp32_does_at_a_small_rate(dtype):
    """A transformer by AdamW at 1e-5, where bfloat16 alone would not move and float16 would be infinite."""

    def trained(kind):
        model = tiny.build("opt", dtype=kind)
        optimizer = AdamW(model, lr=1e-5, dropout=False)
        scale_down(optimizer)
        start = {name: tensor.detach().float().clone() for name, tensor in optimizer.moved.items()}
        look = ModuleLook(model, tiny.causal, optimizer)
        for t in range(20):
            optimizer.tell(t, optimizer.step(t, tiny.batch("opt", 8, 6), look))
        assert optimizer.skipped == 0
        moved = [(tensor.detach() - start[name]).flatten() for name, tensor in optimizer.moved.items()]
        return torch.cat(moved)

    direction, moved = trained(torch.float32), trained(dtype)
    assert torch.cosine_similarity(moved, direction, dim=0) > 0.9
    assert moved.norm() / direction.norm() == pytest.approx(1.0, abs=0.05)


def test_a_divergence_blames_no_eps_of_a_probe():
    with pytest.raises(Diverged) as error:
        AdamW(net()).tell(3, [float("nan")])
    assert "eps" not in str(error.value) and "learning rate" in str(error.value)


def test_an_eps_that_fp32_does_not_hold_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.eps = 1e-46.*NaN"):
        AdamW(net(), eps=1e-46)


class Stack(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, 64)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Dropout(dropout), nn.Linear(64, 64))
            for _ in range(6)
        )
        self.calls = 0
        for layer in self.layers:
            layer.register_forward_pre_hook(self.count)

    def count(self, *_):
        self.calls += 1

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = x + layer(x)
        return x[:, :1]


@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_checkpointing_computes_layers_twice_and_the_same_gradients(dtype, dropout):
    found = []
    for checkpointing in (False, True):
        model = Stack(0.5).to(dtype)
        optimizer = SGD(model, dropout=dropout, gradient_checkpointing=checkpointing)
        kept = Kept()
        look = ModuleLook(model, half_objective, optimizer)
        with kept:
            loss = optimizer.step(3, batch(0, rows=512), look)
        gradients = [tensor.grad.clone() for tensor in optimizer.moved.values()]  # type: ignore
        assert model.calls == 6 and not any("forward" in layer.__dict__ for layer in model.layers)
        found.append((loss, gradients, kept.bytes))
    (loss, plain, much), (again, same, little) = found
    assert loss == again and all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert little < 0.4 * much  # of about four tensors a layer one is kept


class Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that are kept for the backward pass."""

    def __init__(self):
        self.bytes = 0
        super().__init__(self.keep, lambda tensor: tensor)

    def keep(self, tensor):
        self.bytes += tensor.nbytes
        return tensor


@pytest.mark.parametrize("family", ["opt", "roberta", "llama-tied"])
def test_checkpointing_of_transformers(family):
    gradients = []
    for checkpointing in (False, True):
        model = tiny.build(family, dtype=torch.bfloat16)
        optimizer = AdamW(model, gradient_checkpointing=checkpointing)
        calls = []
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        look = ModuleLook(model, tiny.FAMILIES[family].objective, optimizer)
        optimizer.step(0, tiny.batch(family, 4, 6), look)
        gradients.append(({n: t.grad for n, t in optimizer.weights.copies.items()}, len(calls)))
    (plain, few), (other, many) = gradients
    assert all(torch.equal(tensor, other[name]) for name, tensor in plain.items() if tensor is not None)
    assert many > 1.5 * few  # all but the head's and what stands before the layers


def test_checkpointing_needs_layers():
    model = net()
    optimizer = SGD(model, gradient_checkpointing=True)
    with pytest.raises(ConfigError, match=r"Sequential has no nn.ModuleList.*gradient_checkpointing=false"):
        optimizer.step(0, batch(0), ModuleLook(model, objective, optimizer))


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

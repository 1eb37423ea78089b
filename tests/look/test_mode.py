"""The model around a look: its mode, what wraps it, and parameters that change behind the optimizer's back."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zo
from zo import FZOO, AdamW, ForwardGradient, InPlace, LookError, MeZO, ModuleLook
from zo.errors import ConfigError, Unseen


def build(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))


def losses_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.arange(5) % 3)


def mixed(mode):
    """A model of which one part has another mode than the rest, and the modes of all its modules."""
    model = build().train(mode)
    model[1].train(not mode)
    return model, modes(model)


def modes(model):
    return [module.training for module in model.modules()]


METHODS = [MeZO, FZOO, ForwardGradient, AdamW]  # two points, a stack, slopes, a gradient with dropout


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_modes_are_as_they_were_after_training(method, mode):
    model, before = mixed(mode)
    assert zo.train(method(model, lr=1e-3), losses_of, lambda t: BATCH, steps=2) == 2
    assert modes(model) == before


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("call", [1, 2, 4])  # the first probe alone, another one, one of the second step
@pytest.mark.parametrize("method", METHODS)
def test_modes_are_as_they_were_after_an_exception_in_the_objective(method, call, mode):
    model, before = mixed(mode)
    calls = 0

    def failing(model, batch):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyError("mine")
        return losses_of(model, batch)

    with pytest.raises(KeyError, match="mine"):
        zo.train(method(model, lr=1e-3), failing, lambda t: BATCH, steps=9)
    assert modes(model) == before
    assert all("forward" not in vars(module) for module in model.modules())


def test_modes_are_as_they_were_after_an_exception_between_steps():
    model, before = mixed(True)

    def fails(t, seen, replayed):
        assert modes(model) == before
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        zo.train(MeZO(model), losses_of, lambda t: BATCH, steps=2, on_step=fails)
    assert modes(model) == before


@pytest.mark.parametrize("kind", [ModuleLook, InPlace])
def test_modes_are_as_they_were_after_a_look(kind):
    model, before = mixed(True)
    optimizer = MeZO(model)
    kind(model, losses_of, optimizer)(optimizer.ask(0), BATCH)
    assert modes(model) == before


def test_dropout_is_off_in_a_part_that_was_left_in_train_mode():
    model = build().eval()
    optimizer = FZOO(model, n=4)
    expected = ModuleLook(model, losses_of, optimizer)(optimizer.ask(0), BATCH)
    model[2].train()
    assert ModuleLook(model, losses_of, optimizer)(optimizer.ask(0), BATCH) == expected
    assert model[2].training


def test_an_objective_that_sets_train_mode_is_refused():
    model = build().eval()
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, lambda m, batch: losses_of(m.train(), batch), optimizer)
    with pytest.raises(LookError, match="train mode"):
        look(optimizer.ask(0), BATCH)
    assert not model.training


@pytest.mark.parametrize("part", [False, True])
def test_a_compiled_model_is_refused_in_a_sentence(part):
    model: Any = build()
    if part:
        model[0].compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    optimizer = FZOO(model, n=4)
    with pytest.raises(LookError, match=r"compiled by torch\.compile.*_orig_mod"):
        ModuleLook(model, losses_of, optimizer)
    with pytest.raises(LookError, match=r"compiled by torch\.compile.*_orig_mod"):
        zo.train(optimizer, losses_of, lambda t: BATCH, steps=1)


@pytest.mark.parametrize("method", [FZOO, ForwardGradient])
def test_a_model_that_is_compiled_before_the_first_step_is_refused_there(method):
    model: Any = build()
    optimizer = method(model)
    look = ModuleLook(model, losses_of, optimizer)
    model[0].compile(backend="eager")
    with pytest.raises(LookError, match=r"The part 0 of the model is compiled by torch\.compile"):
        optimizer.step(0, BATCH, look)


@pytest.mark.parametrize("method", [MeZO, AdamW])
def test_a_compiled_model_trains_where_the_weights_themselves_are_evaluated(method):
    """By gradients, or with the walk of MeZO's code; to what the model as it was gives."""
    trained = []
    for compiled in (False, True):
        model: Any = build().eval()
        optimizer = method(model, lr=1e-3)
        called: Any = torch.compile(model, backend="eager") if compiled else model
        kind = InPlace if method is MeZO else ModuleLook
        look = kind(called, losses_of, optimizer)
        assert zo.train(optimizer, look, lambda t: BATCH, steps=2) == 2
        trained.append([parameter.detach() for parameter in model.parameters()])
    for plain, other in zip(
        *trained, strict=True
    ):  # compiled code adds up in another order: some rounding errors
        torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-6)


def test_a_parameter_that_was_replaced_is_refused():
    model = build()
    optimizer = FZOO(model, n=4)
    look = ModuleLook(model, losses_of, optimizer)
    look(optimizer.ask(0), BATCH)
    model[0].weight = nn.Parameter(torch.zeros(8, 6))
    with pytest.raises(LookError, match=r"0\.weight has been replaced"):
        look(optimizer.ask(1), BATCH)


def test_weights_that_nothing_reads_are_wrong_input():
    """On the command line exit code 2, and the sentence says what works."""
    model: Any = build()
    model.extra = nn.Linear(2, 2)
    model.forward = lambda x: model[4](model[3](model[0](x)))
    optimizer = FZOO(model, n=4)
    with pytest.raises(Unseen, match=r"1\.bias.*peft=lora") as caught:
        ModuleLook(model, losses_of, optimizer)(optimizer.ask(0), BATCH)
    assert isinstance(caught.value, ConfigError) and isinstance(caught.value, LookError)


@pytest.mark.parametrize("change", ["load_state_dict", "data", "copy_"])
def test_vectors_of_16_bits_follow_what_is_written_after_construction(change):
    model, other = build(1).bfloat16().eval(), build(2).bfloat16().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5)
    optimizer = MeZO(model, lr=1e-6, eps=5e-2)
    look = ModuleLook(model, losses_of, optimizer)
    batch = (X.bfloat16(), BATCH[1])
    look(optimizer.ask(0), batch)
    if change == "load_state_dict":
        model.load_state_dict(other.state_dict())
    for mine, new in zip(model.parameters(), other.parameters(), strict=True):
        if change == "data":
            mine.data.copy_(new.data)
        elif change == "copy_":
            with torch.no_grad():
                mine.copy_(new)
    fresh = MeZO(other, lr=1e-6, eps=5e-2)
    probes = optimizer.ask(1)
    losses = look(probes, batch)
    assert losses == ModuleLook(other, losses_of, fresh)(probes, batch)
    optimizer.tell(1, losses)
    fresh.tell(1, losses)
    assert optimizer.weights.sha256() == fresh.weights.sha256()
    assert optimizer.weights.checksum() == fresh.weights.checksum()  # the fp32 copies too


def test_low_halves_of_other_weights_are_dropped():
    model, other = build(1).bfloat16().eval(), build(2).bfloat16().eval()
    optimizer = MeZO(zo.Weights(model, update="master"), lr=1e-2)
    optimizer.tell(0, [1.0, 0.9])  # leaves low halves
    model.load_state_dict(other.state_dict())
    fresh = MeZO(zo.Weights(other, update="master"), lr=1e-2)
    for each in (optimizer, fresh):
        each.tell(1, [1.0, 0.9])
    assert optimizer.weights.checksum() == fresh.weights.checksum()


def test_what_a_move_wrote_is_not_taken_for_a_change():
    """The fp32 copy keeps what its bfloat16 form drops."""
    model = build().bfloat16()
    optimizer = MeZO(model, lr=1e-4)
    for t in range(3):
        optimizer.tell(t, [1.0, 0.999])
    weights = optimizer.weights
    assert any(not torch.equal(copy, weights.tensors[name].float()) for name, copy in weights.copies.items())

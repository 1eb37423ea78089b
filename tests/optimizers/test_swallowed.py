"""Perturbations that 16 bits swallow: held in fp32, or refused with the tensor's name; and runs that never move."""

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zo
from tests import tiny
from zo import FZOO, MeZO, ModuleLook, Weights
from zo.errors import ConfigError, Idle
from zo.precision import is_lost


class Gain(nn.Module):
    """A factor near 1 and a shift, stored as matrices, on fp32 numbers that are rounded at the end."""

    def __init__(self, shape=(1, 8), value=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full(shape, value))

    def forward(self, x):
        return (F.normalize(x.float(), dim=-1) * self.gain.flatten()).to(x.dtype)


def model_of(*parts):
    torch.manual_seed(0)
    return nn.Sequential(*parts, nn.Linear(8, 3)).bfloat16().eval()


def losses_of(model, batch):
    return F.cross_entropy(model(batch[0]).float(), batch[1], reduction="none")


def look_of(model, eps):
    optimizer = FZOO(model, n=8, eps=eps)
    return ModuleLook(model, losses_of, optimizer)


X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
BATCH = (X.bfloat16(), torch.arange(16) % 3)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (8, 1), (1, 1, 8)])
@pytest.mark.parametrize("per_forward", [1, "all"])
def test_a_factor_of_any_shape_is_held_in_fp32(shape, per_forward):
    model = model_of(Gain(shape))
    model[1].requires_grad_(False)
    optimizer = FZOO(model, n=8, eps=1e-3, lr=1e-3)
    assert optimizer.weights.copies.keys() == {"0.gain"}
    look = ModuleLook(model, losses_of, optimizer, probes_per_forward=per_forward)
    losses = look(optimizer.ask(0), BATCH)
    assert len(set(losses)) > 4
    before = optimizer.weights.copies["0.gain"].clone()
    optimizer.tell(0, losses)
    assert not torch.equal(optimizer.weights.copies["0.gain"], before)


def test_the_weight_of_a_linear_layer_with_one_output_is_held():
    layer = nn.Linear(8, 1).bfloat16()
    nn.init.ones_(layer.weight)
    model = nn.Sequential(layer)
    optimizer = FZOO(model, n=8, eps=1e-3)
    assert "0.weight" in optimizer.weights.copies
    one, many = (
        ModuleLook(model, lambda m, x: m(x)[:, 0].float(), optimizer, probes_per_forward=n)
        for n in (1, "all")
    )
    losses = one(optimizer.ask(0), BATCH[0])
    assert len(set(losses)) > 4 and many(optimizer.ask(0), BATCH[0]) == losses


@pytest.mark.filterwarnings("ignore:eps = ")
def test_a_matrix_whose_numbers_lie_further_apart_than_eps_is_refused_by_name():
    model = model_of()
    nn.init.constant_(cast(nn.Linear, model[0]).weight, 1.5)
    with pytest.raises(
        ConfigError, match=r"eps = 0\.001 is rounded away in 0\.weight: .* 7\.8e-03 apart.*float32"
    ):
        look_of(model, 1e-3)
    look_of(model, 1e-2)
    with pytest.warns(UserWarning, match=r"below the resolution of most entries of 0\.weight"):
        FZOO(Weights(model, copies=False), n=8, eps=1e-3)  # as MeZO does it, on purpose


@pytest.mark.filterwarnings("ignore:eps = ")
def test_fp32_has_a_limit_too():
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
    with pytest.raises(ConfigError, match="rounded away in bias and 1 other tensor"):
        look_of(model, 1e-8)
    look_of(model, 1e-6)


def test_an_embedding_whose_rows_are_rounded_on_is_refused():
    model: Any = nn.Sequential(nn.Embedding(1, 8), nn.Linear(8, 3)).bfloat16()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    optimizer = FZOO(model, n=4, eps=1e-3)
    look = ModuleLook(model, losses_of, optimizer)
    with pytest.raises(ConfigError, match=r"rounded away in 0\.weight"):
        look(optimizer.ask(0), (torch.zeros(4, dtype=torch.long), torch.arange(4) % 3))


@pytest.mark.parametrize("autocast", [False, True])
def test_ia3_in_bfloat16_is_refused_where_the_activations_swallow_it(autocast):
    """Its factors may be fp32, but what they scale is rounded to bfloat16 before and after: 1.001 y is y."""
    from peft import IA3Config, get_peft_model

    model: Any = tiny.build("llama", tiny.Shape(half=16, inner=128), dtype=torch.bfloat16)
    config = IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    model = get_peft_model(model, config, autocast_adapter_dtype=autocast).eval()
    batch, family = tiny.batch("llama", 8, 12), tiny.FAMILIES["llama"]
    optimizer = FZOO(Weights(model), n=8, eps=1e-3)
    with pytest.raises(ConfigError, match=r"eps = 0\.001 is rounded away in .*ia3_l.* 7\.8e-03 apart"):
        ModuleLook(model, family.objective, optimizer)(optimizer.ask(0), batch)
    wide = FZOO(Weights(model), n=8, eps=1e-2)
    assert len(set(ModuleLook(model, family.objective, wide)(wide.ask(0), batch))) > 4


def test_most_entries_count():
    numbers = torch.tensor([1.0, 1.0, 1.0, 0.01]).bfloat16()
    assert is_lost(numbers, 1e-3) and not is_lost(numbers[2:], 1e-3) and not is_lost(numbers.float(), 1e-3)


@pytest.mark.parametrize("method", [FZOO, MeZO])
def test_a_run_whose_first_steps_are_all_idle_stops_and_says_why(method):
    model = nn.Linear(8, 3)
    optimizer = method(model)
    look = ModuleLook(model, lambda m, batch: m(batch).sum(1) * 0.0 + 1.0, optimizer)
    seen = []
    with pytest.raises(Idle, match=r"None of the first 20 steps made a move.*optimizer\.eps"):
        zo.train(optimizer, look, lambda t: X, steps=50, on_step=lambda t, *_: seen.append(t))
    assert seen == list(range(19))


def test_idle_steps_later_do_not_stop_a_run():
    model = nn.Linear(8, 3)
    optimizer = MeZO(model, lr=1e-3)
    for t in range(60):
        optimizer.tell(t, [1.0, 1.1] if t == 5 else [1.0, 1.0])

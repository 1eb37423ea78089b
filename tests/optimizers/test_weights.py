"""Names of weights, what cannot be trained, digests, and loading."""

import hashlib
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from zo import ConfigError, JournalError, Key, MeZO, Probe, Weights
from zo.digests import digest
from zo.names import canonical, trained


@pytest.mark.parametrize(
    "name, expected",
    [
        ("model.layers.0.q_proj.weight", "model.layers.0.q_proj.weight"),
        ("module.model.embed.weight", "model.embed.weight"),
        ("_orig_mod.module.h.0.weight", "h.0.weight"),
        ("module._orig_mod.h.0.weight", "h.0.weight"),
        ("_fsdp_wrapped_module.h._fsdp_wrapped_module.weight", "h.weight"),
        ("h._orig_mod.weight", "h.weight"),
        ("base_model.model.model.q_proj.base_layer.weight", "model.q_proj.weight"),
        ("base_model.model.model.q_proj.lora_A.default.weight", "model.q_proj.lora_A.default.weight"),
        ("encoder.module.weight", "encoder.module.weight"),
        ("submodule.weight", "submodule.weight"),
    ],
)
def test_wrappers_leave_no_trace_in_a_name(name, expected):
    assert canonical(name) == expected


def test_a_wrapped_model_gets_the_same_directions():
    model = tiny.build("opt")
    plain = Weights(model)
    compiled: Any = torch.compile(model)
    wrapped = Weights(compiled)
    parallel = Weights(nn.ModuleDict({"module": model}))
    assert list(plain.tensors) == list(wrapped.tensors) == list(parallel.tensors)
    assert plain.ids == wrapped.ids


def test_a_base_layer_under_peft_keeps_its_name():
    plain = set(Weights(tiny.build("opt")).tensors)
    model = tiny.build("opt", lora=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    assert plain < set(Weights(model).tensors)


def test_tied_weights_take_the_first_name():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.z = nn.Linear(3, 3, bias=False)
            self.a = nn.Linear(3, 3, bias=False)
            self.a.weight = self.z.weight

    assert list(trained(Tied())) == ["a.weight"]


def tied_by_memory(rows):
    """b's matrix is some rows of the memory that begins with a's."""
    model = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in "ba"})
    memory = torch.randn(6, 3)
    model["a"].weight.data, model["b"].weight.data = memory[:3], memory[rows]
    return model


def test_neighbours_in_one_piece_of_memory_are_apart():
    """As those of an LSTM on a GPU are; so are parameters without elements."""
    assert list(trained(tied_by_memory(slice(3, 6)))) == ["a.weight", "b.weight"]
    assert list(trained(tied_by_memory(slice(0, 0)))) == ["a.weight", "b.weight"]


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.Linear(2, 2).requires_grad_(False), "nothing to train"),
        (
            lambda: [("w", nn.Parameter(torch.ones(2))), ("module.w", nn.Parameter(torch.ones(2)))],
            "both called 'w'",
        ),
        (lambda: nn.Linear(2, 2, device="meta"), "weight is on the meta device"),
        (lambda: nn.Linear(2, 2).double(), "weight is torch.float64; float32"),
        (lambda: [("w", nn.Parameter(torch.ones(2, 3).T))], "w is not contiguous"),
        (lambda: tied_by_memory(slice(0, 3)), "a.weight and b.weight are two parameters in the same memory"),
        (lambda: tied_by_memory(slice(2, 3)), "a.weight and b.weight are two"),
    ],
)
def test_what_cannot_be_trained_is_named(build, message):
    with pytest.raises(ConfigError, match=message):
        Weights(build())


def test_digest_is_that_of_sorted_names_dtypes_shapes_and_bytes():
    model = nn.Linear(2, 3).bfloat16()
    expected = hashlib.sha256()
    for name in ("bias", "weight"):
        tensor = getattr(model, name).detach()
        expected.update(f"{name} bfloat16 {list(tensor.shape)}\n".encode())
        expected.update(bytes(tensor.contiguous().view(torch.uint8).flatten().tolist()))
    assert Weights(model).sha256() == expected.hexdigest()
    assert digest([("a", torch.ones(2))]) != digest([("a", torch.ones(2, 1))])
    assert digest([("a", torch.zeros(2))]) != digest([("a", -torch.zeros(2))])
    assert digest([("a", torch.tensor(1.5))]) == digest([("a", torch.tensor(1.5))])
    assert digest([("a", torch.empty(0))])


@pytest.mark.parametrize(
    "state",
    [{}, {"weight": torch.ones(3, 2)}, {"weight": torch.ones(3, 2), "bias": torch.ones(2)},
     {"weight": torch.ones(3, 2).half(), "bias": torch.ones(3)},
     {"weight": torch.ones(3, 2), "bias": torch.ones(3), "more": torch.ones(1)}],
)  # fmt: skip
def test_a_state_of_another_model_is_refused_and_nothing_is_written(state):
    model = nn.Linear(2, 3)
    weights = Weights(model)
    before = weights.sha256()
    with pytest.raises(JournalError, match="does not fit"):
        weights.load(state)
    assert weights.sha256() == before


def test_a_probe_without_terms_is_the_tensor_itself():
    weights = Weights(nn.Linear(2, 3))
    optimizer = MeZO(weights)
    assert weights.at("bias", Probe(), optimizer.directions).data_ptr() == weights.tensors["bias"].data_ptr()
    assert torch.equal(
        weights.at("bias", Probe(((Key(0, 0, 0), 0.0),)), optimizer.directions), weights.tensors["bias"]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_terms_of_zero_and_no_decay_touch_nothing(dtype):
    weight = nn.Parameter(torch.tensor([-0.0, 0.0, float("inf"), float("nan"), 1e-7]).to(dtype)[None])
    weights = Weights([("w", weight)])
    optimizer = MeZO(weights)
    before = weight.detach().clone()
    weights.move([(Key(0, 0, 0), 0.0)], optimizer.directions)
    weights.move([], optimizer.directions)
    assert torch.equal(before.view(-1).view(torch.uint8), weight.detach().view(-1).view(torch.uint8))


def test_parts_of_a_tensor_see_the_same_noise():
    weights = Weights([("w", nn.Parameter(torch.zeros(13, 7)))])
    optimizer = MeZO(weights)
    probe = Probe(((Key(0, 0, 0), 1.0), (Key(0, 1, 0), 0.5)))
    whole = weights.at("w", probe, optimizer.directions)
    rows = torch.tensor([3, 0, 12, 3])
    assert torch.equal(weights.rows_at("w", rows, probe, optimizer.directions), whole[rows])
    many = weights.at_many(
        "w", [probe, probe], optimizer.directions, [torch.empty(13, 7), torch.empty(13, 7)]
    )
    assert all(torch.equal(one, whole) for one in many)


@pytest.mark.parametrize("update", ["nearest", "stochastic", "master"])
def test_moves_rounded_by_chance_need_a_key(update):
    """Without one every move would have the bits of the last."""
    weights = Weights([("w", nn.Parameter(torch.full((8, 8), 0.75).bfloat16()))], update=update)
    kind = MeZO(weights).directions
    passes = (
        lambda **options: weights.move([], kind, decay=2.0**-12, **options),
        lambda **options: weights.elementwise(lambda block: block.w * -(2.0**-12), [], kind, **options),
    )
    for go in passes:
        go(rounding_key=Key(0, 0, -1))
        before = weights.sha256()
        if update == "stochastic":
            with pytest.raises(ConfigError, match="needs a rounding_key"):
                go()
            assert weights.sha256() == before
        else:
            go()

"""The element-wise pass: sums are those of `move`, state stays, blocks cannot be seen."""

import pytest
import torch
from torch import nn

from zo import ZOSGD, ConfigError, JournalError, Key, MeZO, Weights
from zo.weights import BLOCK

KEYS = [Key(0, 5, 0), Key(0, 3, 1), Key(0, 5, 2)]
SCALES = [0.5, -0.25, 1e-3]
UPDATES = [("nearest", torch.float32), ("nearest", torch.float16), ("nearest", torch.bfloat16)]
UPDATES += [("stochastic", torch.float16), ("stochastic", torch.bfloat16)]
UPDATES += [("master", torch.float16), ("master", torch.bfloat16)]


def parameters(dtype=torch.float32, rows=BLOCK // 64 + 3):
    """A matrix of more than one block, a vector (in 16 bits one with an fp32 copy) and a scalar."""
    g = torch.Generator().manual_seed(0)
    shapes = {"matrix": (rows, 70), "layernorm": (33,), "scalar": ()}
    return [(name, nn.Parameter(torch.randn(shape, generator=g).to(dtype))) for name, shape in shapes.items()]


def moved(weights, directions="gaussian", decay=0.0):
    """The weights after Σ c z, by a rule."""

    def rule(block):
        total = block.noise[0] * torch.tensor(SCALES[0]).item()
        for z, scale in zip(block.noise[1:], SCALES[1:], strict=True):
            total += z * torch.tensor(scale).item()
        return total

    kind = MeZO(weights, directions=directions).directions
    weights.elementwise(rule, KEYS, kind, decay=decay, no_decay=("layernorm",), rounding_key=Key(0, 1, -1))
    return weights


@pytest.mark.parametrize("kernels", ["eager", "native"])
@pytest.mark.parametrize("directions", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("update", "dtype"), UPDATES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_rule_that_sums_directions_is_a_move(kernels, directions, update, dtype, decay):
    try:
        one = Weights(parameters(dtype, 7), update=update, kernels=kernels)
        other = Weights(parameters(dtype, 7), update=update, kernels="eager")
    except ConfigError as error:
        pytest.skip(str(error))
    kind = MeZO(other, directions=directions).directions
    for _ in range(2):
        moved(one, directions, decay)
        other.move(
            zip(KEYS, SCALES, strict=True),
            kind,
            decay=decay,
            no_decay=("layernorm",),
            rounding_key=Key(0, 1, -1),
        )
    assert one.state().keys() == other.state().keys()
    for name, tensor in one.state().items():
        assert torch.equal(tensor, other.state()[name]), name


def test_blocks_cannot_be_seen():
    one, other = Weights(parameters()), Weights(parameters())
    assert one.tensors["matrix"].numel() > BLOCK
    moved(one)
    other.move(zip(KEYS, SCALES, strict=True), MeZO(other).directions)
    assert one.sha256() == other.sha256()


def test_state_is_read_and_kept():
    """Momentum over three steps is the sum that its recursion says."""
    weights = Weights(parameters())
    kind = MeZO(weights).directions
    m = weights.zeros()
    seen = []

    def rule(block):
        assert block.w.dtype == torch.float32
        seen.append((block.name, block.start))
        return -block.state["m"].mul_(0.5).add_(block.noise[0])

    start = {name: tensor.detach().clone() for name, tensor in weights.tensors.items()}
    z = [weights.zeros() for _ in KEYS]
    for noise, key in zip(z, KEYS, strict=True):
        weights.elementwise(rule, [key], kind, {"m": m})
        weights_of_noise = Weights([(name, nn.Parameter(tensor)) for name, tensor in noise.items()])
        weights_of_noise.move([(key, 1.0)], kind)
    assert seen[:4] == [("layernorm", 0), ("matrix", 0), ("matrix", BLOCK), ("scalar", 0)]
    for name, tensor in weights.tensors.items():
        expected = 0.25 * z[0][name] + 0.5 * z[1][name] + z[2][name]
        torch.testing.assert_close(m[name], expected, rtol=1e-6, atol=1e-6)  # two fp32 roundings
        passed = start[name] - (1.75 * z[0][name] + 1.5 * z[1][name] + z[2][name])
        torch.testing.assert_close(tensor.detach(), passed, rtol=1e-5, atol=1e-5)


def test_a_rule_needs_no_direction():
    weights = Weights(parameters())
    weights.elementwise(lambda block: -block.w, [], MeZO(weights).directions)
    assert all(not tensor.any() for tensor in weights.tensors.values())


def test_slots_go_into_snapshots():
    one, other = ZOSGD(Weights(parameters())), ZOSGD(Weights(parameters()))
    for optimizer in (one, other):
        optimizer.state_tensors["m"] = optimizer.weights.zeros()
    one.apply_rule(0, lambda block: block.state["m"].add_(block.noise[0]), one.keys(0), 1.0)
    assert sorted(one.state()) == ["m:layernorm", "m:matrix", "m:scalar"]
    other.load(one.state())
    assert all(
        torch.equal(other.state_tensors["m"][name], one.state_tensors["m"][name])
        for name in one.state_tensors["m"]
    )
    with pytest.raises(JournalError, match="belongs to another"):
        other.load({"v:matrix": torch.ones(2)})

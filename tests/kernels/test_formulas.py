"""A formula gives the same bits whoever works it out: torch in blocks, or the compiled loops."""

import pytest
import torch
from torch import nn

from zo import Key, Weights
from zo.directions import directions
from zo.errors import ConfigError
from zo.kernels.formulas import REGISTERS, Formula, root, sign, within
from zo.weights import BLOCK

UPDATES = [("nearest", torch.float32), ("nearest", torch.float16), ("nearest", torch.bfloat16)]
UPDATES += [("stochastic", torch.float16), ("stochastic", torch.bfloat16)]
UPDATES += [("master", torch.float16), ("master", torch.bfloat16)]
KEYS = [Key(0, 5, 0), Key(0, 3, 1)]


def everything(at):
    """Every operation, with numbers and with values, and states kept, changed and taken from noise."""
    x, y = at.noise
    a = at.state["a"] = within(at.state["a"] * 0.9 + x * y - x / 3.0, -1.5, 1.5)
    at.state["b"] = y
    whole = root(abs(a) + 1e-8) / (at.state["kept"] - 2.0) + sign(x - 0.25)
    return -within(0.3 * whole + 2.0 / (3.0 - y), most=0.5) * 1e-2


def momentum(at):
    m = at.state["a"] = at.state["a"] * 0.9 + at.noise[0] * 0.3
    return m * -1e-3


def noise_itself(at):
    return at.noise[1]


def swapped(at):
    at.state["a"], at.state["b"] = at.state["b"], at.state["a"]
    return at.noise[0] * at.state["a"]


def before(at):
    """A state that is an earlier one's old value, and a step that is an old state."""
    old = at.state["b"] = at.state["a"]
    at.state["a"] = old * 0.5
    return old


def around(at):
    at.state["a"], at.state["b"], at.state["kept"] = at.state["b"], at.state["kept"], at.state["a"]
    return at.state["kept"]


def of_the_name(at):
    return at.noise[0] * float(len(at.name))


def of_no_name(at):
    return at.noise[0] * float(1 + len(at.name))


def parameters(dtype, rows=131):
    g = torch.Generator().manual_seed(0)
    shapes = {"matrix": (rows, 70), "layernorm": (33,), "scalar": (), "none": (0, 4)}
    return [(name, nn.Parameter(torch.randn(shape, generator=g).to(dtype))) for name, shape in shapes.items()]


def moved(formula, dtype, update, kind, kernels, decay=0.1):
    """All that three moves leave."""
    try:
        weights = Weights(parameters(dtype), update=update, kernels=kernels)
    except ConfigError as error:
        pytest.skip(str(error))
    g = torch.Generator().manual_seed(1)
    state = {slot: weights.zeros() for slot in ("a", "b", "kept")}
    for tensors in state.values():
        for tensor in tensors.values():
            tensor.normal_(generator=g)
    for t in range(3):
        weights.elementwise(
            formula,
            KEYS,
            directions(kind),
            state,
            decay=decay,
            no_decay=("norm",),
            rounding_key=Key(0, t, -1),
        )
    kept = {f"{slot}:{name}": tensor for slot, part in state.items() for name, tensor in part.items()}
    return weights.state() | kept


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
@pytest.mark.parametrize(("update", "dtype"), UPDATES)
@pytest.mark.parametrize(
    "step", [everything, momentum, noise_itself, swapped, before, around, of_the_name, of_no_name]
)
def test_whoever_works_it_out(step, update, dtype, kind):
    by_name = step is of_the_name
    one = moved(Formula(step, by_name), dtype, update, kind, "eager")
    other = moved(Formula(step, by_name), dtype, update, kind, "native")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("kernels", ["eager", "native"])
@pytest.mark.parametrize(
    ("step", "after", "move"),
    [
        (swapped, {"a": 2.0, "b": 1.0, "kept": 3.0}, None),
        (before, {"a": 0.5, "b": 1.0, "kept": 3.0}, 1.0),
        (around, {"a": 2.0, "b": 3.0, "kept": 1.0}, 1.0),
    ],
)
def test_what_is_read_is_what_was_there(step, after, move, kernels):
    """Of states that become each other none is written before all are read, nor before the step is."""
    weights = Weights([("w", nn.Parameter(torch.zeros(BLOCK // 70 + 3, 70)))], kernels=kernels)
    state = {slot: weights.zeros() for slot in ("a", "b", "kept")}
    for slot, number in {"a": 1.0, "b": 2.0, "kept": 3.0}.items():
        state[slot]["w"].fill_(number)
    z = weights.direction("w", KEYS[0], directions("gaussian"))
    weights.elementwise(Formula(step), KEYS, directions("gaussian"), state)
    assert {slot: set(tensors["w"].flatten().tolist()) for slot, tensors in state.items()} == {
        slot: {number} for slot, number in after.items()
    }
    moved = weights.tensors["w"].detach()
    assert torch.equal(moved, z * 2.0 if move is None else torch.full_like(z, move))


def adds_to_a_state(at):
    total = at.state["a"]
    total += at.noise[0]
    return total * 0.5


def doubles_the_noise(at):
    z = at.noise[0]
    z *= 2.0
    return at.noise[0]


def takes_from_a_copy(at):
    x = at.noise[0] * 2.0
    y = x
    x -= 1.0
    y /= 3.0
    return x + y


@pytest.mark.parametrize("kernels", ["eager", "native"])
@pytest.mark.parametrize("step", [adds_to_a_state, doubles_the_noise, takes_from_a_copy])
def test_changing_a_value_in_place_is_refused(step, kernels):
    """The forms would silently differ; nothing has been written then."""
    weights = Weights([("w", nn.Parameter(torch.zeros(4, 3)))], kernels=kernels)
    state = {"a": weights.zeros()}
    with pytest.raises(ConfigError, match=r"Write x = x \+ y"):
        weights.elementwise(Formula(step), KEYS, directions("gaussian"), state)
    assert not weights.tensors["w"].any() and not state["a"]["w"].any()


def test_the_compiled_loops_do_it(monkeypatch):
    """No block is worked out in torch where there is a compiler."""
    expected = moved(Formula(everything), torch.float32, "nearest", "gaussian", "native")
    monkeypatch.setattr(Formula, "__call__", None)
    found = moved(Formula(everything), torch.float32, "nearest", "gaussian", "native")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_registers_are_used_again():
    """A chain needs one, whatever its length; a sum whose terms wait for each other needs one for each."""

    def chain(at):
        x = at.noise[0]
        for _ in range(100):
            x = x * 0.5
        return x

    def heap(at):
        parts = [at.noise[0] * float(k) for k in range(REGISTERS)]
        total = parts[-1]
        for part in reversed(parts[:-1]):
            total = total + part
        return total

    program = Formula(chain).program("w", 1, ("s",))
    assert program is not None and {to for _, to, *_ in program.ops} == {2} and program.states == (1,)
    assert Formula(heap).program("w", 1, ()) is None
    one, other = (moved(Formula(heap), torch.float32, "nearest", "gaussian", k) for k in ("eager", "native"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_formula_is_the_recursion_it_says():
    """Momentum over three steps, by hand in float64."""
    weights = Weights(parameters(torch.float32, BLOCK // 70 + 3))
    start = weights.tensors["matrix"].detach().double()
    m = {"a": weights.zeros()}
    z = [weights.direction("matrix", key, directions("gaussian")).double() for key in KEYS]
    for key in KEYS:
        weights.elementwise(Formula(momentum), [key], directions("gaussian"), m)
    expected = 0.9 * 0.3 * z[0] + 0.3 * z[1]
    torch.testing.assert_close(m["a"]["matrix"].double(), expected, rtol=1e-6, atol=1e-6)  # fp32 roundings
    passed = start - 1e-3 * (0.3 * z[0] + expected)
    torch.testing.assert_close(weights.tensors["matrix"].detach().double(), passed, rtol=1e-6, atol=1e-6)

"""A formula gives the same bits whoever works it out: torch in blocks, or the compiled loops in registers."""

import pytest
import torch
from torch import nn

from zo import Key, Weights
from zo.directions import directions
from zo.errors import ConfigError
from zo.random.formulas import REGISTERS, Formula, root, sign, within
from zo.weights import BLOCK

UPDATES = [("nearest", torch.float32), ("nearest", torch.float16), ("nearest", torch.bfloat16)]
UPDATES += [("stochastic", torch.float16), ("stochastic", torch.bfloat16), ("master", torch.bfloat16)]
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
@pytest.mark.parametrize("step", [everything, momentum, noise_itself, swapped, of_the_name, of_no_name])
def test_whoever_works_it_out(step, update, dtype, kind):
    by_name = step is of_the_name
    one = moved(Formula(step, by_name), dtype, update, kind, "eager")
    other = moved(Formula(step, by_name), dtype, update, kind, "native")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


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

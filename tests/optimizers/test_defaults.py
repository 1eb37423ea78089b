"""torch's default dtype and device change no bit of zo: every tensor is made with both named."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import zo
from tests.optimizers.test_battery import YAMLS, make
from zo import ModuleLook, Weights

MAKERS = {
    "zeros",
    "ones",
    "empty",
    "full",
    "tensor",
    "eye",
    "rand",
    "randn",
    "linspace",
    "scalar_tensor",
    "as_tensor",
}
COUNTERS = {"arange", "randperm"}  # whole numbers have one dtype


class Small(nn.Module):
    """A matrix, a vector and two-way losses, all made in fp32 on the CPU whatever the defaults."""

    def __init__(self):
        super().__init__()
        g = torch.Generator("cpu").manual_seed(0)
        self.inner = nn.Linear(12, 9, dtype=torch.float32, device="cpu")
        for parameter in self.parameters():
            values = torch.randn(parameter.shape, generator=g, dtype=torch.float32, device="cpu")
            parameter.data.copy_(values)

    def forward(self, x):
        return self.inner(x).square().mean(1)


X = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))


def trained(name, kernels):
    model = Small()
    optimizer = make(name, Weights(model, kernels=kernels), lr=1e-3)
    look = ModuleLook(model, lambda m, x: m(x), optimizer)
    zo.train(optimizer, look, lambda t: X, steps=3)
    return optimizer.weights.sha256(), {
        key: value.float().cpu() for key, value in optimizer.state().items() if not key.endswith("step")
    }


@pytest.mark.parametrize("kernels", ["eager", "auto"])
@pytest.mark.parametrize("name", YAMLS)
@pytest.mark.filterwarnings("ignore")
def test_defaults_of_torch_change_no_bit(name, kernels):
    expected, state = trained(name, kernels)
    try:
        torch.set_default_dtype(torch.float64)
        if name not in ("adamw", "sgd"):  # torch's own optimizers make what they keep
            torch.set_default_device("meta")
        found, other = trained(name, kernels)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert found == expected
    assert state.keys() == other.keys() and all(torch.equal(state[key], other[key]) for key in state)


def test_every_tensor_is_made_with_dtype_and_device():
    missing = []
    for path in sorted(Path(zo.__file__).parent.rglob("*.py")):
        if path.stem == "compiled":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"):
                continue
            named = {keyword.arg for keyword in node.keywords}
            wanted = {"dtype", "device"} if node.func.attr in MAKERS else set()
            wanted = {"device"} if node.func.attr in COUNTERS else wanted
            if wanted - named:
                missing.append(
                    f"{path.name}:{node.lineno}: torch.{node.func.attr} without {sorted(wanted - named)}"
                )
    assert not missing, "\n".join(missing)

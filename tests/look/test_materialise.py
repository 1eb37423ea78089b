"""An objective that calls the model many times, with each probe's weights made once."""

import pytest
import torch
from torch import nn

from zo import FZOO, MeZO, ModuleLook, Weights


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return x + self.by


class Net(nn.Module):
    """Every kind of site: an embedding, layers, a norm, a raw parameter; the head is tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.shift = Shift()
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(self.norm(self.shift(torch.tanh(self.inner(self.words(ids))))))


def says(model, batch):
    """Four words, each the likeliest after the one before; how often a word is larger than its number in the row."""
    said = [batch]
    for _ in range(4):
        said.append(model(said[-1]).argmax(-1))
    return -(torch.stack(said[1:], 1) > torch.arange(4)).float().mean(1)


def setting(dtype=torch.float32):
    torch.manual_seed(0)
    model = Net().to(dtype)
    return model, torch.randint(0, 11, (8,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("micro", [None, 3])
def test_losses_are_the_same_bits(dtype, micro):
    model, batch = setting(dtype)
    optimizer = FZOO(Weights(model), lr=0.0, eps=0.5, n=4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    kept = ModuleLook(model, says, optimizer, materialise=True, micro=micro)
    made = ModuleLook(model, says, optimizer, probes_per_forward=1, micro=micro)
    probes = optimizer.ask(0)
    losses = kept(probes, batch)
    assert losses == made(probes, batch)
    assert len(set(losses)) > 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert kept.sequential_because is not None and kept.forward_passes == 5


def test_each_tensor_is_made_once_a_probe_and_let_go(monkeypatch):
    model, batch = setting()
    optimizer = MeZO(model, lr=0.0, eps=0.5)
    look = ModuleLook(model, says, optimizer, materialise=True)
    made = []
    at = Weights.at
    monkeypatch.setattr(Weights, "at", lambda self, name, *rest: made.append(name) or at(self, name, *rest))
    look(optimizer.ask(0), batch)
    assert sorted(made) == sorted([*optimizer.weights.tensors] * 2)
    assert look.executor._made == {}

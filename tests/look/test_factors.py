"""Looks along low-rank directions: no matrix is formed, stacked equals sequential, both equal the dense model."""

import copy
from typing import cast

import pytest
import torch

from tests import tiny
from zo import EGGROLL, FZOO, LOZO, LOZOM, LeZO, ModuleLook, SparseMeZO, SubZero, Weights, ZOMuon
from zo.directions import Layers
from zo.directions.lowrank import Factored

CASES = [
    ("opt", False), ("opt-350m", False), ("llama-tied", False), ("bert-classifier", False), ("gpt2", False),
    ("opt", True), ("gpt2", True),
]  # fmt: skip


def dense_losses(model, family, optimizer, probes, batch):
    """Losses of copies of the model whose weights are set to those of each probe."""
    values = []
    for probe in probes:
        moved = copy.deepcopy(model)
        tensors = dict(moved.named_parameters(remove_duplicate=False))
        names = {id(p): n for n, p in model.named_parameters(remove_duplicate=False)}
        with torch.no_grad():
            for name, tensor in optimizer.weights.tensors.items():
                tensors[names[id(tensor)]].copy_(optimizer.weights.at(name, probe, optimizer.directions))
            result = tiny.FAMILIES[family].objective(moved, batch)
        losses, weights = result if isinstance(result, tuple) else (result, torch.ones_like(result))
        values.append(((losses.double() * weights).sum() / weights.sum()).item())
    return values


def looks(model, family, optimizer):
    objective = tiny.FAMILIES[family].objective
    return [ModuleLook(model, objective, optimizer, probes_per_forward=n) for n in (1, "all")]


@pytest.mark.parametrize("family, lora", CASES)
@pytest.mark.parametrize(
    "method", [lambda w: FZOO(w, n=4, eps=1e-2, directions={"kind": "lowrank", "rank": 2}),
               lambda w: SubZero(w, eps=1e-2, rank=3, refresh=2)], ids=["lowrank", "subspace"]
)  # fmt: skip
def test_stacked_equals_sequential_and_the_dense_model(family, lora, method):
    model = tiny.build(family, lora=lora)
    optimizer = method(Weights(model))
    one, many = looks(model, family, optimizer)
    for t in range(3):
        batch = tiny.batch(family, 3, 8, seed=t)
        probes = optimizer.ask(t)
        told = many(probes, batch)
        assert told == one(probes, batch)
        # x Wᵀ + (x B) Aᵀ sums in another order than x (W + A Bᵀ)ᵀ: units of fp32 in the last place of losses near 4.
        assert told == pytest.approx(dense_losses(model, family, optimizer, probes, batch), rel=3e-6)
        optimizer.tell(t, told)


@pytest.mark.parametrize("method", [LOZO, SubZero, ZOMuon, EGGROLL, SparseMeZO, LeZO])
def test_every_method_looks_the_same_stacked_in_both_dtypes(method):
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny.build("opt", dtype=dtype)
        optimizer = method(Weights(model), eps=1e-2)
        one, many = looks(model, "opt", optimizer)
        for t in range(2):
            batch = tiny.batch("opt", 3, 8, seed=t)
            assert many(optimizer.ask(t), batch) == one(optimizer.ask(t), batch)


@pytest.mark.parametrize(
    "method", [lambda w: FZOO(w, n=4, directions={"kind": "lowrank", "rank": 2}), LOZO, LOZOM,
               lambda w: SubZero(w, rank=4), lambda w: ZOMuon(w, rank=4), lambda w: EGGROLL(w, n=3)],
    ids=["fzoo", "lozo", "lozom", "subzero", "zomuon", "eggroll"],
)  # fmt: skip
def test_no_matrix_is_formed_where_layers_are_linear_or_embeddings(method, monkeypatch):
    """And the probes of a step are one call of the model, but where they are compared."""
    total = Factored.total

    def thin(self, weights, name, terms, rows=None):
        assert rows is not None or self.plain(weights, name), f"{name} was formed"
        return total(self, weights, name, terms, rows)

    monkeypatch.setattr(Factored, "total", thin)
    model = tiny.build("llama-tied")  # of OPT's modules one is swapped: its position embedding
    optimizer = method(Weights(model))
    many = looks(model, "llama-tied", optimizer)[1]
    rows = []
    model.register_forward_hook(
        lambda m, a, kwargs, out: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    for t in range(4):
        many(optimizer.ask(t), tiny.batch("llama-tied", 3, 8, seed=t))
    asked = len(optimizer.ask(0))
    compared = [3] * asked + [
        3 * asked
    ]  # each probe alone, then all in one call; at θ too, and again at looks 1 and 2
    assert rows == [
        *compared,
        *compared,
        *compared,
        *compared,
        3 * asked,
    ]


def test_layers_left_out_keep_their_weights_in_the_forward():
    """A layer computes with its own weights in the steps that leave it out, and with others in the rest."""
    model = tiny.build("opt", tiny.Shape(layers=3))
    optimizer = LeZO(Weights(model), eps=1e-2, drop=0.6)
    kind = cast(Layers, optimizer.directions)
    look = looks(model, "opt", optimizer)[0]
    seen = []
    layer = model.model.decoder.layers[0].fc1
    layer.register_forward_hook(lambda m, args, out: seen.append((args[0], out)))
    for t in range(12):
        look(optimizer.ask(t), tiny.batch("opt", 2, 5))
        inside = 0 in kind.chosen(optimizer.weights, 0, t)
        x, y = seen[-1]
        with torch.no_grad():
            plain = torch.nn.functional.linear(x, layer.weight, layer.bias)
        assert torch.equal(plain, y) == (not inside)

"""Linear layers that leave padding out: the numbers of a model without padding, on every road to a loss."""

import warnings

import pytest
import torch
from torch import nn

from tests import tiny
from zo import FZOO, AdamW, LookError, MeZO, ModuleLook, Weights
from zo.errors import ZOWarning
from zo.look import packing
from zo.look.packing import Positions, gather, packed, scatter

FAMILIES = [name for name in tiny.FAMILIES if name in ("opt", "llama", "roberta", "gpt2")]


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch):
    """Small layers too: otherwise a layer of tiny models would never leave anything out."""
    monkeypatch.setattr(packing, "MIN_SAVED", 1)


def looks(model, family, optimizer, **options):
    return [
        ModuleLook(model, tiny.FAMILIES[family].objective, optimizer, skip_padding=skip, **options)
        for skip in (False, True)
    ]


def positions_of(mask: torch.Tensor) -> Positions:
    found = Positions.of_call({"attention_mask": mask}, 1)
    assert found is not None
    return found


def test_a_layer_is_its_closed_form_at_needed_positions_and_zero_elsewhere():
    g = torch.Generator().manual_seed(0)
    x, mask = torch.randn(3, 5, 4, generator=g), torch.tensor([[1, 1, 0, 0, 0], [1] * 5, [0, 0, 1, 1, 1]])
    layer = nn.Linear(4, 6)
    index = positions_of(mask).index(0, x, 6)
    assert index is not None and index.tolist() == [0, 1, 5, 6, 7, 8, 9, 12, 13, 14]
    y = scatter(layer(gather(x, index)), index, x.shape)
    expected = torch.einsum("btd,od->bto", x.double(), layer.weight.double()) + layer.bias.double()
    # 4 products and a sum in fp32.
    assert torch.allclose(y.double(), expected * mask[..., None], atol=5e-6)
    assert (y[mask == 0] == 0).all()


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"attention_mask": torch.ones(2, 3, dtype=torch.long)},  # nothing to leave out
        {"attention_mask": torch.zeros(2, 1, 3, 3, dtype=torch.long)},  # of positions by positions
        {"attention_mask": torch.zeros(2, 3)},  # added to scores
        {"attention_mask": None},
    ],
)
def test_without_a_mask_of_rows_and_positions_everything_is_multiplied(kwargs):
    assert Positions.of_call(kwargs, 1) is None


def test_an_input_of_another_shape_is_multiplied_whole():
    positions = positions_of(torch.tensor([[1, 0], [1, 1]]))
    for shape in [(2, 8), (4, 8), (2, 3, 8), (1, 2, 8), (2, 2, 2, 8)]:
        assert positions.index(0, torch.zeros(shape), 8) is None
    assert positions.index(0, torch.zeros(2, 2, 8), 8) is not None


def test_little_saved_is_not_worth_the_copies(monkeypatch):
    monkeypatch.setattr(packing, "MIN_SAVED", 100)
    positions = positions_of(torch.tensor([[1, 0], [1, 1]]))
    assert positions.index(0, torch.zeros(2, 2, 9), 11) is None  # 1 position, 99 multiplications
    assert positions.index(0, torch.zeros(2, 2, 10), 10) is not None


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_each_row_without_padding(family, lora):
    model = tiny.build(family, lora=lora)
    optimizer = MeZO(Weights(model), n=2, eps=1e-3)
    whole, skipping = looks(model, family, optimizer)
    batch = tiny.batch(family, 5, 9)
    probes = optimizer.ask(0)
    found = skipping(probes, batch)
    assert skipping.executor.packed
    assert found == pytest.approx(whole(probes, batch), rel=2e-6)
    sums = [[0.0, 0.0] for _ in probes]
    for row in range(5):  # each row alone, cut to its own length: no padding anywhere
        length = int(batch["attention_mask"][row].sum())
        alone = {k: v[row : row + 1, :length] if v.dim() > 1 else v[row : row + 1] for k, v in batch.items()}
        for total, (loss, weight) in zip(sums, whole.sums(probes, alone), strict=True):
            total[0] += loss
            total[1] += weight
    assert found == pytest.approx([loss / weight for loss, weight in sums], rel=2e-6)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_probes_have_the_bits_of_one_by_one(family, dtype, lora):
    model = tiny.build(family, dtype=dtype, lora=lora)
    optimizer = FZOO(Weights(model, kernels="eager"), n=4, eps=2e-2)
    one, many = (looks(model, family, optimizer, probes_per_forward=size)[1] for size in (1, "all"))
    for t, batch in enumerate([tiny.batch(family, 3, 7), tiny.batch(family, 5, 6, seed=2)]):
        probes = optimizer.ask(t)
        assert many(probes, batch) == one(probes, batch)
        assert many.executor.packed and one.executor.packed
    assert many.sequential_because is None


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_with_padding(family, checkpointing):
    grads = []
    for skip in (False, True):
        model = tiny.build(family)
        optimizer = AdamW(Weights(model), lr=1e-3, gradient_checkpointing=checkpointing)
        look = looks(model, family, optimizer)[skip]
        optimizer.step(0, tiny.batch(family, 5, 9), look)
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert grads[0]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


class Pooled(nn.Module):
    """Reads padded positions, as no model with an attention mask may. clean: calls in which it does not yet."""

    def __init__(self, clean: int):
        super().__init__()
        self.inner, self.out, self.left = nn.Linear(6, 6), nn.Linear(6, 1), clean

    def forward(self, x, attention_mask):
        self.left -= 1
        y = torch.tanh(self.inner(x) + 1)
        y = y * attention_mask[..., None] if self.left >= 0 else y
        return self.out(y.mean(1))[:, 0]


def pooled(model, batch):
    return model(batch["x"], attention_mask=batch["mask"])


def pooled_batch(rows=4, length=5):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:, 3:] = 0
    return {"x": torch.randn(rows, length, 6, generator=torch.Generator().manual_seed(1)), "mask": mask}


def test_a_model_that_reads_padding_gets_it_with_a_warning():
    model = Pooled(0)
    optimizer = MeZO(Weights(model), eps=1e-2)
    probes = optimizer.ask(0)
    look = ModuleLook(model, pooled, optimizer, skip_padding=True)
    with pytest.warns(ZOWarning, match="Padding is evaluated too"):
        found = look(probes, pooled_batch())
    expected = ModuleLook(model, pooled, optimizer)
    assert found == expected(probes, pooled_batch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert look(probes, pooled_batch()) == expected(probes, pooled_batch())


def test_a_model_that_begins_to_read_padding_ends_the_run():
    model = Pooled(9)
    optimizer = MeZO(Weights(model), eps=1e-2)
    look = ModuleLook(model, pooled, optimizer, probes_per_forward=1, skip_padding=True)
    with pytest.raises(LookError, match="Step 8: with its padding left out Pooled"):
        for t in range(10):
            look(optimizer.ask(t), pooled_batch())


def test_first_order_with_a_model_that_reads_padding_has_the_same_gradient():
    losses = []
    for skip in (False, True):
        torch.manual_seed(0)
        model = Pooled(0)
        look = ModuleLook(model, pooled, AdamW(Weights(model), lr=1e-3), skip_padding=skip)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            losses.append(look.gradient(pooled_batch(), seed=None))
        assert [w.category for w in caught] == [ZOWarning] * skip
    assert losses[0] == losses[1]


def test_what_comparing_costs_is_counted():
    model = tiny.build("opt")
    optimizer = MeZO(Weights(model), eps=1e-3)
    look = looks(model, "opt", optimizer, probes_per_forward=1)[1]
    for t in range(70):
        look(optimizer.ask(t), tiny.batch("opt", 3, 7))
    assert (look.forward_passes, look.check_forward_passes) == (140, 3)  # at the looks 0, 8 and 64


def test_the_context_leaves_the_model_as_it_was():
    model = tiny.build("opt")
    with packed(model), pytest.raises(ZeroDivisionError):
        model(**{k: v for k, v in tiny.batch("opt", 2, 4).items() if k != "labels"})
        raise ZeroDivisionError
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not model._forward_pre_hooks

"""Stacked and sequential looks give equal bits on a CPU, whatever the model, its shape and the batch."""

import random
import warnings

import pytest
import torch
from torch import nn

from tests import tiny
from zo import FZOO, MeZO, ModuleLook, Weights


def look_at(model, family, optimizer, per_forward, **options):
    return ModuleLook(
        model, tiny.FAMILIES[family].objective, optimizer, probes_per_forward=per_forward, **options
    )


def assert_equal_bits(model, family, optimizer, batches, per_forward="all"):
    one = look_at(model, family, optimizer, 1)
    many = look_at(model, family, optimizer, per_forward)
    for t, batch in enumerate(batches):
        probes = optimizer.ask(t)
        expected = one(probes, batch)
        assert many(probes, batch) == expected, f"step {t}"
        assert len(set(expected)) > len(expected) // 2, "the probes make no difference"
    assert many.sequential_because is None
    return many


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stacked_equals_sequential(family, dtype, lora):
    model = tiny.build(family, dtype=dtype, lora=lora)
    eps = 2e-2 if dtype == torch.bfloat16 else 1e-3
    optimizer = FZOO(Weights(model, kernels="eager"), n=4, eps=eps)
    batches = [tiny.batch(family, 3, 7), tiny.batch(family, 3, 7, seed=1), tiny.batch(family, 5, 6, seed=2)]
    look = assert_equal_bits(model, family, optimizer, batches)
    alone, stacked = 5, 1
    compared = at_theta = alone + stacked
    # The second look is compared again, and the third has other rows: all over again.
    calls = (compared + at_theta) + compared + (compared + at_theta)
    # In 16 bits the 4 probes beside θ of the first two looks are evaluated again, in one call, to measure rounding.
    twice = 2 if dtype == torch.bfloat16 else 0
    assert look.calls == calls + twice
    assert (look.forward_passes, look.check_forward_passes) == (3 * 5, 3 * 5 + 5 + 3 * 5 + 4 * twice)


@pytest.mark.parametrize("seed", range(12))
def test_stacked_equals_sequential_on_random_shapes(seed):
    pick = random.Random(seed)
    family = pick.choice(list(tiny.FAMILIES))
    shape = tiny.Shape(pick.randint(1, 3), pick.randint(1, 3), pick.randint(1, 9), pick.randint(5, 80), seed)
    dtype = pick.choice([torch.float32, torch.bfloat16])
    model = tiny.build(family, shape, dtype, lora=pick.random() < 0.3)
    method = pick.choice([FZOO, MeZO])
    directions = pick.choice(["rademacher", "gaussian"])
    optimizer = method(Weights(model), n=pick.randint(4, 6), eps=2e-2, directions=directions, seed=seed)
    batches = [tiny.batch(family, pick.randint(1, 17), pick.randint(2, 33), seed=i) for i in range(3)]
    one = look_at(model, family, optimizer, 1)
    many = look_at(model, family, optimizer, pick.choice(["all", 2, 3, "auto"]))
    for t, batch in enumerate(batches):
        assert many(optimizer.ask(t), batch) == one(optimizer.ask(t), batch), (family, shape, dtype)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_either_attention(attention):
    for family in ("opt", "llama", "roberta"):
        model = tiny.build(family)
        model.set_attn_implementation(attention)
        optimizer = FZOO(Weights(model), n=4)
        assert_equal_bits(model, family, optimizer, [tiny.batch(family, 4, 9, seed=i) for i in range(3)])


@pytest.mark.parametrize("method", [FZOO, MeZO])
@pytest.mark.parametrize("per_forward", [2, 3, "auto"])
def test_parts_of_the_probes_may_be_stacked(method, per_forward):
    model = tiny.build("opt")
    optimizer = method(Weights(model), n=5)
    batches = [tiny.batch("opt", 3, 8, seed=i) for i in range(2)]
    assert_equal_bits(model, "opt", optimizer, batches, per_forward)


@pytest.mark.parametrize("kernels", ["eager", "native"])
def test_form_of_the_kernels_does_not_matter(kernels):
    model = tiny.build("roberta")
    try:
        other = FZOO(Weights(model, kernels=kernels), n=4)
    except ValueError as error:
        pytest.skip(str(error))
    eager = FZOO(Weights(model, kernels="eager"), n=4)
    batch = tiny.batch("roberta", 3, 8)
    for t in range(2):
        probes = other.ask(t)
        assert look_at(model, "roberta", other, "all")(probes, batch) == look_at(model, "roberta", eager, 1)(
            probes, batch
        )


@pytest.mark.parametrize("length", [5, 8])
def test_a_batch_of_one_row(length):
    for family in ("opt", "llama", "bert"):
        model = tiny.build(family)
        optimizer = FZOO(Weights(model), n=4)
        batches = [tiny.batch(family, 1, length, seed=i) for i in range(3)]
        assert_equal_bits(model, family, optimizer, batches)


def test_length_and_rows_may_change_every_step():
    for family in ("opt", "phi", "bert", "gpt2"):
        model = tiny.build(family)
        optimizer = FZOO(Weights(model), n=4)
        # The first look sees 4 rows of 4, so that 1, 2, 4 rows (or places) of later batches are easily confused.
        sizes = [(4, 4), (1, 4), (1, 16), (2, 4), (2, 8), (4, 2), (20, 4), (4, 20), (1, 5), (5, 1 + 4)]
        one, many = look_at(model, family, optimizer, 1), look_at(model, family, optimizer, "all")
        for t, (rows, length) in enumerate(sizes):
            batch = tiny.batch(family, rows, length, seed=t)
            assert many(optimizer.ask(t), batch) == one(optimizer.ask(t), batch), (family, rows, length)


def test_one_model_call_of_all_rows():
    model = tiny.build("opt")
    optimizer = FZOO(Weights(model), n=8)
    look = look_at(model, "opt", optimizer, "all")
    rows = []
    model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    look(optimizer.ask(0), tiny.batch("opt", 3, 7))
    compared = [3] * 9 + [27]  # all probes alone, then together
    assert rows == compared + compared  # and the same at θ, with the rows of each group in another order
    rows.clear()
    for t in range(1, 6):
        look(optimizer.ask(t), tiny.batch("opt", 3, 7, seed=t))
    assert rows == [*compared, *compared, 27, *compared, 27]  # looks 1, 2 and 4 are compared again
    assert look.calls == len(2 * compared + rows)


def test_one_forward_pass_compares_a_new_width():
    model = tiny.build("opt")
    optimizer = FZOO(Weights(model), n=8)
    look = look_at(model, "opt", optimizer, "all")
    for t in range(4):
        look(optimizer.ask(t), tiny.batch("opt", 3, 7, seed=t))
    before = look.check_forward_passes
    rows = []
    model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    batch, probes = tiny.batch("opt", 3, 9), optimizer.ask(5)
    assert look(probes, batch) == look_at(model, "opt", optimizer, 1)(probes, batch)
    assert rows[:2] == [3, 27] and look.check_forward_passes == before + 1


@pytest.mark.parametrize("method, n, per_step", [(FZOO, 8, 9), (MeZO, 1, 2), (MeZO, 3, 6)])
@pytest.mark.parametrize("per_forward", [1, 4, "all"])
@pytest.mark.parametrize("micro", [None, 2])
def test_forward_passes_are_what_the_model_computed(method, n, per_step, per_forward, micro):
    model = tiny.build("opt", tiny.Shape(layers=1))
    optimizer = method(Weights(model), n=n)
    look = look_at(model, "opt", optimizer, per_forward, micro=micro)
    rows = []
    model.register_forward_hook(
        lambda module, args, kwargs, output: rows.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    for t in range(3):
        look(optimizer.ask(t), tiny.batch("opt", 5, 7))
    assert look.forward_passes == 3 * per_step == 3 * optimizer.forward_passes
    extra = sum(rows) / 5 - look.forward_passes
    assert extra <= look.check_forward_passes < extra + 1  # rounded up
    assert (look.check_forward_passes > 0) == (per_forward != 1)


@pytest.mark.parametrize("per_forward", [1, "all"])
@pytest.mark.parametrize("micro", [1, 3, 4, 100])
def test_micro_batches_agree_to_rounding(per_forward, micro):
    for family in ("opt", "roberta"):
        model = tiny.build(family)
        optimizer = FZOO(Weights(model), n=4)
        whole = look_at(model, family, optimizer, 1)
        cut = look_at(model, family, optimizer, per_forward, micro=micro)
        for t in range(2):
            batch = tiny.batch(family, 7, 9, seed=t)
            expected = whole(optimizer.ask(t), batch)
            # A GEMM of other shape may add in another order, so an example's fp32 loss may differ by some units
            # in the last place (2^-23 of it each); the sum over examples itself is exact.
            assert cut(optimizer.ask(t), batch) == pytest.approx(expected, rel=16 * 2**-23)


def test_micro_batches_sum_exactly():
    """Where examples do not depend on the batch's shape, cutting it changes no bit."""

    class Elementwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([0.3]))

        def forward(self, x):
            return x * self.scale

    model = Elementwise()
    optimizer = MeZO(model, n=2, eps=0.1)
    batch = {"x": torch.randn(31, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-15, 16)}
    objective = lambda model, batch: (model(batch["x"]) ** 2, batch["x"].abs())  # noqa: E731
    expected = ModuleLook(model, objective, optimizer)(optimizer.ask(0), batch)
    for micro in (1, 2, 7, 30, 31):
        assert ModuleLook(model, objective, optimizer, micro=micro)(optimizer.ask(0), batch) == expected


def test_a_model_that_cannot_be_stacked_says_so_once_and_goes_on():
    class Pools(nn.Module):
        """Its weights meet a tensor without rows: nothing to stack."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return x @ self.inner(torch.eye(4))

    torch.manual_seed(0)
    model = Pools()
    optimizer = FZOO(model, n=4)
    objective = lambda model, batch: model(batch).square().sum(1)  # noqa: E731
    one = ModuleLook(model, objective, optimizer, probes_per_forward=1)
    many = ModuleLook(model, objective, optimizer, probes_per_forward="all")
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match="one by one"):
        assert many(optimizer.ask(0), x) == one(optimizer.ask(0), x)
    assert many.sequential_because is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert many(optimizer.ask(1), x) == one(optimizer.ask(1), x)

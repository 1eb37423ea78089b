"""Optimizers deep-copy and pickle: the copy goes on to the bits of the original."""

import copy
import pickle
import warnings

import pytest
import torch

import zo
from tests.optimizers.test_battery import (
    YAMLS,
    Bowl,
    batches,
    checkpointed,
    equal,
    kind_of,
    make,
    objective,
    run,
)
from zo import FZOO, Linear, MeZO, MeZOMomentum, Weights, train
from zo.optimizers import FZOOAblation, Optimizer


def test_every_optimizer_of_the_library_has_a_yaml_and_is_copied_below():
    classes = {kind for name in zo.__all__ if isinstance(kind := getattr(zo, name), type)}
    assert {kind for kind in classes if issubclass(kind, Optimizer)} <= {kind_of(name) for name in YAMLS}


def through_pickle(pair):
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("how", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("name", YAMLS)
def test_a_copy_goes_on_to_the_same_bits(name, how):
    model = Bowl()
    optimizer = make(name, model, lr=Linear(warmup=0.2).over(0.01, 9))
    run(optimizer, model, 0, 3)
    other, copied = how((model, optimizer))
    expected = run(optimizer, model, 3, 7)
    assert not equal(expected, [p.detach() for p in other.parameters()])
    assert equal(run(copied, other, 3, 7), expected)


@pytest.mark.parametrize("name", ["fzoo", "mezo", "zoadam", "adamw"])
def test_a_copy_keeps_what_sixteen_bits_drop(name):
    model = Bowl().bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        radius = {} if checkpointed(name) else {"eps": 0.0625}
        optimizer = make(name, Weights(model, update="master"), lr=0.01, **radius)
        run(optimizer, model, 0, 3)
        other, copied = copy.deepcopy((model, optimizer))
        assert equal(run(copied, other, 3, 6), run(optimizer, model, 3, 6))
    assert copied.weights.checksum() == optimizer.weights.checksum()


@pytest.mark.parametrize("how", [copy.deepcopy, through_pickle])
def test_a_copy_trains_the_copied_module(how):
    """zo.train finds the module by the optimizer: that of a copy is the copied one."""
    model = Bowl()
    optimizer = MeZO(model, lr=0.01)
    other, copied = how((model, optimizer))
    alone = how(optimizer)
    assert copied.weights.model is other and alone.weights.model is not model
    assert train(copied, objective, batches, 2) == train(alone, objective, batches, 2) == 2
    assert equal(list(model.parameters()), list(Bowl().parameters()))
    assert train(optimizer, objective, batches, 2) == 2
    for trained in (other, alone.weights.model):
        assert equal(list(trained.parameters()), list(model.parameters()))


@pytest.mark.parametrize(("paper", "ablation"), [(FZOO, FZOOAblation), (MeZO, MeZOMomentum)])
def test_without_its_options_an_ablation_is_the_method_of_the_paper(paper, ablation):
    one, other = Bowl(), Bowl()
    options = {"lr": 0.01, "n": 4, "weight_decay": 0.5}
    assert equal(run(paper(one, **options), one, 0, 5), run(ablation(other, **options), other, 0, 5))


def test_all_that_is_wrong_is_listed_with_the_nearest_name():
    with pytest.raises(ValueError) as error:
        FZOOAblation(Bowl(), lr=-1.0, eps=0.0, n=0, sides="tow", directions="gausian", on_nan="stp")  # type: ignore[arg-type]
    text = str(error.value)
    for part in (
        "optimizer.lr = -1.0",
        "optimizer.eps = 0.0",
        "optimizer.n = 0",
        "Did you mean two?",
        "directions = 'gausian'",
        "on_nan = 'stp'",
        "Did you mean stop?",
    ):
        assert part in text, text
    assert len(text.splitlines()) == 6


def test_a_number_that_would_hang_is_refused():
    with pytest.raises(ValueError, match=r"n = 4294967295 must be .* at most 65536"):
        MeZO(torch.nn.Linear(2, 2), n=4294967295)

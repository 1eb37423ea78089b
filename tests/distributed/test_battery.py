"""Every optimizer of conf/optimizer in 1, 2 and 3 processes: one pool of processes for all of them."""

import pytest
import torch

from tests.distributed import ranks
from tests.optimizers.test_battery import YAMLS, Bowl, batches, equal, make, objective
from zo import ConfigError, ModuleLook, Ranks, train
from zo.look.distributed_look import bounds

STEPS = 5
FIRST_ORDER = {name for name in YAMLS if make(name, Bowl(), lr=0.01).backward_passes}
NAMES = [name for name in YAMLS if name not in FIRST_ORDER]
SHARES = ("probes", "batch", "both")


def trained(name, team):
    """Weights, told losses and this rank's forward passes after STEPS steps; a refusal as its sentence."""
    model = Bowl()
    optimizer = make(name, model, lr=0.01)
    look = ModuleLook(model, objective, optimizer)
    told = []
    tell = optimizer.tell
    optimizer.tell = lambda t, losses, lr=None: told.append(list(losses)) or tell(t, losses, lr)
    try:
        train(optimizer, look, batches, STEPS, team=team)
    except ConfigError as error:
        return {"refused": str(error)}
    return {
        "weights": [parameter.detach().clone() for parameter in model.parameters()],
        "told": told,
        "forward_passes": look.forward_passes,
        "asked": len(optimizer.ask(0)),
    }


def all_optimizers(team):
    teams = {share: Ranks(team.place, share=share, check_every=2) for share in SHARES}
    return {(name, share): trained(name, teams[share]) for name in YAMLS for share in SHARES}


@pytest.fixture(scope="module", params=[2, 3])
def pool(request, tmp_path_factory):
    """(size, what every rank made)."""
    return request.param, ranks.run(request.param, tmp_path_factory.mktemp("ranks"), all_optimizers)


@pytest.fixture(scope="module")
def alone():
    return {name: trained(name, None) for name in YAMLS}


def of(pool, name, share):
    size, everyone = pool
    assert not any("error" in made for made in everyone), everyone
    return size, [rank[name, share] for rank in everyone]


@pytest.mark.parametrize("name", NAMES)
def test_probes_shared_give_the_bits_of_one_process(pool, alone, name):
    _, made = of(pool, name, "probes")
    for rank in made:
        assert rank["told"] == alone[name]["told"]
        assert equal(rank["weights"], alone[name]["weights"])
    assert sum(rank["forward_passes"] for rank in made) == alone[name]["forward_passes"]


@pytest.mark.parametrize("name", NAMES)
def test_each_rank_looks_at_its_share(pool, alone, name):
    size, made = of(pool, name, "probes")
    if alone[name]["forward_passes"] != STEPS * alone[name]["asked"]:
        pytest.skip("looks more than once a step")
    for number, rank in enumerate(made):
        start, stop = bounds(rank["asked"], size, number)
        assert rank["forward_passes"] == STEPS * (stop - start)


@pytest.mark.parametrize("share", ["batch", "both"])
@pytest.mark.parametrize("name", NAMES)
def test_a_shared_batch_differs_by_rounding(pool, alone, name, share):
    """The bowl holds no matrix product, so that only sums over parts of the batch could differ."""
    _, made = of(pool, name, share)
    for rank in made:
        assert equal(rank["weights"], made[0]["weights"])
        for one, other in zip(rank["weights"], alone[name]["weights"], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_first_order_methods_and_only_they_are_refused(pool):
    _, everyone = pool
    for rank in everyone:
        assert {name for name, _ in rank if "refused" in rank[name, "probes"]} == FIRST_ORDER
        assert all("one process" in rank[name, "probes"]["refused"] for name in FIRST_ORDER)

"""Every optimizer of conf/optimizer with every PEFT mode: what is trained moves, the rest stays, losses rebuild it."""

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from experiments.config.peft_config import MODES
from tests.optimizers.test_battery import YAMLS, checkpointed, kind_of, make
from zo import ModuleLook, Weights

from .test_modes import attached
from .tiny import conf, load_task


@pytest.fixture(scope="module", params=MODES)
def world(request, folder, reviews) -> Any:
    """A model with what the mode trains, its task's objective, and two batches."""
    loaded = attached(folder, request.param, "opt")
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    batches = [task.collate(task.train[2 * t : 2 * t + 2]) for t in range(2)]
    return (
        loaded.model,
        task.objective,
        batches,
        {n: p.detach().clone() for n, p in loaded.model.named_parameters()},
    )


@pytest.mark.parametrize("name", YAMLS)
def test_two_steps_move_what_is_trained_and_can_be_replayed(world, name):
    model, objective, batches, begin = world
    changes: dict[str, Any] = {"lr": 1e-3, **kind_of(name).small_problem}
    if "eps" in OmegaConf.load(YAMLS[name]) and not checkpointed(name):
        changes["eps"] = 5e-2  # behind LoRA's zeros

    def start():
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(begin[n])
        return make(name, Weights(model), **changes)

    optimizer = start()
    look, told = ModuleLook(model, objective, optimizer, probes_per_forward="all"), []
    for t, batch in enumerate(batches):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        told.append(optimizer.step(t, batch, look))
        seen = optimizer.tell(t, told[-1])
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        if checkpointed(name) and t == 0:
            trained = {n for n in trained if "lora_A" not in n}  # has no gradient while B is 0
        if not kind_of(name).moves_all:
            assert moved and moved <= trained
        elif not kind_of(name).looks_twice or seen["way"] != 0.0:  # it may stay where it is
            assert moved == trained, trained - moved
    if checkpointed(name):
        return
    end = optimizer.weights.sha256()
    again = start()
    for t, losses in enumerate(told):
        again.tell(t, losses)
    assert again.weights.sha256() == end

"""Which parameters are trained."""

import pytest
import torch

from experiments.peft import attach
from zo.errors import ConfigError

from .tiny import CAUSAL, conf, load, load_task


def loaded_from(folder, name, **changes):
    return load(conf("model", "hub", path=str(folder(name)), device="cpu", **changes), classes=2)


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("name", [*CAUSAL, "roberta", "bert", "encoder"])
def test_none_trains_everything_and_everything_matters(folder, reviews, name):
    loaded = attach(loaded_from(folder, name), conf("peft", "none"))
    assert len(trained(loaded.model)) == len(list(loaded.model.parameters()))
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    task.objective(loaded.model, task.collate(task.train[:4])).sum().backward()
    assert not [n for n, p in loaded.model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", [*CAUSAL, "roberta", "bert", "encoder"])
def test_lora_trains_its_matrices_and_a_new_head_alone(folder, reviews, name):
    loaded = loaded_from(folder, name)
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    batch = task.collate(task.train[:4])
    with torch.no_grad():
        before = task.objective(loaded.model, batch)
        tuned = attach(loaded, conf("peft", "lora"), seed=0)
        assert torch.equal(task.objective(tuned.model, batch), before)  # B starts at zero
    names = trained(tuned.model)
    assert names
    assert all("lora_" in n or (name == "encoder" and n.startswith("head.")) for n in names)
    assert not tuned.model.training
    task.objective(tuned.model, batch).sum().backward()
    assert not [n for n, p in tuned.model.named_parameters() if p.requires_grad and p.grad is None]


def test_adapters_have_the_base_models_dtype(folder):
    model = attach(loaded_from(folder, "opt", dtype="bfloat16"), conf("peft", "lora")).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_adapters_are_drawn_from_their_seed_and_leave_the_global_generator_alone(folder):
    before = torch.get_rng_state()

    def matrices(seed):
        model = attach(loaded_from(folder, "opt"), conf("peft", "lora"), seed=seed).model
        return {n: p for n, p in model.named_parameters() if "lora_A" in n}

    one, same, other = matrices(3), matrices(3), matrices(4)
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not any(torch.equal(one[n], other[n]) for n in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_targets_and_rank_are_the_chosen_ones(folder):
    model = attach(loaded_from(folder, "opt"), conf("peft", "lora", r=3, targets=["fc1"])).model
    names = trained(model)
    assert all(".fc1.lora_" in n for n in names)
    assert {p.shape[0] for n, p in model.named_parameters() if "lora_A" in n} == {3}


def test_a_classifiers_own_head_is_trained_too(folder):
    model = attach(
        loaded_from(folder, "roberta", family="classifier", head="own"), conf("peft", "lora")
    ).model
    assert [n for n in trained(model) if "classifier" in n]


def test_wrong_adapters_are_named(folder):
    with pytest.raises(ConfigError, match=r"peft\.targets=\['q'\].*fc1"):
        attach(loaded_from(folder, "opt"), conf("peft", "lora", targets=["q"]))
    with pytest.raises(ConfigError, match=r"peft\.r=0"):
        attach(loaded_from(folder, "opt"), conf("peft", "lora", r=0))
    with pytest.raises(ConfigError, match=r"peft\.rank"):
        attach(loaded_from(folder, "opt"), conf("peft", "lora", rank=4))
    with pytest.raises(ConfigError, match="allowed are none, lora, prefix"):
        attach(loaded_from(folder, "opt"), {"name": "adapter"})

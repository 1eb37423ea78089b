"""What is saved loads again, here and with the libraries it is meant for, and gives the same logits."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.peft import attach
from experiments.training.saving import save
from zo.errors import ConfigError, JournalError

from .saved_adapter import load_adapter
from .tiny import conf, load

IDS = torch.randint(5, 200, (2, 11), generator=torch.Generator().manual_seed(2))


def loaded_from(path, **changes):
    return load(conf("model", "hub", path=str(path), device="cpu", **changes), classes=2)


def moved(loaded):
    """The same model after something like training: every trained weight has another value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
    return loaded


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


@pytest.mark.parametrize("name", ["opt", "opt-post", "llama", "phi", "roberta", "bert", "encoder"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_model_comes_back_with_the_same_bits(folder, tmp_path, name, dtype):
    loaded = moved(attach(loaded_from(folder(name), dtype=dtype), conf("peft", "none")))
    save(loaded, tmp_path / "model")
    again = loaded_from(tmp_path / "model", dtype=dtype)
    assert again.family == loaded.family
    assert torch.equal(logits(again.model), logits(loaded.model))
    assert again.tokenizer("a film")["input_ids"] == loaded.tokenizer("a film")["input_ids"]
    assert not list(tmp_path.rglob("*.bin"))


@pytest.mark.parametrize("name", ["opt", "llama", "roberta", "encoder"])
def test_an_adapter_comes_back_with_the_same_bits(folder, tmp_path, name):
    loaded = moved(attach(loaded_from(folder(name)), conf("peft", "lora")))
    save(loaded, tmp_path / "model")
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    again = load_adapter(loaded_from(folder(name)), tmp_path / "model")
    assert torch.equal(logits(again.model), logits(loaded.model))


def test_transformers_and_peft_load_what_was_saved(folder, tmp_path):
    full = moved(loaded_from(folder("opt")))
    save(full, tmp_path / "full")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "full", attn_implementation="sdpa")
    assert torch.equal(logits(theirs), logits(full.model))
    assert AutoTokenizer.from_pretrained(tmp_path / "full").eos_token == "</s>"
    adapter = moved(attach(loaded_from(folder("opt")), conf("peft", "lora")))
    save(adapter, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder("opt"), attn_implementation="sdpa")
    assert torch.equal(logits(PeftModel.from_pretrained(base, tmp_path / "adapter")), logits(adapter.model))


def test_saving_again_replaces_and_a_failure_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    loaded = loaded_from(folder("opt"))
    save(loaded, tmp_path / "model")
    save(moved(loaded), tmp_path / "model")
    assert torch.equal(logits(loaded_from(tmp_path / "model").model), logits(loaded.model))

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(loaded.tokenizer), "save_pretrained", full_disk)
    with pytest.raises(JournalError, match=r"could not be saved in .*No space"):
        save(loaded, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_head_of_other_classes_is_refused(folder, tmp_path):
    save(loaded_from(folder("encoder")), tmp_path / "model")
    with pytest.raises(ConfigError, match="2 classes"):
        load(conf("model", "hub", path=str(tmp_path / "model"), device="cpu"), classes=3)
    save(loaded_from(folder("roberta"), family="classifier", head="own"), tmp_path / "own")
    assert loaded_from(tmp_path / "own").model.config.num_labels == 2
    with pytest.raises(ConfigError, match="head of 2 classes, the task has 3"):
        load(conf("model", "hub", path=str(tmp_path / "own"), device="cpu"), classes=3)

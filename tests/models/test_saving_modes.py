"""What every PEFT mode saves: peft or transformers load it, and so do we, with the same logits."""

import pytest
import torch
import transformers as hf
from peft import PeftModel
from safetensors.torch import load_file

from experiments.config.peft_config import MODES
from experiments.peft import attach
from experiments.training.saving import save

from .saved_adapter import load_adapter
from .test_modes import CASES
from .test_saving import moved
from .tiny import CLASSIFIERS, MASKED, conf, load, loaded_of

IDS = torch.randint(5, 200, (3, 11), generator=torch.Generator().manual_seed(2))
MASK = (torch.arange(11) < torch.tensor([[11], [7], [9]])).long()
ADAPTERS = ("lora", "prefix", "prompt", "ia3")
SOME = [case for case in CASES if case[1] in ("opt-post", "llama", "roberta", "encoder", "bert-own")]
assert {mode for mode, _ in SOME} == MODES.keys() - {"none"}


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).logits


def theirs(folder, saved, mode, family, dtype):
    """The model as someone loads it who has transformers and peft alone."""
    auto = hf.AutoModelForCausalLM
    if family in CLASSIFIERS:
        auto = hf.AutoModel if family == "encoder" else hf.AutoModelForSequenceClassification
    elif family in MASKED:
        auto = hf.AutoModelForMaskedLM
    base = folder(family.removesuffix("-own")) if mode in ADAPTERS else saved
    with torch.random.fork_rng():
        torch.manual_seed(99)  # of new weights: none may be left that decides anything
        own = {"num_labels": 2} if family.endswith("-own") else {}
        pooler = {"add_pooling_layer": False} if family == "encoder" else {}
        model = auto.from_pretrained(
            base, dtype=getattr(torch, dtype), attn_implementation="sdpa", **own, **pooler
        )
    if mode in ADAPTERS:  # peft would widen adapters of 16 bits, which were trained as such; factors are wide
        model = PeftModel.from_pretrained(model, saved, autocast_adapter_dtype=mode == "ia3")
    return model.eval()


def check(folder, tmp_path, mode, family, dtype):
    changes = {"blocks": "last:1"} if mode == "layers" else {}
    loaded = moved(attach(loaded_of(folder, family, dtype=dtype), conf("peft", mode, **changes)))
    saved = tmp_path / "model"
    save(loaded, saved)
    assert (saved / "adapter_model.safetensors").is_file() == (mode in ADAPTERS)
    if mode in ADAPTERS:
        again = load_adapter(loaded_of(folder, family, dtype=dtype), saved)
    else:
        own = {"family": "classifier", "head": "own"} if family.endswith("-own") else {}
        again = load(conf("model", "hub", path=str(saved), device="cpu", dtype=dtype, **own), classes=2)
    wanted = logits(loaded.model)
    assert torch.equal(logits(again.model), wanted)
    model = theirs(folder, saved, mode, family, dtype)
    if family != "encoder":
        assert torch.equal(logits(model), wanted)
        return
    head = load_file(str(saved / "head.safetensors"))
    with torch.no_grad():
        hidden = model(input_ids=IDS, attention_mask=MASK).last_hidden_state[:, -11:]  # a prompt's are before
    kept = MASK[..., None].to(hidden.dtype)
    mean = (hidden * kept).sum(1) / kept.sum(1)
    assert torch.equal(torch.nn.functional.linear(mean, head["weight"], head["bias"]), wanted)


@pytest.mark.parametrize("mode, family", SOME)
def test_it_comes_back_with_the_same_bits(folder, tmp_path, mode, family):
    check(folder, tmp_path, mode, family, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode, family", CASES)
def test_every_mode_of_every_family_comes_back(folder, tmp_path, mode, family, dtype):
    check(folder, tmp_path, mode, family, dtype)

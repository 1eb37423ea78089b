"""A tiny model of every architecture of conf/model: loaded as a run loads it, and moved by a step."""

import json
import math
import shutil

import pytest
import torch
import transformers as hf
from transformers.models.auto import modeling_auto as auto

from experiments.config.compose import CONF, compose
from experiments.models.shapes import SHAPES, config_of
from experiments.peft import attach
from zo import FZOO, ModuleLook

from .tiny import conf, load, load_task, make, tokenizer

FAMILIES = ("opt", "opt-post", "llama", "phi", "roberta", "mistral", "qwen3", "gemma3")
FILES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
HUB = [name for name in FILES if conf("model", name)["path"] in SHAPES]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_alone_and_stacked_are_the_same_bits(folder, reviews, name):
    def moved(probes_per_forward):
        loaded = load(conf("model", "hub", path=str(folder(name)), device="cpu"))
        loaded = attach(loaded, conf("peft", "none"))
        task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
        optimizer = FZOO(loaded.model, lr=1e-2, n=4)
        look = ModuleLook(loaded.model, task.objective, optimizer, probes_per_forward=probes_per_forward)
        before = optimizer.weights.sha256()
        for t in range(2):  # the second is stacked: the first call of a shape goes alone
            losses = optimizer.step(t, task.collate(task.train[:4]), look)
            optimizer.tell(t, losses)
        assert all(map(math.isfinite, losses)) and len(set(losses)) == 5
        assert look.sequential_because is None
        assert optimizer.weights.sha256() != before
        return losses, optimizer.weights.sha256()

    assert moved(1) == moved("all")


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_conf_is_valid_and_its_classes_are_there(name):
    config = compose([f"model={name}", *(["model.path=x"] if name == "hub" else [])]).config
    assert config is not None
    choice = config.model
    if name in HUB:
        kinds = {
            "causal": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            "masked": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        }
        kind = kinds[choice.family or ""][config_of(choice).model_type]
        assert issubclass(getattr(hf, kind), hf.PreTrainedModel)
        assert choice.resources.gpus >= 1 and (choice.resources.gpus == 1) == (choice.device_map is None)


def test_every_hub_model_of_conf_has_a_shape_and_each_shape_a_file():
    said = {conf("model", name)["path"] for name in FILES}
    assert {path for path in said if path and ":" not in path} == set(SHAPES)


def test_the_text_part_of_a_model_that_sees_images(tmp_path):
    """Gemma 3 from 4b on: the language model alone is loaded, gives the whole's logits, and is saved as such."""
    text = make("gemma3").config
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    whole = hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    ).eval()
    whole.save_pretrained(tmp_path / "whole")
    tokenizer(False).save_pretrained(tmp_path / "whole")
    loaded = load(conf("model", "hub", path=str(tmp_path / "whole"), device="cpu"))
    assert loaded.family == "causal" and isinstance(loaded.model, hf.Gemma3ForCausalLM)
    ids = torch.tensor([[0, 40, 41, 42]])
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, whole(input_ids=ids).logits)
        loaded.model.save_pretrained(tmp_path / "text")
        shutil.copy(tmp_path / "whole" / "tokenizer.json", tmp_path / "text")
        again = load(conf("model", "hub", path=str(tmp_path / "text"), device="cpu", family="causal"))
        assert torch.equal(again.model(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_rows_begin_with_the_start_token_once_and_llamas_missing_pad_token_is_filled(
    folder, reviews, tmp_path
):
    copy = shutil.copytree(folder("llama"), tmp_path / "llama")
    path = copy / "tokenizer_config.json"
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}
    path.write_text(json.dumps(kept))
    loaded = load(conf("model", "hub", path=str(copy), device="cpu"))
    assert loaded.pad == loaded.tokenizer.eos_token_id
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    start = loaded.tokenizer.bos_token_id
    assert all(row.ids[0] == start and start not in row.ids[1:] for e in task.train for row in e.rows)
    short, long = sorted(task.train, key=lambda e: len(e.rows[0].ids))[:: len(task.train) - 1]
    with torch.no_grad():  # what fills a row changes nothing but the order of fp32 sums
        together = task.objective(loaded.model, task.collate([short, long]))
        alone = task.objective(loaded.model, task.collate([short]))
    assert together[0].item() == pytest.approx(alone[0].item(), abs=2e-5)


@pytest.mark.parametrize("head", ["own", "mean"])
def test_an_encoder_is_a_classifier_with_either_head(folder, reviews, head):
    choice = conf(
        "model", "roberta-large", path=str(folder("roberta")), family="classifier", head=head, device="cpu"
    )
    loaded = attach(load({**choice, "revision": None}, classes=2), conf("peft", "none"))
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    optimizer = FZOO(loaded.model, lr=1e-2, n=4)
    look = ModuleLook(loaded.model, task.objective, optimizer)
    losses = optimizer.step(0, task.collate(task.train[:4]), look)
    assert len(losses) == 5 and all(map(math.isfinite, losses))

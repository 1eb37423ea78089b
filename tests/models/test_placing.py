"""Devices and bits: maps over devices, what would be offloaded, quantised weights."""

from typing import Any

import pytest
import torch
import transformers as hf

from experiments.config.model_config import ModelConfig
from experiments.models import placing
from experiments.peft import attach
from zo import MeZO, ModuleLook
from zo.errors import ConfigError

from .tiny import VOCABULARY, conf, load, load_task, make, tokenizer

PARTS = (
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.1",
    "model.norm",
    "model.rotary_emb",
    "lm_head",
)


def hub(path, **changes):
    return conf("model", "hub", path=str(path), **changes)


def ids_of(batch):
    return torch.randint(0, 200, (batch, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential", dict.fromkeys(PARTS, "cpu")])
def test_a_map_over_the_cpu_is_the_plain_model(folder, device_map):
    ids = ids_of(3)
    with torch.no_grad():
        plain = load(hub(folder("llama"), device="cpu")).model(input_ids=ids).logits
        assert torch.equal(
            load(hub(folder("llama"), device_map=device_map)).model(input_ids=ids).logits, plain
        )


@pytest.mark.parametrize("name", ["llama", "opt-post", "gemma3"])
def test_hooks_between_devices_change_neither_numbers_nor_what_the_executor_knows(folder, name):
    plain, hooked = (load(hub(folder(name), device="cpu")).model for _ in range(2))
    placing.bring(
        hooked, [n for n, m in hooked.named_modules() if n and any(True for _ in m.parameters(False))]
    )
    ids = ids_of(3)

    def objective(model, batch):
        return model(input_ids=batch).logits.float().mean((1, 2))

    optimizers = [MeZO(model, lr=1e-2) for model in (plain, hooked)]
    looks = [
        ModuleLook(o_model, objective, o) for o_model, o in zip((plain, hooked), optimizers, strict=True)
    ]
    losses = [o.step(0, ids, look) for o, look in zip(optimizers, looks, strict=True)]
    assert losses[0] == losses[1]
    assert [s.kind for s in looks[0].executor.sites] == [s.kind for s in looks[1].executor.sites]
    generated = [m.generate(ids, max_new_tokens=5, do_sample=False) for m in (plain, hooked)]
    assert torch.equal(*generated)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU beside the CPU")
def test_two_devices_give_the_logits_of_one():
    whole, parted = make("llama").eval(), make("llama").eval()
    names = [name for name, _ in parted.named_modules() if name in PARTS]
    for name in names[len(names) // 2 :]:
        parted.get_submodule(name).to("cuda")
    placing.bring(parted, names)
    ids = ids_of(3)
    with torch.no_grad():
        logits = parted(input_ids=ids).logits
    assert logits.device.type == "cpu"
    torch.testing.assert_close(logits, whole(input_ids=ids).logits, rtol=0, atol=1e-4)  # other kernels


def test_what_would_be_offloaded_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = {part: "disk" if part == "model.layers.1" else "cpu" for part in PARTS}
    with pytest.raises(
        ConfigError, match=r"model\.layers\.1\.self_attn\.\w+\.weight and \d+ more would be offloaded"
    ):
        load(hub(folder("llama"), device_map=there))


def test_a_device_and_a_map_exclude_each_other_as_do_flash_attention_and_32_bits():
    with pytest.raises(ConfigError, match=r"model\.device=cpu: model\.device_map=auto chooses"):
        ModelConfig("x", device="cpu", device_map="auto")
    with pytest.raises(ConfigError, match=r"flash_attention_2: its kernels compute in 16 bits"):
        ModelConfig("x", attention="flash_attention_2")


def test_flash_attention_without_its_package_is_a_sentence(folder):
    with pytest.raises(ConfigError, match=r"cannot be loaded through AutoModelForCausalLM.*[Ff]lash"):
        load(hub(folder("llama"), attention="flash_attention_2", dtype="bfloat16", device="cpu"))


@pytest.mark.parametrize("mode", ["none", "bitfit", "layers", "head"])
def test_quantised_weights_are_not_trained(mode):
    with pytest.raises(ConfigError, match=rf"model\.quantization=nf4: .* peft={mode} trains.*peft=lora"):
        placing.check_quantized("nf4", mode)
    placing.check_quantized(None, mode)
    placing.check_quantized("nf4", "lora")


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        placing.arguments(ModelConfig("x", quantization="int8"), torch.device("cpu"))


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.1), ("nf4", 0.5), ("fp4", 0.7)])
def test_quantised_models_train_adapters(tmp_path, reviews, kind, most):
    """With bitsandbytes' CPU kernels. most: of the logits' deviation that quantising may change them by."""
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    llama = hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=128, **shape))
    llama.save_pretrained(tmp_path)  # rows of 64, the block that 4 bits share a scale in
    tokenizer(False).save_pretrained(tmp_path)
    plain = load(hub(tmp_path, device="cpu"))
    loaded = attach(load(hub(tmp_path, device="cpu", quantization=kind)), conf("peft", "lora"))
    ids = ids_of(3)
    with torch.no_grad():
        wanted, got = (m.model(input_ids=ids).logits for m in (plain, loaded))
    assert 0 < (got - wanted).std() < most * wanted.std()
    task = load_task(conf("task", "sst2", data_dir=str(reviews)), loaded)
    optimizer = MeZO(loaded.model, lr=1e-2)
    look = ModuleLook(loaded.model, task.objective, optimizer, probes_per_forward=1)
    before = optimizer.weights.sha256()
    optimizer.tell(0, optimizer.step(0, task.collate(task.train[:4]), look))
    assert optimizer.weights.sha256() != before
    assert all("lora_" in name for name in optimizer.weights.tensors)

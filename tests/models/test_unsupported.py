"""Checkpoints that cannot be trained as they are: a sentence that says what works."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from experiments.__main__ import main as after
from experiments.commands.launch import main
from experiments.config.model_config import ModelConfig
from experiments.models.attention import note_of
from experiments.models.padding import rows_of_one_length
from experiments.models.placing import check_checkpoint
from experiments.models.shapes import skeleton
from experiments.tasks.batches import padded
from experiments.tasks.generation import Greedy
from zo.errors import ConfigError

from .tiny import VOCABULARY, load, tokenizer


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_other_quantised_checkpoints_are_refused(method):
    with pytest.raises(ConfigError, match=f"{method}.*Take the unquantised checkpoint"):
        check_checkpoint({"quantization_config": {"quant_method": method}}, "m", "lora")


def test_a_checkpoint_of_bitsandbytes_takes_adapters():
    with pytest.raises(ConfigError, match="peft=lora, peft=ia3, peft=prefix, peft=prompt"):
        check_checkpoint({"quantization_config": {"quant_method": "bitsandbytes"}}, "m", "none")
    check_checkpoint({}, "m", "none")


SPECIAL: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2}
WIDE: dict[str, Any] = {**SPECIAL, **SMALL, "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.2,
        "max_position_embeddings": 130}  # fmt: skip
STATE: dict[str, Any] = {**SPECIAL, **SMALL, "state_size": 8, "initializer_range": 0.2}
BART: dict[str, Any] = {"decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 4,
        "encoder_attention_heads": 4, "decoder_ffn_dim": 64, "encoder_ffn_dim": 64}  # fmt: skip
MODELS = {
    "bloom": lambda: hf.BloomForCausalLM(
        hf.BloomConfig(**SPECIAL, hidden_size=32, n_head=4, n_layer=2, initializer_range=0.2)
    ),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**WIDE, num_key_value_heads=2, head_dim=8)),
    "gptj": lambda: hf.GPTJForCausalLM(
        hf.GPTJConfig(**SPECIAL, n_embd=32, n_layer=2, n_head=4, rotary_dim=8, n_positions=128)
    ),
    "mpnet": lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**WIDE)),
    "rwkv": lambda: hf.RwkvForCausalLM(
        hf.RwkvConfig(**SPECIAL, **SMALL, attention_hidden_size=32, intermediate_size=64, context_length=128)
    ),
    "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(**STATE)),
    "recurrent gemma": lambda: hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(**{**WIDE, "num_hidden_layers": 3}, lru_width=32, num_key_value_heads=1)
    ),
    "xlstm": lambda: hf.xLSTMForCausalLM(
        hf.xLSTMConfig(
            **SPECIAL, hidden_size=64, embedding_dim=64, num_hidden_layers=2, num_blocks=2, num_heads=4,
            qk_dim_factor=1.0,
        )
    ),
    "bart": lambda: hf.BartForCausalLM(
        hf.BartConfig(**SPECIAL, **BART, d_model=32, init_std=0.2, max_position_embeddings=128)
    ),
    "fnet": lambda: hf.FNetForMaskedLM(hf.FNetConfig(**WIDE)),
    "convbert": lambda: hf.ConvBertForMaskedLM(hf.ConvBertConfig(**WIDE)),
}  # fmt: skip


def saved(folder: Path, name: str) -> dict[str, Any]:
    """A random model of the name in the folder, with a tokenizer; returns how it is loaded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MODELS[name]()
    model.save_pretrained(folder)
    tokenizer("Masked" in type(model).__name__).save_pretrained(folder)
    return {"path": str(folder), "device": "cpu"}


@pytest.mark.parametrize("name", ["bloom", "gemma2", "gptj", "mpnet"])
def test_an_architecture_without_sdpa_takes_eager_and_says_so(tmp_path, name):
    choice = saved(tmp_path, name)
    loaded, chosen = load(choice), load({**choice, "attention": "eager"})
    assert loaded.attention == chosen.attention == "eager"
    assert "has no sdpa" in (note_of(loaded.model, "sdpa") or "")
    assert note_of(chosen.model, "eager") is None
    ids = torch.arange(5, 14)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(input_ids=ids).logits, chosen.model(input_ids=ids).logits)
    assert "eager" in str(skeleton(ModelConfig(**choice), None).attention)


@pytest.mark.slow
def test_a_run_says_which_attention_it_took_and_records_it(tmp_path, capsys):
    choice = saved(tmp_path / "m", "bloom")
    words = ["model=hub", f"model.path={choice['path']}", "task=sentiment", "model.device=cpu", "task.train=8",
             "task.dev=4", "task.test=4", "budget.steps=1", "save=false",
             f"paths.runs={tmp_path / 'runs'}"]  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().out.count("has no sdpa in transformers, so its attention is eager") == 1
    for name in ("result.json", "provenance.json"):
        (path,) = (tmp_path / "runs").rglob(name)
        assert json.loads(path.read_text(encoding="utf-8"))["attention"] == "eager"


@pytest.mark.parametrize("name", ["fnet", "convbert"])
def test_a_model_that_reads_what_fills_rows_is_refused(tmp_path, name):
    """Fourier transforms and convolutions over positions mix the padding into the text."""
    with pytest.raises(ConfigError, match="does not heed the attention mask"):
        load(saved(tmp_path, name))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("rwkv", True), ("bart", True), ("xlstm", True), ("mamba", False), ("recurrent gemma", False),
     ("bloom", False)],
)  # fmt: skip
def test_answers_of_recurrent_models_are_those_of_rows_alone(tmp_path, name, wanted):
    """Filled on the right, where rows are scored, all of these are right; on the left some read what fills."""
    loaded = load(saved(tmp_path, name))
    assert rows_of_one_length(loaded.model, loaded.tokenizer, loaded.pad) == wanted
    texts = ["a film", "the Question and the Answer , nobody 12 34", "great"]
    rows = [tuple(loaded.tokenizer(text)["input_ids"]) for text in texts]
    say = Greedy(loaded.tokenizer, loaded.pad, 6)
    alone = [say(loaded.model, *padded([row], loaded.pad, len(row)))[0] for row in rows]
    assert say(loaded.model, *padded(rows, loaded.pad, 64, left=True)) == alone


def test_narrow_layers_of_four_bits_are_one_sentence_of_ours(tmp_path, capfd):
    bits = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    if not bits.nn.Linear4bit(4, 4).support_avx512bf16_for_cpu:
        pytest.skip("this processor does not pack 4 bits")
    narrow = {**WIDE, "intermediate_size": 48, "num_key_value_heads": 4}
    hf.LlamaForCausalLM(hf.LlamaConfig(**narrow)).save_pretrained(tmp_path)
    tokenizer(False).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"q_proj \(32 to 32\) and \d+ more.*quantization=int8 or null"):
        load({"path": str(tmp_path), "device": "cpu", "quantization": "nf4"})
    load({"path": str(tmp_path), "device": "cpu", "quantization": "int8"})
    said = capfd.readouterr()
    assert "gemm_4bit" not in said.out + said.err and "MatMul8bit" not in said.out + said.err


def test_libraries_print_no_line_of_their_own(tmp_path):
    """peft brings bitsandbytes along, which complains of a kernel that nobody asked for; in a process of its own."""
    pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
    choice = saved(tmp_path, "bloom")
    script = (
        "from experiments.models.loading import load; from experiments.peft import attach; "
        f"attach(load({choice!r}), {{'name': 'lora', 'targets': ['query_key_value']}}); import bitsandbytes"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("command", ["dry run", "sweep", "run", "estimate"])
def test_what_a_checkpoint_is_refused_for_is_told_at_once_wherever_it_is_asked_about(
    tmp_path, capsys, command
):
    """Quantised already, quantised again, another family than the model has, no package: four problems, one list."""
    choice = saved(tmp_path / "m", "bloom")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    path.write_text(json.dumps(config), encoding="utf-8")
    words = ["model=hub", f"model.path={choice['path']}", "model.family=masked", "model.quantization=nf4",
             "model.device=cpu", "model.dtype=bfloat16", "model.attention=flash_attention_2", "task=sentiment",
             f"paths.runs={tmp_path / 'runs'}"]  # fmt: skip
    if command == "estimate":
        assert after(["estimate", *words]) == 2
    else:
        more = {"dry run": ["--dry-run"], "sweep": ["-m", "seed=0,1"], "run": []}[command]
        assert main([*words, *more]) == 2
    said = capsys.readouterr().err
    for part in (
        "quantised already (gptq)",
        "peft=none trains weights",
        "the package flash-attn",
        "has no masked model for",
    ):
        assert said.count(part) == (2 if command == "sweep" else 1), (
            said
        )  # a sweep says it of each of its two runs
    assert not (tmp_path / "runs").exists()

"""GGUF files: unpacked weights beside closed forms of the blocks; converted once; refused where not whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from experiments.config.model_config import ModelConfig
from experiments.models.source import check_here, fingerprint, locate, model_name, prefetch
from zo.errors import ConfigError

from .tiny import conf, load

gguf = pytest.importorskip("gguf", reason="pip install 'zo-finetune[gguf]'")

ROOT = Path(__file__).parents[2]
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"]
HEADS, PAIRS = 4, 2  # attention heads, and heads of keys and values
PIECES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ g", "r e", "Ġg re", "a t", "Ġgre at", "t e"]


def vocabulary() -> list[str]:
    """Special tokens, every byte, and what the merges give."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*PIECES, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


def source_model(tied: bool = True) -> hf.LlamaForCausalLM:
    """A random Llama whose rows are whole blocks of 32."""
    config = hf.LlamaConfig(
        vocab_size=len(vocabulary()), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=PAIRS, max_position_embeddings=128, rms_norm_eps=1e-5,
        initializer_range=0.2, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.LlamaForCausalLM(config).eval()


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def tensors(model: hf.LlamaForCausalLM) -> dict[str, np.ndarray]:
    """The weights under llama.cpp's names, the rows of queries and keys in its order of rotary pairs."""
    named = {}
    for name, value in model.named_parameters():
        inner = name.removesuffix(".weight")
        block = ""
        if inner.startswith("model.layers."):
            _, _, number, inner = inner.split(".", 3)
            block = f"blk.{number}."
        array = value.detach().numpy()
        if inner.endswith(("q_proj", "k_proj")):
            heads = HEADS if inner.endswith("q_proj") else PAIRS
            halves = array.reshape(heads, 2, array.shape[0] // heads // 2, array.shape[1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        named[f"{block}{NAMES[inner]}.weight"] = array
    return named


def write(path: Path, kind: str = "F32", tied: bool = True, **more) -> dict[str, np.ndarray]:
    """Writes a GGUF file; returns, by llama.cpp's names, the bytes or numbers that stand in it.

    more: architecture; metadata (key -> text); extra (tensor name -> array); without (a tensor's name).
    """
    writer = gguf.GGUFWriter(path, more.get("architecture", "llama"))
    model = source_model(tied)
    config: Any = model.config
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(PAIRS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * len(PIECES) + [1] * (config.vocab_size - len(PIECES)))  # control, normal
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}")
    for key, value in more.get("metadata", {}).items():
        writer.add_string(key, value)
    written = {}
    quantised = gguf.GGMLQuantizationType[kind]
    for name, array in {**tensors(model), **more.get("extra", {})}.items():
        if name == more.get("without"):
            continue
        if array.ndim == 1 or kind == "F32":
            written[name] = array
            writer.add_tensor(name, array)
        else:
            written[name] = gguf.quantize(array, quantised)
            writer.add_tensor(name, written[name], raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def unpacked(raw: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Blocks as numbers, from the definition of the format alone: 32 numbers a block, d and m half precision."""
    if kind in ("F32", "F16"):
        return raw.astype(np.float32)
    if kind == "BF16":
        return (raw.reshape(-1).view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    blocks = raw.reshape(-1, {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q5_0": 22}[kind])
    half = lambda at: np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)  # noqa: E731
    nibbles = lambda at: np.concatenate([blocks[:, at:] & 15, blocks[:, at:] >> 4], axis=1)  # noqa: E731
    if kind == "Q8_0":  # d q
        values = half(0) * blocks[:, 2:].view(np.int8)
    elif kind == "Q4_0":  # d (q - 8)
        values = half(0) * (nibbles(2).astype(np.float32) - 8)
    elif kind == "Q4_1":  # d q + m
        values = half(0) * nibbles(4) + half(2)
    else:  # Q5_0: d (q - 16), the fifth bits in 32 bits of their own
        fifth = (np.ascontiguousarray(blocks[:, 2:6]).view(np.uint32) >> np.arange(32, dtype=np.uint32)) & 1
        values = half(0) * ((nibbles(6) | (fifth << 4)).astype(np.float32) - 16)
    return values.astype(np.float32).reshape(shape)


@pytest.fixture
def file(tmp_path) -> Path:
    write(tmp_path / "tiny.gguf", "Q4_1")
    return tmp_path / "tiny.gguf"


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=torch.arange(40).reshape(2, 20)).logits


def loaded_of(path: Path, models: Path):
    return load(conf("model", "hub", path=str(path), device="cpu"), models=models)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", TYPES)
def test_weights_are_the_closed_form_of_the_blocks(tmp_path, kind, tied):
    written = write(tmp_path / "tiny.gguf", kind, tied)
    loaded = loaded_of(tmp_path / "tiny.gguf", tmp_path / "models")
    shapes = {name: array.shape for name, array in tensors(source_model(tied)).items()}
    wanted = {
        name: unpacked(raw, kind if raw.ndim > 1 else "F32", shapes[name]) for name, raw in written.items()
    }
    found = tensors(loaded.model)
    assert found.keys() == wanted.keys() == shapes.keys() and ("output.weight" in found) is not tied
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    if kind == "F32":  # and so a forward pass is that of the model it was made from, bit for bit
        assert torch.equal(logits(loaded.model), logits(source_model(tied)))
    else:  # 8 bits and bfloat16 keep a weight to about 1/256, 4 bits to 1/15 of its block's range; seven matrices deep
        error = (logits(loaded.model) - logits(source_model(tied))).norm() / logits(source_model(tied)).norm()
        assert error < (0.05 if kind in ("F16", "BF16", "Q8_0") else 0.5)


def test_the_folder_has_all_that_a_model_needs(file, tmp_path):
    folder = locate(ModelConfig(str(file)), tmp_path / "models")
    assert folder.parent == tmp_path / "models" and folder.name.startswith("tiny-")
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "float32"
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert "quantization_config" not in config and "transformers_version" not in config
    loaded = loaded_of(file, tmp_path / "models")
    assert loaded.pad == 2 and loaded.context == 128 and loaded.family == "causal" and loaded.name == "tiny"
    ids = loaded.tokenizer("It was great").input_ids
    assert loaded.tokenizer.convert_ids_to_tokens(ids)[-1] == "Ġgreat"
    assert loaded.tokenizer.decode(ids) == "It was great"
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    assert model_name(ModelConfig(str(file))) == "tiny"


def test_a_file_is_converted_once_and_anew_when_it_changes(file, tmp_path):
    models = tmp_path / "models"
    choice = ModelConfig(str(file))
    folder, done = prefetch(choice, models)
    assert done == "converted" and prefetch(choice, models) == (folder, "is on this machine")
    alone = tmp_path / "folder"
    alone.mkdir()
    moved = file.rename(alone / "other.gguf")  # a folder with one file means the file
    again = locate(ModelConfig(str(alone)), models)
    assert (
        fingerprint(again) == fingerprint(folder) and again.name.split("-")[-1] == folder.name.split("-")[-1]
    )
    write(moved, "Q8_0")
    changed = locate(ModelConfig(str(alone)), models)
    assert changed != again and fingerprint(changed) != fingerprint(again)


def test_two_processes_convert_together_to_one_folder(file, tmp_path):
    program = (
        "import sys; from pathlib import Path; from experiments.config.model_config import ModelConfig\n"
        "from experiments.models.source import locate; locate(ModelConfig(sys.argv[1]), Path(sys.argv[2]))"
    )
    (tmp_path / "models").mkdir()
    command = [sys.executable, "-c", program, str(file), str(tmp_path / "models")]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0)] * 2
    visible = [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")]
    assert len(visible) == 1 and "unfinished" not in visible[0]


def test_what_a_killed_conversion_left_is_replaced(file, tmp_path):
    folder = locate(ModelConfig(str(file)), tmp_path / "models")
    left = folder.rename(folder.with_name(f"{folder.name}.unfinished"))
    (left / "model.safetensors").write_bytes(b"half")
    assert loaded_of(file, tmp_path / "models").folder == folder and not left.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"architecture": "rwkv7"}, "rwkv7 is not supported.*Take the model as safetensors"),
        ({"without": "blk.1.ffn_up.weight"}, r"lacks 1 weights of .*, such as model\.layers\.1\.mlp\.up_proj"),
        ({"extra": {"rope_freqs.weight": np.ones(8, np.float32)}}, r"rope_freqs\.weight, factors of its positions"),
        ({"extra": {"blk.0.new.weight": np.ones(32, np.float32)}}, "The rest would be lost"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "stretches its positions .*yarn"),
    ],
    ids=["architecture", "missing", "rope", "unknown", "scaling"],
)  # fmt: skip
def test_what_transformers_cannot_read_in_full_is_refused(tmp_path, more, words):
    write(tmp_path / "tiny.gguf", **more)
    with pytest.raises(ConfigError, match=words):
        locate(ModelConfig(str(tmp_path / "tiny.gguf")), tmp_path / "models")
    assert not [path for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")]


def test_files_that_are_no_whole_gguf_are_refused_before_a_run(file, tmp_path):
    models = tmp_path / "models"
    with pytest.raises(ConfigError, match="there is no such GGUF file"):
        check_here(ModelConfig(str(tmp_path / "none.gguf")), models)
    part = tmp_path / "big-00001-of-00003.gguf"
    shutil.copy(file, part)
    with pytest.raises(ConfigError, match="is one of 3 parts"):
        check_here(ModelConfig(str(part)), models)
    with pytest.raises(ConfigError, match=r"has several GGUF files \(big-00001-of-00003\.gguf, tiny\.gguf\)"):
        check_here(ModelConfig(str(tmp_path)), models)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGML" + bytes(100))
    with pytest.raises(ConfigError, match="does not begin as a GGUF file does"):
        check_here(ModelConfig(str(other)), models)
    other.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(ConfigError, match="cannot be read by transformers"):
        locate(ModelConfig(str(other)), models)


def test_without_the_package_the_way_to_install_it_is_said(file, tmp_path, monkeypatch):
    choice = ModelConfig(str(file))
    monkeypatch.setitem(sys.modules, "gguf", None)  # what Python makes of a module that is not there
    with pytest.raises(ConfigError, match=r"the Python package gguf is needed.*pip install .*\[gguf\]"):
        check_here(choice, tmp_path / "models")
    monkeypatch.undo()
    folder = locate(choice, tmp_path / "models")
    monkeypatch.setitem(sys.modules, "gguf", None)
    check_here(choice, tmp_path / "models")  # what is converted needs it no more
    assert locate(choice, tmp_path / "models") == folder


def test_a_run_trains_a_gguf_file_and_is_shown_again(file, reviews, tmp_path):
    command = [
        sys.executable, str(ROOT / "launch.py"), "model=hub", f"model.path={file}", "model.device=cpu", "task=sst2",
        f"task.data_dir={reviews}", "task.train=8", "task.dev=4", "task.test=4", "optimizer=fzoo", "optimizer.n=2",
        "budget.steps=2", f"paths.runs={tmp_path / 'runs'}", f"paths.models={tmp_path / 'models'}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stderr
    results = list((tmp_path / "runs").rglob("result.json"))
    assert len(results) == 1 and "tiny-sst2-fzoo-none" in str(results[0])
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and list((tmp_path / "runs").rglob("result.json")) == results
    trained = load(conf("model", "hub", path=str(results[0].with_name("model")), device="cpu"))
    assert not torch.equal(logits(trained.model), logits(loaded_of(file, tmp_path / "models").model))

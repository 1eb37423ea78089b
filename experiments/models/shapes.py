"""Lists the shapes of published models, for estimates where neither the models nor the hub are available.

The numbers are those of the config.json files on the hub; tests hold the parameter counts that follow from them
against the published ones. A model that is on this machine is read from its own config.json instead.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from experiments.config.model_config import Family, ModelConfig
from experiments.models import loading, source
from experiments.models.attention import or_eager
from experiments.models.hushed import quiet
from experiments.models.inputs import untied
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.models.row_tokens import positions_of
from experiments.rundir.code_places import typed_command
from zo.errors import ConfigError


def _opt(d: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": d, "word_embed_proj_dim": d, "ffn_dim": 4 * d, "num_hidden_layers": layers}
    return {"model_type": "opt", "vocab_size": 50272, "num_attention_heads": heads, **shape, **more}


def _llama(d: int, inner: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    shape = {
        "hidden_size": d,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, **shape,
            "max_position_embeddings": 131072, **more}  # fmt: skip


def _qwen3(d: int, inner: int, layers: int, heads: int, tied: bool) -> dict[str, Any]:
    return _llama(d, inner, layers, heads, model_type="qwen3", vocab_size=151936, head_dim=128,
                  tie_word_embeddings=tied, max_position_embeddings=40960)  # fmt: skip


def _gemma3(d: int, inner: int, layers: int, heads: int, kv: int, **more: Any) -> dict[str, Any]:
    shape = {"model_type": "gemma3_text", "vocab_size": 262208, "num_key_value_heads": kv, "head_dim": 256}
    return _llama(d, inner, layers, heads, **{"tie_word_embeddings": True, **shape, **more})


SHAPES: dict[str, dict[str, Any]] = {
    "facebook/opt-125m": _opt(768, 12, 12),
    "facebook/opt-350m": _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "facebook/opt-1.3b": _opt(2048, 24, 32),
    "facebook/opt-2.7b": _opt(2560, 32, 32),
    "facebook/opt-6.7b": _opt(4096, 32, 32),
    "facebook/opt-13b": _opt(5120, 40, 40),
    "facebook/opt-30b": _opt(7168, 48, 56),
    "facebook/opt-66b": _opt(9216, 64, 72),
    "FacebookAI/roberta-large": {
        "model_type": "roberta",
        "vocab_size": 50265,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "microsoft/phi-2": {
        "model_type": "phi",
        "vocab_size": 51200,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "partial_rotary_factor": 0.4,
    },
    "meta-llama/Meta-Llama-3-8B": _llama(4096, 14336, 32, 32, max_position_embeddings=8192),
    "meta-llama/Llama-3.2-1B": _llama(2048, 8192, 16, 32, head_dim=64, tie_word_embeddings=True),
    "meta-llama/Llama-3.2-3B": _llama(3072, 8192, 28, 24, head_dim=128, tie_word_embeddings=True),
    "mistralai/Mistral-7B-v0.1": _llama(
        4096, 14336, 32, 32, model_type="mistral", vocab_size=32000, max_position_embeddings=32768
    ),
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, True),
    "Qwen/Qwen3-4B": _qwen3(2560, 9728, 36, 32, True),
    "Qwen/Qwen3-8B": _qwen3(4096, 12288, 36, 32, False),
    "Qwen/Qwen3-14B": _qwen3(5120, 17408, 40, 40, False),
    "Qwen/Qwen3-32B": _qwen3(5120, 25600, 64, 64, False),
    "google/gemma-3-270m": _gemma3(640, 2048, 18, 4, 1, vocab_size=262144, max_position_embeddings=32768),
    "google/gemma-3-1b-pt": _gemma3(1152, 6912, 26, 4, 1, vocab_size=262144, max_position_embeddings=32768),
    "google/gemma-3-4b-pt": _gemma3(2560, 10240, 34, 8, 4),
    "google/gemma-3-12b-pt": _gemma3(3840, 15360, 48, 16, 8),
    "google/gemma-3-27b-pt": _gemma3(5376, 21504, 62, 32, 16, head_dim=128),
}


def config_of(choice: ModelConfig, models: Path = source.MODELS) -> PreTrainedConfig:
    """Returns a model's configuration from its folder, else the hub's cache, else the table above.

    Raises ConfigError for a hub model that is in none of these.
    """
    folder = source.here(choice, models)
    if folder is not None:
        source.read_config(folder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return config.get_text_config() if choice.family in ("causal", None) else config
    if choice.path not in SHAPES:
        raise ConfigError(
            f"model.path={choice.path}: its shape is not known here. Fetch it ({typed_command('prefetch')}), or "
            f"give one of {', '.join(SHAPES)}."
        )
    shape = SHAPES[choice.path]
    kind = "RobertaForMaskedLM" if shape["model_type"] == "roberta" else "ForCausalLM"
    return AutoConfig.for_model(**shape, architectures=[kind])


def skeleton(choice: ModelConfig, classes: int | None, models: Path = source.MODELS) -> Loaded:
    """Builds the model on the meta device, shapes without data, as `load` would but for tokenizer and files.

    Raises ConfigError as `config_of`, and for a classifier without a number of classes.
    """
    config = copy.deepcopy(config_of(choice, models))  # from_config writes into it
    family = choice.family or source.infer_family(config.to_dict(), Path(choice.path or ""))
    options = {"dtype": getattr(torch, choice.dtype)}
    with quiet(), torch.device("meta"):
        model = or_eager(
            lambda attention: _built(
                choice, family, copy.deepcopy(config), classes, {**options, "attn_implementation": attention}
            ),
            "eager" if choice.attention == "eager" else "sdpa",
        )
    if choice.untie:
        untied(model, choice)
    return Loaded(
        model=model.eval(),
        tokenizer=None,  # pyright: ignore[reportArgumentType]  # nothing is tokenised
        family=family,
        name=source.model_name(choice),
        folder=Path(choice.path or ""),
        fingerprint="",
        pad=0,
        context=positions_of(config.to_dict()),
    )


def _built(
    choice: ModelConfig,
    family: Family,
    config: PreTrainedConfig,
    classes: int | None,
    options: dict[str, Any],
) -> nn.Module:
    if family == "causal":
        return AutoModelForCausalLM.from_config(config, **options)
    if family == "masked":
        return AutoModelForMaskedLM.from_config(config, **options)
    if classes is None:
        raise ConfigError("A classifier needs a number of classes, which a task with task.options gives.")
    if choice.head == "own":
        config.num_labels = classes
        return AutoModelForSequenceClassification.from_config(config, **options)
    return MeanPooled(AutoModel.from_config(config, **loading.poolerless(config), **options), classes)

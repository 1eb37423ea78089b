"""Loads a model with its tokenizer.

Dtype, device and attention are always said, the model is in eval mode, the global generator stays as it was.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from experiments.config.model_config import Family, ModelConfig
from experiments.config.parsing import read
from experiments.models import placing
from experiments.models.attention import attention_of, lacks_attention, or_eager
from experiments.models.device import device_of
from experiments.models.head import count_from_pad, share_biases
from experiments.models.hushed import BROKEN, first_line, hush_libraries, quiet
from experiments.models.inputs import check_family, first_id, untied
from experiments.models.padding import check_right_padding
from experiments.models.pooling import HEAD_FILE, MeanPooled
from experiments.models.row_tokens import COUNTED_FROM_PAD, context_of, pad_of, tokenizer_of, vocabulary_of
from experiments.models.source import MODELS, fingerprint, infer_family, locate, model_name, read_config
from zo.errors import ConfigError

# What a text model's weights are called inside one that sees images, now and in older checkpoints.
TEXT_KEYS = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head": "lm_head",
}
# They have a class for causal models, which reads both ways unless the configuration says is_decoder.
ENCODERS = (
    *COUNTED_FROM_PAD,
    "bert",
    "electra",
    "megatron-bert",
    "rembert",
    "data2vec-text",
    "ernie",
    "roformer",
)


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode with what belongs to it.

    pad: the id that fills rows (always masked out); context: tokens a row may have;
    fingerprint: SHA-256 (hex) of the weights, configuration and tokenizer files it came from.
    vocabulary: ids that have embeddings, where the configuration says it.
    first: the id that begins the rows of a causal model; None: the tokenizer's own.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    family: Family
    name: str
    folder: Path
    fingerprint: str
    pad: int
    context: int
    vocabulary: int | None = None
    first: int | None = None

    @property
    def attention(self) -> str | None:
        """Returns the attention that the model uses: eager also if sdpa was requested and is missing."""
        return attention_of(self.model)

    @property
    def device(self) -> torch.device:
        """Returns the device of the parameters."""
        return next(self.model.parameters()).device


def outline(choice: ModelConfig | dict[str, Any], models: Path = MODELS) -> Loaded:
    """Returns all of a loaded model but its weights: enough to read and check a task, in milliseconds.

    Raises ConfigError as `load` does, for what shows without the weights.
    """
    choice = read(ModelConfig, choice, "model")
    folder = locate(choice, models)
    config = read_config(folder)
    tokenizer = tokenizer_of(folder)
    family = choice.family or infer_family(config, folder)
    check_family(choice, family, config, folder, reads_both_ways(config))
    return Loaded(
        model=nn.Linear(1, 1, device="meta"),
        tokenizer=tokenizer,
        family=family,
        name=model_name(choice),
        folder=folder,
        fingerprint=fingerprint(folder),
        pad=pad_of(tokenizer, folder, vocabulary_of(config)),
        context=context_of(config.get("text_config") or config, tokenizer),
        vocabulary=vocabulary_of(config),
        first=first_id(choice.first_token, tokenizer, folder),
    )


def load(
    choice: ModelConfig | dict[str, Any], *, classes: int | None = None, seed: int = 0, models: Path = MODELS
) -> Loaded:
    """Loads a model as configured. A classifier needs the number of classes; a new head is drawn from `seed`.

    models: where prefetch puts converted models. Raises ConfigError for a folder that is missing, incomplete,
    pickled, or not of the family, and for a model that its devices do not hold.
    """
    choice = read(ModelConfig, choice, "model")
    folder = locate(choice, models)
    config = read_config(folder)
    family = choice.family or infer_family(config, folder)
    check_family(choice, family, config, folder, reads_both_ways(config))
    hush_libraries()
    device = device_of(choice)
    placed = placing.arguments(choice, device)
    tokenizer = tokenizer_of(folder)
    model: nn.Module
    with quiet(), _own_generator(seed, bool(placed)):
        if family == "classifier":
            model = _classifier(choice, folder, config, classes, placed)
        elif family == "causal" and "text_config" in config:
            model = _text_part(choice, folder, placed)
        else:
            auto = AutoModelForCausalLM if family == "causal" else AutoModelForMaskedLM
            model = _from_pretrained(auto, choice, folder, **placed)
    if choice.untie:
        untied(model, choice)
    elif family != "classifier" and not config.get("tie_word_embeddings", True):
        share_biases(model)
    if family == "causal" and config.get("model_type") in COUNTED_FROM_PAD:
        count_from_pad(model, config.get("pad_token_id") or 0)
    pad = pad_of(tokenizer, folder, vocabulary_of(config))
    if isinstance(model, PreTrainedModel) and family == "classifier":
        model.config.pad_token_id = pad  # decoders find a row's last token by it
    if not placed:
        model = nn.Module.to(model, device)
    name, vocabulary = model_name(choice), vocabulary_of(config)
    model.eval()
    if choice.quantization is None:  # int8 chooses by the whole batch which columns stay wide
        check_right_padding(model, tokenizer, pad, vocabulary, name, family)
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        family=family,
        name=name,
        folder=folder,
        fingerprint=fingerprint(folder),
        pad=pad,
        context=context_of(config.get("text_config") or config, tokenizer),
        vocabulary=vocabulary,
        first=first_id(choice.first_token, tokenizer, folder),
    )


def reads_both_ways(config: dict[str, Any]) -> bool:
    """Returns True for an encoder, also if it is loaded through a class for causal models."""
    return config.get("model_type") in ENCODERS and not config.get("is_decoder")


def _classifier(
    choice: ModelConfig, folder: Path, config: dict[str, Any], classes: int | None, placed: dict[str, Any]
) -> nn.Module:
    if classes is None:
        raise ConfigError("A classifier needs a number of classes, which a task with task.options gives.")
    saved_head = (folder / HEAD_FILE).is_file()
    has_own = any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or [])
    head = choice.head or ("own" if has_own and not saved_head else "mean")
    if head == "own":
        saved = len(config.get("id2label") or {}) or int(config.get("num_labels") or 2)
        if has_own and saved != classes:
            raise ConfigError(
                f"{folder} has a head of {saved} classes, the task has {classes}. "
                f"Take another task, or model.head=mean for a new head."
            )
        return _from_pretrained(
            AutoModelForSequenceClassification,
            choice,
            folder,
            new_head=not has_own,
            num_labels=classes,
            **placed,
        )
    kept = _auto_config(folder)
    encoder = _from_pretrained(AutoModel, choice, folder, **poolerless(kept), **placed)
    model = MeanPooled(encoder, classes)
    if saved_head:
        model.load_head(folder)
    return model


def _auto_config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as error:
        raise ConfigError(
            f"{folder / 'config.json'} describes no model of transformers: {first_line(error)}"
        ) from error


def poolerless(config: PreTrainedConfig) -> dict[str, Any]:
    """Returns the arguments that omit an encoder's pooler, which would be trained without effect on the logits."""
    kind = MODEL_MAPPING[type(config)]
    takes_it = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return {"add_pooling_layer": False} if takes_it else {}


def _from_pretrained(
    auto: Any, choice: ModelConfig, folder: Path, new_head: bool = False, **more: Any
) -> PreTrainedModel:
    """Loads the model; unless it may have a new head, every weight must be in the checkpoint."""
    try:
        model, report = or_eager(
            lambda attention: auto.from_pretrained(
                folder,
                dtype=getattr(torch, choice.dtype),
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **more,
            ),
            choice.attention,
        )
    except (*BROKEN, RuntimeError, ImportError, SafetensorError) as error:
        if lacks_attention(error) and choice.attention != "eager":
            raise ConfigError(
                f"{folder}: its architecture has no {choice.attention}. Set model.attention=eager."
            ) from error
        raise ConfigError(
            f"{folder} cannot be loaded through {auto.__name__}: {first_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing and not new_head:
        raise ConfigError(
            f"{folder} lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}. "
            f"It was probably saved as another family: see model.family."
        )
    placing.check_loaded(model, choice)
    placing.check_packed(model, choice)
    placing.spread(model)
    return model


def _text_part(choice: ModelConfig, folder: Path, placed: dict[str, Any]) -> PreTrainedModel:
    """Loads only the language model of a checkpoint that also sees images (Gemma 3 from 4b on)."""
    config = _auto_config(folder).get_text_config()
    model: Any = _from_pretrained(
        AutoModelForCausalLM, choice, folder, config=config, key_mapping=TEXT_KEYS, **placed
    )
    model._weight_conversions = []  # or it would be saved under the names it had inside the whole
    return model


@contextmanager
def _own_generator(seed: int, placed: bool) -> Iterator[None]:
    """Seeds the global generators for new weights and restores them afterwards; placed: on any device."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if placed else []):
        torch.manual_seed(seed)
        yield

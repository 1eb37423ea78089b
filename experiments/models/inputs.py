"""Checks a model's options, finds the id that begins rows, and unties the head."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from experiments.config.model_config import Family, ModelConfig
from experiments.models.head import untie
from experiments.models.source import encoder_decoder, model_name
from zo.errors import ConfigError


def check_family(
    choice: ModelConfig, family: Family, config: dict[str, Any], folder: Path, both_ways: bool
) -> None:
    """Raises ConfigError for options of another family. both_ways: positions attend to later ones."""
    names = {"causal": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "masked": MODEL_FOR_MASKED_LM_MAPPING_NAMES}.get(
        family
    )
    if config.get("is_encoder_decoder") and names is not None and config.get("model_type") not in names:
        raise ConfigError(encoder_decoder(config, folder))
    if family == "causal" and both_ways:
        raise ConfigError(
            f"model.family=causal: {model_name(choice)} is an encoder (is_decoder is not true in its config.json). Its "
            f"positions read what stands behind them, so that no option can be scored. Set model.family=masked or "
            f"classifier."
        )
    if choice.first_token is not None and family != "causal":
        raise ConfigError(
            f"model.first_token={choice.first_token} is for causal models, and {model_name(choice)} is a {family} one. "
            f"Set model.first_token=null."
        )
    if choice.untie and family == "classifier":
        raise ConfigError(
            f"model.untie=true is for language models, and {model_name(choice)} is a classifier. Set model.untie=false."
        )


def untied(model: Any, choice: ModelConfig) -> None:
    """Copies a model's output matrix, so that it is its own. Raises ConfigError if it is already."""
    if not getattr(model, "all_tied_weights_keys", None):
        raise ConfigError(
            f"model.untie=true: the output matrix of {model_name(choice)} is its own already. Set model.untie=false."
        )
    untie(model)


def first_id(token: str | None, tokenizer: PreTrainedTokenizerBase, folder: Path) -> int | None:
    """Returns the id of the token that begins rows, if one is chosen."""
    if token is None:
        return None
    vocabulary = tokenizer.get_vocab()
    if token not in vocabulary:
        special = ", ".join(map(str, tokenizer.all_special_tokens))
        raise ConfigError(
            f"model.first_token={token} is no token of the tokenizer in {folder}. Its special tokens are {special}; "
            f"null takes the tokenizer's own."
        )
    return vocabulary[token]

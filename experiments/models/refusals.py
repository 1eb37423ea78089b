"""Lists reasons to refuse a model that show without its weights: for runs, --dry-run, sweeps and estimates."""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

from experiments.config.model_config import Family, ModelConfig
from experiments.models.hushed import BROKEN, first_line, quiet
from experiments.models.inputs import check_family
from experiments.models.loading import reads_both_ways
from experiments.models.placing import check_checkpoint, check_quantized
from experiments.models.source import here, infer_family, read_config
from zo.errors import ConfigError

_MAPPINGS: dict[Family, tuple[Any, ...]] = {
    "causal": (MODEL_FOR_CAUSAL_LM_MAPPING,),
    "masked": (MODEL_FOR_MASKED_LM_MAPPING,),
    "classifier": (MODEL_MAPPING, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING),
}


def refusals(choice: ModelConfig, mode: str, models: Path) -> list[str]:
    """A sentence for each reason; none of a hub model that is not on this machine yet.

    mode: the name of the fine-tuning mode. models: where converted models are.
    """
    problems: list[str] = []

    def attempt(check: Callable[[], object]) -> Any:
        try:
            return check()
        except ConfigError as error:
            problems.append(str(error))

    attempt(lambda: check_quantized(choice.quantization, mode))
    if choice.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        problems.append(
            "model.attention=flash_attention_2 needs the package flash-attn: pip install flash-attn"
        )
    folder = attempt(lambda: here(choice, models))
    if folder is not None and (config := attempt(functools.partial(read_config, folder))) is not None:
        attempt(functools.partial(check_checkpoint, config, str(folder), mode))
        family = choice.family or attempt(functools.partial(infer_family, config, folder))
        if family is not None:
            attempt(functools.partial(_check_class, choice, family, config, folder))
    return list(dict.fromkeys(problems))


def check_model(choice: ModelConfig, mode: str, models: Path) -> None:
    """Raises ConfigError with all of them, a line each."""
    if problems := refusals(choice, mode, models):
        raise ConfigError("\n".join(problems))


def _check_class(choice: ModelConfig, family: Family, config: dict[str, Any], folder: Path) -> None:
    """Raises ConfigError where transformers has no class of this family for the model."""
    check_family(choice, family, config, folder, reads_both_ways(config))
    try:
        with quiet():
            whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except BROKEN as error:
        raise ConfigError(
            f"{folder / 'config.json'} describes no model of transformers: {first_line(error)}"
        ) from error
    kinds = {type(whole), type(whole.get_text_config())} if family == "causal" else {type(whole)}
    if not any(kind in mapping for kind in kinds for mapping in _MAPPINGS[family]):
        raise ConfigError(
            f"model.family={family}: transformers has no {family} model for {folder} (model_type "
            f"{config.get('model_type')}, saved as {', '.join(config.get('architectures') or ['nothing it names'])}). "
            f"Leave model.family to the checkpoint, or take another model."
        )

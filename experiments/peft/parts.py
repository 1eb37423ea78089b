"""Trains some of the model's own weights: biases, whole blocks, the head."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from experiments.config.peft_config import BitFit, Head, Layers
from experiments.models.head import head_of, untie
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.peft.adapters import new_pooler
from zo.errors import ConfigError


def bitfit(loaded: Loaded, choice: BitFit) -> Loaded:
    """Trains all biases, including those of norms."""
    biases = [p for name, p in loaded.model.named_parameters() if name.rsplit(".", 1)[-1] == "bias"]
    if not [p for p in biases if all(p is not new for new in _new_head(loaded))]:
        raise ConfigError(
            f"peft=bitfit trains biases, but {loaded.name} has none (nor do Llama, Mistral, Qwen3 and Gemma). "
            "Use peft=ia3, which has as few parameters, or peft=layers."
        )
    return _train(loaded, biases)


def layers(loaded: Loaded, choice: Layers) -> Loaded:
    """Trains whole transformer blocks."""
    blocks = _blocks(loaded)
    chosen = [p for number in choice.chosen(len(blocks)) for p in blocks[number].parameters()]
    return _train(loaded, chosen)


def head(loaded: Loaded, choice: Head) -> Loaded:
    """Trains the module that computes logits from hidden states.

    If its matrix is tied to the input embeddings (OPT, RoBERTa, BERT, GPT-2 and many others), it is copied first, so
    that the embeddings stay unchanged; the saved model's configuration records this (tie_word_embeddings).
    """
    if loaded.family == "classifier":
        return _train(loaded, [])
    unread = untie(loaded.model)
    return _train(
        loaded, [p for p in _head_parameters(loaded) if all(p is not parameter for parameter in unread)]
    )


def _train(loaded: Loaded, chosen: Iterable[nn.Parameter]) -> Loaded:
    for parameter in [*chosen, *_new_head(loaded)]:
        parameter.requires_grad_(True)
    return loaded


def _new_head(loaded: Loaded) -> list[nn.Parameter]:
    """Returns the parameters that every mode trains: a classifier's head."""
    return _head_parameters(loaded) if loaded.family == "classifier" else []


def _head_parameters(loaded: Loaded) -> list[nn.Parameter]:
    model: Any = loaded.model
    if isinstance(model, MeanPooled):
        return list(model.head.parameters())
    if loaded.family != "classifier":
        return list(head_of(model).parameters())
    modules = [child for name, child in model.named_children() if name != model.base_model_prefix]
    pooler = new_pooler(loaded)
    return [p for module in (*modules, *([pooler] if pooler else [])) for p in module.parameters()]


def _blocks(loaded: Loaded) -> nn.ModuleList:
    """Returns the model's transformer blocks: the outermost module list with one entry per layer."""
    model: Any = loaded.model
    count = model.config.get_text_config().num_hidden_layers
    candidates = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    blocks = next(candidates, None)
    if blocks is None:
        raise ConfigError(
            f"peft=layers trains whole blocks, but {loaded.name} has no list of its {count} blocks. Use peft=lora."
        )
    return blocks

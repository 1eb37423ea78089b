"""Puts virtual tokens before the text, through the peft library: keys and values (prefix) or embeddings (prompt).

A prefix is initialised as MeZO does: `tokens` random ids of the vocabulary are run through the model once, and
every layer's keys and values of them are the prefix. In a causal model it then does exactly what these ids would
do before the text. In an encoder it does not: there the ids would also see the text.

A prompt shifts the text: its logits come `tokens` positions later (experiments.models.head). Both modes reduce the
length a row may have by `tokens`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from experiments.config.peft_config import Prefix, Prompt
from experiments.models.head import adapter_of
from experiments.models.loading import Loaded
from experiments.models.pooling import MeanPooled
from experiments.models.row_tokens import NO_LIMIT
from experiments.peft.adapters import wrapped
from zo.errors import ConfigError


def prefix(loaded: Loaded, choice: Prefix) -> Loaded:
    """Trains keys and values before those of every layer."""
    from peft import PrefixTuningConfig  # late: it takes seconds to import
    from peft import initialize_kv_prefix_from_past_key_values as set_keys_and_values

    target = _target(loaded, choice.tokens)
    cache = _activations(target, choice.tokens) if choice.init == "activations" else None
    config = PrefixTuningConfig(task_type=_task_type(loaded), num_virtual_tokens=choice.tokens)
    loaded = _shorter(wrapped(loaded, config, f"peft.tokens={choice.tokens}"), choice.tokens)
    finish(loaded.model)
    if cache is not None:
        set_keys_and_values(adapter_of(loaded.model), past_key_values=cache)
    return loaded


def prompt(loaded: Loaded, choice: Prompt) -> Loaded:
    """Trains embeddings before the text's; they start as those of random ids of the vocabulary."""
    from peft import PromptTuningConfig

    target = _target(loaded, choice.tokens)
    if loaded.family == "classifier" and not isinstance(loaded.model, MeanPooled):
        raise ConfigError(
            f"peft=prompt puts virtual tokens before the text, but the head of {type(target).__name__} reads its state "
            "at a position counted from the first or the last token. Use peft=prefix, or model.head=mean."
        )
    config = PromptTuningConfig(
        task_type=_task_type(loaded),
        num_virtual_tokens=choice.tokens,
        prompt_tuning_init="SAMPLE_VOCAB" if choice.init == "vocabulary" else "RANDOM",
        token_dim=_embeddings(target).shape[1],  # OPT-350m's embedding is narrower than its hidden size
    )
    loaded = _shorter(wrapped(loaded, config, f"peft.tokens={choice.tokens}"), choice.tokens)
    finish(loaded.model)
    return loaded


def finish(model: nn.Module) -> None:
    """Completes peft's set-up: virtual tokens get the model's dtype, and a prompt is looked up for each row.

    peft looks a prompt up once and repeats it for all rows; but rows of different probes need different ones.
    """
    adapter: Any = adapter_of(model)
    if adapter is None or not adapter.active_peft_config.is_prompt_learning:
        return
    adapter.prompt_encoder.to(adapter.base_model.dtype)
    if adapter.active_peft_config.peft_type == "PROMPT_TUNING":
        adapter.get_prompt = MethodType(_prompt_of_each_row, adapter)


@contextmanager
def places_by_mask(model: nn.Module) -> Iterator[None]:
    """Makes a causal model with virtual tokens derive positions from the attention mask, as without adapters.

    Otherwise peft would count the padding of a prompt that is padded on the left.
    """
    adapter: Any = adapter_of(model)
    if adapter is None or not adapter.active_peft_config.is_prompt_learning:
        yield
        return

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        mask = kwargs.get("attention_mask")
        if mask is None:  # transformers omits a mask of ones: nothing is padded
            return args, kwargs
        inputs = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
        places = (mask.long().cumsum(-1) - 1).clamp(min=0)
        return args, kwargs | {"position_ids": places[:, -inputs.shape[1] :]}

    handle = adapter.base_model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _prompt_of_each_row(adapter: Any, batch_size: int, *_: Any, **__: Any) -> Tensor:
    """Returns the prompt embeddings of each row [batch_size, tokens, width]."""
    name = adapter.active_adapter
    encoder = adapter.prompt_encoder[name]
    ids = adapter.prompt_tokens[name].to(encoder.embedding.weight.device)
    return encoder(ids.expand(batch_size, -1))


def _target(loaded: Loaded, tokens: int) -> PreTrainedModel:
    target: Any = loaded.model.encoder if isinstance(loaded.model, MeanPooled) else loaded.model
    if loaded.context <= tokens:
        raise ConfigError(
            f"peft.tokens={tokens} leaves no room for the text: {loaded.name} has {loaded.context} positions."
        )
    return target


def _embeddings(model: PreTrainedModel) -> Tensor:
    """Returns the input embeddings [vocabulary, width]."""
    table: Any = model.get_input_embeddings()
    return table.weight


def _task_type(loaded: Loaded) -> Any:
    """Returns peft's task type; the class for sequence classification keeps token types, unlike that for features."""
    from peft import TaskType

    return {
        "causal": TaskType.CAUSAL_LM,
        "masked": TaskType.FEATURE_EXTRACTION,  # without a task, peft has no forward with virtual tokens
        "classifier": TaskType.SEQ_CLS,
    }[loaded.family]


def _shorter(loaded: Loaded, tokens: int) -> Loaded:
    return loaded if loaded.context >= NO_LIMIT else replace(loaded, context=loaded.context - tokens)


def _activations(model: PreTrainedModel, tokens: int) -> DynamicCache:
    """Returns every layer's keys and values of random ids.

    They are computed on one thread, so that the bits a journal starts from do not depend on the number of threads.
    """
    ids = torch.randint(_embeddings(model).shape[0], (1, tokens)).to(model.device)
    cache, threads = DynamicCache(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache)
    finally:
        torch.set_num_threads(threads)
    return cache

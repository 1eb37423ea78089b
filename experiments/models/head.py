"""Computes the language-model head at chosen positions only.

A batch of 8 x 512 tokens has half a gigabyte of logits for 32 k words, of which a task needs a few rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from experiments.models.pooling import MeanPooled
from zo.errors import ConfigError


def base_of(model: nn.Module) -> nn.Module:
    """Returns the model without its adapters' wrappers."""
    get = getattr(model, "get_base_model", None)  # peft's wrappers alone have it
    return get() if get is not None else model


def adapter_of(model: nn.Module) -> nn.Module | None:
    """Returns peft's wrapper of a model, or of a pooled model's encoder; None without one."""
    if isinstance(model, MeanPooled):
        return adapter_of(model.encoder)
    return None if base_of(model) is model else model


def adapter_tokens(model: nn.Module) -> int:
    """Returns the number of an adapter's virtual tokens, as keys and values or as embeddings."""
    config: Any = getattr(model, "active_peft_config", None)  # peft's wrappers alone have it
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def tokens_before(model: nn.Module) -> int:
    """Returns the number of states before the text's: an adapter's virtual tokens, unless they are a prefix."""
    config: Any = getattr(model, "active_peft_config", None)
    return adapter_tokens(model) if config is not None and config.peft_type != "PREFIX_TUNING" else 0


def head_of(model: nn.Module) -> nn.Module:
    """Returns the module that turns hidden states [rows, T, d] into logits: OPT's and RoBERTa's lm_head, BERT's cls.

    It is the child of the model, adapters taken off, that holds the output embeddings.
    """
    base = base_of(model)
    get = getattr(base, "get_output_embeddings", None)  # a plain torch module has none
    output = get() if get is not None else None
    for child in base.children() if output is not None else ():
        if any(module is output for module in child.modules()):
            return child
    raise ConfigError(
        f"{type(base).__name__} has no language-model head. Take a causal or masked language model."
    )


def count_from_pad(model: nn.Module, pad: int) -> None:
    """Makes a RoBERTa decoder accept positions counted from 0, as generation and cached keys give them.

    Its own are counted from its padding id + 1; where none are given it makes them itself.
    """

    def shift(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        given = kwargs.get("position_ids")
        return args, kwargs if given is None else kwargs | {"position_ids": given + pad + 1}

    model.register_forward_pre_hook(shift, with_kwargs=True)


def untie(model: Any) -> list[nn.Parameter]:
    """Copies every matrix that is tied to another, and returns those others.

    Biases stay shared, for a head reads them under one of their two names alone. The model's configuration then says
    that nothing is tied, so that it is saved and loaded as it is.
    """
    tied = {t: s for t, s in model.all_tied_weights_keys.items() if not t.endswith(".bias")}
    sources = [model.get_parameter(source) for source in tied.values()]
    for target in tied:
        place, _, attribute = target.rpartition(".")
        owner = model.get_submodule(place)
        own = getattr(owner, attribute)
        setattr(owner, attribute, nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad))
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}
    share_biases(model)
    return sources


def share_biases(model: Any) -> list[str]:
    """Ties the bias that a head only names (RoBERTa, BERT) to the one that it reads; returns their names.

    Loaded as a model in which nothing is tied they are two, of which one is never read, and so cannot be trained.
    """
    there = dict(model.named_parameters(remove_duplicate=False))
    shared = []
    pairs = getattr(type(model), "_tied_weights_keys", None)
    for read, named in (pairs if isinstance(pairs, dict) else {}).items():
        if read.endswith(".bias") and read in there and named in there:
            place, _, attribute = named.rpartition(".")
            setattr(model.get_submodule(place), attribute, there[read])
            shared.append(named)
    return shared


@contextmanager
def head_at(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Makes model(...) return logits [rows, K, V] at `positions` [rows, K] instead of [rows, T, V].

    Positions are those in the text; virtual tokens before it are not counted.
    The model is to be called through model(...) with as many rows as `positions` has.
    """
    before = tokens_before(model)

    def gather(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = args
        index = (positions.to(hidden.device) + before)[..., None].expand(-1, -1, hidden.shape[-1])
        return (hidden.gather(1, index), *rest)

    handle = head_of(model).register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()

"""Takes eager attention where an architecture lacks sdpa, which is the default."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from experiments.models.head import base_of
from experiments.models.pooling import MeanPooled

Made = TypeVar("Made")


def or_eager(make: Callable[[str], Made], wanted: str) -> Made:
    """Builds by `make` with the wanted attention, or with eager if sdpa is wanted and the model has none."""
    try:
        return make(wanted)
    except (ValueError, ImportError) as error:
        if wanted != "sdpa" or not lacks_attention(error):
            raise
    return make("eager")


def lacks_attention(error: BaseException) -> bool:
    """Returns whether transformers refuses the chosen attention for an architecture."""
    return "attn_implementation" in str(error)


def attention_of(model: nn.Module) -> str | None:
    """Returns the attention that a model computes with; None where its configuration names none."""
    inner: Any = model.encoder if isinstance(model, MeanPooled) else model
    return getattr(getattr(base_of(inner), "config", None), "_attn_implementation", None)


def note_of(model: nn.Module, wanted: str) -> str | None:
    """Returns a sentence where a model computes with another attention than the one that was chosen."""
    taken = attention_of(model)
    if taken is None or taken == wanted:
        return None
    return (
        f"This architecture has no {wanted} in transformers, so its attention is {taken} (model.attention={taken} says "
        f"so from the start)."
    )

"""Finds the dropout of a model: probabilities above 0; without one, train mode equals eval mode."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


def dropout_of(model: nn.Module) -> float:
    """Returns the largest dropout probability of any module.

    Counts torch's own modules, and numbers under a name with "drop" in it, as the attention of transformers has them.
    """
    return max((p for module in model.modules() for p in _of_module(module)), default=0.0)


def configured_dropout(config: Mapping[str, Any]) -> float:
    """Returns the largest probability in a model's or an adapter's configuration, including unused ones."""
    probabilities = [
        float(value) for name, value in config.items() if "drop" in str(name) and _probability(value)
    ]
    probabilities += [configured_dropout(value) for value in config.values() if isinstance(value, Mapping)]
    return max(probabilities, default=0.0)


def _of_module(module: nn.Module) -> Iterator[float]:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        yield module.p
    yield from (
        float(value) for name, value in vars(module).items() if "drop" in name and _probability(value)
    )


def _probability(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value <= 1.0

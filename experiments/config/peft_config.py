"""Configuration of the trained parameters: a dataclass for each mode, frozen, checked on construction, light.

The YAML files in conf/peft hold these fields and no others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.config.key import key
from experiments.config.parsing import check, check_values, read
from zo.errors import ConfigError


@dataclass(frozen=True)
class Full:
    """Every weight is trained."""

    name: Annotated[Literal["none"], key("Name of the mode.")]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021): W + alpha / r · B A. targets: names of linear layers, or the library's."""

    name: Annotated[Literal["lora"], key("Name of the mode.")]
    r: Annotated[int, key("Rank of the adapters.", ge=1, le=65_536)] = 8
    alpha: Annotated[float, key("Scale of the adapters: BA is multiplied by alpha / r.")] = 16.0
    targets: Annotated[
        Sequence[str] | None, key("Names of linear layers; null: the peft library's choice for the model.")
    ] = None

    def __post_init__(self) -> None:
        check_values(self, "peft")


@dataclass(frozen=True)
class Prefix:
    """Keys and values of virtual tokens before every layer's own (Li and Liang 2021), without reparametrisation."""

    name: Annotated[Literal["prefix"], key("Name of the mode.")]
    tokens: Annotated[int, key("Number of virtual tokens.", ge=1, le=65_536)] = 5
    init: Annotated[
        Literal["activations", "random"],
        key("Initial values: keys and values of real tokens, or random numbers."),
    ] = "activations"

    def __post_init__(self) -> None:
        check_values(self, "peft")


@dataclass(frozen=True)
class Prompt:
    """Embeddings of virtual tokens before the text's (Lester et al. 2021)."""

    name: Annotated[Literal["prompt"], key("Name of the mode.")]
    tokens: Annotated[int, key("Number of virtual tokens.", ge=1, le=65_536)] = 20
    init: Annotated[
        Literal["vocabulary", "random"],
        key("Initial values: embeddings of the vocabulary, or random numbers."),
    ] = "vocabulary"

    def __post_init__(self) -> None:
        check_values(self, "peft")


@dataclass(frozen=True)
class IA3:
    """Learned factors on keys, values and the input of the second feed-forward layer (Liu et al. 2022)."""

    name: Annotated[Literal["ia3"], key("Name of the mode.")]
    targets: Annotated[
        Sequence[str] | None, key("Layers whose outputs are scaled; null: by the architecture.")
    ] = None
    feedforward: Annotated[
        Sequence[str] | None, key("Layers whose inputs are scaled; null: by the architecture.")
    ] = None


@dataclass(frozen=True)
class BitFit:
    """The biases (Ben Zaken et al. 2022)."""

    name: Annotated[Literal["bitfit"], key("Name of the mode.")]


@dataclass(frozen=True)
class Layers:
    """Whole transformer blocks."""

    name: Annotated[Literal["layers"], key("Name of the mode.")]
    blocks: Annotated[
        str | int | Sequence[int],
        key(
            "Blocks to train: last:2, first:2, a range such as 0-3, a number or a list; 0 is the first, -1 the last."
        ),
    ] = "last:2"

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str):
            _numbers(self.blocks, 0)  # raises for a text of another form; how many there are is not known yet

    def chosen(self, count: int) -> list[int]:
        """Returns the numbers of the chosen blocks among `count`, ascending. Raises ConfigError unless all exist."""
        blocks = self.blocks
        if isinstance(blocks, str):
            numbers = _numbers(blocks, count)
        else:
            numbers = [n + count if n < 0 else n for n in ([blocks] if isinstance(blocks, int) else blocks)]
        check(
            len(numbers) > 0 and min(numbers) >= 0 and max(numbers) < count,
            f"peft.blocks={blocks}: the model has {count} blocks, 0 to {count - 1}. Choose at least one of them.",
        )
        return sorted(set(numbers))


@dataclass(frozen=True)
class Head:
    """The head alone; one that is tied to the input embeddings becomes a copy of its own."""

    name: Annotated[Literal["head"], key("Name of the mode.")]


Mode = Full | Lora | Prefix | Prompt | IA3 | BitFit | Layers | Head
MODES: dict[str, type[Mode]] = {
    "none": Full,
    "lora": Lora,
    "prefix": Prefix,
    "prompt": Prompt,
    "ia3": IA3,
    "bitfit": BitFit,
    "layers": Layers,
    "head": Head,
}

ADAPTERS = ("lora", "ia3", "prefix", "prompt")  # modes that train parameters of their own beside the model's


def mode(values: Mapping[str, Any] | Mode) -> Mode:
    """The mode that a section `peft` names. Raises ConfigError for a name there is not, and for unknown keys."""
    if not isinstance(values, Mapping):
        return values
    name = values.get("name")
    if name not in MODES:
        raise ConfigError(f"peft.name={name}: allowed are {', '.join(MODES)}.")
    return read(MODES[name], values, "peft")


def _numbers(text: str, count: int) -> Sequence[int]:
    """Returns the numbers that a text names among `count` blocks, not all of which need be there."""
    if match := re.fullmatch(r"(first|last):(\d{1,6})", text):
        n = int(match[2])
        return range(n) if match[1] == "first" else range(count - n, count)
    if match := re.fullmatch(r"(\d{1,6})-(\d{1,6})", text):
        return range(int(match[1]), int(match[2]) + 1)
    raise ConfigError(
        f"peft.blocks={text}: write last:2, first:2, a range such as 0-3, or a list such as [0,5]."
    )

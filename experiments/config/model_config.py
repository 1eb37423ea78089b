"""The section `model`: which model, and how it is loaded. Frozen, checked when built, light to import.

The YAML files in conf/model hold these fields and no others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from experiments.config.key import MANY, UNHASHED, key
from experiments.config.parsing import check_values
from zo.errors import ConfigError

Family = Literal["causal", "masked", "classifier"]


@dataclass(frozen=True)
class Resources:
    """The resources that a run of a model requests from a scheduler."""

    gpus: Annotated[
        int, key("GPUs; 0 runs on the CPU, more than one needs model.device_map.", ge=0, le=4096)
    ] = 1
    mem: Annotated[int, key("GiB of host memory.", ge=1, le=MANY)] = 32
    minutes: Annotated[int, key("Minutes of wall clock.", ge=1, le=MANY)] = 60

    def __post_init__(self) -> None:
        check_values(self, "model.resources")


@dataclass(frozen=True)
class ModelConfig:
    """A model and how it is loaded."""

    path: Annotated[
        str | None,
        key("A folder, a hub id, or package:<package>/<folder>; the contents enter the hash, not the path."),
        UNHASHED,
    ]
    name: Annotated[str | None, key("Name in folders and tables; null: taken from the path."), UNHASHED] = (
        None
    )
    family: Annotated[
        Family | None, key("Kind of model, which decides the prompts; null: by its architecture.")
    ] = None
    revision: Annotated[str | None, key("Commit, tag or branch on the hub; null: the newest.")] = None
    head: Annotated[
        Literal["mean", "own"] | None,
        key("Classifier's head: on the mean of the outputs, or the model's own."),
    ] = None
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], key("Data type of the weights.")] = "float32"
    device: Annotated[str, key("Device; auto: a GPU if there is one."), UNHASHED] = "auto"
    device_map: Annotated[
        Literal["auto", "balanced", "sequential"] | Mapping[str, str | int] | None,
        key("Spread layers over several GPUs, or map modules to devices; null: all on `device`."),
        UNHASHED,
    ] = None
    attention: Annotated[
        Literal["eager", "sdpa", "flash_attention_2"], key("Implementation of attention.")
    ] = "sdpa"
    quantization: Annotated[
        Literal["int8", "nf4", "fp4"] | None, key("Quantisation of the frozen weights; only with adapters.")
    ] = None
    first_token: Annotated[
        str | None, key("First token of each row of a causal model; null: the tokenizer's own.")
    ] = None
    untie: Annotated[bool, key("Train the output matrix separately from the embeddings it is tied to.")] = (
        False
    )
    resources: Annotated[Resources, key("Resources that a run requests from a scheduler."), UNHASHED] = field(
        default_factory=Resources
    )

    def __post_init__(self) -> None:
        check_values(self, "model")
        if self.head is not None and self.family in ("causal", "masked"):
            raise ConfigError(
                f"model.head={self.head} is for classifiers, but model.family={self.family}. "
                f"Set model.family=classifier, or model.head=null."
            )
        if self.first_token is not None and self.family in ("masked", "classifier"):
            raise ConfigError(
                f"model.first_token={self.first_token} is for causal models, but model.family={self.family}. "
                f"Set model.first_token=null."
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise ConfigError(
                f"model.device={self.device} is no device. Allowed are auto, cpu, cuda, cuda:<index> and mps."
            )
        if self.device_map is not None and self.device != "auto":
            raise ConfigError(
                f"model.device={self.device}: model.device_map={self.device_map} chooses the devices. "
                f"Set model.device=auto, or model.device_map=null."
            )
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ConfigError(
                "model.attention=flash_attention_2: its kernels compute in 16 bits. Set model.dtype=bfloat16 or "
                "float16, or model.attention=sdpa."
            )

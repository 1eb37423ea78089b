"""The section `model`: which model, and how it is loaded. Frozen, checked when built, light to import.

The YAML files in conf/model hold these fields and no others.
"""

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
        key("A folder, a hub id, or package:<package>/<folder>; its contents enter the hash."),
        UNHASHED,
    ]
    name: Annotated[
        str | None, key("The model's name in folders and tables; null: from the path."), UNHASHED
    ] = None
    family: Annotated[Family | None, key("How a task is put to it; null: by its architecture.")] = None
    revision: Annotated[str | None, key("A commit, tag or branch of the hub; null: the newest.")] = None
    head: Annotated[
        Literal["mean", "own"] | None,
        key("A classifier's head: over the mean of the outputs, or the model's own."),
    ] = None
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], key("The type of the weights.")] = "float32"
    device: Annotated[str, key("The device; auto: a CUDA or ROCm GPU where there is one."), UNHASHED] = "auto"
    device_map: Annotated[
        Literal["auto", "balanced", "sequential"] | Mapping[str, str | int] | None,
        key("Spreads layers over several GPUs, or maps modules to devices; null: all on `device`."),
        UNHASHED,
    ] = None
    attention: Annotated[
        Literal["eager", "sdpa", "flash_attention_2"], key("The code that computes attention.")
    ] = "sdpa"
    quantization: Annotated[
        Literal["int8", "nf4", "fp4"] | None, key("Fewer bits for the frozen weights, for adapters alone.")
    ] = None
    first_token: Annotated[
        str | None, key("The token that begins the rows of a causal model; null: the tokenizer's own.")
    ] = None
    untie: Annotated[bool, key("Train the output matrix apart from the embeddings that it is tied to.")] = (
        False
    )
    resources: Annotated[Resources, key("What a run asks a scheduler for."), UNHASHED] = field(
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

"""The section `model`: which model, and how it is loaded. Frozen, checked when built, light to import.

The YAML files in conf/model hold these fields and no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from experiments.config.parsing import check, check_literals
from zo.errors import ConfigError

Family = Literal["causal", "masked", "classifier"]


@dataclass(frozen=True)
class Resources:
    """What a run of a model asks a scheduler for: GPUs, GiB of host memory, minutes of wall clock.

    gpus: 0 runs on the CPU; more than one needs model.device_map. Outside a run's hash.
    """

    gpus: int = 1
    mem: int = 32
    minutes: int = 60

    def __post_init__(self) -> None:
        check(self.gpus >= 0, f"model.resources.gpus={self.gpus}: it is at least 0.")
        check(self.mem >= 1, f"model.resources.mem={self.mem}: it is at least 1 GiB.")
        check(self.minutes >= 1, f"model.resources.minutes={self.minutes}: it is at least 1.")


@dataclass(frozen=True)
class ModelConfig:
    """A model and how it is loaded. `path`: a folder, a hub id, or package:<package>/<folder>.

    device_map: how the layers are spread over several GPUs (auto, balanced, sequential), or a mapping from
    modules to devices; null: all on `device`. quantization: of the frozen weights, for adapters alone.
    first_token: the token that begins the rows of a causal model; null: the tokenizer's own. untie: the output matrix
    is trained apart from the embeddings that it is tied to.
    """

    path: str | None
    name: str | None = None
    family: Family | None = None
    revision: str | None = None
    head: Literal["mean", "own"] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    device_map: Literal["auto", "balanced", "sequential"] | Mapping[str, str | int] | None = None
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    quantization: Literal["int8", "nf4", "fp4"] | None = None
    first_token: str | None = None
    untie: bool = False
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        check_literals(self, "model")
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

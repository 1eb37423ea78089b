"""What a user chooses on the text side: model and task. Frozen, checked when made, light to import.

The YAML files in conf/model and conf/task hold these fields and no others (conf/peft: experiments.modes).
"""

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from experiments.tasks.checks import problems_of
from zo.errors import ConfigError

Family = Literal["causal", "masked", "classifier"]
Choice = TypeVar("Choice")


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
class ModelChoice:
    """A model and how it is loaded. `path`: a folder, a hub id, or package:<package>/<folder>.

    device_map: how the layers are spread over several GPUs (auto, balanced, sequential), or a mapping from
    modules to devices; null: all on `device`. quantization: of the frozen weights, for adapters alone.
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
    resources: Resources = field(default_factory=Resources)

    def __post_init__(self) -> None:
        check_literals(self, "model")
        if self.head is not None and self.family in ("causal", "masked"):
            raise ConfigError(
                f"model.head={self.head} is for classifiers, but model.family={self.family}. "
                f"Set model.family=classifier, or model.head=null."
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


@dataclass(frozen=True)
class Source:
    """Where examples come from: a task of the built-in world, or two splits of a data set of the hub.

    test: the split's name, or names that folders give it: the first that is there.
    """

    world: str | None = None
    hub: str | None = None
    subset: str | None = None
    revision: str | None = None
    train: str = "train"
    test: str | Sequence[str] = "validation"

    @property
    def tests(self) -> tuple[str, ...]:
        """Names of the split that test examples come from: a folder's first there is, of the hub the first."""
        return (self.test,) if isinstance(self.test, str) else tuple(self.test)


@dataclass(frozen=True)
class Causal:
    """Text before an option or answer, the text that option or answer adds, and the prompt without an input
    that `calibrate` compares with (null: the task cannot be calibrated).
    """

    prompt: str
    answer: str
    sfc: str | None = None


@dataclass(frozen=True)
class Masked:
    """Text with {mask} where the option stands. limits: tokens a field may have; max_length: of the whole."""

    text: str
    limits: Mapping[str, int] | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Classified:
    """A sentence, or a pair of sentences."""

    text: str
    pair: str | None = None


@dataclass(frozen=True)
class Templates:
    """One template a model family; null where the task cannot be put to that family."""

    causal: Causal | None = None
    masked: Masked | None = None
    classifier: Classified | None = None


@dataclass(frozen=True)
class TaskChoice:
    """A task in strings. Without options or candidates, the answer is generated.

    labels: values of the label column in the order of options, or such a list for each column it may be.
    candidates: the field with each row's own options; the label is then a number, a text, or a list of them.
    drop: labels whose rows are left out. function: what makes more fields, see experiments.tasks.functions.
    k: so many examples of each option for train and again for dev, instead of `train` and `dev`.
    scarce: what happens when an option has fewer than 2 k rows.
    demonstrations: so many of train stand answered before each prompt of dev and test.
    calibrate: the options' log-probabilities less those after templates.causal.sfc, alone or after the
    demonstrations.
    """

    name: str
    columns: Mapping[str, str | Sequence[str]]
    templates: Templates
    source: Source = field(default_factory=Source)
    data_dir: str | None = None
    labels: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None
    options: Sequence[str] | None = None
    candidates: str | None = None
    drop: Sequence[Any] = ()
    function: str | None = None
    metric: Literal["accuracy", "f1", "exact_match"] = "accuracy"
    objective: Literal["options", "answer", "metric"] = "options"
    average: Literal["token", "example"] = "token"
    train: int = 1000
    dev: int = 500
    test: int = 1000
    dev_share: float = 0.4
    k: int | None = None
    scarce: Literal["refuse", "take"] = "refuse"
    demonstrations: int = 0
    calibrate: Literal["sfc", "icl_sfc"] | None = None
    max_length: int | None = None
    max_new_tokens: int = 50

    def __post_init__(self) -> None:
        check_literals(self, "task")
        problems = list(problems_of(self))
        check(not problems, "\n".join(problems))

    @property
    def generated(self) -> bool:
        """Whether answers are generated instead of chosen."""
        return self.options is None and self.candidates is None


def read(kind: type[Choice], values: Mapping[str, Any] | Choice, group: str) -> Choice:
    """A choice from a mapping (a dict, a Hydra config). Raises ConfigError that lists every unknown key."""
    if isinstance(values, kind):
        return values
    assert isinstance(values, Mapping)
    problems = list(_unknown(kind, values, group))
    if problems:
        raise ConfigError("\n".join(problems))
    return _build(kind, values)


def _unknown(kind: type, values: Mapping[str, Any], group: str) -> Iterable[str]:
    known = [f.name for f in fields(kind)]
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {group}.{close[0]}?" if close else f" Known: {', '.join(known)}."
            yield f"{group}.{key}: there is no such key.{hint}"
        elif isinstance(value, Mapping) and (inner := _dataclass_in(hints[key])):
            yield from _unknown(inner, value, f"{group}.{key}")


def _build(kind: Any, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    made: dict[str, Any] = {}
    for key, value in values.items():
        inner = _dataclass_in(hints[key])
        made[key] = _build(inner, value) if inner and isinstance(value, Mapping) else _plain(value)
    missing = [f.name for f in fields(kind) if f.name not in made and _required(f)]
    check(not missing, f"{kind.__name__} needs {', '.join(missing)}, which the configuration does not give.")
    return kind(**made)


def _required(spec: Any) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that an annotation is or allows."""
    candidates = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return next((c for c in candidates if isinstance(c, type) and is_dataclass(c)), None)


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind (OmegaConf's too) as dict and list."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    return value


def check_literals(choice: Any, group: str) -> None:
    """Every field with a fixed set of values has one of them."""
    problems = []
    for name, hint in get_type_hints(type(choice)).items():
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        allowed = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
        value = getattr(choice, name)
        optional = type(None) in kinds
        if isinstance(value, Mapping) and any(get_origin(kind) is Mapping for kind in kinds):
            continue
        if allowed and value not in allowed and not (optional and value is None):
            listed = ", ".join(map(str, allowed)) + (" or null" if optional else "")
            problems.append(f"{group}.{name}={value}: allowed are {listed}.")
    check(not problems, "\n".join(problems))


def check(holds: bool, message: str) -> None:
    """Raises ConfigError with the message unless it holds."""
    if not holds:
        raise ConfigError(message)

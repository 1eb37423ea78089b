"""What a configuration may hold: the fixed sections as models, the groups with `_target_` from their constructors."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from experiments.config.launcher_config import LAUNCHERS, Cluster
from experiments.config.model_config import ModelConfig
from experiments.config.peft_config import MODES
from experiments.config.signatures import REQUIRED, arguments
from experiments.config.task_config import TaskConfig
from experiments.config.tracker_config import TRACKERS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]

CHOICES = {"model": ModelConfig, "task": TaskConfig, "cluster": Cluster}  # groups that a dataclass describes
KINDS: dict[str, dict[str, Any]] = {
    "peft": MODES,
    "launcher": LAUNCHERS,
    "tracker": TRACKERS,
}  # groups with a dataclass for each name
TARGETS = ("optimizer", "schedule")  # groups whose YAML is a constructor call


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, and nothing is converted but whole numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """1e3 is a whole number, a revision of digits only is text, and a YAML list may be a tuple."""
        kinds = plain_kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
            return int(value)
        if type(value) is int and str in kinds and not kinds & {int, float}:
            return str(value)
        if isinstance(value, list) and tuple in kinds:
            return tuple(value)
        return value


class Anything(Section):
    """Stands where a section cannot be known, so that the rest is still checked."""

    model_config = ConfigDict(extra="allow")


class Seeds(Section):
    """What a run draws, each part under a number of its own; null follows `seed`."""

    split: Seed | None = None
    test: Seed | None = 0
    order: Seed | None = None
    init: Seed | None = None
    directions: Seed | None = None
    dropout: Seed | None = None


class Budget(Section):
    """How long to train; exactly one is set."""

    steps: Count | None = None
    forward_passes: Count | None = None
    minutes: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Budget":
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are set" if given else "none is set"
            raise ValueError(
                f"exactly one of steps, forward_passes and minutes is set, the others are null; {said}."
            )
        return self


class Batch(Section):
    """Examples a step, and how many of them go through the model at once."""

    size: Count = 16
    micro: Count | None = None


class Evaluate(Section):
    """Evaluation on dev and test."""

    batch: Count = 64


class Stop(Section):
    """When dev is looked at, and when training ends early."""

    every: Count | None = None
    patience: Count | None = None
    by: Literal["metric", "loss"] = "metric"
    on_nan: Literal["stop", "skip"] = "stop"


class Checkpoint(Section):
    """Snapshots beside the journal."""

    max_replay_minutes: Positive = 10.0
    accept: list[str] = []


class Ranks(Section):
    """How several processes share a run; null: each is a run of its own."""

    share: Literal["probes", "batch", "both"] | None = "probes"
    check_every: Count = 100
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    timeout_seconds: Positive = 600.0


class Paths(Section):
    """Where things go."""

    runs: str = "runs"
    models: str = "models"


class Fixed(Section):
    """The sections that are the same for every choice of groups."""

    seed: Seed = 0
    seeds: Seeds
    budget: Budget
    batch: Batch
    probes_per_forward: Literal["auto", "all"] | Count = "auto"
    update: Literal["auto", "nearest", "stochastic", "master"] = "auto"
    kernels: Literal["auto", "eager", "native", "triton"] = "auto"
    evaluate: Evaluate
    stop: Stop
    select: Literal["last", "best"] = "last"
    select_by: Literal["metric", "loss"] = "metric"
    checkpoint: Checkpoint
    ranks: Ranks
    threads: Count | None = None
    paths: Paths
    save: bool = True
    experiment: str = "default"


def schema(names: dict[str, str], targets: dict[str, type[Section]]) -> type[Section]:
    """The model of a whole configuration: the fixed sections and those of the chosen files.

    names: of the files chosen in the groups of KINDS.
    """
    choices = CHOICES | {
        group: kinds.get(names[group], next(iter(kinds.values()))) for group, kinds in KINDS.items()
    }
    sections: dict[str, type[Section]] = {name: from_dataclass(choice) for name, choice in choices.items()}
    fields: dict[str, Any] = {name: (section, ...) for name, section in (sections | targets).items()}
    return create_model("Config", __base__=Fixed, **fields)


def from_dataclass(choice: Any) -> type[Section]:
    """The keys of a section that a dataclass describes, with its types and defaults."""
    hints = get_type_hints(choice)
    made: dict[str, Any] = {}
    for spec in fields(choice):
        default: Any = ...
        if spec.default is not MISSING:
            default = spec.default
        elif spec.default_factory is not MISSING:
            hint = hints[spec.name]
            default = Field(
                default_factory=from_dataclass(hint) if is_dataclass(hint) else spec.default_factory
            )
        made[spec.name] = (_sections_for(hints[spec.name]), default)
    return create_model(choice.__name__, __base__=Section, **made)


def _sections_for(hint: Any) -> Any:
    """The annotation with a Section in place of each dataclass."""
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, (_sections_for(kind) for kind in get_args(hint)))
    return from_dataclass(hint) if is_dataclass(hint) else hint


def from_constructor(target: str) -> type[Section]:
    """The keys of a YAML with `_target_`: the constructor's arguments, with its types and defaults."""
    made: dict[str, Any] = {"target": (Literal[target], Field(alias="_target_"))}
    for argument in arguments(target):
        made[argument.name] = (argument.type, ... if argument.default is REQUIRED else argument.default)
    return create_model(target, __base__=Section, **made)


def plain_kinds(annotation: Any) -> set[Any]:
    """The plain types an annotation allows at its top level."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*(plain_kinds(a) for a in get_args(annotation)))
    if origin is Annotated:
        return plain_kinds(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    return {origin or annotation}


def plain(value: Any) -> Any:
    """The same tree with lists where pydantic made tuples, as YAML and JSON know them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def keys(model: type[Section], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model, sections left out."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        section = section_in(field.annotation)
        if section:
            yield from keys(section, key + ".")
        else:
            yield key


def section_in(annotation: Any) -> type[Section] | None:
    """The section that an annotation is or allows."""
    if get_origin(annotation) in (Union, UnionType):
        return next((s for s in map(section_in, get_args(annotation)) if s), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def field_at(model: type[Section], path: list[str]) -> FieldInfo | None:
    """The field at a path, or None; inside a mapping with keys of the user's own, the mapping's."""
    head, *rest = path
    if model is Anything:
        return FieldInfo(annotation=Any)
    field = next((f for name, f in model.model_fields.items() if (f.alias or name) == head), None)
    if field is None or not rest:
        return field
    section = section_in(field.annotation)
    if section:
        return field_at(section, rest)
    return field if plain_kinds(field.annotation) & {dict, Mapping} else None


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: 'a whole number of at least 1, or null'."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, limits: list[Any]) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0], [m for extra in inner[1:] for m in getattr(extra, "metadata", [extra])])
    if origin in (Union, UnionType):
        return ", or ".join(_words(a, limits) for a in sorted(inner, key=lambda a: a is NoneType))
    if origin is Literal:
        return " or ".join(str(value) for value in inner)
    if origin in (dict, Mapping):
        return f"a mapping of names to {_words(inner[1], [])}"
    if origin in (list, tuple, Sequence):
        return f"a list of {_words(inner[0], []).removeprefix('a ')}s" if inner else "a list"
    if section_in(annotation):
        return (
            f"a mapping with the keys {', '.join(f.alias or n for n, f in annotation.model_fields.items())}"
        )
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null",
             list: "a list", dict: "a mapping", Mapping: "a mapping"}  # fmt: skip
    bounds = [
        f"{word} {getattr(limit, name)}" for limit in limits for name, word in BOUNDS if hasattr(limit, name)
    ]
    return " ".join([names.get(origin or annotation, "a value"), *([" and ".join(bounds)] if bounds else [])])


BOUNDS = (("ge", "of at least"), ("gt", "above"), ("le", "of at most"), ("lt", "below"))

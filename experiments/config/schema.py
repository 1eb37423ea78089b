"""Builds the models that check a configuration: of declared sections, and of constructors that `_target_` names."""

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo

from experiments.config.key import dataclass_in, help_of, hints
from experiments.config.run_config import KINDS, RunConfig
from experiments.config.signatures import REQUIRED, arguments
from zo.fields import Range, words


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

    @classmethod
    def in_words(cls) -> str:
        """Returns what a section takes, for zo.fields.words."""
        return f"a mapping with the keys {', '.join(f.alias or n for n, f in cls.model_fields.items())}"


class Anything(Section):
    """Stands where a section cannot be known, so that the rest is still checked."""

    model_config = ConfigDict(extra="allow")


def schema(names: dict[str, str], targets: dict[str, type[Section]]) -> type[Section]:
    """The model of a whole configuration: the keys of RunConfig, of the chosen files.

    names: of the files chosen in the groups of KINDS. targets: the sections of CALLS.
    """
    kinds = {group: kinds.get(names[group], next(iter(kinds.values()))) for group, kinds in KINDS.items()}
    sections = targets | {name: from_dataclass(kind) for name, kind in kinds.items()}
    return _whole(tuple(sections.items()))


# Building a model takes milliseconds, and every run of a sweep needs the same ones.
@functools.lru_cache(maxsize=256)
def _whole(sections: tuple[tuple[str, type[Section]], ...]) -> type[Section]:
    return _model_of(RunConfig, dict(sections))


@functools.cache
def from_dataclass(choice: Any) -> type[Section]:
    """The keys of a section that a dataclass describes, with its types, ranges and defaults."""
    return _model_of(choice, {})


def _model_of(choice: Any, sections: Mapping[str, type[Section]]) -> type[Section]:
    declared = hints(choice)
    content: dict[str, Any] = {}
    for spec in fields(choice):
        if spec.name in sections:
            content[spec.name] = (sections[spec.name], Field(..., description=help_of(declared[spec.name])))
            continue
        default: Any = ...
        if spec.default is not MISSING:
            default = spec.default
        elif spec.default_factory is not MISSING:
            inner = dataclass_in(declared[spec.name])
            default = Field(default_factory=from_dataclass(inner) if inner else spec.default_factory)
        content[spec.name] = (_for_pydantic(declared[spec.name]), default)
    return create_model(choice.__name__, __base__=Section, **content)


@functools.cache
def from_constructor(target: str) -> type[Section]:
    """The keys of a YAML with `_target_`: the constructor's arguments, with its types and defaults."""
    content: dict[str, Any] = {"target": (Literal[target], Field(alias="_target_"))}
    for argument in arguments(target):
        default = ... if argument.default is REQUIRED else argument.default
        content[argument.name] = (_for_pydantic(argument.type), default)
    return create_model(target, __base__=Section, **content)


def _for_pydantic(hint: Any) -> Any:
    """The annotation with a Section in place of each dataclass, and pydantic's bounds beside each Range."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits: dict[str, Any] = {
            name: value
            for extra in inner[1:]
            if isinstance(extra, Range)
            for name in ("ge", "gt", "le", "lt", "multiple_of")
            if (value := getattr(extra, name)) is not None
        }
        if text := help_of(hint):
            limits["description"] = text
        extras = [Field(**limits)] if limits else []
        # The Range itself stays too: zo.fields.words reads it.
        return Annotated[(_for_pydantic(inner[0]), *extras, *inner[1:])]  # type: ignore[misc]
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, map(_for_pydantic, inner))
    if origin in (list, tuple, dict):
        return GenericAlias(origin, tuple(item if item is ... else _for_pydantic(item) for item in inner))
    return from_dataclass(hint) if is_dataclass(hint) else hint


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
    """Returns in words what a field takes: 'a whole number of at least 1, or null'."""
    return words(field.annotation, [extra for extra in field.metadata if isinstance(extra, Range)])

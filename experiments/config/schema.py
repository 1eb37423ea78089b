"""Builds the models that check a configuration: of declared sections, and of constructors that `_target_` names."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo

from experiments.config.key import dataclass_in, help_of, hints
from experiments.config.run_config import KINDS, RunConfig
from experiments.config.signatures import REQUIRED, arguments


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


def schema(names: dict[str, str], targets: dict[str, type[Section]]) -> type[Section]:
    """The model of a whole configuration: the keys of RunConfig, of the chosen files.

    names: of the files chosen in the groups of KINDS. targets: the sections of CALLS.
    """
    kinds = {group: kinds.get(names[group], next(iter(kinds.values()))) for group, kinds in KINDS.items()}
    sections = targets | {name: from_dataclass(kind) for name, kind in kinds.items()}
    return _model_of(RunConfig, sections)


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
        content[spec.name] = (_sections_for(declared[spec.name]), default)
    return create_model(choice.__name__, __base__=Section, **content)


def _sections_for(hint: Any) -> Any:
    """The annotation with a Section in place of each dataclass."""
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, (_sections_for(kind) for kind in get_args(hint)))
    if get_origin(hint) is Annotated:
        kind, *extras = get_args(hint)
        return Annotated[(_sections_for(kind), *extras)]  # type: ignore[misc]
    return from_dataclass(hint) if is_dataclass(hint) else hint


def from_constructor(target: str) -> type[Section]:
    """The keys of a YAML with `_target_`: the constructor's arguments, with its types and defaults."""
    made: dict[str, Any] = {"target": (Literal[target], Field(alias="_target_"))}
    for argument in arguments(target):
        default = ... if argument.default is REQUIRED else argument.default
        made[argument.name] = (_bounded(argument.type), default)
    return create_model(target, __base__=Section, **made)


def _bounded(hint: Any) -> Any:
    """The annotation with pydantic's bounds in place of zo's ranges, which hold ge, gt, le, lt and multiple_of."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = {
            name: value
            for extra in inner[1:]
            for name in ("ge", "gt", "le", "lt", "multiple_of")
            if (value := getattr(extra, name, None)) is not None
        }
        kind = _bounded(inner[0])
        return Annotated[kind, Field(**limits)] if limits else kind
    if origin in (Union, UnionType):
        return functools.reduce(operator.or_, map(_bounded, inner))
    if origin in (list, tuple, dict):
        return GenericAlias(origin, tuple(item if item is ... else _bounded(item) for item in inner))
    return hint


def choices_of(annotation: Any) -> list[str]:
    """The texts that an annotation's closed sets allow."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [value for value in inner if isinstance(value, str)]
    if origin in (Union, UnionType) or origin is Annotated:
        return [text for member in inner for text in choices_of(member)]
    return []


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
    name = names.get(origin or annotation, "a value")
    if annotation not in (int, float):
        return name
    bounds = [
        f"{word} {getattr(limit, bound)}"
        for bound, word in BOUNDS
        for limit in limits
        if hasattr(limit, bound)
    ]
    text = " and ".join(bounds)
    return " ".join([name, *([f"of {text}" if text.startswith("at") else text] if bounds else [])])


BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))

"""Describes keys of the configuration for people: --help, and the table of docs/configuration.md."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from pydantic.fields import FieldInfo

from experiments.config.key import UNHASHED, bare, help_of, hints
from experiments.config.run_config import CALLS, KINDS, RunConfig, plain
from experiments.config.schema import (
    Section,
    allowed,
    field_at,
    from_constructor,
    from_dataclass,
    keys,
    plain_kinds,
    schema,
    section_in,
)  # fmt: skip
from experiments.config.signatures import Unreadable
from zo.fields import choices

_WIDTH = 44  # of key and value; the sentence stands behind
_COMMENT = re.compile(r"^(\w+):[^#\n]*#\s*(.*)$", re.MULTILINE)


def described(tree: DictConfig) -> str:
    """Returns a composed configuration as YAML, each key with its help and what it takes as a comment."""
    values: Any = OmegaConf.to_container(tree)
    return "\n".join(_lines(_model(values), values, [], comments_of(values))) + "\n"


def values_of_keys(tree: DictConfig) -> dict[str, list[str]]:
    """Returns every key of a composed configuration, with the values that are its only ones; none if there are more."""
    model = _model(OmegaConf.to_container(tree))
    found: dict[str, list[str]] = {}
    for key in keys(model):
        annotation = getattr(field_at(model, key.split(".")), "annotation", None)
        booleans = ["true", "false"] if bool in plain_kinds(annotation) else []
        found[key] = [*choices(annotation), *booleans]
    return found


def _model(values: Any) -> type[Section]:
    """Returns the schema of the groups and constructors that a configuration chose."""
    targets: dict[str, type[Section]] = {}
    for name in CALLS:
        try:
            targets[name] = from_constructor(str(values[name].get("_target_")))
        except Unreadable:
            continue
    return schema({group: str(values[group].get("name")) for group in KINDS}, targets)


def comments_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns help for the keys of constructors: the comments of the files that have the same `_target_`."""
    from experiments.config.compose import places

    comments: dict[str, str] = {}
    for group in CALLS:
        for path in [file for place in reversed(places()) for file in sorted((place / group).glob("*.yaml"))]:
            text = path.read_text(encoding="utf-8")
            if f"_target_: {values[group].get('_target_')}\n" in text:
                comments |= {f"{group}.{key}": words for key, words in _COMMENT.findall(text)}
    return comments


def _lines(
    model: type[Section], values: Mapping[str, Any], path: list[str], comments: Mapping[str, str]
) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        here = [*path, key]
        section = section_in(field.annotation)
        value = values.get(key, None if field.is_required() else plain(_default(field)))
        indent = "  " * len(path)
        if section is not None and isinstance(value, Mapping):
            yield _commented(f"{indent}{key}:", field.description or "")
            yield from _lines(section, value, here, comments)
            continue
        text = "null" if value is None else _flow(value)
        sentence = field.description or comments.get(".".join(here), "")
        takes = "" if key in ("_target_", "name") and len(here) > 1 else allowed(field)
        yield _commented(f"{indent}{key}: {text}", f"{sentence} ({takes})" if takes else sentence)


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return value.model_dump(by_alias=True) if isinstance(value, Section) else value


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _commented(line: str, words: str) -> str:
    return f"{line:<{_WIDTH}}  # {words}" if words else line


def key_table() -> str:
    """Returns the Markdown table of all keys: help, allowed values, default, and whether they enter the hash."""
    rows = ["| key | what it says | it takes | default | in the hash |", "|---|---|---|---|---|"]
    model = from_dataclass(RunConfig)
    rows += _rows(RunConfig, model, "", hashed=True)
    return "\n".join(rows) + "\n"


def _rows(kind: type, model: type[Section], above: str, *, hashed: bool) -> Iterator[str]:
    declared = hints(kind)
    for spec in fields(kind):
        name, hint = f"{above}{spec.name}", declared[spec.name]
        counts = hashed and UNHASHED not in getattr(hint, "__metadata__", ())
        inner = bare(hint)
        if spec.name in (*CALLS, *KINDS):
            options = " ".join(f"`{option}`" for option in KINDS.get(spec.name, ())) or "a file of its group"
            yield f"| `{name}` | {help_of(hint)} | {options} | | {_yes(counts)} |"
        elif isinstance(inner, type) and is_dataclass(inner):
            yield from _rows(inner, model, f"{name}.", hashed=counts)
        else:
            field = field_at(model, name.split("."))
            takes = allowed(field) if field is not None else ""
            default = "" if spec.default is MISSING else f"`{_flow(plain(spec.default))}`"
            if spec.default_factory is not MISSING:
                default = f"`{_flow(plain(spec.default_factory()))}`"
            yield f"| `{name}` | {help_of(hint)} | {takes} | {default} | {_yes(counts)} |"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"

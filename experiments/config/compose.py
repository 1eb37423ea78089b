"""Overrides in Hydra's grammar, checked against conf/ and the schema, then composed by Hydra.

Every override is looked at by itself, so that one message lists everything that is wrong.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from experiments.config import own_files
from experiments.config import resolvers as resolvers  # for ${by:...}
from experiments.config.acting import conditions, idle
from experiments.config.combinations import combinations
from experiments.config.conf_files import read_files
from experiments.config.problems import Problem, did_you_mean, key_meant, one_of
from experiments.config.run_config import CALLS, KINDS, RunConfig, parse_section, plain
from experiments.config.schema import (
    Anything,
    Section,
    allowed,
    field_at,
    from_constructor,
    keys,
    schema,
    section_in,
)
from experiments.config.signatures import Unreadable
from experiments.rundir.code_places import shipped
from zo.errors import ConfigError
from zo.fields import hint

CONF = shipped("conf")
# Chosen by the machine and the model, not on the command line.
HIDDEN = ("local", "recipe")
OPEN = ("experiment", "debug")  # groups of which nothing need be chosen, so that null is a choice
BUDGETS = ("steps", "forward_passes", "minutes")


@dataclass
class Composed:
    """A composed configuration (None when nothing could be composed), complete once it is valid, and the problems."""

    tree: DictConfig | None = None
    config: RunConfig | None = None
    problems: list[Problem] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)  # the sections that are right, typed


def places() -> list[Path]:
    """Returns the folders that hold files of configuration: conf/, conf/local, and the user's own."""
    return [CONF, *([CONF / "local"] if (CONF / "local").is_dir() else []), *own_files.own_folders()]


def groups() -> dict[str, list[str]]:
    """Each group of conf/ and its options, those of conf/local/<group> and of the user's own folder too."""
    options_by_group = {}
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in HIDDEN):
        options = {
            path.relative_to(place).with_suffix("").as_posix()
            for place in (above / folder.name for above in places())
            for path in place.rglob("*.yaml")
        }
        options_by_group[folder.name] = sorted(options)
    return options_by_group


def compose(overrides: Sequence[str]) -> Composed:
    """Composes the overrides of a command line and lists their problems, without importing torch."""
    result = Composed()
    if (nowhere := own_files.missing()) is not None:
        result.problems.append(Problem(*nowhere))
    choices, values = _sort(overrides, result.problems)
    try:
        tree = read_files([str(o.input_line) for o in choices], places())
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        result.problems.append(Problem("conf/", f"The files cannot be put together: {error}"))
        return result
    model = _model(tree, values, result.problems)
    good = [o for o in values if _key_exists(o, model, result.problems)]
    _set(tree, model, good, result.problems)
    result.tree = tree
    config = _validate(tree, model, good, result)
    result.config = None if result.problems else config
    return result


def _sort(overrides: Sequence[str], problems: list[Problem]) -> tuple[list[Override], list[Override]]:
    """The good overrides: those that choose a file of a group, and those that set a key."""
    parser = OverridesParser.create()
    options = groups()
    choices: list[Override] = []
    values: list[Override] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(Problem(text, unread(text, options)))
            continue
        key = override.key_or_group
        wrong = _form(override)
        if wrong:
            problems.append(Problem(text, wrong))
        elif key in options and not isinstance(override.value(), dict):
            wrong = _choice(key, override.value(), options[key])
            if wrong:
                problems.append(Problem(text, wrong))
            elif override.value() is not None:
                choices.append(override)
        else:
            values.append(override)
    return choices, values


def unread(text: str, groups_of_conf: Collection[str] = ()) -> str:
    """Returns a sentence on a text that is no override, in place of the parser's words, which speak of tokens."""
    key, equals, value = text.partition("=")
    if not equals:
        near = did_you_mean(key, groups_of_conf)
        hint = f" Is it {key}=OPTION?" if key in groups_of_conf else near
        return f"It sets nothing: there is no equals sign.{hint} Write key=value, or group=option."
    if not re.fullmatch(r"[+~]*[\w./@:-]+", key, re.ASCII):
        return "There is no key before the equals sign. Write key=value, or group=option."
    return (
        f"The value {value} cannot be read. Write key=value; one with blanks, brackets or quotation marks is "
        "quoted twice: 'key=\"a value\"'."
    )


def _form(override: Override) -> str | None:
    """Returns what is wrong with the form of an override, whatever its key."""
    key = override.key_or_group
    if not key:
        return unread(override.input_line or "=")
    if key.split(".")[0].split("/")[0] == "hydra":
        if key.partition("/")[2].split("@")[0] in ("launcher", "sweeper"):
            return "Hydra's launchers and sweepers are not used here: launcher=local or launcher=slurm says where " \
                   "runs go, and -m goes over values. docs/clusters.md has both."  # fmt: skip
        return "Hydra's own settings have no effect here: paths.runs says where runs go, --cfg job shows everything."
    if override.is_add() or override.is_force_add():
        return f"Nothing is added to the configuration: every key that means something exists. Write {key}=value."
    if override.is_delete():
        return "Nothing is taken out of the configuration. A key that can be left open takes null."
    if override.is_sweep_override():
        return "This names several values: add -m to run each of them. A list is written with brackets: key=[a,b]."
    if override.package is not None:
        return f"A group's place in the configuration is fixed. Write {key}=option."
    return None


def _choice(group: str, value: Any, options: list[str]) -> str | None:
    if value is None and group in OPEN:
        return None
    if isinstance(value, list):
        return f"One option is chosen, not several: {one_of(options)}."
    if str(value) in options:
        files = [file for place in places() if (file := place / group / f"{value}.yaml").is_file()]
        if len(files) < 2:
            return None
        return f"Two files have this name, {files[0]} and {files[1]}. Rename the second, which is your own."
    return (
        f"conf/{group} has no option {value}.{did_you_mean(str(value), options)} Options: {one_of(options)}."
    )


def _model(tree: DictConfig, values: Sequence[Override], problems: list[Problem]) -> type[Section]:
    """The schema of the chosen groups; a `_target_` on the command line counts."""
    config: Any = OmegaConf.to_container(tree)
    written = {o.key_or_group: o for o in values}
    sections: dict[str, type[Section]] = {}
    for name in CALLS:
        override = written.get(f"{name}._target_")
        target = str(override.value() if override else config[name].get("_target_"))
        try:
            sections[name] = from_constructor(target)
            conditions(target)
        except Unreadable as error:
            where = override.input_line if override else f"{name}._target_: {target}"
            problems.append(Problem(str(where), f"This cannot be called: {error}."))
            sections[name] = Anything
    names = {group: str(config[group].get("name")) for group in KINDS}
    return schema(names, sections)


def _key_exists(override: Override, model: type[Section], problems: list[Problem]) -> bool:
    key = override.key_or_group
    path = key.split(".")
    if field_at(model, path) is not None:
        return True
    section = ".".join(path[:-1])
    known = list(keys(model)) if section else list(dict.fromkeys([*groups(), *keys(model)]))
    what = f"There is no key {key}.{key_meant(key, known)}"
    neighbours = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == section]
    if neighbours:
        what += f" {f'Keys of {section}' if section else 'Groups and keys without a group'}: {one_of(neighbours)}."
    problems.append(Problem(override.input_line or key, what))
    return False


def _set(tree: DictConfig, model: type[Section], values: Sequence[Override], problems: list[Problem]) -> None:
    """Writes the values as Hydra does, after everything the files say.

    A budget on the command line replaces that of the files: the kinds that it does not name become null.
    """
    if any(o.key_or_group.split(".")[0] == "budget" and o.value() is not None for o in values):
        tree["budget"] = dict.fromkeys(BUDGETS)
    for override in values:
        try:
            OmegaConf.update(tree, override.key_or_group, override.value(), merge=True, force_add=True)
        except OmegaConfBaseException:  # a list in place of a mapping, or the other way round
            field = field_at(model, override.key_or_group.split("."))
            what = "It does not fit there." if field is None else f"It takes {allowed(field)}."
            problems.append(Problem(str(override.input_line), what))


def _validate(
    tree: DictConfig, model: type[Section], values: Sequence[Override], result: Composed
) -> RunConfig | None:
    """The complete configuration with every default filled in, or None and the problems."""
    written = {o.key_or_group: str(o.input_line) for o in values}

    def place(key: str, otherwise: str) -> str:
        """Returns the user's override of a key, or the first one below it."""
        below = next((text for other, text in written.items() if other.startswith(key + ".")), otherwise)
        return written.get(key, below)

    try:
        content: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        key = str(error.full_key or "conf/")
        words = re.sub(r"^ConfigError raised while resolving interpolation: ", "", str(error))
        result.problems.append(Problem(written.get(key, key), words.splitlines()[0]))
        return None
    problems: list[Problem] = []
    bad: set[str] = set()  # sections that the schema refuses
    try:
        content = model.model_validate(content).model_dump(by_alias=True)
    except ValidationError as error:
        items = {".".join(_path(model, item["loc"])): item for item in reversed(error.errors())}
        for key, item in reversed(items.items()):
            bad.add(key.partition(".")[0])
            has_value = item["type"] != "missing" and not isinstance(item["input"], dict)
            where = f"{key}={item['input']}" if has_value else key
            problems.append(Problem(place(key, where), _sentence(model, key, item)))
        content |= {name: _typed(model, name, content[name]) for name in content.keys() - bad}
    parts = result.parts
    for name in model.model_fields:
        try:
            if name not in bad and name in content:  # where something is refused, no default is filled in
                parts[name] = parse_section(name, content[name])
        except ConfigError as error:
            for line in str(error).splitlines():
                where, _, what = line.partition(": ")
                problems.append(Problem(place(where, where), what))
    optimizer = content.get("optimizer")
    options = optimizer if isinstance(optimizer, dict) else {}
    problems += combinations(parts, options.get("directions"), place)
    if not problems:
        problems += _without_effect(plain(content), values)
    result.problems += problems
    return None if problems else RunConfig(**parts)


def _typed(model: type[Section], name: str, value: Any) -> Any:
    """Returns a valid section with its values converted to their declared types, though another one is refused."""
    if name not in model.model_fields:
        return value
    declared = model.model_fields[name]
    section: TypeAdapter[Any] = TypeAdapter(Annotated[declared.annotation, declared])  # pyright: ignore
    return section.dump_python(section.validate_python(value), by_alias=True)


def _without_effect(config: dict[str, Any], values: Sequence[Override]) -> list[Problem]:
    """Options given by hand that have no effect beside the others: a sweep over one would train the same run twice."""
    problems = []
    for group in CALLS:
        if not isinstance(config[group]["_target_"], str):
            continue  # listed already
        for name, condition in idle(config[group]).items():
            what = (
                f"{group}.{name} acts where {condition}, which is not so here: the run is the same with any value. "
                "Leave it out, or change what it hangs on."
            )
            for override in values:
                value = override.value() if override.key_or_group == group else None
                if override.key_or_group == f"{group}.{name}" or (isinstance(value, dict) and name in value):
                    problems.append(Problem(str(override.input_line), what))
    return problems


def _path(model: type[Section], loc: Sequence[int | str]) -> list[str]:
    """The key an error of pydantic's is about: its location up to where the schema's own keys end."""
    path: list[str] = []
    for part in loc:
        if path and not section_in(getattr(field_at(model, path), "annotation", None)):
            break
        path.append(str(part))
    return path


def _sentence(model: type[Section], key: str, item: Any) -> str:
    """Returns a sentence that says what is allowed where pydantic refused a value."""
    target = field_at(model, key.split("."))
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if target is None:
        return f"There is no such key.{key_meant(key, list(keys(model)))}"
    if item["type"] == "missing" and not isinstance(item["loc"][-1], int):  # else an item of a list
        return f"It has no value; it takes {allowed(target)}."
    if isinstance(item["input"], bool) and any(isinstance(part, int) for part in item["loc"]):
        return (
            f"It takes {allowed(target)}. YAML reads yes and no without quotes as true and false: quote them."
        )
    return f"It takes {allowed(target)}.{hint(item['input'], target.annotation)}"

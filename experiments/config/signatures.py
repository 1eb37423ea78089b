"""A constructor's arguments, read from its source without importing it.

A YAML with `_target_: zo.optimizers.FZOO` holds that constructor's arguments. Importing zo's methods costs the seconds
that torch needs, so names, types, ranges and defaults come from the syntax tree instead. Two forms are read: the fields
of a dataclass, as zo's optimizers are, and the arguments of an `__init__`. What no YAML can hold (parameters, a model)
is passed by the program itself; so is what stands behind `*` in an `__init__`, and a field declared with
`field(kw_only=True)` (seed, on_nan: other keys of the configuration).

A range is `Annotated[float, Range(gt=0)]` with zo.fields.Range, or a name for that; a closed set is a Literal.
"""

import ast
import functools
import importlib.util
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Literal

from zo.fields import Range

REQUIRED: Any = object()
PLAIN_TYPES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list, "tuple": tuple, "dict": dict,
    "Sequence": list, "Mapping": dict, "Literal": Literal, "Annotated": Annotated, "Any": Any,
}  # fmt: skip


class Unreadable(Exception):
    """A target that does not lead to a class or function in a source file; the message says why."""


class _Unknown(Exception):
    """Raised for an annotation that no YAML can hold, such as a tensor."""


@dataclass(frozen=True)
class Argument:
    """One argument of a YAML: its type as Python has it (Any without annotation), its default or REQUIRED."""

    name: str
    type: Any
    default: Any


@functools.cache
def arguments(target: str) -> tuple[Argument, ...]:
    """The YAML's arguments of the class or function `package.module.Name`. Raises Unreadable."""
    module, _, name = target.rpartition(".")
    source, node = _find(module, name)
    return tuple(_arguments(source, node))


def class_attribute(target: str, name: str) -> Any:
    """Returns the plain value that the class `package.module.Name`, or the first of its bases, gives an attribute.

    None where no class does, and for a function. Raises Unreadable, also for a value that is not plain.
    """
    module, _, leaf = target.rpartition(".")
    return _attribute(*_find(module, leaf), name)


def _attribute(source: "_Source", node: ast.ClassDef | ast.FunctionDef, name: str) -> Any:
    if isinstance(node, ast.FunctionDef):
        return None
    for item in node.body:
        targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
        value = item.value if isinstance(item, ast.Assign | ast.AnnAssign) else None
        if value is not None and any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return _value(source, value)
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id not in ("ABC", "object"):
            home, parent = _lookup(source, base.id)
            if isinstance(parent, ast.ClassDef) and (inherited := _attribute(home, parent, name)) is not None:
                return inherited
    return None


def listed(module: str, name: str) -> list[str]:
    """Returns the names in the value of a module's constant, such as the classes of a table, in order."""
    source, node = _lookup(_parse(module), name)
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if value is None:
        raise Unreadable(f"{source.module}.{name} has no value")
    names = [each for each in ast.walk(value) if isinstance(each, ast.Name)]
    names.sort(key=lambda each: (each.lineno, each.col_offset))
    return list(dict.fromkeys(each.id for each in names))


@dataclass(frozen=True)
class _Source:
    """A parsed module."""

    module: str
    is_package: bool
    tree: ast.Module


def _path(module: str) -> Path | None:
    """The file of a module, found from its top-level package without importing anything."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not spec.submodule_search_locations:  # a module of one file
        source = Path(spec.origin) if spec.has_location and spec.origin else None
        return source if source is not None and source.suffix == ".py" and not rest else None
    for root in spec.submodule_search_locations:
        base = Path(root).joinpath(*rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


@functools.cache
def _parse(module: str) -> _Source:
    path = _path(module) if module else None
    if path is None:
        raise Unreadable(f"there is no module {module!r}")
    return _Source(module, path.name == "__init__.py", ast.parse(path.read_text(encoding="utf-8")))


def _imported_from(source: _Source, node: ast.ImportFrom) -> str:
    """The absolute module that `from ... import` names."""
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    parts = parts[: len(parts) - node.level + source.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _lookup(source: _Source, name: str) -> tuple[_Source, ast.stmt]:
    """The statement that defines `name` in a module, followed through its imports."""
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return source, node
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return source, node
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return source, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _lookup(_parse(_imported_from(source, node)), alias.name)
    raise Unreadable(f"{source.module} has no {name!r}")


def _find(module: str, name: str) -> tuple[_Source, ast.ClassDef | ast.FunctionDef]:
    source, node = _lookup(_parse(module), name)
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        raise Unreadable(f"{module}.{name} is no class or function")
    return source, node


def _arguments(source: _Source, node: ast.ClassDef | ast.FunctionDef) -> list[Argument]:
    if isinstance(node, ast.FunctionDef):
        return _of_function(source, node, skip=0)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _of_function(source, item, skip=1)
    if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return _of_dataclass(source, node)
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id not in ("ABC", "object"):
            home, parent = _lookup(source, base.id)
            if isinstance(parent, ast.ClassDef):
                return _arguments(home, parent)
    return []


def _of_function(source: _Source, node: ast.FunctionDef, skip: int) -> list[Argument]:
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    pairs = [*zip(positional, defaults, strict=True)][skip:]
    return _known(source, [(arg.arg, arg.annotation, default) for arg, default in pairs])


def _of_dataclass(source: _Source, node: ast.ClassDef) -> list[Argument]:
    arguments: dict[str, Argument] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id not in ("ABC", "object"):
            home, parent = _lookup(source, base.id)
            if isinstance(parent, ast.ClassDef):
                arguments |= {a.name: a for a in _arguments(home, parent)}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(item.annotation):
            continue
        if _passed_by_program(item.value):
            arguments.pop(item.target.id, None)
            continue
        home, annotation, default = _converted(source, item)
        for argument in _known(home, [(item.target.id, annotation, default)]):
            arguments[argument.name] = argument
    return list(arguments.values())


def _passed_by_program(value: ast.expr | None) -> bool:
    """Returns whether a field is declared `field(kw_only=True)` or `field(init=False)`: no YAML names it."""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field"):
        return False
    given = {k.arg: getattr(k.value, "value", None) for k in value.keywords}
    return given.get("kw_only") is True or given.get("init") is False


def _converted(source: _Source, item: ast.AnnAssign) -> tuple[_Source, ast.expr, ast.expr | None]:
    """Returns the scope of a field's annotation, the annotation and the default.

    For a descriptor these are what its `__set__` takes, and its first argument.
    """
    as_written = source, item.annotation, item.value
    if (
        not isinstance(item.annotation, ast.Name)
        or not isinstance(item.value, ast.Call)
        or not item.value.args
    ):
        return as_written
    try:
        home, statement = _lookup(source, item.annotation.id)
    except Unreadable:
        return as_written
    for method in statement.body if isinstance(statement, ast.ClassDef) else []:
        if isinstance(method, ast.FunctionDef) and method.name == "__set__":
            annotation = method.args.args[-1].annotation
            return as_written if annotation is None else (home, annotation, item.value.args[0])
    return as_written


def _known(source: _Source, items: list[tuple[str, ast.expr | None, ast.expr | None]]) -> list[Argument]:
    """Arguments from names, annotations and defaults; those with a type that no YAML holds are left out."""
    known = []
    for name, annotation, default in items:
        try:
            kind = Any if annotation is None else _type(source, annotation)
        except _Unknown:
            continue
        known.append(Argument(name, kind, REQUIRED if default is None else _value(source, default)))
    return known


def _value(source: _Source, node: ast.expr) -> Any:
    """A default: a literal, or a constant of the module."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        return _value(source, node.left) << _value(source, node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return _value(source, node.left) - _value(source, node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(source, node.operand)
    if isinstance(node, ast.Name):
        home, statement = _lookup(source, node.id)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            return _value(home, statement.value)
    raise Unreadable(f"the default {ast.unparse(node)} in {source.module} is no plain value")


def _type(source: _Source, node: ast.expr) -> Any:
    """An annotation as a type, built from the plain types and the module's own aliases."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _type(source, ast.parse(node.value, mode="eval").body)
        if node.value is None:
            return None
    if isinstance(node, ast.Name):
        if node.id in PLAIN_TYPES:
            return PLAIN_TYPES[node.id]
        try:
            home, statement = _lookup(source, node.id)
        except Unreadable as error:
            raise _Unknown from error
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            return _type(home, statement.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(source, node.left, node.right)
    if isinstance(node, ast.Subscript):
        origin: Any = _type(source, node.value)
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if origin is Literal:
            return Literal[tuple(ast.literal_eval(p) for p in parts)]
        if origin is Annotated:
            bounds = [limit for part in parts[1:] for limit in _limits(source, part)]
            return Annotated[(_type(source, parts[0]), *bounds)]
        if origin in (list, dict, tuple):
            inner: list[Any] = [
                ... if isinstance(p, ast.Constant) and p.value is ... else _type(source, p) for p in parts
            ]
            return GenericAlias(origin, tuple(inner))
    raise _Unknown


def _limits(source: _Source, node: ast.expr) -> Iterator[Range]:
    """The Range that a call of zo.fields.Range makes; other metadata says nothing here."""
    if isinstance(node, ast.Name):
        home, statement = _lookup(source, node.id)
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            yield from _limits(home, statement.value)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        return
    home, statement = _lookup(source, node.func.id)
    if home.module == Range.__module__ and getattr(statement, "name", "") == Range.__name__:
        yield Range(
            **{word.arg: _value(source, word.value) for word in node.keywords if word.arg is not None}
        )


def _union(source: _Source, *members: ast.expr) -> Any:
    """The members a YAML can hold: of `float | Callable` the float."""
    kinds = []
    for member in members:
        try:
            kinds.append(_type(source, member))
        except _Unknown:
            continue
    if not kinds:
        raise _Unknown
    return functools.reduce(operator.or_, kinds)

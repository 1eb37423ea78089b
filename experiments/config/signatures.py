"""A constructor's arguments, read from its source without importing it.

A YAML with `_target_: zo.optimizers.FZOO` holds that constructor's arguments. Importing zo costs the seconds that
torch needs, so names, types and defaults come from the syntax tree instead. What no YAML can hold (parameters, a
model) and what stands behind `*` (seed, on_nan: other keys of the configuration) is passed by the program itself.
"""

import ast
import functools
import importlib.util
import operator
import typing
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal

REQUIRED: Any = object()
PLAIN_TYPES: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list, "tuple": tuple, "dict": dict,
    "Sequence": list, "Mapping": dict, "Literal": Literal, "Any": Any,
}  # fmt: skip


class Unreadable(Exception):
    """A target that does not lead to a class or function in a source file; the message says why."""


class _Unknown(Exception):
    """An annotation that names something no YAML can hold, such as a tensor."""


@dataclass(frozen=True)
class Argument:
    """One argument of a YAML: its type as Python has it (Any without annotation), its default or REQUIRED."""

    name: str
    type: Any
    default: Any


def arguments(target: str) -> list[Argument]:
    """The YAML's arguments of the class or function `package.module.Name`. Raises Unreadable."""
    module, _, name = target.rpartition(".")
    source, node = _find(module, name)
    return _arguments(source, node)


def class_attribute(target: str, name: str) -> Any:
    """The plain value that the class `package.module.Name`, or the first of its bases, gives an attribute of its own;
    None where none does, and of a function. Raises Unreadable, also for a value that is not plain.
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
            if isinstance(parent, ast.ClassDef) and (found := _attribute(home, parent, name)) is not None:
                return found
    return None


def listed(module: str, name: str) -> list[str]:
    """The names in the value that a module gives a constant, such as the classes of a table, in their order."""
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
    inherited: list[Argument] = []
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id not in ("ABC", "object"):
            home, parent = _lookup(source, base.id)
            if isinstance(parent, ast.ClassDef):
                inherited += _arguments(home, parent)
    fields = [
        item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    own = _known(
        source,
        [
            (typing.cast(ast.Name, f.target).id, f.annotation, f.value)
            for f in fields
            if "ClassVar" not in ast.unparse(f.annotation)
        ],
    )
    names = {a.name for a in own}
    return [*(a for a in inherited if a.name not in names), *own]


def _known(source: _Source, items: list[tuple[str, ast.expr | None, ast.expr | None]]) -> list[Argument]:
    """Arguments from names, annotations and defaults; those with a type that no YAML holds are left out."""
    found = []
    for name, annotation, default in items:
        try:
            kind = Any if annotation is None else _type(source, annotation)
        except _Unknown:
            continue
        found.append(Argument(name, kind, REQUIRED if default is None else _value(source, default)))
    return found


def _value(source: _Source, node: ast.expr) -> Any:
    """A default: a literal, or a constant of the module."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
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
        if origin in (list, dict, tuple):
            inner: list[Any] = [
                ... if isinstance(p, ast.Constant) and p.value is ... else _type(source, p) for p in parts
            ]
            return GenericAlias(origin, tuple(inner))
    raise _Unknown


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

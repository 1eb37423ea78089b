"""Options that act only beside certain values of others, as a constructor's `acts_when` declares.

    class MeZOMomentum(TwoPoint):
        acts_when = {"horizon": "momentum != 0"}

An option without an entry always acts. A condition is a Python expression of the constructor's own arguments, with
and, or, comparisons, `in` and constants, and nothing else: it is read from the source and worked out here, so that
neither torch nor the class is needed. What does not act is no part of a run's hash (`settled`), and is refused where
it is given by hand (`idle`).
"""

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from experiments.config.signatures import REQUIRED, Unreadable, arguments, class_attribute

MEMORY_ONLY = ("gradient_checkpointing",)  # options that change memory and time, and no bit: never in a hash
NOISE = ("directions", "dropout")  # of `seeds`; an optimizer draws one of them
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda value, among: value in among, ast.NotIn: lambda value, among: value not in among,
}  # fmt: skip


@functools.cache
def conditions(target: str) -> Mapping[str, str]:
    """The options of `package.module.Name` that do not always act, each with its condition.

    Raises Unreadable, also for a condition that is none, or one of something that is no argument.
    """
    declared = class_attribute(target, "acts_when") or {}
    known = {each.name for each in arguments(target)}
    for name, condition in declared.items():
        names = {node.id for node in ast.walk(_parsed(target, condition)) if isinstance(node, ast.Name)}
        if unknown := sorted(({name} | names) - known):
            raise Unreadable(f"acts_when of {target} names {', '.join(unknown)}, which it does not take")
    return declared


def idle(section: Mapping[str, Any]) -> dict[str, str]:
    """The options of a section with `_target_` that have no effect as it stands, each with when it would have one."""
    try:
        declared, values = conditions(section["_target_"]), _values(section)
    except Unreadable:
        return {}
    return {name: condition for name, condition in declared.items() if not _holds(condition, values)}


def settled(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with every option that has no effect at its constructor's default.

    One after another, as what has no effect may be what another option's effect hangs on.
    """
    try:
        declared = dict(conditions(section["_target_"]))
        defaults = {each.name: each.default for each in arguments(section["_target_"])}
        values = _values(section)
    except Unreadable:
        return dict(section)
    while (
        name := next((n for n, condition in declared.items() if not _holds(condition, values)), None)
    ) is not None:
        values[name] = _plain(defaults[name])
        del declared[name]
    return {key: values.get(key, value) for key, value in section.items()}


def noise_of(section: Mapping[str, Any]) -> str:
    """The one of `seeds` under which an optimizer of these options draws its own random numbers."""
    return "dropout" if "dropout" in section else "directions"


def _values(section: Mapping[str, Any]) -> dict[str, Any]:
    given = {
        each.name: each.default for each in arguments(section["_target_"]) if each.default is not REQUIRED
    }
    return given | dict(section)


def _plain(value: Any) -> Any:
    """A tuple as the list that YAML has for it."""
    return list(value) if isinstance(value, tuple) else value


@functools.cache
def _parsed(target: str, condition: str) -> ast.expr:
    try:
        return ast.parse(condition, mode="eval").body
    except SyntaxError as error:
        raise Unreadable(f"acts_when of {target} has {condition!r}, which is no condition") from error


def _holds(condition: str, values: Mapping[str, Any]) -> bool:
    return bool(_worked_out(_parsed("", condition), values))


def _worked_out(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BoolOp):
        parts = (_worked_out(part, values) for part in node.values)
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        compare = _COMPARISONS[type(node.ops[0])]
        return compare(_worked_out(node.left, values), _worked_out(node.comparators[0], values))
    if isinstance(node, ast.Name):
        return values[node.id]
    return ast.literal_eval(node)

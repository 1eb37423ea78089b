"""Lists choices of several sections that do not go together, and packages that are missing. No torch."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.config.model_config import ModelConfig
from experiments.config.peft_config import ADAPTERS
from experiments.config.problems import Problem, did_you_mean, one_of
from experiments.config.run_config import Call
from experiments.config.run_id import current_target
from experiments.config.signatures import Unreadable, arguments, class_attribute, listed
from experiments.config.task_config import TaskConfig
from experiments.config.tracker_config import need
from zo.errors import ConfigError
from zo.fields import fits, hint, words

Place = Callable[[str, str], str]
LINEAR_PROBE = "experiments.baselines.LinearProbe"


def combinations(parts: Mapping[str, Any], directions: object, place: Place) -> list[Problem]:
    """Returns the problems between sections. parts: the sections that are valid by themselves.

    directions: the kind that the optimizer is given, also where other options of its are wrong. place: what the user
    wrote of a key, or the words that stand for it.
    """
    problems: list[Problem] = []

    def note(key: str, value: object, what: str) -> None:
        problems.append(Problem(place(key, f"{key}={value}"), what))

    model, task, peft, optimizer = (parts.get(name) for name in ("model", "task", "peft", "optimizer"))
    mode = getattr(peft, "name", None)
    if isinstance(model, ModelConfig) and mode is not None and (what := quantized(model.quantization, mode)):
        note("model.quantization", model.quantization, what)
    if isinstance(task, TaskConfig) and parts.get("select") == "best" and task.dev == 0 and task.k is None:
        what = "It chooses a step on dev, but task.dev=0. Set task.dev, or select=last."
        note("select", "best", what)
    if isinstance(directions, str | dict):
        for option, what in wrong_directions(directions):
            whole = place("optimizer.directions", f"optimizer.directions={directions}")
            problems.append(
                Problem(place(f"optimizer.directions.{option}", whole) if option else whole, what)
            )
    if isinstance(optimizer, Call):
        target = current_target(optimizer.target)
        if isinstance(task, TaskConfig) and task.objective == "metric" and first_order(target):
            note(
                "task.objective", "metric", metric_needs_zeroth_order(task.metric, target.rpartition(".")[2])
            )
        if target == LINEAR_PROBE and mode not in (None, "none", "head"):
            note("peft", mode, probe_needs_whole_model())
    return problems


def direction_kinds() -> dict[str, str]:
    """Returns the kinds of directions, each with its class, as zo/directions names them; read from the source."""
    names = [name for name in listed("zo.directions", "KINDS") if name != "kind"]
    return {str(class_attribute(f"zo.directions.{name}", "name")): f"zo.directions.{name}" for name in names}


def wrong_directions(spec: str | Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with a kind of directions: the option, empty for the kind itself, and a sentence."""
    options = dict(spec) if isinstance(spec, Mapping) else {"kind": spec}
    kind, targets = options.pop("kind", None), direction_kinds()
    if kind is None:
        yield (
            "",
            f"No kind is named. Write optimizer.directions={{kind: lowrank, rank: 4}}. Kinds: {one_of(targets)}.",
        )
        return
    if not isinstance(kind, str) or kind not in targets:
        near = did_you_mean(str(kind), targets)
        yield "", f"There are no directions {kind}.{near} Kinds: {one_of(targets)}."
        return
    types = {each.name: each.type for each in arguments(targets[kind])}
    for name, value in options.items():
        if name not in types:
            near = did_you_mean(str(name), types)
            yield name, f"The directions {kind} have no option {name}.{near} Options: {one_of(types)}."
        elif not fits(value, types[name]):
            near = hint(value, types[name])
            yield name, f"The option {name} of the directions {kind} takes {words(types[name])}.{near}"


def first_order(target: str) -> bool:
    """Returns whether a class moves by gradients, as far as its source says."""
    try:
        return bool(class_attribute(target, "backward_passes"))
    except Unreadable:
        return False


def quantized(quantization: str | None, mode: str) -> str | None:
    """Returns why quantised weights do not go with a mode that would train them; None where they do."""
    if quantization is None or mode in ADAPTERS:
        return None
    return (
        f"Quantised weights cannot be trained, and peft={mode} trains weights of the model itself. Choose one of "
        f"{', '.join(f'peft={name}' for name in ADAPTERS)}, or model.quantization=null."
    )


def metric_needs_zeroth_order(metric: str, optimizer: str) -> str:
    """Returns why an optimizer that takes gradients cannot train on a metric."""
    return (
        f"This objective is minus the {metric}, which has no gradient, and {optimizer} moves by gradients. Take a "
        "zeroth-order method, such as optimizer=mezo, or a cross-entropy: task.objective=options or answer."
    )


def probe_needs_whole_model() -> str:
    """Returns why a linear probe takes no adapter."""
    return "optimizer=linear_probe fits the head of the model as it is, so nothing would train this. Take peft=none."


def missing_packages(parts: Mapping[str, Any]) -> list[Problem]:
    """Returns packages that the choices need and that are not installed here. parts: typed sections, as composed."""
    problems: list[Problem] = []
    try:
        need(parts["tracker"].name if "tracker" in parts else "none")
    except ConfigError as error:
        where, _, what = str(error).partition(": ")
        problems.append(Problem(where, what))
    model = parts.get("model")
    if (
        model is not None
        and model.quantization is not None
        and importlib.util.find_spec("bitsandbytes") is None
    ):
        what = "It needs the package bitsandbytes, which is not installed here: pip install bitsandbytes."
        problems.append(Problem(f"model.quantization={model.quantization}", what))
    return problems

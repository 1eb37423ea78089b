"""Times a step of zo, the same step by the recipe, and as many plain forwards, in turn."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.recipe import Recipe
from zo.look import ModuleLook
from zo.optimizers import Optimizer
from zo.optimizers.firstorder import BACKWARD_COST


def clock(device: torch.device, threads: int) -> Callable[[], float]:
    """Returns a clock in seconds: the process's own on one CPU thread (least disturbed), else the wall's."""
    if device.type == "cuda":

        def wait() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return wait
    return time.process_time if threads == 1 else time.perf_counter


def times(
    case: Case, *, pairs: int, device: torch.device, kernels: str, probes_per_forward: int | str
) -> dict[str, Any]:
    """Returns ratios of interleaved rounds: medians and quartiles of step, recipe (if there is one) and looks."""
    now = clock(device, torch.get_num_threads())
    inputs = cases.batch(case, device)
    network = cases.model(case, device)
    method = cases.optimizer(case, network, kernels)
    look = ModuleLook(network, cases.objective, method, probes_per_forward=probes_per_forward)
    passes = method.forward_passes + method.backward_passes * BACKWARD_COST
    looks: list[float] = []

    def step(t: int) -> None:
        began = now()
        losses = method.step(t, inputs, look)
        looks.append(now() - began)
        method.tell(t, losses)

    def forwards(t: int) -> None:
        for _ in range(passes):
            cases.plain_forward(network, inputs)

    order = [("forwards", forwards), ("step", step)]
    if case.method in cases.RECIPES:
        other = cases.model(case, device)
        n = getattr(method, "n", 1)
        recipe = Recipe(other, case.method, case.directions or "", n=n, lr=cases.LR, eps=cases.EPS)

        def published(t: int) -> None:
            recipe.step(t, lambda: cases.plain_forward(other, inputs))

        order.append(("recipe", published))
    for t in range(warm_up(method)):
        step(t)
    for _, run in order:
        run(warm_up(method))
    looks.clear()
    parts: dict[str, list[float]] = {name: [] for name, _ in order}
    for t in range(pairs):
        # Rounds start with each candidate in turn, so that their order does not bias the result.
        first = t % len(order)
        for name, run in order[first:] + order[:first]:
            began = now()
            run(warm_up(method) + 1 + t)
            parts[name].append(now() - began)
    plain, steps = parts["forwards"], parts["step"]
    row = {"forward_passes": method.forward_passes, "forward_seconds": statistics.median(plain) / passes}
    row |= ratio("step_over_forwards", steps, plain)
    if "recipe" in parts:
        row |= ratio("baseline_over_forwards", parts["recipe"], plain)
    return row | {
        "look_over_forwards": round(statistics.median(a / b for a, b in zip(looks, plain, strict=True)), 4),
        "step_over_forwards_fastest": round(min(steps) / min(plain), 4),
        "pairs": pairs,
        "kernels": method.weights.backend,
    }


def warm_up(method: Optimizer) -> int:
    """Returns the steps before a method reaches its steady state: AdaMeZO's window, and one for caches and code."""
    return 1 + getattr(method, "horizon", 0)


def ratio(name: str, above: list[float], below: list[float]) -> dict[str, Any]:
    """Returns median and quartiles of the ratios of pairs."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {name: round(middle, 4), f"{name}_quartiles": [round(low, 4), round(high, 4)]}

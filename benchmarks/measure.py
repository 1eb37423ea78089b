"""Times: a step of zo, the same step by the recipe, and as many plain forwards, in turn."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.recipe import Recipe
from zo.look import ModuleLook
from zo.optimizers import FZOO, MeZO, Optimizer
from zo.weights import Weights

LR, EPS = 1e-6, 1e-3


def optimizer(case: Case, network: torch.nn.Module, kernels: str) -> Optimizer:
    """The method of a case as a user gets it, on all weights of the model."""
    weights = Weights(network, kernels=kernels)
    made = FZOO if case.method == "fzoo" else MeZO
    return made(weights, LR, EPS, case.n, case.directions)


def clock(device: torch.device, threads: int) -> Callable[[], float]:
    """Seconds: of this process on one CPU thread, which other programs disturb least; else of the wall."""
    if device.type == "cuda":

        def wait() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return wait
    return time.process_time if threads == 1 else time.perf_counter


def times(
    case: Case, *, pairs: int, device: torch.device, kernels: str, probes_per_forward: int | str
) -> dict[str, Any]:
    """Ratios of interleaved triples: medians and quartiles of step, recipe and parts of the step."""
    now = clock(device, torch.get_num_threads())
    inputs = cases.batch(case, device)
    network = cases.model(case, device)
    method = optimizer(case, network, kernels)
    look = ModuleLook(network, cases.objective, method, probes_per_forward=probes_per_forward)
    other = cases.model(case, device)
    recipe = Recipe(other, case.method, case.directions, n=case.n, lr=LR, eps=EPS)
    looks: list[float] = []

    def step(t: int) -> None:
        began = now()
        losses = look(method.ask(t), inputs)
        looks.append(now() - began)
        method.tell(t, losses)

    def forwards(t: int) -> None:
        for _ in range(case.forwards):
            cases.plain_forward(network, inputs)

    def published(t: int) -> None:
        recipe.step(t, lambda: cases.plain_forward(other, inputs))

    parts: dict[str, list[float]] = {"forwards": [], "step": [], "recipe": []}
    for t in range(-2, pairs):
        # Each round starts elsewhere, so that what comes after what is no part of the result.
        order = [("forwards", forwards), ("step", step), ("recipe", published)]
        for name, run in order[t % 3 :] + order[: t % 3]:
            began = now()
            run(t + 2)
            parts[name].append(now() - began)
    plain, steps, published_steps, looks = (x[2:] for x in (*parts.values(), looks))  # two rounds to warm up
    return {
        "forward_seconds": statistics.median(plain) / case.forwards,
        **ratio("step_over_forwards", steps, plain),
        **ratio("baseline_over_forwards", published_steps, plain),
        "look_over_forwards": round(statistics.median(a / b for a, b in zip(looks, plain, strict=True)), 4),
        "step_over_forwards_fastest": round(min(steps) / min(plain), 4),
        "pairs": pairs,
        "kernels": method.weights.backend,
    }


def ratio(name: str, above: list[float], below: list[float]) -> dict[str, Any]:
    """Median and quartiles of the ratios of pairs."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {name: round(middle, 4), f"{name}_quartiles": [round(low, 4), round(high, 4)]}

"""Measures how much of a move 16-bit weights take: cosine and length of the change against the intended move.

python -m benchmarks.precision [--steps 60] [--every 6] [--out FILE] OVERRIDE…

The overrides are launch.py's, for instance model=minilm model.dtype=bfloat16 task=sst2 optimizer=fzoo. For each
of nearest, stochastic and master a run of its own goes on from the same weights. Every few steps the losses just
seen are told to the same method on an fp32 copy of the weights as well: its change is the move that was meant.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.config.compose import compose
from experiments.training.session import Session, build
from zo.kernels import rounding
from zo.optimizers import Optimizer
from zo.weights import Weights

UPDATES = ("nearest", "stochastic", "master")


def measure(overrides: list[str], update: str, steps: int, every: int) -> dict[str, Any]:
    """Runs once: median cosine and length ratio of change and intended move, and the losses at the ends."""
    composed = compose([*overrides, f"update={update}", f"budget.steps={steps}"])
    if composed.config is None:
        sys.exit("\n".join(f"{problem.where}: {problem.what}" for problem in composed.problems))
    session = build(composed.config)
    cosines, ratios, sizes, losses = [], [], [], []
    for t in range(steps):
        step_losses = session.optimizer.step(t, session.batch(t), session.look)
        losses.append(math.fsum(step_losses) / len(step_losses))
        old_values = values(session.optimizer.weights)
        intended = _intended_move(session, old_values, t, step_losses) if t % every == 0 else None
        session.optimizer.tell(t, step_losses)
        if intended is not None:
            change = _difference(values(session.optimizer.weights), old_values)
            cosine, ratio = compare(change, intended)
            cosines.append(cosine)
            ratios.append(ratio)
            sizes.append(math.sqrt(_dot(intended, intended) / session.optimizer.weights.numel))
    third = max(1, steps // 3)
    return {
        "method": session.method,
        "update": update,
        "lr": composed.config.optimizer.lr,
        "steps": steps,
        "cosine": round(statistics.median(cosines), 4),
        "length_ratio": round(statistics.median(ratios), 4),
        "move_per_entry": float(f"{statistics.median(sizes):.3g}"),
        "loss_first_third": round(statistics.fmean(losses[:third]), 5),
        "loss_last_third": round(statistics.fmean(losses[-third:]), 5),
    }


def values(weights: Weights) -> dict[str, Tensor]:
    """Returns the trained weights as fp32, with their low halves if these are stored."""
    tensors = {}
    for name in weights.tensors:
        source, low = weights.source(name), weights.low.get(name)
        tensors[name] = source.float().clone() if low is None else rounding.join(source, low)
    return tensors


def compare(change: dict[str, Tensor], intended: dict[str, Tensor]) -> tuple[float, float]:
    """Returns (cosine, ‖change‖ / ‖intended‖); NaN if no move was intended, cosine 0 if nothing changed."""
    lengths = math.sqrt(_dot(change, change)), math.sqrt(_dot(intended, intended))
    if lengths[1] == 0.0:
        return math.nan, math.nan
    return _dot(change, intended) / (lengths[0] * lengths[1]) if lengths[0] else 0.0, lengths[0] / lengths[1]


def _intended_move(
    session: Session, old_values: dict[str, Tensor], t: int, losses: list[float]
) -> dict[str, Tensor]:
    """Returns the intended move: that of the same method, stateless between steps, on fp32 weights."""
    copies = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in old_values.items()}
    arguments = {k: v for k, v in session.config.optimizer.options.items() if k != "lr"}
    twin: Optimizer = type(session.optimizer)(  # pyright: ignore  # concrete methods take these
        Weights(list(copies.items())), lr=session.optimizer.rate(t), seed=session.config.seed, **arguments
    )
    twin.tell(t, losses)
    return _difference({name: copy.detach() for name, copy in copies.items()}, old_values)


def _difference(new: dict[str, Tensor], old: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: new[name].double() - tensor.double() for name, tensor in old.items()}


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return math.fsum(float((tensor * b[name]).sum()) for name, tensor in a.items())


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=6, help="steps between comparisons")
    parser.add_argument("--out", type=Path, help="JSON file that the rows are added to")
    parser.add_argument("overrides", nargs="+")
    options = parser.parse_args()
    rows = [measure(options.overrides, update, options.steps, options.every) for update in UPDATES]
    for row in rows:
        print(json.dumps(row))
    if options.out is not None:
        old = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else []
        options.out.write_text(json.dumps([*old, *rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

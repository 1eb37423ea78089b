"""How much of a move 16-bit weights take: the cosine and the length of what they do beside what was meant.

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
    """One run: median cosine of the change with the move meant and ratio of their lengths; losses at the ends."""
    composed = compose([*overrides, f"update={update}", f"budget.steps={steps}"])
    if composed.config is None:
        sys.exit("\n".join(f"{problem.where}: {problem.what}" for problem in composed.problems))
    session = build(composed.config)
    cosines, ratios, sizes, losses = [], [], [], []
    for t in range(steps):
        told = session.optimizer.step(t, session.batch(t), session.look)
        losses.append(math.fsum(told) / len(told))
        before = values(session.optimizer.weights)
        meant = _meant(session, before, t, told) if t % every == 0 else None
        session.optimizer.tell(t, told)
        if meant is not None:
            change = _difference(values(session.optimizer.weights), before)
            cosine, ratio = compare(change, meant)
            cosines.append(cosine)
            ratios.append(ratio)
            sizes.append(math.sqrt(_dot(meant, meant) / session.optimizer.weights.numel))
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
    """The trained weights as fp32, with their low halves where these are kept."""
    found = {}
    for name in weights.tensors:
        source, low = weights.source(name), weights.low.get(name)
        found[name] = source.float().clone() if low is None else rounding.join(source, low)
    return found


def compare(change: dict[str, Tensor], meant: dict[str, Tensor]) -> tuple[float, float]:
    """(cosine, ‖change‖ / ‖meant‖); NaN where nothing was meant, cosine 0 where nothing changed."""
    lengths = math.sqrt(_dot(change, change)), math.sqrt(_dot(meant, meant))
    if lengths[1] == 0.0:
        return math.nan, math.nan
    return _dot(change, meant) / (lengths[0] * lengths[1]) if lengths[0] else 0.0, lengths[0] / lengths[1]


def _meant(session: Session, before: dict[str, Tensor], t: int, told: list[float]) -> dict[str, Tensor]:
    """The change of the same method, stateless between steps, told the same on fp32 weights."""
    copies = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in before.items()}
    arguments = {k: v for k, v in session.config.optimizer.options.items() if k != "lr"}
    twin: Optimizer = type(session.optimizer)(  # pyright: ignore  # concrete methods take these
        Weights(list(copies.items())), lr=session.optimizer.rate(t), seed=session.config.seed, **arguments
    )
    twin.tell(t, told)
    return _difference({name: copy.detach() for name, copy in copies.items()}, before)


def _difference(new: dict[str, Tensor], old: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: new[name].double() - tensor.double() for name, tensor in old.items()}


def _dot(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return math.fsum(float((tensor * other[name]).sum()) for name, tensor in one.items())


def main() -> None:
    """The command."""
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

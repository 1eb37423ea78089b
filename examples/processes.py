"""Trains a model in several processes that exchange a few numbers a step, and no weights or gradients.

    torchrun --nproc-per-node 2 examples/processes.py --journal run.journal
    python examples/processes.py --journal other.journal        # one process: the same bits

Every process holds the model, evaluates its share of the step's probes, gets the losses of the others, and makes the
same move. The journal holds the losses; with it, an interrupted run resumes, in any number of processes.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import zo
from zo.journal import opened


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return (model(inputs) - targets).square().mean(dim=1)


def batch_of(t: int) -> tuple[Tensor, Tensor]:
    """Returns rows of a task that a linear model cannot solve: the products of neighbours."""
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(t))
    return inputs, inputs * inputs.roll(1, dims=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train in one process or several.")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()

    torch.manual_seed(0)  # every process starts at the same weights
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    optimizer = zo.FZOO(model, lr=3e-3, n=7)  # 8 probes: 4 for each of two processes
    with zo.Ranks() as team:
        # Rank 0 opens the file, the others hold a copy. The header says what the run is: another one is refused.
        journal = opened(
            team, lambda: zo.Journal(args.journal, {"run": "processes"}, optimizer.losses_per_step)
        )
        zo.train(optimizer, losses, batch_of, args.steps, team=team, journal=journal)
        if team.leads:
            with torch.no_grad():
                print(f"{team.size} processes: loss {losses(model, batch_of(10**6)).mean():.4f}")
            print(f"weights {optimizer.weights.sha256()}")


if __name__ == "__main__":
    main()

"""The last H steps of a run: what is needed to make their directions and gradients again."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zo.directions import Directions
from zo.errors import JournalError


@dataclass
class Window:
    """Steps with the slopes of their n directions, oldest first; a skipped step is not among them.

    horizon: H, the most steps kept. n: directions a step.
    """

    horizon: int
    n: int
    steps: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)

    def push(self, step: int, slopes: tuple[float, ...]) -> None:
        """Takes a step in and drops what is older than H."""
        self.steps = [*self.steps, (step, slopes)][-self.horizon :] if self.horizon else []

    def powers(self, beta: float) -> tuple[float, ...]:
        """β^k of each step, k = 0 for the newest; 0⁰ = 1."""
        return tuple(beta**k for k in reversed(range(len(self.steps))))

    def state(self) -> dict[str, Tensor]:
        """Returns the state for snapshots: the steps [k], and their slopes [k, n]."""
        slopes = torch.tensor([slopes for _, slopes in self.steps], dtype=torch.float64, device="cpu")
        steps = torch.tensor([step for step, _ in self.steps], dtype=torch.int64, device="cpu")
        return {"window:steps": steps, "window:slopes": slopes.view(-1, self.n)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes what `state` gave; raises JournalError when it is something else."""
        if sorted(state) != ["window:slopes", "window:steps"] or state["window:slopes"].shape[1] != self.n:
            raise JournalError(
                f"The snapshot holds {sorted(state)[:4]}, not the last steps of {self.n} directions each: it "
                "belongs to another method."
            )
        slopes = [tuple(row) for row in state["window:slopes"].tolist()]
        self.steps = list(zip(state["window:steps"].tolist(), slopes, strict=True))


def refuse_stateful(method: str, directions: Directions, steps: int) -> Iterator[str]:
    """Yields why a method cannot make the directions of its last steps again, where it cannot."""
    if directions.stateful:
        yield (
            f"{method} makes the directions of its last {steps} steps again, and those of directions = "
            f"{directions.name!r} depend on what they were made from then. Use gaussian or rademacher."
        )

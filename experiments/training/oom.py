"""Recovers from out-of-memory errors: retries with fewer stacked probes, then with smaller micro-batches.

A look that fails has moved and journaled nothing, so it can be repeated. Smaller pieces change losses by rounding only
(on a CPU, fewer stacked probes change no bit). The sizes that fit are stored in the run's folder, for later steps and
for processes that resume the run.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from experiments.rundir.folder import RunFolder
from zo.backward import Backward
from zo.directions import Key, Probe
from zo.look import ModuleLook
from zo.look.look import PLAIN, length, out_of_memory

T = TypeVar("T")
Say = Callable[[str], None]


def release() -> None:
    """Frees the memory of a failed call or of a model that is no longer needed."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def retry_smaller(attempt: Callable[[], T], smaller: Callable[[], bool]) -> T:
    """Returns what `attempt` returns; retries while memory runs out and `smaller` still reduces something."""
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not out_of_memory(error) or not smaller():
                raise
        release()  # outside of the handler, which keeps the failed call's tensors alive


class BackoffLook(ModuleLook):
    """A ModuleLook that shrinks when memory runs out, and then calls on_smaller(probes_per_forward, micro)."""

    on_smaller: Callable[[int | str, int | None], None] | None = None

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        return retry_smaller(
            lambda: super(BackoffLook, self).sums(probes, batch), lambda: self._smaller(len(probes), batch)
        )

    def slope_sums(self, keys: Sequence[Key], batch: Any) -> list[tuple[float, float]]:
        return retry_smaller(
            lambda: super(BackoffLook, self).slope_sums(keys, batch), lambda: self._smaller(1, batch)
        )

    def gradient(self, batch: Any, *, seed: int | None, how: Backward = PLAIN) -> float:
        counted = self.forward_passes, self.backward_passes

        def attempt() -> float:
            self.forward_passes, self.backward_passes = counted
            for parameter in self.model.parameters():
                parameter.grad = None
            how.clear()
            return super(BackoffLook, self).gradient(batch, seed=seed, how=how)

        # In train mode dropout is drawn for a piece at a time, so that pieces would change more than rounding.
        return retry_smaller(attempt, lambda: seed is None and self._smaller(1, batch))

    def _smaller(self, probes: int, batch: Any) -> bool:
        """Halves the probes a forward, then the examples at a time; returns False when both are at one."""
        total = length(batch)
        size = min(self._group_size(probes, batch), probes)
        if size > 1:
            self.probes_per_forward = size // 2
        elif min(self.micro or total, total) > 1:
            self.micro = -(-min(self.micro or total, total) // 2)
        else:
            return False
        if self.on_smaller is not None:
            self.on_smaller(self.probes_per_forward, self.micro)
        return True


class MemoryBudget:
    """The sizes that fit into memory, stored in memory.json of the run: probes_per_forward, micro, evaluate.

    evaluate: examples of an evaluation at once. reduced: all three sizes, or None while the configured ones fit.
    say: prints a line. Sizes of an earlier process count as long as the configured ones are the same.
    """

    def __init__(self, folder: RunFolder, look: BackoffLook, evaluate: int, say: Say):
        # Only numbers of the look are kept: its model must be freed before another one is built.
        self._folder, self._say = folder, say
        self._configured = {
            "probes_per_forward": look.probes_per_forward, "micro": look.micro, "evaluate": evaluate
        }  # fmt: skip
        stored = folder.memory() or {}
        same = stored.get("asked") == self._configured
        self.reduced: dict[str, Any] | None = stored["found"] if same else None
        self._now: dict[str, Any] = self.reduced or self._configured
        look.probes_per_forward, look.micro = self._now["probes_per_forward"], self._now["micro"]
        look.on_smaller = self._note_smaller_look

    @property
    def evaluate(self) -> int:
        return self._now["evaluate"]

    def evaluated(self, attempt: Callable[[int], T]) -> T:
        """Returns what attempt(examples at once) returns; halves the number while memory runs out."""
        return retry_smaller(lambda: attempt(self.evaluate), self._fewer)

    def _fewer(self) -> bool:
        if self.evaluate == 1:
            return False
        self._note(f"evaluate.batch={self.evaluate // 2}", evaluate=self.evaluate // 2)
        return True

    def _note_smaller_look(self, probes: int | str, micro: int | None) -> None:
        self._note(f"probes_per_forward={probes} batch.micro={micro}", probes_per_forward=probes, micro=micro)

    def _note(self, sizes: str, **reduced: Any) -> None:
        self.reduced = self._now = self._now | reduced
        self._folder.write("memory.json", {"asked": self._configured, "found": self.reduced})
        self._say(f"Out of memory: again with {sizes}. The result changes by rounding only.")

"""Recovers from out-of-memory errors: retries with fewer stacked probes, then with smaller micro-batches.

A look that fails has moved nothing and journaled nothing, so it can be repeated. Stacked or one by one, whole or
in pieces, the losses are the same but for rounding (on a CPU, probes one by one: the same bits). What was found to
fit is written into the run's folder and kept for the steps, and the processes, that follow.
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
Told = Callable[[str], None]


def release() -> None:
    """Gives back what a failed call, or a model no longer needed, has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def retry_smaller(attempt: Callable[[], T], smaller: Callable[[], bool]) -> T:
    """Calls `attempt`, and retries as long as memory runs out and `smaller` finds something to reduce."""
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not out_of_memory(error) or not smaller():
                raise
        release()  # outside of the handler, which keeps the failed call's tensors alive


class BackoffLook(ModuleLook):
    """A ModuleLook that makes itself smaller. told: hears its new probes_per_forward and micro."""

    told: Callable[[int | str, int | None], None] | None = None

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
        """Half as many probes a forward, then half as many examples; False when both are at one."""
        total = length(batch)
        size = min(self._group_size(probes, batch), probes)
        if size > 1:
            self.probes_per_forward = size // 2
        elif min(self.micro or total, total) > 1:
            self.micro = -(-min(self.micro or total, total) // 2)
        else:
            return False
        if self.told is not None:
            self.told(self.probes_per_forward, self.micro)
        return True


class MemoryBudget:
    """The sizes that fit into memory, stored in memory.json of the run: probes_per_forward, micro, evaluate.

    evaluate: examples of an evaluation at once. found: all three, or None while what was asked for fits.
    say: prints a line. What an earlier process found holds as long as the same is asked for.
    """

    def __init__(self, folder: RunFolder, look: BackoffLook, evaluate: int, say: Told):
        # The look itself is not kept: its model must be free to go before another is built.
        self._folder, self._say = folder, say
        self._asked = {
            "probes_per_forward": look.probes_per_forward, "micro": look.micro, "evaluate": evaluate
        }  # fmt: skip
        kept = folder.memory() or {}
        self.found: dict[str, Any] | None = kept["found"] if kept.get("asked") == self._asked else None
        self._now: dict[str, Any] = self.found or self._asked
        look.probes_per_forward, look.micro = self._now["probes_per_forward"], self._now["micro"]
        look.told = self._look_got_smaller

    @property
    def evaluate(self) -> int:
        return self._now["evaluate"]

    def evaluated(self, attempt: Callable[[int], T]) -> T:
        """Calls `attempt` with this many examples at once, and with half as many as long as memory runs out."""
        return retry_smaller(lambda: attempt(self.evaluate), self._fewer)

    def _fewer(self) -> bool:
        if self.evaluate == 1:
            return False
        self._note(f"evaluate.batch={self.evaluate // 2}", evaluate=self.evaluate // 2)
        return True

    def _look_got_smaller(self, probes: int | str, micro: int | None) -> None:
        self._note(f"probes_per_forward={probes} batch.micro={micro}", probes_per_forward=probes, micro=micro)

    def _note(self, words: str, **found: Any) -> None:
        self.found = self._now = self._now | found
        self._folder.write("memory.json", {"asked": self._asked, "found": self.found})
        self._say(f"Out of memory: again with {words}. The result changes by rounding only.")

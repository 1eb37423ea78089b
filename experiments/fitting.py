"""Out of memory is no end: the same step again with fewer probes a forward, then with smaller micro-batches.

A look that fails has moved nothing and journaled nothing, so it can be repeated. Stacked or one by one, whole or
in pieces, the losses are the same but for rounding (on a CPU, probes one by one: the same bits). What was found to
fit is written into the run's folder and kept for the steps, and the processes, that follow.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from experiments.folder import RunFolder
from zo.directions import Key, Probe
from zo.look import ModuleLook
from zo.look.base import length

T = TypeVar("T")
Told = Callable[[str], None]


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the host's allocator, had no more to give."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def release() -> None:
    """Gives back what a failed call has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fitted(attempt: Callable[[], T], smaller: Callable[[], bool]) -> T:
    """`attempt`, and again as long as memory runs out and `smaller` finds something to make smaller."""
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not out_of_memory(error) or not smaller():
                raise
        release()  # outside of the handler, which keeps the failed call's tensors alive


class FittingLook(ModuleLook):
    """A ModuleLook that makes itself smaller. told: hears in words what has changed."""

    told: Told | None = None

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        return fitted(
            lambda: super(FittingLook, self).sums(probes, batch), lambda: self._smaller(len(probes), batch)
        )

    def slope_sums(self, keys: Sequence[Key], batch: Any) -> list[tuple[float, float]]:
        return fitted(
            lambda: super(FittingLook, self).slope_sums(keys, batch), lambda: self._smaller(1, batch)
        )

    def gradient(self, batch: Any, *, seed: int | None) -> float:
        counted = self.forward_passes, self.backward_passes

        def attempt() -> float:
            self.forward_passes, self.backward_passes = counted
            for parameter in self.model.parameters():
                parameter.grad = None
            return super(FittingLook, self).gradient(batch, seed=seed)

        # In train mode dropout is drawn for a piece at a time, so that pieces would change more than rounding.
        return fitted(attempt, lambda: seed is None and self._smaller(1, batch))

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
            self.told(f"probes_per_forward={self.probes_per_forward} batch.micro={self.micro}")
        return True


class Fit:
    """What was found to fit, in memory.json of the run's folder: probes_per_forward, micro, evaluate.

    evaluate: examples of an evaluation at once. say: prints a line.
    """

    def __init__(self, folder: RunFolder, look: FittingLook, evaluate: int, say: Told):
        self._folder, self._look, self._say = folder, look, say
        kept = folder.memory() or {}
        self.evaluate = int(kept.get("evaluate", evaluate))
        look.probes_per_forward = kept.get("probes_per_forward", look.probes_per_forward)
        look.micro = kept.get("micro", look.micro)
        self.found: dict[str, Any] | None = kept or None
        look.told = self._note

    def evaluated(self, attempt: Callable[[int], T]) -> T:
        """`attempt` with so many examples at once, and with half as many as long as memory runs out."""
        return fitted(lambda: attempt(self.evaluate), self._fewer)

    def _fewer(self) -> bool:
        if self.evaluate == 1:
            return False
        self.evaluate //= 2
        self._note(f"evaluate.batch={self.evaluate}")
        return True

    def _note(self, words: str) -> None:
        self.found = {
            "probes_per_forward": self._look.probes_per_forward,
            "micro": self._look.micro,
            "evaluate": self.evaluate,
        }
        self._folder.write("memory.json", self.found)
        self._say(f"Out of memory: again with {words}. The result changes by rounding only.")

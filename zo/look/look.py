"""Looks: the forward evaluations that turn a batch into one loss for each probe.

An objective is a function (model, batch) → losses [B], or (losses [B], weights [B]), of B examples; a batch is
any tree (tensor, tuple, dict) of tensors with leading dimension B. The loss of a probe is Σ w l / Σ w, summed
exactly in float64 (math.fsum: the order, and so micro-batches, cannot matter) and rounded to fp32.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zo.backward import Backward
from zo.directions import Key, Probe
from zo.errors import LookError
from zo.fields import AtLeastOne, check
from zo.look.packing import packed

Objective = Callable[[Any, Any], Tensor | tuple[Tensor, Tensor]]
PLAIN = Backward()


class MicroBatches(tuple[Any, ...]):
    """The batch of one step in parts that are evaluated one by one, such as batches padded to widths of their own."""

    __slots__ = ()


class Look(ABC):
    """Evaluates losses and counts what it cost.

    micro: examples evaluated at a time, or None for the whole batch.
    forward_passes: evaluations of a batch at one point so far, however they were cut or stacked.
    calls: calls of the objective so far.
    """

    def __init__(self, model: Any, objective: Objective, micro: int | None):
        check("batch.micro", micro, AtLeastOne | None)
        self.model = model
        self.objective = objective
        self.micro = micro
        self.forward_passes = 0
        self.backward_passes = 0
        self.calls = 0

    def __call__(self, probes: Sequence[Probe], batch: Any) -> list[float]:
        """One loss a probe, rounded to fp32."""
        return [mean(*sums) for sums in self.sums(probes, batch)]

    @abstractmethod
    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        """Returns (Σ w l, Σ w) of each probe over the batch in float64, so that parts of a batch can be added."""

    def slopes(self, keys: Sequence[Key], batch: Any) -> list[float]:
        """The loss at θ and then zᵀ∇L for each key, rounded to fp32."""
        return [mean(*sums) for sums in self.slope_sums(keys, batch)]

    def slope_sums(self, keys: Sequence[Key], batch: Any) -> list[tuple[float, float]]:
        """Returns (Σ w l, Σ w) at θ, then (Σ w zᵀ∇l, Σ w) for each key. Raises LookError if it only evaluates."""
        raise LookError(f"A {type(self).__name__} gives losses, not slopes: look with a ModuleLook.")

    def examples(self, batch: Any, probes: int) -> tuple[Tensor, Tensor]:
        """Returns (losses, weights) of a batch that holds `probes` groups of rows, float64 [probes, B]."""
        self.calls += 1
        result = self.objective(self.model, batch)
        losses, *rest = result if isinstance(result, tuple) else (result,)
        given = [losses, *rest]
        if not all(isinstance(x, Tensor) and x.dim() == 1 and x.shape == losses.shape for x in given) or (
            len(given) > 2 or losses.shape[0] % probes
        ):
            shapes = [f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in given]
            raise LookError(
                f"The objective gave {' and '.join(shapes)}: losses, and weights if it has any, must each be a tensor "
                'with one number an example (in torch\'s losses: reduction="none").'
            )
        weights = rest[0] if rest else torch.ones_like(losses)
        return losses.double().view(probes, -1), weights.double().view(probes, -1)

    def chunks(self, batch: Any) -> Iterator[Any]:
        """The batch in pieces of `micro` examples; none reaches over two micro-batches."""
        if isinstance(batch, MicroBatches):
            for part in batch:
                yield from self.chunks(part)
            return
        total = length(batch)
        step = self.micro or total
        for start in range(0, total, step):
            yield cut(batch, start, start + step)


def length(batch: Any) -> int:
    """B, the leading dimension that all tensors of a batch share; of micro-batches, their sum."""
    if isinstance(batch, MicroBatches):
        return sum(map(length, batch))
    shapes = [leaf.shape for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]
    if not shapes:
        raise LookError(
            f"The batch, a {type(batch).__name__}, holds no tensor. Give a tensor, or a tuple, list or dict of "
            "tensors with one row an example."
        )
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise LookError(
            f"The tensors of a batch have shapes {', '.join(str(list(shape)) for shape in shapes)}; all must have "
            "the same leading dimension, one row an example. Numbers that hold for all belong to the objective."
        )
    return lengths.pop()


def cut(batch: Any, start: int, stop: int) -> Any:
    """Examples start to stop of a batch, as views."""
    if isinstance(batch, MicroBatches):
        pieces, first = [], 0
        for part in batch:
            rows = length(part)
            if start < first + rows and first < stop:
                pieces.append(cut(part, max(0, start - first), min(rows, stop - first)))
            first += rows
        return MicroBatches(pieces)
    return pytree.tree_map(lambda leaf: leaf[start:stop] if isinstance(leaf, Tensor) else leaf, batch)


class ModelLook(Look):
    """A look at a torch module: plain evaluation and gradients.

    skip_padding: whether linear layers multiply only the positions that the model's attention mask shows.
    """

    model: nn.Module
    skip_padding = False

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in which the model is in eval mode; afterwards each module has its old mode again.

        Raises LookError where the objective puts a module into train mode: every probe would have its own dropout.
        """
        training = [module for module in self._modules if module.training]
        if training:
            self.model.eval()
        try:
            yield
            if changed := [module for module in self._modules if module.training]:
                raise LookError(
                    f"The objective put {type(changed[0]).__name__} into train mode, so that dropout would make the "
                    "losses of probes differ by chance. Leave the mode of the model alone."
                )
        finally:
            if any(module.training for module in self._modules):
                self.model.eval()
            for module in training:
                module.training = True

    @cached_property
    def _modules(self) -> list[nn.Module]:
        return list(self.model.modules())

    def gradient(self, batch: Any, *, seed: int | None, how: Backward = PLAIN) -> float:
        """The loss at θ, its gradient left in .grad; one forward and one backward pass.

        seed: of dropout, in train mode; None evaluates in eval mode. The global generators are left alone.
        how: fp32 gradients of 16-bit parameters, a scaled loss, checkpointing of layers.
        """
        losses, weights = [], []
        rows = length(batch)
        self.forward_passes += 1
        self.backward_passes += 1
        devices = list({p.device.index for p in self.model.parameters() if p.device.type == "cuda"})
        training = [(module, module.training) for module in self._modules]
        with (
            torch.random.fork_rng(devices=devices, enabled=seed is not None),
            torch.enable_grad(),
            how.around(self.model),
            packed(self.model) if self.skip_padding else nullcontext(),
        ):
            if seed is not None:
                torch.manual_seed(seed)
            self.model.train(seed is not None)
            try:
                for chunk in self.chunks(batch):
                    lost, weight = self.examples(chunk, 1)
                    ((lost * weight).sum() * how.factor(rows)).backward()
                    losses += (lost.detach() * weight)[0].tolist()
                    weights += weight[0].tolist()
            finally:
                for module, mode in training:
                    module.training = mode
        total = math.fsum(weights)
        for tensor in (*self.model.parameters(), *how.masters.values()):
            if tensor.grad is not None and total > 0.0:
                tensor.grad /= total * how.factor(rows)
        return mean(total_of(losses), total)


def out_of_memory(error: BaseException) -> bool:
    """Returns whether a device, or the host's allocator, ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def weighted_sums(losses: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Returns (Σ w l, Σ w), exact sums in float64; the first is NaN if a loss is not finite."""
    return total_of([loss * weight for loss, weight in zip(losses, weights, strict=True)]), math.fsum(weights)


def mean(total: float, weight: float) -> float:
    """The told loss Σ w l / Σ w, rounded to fp32; NaN when no weight is above 0."""
    return fp32(total / weight) if weight > 0.0 else math.nan


def total_of(values: Sequence[float]) -> float:
    """The exact sum, or NaN when a value is no finite number."""
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def fp32(x: float) -> float:
    """x rounded to fp32; the value that is told and journaled."""
    return torch.tensor(x, dtype=torch.float64, device="cpu").float().item()

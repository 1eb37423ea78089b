"""The module executor as a look: any model, one by one or stacked, weights never written."""

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zo.directions import Key, Probe
from zo.errors import ConfigError, LookError
from zo.look.batch_dims import Ambiguous, Layout, Unstackable, leading, shapes
from zo.look.dual import Duals, unpack
from zo.look.executor import Executor
from zo.look.look import ModelLook, Objective, weighted_sums
from zo.optimizers import Optimizer, Probing

_AUTO = 16384  # numbers of input (rows × tokens) in one stacked call that "auto" allows
# On a CPU also this many bytes of weights × numbers of input: where a call is long, stacking saves nothing and the
# stack's activations leave the cache. FZOO on OPT 10m over its forwards, one by one, by threes, by fives, all nine: at
# 4x32 tokens in fp32 1.17, 1.11, 1.15, 1.16 and in bf16 1.34, 1.25, 1.22, 1.23; at 16x64 1.05 alone, 1.2 by threes.
_AUTO_CPU = 22e9


class ModuleLook(ModelLook):
    """Evaluates probes on a module.

    optimizer: whose probes will be looked at; its weights must be the model's.
    probes_per_forward: how many probes share a model call: a number, "all", or "auto" (as many as keep
        rows × tokens within 16,384; on a CPU also, times the bytes of the model's weights, within 22e9; the
        calls are then about equally large). 1 is sequential. On a CPU the losses are the same bits.
    micro: examples evaluated at a time.
    materialise: for objectives that call the model many times, as text generation does: each probe's weights
        are made once a call of the objective, not once a call of the model. Probes then go one by one, and their
        weights take as much memory again as the trained ones. The losses are the same bits.

    The first probe of every new shape of the batch goes alone: it shows which inputs of a module carry the
    batch. The first look checks that every trained tensor was perturbed. A model that cannot be stacked is
    looked at sequentially, with a warning; `sequential_because` says why.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        *,
        probes_per_forward: int | str = "auto",
        micro: int | None = None,
        materialise: bool = False,
    ):
        super().__init__(model, objective, micro)
        if probes_per_forward not in ("auto", "all") and not (
            isinstance(probes_per_forward, int) and probes_per_forward >= 1
        ):
            raise ConfigError(
                f"probes_per_forward = {probes_per_forward!r} must be 'auto', 'all' or a number of at least 1."
            )
        self.probes_per_forward = probes_per_forward
        self.weights = optimizer.weights
        self.directions = optimizer.directions if isinstance(optimizer, Probing) else None
        self.materialise = materialise
        self.sequential_because = (
            "each probe's weights are made once, for the whole objective" if materialise else None
        )
        self._executor: Executor | None = None
        self._duals: Duals | None = None
        self._layouts: dict[object, Layout] = {}
        self._checked = False

    @property
    def executor(self) -> Executor:
        """Factored at first use, so that first-order methods need none."""
        if self._executor is None:
            assert self.directions is not None, "a first-order method asks for gradients, not probes"
            self._executor = Executor(self.model, self.weights, self.directions, materialise=self.materialise)
        return self._executor

    @property
    def duals(self) -> Duals:
        """Factored at first use; only forward gradients need it."""
        if self._duals is None:
            assert self.directions is not None, "a first-order method asks for gradients, not slopes"
            self._duals = Duals(self.model, self.weights, self.directions)
        return self._duals

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        if self.model.training:
            self.model.eval()
        losses: list[list[float]] = [[] for _ in probes]
        weights: list[list[float]] = [[] for _ in probes]
        self.weights.warm([key for probe in probes for key, _ in probe.terms], self.executor.directions)
        for chunk in self.chunks(batch):
            for start, group in self._groups(probes, chunk):
                for i, (lost, weight) in enumerate(self._evaluate(group, chunk), start):
                    losses[i] += lost
                    weights[i] += weight
        if not self._checked:
            self._check_perturbed(probes)
        self.forward_passes += len(probes)
        return [weighted_sums(lost, weight) for lost, weight in zip(losses, weights, strict=True)]

    def _groups(self, probes: Sequence[Probe], chunk: Any) -> Iterator[tuple[int, Sequence[Probe]]]:
        """(number of the first, probes) of every model call."""
        start = 0
        while start < len(probes):
            size = self._group_size(len(probes) - start, chunk)
            if size > 1 and shapes(chunk) not in self._layouts:
                size = 1
            yield start, probes[start : start + size]
            start += size

    def _group_size(self, probes: int, chunk: Any) -> int:
        if self.sequential_because is not None:
            return 1
        numbers = max(leaf.numel() for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, torch.Tensor))
        return stack_size(self.probes_per_forward, probes, numbers, self._cpu_bytes)

    @cached_property
    def _cpu_bytes(self) -> int:
        """Of the model's weights on a CPU, 0 elsewhere; once, for a walk over a large model takes a millisecond."""
        cpu = all(tensor.is_cpu for tensor in self.weights.tensors.values())
        return sum(p.nbytes for p in self.model.parameters()) if cpu else 0

    def _evaluate(self, probes: Sequence[Probe], chunk: Any) -> list[tuple[list[float], list[float]]]:
        """(losses, weights) of every example, for each probe."""
        if len(probes) > 1:
            try:
                return self._stacked(probes, chunk)
            except Ambiguous:
                pass
            except Unstackable as reason:
                self.sequential_because = str(reason)
                warnings.warn(f"Probes are evaluated one by one: {reason}.", stacklevel=4)
        return [pair for probe in probes for pair in self._stacked([probe], chunk)]

    def _stacked(self, probes: Sequence[Probe], chunk: Any) -> list[tuple[list[float], list[float]]]:
        """One model call for all these probes, a copy of the chunk each."""
        n = len(probes)
        layout = self._layouts.get(shapes(chunk)) or Layout(recording=self._group_size(2, chunk) > 1)
        batch = chunk if n == 1 else pytree.tree_map(lambda leaf: _repeated(leaf, n), chunk)
        with torch.no_grad(), self.executor.at(probes, layout, _rows(chunk)):
            losses, weights = self.examples(batch, n)
        if layout.recording:  # and only now: an evaluation that failed half-way has seen half of the model
            layout.recording = False
            self._layouts[shapes(chunk)] = layout
        return list(zip(losses.tolist(), weights.tolist(), strict=True))

    def slope_sums(self, keys: Sequence[Key], batch: Any) -> list[tuple[float, float]]:
        """By forward-mode differentiation: one pass on dual numbers for each key, counted as one forward pass."""
        if self.model.training:
            self.model.eval()
        sums: list[tuple[float, float]] = []
        for key in keys:
            lost, along, weights = [], [], []
            for chunk in self.chunks(batch):
                with self.duals.along(key):
                    losses, weight = self.examples(chunk, 1)
                    values, tangents = unpack(losses)
                lost += values[0].tolist()
                along += tangents[0].tolist()
                weights += weight[0].tolist()
            sums += [weighted_sums(x, weights) for x in (([] if sums else [lost]) + [along])]
        if not self._checked:
            self._check_used(self.duals.used)
        self.forward_passes += len(keys)
        return sums

    def _check_perturbed(self, probes: Sequence[Probe]) -> None:
        if any(probe.terms for probe in probes):
            self._check_used(self.executor.perturbed)

    def _check_used(self, used: set[str]) -> None:
        if missed := sorted(self.weights.tensors.keys() - used):
            shown = ", ".join(missed[:5]) + (f" and {len(missed) - 5} more" if len(missed) > 5 else "")
            raise LookError(
                f"The forward of {type(self.model).__name__} does not use {shown}, or reads it from outside the module "
                "that holds it, so a perturbation would not be seen. Freeze it with requires_grad = False."
            )
        self._checked = True


def stack_size(probes_per_forward: int | str, probes: int, numbers: int, cpu_bytes: int) -> int:
    """How many of the probes that are left share the next model call; "auto" as ModuleLook says.

    numbers: of input, in the batch. cpu_bytes: of the weights of a model on a CPU, 0 elsewhere.
    """
    if probes_per_forward == "all":
        return probes
    if isinstance(probes_per_forward, int):
        return probes_per_forward
    limit = _AUTO // numbers
    if cpu_bytes:
        limit = min(limit, int(_AUTO_CPU / (numbers * cpu_bytes)))
    calls = math.ceil(probes / max(1, limit))
    return math.ceil(probes / calls)


def _rows(batch: Any) -> int:
    return next(n for n in leading(batch) if n is not None)


def _repeated(leaf: Any, n: int) -> Any:
    return leaf.repeat(n, *[1] * (leaf.dim() - 1)) if isinstance(leaf, Tensor) else leaf

"""The module executor as a look: any model, one by one or stacked, weights never written."""

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from zo.directions import Key, Probe
from zo.errors import ConfigError, Unseen, ZOWarning
from zo.look.agreement import Pair
from zo.look.dual import Duals, unpack
from zo.look.executor import Executor
from zo.look.look import Objective, length, mean, weighted_sums
from zo.look.rounding_noise import LIMIT, RoundingNoise, nudged
from zo.look.sites import refuse_compiled
from zo.look.stacking import Stacking
from zo.optimizers import Optimizer, Probing
from zo.precision import check_first_losses, refuse_lost

_AUTO = 16384  # numbers of input (rows × tokens) in one stacked call that "auto" allows
# On a CPU also this many bytes of weights × numbers of input: where a call is long, stacking saves nothing and the
# stack's activations leave the cache. FZOO on OPT 10m over its forwards, one by one, by threes, by fives, all nine: at
# 4x32 tokens in fp32 1.17, 1.11, 1.15, 1.16 and in bf16 1.34, 1.25, 1.22, 1.23; at 16x64 1.05 alone, 1.2 by threes.
_AUTO_CPU = 22e9
# And this many numbers, for models whose weights are small: the activations of more leave the cache.
_AUTO_CPU_NUMBERS = 4096


class ModuleLook(Stacking):
    """Evaluates probes on a module.

    optimizer: whose probes will be looked at; its weights must be the model's.
    probes_per_forward: how many probes share a model call: a number, "all", or "auto" (as many as keep
        rows × tokens within 16,384; on a CPU within 4,096 and, times the bytes of the model's weights, within 22e9;
        the calls are then about equally large). 1 is sequential. On a CPU the losses are the same bits.
    micro: examples evaluated at a time.
    materialise: for objectives that call the model many times, as text generation does: each probe's weights
        are made once a call of the objective, not once a call of the model. Probes then go one by one, and their
        weights take as much memory again as the trained ones. The losses are the same bits.
    skip_padding: linear layers multiply only the positions that the keyword attention_mask [rows, T] of the model
        call shows, where that saves enough to pay for the copies (zo/look/packing.py). Losses change by rounding.
        For objectives that read no output at a padded position. One probe is evaluated with its padding at the
        looks 0, 8, 64, 512 and so on; if the loss differs by more than rounding at the first, padding is
        evaluated, with a warning, and at later ones LookError is raised.

    A stack is compared with its probes alone (zo/look/agreement.py): all of them at the first batch, wherever its
    rows or dimensions are new and at the looks 1, 2, 4, 8 and so on; one of them where a width is new. Losses and the
    inputs of every site must have the same bits on a CPU and agree to rounding on a GPU. `check_forward_passes`
    counts what this costs, at most 2 % of a run of 1,000 steps: a shape that is met when that is spent goes one by
    one. A model that cannot be stacked, or whose data order its rows (zo/look/order.py), is looked at one by one, with
    a warning; `sequential_because` says why. A difference found after steps that were not compared raises LookError.
    The first look checks that every trained tensor was perturbed. Of a 16-bit model at least 8 of the first probes are
    evaluated twice, to warn where rounding decides their losses (zo/look/rounding_noise.py); `check_forward_passes`
    counts these too.
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
        skip_padding: bool = False,
    ):
        super().__init__(model, objective, micro)
        if isinstance(optimizer, Probing):
            refuse_compiled(model)
            refuse_lost(optimizer.weights, optimizer.eps)
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
        self.skip_padding = skip_padding
        self.sequential_because = (
            "each probe's weights are made once, for the whole objective" if materialise else None
        )
        self._executor: Executor | None = None
        self._duals: Duals | None = None
        self._checked = False
        self._rounding_noise = RoundingNoise()

    @property
    def executor(self) -> Executor:
        """Factored at first use, so that first-order methods need none."""
        if self._executor is None:
            assert self.directions is not None, "a first-order method asks for gradients, not probes"
            refuse_compiled(self.model)  # it may have been compiled since the look was made
            self._executor = Executor(
                self.model,
                self.weights,
                self.directions,
                materialise=self.materialise,
                packs=self.skip_padding,
            )
        return self._executor

    @property
    def duals(self) -> Duals:
        """Factored at first use; only forward gradients need it."""
        if self._duals is None:
            assert self.directions is not None, "a first-order method asks for gradients, not slopes"
            refuse_compiled(self.model)
            self._duals = Duals(self.model, self.weights, self.directions)
        return self._duals

    def sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        self.weights.refresh()
        self.weights.warm([key for probe in probes for key, _ in probe.terms], self.executor.directions)
        self._step, self._uncompared = _step_of(probes, self._step), False
        sums = self._sums(probes, batch)
        if not self._checked:
            self._check_perturbed(probes, sums)
        self._measure_rounding(probes, sums, batch)
        self.forward_passes += len(probes)
        self._ledger.finish(self._step, self._uncompared)
        return sums

    def _sums(self, probes: Sequence[Probe], batch: Any) -> list[tuple[float, float]]:
        losses: list[list[float]] = [[] for _ in probes]
        weights: list[list[float]] = [[] for _ in probes]
        with self.evaluating():
            for number, chunk in enumerate(self.chunks(batch)):
                self._ledger.share = Fraction(length(chunk), length(batch))
                pairs = self._of_chunk(probes, chunk, first=number == 0)
                if number == 0 and self.executor.packed:
                    pairs = self._checked_padding(probes, chunk, pairs)
                for i, (lost, weight) in enumerate(pairs):
                    losses[i] += lost
                    weights[i] += weight
        return [weighted_sums(lost, weight) for lost, weight in zip(losses, weights, strict=True)]

    def _measure_rounding(
        self, probes: Sequence[Probe], sums: Sequence[tuple[float, float]], batch: Any
    ) -> None:
        """Evaluates the first probes of a 16-bit model again, nudged; warns where what they tell is mostly rounding."""
        if self._coarsest.itemsize > 2 or not (again := self._rounding_noise.wanted(probes)):
            return
        nudged_sums = self._sums([nudged(probes[i]) for i in again], batch)
        self._ledger.share = Fraction(1)
        self._ledger.note(len(again))
        self._rounding_noise.add([mean(*sums[i]) for i in again], [mean(*pair) for pair in nudged_sums])
        share = self._rounding_noise.share
        if share is not None and share > LIMIT:
            scale = max(abs(scale) for probe in probes for _, scale in probe.terms)
            warnings.warn(
                f"{min(share, 1.0):.0%} of what the first probes tell apart is rounding in "
                f"{str(self._coarsest).removeprefix('torch.')}, not the direction: steps will follow noise. Load "
                f"the model in float32, or raise eps (now about {scale:.2g}).",
                ZOWarning,
                stacklevel=3,
            )

    def _checked_padding(self, probes: Sequence[Probe], chunk: Any, pairs: list[Pair]) -> list[Pair]:
        """The pairs to take for a chunk whose padding was left out."""
        if self._skips_padding(lambda: pairs[0], lambda: self._with_padding(probes[0], chunk)):
            return pairs
        self.executor.packs = False
        return self._of_chunk(probes, chunk, first=False)

    def _group_size(self, probes: int, chunk: Any) -> int:
        if self.sequential_because is not None:
            return 1
        numbers = max(leaf.numel() for leaf in pytree.tree_leaves(chunk) if isinstance(leaf, torch.Tensor))
        return stack_size(self.probes_per_forward, probes, numbers, self._cpu_bytes)

    @cached_property
    def _cpu_bytes(self) -> int:
        """Returns the bytes of the model's weights on a CPU, else 0; cached, since a walk takes a millisecond."""
        cpu = all(tensor.is_cpu for tensor in self.weights.tensors.values())
        return sum(p.nbytes for p in self.model.parameters()) if cpu else 0

    def slope_sums(self, keys: Sequence[Key], batch: Any) -> list[tuple[float, float]]:
        """Differentiates in forward mode: one pass on dual numbers for each key, counted as one forward pass."""
        self.weights.refresh()
        sums: list[tuple[float, float]] = []
        for key in keys:
            lost, along, weights = [], [], []
            for chunk in self.chunks(batch):
                with self.evaluating(), self.duals.along(key):
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

    def _check_perturbed(self, probes: Sequence[Probe], sums: Sequence[tuple[float, float]]) -> None:
        """Raises Unseen for weights that no probe moved, ConfigError where the model's 16 bits swallow what did."""
        scales = [abs(scale) for probe in probes for _, scale in probe.terms]
        if scales:
            self._check_used(self.executor.perturbed)
            dtypes = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
            check_first_losses([mean(*pair) for pair in sums], self.weights, max(scales), dtypes)

    def _check_used(self, used: set[str]) -> None:
        if missed := sorted(self.weights.tensors.keys() - used):
            shown = ", ".join(missed[:5]) + (f" and {len(missed) - 5} more" if len(missed) > 5 else "")
            raise Unseen(
                f"The forward of {type(self.model).__name__} does not use {shown}, or reads it from outside the module "
                "that holds it, so a perturbation would not be seen. Train an adapter instead (peft=lora), or freeze "
                "it with requires_grad = False."
            )
        self._checked = True


def stack_size(probes_per_forward: int | str, probes: int, numbers: int, cpu_bytes: int) -> int:
    """Returns how many of the remaining probes share the next model call; "auto" as in ModuleLook.

    numbers: of input, in the batch. cpu_bytes: of the weights of a model on a CPU, 0 elsewhere.
    """
    if probes_per_forward == "all":
        return probes
    if isinstance(probes_per_forward, int):
        return probes_per_forward
    limit = _AUTO // numbers
    if cpu_bytes:
        limit = min(limit, _AUTO_CPU_NUMBERS // numbers, int(_AUTO_CPU / (numbers * cpu_bytes)))
    calls = math.ceil(probes / max(1, limit))
    return math.ceil(probes / calls)


def _step_of(probes: Sequence[Probe], last: int) -> int:
    """The step that probes are of; the one after `last` where no probe names any."""
    return max((key.step for probe in probes for key, _ in probe.terms), default=last + 1)

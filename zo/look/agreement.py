"""Compares probes of a stack with the same probes alone: losses, and what every site was given.

On a CPU the losses must have the same bits. Inputs need not: torch's vector loops work out the last few numbers of a
tensor by other code, so what stands at the end of a group alone and not in a stack may differ in its last bit. On a
GPU a matrix product of another shape rounds otherwise, so there losses too agree when they differ by less than
rounding adds up to over a deep model.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Pair = tuple[list[float], list[float]]  # losses and weights of the examples of one probe

_SAMPLE = 1 << 12  # numbers of an input that are kept
# Norm of a difference over the norm: on a GPU about 8 roundings of a 16-bit number, or of TF32's in fp32. On a CPU
# few numbers differ at all.
_GPU = {torch.float64: 1e-9, torch.float32: 5e-3, torch.float16: 8e-3, torch.bfloat16: 6e-2}
_CPU = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
_EXACT = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)
_PART = 100  # one part in so many of a run's forward passes may go into comparing new shapes
_RUN = 1000  # steps of the run that is assumed at least


class Inputs:
    """Samples of every site's input in one evaluation, group by group."""

    def __init__(self) -> None:
        self.groups: dict[int, dict[int, list[list[Any]]]] = {}

    def note(self, group: int, site: int, inputs: object) -> None:
        """Adds one call of a site by one group."""
        prints = [_print(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
        self.groups.setdefault(group, {}).setdefault(site, []).append(prints)

    def same(self, group: int, alone: "Inputs") -> bool:
        """Returns whether a group of this evaluation was given what the probe was given alone."""
        mine, other = self.groups.get(group, {}), alone.groups.get(0, {})
        if mine.keys() != other.keys():
            return False
        return all(_agree(pytree.tree_leaves(mine[site]), pytree.tree_leaves(other[site])) for site in mine)


def _print(leaf: Tensor) -> Any:
    """The shape of a tensor, and its numbers or, of a large one, some of them from all over it."""
    shape = str(list(leaf.shape))
    if leaf.layout != torch.strided or not leaf.numel():
        return [shape]
    flat = (torch.view_as_real(leaf) if leaf.is_complex() else leaf).detach().reshape(-1)
    stride = flat.numel() // _SAMPLE | 1  # odd, so that it meets every column of a matrix
    return [shape, flat[::stride].clone()]


def _agree(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    if len(ones) != len(others):
        return False
    pairs = zip(ones, others, strict=True)
    return all(_close(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _close(one: Tensor, other: Any) -> bool:
    """Returns whether two samples of an input differ by rounding only."""
    if not isinstance(other, Tensor) or one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype in _EXACT:
        return torch.equal(one, other)
    return _near(one.double(), other.double(), (_CPU if one.is_cpu else _GPU).get(one.dtype, 0.0))


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    same = (a == b) | (a.isnan() & b.isnan())  # masks hold infinities, whose difference is no number
    difference = torch.where(same, torch.zeros_like(a), a - b).norm()
    size = torch.where(a.isfinite(), a, torch.zeros_like(a)).norm()
    return bool(difference <= tolerance * size)


def same_losses(one: Pair, other: Pair, dtype: torch.dtype | None) -> bool:
    """Returns whether losses and weights agree. dtype: what a GPU rounds to; None if bits must be equal."""
    for a, b in zip(one, other, strict=True):
        x, y = (torch.tensor(numbers, dtype=torch.float64, device="cpu") for numbers in (a, b))
        tolerance = 0.0 if dtype is None else _GPU.get(dtype, 0.0)
        if not _near(x, y, tolerance):
            return False
    return True


def rolled(batch: Any, by: int) -> Any:
    """The batch with its examples moved `by` places, so that groups at the same point can be told apart."""
    return pytree.tree_map(lambda leaf: leaf.roll(by, 0) if isinstance(leaf, Tensor) else leaf, batch)


def kind(shapes: Sequence[tuple[int, ...] | None]) -> tuple[tuple[int, int] | None, ...]:
    """Rows and dimensions of a batch's leaves: what stays when only a padded width is new."""
    return tuple(None if shape is None else (shape[0] if shape else 0, len(shape)) for shape in shapes)


class Ledger:
    """Decides when stacks are compared and what that may cost; notes steps that were stacked unchecked.

    passes: forward passes that only compared. share: of a batch, what is being evaluated now.
    """

    def __init__(self) -> None:
        self.passes = Fraction(0)
        self.share = Fraction(1)
        self._shapes = Fraction(0)  # of the passes, what new shapes took
        self._steps = 0
        self._next = 1  # step of the next repeated comparison
        self._doubted: list[list[int]] = []  # first and last step of every run of uncompared steps

    def note(self, cost: int) -> None:
        """Notes forward passes that compared something else than stacks."""
        self.passes += cost * self.share

    def affords(self, cost: int, forward_passes: int, probes: int) -> bool:
        """Returns whether a new shape may be compared for `cost` forward passes; the first always is."""
        limit = Fraction(max(forward_passes, _RUN * probes), _PART)
        return not self._shapes or self._shapes + cost * self.share <= limit

    def pay(self, cost: int, *, shape: bool) -> None:
        """Notes forward passes that only compared."""
        self.passes += cost * self.share
        if shape:
            self._shapes += cost * self.share
        else:
            self._next = 1 << self._steps.bit_length()

    def due(self) -> bool:
        """Returns whether this step repeats the comparison: steps 1, 2, 4, 8 and so on, or the next that can."""
        return self._steps >= self._next

    def finish(self, step: int, uncompared: bool) -> None:
        """Notes the end of a step. uncompared: whether it holds a stack that was not compared."""
        self._steps += 1
        if not uncompared:
            return
        if self._doubted and self._doubted[-1][1] == step - 1:
            self._doubted[-1][1] = step
        else:
            self._doubted.append([step, step])

    def doubted(self) -> str:
        """The steps that were stacked and not compared, in words; empty where there are none."""
        words = [f"{a}" if a == b else f"{a} to {b}" for a, b in self._doubted]
        return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else ""

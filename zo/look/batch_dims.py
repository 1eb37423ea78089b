"""Detection of the inputs of a module that carry the batch.

When G probes are stacked, tensors that carry the batch are G times longer in their leading dimension;
tensors that do not (position ids, masks shared by all rows) keep it. Lengths alone cannot tell the two
apart, but beside the lengths of one evaluation of a batch of the same shape with a single probe they can:
the first probe of every new shape is evaluated alone and recorded here.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

BATCH, SHARED = "batch", "shared"


class Unstackable(Exception):
    """This model, or this batch, cannot be stacked; the look goes on one probe at a time."""


def leading(value: object) -> list[int | None]:
    """The leading dimension of every leaf of a tree; None for leaves that are no tensors or scalars."""
    leaves = value if _of_tensors(value) else pytree.tree_leaves(value)
    return [leaf.shape[0] if isinstance(leaf, Tensor) and leaf.dim() else None for leaf in leaves]


def _of_tensors(value: object) -> TypeGuard[tuple[Tensor, ...]]:
    """Returns whether this is a tuple of tensors alone: what most sites are given, and its own leaves."""
    return type(value) is tuple and all(isinstance(leaf, Tensor) for leaf in value)


def shapes(batch: object) -> tuple[tuple[int, ...] | None, ...]:
    """The shapes of a batch's leaves; batches for which they are equal share a layout."""
    return tuple(
        tuple(leaf.shape) if isinstance(leaf, Tensor) else None for leaf in pytree.tree_leaves(batch)
    )


class Ambiguous(Unstackable):
    """Only this batch cannot be stacked."""


class Layout:
    """The lengths seen in one evaluation with a single probe, by site and call.

    recording: whether that evaluation is now; False and without calls where nothing will be stacked.
    """

    def __init__(self, recording: bool):
        self.calls: dict[int, list[list[int | None]]] = {}
        self.recording = recording

    def record(self, site: int, inputs: object) -> None:
        """Notes one call of a site while a single probe is evaluated."""
        self.calls.setdefault(site, []).append(leading(inputs))

    def roles(self, site: int, call: int, inputs: object, groups: int, rows: int) -> list[str | None]:
        """BATCH, SHARED or None for every leaf of a stacked call.

        rows: of one group, as the model was called. Raises Unstackable when the model took another path than in
        the recorded evaluation, or a length is no multiple of the rows (a mixture of experts chooses them, and
        then chunks of equal length would not be the groups); Ambiguous when a length neither stayed nor grew
        with the groups (it depends on what the batch holds).
        """
        seen = self.calls.get(site, [])
        now = leading(inputs)
        if call >= len(seen) or len(seen[call]) != len(now):
            raise Unstackable("a module was called otherwise than when a single probe was evaluated")
        roles: list[str | None] = []
        for before, after in zip(seen[call], now, strict=True):
            if before is None or after is None:
                roles.append(None)
            elif before and after == before:
                roles.append(SHARED)
            elif before and after == groups * before:
                if before % rows:
                    raise Unstackable(
                        "the model chooses among its rows, so those of a probe are not together"
                    )
                roles.append(BATCH)
            else:
                raise Ambiguous("whether an input carries the batch cannot be told from its length")
        return roles


def parts(inputs: object, roles: Sequence[str | None], groups: int) -> list[object]:
    """The inputs of each group: chunks of what carries the batch, the same object for the rest."""
    if _of_tensors(inputs) and len(inputs) == 1:
        return [(part,) for part in (inputs[0].chunk(groups) if roles[0] == BATCH else inputs * groups)]
    leaves, spec = pytree.tree_flatten(inputs)
    chunks: dict[int, Sequence[object]] = {}  # one tensor given twice (query, key, value) stays one tensor
    split: list[Sequence[object]] = []
    for leaf, role in zip(leaves, roles, strict=True):
        carries = role == BATCH and isinstance(leaf, Tensor)
        split.append(chunks.setdefault(id(leaf), leaf.chunk(groups)) if carries else [leaf] * groups)
    return [pytree.tree_unflatten([leaf[g] for leaf in split], spec) for g in range(groups)]


def together(outputs: Sequence[object], carries: bool, rows: int) -> object:
    """One output of the groups' outputs, stacked along the leading dimension.

    carries: whether any input carried the batch; where none did, an output of leading dimension 1 is
    expanded to the rows of a group first, and any other length cannot be stacked.
    """
    flat = [pytree.tree_flatten(output) for output in outputs]
    spec = flat[0][1]
    joined = []
    for leaves in zip(*(leaves for leaves, _ in flat), strict=True):
        if not isinstance(leaves[0], Tensor):
            joined.append(leaves[0])
        elif leaves[0].dim() and carries:
            joined.append(torch.cat(leaves))
        elif leaves[0].dim() and leaves[0].shape[0] == 1:
            joined.append(torch.cat([leaf.expand(rows, *leaf.shape[1:]) for leaf in leaves]))
        else:
            raise Unstackable("a module with trained weights gives an output that does not carry the batch")
    return pytree.tree_unflatten(joined, spec)

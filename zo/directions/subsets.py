"""Directions that leave weights out: Sparse the large ones of every matrix, Layers all of some layers.

Sparse-MeZO (Liu et al., NeurIPS 2025): z is zero where |θ| is above its matrix's threshold, the (1 − sparsity)
quantile of |θ| when the optimizer is made. The mask is a function of the weights as they are, which are not written
between a look and its move, so both see the same one. Vectors are not masked, nor are matrices whose quantile is 0 (a
new head, an adapter's B): where |θ| ≤ 0 decides, the first move would be the last.

LeZO (Wang et al., 2024): in every step a share `drop` of the layers, drawn anew, has z = 0.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zo.directions.direction import Directions, Terms, Theta
from zo.directions.lowrank import is_matrix
from zo.fields import Share
from zo.kernels.transforms import MaskLarge
from zo.noise import GAUSSIANS, SIGNS, key_of

_Noise = Literal["gaussian", "rademacher"]
_STREAMS = {"gaussian": GAUSSIANS, "rademacher": SIGNS}
_LAYER = re.compile(r"^((?:.*?\.)??\d+)\.")
_FIRST = -2  # indices of a step's keys from here down name its layers; -1 names rounding


@dataclass(eq=False)
class Sparse(Directions):
    """sparsity: share of every matrix that stays. of: gaussian or rademacher, for what moves."""

    sparsity: Share = 0.75
    of: _Noise = "gaussian"

    name = "sparse"
    stateful = True

    def __post_init__(self) -> None:
        self.check()
        self.stream = _STREAMS[self.of]
        self.thresholds: dict[str, Tensor] = {}

    def bind(self, weights: Theta) -> dict[str, dict[str, Tensor]]:
        for name in weights.ids:
            source = weights.source(name)
            # An infinite threshold masks nothing: that of tensors other than matrices.
            self.thresholds[name] = torch.full((1,), torch.inf, dtype=torch.float32, device=source.device)
            if is_matrix(source):
                smallest = max(1, round((1.0 - self.sparsity) * source.numel()))
                quantile = source.abs().float().view(-1).kthvalue(smallest).values
                if quantile > 0.0:
                    self.thresholds[name].copy_(quantile)
        return {"threshold": self.thresholds}

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        return len(tensors)

    def plain(self, weights: Theta, name: str) -> bool:
        return not is_matrix(weights.source(name))

    def entries(self, weights: Theta, name: str, lists: Sequence[Terms]) -> MaskLarge | None:
        return None if self.plain(weights, name) else MaskLarge(weights.source(name), self.thresholds[name])


@dataclass(eq=False)
class Layers(Directions):
    """drop: share of the layers that a step leaves out. of: gaussian or rademacher, for the others.

    A layer is all tensors whose names agree up to the first number; tensors without a number (embeddings, the
    last norm, a head) are in every step. Where no name has a number, each tensor is a layer.
    """

    drop: Share = 0.75
    of: _Noise = "gaussian"

    name = "layers"

    def __post_init__(self) -> None:
        self.check()
        self.stream = _STREAMS[self.of]
        self._layers: dict[str, int] | None = None
        self._chosen: tuple[tuple[int, int], set[int]] = ((0, -1), set())

    def layers(self, weights: Theta) -> dict[str, int]:
        """The number of the layer of every tensor that is in one."""
        if self._layers is None:
            found = {name: match[1] for name in weights.ids if (match := _LAYER.match(name))}
            found = found or {name: name for name in weights.ids}
            order = {layer: i for i, layer in enumerate(sorted(set(found.values()), key=_natural))}
            self._layers = {name: order[layer] for name, layer in found.items()}
        return self._layers

    def chosen(self, weights: Theta, seed: int, step: int) -> set[int]:
        """The layers of one step: those whose 64-bit keys are smallest."""
        if self._chosen[0] != (seed, step):
            count = max(self.layers(weights).values()) + 1
            drawn = sorted(range(count), key=lambda layer: key_of(seed, step, _FIRST - layer))
            self._chosen = (seed, step), set(drawn[: self._kept(count)])
        return self._chosen[1]

    def _kept(self, count: int) -> int:
        return max(1, round((1.0 - self.drop) * count))

    def terms(self, weights: Theta, name: str, terms: Terms) -> Terms:
        layer = self.layers(weights).get(name)
        if layer is None:
            return terms
        return [(key, scale) for key, scale in terms if layer in self.chosen(weights, key.seed, key.step)]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layers.2 before layers.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

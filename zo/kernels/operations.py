"""The interface of every form of the kernels: its operations, and the two records that they take.

A term is (key, scale): 64 bits of Philox key and a number. Sums of terms are formed in fp32, in the order
given; every product and sum is rounded by itself (no fused multiply-add). A sum of no terms is 0. Weight decay
is taken off the sum: w + (Σ − decay · w).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zo.kernels.adam_window import Moments
from zo.kernels.formulas import Program
from zo.kernels.transforms import Entries

Terms = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Noise:
    """Names the random numbers of one parameter, beside the key of a direction.

    pid: the parameter's 64-bit id. stream: signs or Gaussians (zo/noise/philox.py).
    """

    pid: int
    stream: int


@dataclass(frozen=True, slots=True)
class Write:
    """Says how a move is written into weights; the same for all tensors of a step that have this decay.

    decay: share of the weight that is taken off. update: nearest, stochastic or master (zo/kernels/rounding.py).
    rounding_key: 64 bits of Philox key, for the random bits of stochastic rounding.
    """

    decay: float = 0.0
    update: str = "nearest"
    rounding_key: int = 0


PLAIN = Write()


class Kernels(Protocol):
    """The operations of every form; they are documented at Eager."""

    name: str

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None: ...

    def noise(
        self,
        keys: Sequence[int],
        noise: Noise,
        start: int,
        count: int,
        device: torch.device,
        room: Tensor | None = None,
    ) -> Sequence[Tensor]: ...

    def perturb(self, w: Tensor, noise: Noise, terms: Terms, out: Tensor | None = None) -> Tensor: ...

    def perturb_many(
        self,
        w: Tensor,
        noise: Noise,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        entries: Entries | None = None,
    ) -> list[Tensor]: ...

    def perturb_rows(
        self, w: Tensor, noise: Noise, terms: Terms, rows: Tensor, entries: Entries | None = None
    ) -> Tensor: ...

    def move(
        self,
        w: Tensor,
        noise: Noise,
        terms: Terms,
        write: Write = PLAIN,
        low: Tensor | None = None,
        entries: Entries | None = None,
    ) -> None: ...

    def moments(
        self,
        w: Tensor,
        noise: Noise,
        rule: Moments,
        keys: Sequence[int],
        write: Write = PLAIN,
        low: Tensor | None = None,
    ) -> bool: ...

    def formula(
        self,
        w: Tensor,
        noise: Noise,
        program: Program,
        keys: Sequence[int],
        state: Sequence[Tensor],
        write: Write = PLAIN,
        low: Tensor | None = None,
    ) -> bool: ...

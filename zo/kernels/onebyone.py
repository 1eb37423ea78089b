"""What the compiled and the Triton form share: they make one perturbed tensor a call."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zo.kernels.eager import Eager, Terms
from zo.kernels.transforms import Entries
from zo.noise import philox


class OneByOne(Eager):
    """The eager form, but that several perturbed tensors are made by as many calls of `perturb`.

    streams: whose numbers the form makes itself, without keeping them.
    """

    streams: tuple[int, ...] = (philox.SIGNS,)

    def warm(
        self, keys: Sequence[int], stream: int, layout: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        """Whole small models at once, for what the eager form does."""
        if stream not in self.streams:
            super().warm(keys, stream, layout, device)

    def perturb_many(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        entries: Entries | None = None,
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; sums of which something becomes are the eager form's."""
        if stream not in self.streams or entries is not None:
            return super().perturb_many(w, pid, stream, lists, outs, entries)
        places = [None] * len(lists) if outs is None else outs
        return [self.perturb(w, pid, stream, terms, out) for terms, out in zip(lists, places, strict=True)]

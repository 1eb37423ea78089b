"""What the compiled and the Triton form share: they make one perturbed tensor a call."""

from collections.abc import Sequence

from torch import Tensor

from zo.random import philox
from zo.random.eager import Eager, Terms
from zo.random.entries import Entries


class OneByOne(Eager):
    """The eager form, but that several perturbed tensors of signs are made by as many calls of `perturb`."""

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
        if stream != philox.SIGNS or entries is not None:
            return super().perturb_many(w, pid, stream, lists, outs, entries)
        places = [None] * len(lists) if outs is None else outs
        return [self.perturb(w, pid, stream, terms, out) for terms, out in zip(lists, places, strict=True)]

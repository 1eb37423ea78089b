"""What the compiled and the Triton form share: they make one perturbed tensor a call."""

from collections.abc import Sequence

from torch import Tensor

from zo.random import philox
from zo.random.eager import Eager, Terms


class OneByOne(Eager):
    """The eager form, but that several perturbed tensors of signs are made by as many calls of `perturb`."""

    def perturb_many(
        self,
        w: Tensor,
        pid: int,
        stream: int,
        lists: Sequence[Terms],
        outs: Sequence[Tensor] | None = None,
        under: Tensor | None = None,
    ) -> list[Tensor]:
        """One result of perturb for each list of terms; sums that are divided are the eager form's."""
        if stream != philox.SIGNS or under is not None:
            return super().perturb_many(w, pid, stream, lists, outs, under)
        places = [None] * len(lists) if outs is None else outs
        return [self.perturb(w, pid, stream, terms, out) for terms, out in zip(lists, places, strict=True)]

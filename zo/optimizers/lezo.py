"""LeZO: layer-wise sparse zeroth-order fine-tuning (Wang et al., arXiv 2410.09823).

    each step:  a share ρ of the layers is left out, drawn anew
    z_i ~ N(0, I) in the others, 0 in these;   then as MeZO, 2n forward passes

Layers left out are not perturbed and get no ĝ: their forward uses the weights as they are. Weight decay, where there
is one, acts on all. No state. Tensors outside
the layers (embeddings, the last norm, a head) are in every step. The released repository holds no code; ρ = 0.75 is
our choice. E‖z‖²/d is about 1 − ρ; nothing is rescaled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.fields import Share
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class LeZO(TwoPoint):
    """MeZO on some layers a step.

    drop: ρ, share of the layers that a step leaves out.
    """

    moves_all = False

    lr: Rate = 1e-6
    drop: Share = 0.75

    def begin(self) -> None:
        self.directions = {"kind": "layers", "drop": self.drop}
        super().begin()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return self.descend(t, losses, lr)

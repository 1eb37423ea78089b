"""Sparse-MeZO: fewer parameters for better performance (Liu et al., NeurIPS 2025).

    m_j = 1 where |θ_j| ≤ h, else 0;   h: the (1 − s) quantile of |θ| of each matrix, at the start
    z_i ~ N(0, I);   p_i = (L(θ + ε m⊙z_i) − L(θ − ε m⊙z_i)) / 2ε
    θ ← θ − η ((1/n) Σ p_i m⊙z_i + λ θ)                     2n forward passes

Small weights move, large ones stay. The mask follows θ while h does not: a weight that grows beyond h stops. Probe and
move see the same mask because θ is not written in between. State: one threshold a matrix. Biases and gains are not
masked, nor is a matrix whose h would be 0: one that starts at zero, as an adapter's B, would stop after its first
move. s = 0.75 is quoted for the paper; we could not check it against its text. E‖z‖²/d is about 1 − s, and nothing is
rescaled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from zo.fields import Share
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class SparseMeZO(TwoPoint):
    """MeZO on the small weights.

    sparsity: s, share of every matrix that stays.
    """

    small_problem: ClassVar[Mapping[str, Any]] = {
        "sparsity": 0.0
    }  # else most of a small matrix stays where it is

    lr: Rate = 1e-6
    sparsity: Share = 0.75

    def begin(self) -> None:
        self.directions = {"kind": "sparse", "sparsity": self.sparsity}
        super().begin()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return self.descend(t, losses, lr)

"""SubZero: random subspace zeroth-order optimization (Yu et al., ICCV 2025).

    U ∈ R^{m×r}, V ∈ R^{n×r} column-orthonormal, new every T0 steps;  Z_i ∈ R^{r×r}, entries N(0, 1)
    z_i = √(mn)/r · U Z_i Vᵀ                                zo/directions/subspace.py
    p_i = (L(θ + ε z_i) − L(θ − ε z_i)) / 2ε
    θ ← θ − η ((1/n) Σ p_i z_i + λ θ)                       2n forward passes

The factor √(mn)/r is the authors' code's: it makes E‖z‖² that of a dense Gaussian, so MeZO's learning rate carries
over. Vectors get dense Gaussians. Matrices of adapters are taken in nearly square shape, as in their code; here that
is done where a side is at most r. No state: U and V are functions of the seed and step // T0, and r (m + n) numbers a
matrix are kept while they serve. Their code has r = 8, T0 = 2000, their README 24 and 1000: the defaults.
The sign of QR is fixed (the diagonal of R is positive), so the subspace is one and Haar-distributed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from zo.fields import Count, Steps
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class SubZero(TwoPoint):
    """MeZO inside a subspace of every matrix.

    rank: r. refresh: T0, steps for which U and V stay.
    """

    lr: Rate = 1e-6
    rank: Count = 24
    refresh: Steps = 1000

    def begin(self) -> None:
        self.directions = {"kind": "subspace", "rank": self.rank, "every": self.refresh}
        super().begin()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return self.descend(t, losses, lr)

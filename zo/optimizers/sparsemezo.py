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

from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class SparseMeZO(TwoPoint):
    """MeZO on the small weights.

    sparsity: s, share of every matrix that stays.
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        sparsity: float = 0.75,
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        spec = {"kind": "sparse", "sparsity": sparsity}
        super().__init__(params, lr, eps, n, "two", spec, weight_decay, seed, on_nan)

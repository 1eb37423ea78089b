"""LOZO: enhancing zeroth-order fine-tuning with low-rank structures (Chen et al., ICLR 2025).

    U_i ∈ R^{m×r} fresh, V ∈ R^{n×r} fresh every ν steps, entries N(0, 1)
    p_i = (L(θ + ε U_i Vᵀ/√r) − L(θ − ε U_i Vᵀ/√r)) / 2ε
    θ ← θ − η ((1/n) Σ p_i U_i Vᵀ/√r + λ θ)                2n forward passes

No state: V is a function of the seed and step // ν. Vectors get g/√r, g dense Gaussians.

The paper and the authors' code probe along U Vᵀ, and along g for vectors; the paper divides the step of matrices by r,
**the authors' code leaves that out**. With 1/√r on all numbers it is the same step as the code's: their ε is ε/√r here
(ε = their ε · √r) and their learning rate η is r·η here, for matrices and vectors alike; at r = 1, the default of both,
nothing differs. At every refresh of V their code moves along another U than it probed; here both are the same numbers
by name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from zo.directions import Explicit, Key, LowRank
from zo.directions.lowrank import is_matrix, matrix_shape
from zo.fields import Count, Share, Steps
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint


@final
@dataclass(eq=False, kw_only=True)
class LOZO(TwoPoint):
    """MeZO along U Vᵀ/√r.

    rank: r. nu: ν, steps for which V stays.
    """

    lr: Rate = 1e-7
    rank: Count = 1
    nu: Steps = 100

    def begin(self) -> None:
        self.directions = {"kind": "lowrank", "rank": self.rank, "every": self.nu, "vectors": "rank"}
        super().begin()

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        return self.descend(t, losses, lr)


@final
@dataclass(eq=False, kw_only=True)
class LOZOM(TwoPoint):
    """LOZO-M, LOZO with momentum on the thin factor.

        N ← β N + (1 − β) (1/n) Σ p_i U_i/√r               [m, r] for every matrix
        θ ← θ − η (N Vᵀ + λ θ)
        when V is drawn anew:  N ← N V_oldᵀ V_new / n      n: the width, so that N Vᵀ stays what it was on average

    Vectors keep a dense momentum of the same β. State: r·m numbers a matrix. The paper's N is r times this one, as its
    step is divided by r. The authors' code has it for RoBERTa alone, with r = 4, ν = 50, β = 0.9 and, as it leaves 1/r
    out, a learning rate of 1e-6 that is 4e-6 here: the defaults. It begins with N = p U; here N begins at 0.
    """

    rule = "matrix"

    lr: Rate = 4e-6
    rank: Count = 4
    nu: Steps = 50
    beta: Share = 0.9

    def begin(self) -> None:
        self.kind = LowRank(self.rank, self.nu, "rank")
        self.directions = self.kind
        super().begin()
        self.state_tensors["momentum"] = {name: self._zeros(name) for name in self.weights.tensors}
        self.state_tensors["window"] = {
            "": torch.full((1,), -1.0, dtype=torch.float32, device="cpu")
        }  # t // ν of the V that N belongs to

    def state_bytes(self, tensors: Sequence[Tensor]) -> int:
        """N of every matrix and the momentum of the rest, beside the factors."""
        rank = self.kind.rank
        numbers = sum(matrix_shape(t)[0] * rank if is_matrix(t) else t.numel() for t in tensors)
        return super().state_bytes(tensors) + 4 * numbers

    def _zeros(self, name: str) -> Tensor:
        source = self.weights.source(name)
        if not is_matrix(source):
            return torch.zeros_like(source, dtype=torch.float32)
        return torch.zeros_like(self.kind.u(self.weights, name, Key(self.seed, 0, 0)))

    def _move(self, t: int, losses: Sequence[float], lr: float) -> dict[str, float]:
        slopes = self.slopes(losses)
        old = int(self.state_tensors["window"][""].item())
        for name, momentum in self.state_tensors["momentum"].items():
            if is_matrix(self.weights.source(name)):
                if old not in (-1, t // self.nu):
                    v_old = self.kind.v(self.weights, name, Key(self.seed, old * self.nu, 0))
                    v_new = self.kind.v(self.weights, name, Key(self.seed, t, 0))
                    momentum.copy_(momentum @ (v_old.T @ v_new) / len(v_old))
                g = sum(
                    self.kind.u(self.weights, name, key) * (c / math.sqrt(self.kind.rank))
                    for key, c in self.terms(t, slopes, 1.0)
                )
            else:
                terms = self.kind.terms(self.weights, name, self.terms(t, slopes, 1.0))
                g = self.weights.numbers(name, self.kind.stream, terms)
            momentum.mul_(self.beta).add_(g, alpha=1.0 - self.beta)
        self.state_tensors["window"][""].fill_(t // self.nu)
        self.check_size(lr * math.sqrt(math.fsum(p * p for p in slopes)) / self.n * (1.0 - self.beta))
        given = Explicit(lambda name: self._direction(name, t))
        self.weights.move([(Key(self.seed, t, 0), -lr)], given, **self.pass_options(t, lr))
        return self.metrics(losses, slopes)

    def _direction(self, name: str, t: int) -> Tensor | tuple[Tensor, Tensor]:
        momentum = self.state_tensors["momentum"][name]
        if not is_matrix(self.weights.source(name)):
            return momentum
        return momentum, self.kind.v(self.weights, name, Key(self.seed, t, 0))
